"""Whether the stems of a batch have room on the disk, before any work."""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stemsplit.audio.formats import Format
from stemsplit.errors import AudioError

_BLOCK = 4_096  # bytes that a file takes more than its samples: a header, and what is left of the last block
_PACKED = 0.5  # of lossless samples, as FLAC or ALAC; the stems of the demo song take 0.43, with 16 bits 0.30


@dataclass(frozen=True, slots=True)
class Shape:
    """What the header of a song says. rate: Hz. channels: of its stems. length: samples, or None if it does not say."""

    rate: int
    channels: int
    length: int | None


def estimate(shapes: Iterable[Shape], stems: int, format: Format) -> int:
    """Bytes that the stems of songs will take, about; nothing for songs of unknown length. stems: of each song."""
    packed = _PACKED if format.lossless and format.name != "wav" else 1.0
    total = 0
    for shape in shapes:
        seconds = (shape.length or 0) / shape.rate
        total += stems * (round(seconds * format.bytes_per_second(shape.rate, shape.channels) * packed) + _BLOCK)
    return total


def waiting(shapes: Iterable[Shape], files: int) -> int:
    """Bytes that the longest song takes while it waits for its gain, in float. files: of each song."""
    return max((files * 4 * shape.channels * (shape.length or 0) for shape in shapes), default=0)


def require(needed: int, output: Path, *, replaced: Iterable[Iterable[Path]] = ()) -> None:
    """AudioError if the disk of a folder, which need not exist yet, has no room for so many bytes.

    replaced: for each song, files that the new ones take the place of when these are complete.
    """
    folder = output
    while not os.path.isdir(folder) and folder != folder.parent:  # noqa: PTH112 (never raises)
        folder = folder.parent
    try:
        free = shutil.disk_usage(folder).free
    except OSError:  # some file systems do not tell
        return
    old = [sum(map(_size, paths)) for paths in replaced]
    needed += max(old, default=0) - sum(old)
    if needed > free:
        told = f"the stems need about {_gigabytes(needed)}, and {str(output)!r} has room for {_gigabytes(free)}"
        raise AudioError(told, "make room, name another folder with --output, or choose a smaller --format")


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(count / 1e6, 0.1):.1f} MB"
