"""Reading a song: `open_reader` gives a `Reader`, which decodes files of any format block by block.

This is the entry to the package for everything that reads audio. The decoders behind it are chosen in `sources`; memory
does not grow with the length of the song.
"""

import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from stemsplit import signals
from stemsplit.audio.decoding import Block, Source, undecodable
from stemsplit.audio.sources import open_source
from stemsplit.errors import AudioError
from stemsplit.wording import duration, one_line

# +96 dBFS: no recording is louder, not even if its samples are scaled like integers of 16 bits.
_LOUDEST = 2.0**16
_NEXT_TO_NOTHING = 0.05  # of a song: what is left is not worth separating, and may well be noise


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """Format and length of a song, from its header.

    Attributes:
        rate: Hz.
        channels: 1 or 2, after downmixing.
        length: Samples, an estimate, or None if the header has none.
    """

    rate: int
    channels: int
    length: int | None


class Reader:
    """An opened song, from `open_reader`; a context manager.

    Attributes:
        path: The file.
        rate: Hz.
        channels: 1 or 2, after downmixing.
        downmixed_from: Number of channels in the file if it was more than two, else None.
        length: Samples, an estimate for progress bars only, or None.
        warnings: Sentences about what is downmixed, damaged or left out; complete when `blocks` is exhausted.
        incomplete: Whether part of the song could not be decoded; known when `blocks` is exhausted.
    """

    def __init__(self, path: Path, file: BinaryIO, source: Source, audio_stream: int = 1) -> None:
        self.path = path
        self.rate: int = source.rate
        self.channels: int = source.channels
        self.downmixed_from: int | None = source.downmixed_from
        self.length: int | None = source.estimated_length
        self.warnings: list[str] = []
        self._audio_stream = audio_stream
        self.incomplete = False
        self._file = file
        self._source = source
        if source.downmixed_from:
            self._warn(f"has {source.downmixed_from} channels, which are downmixed to {source.channels}")

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        self._source.close()
        self._file.close()

    def reopen(self) -> "Reader":
        """Open the same song once more, from its start; raise AudioError as `open_reader` does."""
        return open_reader(self.path, self._audio_stream)

    def blocks(self, size: int = 65_536) -> Iterator[Block]:
        """Yield the song once, from start to end; an empty song gives no block.

        Samples beyond +-1 are kept. Samples that are not finite, or louder than any sound, become 0, with a warning. A
        truncated or damaged file is decoded as far as possible, with a warning; what is lost in the middle is silent.

        Args:
            size: Samples in a block.

        Yields:
            `(channels, size)`, float32; the last block may be shorter.

        Raises:
            AudioError: Nothing, or next to nothing, could be decoded, or the file cannot be read any further.
        """
        length = invalid = 0
        try:
            for block in _regroup(self._source.blocks(), size):
                signals.check()
                valid = np.abs(block) <= _LOUDEST  # NaN is not
                if not valid.all():
                    invalid += block.size - int(np.count_nonzero(valid))
                    block = np.where(valid, block, np.float32(0))
                length += block.shape[1]
                yield block
            if self._source.error:
                raise self._source.error
        except OSError as error:
            raise _unreadable(self.path, error) from error
        self._judge(length, invalid)

    def _judge(self, length: int, invalid: int) -> None:
        """Refuse the song, or warn of what is wrong with it, after `length` samples of which some were invalid."""
        damage, stated = self._source.damage, self._source.stated_length or 0
        decoded = length - damage.silence
        missing = stated - length
        ends_early = missing > self._source.tolerance * self.rate
        if decoded == 0 and (ends_early or damage.failures):
            raise undecodable(self.path)
        if damage.failures > damage.successes or (ends_early and decoded < _NEXT_TO_NOTHING * stated):
            lengths = f"{duration(decoded / self.rate)} of {duration(stated / self.rate)}"
            raise undecodable(self.path, f"only {lengths} can be decoded" if ends_early else "most of it is damaged")
        if damage.holes:
            self._warn(f"is damaged: {_describe_holes(damage.holes, self.rate)} could not be decoded and is silent")
        elif damage.failures and not ends_early:
            self._warn(f"is damaged: {damage.failures} block(s) could not be decoded and were skipped")
        if ends_early:
            seconds = missing / self.rate
            self._warn(f"ends early: the last {seconds:.{1 if seconds >= 0.1 else 2}f} s could not be decoded")
        elif damage.is_cut_off:
            self._warn("ends early: the file was cut off")
        if invalid:
            what = "infinite, not a number, or louder than any sound"
            self._warn(f"has {invalid} sample(s) that are {what}; they were replaced by silence")
        self.incomplete = bool(damage.holes or damage.failures or ends_early or damage.is_cut_off)

    def exact_length(self) -> int:
        """Return the number of samples: from the header if it is exact, else by decoding the whole song.

        Raises:
            AudioError: Part of the song cannot be decoded.
        """
        known: int | None = self._source.exact_length
        if known is not None:
            return known
        length: int = sum(block.shape[1] for block in self._source.blocks())
        damage = self._source.damage
        if damage.failures or damage.holes:
            raise undecodable(self.path, f"{max(damage.failures, len(damage.holes))} block(s) are damaged")
        return length

    def excerpt(self, start: int, length: int) -> Block:
        """Return samples `(channels, n)` from `start` on, in place of `blocks`; `n < length` at the end of the song.

        Samples that are not finite are kept. Fast only if the song was opened for random access.

        Raises:
            AudioError: Part of the excerpt cannot be decoded.
        """
        try:
            return self._source.excerpt(start, length)
        except OSError as error:
            raise _unreadable(self.path, error) from error

    def _warn(self, predicate: str) -> None:
        self.warnings.append(f"{str(self.path)!r} {predicate}")


