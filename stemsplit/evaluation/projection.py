"""The least-squares part of BSS Eval: the filtered copies of some channels that are closest to an estimate.

The filters solve normal equations, whose matrix has the correlations of all those channels, delayed by 0 to `TAPS` - 1
samples (Vincent, Gribonval and Fevotte, 2006).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from stemsplit.audio.spool import Spool

TAPS = 512
SPECTRUM = 2**13  # samples transformed at a time for correlations
BATCH = 2**20  # samples processed at a time, all channels together
SAME = 1e-12  # two channels are the same if their correlation is that close to 1: they differ by -120 dB at most


def correlate(one: Spool, other: Spool, stems: Tensor) -> Tensor:
    """Correlate every channel of `one` with every later one of `other`: sum_t one[a, t] other[b, t + lag].

    The sum is built up block by block in the frequency domain: a zero-padded block of `one`, with all of `other` that
    it can meet.

    Args:
        one: A song's stems.
        other: As many stems of the same length.
        stems: Numbers of the stems to read from both.

    Returns:
        `(A, B, TAPS)` for lags from 0, float64; A and B are the channels of all stems.
    """
    size = min(SPECTRUM, fast_length(one.length + TAPS - 1))
    step = size - (TAPS - 1)
    width = len(stems) * one.shape[1]
    total = torch.zeros(width, width, size // 2 + 1, dtype=torch.complex128)
    count = max(1, BATCH // (size * width))
    for start in range(0, one.length, step * count):
        first, second = (read_channels(spool, start, step * count + TAPS - 1, stems) for spool in (one, other))
        blocks = first[:, : step * count].view(width, count, step)
        first_spectra = torch.fft.rfft(blocks, size).conj().resolve_conj()  # (A, count, F)
        second_spectra = torch.fft.rfft(second.unfold(-1, size, step))  # (B, count, F)
        for block in range(count):
            for row, factor in zip(total, first_spectra[:, block], strict=True):
                row.addcmul_(second_spectra[:, block], factor)
    products: Tensor = torch.fft.irfft(total, size)[..., :TAPS]
    return products


def read_channels(spool: Spool, start: int, length: int, stems: Tensor) -> Tensor:
    """Read all channels of the given stems, one below the other: `(len(stems) C, length)`, float64."""
    return torch.from_numpy(spool.read(start, length))[stems].flatten(0, 1).double()


class Equations:
    """The factorised normal equations of a song's true channels.

    Where they are singular to machine precision, as for stems that a lossy format has left without high frequencies,
    museval's answer depends on rounding. Here all true channels then count as rounded to 16 bits, like those of SiSEC:
    the expected power of such noise, 2^-30 / 12 a sample, is added to the diagonal.

    Args:
        correlations: Of the channels of all stems, `(K, K, TAPS)`, as `correlate` returns them.
        channels: Of a stem.
        length: Samples of the song.

    Attributes:
        every: Solves for filters from the channels of all stems.
        own: For each stem, solves for filters from its own channels.
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
    """Solves the normal equations of some channels for filters.

    Attributes:
        used: Positions of the channels that get a filter; the filters of the others are zero.
        count: Channels.
        factors: LU factors of the matrix.
        determined: Whether the matrix is regular to machine precision.
    """

    used: list[int]
    count: int
    factors: tuple[Tensor, Tensor]
    determined: bool

    @staticmethod
    def of(matrix: Tensor, used: list[int], among: range | None = None) -> "Solver":
        """Factorise the equations of the channels `used`.

        Args:
            matrix: Of the channels of all stems, `(K TAPS, K TAPS)`.
            used: Channels that get a filter.
            among: The channels to count positions in; all of them by default.
        """
        among = range(len(matrix) // TAPS) if among is None else among
        rows = (torch.tensor(used)[:, None] * TAPS + torch.arange(TAPS)).flatten()
        submatrix = matrix if len(rows) == len(matrix) else matrix[rows[:, None], rows]
        factors, pivots, singular = torch.linalg.lu_factor_ex(submatrix)
        epsilon = torch.finfo(submatrix.dtype).eps
        determined = not singular and _reciprocal_condition(submatrix, (factors, pivots)) > epsilon
        return Solver([among.index(channel) for channel in used], len(among), (factors, pivots), determined)

    def __call__(self, products: Tensor) -> Tensor:
        """Return filters `(E, count, TAPS)` for correlations with E channels of estimates, `(count, E, TAPS)`."""
        estimates = products.shape[1]
        right = products[self.used].transpose(1, 2).reshape(-1, estimates)
        filters = torch.zeros(estimates, self.count, TAPS, dtype=torch.float64)
        solved = torch.linalg.lu_solve(*self.factors, right)
        filters[:, self.used] = solved.T.reshape(estimates, len(self.used), TAPS)
        return filters


def _toeplitz(correlations: Tensor) -> Tensor:
    """The matrix of correlations between delayed channels, `(K TAPS, K TAPS)`, from those at lags >= 0, `(K, K, TAPS)`.

    Channel a delayed by p and channel b delayed by q correlate as a and b do at the lag p - q; at a negative lag, that
    is the correlation of b with the later a.
    """
    width = len(correlations)
    lags = torch.cat([correlations.transpose(0, 1).flip(-1)[..., :-1], correlations], -1)
    matrix = torch.empty(width, TAPS, width, TAPS, dtype=torch.float64)
    for a in range(width):
        for b in range(width):
            matrix[a, :, b] = lags[a, b].unfold(0, TAPS, 1).flip(-1)
    return matrix.reshape(width * TAPS, width * TAPS)


def _distinct(level: Tensor, channels: Iterable[int]) -> list[int]:
    """The channels that are neither silent nor a scaled copy of an earlier one; the others would add nothing.

    Args:
        level: Correlations without delay, `(K, K)`.
        channels: The channels to choose from.
    """
    distinct: list[int] = []
    for channel in channels:
        power = float(level[channel, channel])
        if power and all(level[channel, one] ** 2 < (1 - SAME) * power * level[one, one] for one in distinct):
            distinct.append(channel)
    return distinct


def _reciprocal_condition(matrix: Tensor, factors: tuple[Tensor, Tensor]) -> float:
    """An estimate of the smallest eigenvalue of a symmetric matrix over the largest, by power iteration for both."""
    start = torch.randn(len(matrix), 1, dtype=matrix.dtype, generator=torch.Generator().manual_seed(0))
    large = small = start / start.norm()
    for _ in range(4):
        larger, smaller = matrix @ large, torch.linalg.lu_solve(*factors, small)
        largest, inverse = float(larger.norm()), float(smaller.norm())
        large, small = larger / largest, smaller / inverse
    return 1 / (largest * inverse)


def fast_length(least: int) -> int:
    """Return the smallest length >= `least` with a fast transform: a power of 2 times 1, 3, 5, 9, 15 or 45."""
    return min(odd << max(0, math.ceil(math.log2(least / odd))) for odd in (1, 3, 5, 9, 15, 45))
