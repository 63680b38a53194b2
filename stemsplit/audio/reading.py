"""Songs in: files of any format to blocks of samples, in constant memory, with clear refusals."""

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from stemsplit import signals
from stemsplit.audio.decoding import Block, FFmpegSource, SndfileSource, open_source, undecodable
from stemsplit.errors import AudioError
from stemsplit.wording import one_line

_EARLY_SECONDS = 0.5  # a file that ends earlier than its header says, by more than this, gets a warning


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What the header of a song says.

    Attributes:
        rate: Hz.
        channels: 1 or 2, after folding down.
        length: samples, or None if the header does not tell.
    """

    rate: int
    channels: int
    length: int | None


class Reader:
    """One opened song, from `open_reader`; a context manager.

    path: Path. rate: int, Hz. channels: 1 or 2, after folding down. folded_from: the file's own count of channels if
    that was more than two, else None. length: samples, an estimate for progress bars only, or None. warnings:
    sentences about what is folded down, damaged or left out, complete once `blocks` is exhausted.
    """

    def __init__(self, path: Path, file: BinaryIO, source: SndfileSource | FFmpegSource) -> None:
        self.path = path
        self.rate: int = source.rate
        self.channels: int = source.channels
        self.folded_from: int | None = source.folded_from
        self.length: int | None = source.length
        self.warnings: list[str] = []
        self._file = file
        self._source = source
        if source.folded_from:
            self._warn(f"has {source.folded_from} channels, which are folded down to {source.channels}")
        if source.chained:
            self._warn("is several recordings in one file; only the first one is read")

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        self._source.close()
        self._file.close()

    def blocks(self, size: int = 65_536) -> Iterator[Block]:
        """Yield the song once, in order: (channels, size) each, the last one shorter, nothing for an empty song.

        Samples beyond +-1 are kept. Samples that are not finite become 0 and are counted in a warning. What is left of
        a truncated or damaged file is decoded, with a warning. AudioError: nothing at all could be decoded, or the
        file itself cannot be read any further.
        """
        decoded = invalid = 0
        try:
            for block in _regroup(self._source.blocks(), size):
                signals.check()
                finite = np.isfinite(block)
                if not finite.all():
                    invalid += block.size - int(np.count_nonzero(finite))
                    block = np.where(finite, block, np.float32(0))
                decoded += block.shape[1]
                yield block
        except OSError as error:
            raise _unreadable(self.path, error) from error
        missing = (self._source.promised or 0) - decoded
        ends_early = missing > _EARLY_SECONDS * self.rate
        if decoded == 0 and (ends_early or self._source.failures):
            raise undecodable(self.path)
        if ends_early:
            self._warn(f"ends early: the last {missing / self.rate:.1f} s could not be decoded")
        elif self._source.failures:
            self._warn(f"is damaged: {self._source.failures} piece(s) of it could not be decoded and are left out")
        if invalid:
            self._warn(f"holds {invalid} sample(s) that are infinite or not a number; silence stands in for them")

    def exact_length(self) -> int:
        """Return the number of samples: from the header if it is exact, else by decoding the whole song.

        Raises:
            AudioError: A piece of the song cannot be decoded.
        """
        known: int | None = self._source.exact_length
        if known is not None:
            return known
        length: int = sum(block.shape[1] for block in self._source.blocks())
        if self._source.failures:
            raise undecodable(self.path, f"{self._source.failures} piece(s) of it are damaged")
        return length

    def excerpt(self, start: int, length: int) -> Block:
        """Return samples `(channels, n)` from `start` on, in place of `blocks`; `n < length` at the end of the song.

        Samples that are not finite are kept. Fast only if the song was opened for random access.

        Raises:
            AudioError: A piece of the excerpt cannot be decoded.
        """
        try:
            return self._source.excerpt(start, length)
        except OSError as error:
            raise _unreadable(self.path, error) from error

    def _warn(self, what: str) -> None:
        self.warnings.append(f"{str(self.path)!r} {what}")


def open_reader(path: Path, track: int = 1, *, random_access: bool = False) -> Reader:
    """Open a song for reading. AudioError, with a hint, if `path` is not a readable file that holds audio.

    track: which of its audio streams, from 1 on; films may have several.
    """
    file = _open_file(path)
    try:
        return Reader(path, file, open_source(file, path, track, random_access=random_access))
    except OSError as error:
        file.close()
        raise _unreadable(path, error) from error
    except BaseException:
        file.close()
        raise


def match_channels(blocks: Iterable[Block], channels: int) -> Iterator[Block]:
    """Blocks (C, n) as (channels, n): mono is repeated, stereo is averaged to mono, what fits passes as it is.

    Only 1 and 2 occur, as a `Reader` has folded down everything else; ValueError otherwise.
    """
    for block in blocks:
        if block.shape[0] == channels:
            yield block
        elif (block.shape[0], channels) == (1, 2):
            yield np.repeat(block, 2, axis=0)
        elif (block.shape[0], channels) == (2, 1):
            yield block.mean(axis=0, keepdims=True, dtype=np.float32)
        else:
            raise ValueError(f"cannot turn {block.shape[0]} channels into {channels}")


def _regroup(blocks: Iterable[Block], size: int) -> Iterator[Block]:
    """Blocks of any sizes as blocks of `size`, the last one shorter."""
    waiting: list[Block] = []
    count = 0
    for block in blocks:
        waiting.append(block)
        count += block.shape[1]
        if count >= size:
            joined = np.concatenate(waiting, axis=1)
            whole = count - count % size
            for start in range(0, whole, size):
                yield np.ascontiguousarray(joined[:, start : start + size])
            waiting = [joined[:, whole:]]
            count -= whole
    if count:
        yield np.ascontiguousarray(np.concatenate(waiting, axis=1))


def _open_file(path: Path) -> BinaryIO:
    """Open a regular file that is not empty, unbuffered; AudioError for anything else, a pipe or a folder."""
    name = repr(str(path))  # on one line, whatever is in it
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise AudioError(f"{name} is a folder, not a song", "name the songs in it")
        if not stat.S_ISREG(status.st_mode):
            raise AudioError(f"{name} is not a regular file", "save the song to a file first")
        if status.st_size == 0:
            raise AudioError(f"{name} is empty (0 bytes)", "download or copy it again")
        return path.open("rb", buffering=0)
    except FileNotFoundError as error:
        if path.is_symlink():
            raise AudioError(f"{name} links to a file that is not there", "name the song itself") from error
        hint = "check the spelling; in a shell, a name with spaces or brackets needs quotes"
        raise AudioError(f"there is no file {name}", hint) from error
    except PermissionError as error:
        raise AudioError(f"you may not read {name}", "change its permissions, or ask its owner") from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError | ValueError) -> AudioError:
    return AudioError(f"cannot read {str(path)!r}: {one_line(error)}", "check the name and the disk, and try again")
