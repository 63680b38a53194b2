"""Writing stems: a `StemWriter` encodes all stems of a song, and its files appear complete or not at all."""

import contextlib
import errno
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from stemsplit import signals
from stemsplit.audio.decoding import Stems
from stemsplit.audio.encoders import Encoder, ResamplingEncoder, SndfileEncoder
from stemsplit.audio.formats import Format
from stemsplit.audio.stem_file import StemFile
from stemsplit.audio.tags import Tags
from stemsplit.errors import AudioError, UsageError
from stemsplit.files import beside, check_free, sweep

# The samples of the largest WAV, in bytes: its sizes have 32 bits, and libsndfile does not notice an overflow; its tags
# need some room. RF64 (EBU Tech 3306) has sizes of 64 bits, but not every player reads it.
WAV_LIMIT = 2**32 - 2**24
LENGTH_MARGIN = 1.01  # expected lengths are estimates

# By any writer of this process: if several that share a folder fail, the last one removes it.
_created_folders: set[Path] = set()
_FULL = {getattr(errno, name) for name in ("ENOSPC", "EFBIG", "EDQUOT") if hasattr(errno, name)}
_NEVER_EMPTY = ("mp3", "opus", "m4a", "alac")  # decoders reject files of these formats without samples


class StemWriter:
    """Writes all stems of one song; a context manager.

    Stems are written to temporary files beside their final names, and renamed when the block ends without an exception.
    Otherwise, also after Ctrl-C, nothing is left: no files, and no folders that were created for them.

    Args:
        paths: Files for the first rows of the blocks that are written.
        rate: Hz. If the format does not have this sample rate, stems are resampled, with a warning.
        channels: Of each stem.
        format: WAV of 24 bits if None.
        tags: Tags for each path, or empty.
        stem_file: A stem file to write as well, or, without paths, alone.
        overwrite: Replace files that exist.
        expected_length: Samples, an estimate; if it exceeds the limit of WAV, RF64 is written instead.

    Attributes:
        clipped: Number of samples beyond full scale so far, in all stems. Integer formats clip them. Lossy formats keep
            them, but most players clip. Always 0 for float.
        peak: The greatest magnitude of a sample so far, in all stems.
        length: Samples per stem so far, at `rate`.
        warnings: Sentences about files that differ from what was requested.

    Raises:
        UsageError: Two stems have the same path.
        AudioError: A file exists and `overwrite` is not set, or is a folder; or the format has no such sample rate.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        rate: int,
        channels: int,
        format: Format | None = None,
        tags: Sequence[Tags] = (),
        stem_file: StemFile | None = None,
        overwrite: bool = False,
        expected_length: int | None = None,
    ) -> None:
        format = format or Format()
        all_paths = [*paths, *([stem_file.path] if stem_file else [])]
        if len(set(all_paths)) < len(all_paths):
            raise UsageError("two stems would be written to the same file", "put {stem} into the name")
        self.clipped = 0
        self.peak = 0.0
        self.length = 0
        self._paths = all_paths
        self._overwrite = overwrite
        stem_file_rows = set(stem_file.stems.values()) if stem_file else set()  # without the mixture
        self._stem_rows = sorted({*range(len(paths)), *stem_file_rows})
        self._clipping_rows = sorted({*(range(len(paths)) if format.clips else ()), *stem_file_rows})
        self._shape = (max([len(paths), *(row + 1 for row in (stem_file.rows if stem_file else ()))]), channels)
        self._frame_bytes = channels * (format.sample_bytes or 0) if format.name == "wav" else 0
        self._rf64 = (expected_length or 0) * LENGTH_MARGIN * self._frame_bytes > WAV_LIMIT
        self._folders: list[Path] = []
        self._parts = [
            _Part(path, [row], format, rate, channels, tags=tag, rf64=self._rf64)
            for row, (path, tag) in enumerate(zip(paths, tags or [Tags()] * len(paths), strict=True))
        ]
        if stem_file:
            self._parts.append(_part_of(stem_file, rate, channels))
        self.warnings = list(dict.fromkeys(part.warning for part in self._parts if part.warning))
        self._open = contextlib.ExitStack()
        self._check_free()

    def __enter__(self) -> "StemWriter":
        with contextlib.ExitStack() as stack:
            stack.enter_context(signals.deferred())
            stack.push(self._discard_after)
            for part in self._parts:
                with reporting(part.path.parent):
                    self._make_folder(part.path.parent)
                sweep(part.path)
                part.open()
            self._open = stack.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            self._open.__exit__(kind, error, at)
            return
        with self._open:
            for part in self._parts:
                part.finish(self.length)
            self._check_free()
            for part in self._parts:
                part.publish()

    def write(self, stems: Stems) -> None:
        """Append a block `(S, C, n)`; each row goes to its file.

        Integer formats round to the nearest step, 16 bits with dither. 1.0 is 2^(bits - 1) steps, as in `Reader`, so
        samples read from such a file are written back unchanged.

        Raises:
            AudioError: The disk is full, a WAV is too long, or samples are not finite.
        """
        signals.check()
        if stems.shape[:2] != self._shape:
            raise ValueError(f"stems of shape {stems.shape} for {self._shape[0]} rows of {self._shape[1]} channels")
        peaks = [max(float(row.max(initial=0)), -float(row.min(initial=0))) for row in stems]
        if not np.isfinite(peaks).all():  # the maximum is NaN if a sample is
            raise AudioError("the model returned samples that are not finite", "try another model, or another device")
        if not self._rf64 and (self.length + stems.shape[2]) * self._frame_bytes > WAV_LIMIT:
            folder = str(self._paths[0].parent)
            hint = "convert the song to FLAC first, so that its length is known, or choose --format flac"
            raise AudioError(f"the stems in {folder!r} are too long for WAV, which ends at 4 GiB", hint)
        for part in self._parts:
            part.write(stems)
        loud = [row for row in self._clipping_rows if peaks[row] > 1]
        self.clipped += int(np.count_nonzero(np.abs(stems[loud]) > 1)) if loud else 0
        self.peak = max([self.peak, *(peaks[row] for row in self._stem_rows)])
        self.length += stems.shape[2]

    def _check_free(self) -> None:
        for path in self._paths:
            with reporting(path):
                check_free(path, overwrite=self._overwrite)

    def _discard_after(self, kind: type[BaseException] | None, error: BaseException | None, at: object) -> None:
        """After an exception, remove all files, and the folders that were created for them."""
        if kind is None:
            return
        for part in self._parts:
            part.discard()
        for folder in reversed(self._folders):
            with contextlib.suppress(OSError):  # another program has put a file there
                folder.rmdir()

    def _make_folder(self, folder: Path) -> None:
        for parent in reversed((folder, *folder.parents)):
            missing = not parent.exists()
            if missing:
                _created_folders.add(parent)
            if parent in _created_folders:
                self._folders.append(parent)
            if missing:
                parent.mkdir(exist_ok=True)


class _Part:
    """One file while it is being written."""

    def __init__(
        self,
        path: Path,
        rows: Sequence[int],
        format: Format,
        rate: int,
        channels: int,
        *,
        tags: Tags,
        new_rate: int | None = None,
        names: Sequence[str] = (),
        rf64: bool = False,
    ) -> None:
        """`rows` are indices in the blocks, `new_rate` is that of the file in Hz, `names` are a stem file's streams."""
        self.path = path
        self.warning = ""
        self._rows = list(rows)
        self._format = format
        self._published = False
        self._repeats = 2 if names and channels == 1 else 1  # the streams of a stem file are stereo
        new_rate = new_rate or format.rate_for(rate)
        common = (beside(path), format, new_rate, channels * self._repeats)
        self._encoder: Encoder
        if format.name in ("wav", "ogg"):
            self._encoder = SndfileEncoder(*common, tags=tags, rf64=rf64, seed=rows[0])
        else:
            from stemsplit.audio.ffmpeg_encoder import FFmpegEncoder  # PyAV takes 0.1 s to import

            self._encoder = FFmpegEncoder(*common, tags=tags, names=names, seed=rows[0])
        if new_rate != rate:
            self._encoder = ResamplingEncoder(self._encoder, rate, new_rate)
            kind = "a stem file" if names else format.label
            self.warning = f"{kind} has no sample rate of {rate} Hz, so it is written at {new_rate} Hz"

    def open(self) -> None:
        with reporting(self.path):
            self._encoder.open()

    def write(self, stems: Stems) -> None:
        with reporting(self.path):
            self._encoder.write(stems[self._rows].repeat(self._repeats, axis=1))

    def finish(self, length: int) -> None:
        """Complete the file and check its size."""
        if length == 0 and self._format.name in _NEVER_EMPTY:
            raise AudioError(
                f"the song is empty, which {self._format.label} cannot hold", "choose --format wav or flac"
            )
        with reporting(self.path):
            self._encoder.finish(length)

    def publish(self) -> None:
        self._published = True
        with reporting(self.path):
            self._encoder.paths[0].replace(self.path)

    def discard(self) -> None:
        self._encoder.close()
        for auxiliary in self._encoder.paths[1:]:
            with contextlib.suppress(OSError):
                auxiliary.unlink()
        with contextlib.suppress(OSError):
            try:
                self._encoder.paths[0].unlink()
            except FileNotFoundError:
                if self._published:  # it has the final name already
                    self.path.unlink()


def _part_of(stem_file: StemFile, rate: int, channels: int) -> _Part:
    """Create the part that becomes a stem file."""
    return _Part(
        stem_file.path,
        stem_file.rows,
        stem_file.format,
        rate,
        channels,
        tags=stem_file.tags,
        new_rate=stem_file.rate_for(rate),
        names=["mixture", *stem_file.names],
    )


@contextlib.contextmanager
def reporting(path: Path) -> Iterator[None]:
    """Turn an OSError while `path` is being written into an AudioError."""
    try:
        yield
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> AudioError:
    if error.errno in _FULL:
        hint = "make room, or choose another folder"
        return AudioError(f"cannot write to {str(path.parent)!r}: the disk is full, or a quota is reached", hint)
    hint = "choose another folder, or change its permissions"
    return AudioError(f"cannot write to {str(path)!r}: {error.strerror}", hint)
