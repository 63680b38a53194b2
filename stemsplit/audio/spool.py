"""Stems in a temporary file, for steps that read them twice when they are too long to keep in memory."""

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np

from stemsplit.audio.decoding import Stems
from stemsplit.audio.writing import reporting

_BLOCK_SAMPLES = 65_536


class Spool:
    """Stems on the disk, written in order and read at random; a context manager.

    The file has no name, so nothing is left of it, even after a crash. It holds float32, interleaved: all channels of
    all stems of a sample are next to each other.

    Args:
        folder_hint: A path on the disk to use; its folder need not exist. By default, the file is in the system's
            folder for temporary files.

    Attributes:
        shape: `(S, C)`, from the first block; `(0, 0)` before.
        length: Samples written so far.
        peaks: The greatest magnitude of each stem so far, `(S,)`.

    Raises:
        AudioError: The disk is full or cannot be written to.
    """

    def __init__(self, folder_hint: Path | None = None) -> None:
        folder = next(parent for parent in folder_hint.absolute().parents if parent.is_dir()) if folder_hint else None
        self._path = folder_hint or Path(tempfile.gettempdir(), "stems")  # for messages
        with reporting(self._path):
            self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115 (closed by close)
        self.shape = (0, 0)
        self.length = 0
        self.peaks = np.zeros(0, np.float32)

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the file; a second call does nothing."""
        self._file.close()

    def write(self, stems: Stems) -> None:
        """Append a block `(S, C, n)`.

        Raises:
            AudioError: The disk is full.
        """
        if not self.length:
            self.shape = (stems.shape[0], stems.shape[1])
            self.peaks = np.zeros(len(stems), np.float32)
        frames = np.ascontiguousarray(stems.reshape(math.prod(self.shape), stems.shape[2]).T, np.float32)
        remaining = memoryview(frames.data).cast("B") if frames.size else memoryview(b"")
        with reporting(self._path):
            while remaining:
                remaining = remaining[self._file.write(remaining) :]
        self.length += len(frames)
        self.peaks = np.maximum(self.peaks, np.abs(stems).max((1, 2), initial=0))

    def read(self, start: int, length: int) -> Stems:
        """Return an excerpt `(S, C, length)`, with silence before the beginning and after the end."""
        width = math.prod(self.shape)
        first, last = max(start, 0), max(min(start + length, self.length), 0)
        frames = np.zeros((length, width), np.float32)
        if last > first:
            remaining = memoryview(frames[first - start : last - start].data).cast("B")
            with reporting(self._path):
                self._file.seek(first * width * frames.itemsize)
                while remaining:
                    count = self._file.readinto(remaining)  # type: ignore[attr-defined]
                    assert count, "the temporary file was truncated"
                    remaining = remaining[count:]
        return frames.T.reshape(*self.shape, length)

    def blocks(self) -> Iterator[Stems]:
        """Yield everything written, in order, in blocks `(S, C, n)` of at most 65536 samples."""
        for start in range(0, self.length, _BLOCK_SAMPLES):
            yield self.read(start, min(_BLOCK_SAMPLES, self.length - start))
