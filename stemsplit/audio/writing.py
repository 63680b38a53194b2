"""Stems out: files of any format that appear complete or not at all."""

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

# Bytes that the chunks of a WAV can have in all: its sizes are 32-bit numbers, and libsndfile does not notice when they
# wrap. RF64 (EBU Tech 3306) is the same with 64-bit sizes, but not every player knows it.
WAV_LIMIT = 2**32 - 2**16
LENGTH_MARGIN = 1.01  # expected lengths are estimates

_made: set[Path] = set()  # folders, by any writer of this process: of several that fail, the last one removes them
_FULL = {getattr(errno, name) for name in ("ENOSPC", "EFBIG", "EDQUOT") if hasattr(errno, name)}
_NEVER_EMPTY = ("mp3", "opus", "m4a", "alac")  # no decoder reads such a file that has nothing in it


class StemWriter:
    """Writes all stems of one song; a context manager.

    The stems grow in temporary files beside their final names, and get these names when the block ends without an
    exception, Ctrl-C included. Otherwise nothing is left: no file and no folder that was made for them.

    clipped: samples beyond full scale so far, over all stems. Integer formats write them at full scale, lossy ones keep
    them, but most players do not; they never scale the rest. Always 0 for float, which keeps them.
    peak: the greatest magnitude of a sample so far, over all stems.
    length: samples per stem so far, at the caller's rate. warnings: sentences about what is written other than asked.
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
        """Check what can be checked before the work starts; nothing is written yet.

        paths: a file for each of the first rows of what is written. rate: Hz; a format that does not have it gets the
        stems resampled, with a warning. format: WAV of 24 bits if None. tags: of every path; none if empty.
        stem_file: written as well, or, without paths, alone. expected_length: samples, an estimate, from which RF64
        instead of WAV is chosen if it takes that.

        UsageError: two stems of one name. AudioError: a stem exists already and `overwrite` is not set, or is a folder;
        or the format has no such rate.
        """
        format = format or Format()
        everything = [*paths, *([stem_file.path] if stem_file else [])]
        if len(set(everything)) < len(everything):
            raise UsageError("two stems would have the same file", "put {stem} into the name")
        self.clipped = 0
        self.peak = 0.0
        self.length = 0
        self._paths = everything
        self._overwrite = overwrite
        together = set(stem_file.stems.values()) if stem_file else set()  # the mixture in a stem file is no stem
        self._stems = sorted({*range(len(paths)), *together})
        self._clipping = sorted({*(range(len(paths)) if format.clips else ()), *together})
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
        """Append (S, C, n), row by row to the files. AudioError: the disk or a WAV is full, or it is not all numbers.

        Integer formats round to the nearest step, 16 bits with dither, and 1.0 is 2^(bits - 1) steps as in `audio`, so
        that what was read from such a file is written back unchanged.
        """
        signals.check()
        if stems.shape[:2] != self._shape:
            raise ValueError(f"stems of shape {stems.shape} for {self._shape[0]} rows of {self._shape[1]} channels")
        tops = [max(float(row.max(initial=0)), -float(row.min(initial=0))) for row in stems]
        if not np.isfinite(tops).all():  # what is not a number is its own maximum
            raise AudioError("the model gave values that are not numbers", "try another model, or another device")
        if not self._rf64 and (self.length + stems.shape[2]) * self._frame_bytes > WAV_LIMIT:
            folder = str(self._paths[0].parent)
            hint = "convert the song to FLAC first, so that its length is known from the start"
            raise AudioError(f"the stems in {folder!r} get too long for WAV, which was not foreseeable", hint)
        for part in self._parts:
            part.write(stems)
        loud = [row for row in self._clipping if tops[row] > 1]
        self.clipped += int(np.count_nonzero(np.abs(stems[loud]) > 1)) if loud else 0
        self.peak = max([self.peak, *(tops[row] for row in self._stems)])
        self.length += stems.shape[2]

    def _check_free(self) -> None:
        for path in self._paths:
            with reporting(path):
                check_free(path, overwrite=self._overwrite)

    def _discard_after(self, kind: type[BaseException] | None, error: BaseException | None, at: object) -> None:
        """Leave nothing after an exception: no file, and no folder that was made for them."""
        if kind is None:
            return
        for part in self._parts:
            part.discard()
        for folder in reversed(self._folders):
            with contextlib.suppress(OSError):  # somebody else has put something there
                folder.rmdir()

    def _make_folder(self, folder: Path) -> None:
        for parent in reversed((folder, *folder.parents)):
            missing = not parent.exists()
            if missing:
                _made.add(parent)
            if parent in _made:
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
        """rows: of what is written, a track each. new_rate: Hz, of the file. names: of the tracks of a stem file."""
        self.path = path
        self.warning = ""
        self._rows = list(rows)
        self._format = format
        self._published = False
        self._repeats = 2 if names and channels == 1 else 1  # in a stem file, every track is stereo
        new_rate = new_rate or format.rate_for(rate)
        what = (beside(path), format, new_rate, channels * self._repeats)
        self._encoder: Encoder
        if format.name in ("wav", "ogg"):
            self._encoder = SndfileEncoder(*what, tags=tags, rf64=rf64, seed=rows[0])
        else:
            from stemsplit.audio.ffmpeg_encoder import FFmpegEncoder  # it takes 0.1 s to import PyAV

            self._encoder = FFmpegEncoder(*what, tags=tags, names=names, seed=rows[0])
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
        """Complete the file, and make sure that all of it is there."""
        if length == 0 and self._format.name in _NEVER_EMPTY:
            raise AudioError(f"there is nothing in the song, which {self._format.label} cannot hold", "use WAV or FLAC")
        with reporting(self.path):
            self._encoder.finish(length)

    def publish(self) -> None:
        self._published = True
        with reporting(self.path):
            self._encoder.paths[0].replace(self.path)

    def discard(self) -> None:
        self._encoder.close()
        for rest in self._encoder.paths[1:]:
            with contextlib.suppress(OSError):
                rest.unlink()
        with contextlib.suppress(OSError):
            try:
                self._encoder.paths[0].unlink()
            except FileNotFoundError:
                if self._published:  # it has the final name already
                    self.path.unlink()


def _part_of(stem_file: StemFile, rate: int, channels: int) -> _Part:
    """The part that becomes a stem file."""
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
    """An OSError while `path` is being written as what a user is told."""
    try:
        yield
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> AudioError:
    if error.errno in _FULL:
        hint = "make room, or choose another folder"
        return AudioError(f"cannot write to {str(path.parent)!r}: the disk is full, or sets a limit", hint)
    hint = "choose another folder, or change its permissions"
    return AudioError(f"cannot write to {str(path)!r}: {error.strerror}", hint)
