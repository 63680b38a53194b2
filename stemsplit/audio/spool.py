"""Stems in a temporary file: what is needed twice, and is too long for the memory."""

import math
import tempfile
from collections.abc import Iterable
from typing import IO

import numpy as np
import torch
from torch import Tensor


class Spool:
    """A temporary file of stems, float32, all channels of a sample side by side; it is gone when it is closed.

    shape: stems and channels, as they came first. length: samples.
    """

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (closed by close)
        self.shape = (0, 0)
        self.length = 0
        self._sounding = torch.zeros(0, dtype=torch.bool)

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the file."""
        self._file.close()

    def extend(self, blocks: Iterable[Tensor]) -> None:
        """Write blocks `(S, C, n)` behind what is there."""
        for block in blocks:
            if not self.length:
                self.shape = (block.shape[0], block.shape[1])
                self._sounding = torch.zeros(len(block), dtype=torch.bool)
            samples = block.detach().cpu().float().flatten(0, 1).T.contiguous()
            rest = memoryview(samples.numpy().data).cast("B")
            while rest:
                rest = rest[self._file.write(rest) :]
            self.length += block.shape[-1]
            self._sounding |= (block != 0).any(-1).any(-1).cpu()

    def present(self) -> Tensor:
        """Numbers of the stems that are not silent throughout."""
        return self._sounding.nonzero()[:, 0]

    def read(self, start: int, length: int, stems: Tensor) -> Tensor:
        """`(len(stems) C, length)` in float64, with silence beyond both ends."""
        width = math.prod(self.shape)
        first, last = max(start, 0), max(min(start + length, self.length), 0)
        samples = np.zeros((length, width), np.float32)
        if last > first:
            rest = memoryview(samples[first - start : last - start].data).cast("B")
            self._file.seek(first * width * samples.itemsize)
            while rest:
                count = self._file.readinto(rest)  # type: ignore[attr-defined]
                assert count, "the temporary file was cut"
                rest = rest[count:]
        return torch.from_numpy(samples.T).view(*self.shape, length)[stems].flatten(0, 1).double()

    def windows(self, first: int, count: int, size: int, stems: Tensor) -> Tensor:
        """Some of the windows that the song is cut into: `(S, C, count, size)`."""
        read = self.read(first * size, count * size, stems)
        return read.reshape(len(stems), self.shape[1], count, size)
