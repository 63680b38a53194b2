"""Stems out: WAV files that appear complete or not at all."""

import contextlib
import os
import secrets
import stat
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile  # type: ignore[import-untyped]

from .errors import AudioError, UsageError

# Bytes that the chunks of a WAV can have in all: its sizes are 32-bit numbers, and libsndfile does not notice when they
# wrap. RF64 (EBU Tech 3306) is the same with 64-bit sizes, but not every player knows it.
WAV_LIMIT = 2**32 - 2**16
LENGTH_MARGIN = 1.01  # expected lengths are estimates

_SAMPLE_BYTES = {"PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4}


class StemWriter:
    """Writes all stems of one song; a context manager.

    The stems grow in temporary files beside their final names, and get these names when the block ends without an
    exception, Ctrl-C included. Otherwise nothing is left: no file and no folder that was made for them.

    clipped: samples beyond full scale so far, over all stems; they are written at full scale and never scale the rest.
    Always 0 for FLOAT, which keeps them. length: samples per stem so far.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        rate: int,
        channels: int,
        subtype: str = "PCM_24",
        overwrite: bool = False,
        expected_length: int | None = None,
    ) -> None:
        """Check what can be checked before the work starts; nothing is written yet.

        subtype: PCM_16, PCM_24, PCM_32 or FLOAT. expected_length: samples, an estimate, from which RF64 instead of WAV
        is chosen if it takes that. UsageError: an unknown subtype, two stems of one name. AudioError: a stem exists
        already and `overwrite` is not set, or is a folder.
        """
        if subtype not in _SAMPLE_BYTES:
            raise UsageError(f"unknown sample format {subtype!r}", f"one of {', '.join(_SAMPLE_BYTES)}")
        if len(set(paths)) < len(paths):
            raise UsageError("two stems would have the same file", "put {stem} into the name")
        self.clipped = 0
        self.length = 0
        self._paths = list(paths)
        self._rate = rate
        self._channels = channels
        self._subtype = subtype
        self._overwrite = overwrite
        self._frame_bytes = channels * _SAMPLE_BYTES[subtype]
        expected_bytes = (expected_length or 0) * LENGTH_MARGIN * self._frame_bytes
        self._format = "RF64" if expected_bytes > WAV_LIMIT else "WAV"
        self._folders: list[Path] = []
        self._parts: list[_Part] = []
        # A signal may strike anywhere, even where `__exit__` begins: at the latest when the program ends, this runs.
        self._discard = weakref.finalize(self, _discard, self._parts, self._folders)
        self._check_free()

    def __enter__(self) -> "StemWriter":
        try:
            for path in self._paths:
                self._make_folder(path.parent)
                part = _Part(path)
                self._parts.append(part)  # first, so that what it makes is removed whenever a signal strikes
                part.open(self._rate, self._channels, self._subtype, self._format)
        except BaseException as error:
            self._discard()
            if isinstance(error, OSError):
                raise _unwritable(path.parent, error) from error
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is not None:
            self._discard()
            return
        try:
            for part in self._parts:
                part.finish(self.length * self._frame_bytes)
            self._check_free()
            for part in self._parts:
                part.publish()
            self._discard.detach()
        except BaseException:
            self._discard()
            raise

    def write(self, stems: npt.NDArray[np.float32]) -> None:
        """Append (S, C, n) to the S files. AudioError: the disk is full, WAV is, or a sample is not a number.

        Integer formats round to the nearest step, and 1.0 is 2^(bits - 1) steps as in `audio`, so that what was read
        from such a file is written back unchanged.
        """
        if stems.shape[:2] != (len(self._parts), self._channels):
            raise ValueError(f"stems of shape {stems.shape} for {len(self._parts)} files of {self._channels} channels")
        if not np.isfinite(stems).all():
            raise AudioError("the model gave values that are not numbers", "try another model, or another device")
        size = (self.length + stems.shape[2]) * self._frame_bytes
        if self._format == "WAV" and size > WAV_LIMIT:
            folder = str(self._paths[0].parent)
            hint = "convert the song to FLAC first, so that its length is known from the start"
            raise AudioError(f"the stems in {folder!r} get too long for WAV, which was not foreseeable", hint)
        for part, stem in zip(self._parts, stems, strict=True):
            part.write(np.ascontiguousarray(stem.T if self._subtype == "FLOAT" else self._quantised(stem.T)))
        self.length += stems.shape[2]

    def _quantised(self, samples: npt.NDArray[np.float32]) -> npt.NDArray[np.int32]:
        """Samples as libsndfile wants integers of any size: in the upper bits of 32."""
        self.clipped += int(np.count_nonzero(np.abs(samples) > 1))
        bits = 8 * _SAMPLE_BYTES[self._subtype]
        steps = np.rint(samples * np.float64(2 ** (bits - 1)))
        limited = np.clip(steps, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        upper: npt.NDArray[np.int32] = limited.astype(np.int32) << (32 - bits)
        return upper

    def _check_free(self) -> None:
        for path in self._paths:
            try:
                mode = path.lstat().st_mode
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                raise _unwritable(path, error) from error
            if stat.S_ISDIR(mode):
                raise AudioError(f"{str(path)!r} is a folder", "choose another name for the stems")
            if not self._overwrite:
                hint = "choose another folder with --output, or replace it with --overwrite"
                raise AudioError(f"{str(path)!r} exists already", hint)

    def _make_folder(self, folder: Path) -> None:
        missing = [parent for parent in (folder, *folder.parents) if not parent.exists()]
        for parent in reversed(missing):
            self._folders.append(parent)
            parent.mkdir(exist_ok=True)


def _discard(parts: "Sequence[_Part]", folders: Sequence[Path]) -> None:
    for part in parts:
        part.discard()
    for folder in reversed(folders):
        with contextlib.suppress(OSError):  # somebody else has put something there
            folder.rmdir()


class _Part:
    """One stem while it is being written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # The name is cut so that the longest allowed one leaves room for the ending, 4 bytes a letter.
        self._temporary = path.with_name(f"{path.name[:48]}.{secrets.token_hex(4)}.part")
        self._published = False
        self._file: BinaryIO | None = None
        self._sound: soundfile.SoundFile | None = None

    def open(self, rate: int, channels: int, subtype: str, format: str) -> None:
        self._file = self._temporary.open("xb", buffering=0)
        try:
            # By number, not by name: soundfile takes no name that is not UTF-8.
            self._sound = soundfile.SoundFile(
                self._file.fileno(), "w", rate, channels, subtype, format=format, closefd=False
            )
        except soundfile.LibsndfileError as error:
            raise self._full() from error

    def write(self, samples: npt.NDArray[np.float32] | npt.NDArray[np.int32]) -> None:
        assert self._sound
        try:
            self._sound.write(samples)
        except soundfile.LibsndfileError as error:
            raise self._full() from error

    def finish(self, data_bytes: int) -> None:
        """Close the file, and make sure that all of it is there."""
        assert self._sound and self._file
        try:
            self._sound.close()
            size = os.fstat(self._file.fileno()).st_size
            self._file.close()
        except (soundfile.LibsndfileError, OSError) as error:
            raise self._full() from error
        if size < data_bytes:
            raise self._full()

    def publish(self) -> None:
        self._published = True
        try:
            self._temporary.replace(self.path)
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def discard(self) -> None:
        for file in (self._sound, self._file):
            with contextlib.suppress(soundfile.LibsndfileError, OSError):  # a full disk, which was reported already
                if file is not None:
                    file.close()
        with contextlib.suppress(OSError):
            try:
                self._temporary.unlink()
            except FileNotFoundError:
                if self._published:  # it has the final name already
                    self.path.unlink()

    def _full(self) -> AudioError:
        hint = "make room, or choose another folder"
        return AudioError(f"cannot write to {str(self.path.parent)!r}: the disk is full, or sets a limit", hint)


def _unwritable(path: Path, error: OSError) -> AudioError:
    hint = "choose another folder, or change its permissions"
    return AudioError(f"cannot write to {str(path)!r}: {error.strerror}", hint)
