"""Slower and faster at the same pitch, by WSOLA: pieces of the sound are repeated or left out where it fits best.

The player does the same while it plays (player-stretch.js), piece for piece.

Verhelst and Roelands, "An overlap-add technique based on waveform similarity (WSOLA) for high quality time-scale
modification of speech" (ICASSP 1993).
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]

PIECE_SECONDS = 0.025  # of one cross-fade; a period of the lowest notes
COARSE = 4  # samples; places are searched for in such steps first


def stretch(blocks: Iterable[Samples], speed: float, *, rate: int, channels: int) -> Iterator[Samples]:
    """Play blocks at another speed without changing their pitch.

    Sound moves by some hundredths of a second from where it belongs, in all channels alike. The result does not depend
    on how the input is cut into blocks, and neither is ever whole in memory.

    Args:
        blocks: `(channels, n)`.
        speed: Samples of input for a sample of the result, from 0.25 to 4. If it is 1, blocks are passed on unchanged.
        rate: Hz.
        channels: Number of channels.

    Yields:
        `(channels, m)`; the total length is that of the input divided by `speed`, rounded.
    """
    if speed == 1:
        yield from blocks
        return
    stretcher, length, done = _Stretcher(speed, rate, channels), 0, 0
    for block in blocks:
        length += block.shape[1]
        stretcher.push(block)
        for piece in stretcher.pull():
            done += piece.shape[1]
            yield piece
    total = round(length / speed)
    while done < total:
        stretcher.push(np.zeros((channels, stretcher.ahead), np.float32))
        for piece in stretcher.pull():
            piece = piece[:, : total - done]
            done += piece.shape[1]
            yield piece


class _Stretcher:
    """What is pushed, and how far it was pulled; `ahead` samples beyond a piece's place are needed to choose it."""

    def __init__(self, speed: float, rate: int, channels: int) -> None:
        self._speed = speed
        self._piece = 2 * max(1, round(rate * PIECE_SECONDS / 2))
        self._range = self._piece // 2
        self.ahead = self._range + math.ceil(max(2, speed)) * self._piece
        self._rise = ((1 - np.cos(np.pi * (np.arange(self._piece) + 0.5) / self._piece)) / 2).astype(np.float32)
        self._weights = 1 + np.arange(channels, dtype=np.float32) / 8  # so that opposite channels do not cancel
        self._sound = np.zeros((channels, 0), np.float32)
        self._first = 0  # the position of its first sample
        self._pulled = 0  # samples of output
        self._next: int | None = None  # where the last piece would go on

    def push(self, block: Samples) -> None:
        oldest = min(self._target() - self._range, self._target() if self._next is None else self._next)
        gone = max(0, min(oldest - self._first, self._sound.shape[1]))
        self._sound = np.concatenate([self._sound[:, gone:], block], axis=1)
        self._first += gone

    def pull(self) -> Iterator[Samples]:
        """Yield all pieces that the input reaches for."""
        while self._target() + self.ahead <= self._first + self._sound.shape[1]:
            target = self._target()
            place = target if self._next is None else self._choose(self._next, target)
            before, after = self._at(target if self._next is None else self._next), self._at(place)
            self._next = place + self._piece
            self._pulled += self._piece
            yield before + (after - before) * self._rise

    def _target(self) -> int:
        return round(self._pulled * self._speed)

    def _at(self, position: int) -> Samples:
        return self._sound[:, position - self._first : position - self._first + self._piece]

    def _choose(self, natural: int, target: int) -> int:
        """Return the position near `target` whose sound is most like that at `natural`, where the last piece ended."""
        if natural == target:
            return target
        low = max(target - self._range, self._first)
        sound = self._sound[:, low - self._first : target + self._range + self._piece - self._first]
        mix, like = self._weights @ sound, self._weights @ self._at(natural)
        coarse = COARSE * int(np.argmax(_likeness(mix[::COARSE], like[::COARSE])))
        start = max(0, coarse - COARSE)
        around = mix[start : coarse + COARSE + self._piece]
        return low + start + int(np.argmax(_likeness(around, like)))


def _likeness(sound: npt.NDArray[Any], pattern: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """How alike a pattern and each part of a sound as long as it are, up to the same factor."""
    products = np.correlate(sound, pattern, "valid")
    sums = np.concatenate([[0.0], np.cumsum(np.square(sound, dtype=np.float64))])
    energies = sums[len(pattern) :] - sums[: -len(pattern)]
    likeness: npt.NDArray[Any] = products / np.sqrt(np.maximum(energies, 0) + 1e-9)
    return likeness
