"""BSS Eval version 4: how much of an estimate is the stem, and how much is each kind of error, second by second.

Vincent, Gribonval and Fevotte (2006) split an estimate into the true stem, a filtered copy of it (spatial distortion),
filtered copies of the other stems (interference), and what no filter explains (artifacts). Stoeter, Liutkus and Ito
(2018, SiSEC) defined version 4: filters of 512 taps that hold for the whole song, and ratios in windows of a second.

Their package museval is the definition; this module computes its numbers faster. The normal equations of all estimates
share one matrix, which is factorised once; and the energies of the parts are sums over spectra (Parseval), so that
nothing is transformed back.
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
    of the song. Use it in a `with`, or close it, to remove the file.

    Args:
        blocks: The stems, `(S, C, n)` at a time.
        window: Samples in a window, each of which has its own ratios; museval's is one second.
    """

    def __init__(self, blocks: Iterable[Tensor], window: int) -> None:
        self._true = Spool()
        try:
            for block in blocks:
                self._true.write(block.detach().cpu().float().numpy())
            self._window = min(window, self._true.length)
            # A stem that is silent in the whole song is part of no estimate, and has no score.
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
        """Compute SDR, SIR, ISR and SAR of estimates of all stems.

        As in museval, no stem has ratios for a window in which a true stem or an estimate is silent (its channels add
        up to zero throughout); stems that are silent in the whole song do not count for that. A remainder shorter than
        a window is left out, unless it is the whole song.

        Args:
            blocks: The estimates, `(S, C, n)` at a time, as long as the references.

        Returns:
            `(4, S, windows)` dB, float64: NaN for a window without ratios, infinity where an error is zero.
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
        """The filters whose output is closest to the estimates, from the second axis to the first.

        From all true channels, `(S C, S C, TAPS)`, and from those of the stem alone, `(S, C, C, TAPS)`.
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
    """Compute SDR, SIR, ISR and SAR of stems in memory, `(4, S, windows)` dB; see `References.score`.

    Args:
        reference: The true stems, `(S, C, N)`.
        estimate: The estimated stems, `(S, C, N)`.
        window: Samples in a window.
    """
    with References([reference], window) as references:
        return references.score([estimate])


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep PyTorch to one thread: on a busy machine, waiting for others at each of many small steps takes longest."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _ratios(true: Tensor, estimate: Tensor, every: Tensor, own: Tensor, size: int) -> Tensor:
    """The four ratios of some windows, `(4, S, W)` dB.

    With s the true stem, e the estimate, p the filtered copy of s that is closest to e, and q the sum of filtered
    copies of all stems that is: p - s is the spatial distortion, q - p the interference, and e - q the artifacts.

    Args:
        true: `(S, C, W, n)`, taken as surrounded by silence.
        estimate: `(S, C, W, n)`, likewise.
        every: Spectra of the filters from all channels, `(S, C, S, C, F)`.
        own: Spectra of the filters from the channels of the stem itself, `(S, C, C, F)`.
        size: Samples of the transforms.
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
    silent = torch.stack([(stems.sum(1) == 0).all(-1).any(0) for stems in (true, estimate)]).any(0)
    return torch.where(silent, torch.nan, ratios)


def _energy(spectrum: Tensor, size: int) -> Tensor:
    """Energy of signals of `size` samples, an even number, from their one-sided spectra (Parseval).

    `(S, C, W, F)` -> `(S, W)`, summed over the channels.
    """
    numbers = torch.view_as_real(spectrum)
    inside = numbers[..., 1:-1, :].flatten(-2)  # each of these bins occurs twice in the two-sided spectrum
    power: Tensor = torch.linalg.vector_norm(inside, dim=-1).square() * 2
    return (power + numbers[..., 0, 0].square() + numbers[..., -1, 0].square()).sum(1) / size


def _decibels(signal: Tensor, error: Tensor) -> Tensor:
    return torch.where(error == 0, torch.inf, 10 * torch.log10(signal / error))
