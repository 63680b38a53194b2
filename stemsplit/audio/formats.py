"""What stems can be written as: containers, sample formats, bit rates, and the sample rates that each of them takes."""

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
    """What there is to choose for a format, and what it is if nobody chooses."""

    label: str
    extension: str
    choices: str  # for hints
    bits: tuple[str, ...] = ()  # the first one is the default
    bitrates: Container[int] = ()  # bit/s
    bitrate: int | None = None
    qualities: tuple[float, float] | None = None  # least and greatest, on the codec's own scale
    quality: float | None = None
    rates: tuple[int, ...] = ()  # Hz; none: any, up to `top_rate`
    top_rate: int = 2**31 - 1
    most: int = 0  # bit/s, where the bit rate follows the quality


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
        most=320_000,
    ),
    "ogg": _Kind(
        "Ogg Vorbis",
        ".ogg",
        "--quality 0 to 10 (best)",
        qualities=(0, 10),
        quality=8,
        top_rate=192_000,  # libsndfile's encoder crashes above 200 kHz
        most=500_000,
    ),
    "opus": _Kind(
        "Opus",
        ".opus",
        "--bitrate 6k to 510k",
        bitrates=range(6_000, 510_001),
        bitrate=192_000,
        rates=(48_000,),  # RFC 7845: whatever it is made from, it comes back at this rate
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
"""The names of formats: wav, flac, mp3, ogg (Vorbis), opus, m4a (AAC), and alac (lossless, in an .m4a)."""


@dataclass(frozen=True, slots=True)
class Format:
    """How a stem is written.

    name: one of FORMATS. bits: "16" (with dither), "24", or "32f" (float, WAV only) if it is lossless, else None.
    bitrate: bit/s. quality: for a variable bit rate, on the codec's own scale: mp3 0 (best) to 9, ogg 0 to 10 (best).
    What is left out gets the format's default. UsageError for what does not go together.
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
        """The format of a user's words, such as "mp3" and "320k". UsageError if they make no sense."""
        rate = None if bitrate is None else _parse_bitrate(bitrate)
        return cls(name.lower().removeprefix("."), bits.lower() if bits else None, rate, quality)

    @classmethod
    def of(cls, paths: Iterable[Path]) -> "Format":
        """The format that the names of files end in, as it is by default. UsageError if there is none, or several."""
        found = {
            next((name for name, kind in _KINDS.items() if kind.extension == path.suffix.lower()), "") for path in paths
        }
        if found == {""} or len(found) > 1:
            hint = f"end them in one of {', '.join(dict.fromkeys(kind.extension for kind in _KINDS.values()))}"
            raise UsageError("the names of the stems do not end as those of one format do", hint)
        return cls(found.pop())

    @property
    def label(self) -> str:
        """What people call it."""
        return self._kind.label

    @property
    def extension(self) -> str:
        """What the names of its files end in, with the dot."""
        return self._kind.extension

    @property
    def lossless(self) -> bool:
        """Whether reading a file gives the samples that were written, but for their rounding."""
        return bool(self._kind.bits)

    @property
    def clips(self) -> bool:
        """Whether samples beyond full scale are lost: in the file, or, if it is lossy, in most players."""
        return self.bits != "32f"

    @property
    def sample_bytes(self) -> int | None:
        """Bytes of a sample before compression, or None if it is lossy."""
        return _SAMPLE_BYTES[self.bits] if self.bits else None

    def rate_for(self, rate: int) -> int:
        """The rate at which a song of `rate` Hz is written: the same, else the next higher one, else the highest.

        AudioError: the format is lossless, and none of its rates is that high.
        """
        kind = self._kind
        if kind.rates:
            return min((known for known in kind.rates if known >= rate), default=max(kind.rates))
        if rate > kind.top_rate and self.lossless:
            raise AudioError(f"{kind.label} has no sample rate of {rate} Hz", "choose --format wav")
        return min(rate, kind.top_rate)

    def bytes_per_second(self, rate: int, channels: int) -> int:
        """The most that a second of a stem of `rate` Hz takes up, about."""
        if self.sample_bytes:
            return self.rate_for(rate) * channels * self.sample_bytes
        return (self.bitrate or self._kind.most) // 8

    def __str__(self) -> str:
        if self.bits:
            return f"{self.label}, {self.bits} bits".replace("32f bits", "32 bits float")
        how = f"{self.bitrate / 1000:g} kbit/s" if self.bitrate else f"quality {self.quality:g}"
        return f"{self.label}, {how}"

    @property
    def _kind(self) -> _Kind:
        return _KINDS[self.name]

    def _problem(self, kind: _Kind) -> str | None:
        """What is asked for that this format does not have."""
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
    """ "320k", "320 kbit/s", "320" or "320000" as 320000."""
    found = _BITRATE.fullmatch(text.strip())
    if found is None:
        raise UsageError(f"{text!r} is not a bit rate", "write it like 320k")
    number = int(found[1])
    # Nobody means 320 bits a second.
    return number * 1000 if found[2] or number < 1000 else number
