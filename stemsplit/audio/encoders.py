"""Encoders: the protocol of all of them, libsndfile's, quantisation, and resampling before any of them.

libsndfile writes WAV and RF64, and Ogg Vorbis, because FFmpeg's own Vorbis encoder is poor. FFmpeg writes everything
else: it keeps covers, has Opus, AAC and ALAC, and notes the silence that its encoders add, so that decoders cut it.
What neither can do is added to the finished files: tags in Ogg, the padding of an MP3, the names in a stem file.
"""

import errno
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

import numpy as np
import numpy.typing as npt
import soundfile  # type: ignore[import-untyped]

from stemsplit.audio import id3, vorbis_comments
from stemsplit.audio.decoding import Stems
from stemsplit.audio.formats import Format
from stemsplit.audio.tags import Tags

# +18 dB: no music is louder, and encoders fail on louder samples (LAME ends the program).
LOUDEST = 8.0
# Samples at a time: libsndfile puts all of them on the stack, and the result depends on their number.
_VORBIS_BLOCK = 8_192

DITHERED_BITS = 16

_INFO_FIELDS = {
    "title": "title",
    "artist": "artist",
    "album": "album",
    "track": "tracknumber",
    "date": "date",
    "genre": "genre",
    "comment": "comment",
    "copyright": "copyright",
}


class Encoder(Protocol):
    """Writes one file with one or more audio streams.

    All methods raise OSError if something cannot be written, with ENOSPC if a library does not say why.

    Attributes:
        paths: All files that it creates, known from the start; the first one is the result.
    """

    paths: Sequence[Path]

    def open(self) -> None:
        """Create the file, which must not exist yet."""

    def write(self, stems: Stems) -> None:
        """Append samples `(S, C, n)`, one row for each audio stream."""

    def finish(self, length: int) -> None:
        """Complete the file; `length` is the number of samples that were written."""

    def close(self) -> None:
        """Close all files, finished or not; a second call does nothing."""


