"""Cut a stream into overlapping windows, and cross-fade what was made of them back into a stream.

Window k stands for the samples from `k * hop` on, `length` of them or as many as there are. Windows begin where those
of Demucs do, fade as they do, and see what they see around them, so that the results can be compared.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """`length` samples a window, `hop` samples from one to the next, 0 < hop <= length."""

    length: int
    hop: int

    def __post_init__(self) -> None:
        if not 0 < self.hop <= self.length:
            raise ValueError(f"hop must be in 1..{self.length}, not {self.hop}")

    def fade(self) -> Tensor:
        """Weight of every sample of a window, `(length,)`: a triangle, above 0 and at most 1.

        Divided by the sum of all windows' weights, neighbours that overlap by half a window or less fade linearly.
        """
        place = torch.arange(1, self.length + 1)
        distance = torch.minimum(place, place.flip(0))  # from the window's end
        return distance / distance.max()


class Window(NamedTuple):
    """`samples`, `(..., M)`: the middle `length` of them are the window's place in the stream, the others its context.

    Of an odd rest the larger half goes after the window.
    """

    samples: Tensor
    length: int

    def center_crop(self, size: int) -> Tensor:
        """The middle `size` samples, `length <= size <= M`."""
        start = (self.samples.shape[-1] - self.length) // 2 - (size - self.length) // 2
        return self.samples[..., start : start + size]


def cut(
    blocks: Iterable[Tensor], plan: WindowPlan, *, channels: int, input_length: Callable[[int], int] | None = None
) -> Iterator[Window]:
    """Blocks `(C, n)` of any size -> windows; none for an empty stream, whose length is learnt at its end.

    room: how many samples are to be seen, context included, for so many of a window; never fewer than these, and more
    for more. Without it, always `plan.length`: at the end of the stream, where windows are cut short, they see more of
    what was before. Zeros stand in for what is beyond the ends.
    """
    input_length = input_length or (lambda length: plan.length)
    past = input_length(plan.length) // 2  # what has to be kept from before a window
    future = input_length(plan.length) - plan.length - (input_length(plan.length) - plan.length) // 2
    held, count = [torch.zeros(channels, past)], past
    for block in blocks:
        for piece in torch.split(block, plan.hop, dim=1):
            held.append(piece.clone())  # the caller may use its block again
            count += piece.shape[1]
            if count >= past + plan.length + future:
                samples = torch.cat(held, dim=1)
                yield _window(samples, past, plan.length, input_length)
                held, count = [samples[:, plan.hop :]], count - plan.hop
    samples = torch.cat(held, dim=1)
    while samples.shape[1] > past:
        yield _window(samples, past, min(plan.length, samples.shape[1] - past), input_length)
        samples = samples[:, plan.hop :]


def _window(samples: Tensor, past: int, length: int, input_length: Callable[[int], int]) -> Window:
    size = input_length(length)
    start = past - (size - length) // 2
    seen = samples[:, start : start + size]
    return Window(functional.pad(seen, (0, size - seen.shape[1])), length)


def overlap_add(windows: Iterable[Window], plan: WindowPlan) -> Iterator[Tensor]:
    """Windows `(..., length)` as `cut` has them, without context -> the stream `(..., n)`, at most `hop` at a time."""
    fade, weight = plan.fade(), torch.zeros(plan.length)
    total: Tensor | None = None
    for samples, length in windows:
        if total is None:
            total = samples.new_zeros(*samples.shape[:-1], plan.length)
        total[..., :length].addcmul_(samples, fade[:length])
        weight[:length] += fade[:length]
        ready = min(plan.hop, length)
        yield total[..., :ready] / weight[:ready]
        total = functional.pad(total[..., plan.hop :], (0, plan.hop))
        weight = functional.pad(weight[plan.hop :], (0, plan.hop))
