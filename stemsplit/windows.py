"""Cut a stream into overlapping windows, and cross-fade what was made of them back into a stream."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class WindowPlan:
    """`length` samples a window, `hop` samples from one to the next, 0 < hop <= length."""

    length: int
    hop: int

    def __post_init__(self) -> None:
        if not 0 < self.hop <= self.length:
            raise ValueError(f"hop must be in 1..{self.length}, not {self.hop}")

    @property
    def lead(self) -> int:
        """Zeros put before the stream, so that its first sample lies in as many windows as any other."""
        return self.length - self.hop

    def fade(self) -> Tensor:
        """Weight of every sample of a window, `(length,)`; over all windows the weights of a sample add up to one.

        A raised cosine over the overlap. The sum is periodic in `hop`: it can be divided out once and for all.
        """
        edge = min(self.lead, self.length // 2)
        ramp = torch.sin((torch.arange(edge, dtype=torch.float64) + 0.5) / max(edge, 1) * torch.pi / 2).square()
        weights = torch.ones(self.length, dtype=torch.float64)
        weights[:edge], weights[self.length - edge :] = ramp, ramp.flip(0)
        padded = torch.nn.functional.pad(weights, (0, -self.length % self.hop))
        total = padded.reshape(-1, self.hop).sum(0)
        return (padded.reshape(-1, self.hop) / total).reshape(-1)[: self.length].float()


class Window(NamedTuple):
    """One window: `samples` is `(C, length)`; `keep` says which of its first `hop` samples belong to the stream."""

    samples: Tensor
    keep: slice


def cut(blocks: Iterable[Tensor], plan: WindowPlan, *, channels: int) -> Iterator[Window]:
    """Blocks `(C, n)` of any size -> windows, with zeros before and after the stream; no window for an empty stream.

    The stream's length is learnt at its end, never from a header.
    """
    buffer = torch.zeros(channels, plan.length)
    filled, start, length = plan.lead, -plan.lead, 0  # start: where the window begins in the stream
    for block in blocks:
        length += block.shape[-1]
        while block.shape[-1]:
            taken = min(plan.length - filled, block.shape[-1])
            buffer[:, filled : filled + taken] = block[:, :taken]
            filled, block = filled + taken, block[:, taken:]
            if filled == plan.length:
                yield Window(buffer.clone(), slice(max(-start, 0), plan.hop))
                buffer[:, : plan.lead] = buffer[:, plan.hop :].clone()
                filled, start = plan.lead, start + plan.hop
    while length and start < length:
        buffer[:, filled:] = 0
        yield Window(buffer.clone(), slice(min(max(-start, 0), plan.hop), min(length - start, plan.hop)))
        buffer[:, : plan.lead] = buffer[:, plan.hop :].clone()
        filled, start = max(filled - plan.hop, 0), start + plan.hop


def overlap_add(windows: Iterable[Window], plan: WindowPlan) -> Iterator[Tensor]:
    """Windows `(..., length)` in the order of `cut` -> the stream `(..., n)`, in pieces of at most `hop` samples."""
    fade, total = plan.fade(), None
    for samples, keep in windows:
        faded = samples * fade
        if total is not None:
            faded[..., : plan.lead] += total
        total = faded[..., plan.hop :]
        piece = faded[..., keep]
        if piece.shape[-1]:
            yield piece