class Quantiser:
    """Rounds one stream of samples to integers, 1.0 being 2^(bits - 1) steps, and clips them at full scale.

    24 bits are rounded to the nearest step; the error is at -146 dBFS, below any noise. 16 bits get TPDF dither of two
    steps peak to peak, which makes the mean and the power of the error independent of the signal (Lipshitz, Wannamaker
    and Vanderkooy, "Quantization and dither: a theoretical survey", JAES 40, 1992).

    Samples that are already on a step are not rounded and get no dither. So digital silence stays silent, and samples
    from a file of 16 bits, such as a mixture, are written back bit for bit. Elsewhere a stem is hardly ever on a step,
    so the noise does not come and go.

    Args:
        bits: 16 or 24.
        seed: The dither depends on it alone, not on how the stream is cut into blocks. Stems should have different
            seeds, so that their dither is uncorrelated.
    """

    def __init__(self, bits: int, seed: int = 0) -> None:
        self._bits = bits
        self._random = np.random.Generator(np.random.PCG64(seed)) if bits <= DITHERED_BITS else None

    def __call__(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
        """Round the next samples `(n, C)` of the stream; the integers are in the upper bits of 32."""
        full = 2 ** (self._bits - 1)
        if self._random is None:  # exact in single precision: a power of two changes the exponent only
            steps = np.clip(samples, -1, 1) * np.float32(full)
            np.minimum(np.rint(steps, out=steps), full - 1, out=steps)
        else:
            fine = samples * np.float64(full)
            first, second = np.moveaxis(self._random.random((*samples.shape, 2), dtype=np.float32), -1, 0)
            nearest = np.rint(fine)
            nearest = np.where(nearest == fine, fine, np.rint(fine + (first - second)))
            steps = np.clip(nearest, -full, full - 1)
        limited: npt.NDArray[np.int32] = steps.astype(np.int32)
        limited <<= 32 - self._bits
        return limited


class SndfileEncoder:
    """WAV, RF64 and Ogg Vorbis, with one audio stream."""

    def __init__(
        self, path: Path, format: Format, rate: int, channels: int, *, tags: Tags, rf64: bool = False, seed: int = 0
    ) -> None:
        self._format, self._rate, self._channels, self._tags = format, rate, channels, tags
        self._container = "OGG" if format.name == "ogg" else "RF64" if rf64 else "WAV"
        self._quantiser = Quantiser(int(format.bits), seed) if format.bits in ("16", "24") else None
        self._files: list[BinaryIO] = []
        self._sound: soundfile.SoundFile | None = None
        self._pending: npt.NDArray[np.float32] = np.zeros((0, channels), np.float32)
        self.paths: Sequence[Path] = [path]
        if format.name == "ogg":
            self.paths = [path, path.with_name(f"{path.name}.raw")]

    def open(self) -> None:
        file = self._open(self.paths[-1], "xb")
        options: dict[str, Any] = {}
        if self._format.quality is not None:
            options["compression_level"] = 1 - self._format.quality / 10
        subtype = {"16": "PCM_16", "24": "PCM_24", "32f": "FLOAT", None: "VORBIS"}[self._format.bits]
        with _as_full_disk():
            # By descriptor: soundfile does not accept names that are not UTF-8.
            self._sound = soundfile.SoundFile(
                file.fileno(),
                "w",
                self._rate,
                self._channels,
                subtype,
                format=self._container,
                closefd=False,
                **options,
            )
            if self._container != "OGG":
                for name, text in self._tags.named(_INFO_FIELDS).items():
                    setattr(self._sound, name, text)

    def write(self, stems: Stems) -> None:
        samples: npt.NDArray[Any] = stems[0].T
        if self._container == "OGG":
            samples = np.concatenate([self._pending, np.clip(samples, -LOUDEST, LOUDEST)])
            ready = len(samples) - len(samples) % _VORBIS_BLOCK
            self._pending = samples[ready:]
            blocks = [samples[start : start + _VORBIS_BLOCK] for start in range(0, ready, _VORBIS_BLOCK)]
        else:
            blocks = [self._quantiser(samples) if self._quantiser else samples]
        self._write(blocks)

    def finish(self, length: int) -> None:
        assert self._sound
        self._write([self._pending])
        with _as_full_disk():
            self._sound.close()
        if self._format.sample_bytes:
            check_size(self._files[0], length * self._channels * self._format.sample_bytes)
            file = self._open(self.paths[0], "r+b")
            if self._format.bits == "32f":
                _clear_timestamp(file)
            append_id3(file, id3.pack(self._tags))
        else:
            self._retag()
        for file in self._files:
            file.close()

    def close(self) -> None:
        for file in (self._sound, *self._files):
            with suppress(soundfile.LibsndfileError, OSError):  # a full disk, already reported
                if file is not None:
                    file.close()

    def _write(self, blocks: Sequence[npt.NDArray[Any]]) -> None:
        assert self._sound
        with _as_full_disk():
            for block in blocks:
                self._sound.write(np.ascontiguousarray(block))

    def _open(self, path: Path, mode: Literal["rb", "r+b", "xb"]) -> BinaryIO:
        """Open a file until `close`; a signal at the end of a `with` could leave it open."""
        self._files.append(path.open(mode))
        return self._files[-1]

    def _retag(self) -> None:
        final, raw = self.paths
        try:
            target = self._open(final, "xb")
            vorbis_comments.retag(self._open(raw, "rb"), target, vorbis_comments.comments(self._tags))
        except ValueError as error:
            raise OSError(errno.ENOSPC, str(error)) from error
        for file in self._files:
            file.close()
        raw.unlink()


class ResamplingEncoder:
    """Resamples for another encoder whose format does not have the song's sample rate; the length is rounded.

    Args:
        encoder: Writes the file.
        old: Sample rate of the samples, Hz.
        new: Sample rate of the file, Hz.
    """

    def __init__(self, encoder: Encoder, old: int, new: int) -> None:
        self.paths = encoder.paths
        self._encoder, self._old, self._new = encoder, old, new
        self._stream: Any = None
        self._shape = (0, 0)
        self._length = 0

    def open(self) -> None:
        self._encoder.open()

    def write(self, stems: Stems) -> None:
        import soxr  # type: ignore[import-untyped]

        self._shape = stems.shape[:2]
        if self._stream is None:
            count = int(np.prod(self._shape))
            self._stream = soxr.ResampleStream(self._old, self._new, count, dtype="float32", quality="VHQ")
        self._write(stems.reshape(-1, stems.shape[2]).T)

    def finish(self, length: int) -> None:
        if self._stream is not None:
            self._write(np.zeros((0, int(np.prod(self._shape))), np.float32), last=True)
        self._encoder.finish(self._length)

    def close(self) -> None:
        self._encoder.close()

    def _write(self, samples: npt.NDArray[np.float32], *, last: bool = False) -> None:
        part: npt.NDArray[np.float32] = self._stream.resample_chunk(np.ascontiguousarray(samples), last=last)
        self._length += len(part)
        self._encoder.write(np.ascontiguousarray(part.T).reshape(*self._shape, -1))


@contextmanager
def _as_full_disk() -> Iterator[None]:
    try:
        yield
    except soundfile.LibsndfileError as error:
        raise OSError(errno.ENOSPC, str(error)) from error


def check_size(file: BinaryIO, least: int) -> None:
    """Raise OSError if a file has fewer bytes than were written to it."""
    if os.fstat(file.fileno()).st_size < least:
        raise OSError(errno.ENOSPC, "the file is shorter than what was written to it")


def append_id3(file: BinaryIO, tag: bytes) -> None:
    """Append a tag to a complete WAV or RF64, as a chunk.

    Args:
        file: Opened for reading and writing.
        tag: An ID3 tag; nothing is appended if it is empty.
    """
    if not tag:
        return
    end = file.seek(0, os.SEEK_END)
    file.write(bytes(end % 2) + b"id3 " + struct.pack("<I", len(tag)) + tag + bytes(len(tag) % 2))
    size = file.tell() - 8
    file.seek(0)
    if file.read(4) == b"RF64":
        file.seek(20)  # in the chunk "ds64", which comes first (EBU Tech 3306)
        file.write(struct.pack("<Q", size))
    else:
        file.write(struct.pack("<I", size))


def _clear_timestamp(file: BinaryIO) -> None:
    """Clear the time that libsndfile stores in float WAVs: the same song should give the same file."""
    offset = 12
    while True:
        file.seek(offset)
        chunk, size = struct.unpack("<4sI", file.read(8))
        if chunk == b"PEAK":
            file.seek(offset + 12)  # after the version
            file.write(bytes(4))
        if chunk in (b"PEAK", b"data"):
            return
        offset += 8 + size + size % 2
