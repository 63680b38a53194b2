"""Cut a stream into overlapping windows, and cross-fade what a network makes of them into a stream again.

Window k covers the samples `k * hop` to `k * hop + length` of the stream; the last windows are shorter, as the stream
ends inside them. Let w be the triangular weight of `WindowPlan.fade` and y[k] the network's output for window k. Every
output sample is the weighted mean of the windows that cover it:

    out[n] = sum over k of w[n - k * hop] * y[k][n - k * hop]  /  sum over k of w[n - k * hop]

So the effective weights sum to one at every sample, for any length and hop, and a network that returns its input gives
back the stream. Where two windows overlap by half their length or less, the cross-fade is linear.

A network may need context: samples before and after a window that improve its result but belong to other windows.
`cut` supplies it from the stream, with zeros beyond the two ends.

Window positions, weights and context are those of Demucs (`demucs.apply.apply_model`), so that results are comparable.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """Where the windows of a stream lie.

    Attributes:
        length: Samples of a window.
        hop: Samples from the start of one window to the start of the next, in 1..length.

    Raises:
        ValueError: The hop is out of range.
    """

    length: int
    hop: int

    def __post_init__(self) -> None:
        if not 0 < self.hop <= self.length:
            raise ValueError(f"hop must be in 1..{self.length}, not {self.hop}")

    def fade(self) -> Tensor:
        """Weight of each sample of a window in the cross-fade.

        Returns:
            `(length,)`, a symmetric triangle in (0, 1] whose peak is 1.
        """
        position = torch.arange(1, self.length + 1)
        distance = torch.minimum(position, position.flip(0))  # to the nearer end of the window
        return distance / distance.max()


class Window(NamedTuple):
    """A window of the stream, with its context.

    Attributes:
        samples: `(..., M)`, M >= length. The window itself is in the centre; if the context is odd, the longer part of
            it follows the window.
        length: Samples of the window without its context.
    """

    samples: Tensor
    length: int

    def center_crop(self, size: int) -> Tensor:
        """The window with less context.

        Args:
            size: Samples to keep, in length..M.

        Returns:
            `(..., size)`, a view.
        """
        start = (self.samples.shape[-1] - self.length) // 2 - (size - self.length) // 2
        return self.samples[..., start : start + size]


def cut(
    blocks: Iterable[Tensor], plan: WindowPlan, *, channels: int, input_length: Callable[[int], int] | None = None
) -> Iterator[Window]:
    """Cut a stream into overlapping windows, reading no further ahead than each window needs.

    Args:
        blocks: The stream, as blocks `(C, n)` of any size. They are copied, so their memory may be reused.
        plan: Length and hop of the windows.
        channels: C.
        input_length: Maps the length of a window to the samples that the network needs to separate it, context
            included. It must be non-decreasing and never below its argument. By default it is always `plan.length`:
            full windows have no context, and shorter ones at the end of the stream are extended to full length.

    Yields:
        ceil(N / hop) windows for a stream of N samples, none for an empty one. Zeros stand for samples beyond its ends.
    """
    input_length = input_length or (lambda length: plan.length)
    size = input_length(plan.length)
    before = size // 2  # samples to keep before a window: the context of the shortest ones reaches this far back
    after = size - plan.length - (size - plan.length) // 2
    buffered, count = [torch.zeros(channels, before)], before
    for block in blocks:
        for chunk in torch.split(block, plan.hop, dim=1):
            buffered.append(chunk.clone())
            count += chunk.shape[1]
            if count >= before + plan.length + after:
                samples = torch.cat(buffered, dim=1)
                yield _window(samples, before, plan.length, input_length)
                buffered, count = [samples[:, plan.hop :]], count - plan.hop
    samples = torch.cat(buffered, dim=1)
    while samples.shape[1] > before:
        yield _window(samples, before, min(plan.length, samples.shape[1] - before), input_length)
        samples = samples[:, plan.hop :]


def _window(samples: Tensor, position: int, length: int, input_length: Callable[[int], int]) -> Window:
    """The window of `length` samples at `position`, with its context; zeros after the end of `samples`."""
    size = input_length(length)
    start = position - (size - length) // 2
    with_context = samples[:, start : start + size]
    return Window(functional.pad(with_context, (0, size - with_context.shape[1])), length)


def overlap_add(windows: Iterable[Window], plan: WindowPlan) -> Iterator[Tensor]:
    """Cross-fade separated windows into a stream. The formula is at the top of the module.

    Args:
        windows: In the order of `cut`, `(..., length)` without context.
        plan: The plan that they were cut by.

    Yields:
        The stream, as blocks `(..., n)` of at most `plan.hop` samples: one for each window, once it is complete.
    """
    fade, weight = plan.fade(), torch.zeros(plan.length)
    total: Tensor | None = None
    for samples, length in windows:
        if total is None:
            total = samples.new_zeros(*samples.shape[:-1], plan.length)
        total[..., :length].addcmul_(samples, fade[:length])
        weight[:length] += fade[:length]
        ready = min(plan.hop, length)  # samples that no later window covers
        yield total[..., :ready] / weight[:ready]
        total = functional.pad(total[..., plan.hop :], (0, plan.hop))
        weight = functional.pad(weight[plan.hop :], (0, plan.hop))
