"""BSS Eval version 4: how much of an estimate is the stem, and of what kind the rest is, second by second.

Vincent, Gribonval and Fevotte (2006) split an estimate into the true stem, a filtered copy of it (spatial distortion),
filtered copies of the other stems (interference), and what no filter explains (artifacts). Stoeter, Liutkus and Ito
(2018, SiSEC) fixed version 4: filters of 512 taps that hold for the whole song, and ratios in windows of a second.

Their package museval is the definition; what differs here is the way to the same numbers. The normal equations of all
estimates have one matrix, which is factorised once; and the energies of the parts are sums over spectra (Parseval), so
that nothing is transformed back.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from stemsplit.audio.spool import Spool
from stemsplit.evaluation import projection
from stemsplit.evaluation.projection import Equations, correlate, fast_length, read_channels

METRICS = ("SDR", "SIR", "ISR", "SAR")


class References:
    """The true stems of a song, against which any number of estimates can be scored.

    They are kept in a temporary file, and so is each estimate while it is scored: memory does not grow with the length
    of the song. Close it, or use it in a `with`, to have the file removed.

    Args:
        blocks: the stems, `(S, C, n)` at a time.
        window: samples for which one set of ratios holds; museval's is one second.
    """

    def __init__(self, blocks: Iterable[Tensor], window: int) -> None:
        self._true = Spool()
        try:
            for block in blocks:
                self._true.write(block.detach().cpu().float().numpy())
            self._window = min(window, self._true.length)
            # A stem that is not in the song has no share in any estimate, and no score.
            self._present = torch.from_numpy(np.flatnonzero(self._true.peaks))
            self._equations: Equations | None = None
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "References":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the temporary file."""
        self._true.close()

    def score(self, blocks: Iterable[Tensor]) -> Tensor:
        """SDR, SIR, ISR and SAR of estimates of all stems, `(S, C, n)` at a time -> `(4, S, windows)` dB, float64.

        A rest shorter than a window is left out at the end, unless it is all there is. As museval has it, no stem has
        ratios for a window in which a true stem or an estimate is silent (its channels add up to zero throughout): they
        are NaN. Only stems that are silent in the whole song do not count. A ratio is infinite where there is nothing
        that it could compare with.
        """
        with Spool() as estimates:
            for block in blocks:
                estimates.write(block.detach().cpu().float().numpy())
            assert estimates.shape == self._true.shape, f"{estimates.shape} estimated, {self._true.shape} true"
            assert estimates.length == self._true.length, f"{estimates.length} samples estimated of {self._true.length}"
            stems, _ = self._true.shape
            windows = self._true.length // self._window if self._window else 0
            scores = torch.full((len(METRICS), stems, windows), torch.nan, dtype=torch.float64)
            if len(self._present):
                with _one_thread():
                    scores[:, self._present] = self._score(estimates, windows)
        return scores

    def _score(self, estimates: Spool, windows: int) -> Tensor:
        every, own = self._filters(estimates)
        size = fast_length(self._window + projection.TAPS - 1)
        own = torch.fft.rfft(own, size)
        every = torch.fft.rfft(every, size).unflatten(1, own.shape[:2]).unflatten(0, own.shape[:2])
        parts = []
        step = max(1, projection.BATCH // (size * own.shape[0] * own.shape[1]))
        for first in range(0, windows, step):
            count = min(step, windows - first)
            true, estimate = (
                read_channels(spool, first * self._window, count * self._window, self._present).reshape(
                    *own.shape[:2], count, self._window
                )
                for spool in (self._true, estimates)
            )
            parts.append(_ratios(true, estimate, every, own, size))
        return torch.cat(parts, -1)

    def _filters(self, estimates: Spool) -> tuple[Tensor, Tensor]:
        """What is closest to the estimates: filters from all true channels, `(S C, S C, TAPS)`, and from a stem's own.

        The latter are `(S, C, C, TAPS)`; in both, from the second axis to the first.
        """
        channels = self._true.shape[1]
        if self._equations is None:
            self._equations = Equations(correlate(self._true, self._true, self._present), channels, self._true.length)
        products = correlate(self._true, estimates, self._present)  # (S C, S C, TAPS): true, estimated
        own = []
        for stem, solve in enumerate(self._equations.own):
            mine = slice(stem * channels, (stem + 1) * channels)
            own.append(solve(products[mine, mine]))
        return self._equations.every(products), torch.stack(own)


def bss_eval(reference: Tensor, estimate: Tensor, window: int) -> Tensor:
    """BSS Eval v4 of whole stems, `(S, C, N)` both -> `(4, S, windows)` dB: SDR, SIR, ISR, SAR (`References.score`)."""
    with References([reference], window) as truth:
        return truth.score([estimate])


@contextmanager
def _one_thread() -> Iterator[None]:
    """Where others use the cores, too, waiting for a second one at each of many small steps takes longest."""
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(usual)


def _ratios(true: Tensor, estimate: Tensor, every: Tensor, own: Tensor, size: int) -> Tensor:
    """The four ratios of some windows `(S, C, W, n)`, between silence: `(4, S, W)` dB.

    every: spectra of the filters from all channels, `(S, C, S, C, F)`, and own: from a stem's own, `(S, C, C, F)`.
    s is the true stem, p what is closest to the estimate e among filtered copies of s, q among those of all stems.
    Then p - s is the spatial distortion, q - p the interference, and e - q the artifacts.
    """
    stems, channels = true.shape[:2]
    s = torch.fft.rfft(true, size)  # (S, C, W, F)
    e = torch.fft.rfft(estimate, size)
    p, q = torch.zeros_like(s), torch.zeros_like(s)
    for stem in range(stems):
        for channel in range(channels):
            p[stem].addcmul_(own[stem, :, channel, None], s[stem, channel])
            q.addcmul_(every[:, :, stem, channel, None], s[stem, channel])
    energy = true.square().sum((1, 3))
    ratios = torch.stack(
        [
            _decibels(energy, (true - estimate).square().sum((1, 3))),
            _decibels(_energy(p, size), _energy(q - p, size)),
            _decibels(energy, _energy(p - s, size)),
            _decibels(_energy(q, size), _energy(e - q, size)),
        ]
    )
    silent = torch.stack([(each.sum(1) == 0).all(-1).any(0) for each in (true, estimate)]).any(0)
    return torch.where(silent, torch.nan, ratios)


def _energy(spectrum: Tensor, size: int) -> Tensor:
    """Sum of the squares of the `size` samples, an even number, that have this half of a spectrum.

    `(S, C, W, F)` -> `(S, W)`.
    """
    numbers = torch.view_as_real(spectrum)
    inside = numbers[..., 1:-1, :].flatten(-2)  # each of these stands for two of the whole spectrum
    power: Tensor = torch.linalg.vector_norm(inside, dim=-1).square() * 2
    return (power + numbers[..., 0, 0].square() + numbers[..., -1, 0].square()).sum(1) / size


def _decibels(signal: Tensor, rest: Tensor) -> Tensor:
    return torch.where(rest == 0, torch.inf, 10 * torch.log10(signal / rest))