def open_reader(path: Path, audio_stream: int = 1, *, random_access: bool = False) -> Reader:
    """Open a song for reading.

    Args:
        path: The file, of any format.
        audio_stream: Which of its audio streams to read, from 1 on; films may have several.
        random_access: Prepare for `Reader.excerpt`. WAV and FLAC with more than two channels are then not downmixed.

    Raises:
        AudioError: The file cannot be read, or has no such audio stream.
    """
    file = _open_file(path)
    try:
        return Reader(path, file, open_source(file, path, audio_stream, random_access=random_access), audio_stream)
    except OSError as error:
        file.close()
        raise _unreadable(path, error) from error
    except BaseException:
        file.close()
        raise


def _regroup(blocks: Iterable[Block], size: int) -> Iterator[Block]:
    """Cut blocks of any sizes into blocks of `size`; the last one may be shorter."""
    buffered: list[Block] = []
    count = 0
    for block in blocks:
        buffered.append(block)
        count += block.shape[1]
        if count >= size:
            joined = np.concatenate(buffered, axis=1)
            ready = count - count % size
            for start in range(0, ready, size):
                yield np.ascontiguousarray(joined[:, start : start + size])
            buffered = [joined[:, ready:]]
            count -= ready
    if count:
        yield np.ascontiguousarray(np.concatenate(buffered, axis=1))


def _describe_holes(holes: Sequence[tuple[int, int]], rate: int) -> str:
    total = sum(length for _, length in holes) / rate
    amount = f"{total:.1f} s" if total >= 1 else f"{total * 1000:.0f} ms"
    first = duration(holes[0][0] / rate)
    return f"{amount} at {first}" if len(holes) == 1 else f"{amount} in {len(holes)} places, the first at {first},"


def _open_file(path: Path) -> BinaryIO:
    """Open a regular file that is not empty, unbuffered."""
    name = repr(str(path))  # on one line, even if it contains line breaks
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
            raise AudioError(f"{name} is a link to a missing file", "name the song itself") from error
        hint = "check the spelling; in a shell, a name with spaces or brackets needs quotes"
        raise AudioError(f"there is no file {name}", hint) from error
    except PermissionError as error:
        raise AudioError(
            f"cannot read {name}: permission denied", "change its permissions, or ask its owner"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError | ValueError) -> AudioError:
    return AudioError(f"cannot read {str(path)!r}: {one_line(error)}", "check the name and the disk, and try again")
