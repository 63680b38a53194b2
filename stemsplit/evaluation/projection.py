"""What of a signal can be had from others by filters: the least-squares part of BSS Eval.

The filters from some channels whose result is closest to an estimate solve normal equations. Their matrix has the
products of all those channels, delayed by 0 to `TAPS` - 1 samples (Vincent, Gribonval and Fevotte, 2006).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from stemsplit.audio.spool import Spool

TAPS = 512
SPECTRUM = 2**13  # samples transformed at a time for correlations
BATCH = 2**20  # samples, of all channels together, that are worked on at a time
SAME = 1e-12  # two channels are one if their correlation is that close to 1: they differ by -120 dB at most


def correlate(one: Spool, other: Spool, stems: Tensor) -> Tensor:
    """Products of every channel of `one` with the later ones of `other`: sum_t one[a, t] other[b, t + lag].

    `(A, B, TAPS)` for lags from 0, summed up block by block in the frequency domain: a block of `one` between zeros,
    with all of `other` that it can meet.
    """
    size = min(SPECTRUM, fast_length(one.length + TAPS - 1))
    step = size - (TAPS - 1)
    width = len(stems) * one.shape[1]
    total = torch.zeros(width, width, size // 2 + 1, dtype=torch.complex128)
    count = max(1, BATCH // (size * width))
    for start in range(0, one.length, step * count):
        first, second = (read_channels(spool, start, step * count + TAPS - 1, stems) for spool in (one, other))
        blocks = first[:, : step * count].view(width, count, step)
        now = torch.fft.rfft(blocks, size).conj().resolve_conj()  # (A, count, F)
        later = torch.fft.rfft(second.unfold(-1, size, step))  # (B, count, F)
        for block in range(count):
            for row, factor in zip(total, now[:, block], strict=True):
                row.addcmul_(later[:, block], factor)
    products: Tensor = torch.fft.irfft(total, size)[..., :TAPS]
    return products


def read_channels(spool: Spool, start: int, length: int, stems: Tensor) -> Tensor:
    """Read all channels of the given stems, one below the other: `(len(stems) C, length)`, float64."""
    return torch.from_numpy(spool.read(start, length))[stems].flatten(0, 1).double()


class Equations:
    """The normal equations of a song's true channels, factorised: `every` for filters from all, `own` stem by stem.

    Where they have no solution within the precision of the numbers, as for stems that a lossy format has left without
    high frequencies, museval's answer is decided by rounding. Here all true channels then count as rounded to 16 bits,
    like those of SiSEC: the expected products of such noise with itself, 2^-30 / 12 a sample, are added.
    """

    def __init__(self, correlations: Tensor, channels: int, length: int) -> None:
        matrix = _toeplitz(correlations)
        level = correlations[..., 0]
        count = len(level)
        every = _distinct(level, range(count))
        solver = Solver.of(matrix, every)
        if not solver.determined:
            matrix.diagonal().add_(length * 2.0**-30 / 12)
            solver = Solver.of(matrix, every)
        self.every = solver
        stems = [range(first, first + channels) for first in range(0, count, channels)]
        self.own = [Solver.of(matrix, _distinct(level, stem), stem) for stem in stems]


@dataclass(frozen=True, slots=True)
class Solver:
    """Filters from `count` channels, of which those at the positions `used` are; the others get zeros."""

    used: list[int]
    count: int
    factors: tuple[Tensor, Tensor]
    determined: bool

    @staticmethod
    def of(matrix: Tensor, used: list[int], among: range | None = None) -> "Solver":
        """For the equations of the channels `used`, all rows of which are in the matrix."""
        among = range(len(matrix) // TAPS) if among is None else among
        rows = (torch.tensor(used)[:, None] * TAPS + torch.arange(TAPS)).flatten()
        mine = matrix if len(rows) == len(matrix) else matrix[rows[:, None], rows]
        factors, pivots, singular = torch.linalg.lu_factor_ex(mine)
        determined = not singular and _reciprocal_condition(mine, (factors, pivots)) > torch.finfo(mine.dtype).eps
        return Solver([among.index(each) for each in used], len(among), (factors, pivots), determined)

    def __call__(self, products: Tensor) -> Tensor:
        """From products of every channel and the later estimates, `(count, E, TAPS)`: filters `(E, count, TAPS)`."""
        estimates = products.shape[1]
        right = products[self.used].transpose(1, 2).reshape(-1, estimates)
        filters = torch.zeros(estimates, self.count, TAPS, dtype=torch.float64)
        solved = torch.linalg.lu_solve(*self.factors, right)
        filters[:, self.used] = solved.T.reshape(estimates, len(self.used), TAPS)
        return filters


def _toeplitz(correlations: Tensor) -> Tensor:
    """All products of delayed channels, `(K TAPS, K TAPS)`, from those with later ones, `(K, K, TAPS)`.

    A channel a delayed by p times a channel b delayed by q is the product at the lag p - q; one at a negative lag is
    that of b with the later a.
    """
    width = len(correlations)
    lags = torch.cat([correlations.transpose(0, 1).flip(-1)[..., :-1], correlations], -1)
    matrix = torch.empty(width, TAPS, width, TAPS, dtype=torch.float64)
    for a in range(width):
        for b in range(width):
            matrix[a, :, b] = lags[a, b].unfold(0, TAPS, 1).flip(-1)
    return matrix.reshape(width * TAPS, width * TAPS)


def _distinct(level: Tensor, channels: Iterable[int]) -> list[int]:
    """Those of the channels that are not silent, nor another one at a different volume: what is explained stays so.

    level: `(K, K)`, their products without delay.
    """
    found: list[int] = []
    for each in channels:
        power = float(level[each, each])
        if power and all(level[each, one] ** 2 < (1 - SAME) * power * level[one, one] for one in found):
            found.append(each)
    return found


def _reciprocal_condition(matrix: Tensor, factors: tuple[Tensor, Tensor]) -> float:
    """About the smallest eigenvalue of a symmetric matrix over the largest, by power iteration on both sides."""
    start = torch.randn(len(matrix), 1, dtype=matrix.dtype, generator=torch.Generator().manual_seed(0))
    large = small = start / start.norm()
    for _ in range(4):
        larger, smaller = matrix @ large, torch.linalg.lu_solve(*factors, small)
        largest, inverse = float(larger.norm()), float(smaller.norm())
        large, small = larger / largest, smaller / inverse
    return 1 / (largest * inverse)


def fast_length(least: int) -> int:
    """The smallest number from `least` on whose transform is fast: a power of 2, at most times 9 and 5."""
    return min(odd << max(0, math.ceil(math.log2(least / odd))) for odd in (1, 3, 5, 9, 15, 45))
