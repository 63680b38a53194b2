"""The level of a song: mean and standard deviation of its mono mixture.

Some networks were trained on songs that had been standardized by it: each was shifted and scaled as a whole, so that
its mono mixture, the mean of its channels, had zero mean and unit standard deviation. Such a network hears a song with
a constant offset, or a quiet one, as it knows them, if its input is standardized and its output restored:

    stems = network((mixture - mean) / scale) * scale + mean,   scale = deviation + 1e-8

This is what the author's own program does with songs (`demucs.api.Separator.separate_tensor`), offset and all: every
stem has that of the mixture, until the stems are made to add up.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from torch import Tensor

SMALLEST_DEVIATION = 1e-8  # added to that of a mixture

Samples = TypeVar("Samples", npt.NDArray[np.float32], Tensor)


@dataclass(frozen=True, slots=True)
class Level:
    """Mean and standard deviation of a mono mixture.

    Attributes:
        mean: The constant offset, at full scale 1.
        deviation: Standard deviation, corrected for its bias (divided by N - 1); 0 for a constant signal.
    """

    mean: float = 0.0
    deviation: float = 0.0

    @classmethod
    def of(cls, blocks: Iterable[npt.NDArray[np.float32]]) -> "Level":
        """Measure a signal. Memory does not depend on its length.

        Args:
            blocks: `(C, n)`, of any sizes; their channels are averaged.
        """
        meter = LevelMeter()
        for block in blocks:
            meter.add(block)
        return meter.level

    def standardize(self, mixture: Samples) -> Samples:
        """Give a mixture of this level zero mean and unit deviation; a constant one becomes silence."""
        return (mixture - self.mean) / self._scale if self.deviation else mixture * 0

    def restore(self, stems: Samples) -> Samples:
        """Give stems of a standardized mixture the level of the mixture; those of a constant one become that."""
        return stems * self._scale + self.mean if self.deviation else stems * 0 + self.mean

    @property
    def _scale(self) -> float:
        return self.deviation + SMALLEST_DEVIATION


class LevelMeter:
    """Measures a signal block by block."""

    def __init__(self) -> None:
        self._count, self._total, self._squares, self._offset = 0, 0.0, 0.0, 0.0

    def add(self, block: npt.NDArray[np.float32]) -> None:
        """Measure the next block `(C, n)`; its channels are averaged."""
        if not block.size:
            return
        mono = block.mean(axis=0, dtype=np.float64)
        if not self._count:
            self._offset = float(mono[0])  # near the mean, so that its square does not swamp a small variance
        mono -= self._offset
        self._count += len(mono)
        self._total += float(mono.sum())
        self._squares += float(mono @ mono)

    @property
    def level(self) -> Level:
        """The level of all blocks so far."""
        if not self._count:
            return Level()
        variance = (self._squares - self._total**2 / self._count) / max(1, self._count - 1)
        return Level(self._offset + self._total / self._count, max(0.0, variance) ** 0.5)
