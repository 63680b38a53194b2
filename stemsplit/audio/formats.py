"""The formats in which stems can be written, with their bit depths, bit rates and sample rates."""

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass
from pathlib import Path

from stemsplit.errors import AudioError, UsageError

_MP3_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)  # MPEG-1, 2 and 2.5, layer III
_AAC_RATES = (7_350, *_MP3_RATES, 64_000, 88_200, 96_000)  # ISO/IEC 14496-3, table 1.18
_MP3_BITRATES = tuple(1_000 * k for k in (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320))
_BITRATE = re.compile(r"(\d{1,6})(\s*k(?:b(?:it)?(?:ps|/s))?)?", re.IGNORECASE)
_SAMPLE_BYTES = {"16": 2, "24": 3, "32f": 4}


@dataclass(frozen=True, slots=True)
class _Kind:
    """The choices and defaults of a format."""

    label: str
    extension: str
    choices: str  # for hints
    bits: tuple[str, ...] = ()  # the first is the default
    bitrates: Container[int] = ()  # bit/s
    bitrate: int | None = None
    qualities: tuple[float, float] | None = None  # lowest and highest, on the codec's scale
    quality: float | None = None
    rates: tuple[int, ...] = ()  # Hz; if empty, any up to `top_rate`
    top_rate: int = 2**31 - 1
    max_bitrate: int = 0  # bit/s, if the bit rate depends on the quality


_KINDS = {
    "wav": _Kind("WAV", ".wav", "--bits 16, 24 or 32f", bits=("24", "16", "32f")),
    "flac": _Kind("FLAC", ".flac", "--bits 16 or 24", bits=("24", "16"), top_rate=2**20 - 1),  # 20 bits in its header
    "mp3": _Kind(
        "MP3",
        ".mp3",
        f"--bitrate {', '.join(f'{rate // 1000}k' for rate in _MP3_BITRATES)}, or --quality 0 (best) to 9",
        bitrates=_MP3_BITRATES,
        bitrate=320_000,
        qualities=(0, 9),
        rates=_MP3_RATES,
        max_bitrate=320_000,
    ),
    "ogg": _Kind(
        "Ogg Vorbis",
        ".ogg",
        "--quality 0 to 10 (best)",
        qualities=(0, 10),
        quality=8,
        top_rate=192_000,  # libsndfile's encoder crashes above 200 kHz
        max_bitrate=500_000,
    ),
    "opus": _Kind(
        "Opus",
        ".opus",
        "--bitrate 6k to 510k",
        bitrates=range(6_000, 510_001),
        bitrate=192_000,
        rates=(48_000,),  # decoders always give this rate (RFC 7845)
    ),
    "m4a": _Kind(
        "AAC",
        ".m4a",
        "--bitrate 16k to 512k",
        bitrates=range(16_000, 512_001),
        bitrate=256_000,
        rates=_AAC_RATES,
    ),
    "alac": _Kind("ALAC", ".m4a", "--bits 16 or 24", bits=("24", "16"), top_rate=384_000),
}

FORMATS = tuple(_KINDS)
"""Names of formats: wav, flac, mp3, ogg (Vorbis), opus, m4a (AAC), and alac (lossless, in an .m4a)."""


@dataclass(frozen=True, slots=True)
class Format:
    """A format for stems; options that are None get the format's default.

    Attributes:
        name: One of `FORMATS`.
        bits: "16" (with dither), "24" or "32f" (float, WAV only) for lossless formats, else None.
        bitrate: bit/s, or None.
        quality: For a variable bit rate, on the codec's scale: mp3 0 (best) to 9, ogg 0 to 10 (best).

    Raises:
        UsageError: The format is unknown, or does not have such an option.
    """

    name: str = "wav"
    bits: str | None = None
    bitrate: int | None = None
    quality: float | None = None

    def __post_init__(self) -> None:
        if self.name not in _KINDS:
            raise UsageError(f"unknown format {self.name!r}", f"choose one of {', '.join(FORMATS)}")
        kind = self._kind
        if problem := self._problem(kind):
            raise UsageError(f"{kind.label} has no {problem}", f"choose {kind.choices}")
        if self.bitrate is not None and self.quality is not None:
            raise UsageError("a bit rate and a quality contradict each other", "give one of --bitrate and --quality")
        if kind.bits and self.bits is None:
            object.__setattr__(self, "bits", kind.bits[0])
        if self.bitrate is None and self.quality is None:
            object.__setattr__(self, "bitrate", kind.bitrate)
            object.__setattr__(self, "quality", kind.quality)

    @classmethod
    def parse(
        cls, name: str = "wav", *, bits: str | None = None, bitrate: str | None = None, quality: float | None = None
    ) -> "Format":
        """Return the format for a user's input, such as "mp3" and "320k".

        Raises:
            UsageError: The format is unknown, or does not have such an option.
        """
        rate = None if bitrate is None else _parse_bitrate(bitrate)
        return cls(name.lower().removeprefix("."), bits.lower() if bits else None, rate, quality)

    @classmethod
    def of(cls, paths: Iterable[Path]) -> "Format":
        """Return the format with the suffix of some files, with default options.

        Raises:
            UsageError: The suffix is unknown, or they have several.
        """
        names = {
            next((name for name, kind in _KINDS.items() if kind.extension == path.suffix.lower()), "") for path in paths
        }
        if names == {""} or len(names) > 1:
            hint = f"use one of {', '.join(dict.fromkeys(kind.extension for kind in _KINDS.values()))}"
            raise UsageError("output files have mixed or unknown extensions", hint)
        return cls(names.pop())

    @property
    def label(self) -> str:
        """The name for people."""
        return self._kind.label

    @property
    def extension(self) -> str:
        """The suffix of its files, with the dot."""
        return self._kind.extension

    @property
    def lossless(self) -> bool:
        """Whether decoding gives the samples that were written, except for rounding."""
        return bool(self._kind.bits)

    @property
    def clips(self) -> bool:
        """Whether samples beyond full scale are clipped: in the file, or by most players if it is lossy."""
        return self.bits != "32f"

    @property
    def sample_bytes(self) -> int | None:
        """Bytes per sample before compression, or None if it is lossy."""
        return _SAMPLE_BYTES[self.bits] if self.bits else None

    def rate_for(self, rate: int) -> int:
        """Return the sample rate to write a song of `rate` Hz at: the same, the next higher one, or the highest.

        Raises:
            AudioError: The format is lossless, and none of its sample rates is that high.
        """
        kind = self._kind
        if kind.rates:
            return min((known for known in kind.rates if known >= rate), default=max(kind.rates))
        if rate > kind.top_rate and self.lossless:
            raise AudioError(f"{kind.label} has no sample rate of {rate} Hz", "choose --format wav")
        return min(rate, kind.top_rate)

    def bytes_per_second(self, rate: int, channels: int) -> int:
        """Return an upper estimate of the size of one second of a stem of `rate` Hz."""
        if self.sample_bytes:
            return self.rate_for(rate) * channels * self.sample_bytes
        return (self.bitrate or self._kind.max_bitrate) // 8

    def __str__(self) -> str:
        if self.bits:
            return f"{self.label}, {self.bits} bits".replace("32f bits", "32 bits float")
        setting = f"{self.bitrate / 1000:g} kbit/s" if self.bitrate else f"quality {self.quality:g}"
        return f"{self.label}, {setting}"

    @property
    def _kind(self) -> _Kind:
        return _KINDS[self.name]

    def _problem(self, kind: _Kind) -> str | None:
        """Return what the format does not have, or None."""
        if self.bits is not None and self.bits not in kind.bits:
            return f"samples of {self.bits!r} bits" if kind.bits else "choice of bits, as it is lossy"
        if self.bitrate is not None and self.bitrate not in kind.bitrates:
            return f"bit rate of {self.bitrate / 1000:g}k"
        if self.quality is not None:
            if not kind.qualities:
                return "choice of quality"
            if not kind.qualities[0] <= self.quality <= kind.qualities[1]:
                return f"quality {self.quality:g}"
        return None


def _parse_bitrate(text: str) -> int:
    """Return "320k", "320 kbit/s", "320" or "320000" as 320000."""
    match = _BITRATE.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{text!r} is not a bit rate", "write it like 320k")
    number = int(match[1])
    # Numbers below 1000 mean kbit/s, with or without the unit.
    return number * 1000 if match[2] or number < 1000 else number
