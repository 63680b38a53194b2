"""How the Demucs families hold their maps, and how they go over them.

Maps are `(B, C, F, T)`, and samples have F = 1. In memory the features of a place lie side by side, `channels_last` as
PyTorch calls it: so no convolution copies its input into another layout, and those with few maps, of which there are
many here, take a tenth of the time.

On a CPU memory can cost more than arithmetic. The outermost maps have 33 MB, and a fresh block of that size comes page
by page from the system, which may take longer than to compute what goes there; one of a few MB is at hand, and fits the
caches. So what needs no more than its own place, or some neighbours, is done in pieces, and overwrites its input where
it can. Where gradients are wanted, or on another device, there is one piece, and nothing is overwritten.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

PIECE = 2**20  # numbers in the input of a step, 4 MB; half as many and twice as many are as fast


def in_layout(x: Tensor) -> Tensor:
    """`x` in the layout, copied if it was not.

    The view does no more than bring the strides of axes of length one in order. Convolutions look at them too, and
    copy their input, as if it were in another layout, where they are not.
    """
    places = x.permute(0, 2, 3, 1).contiguous()
    return places.view(places.shape).permute(0, 3, 1, 2)


class Across(nn.Conv2d):
    """A convolution across bins: `(B, C, F, T)` -> `(B, C', F', T')`."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(in_layout(x))


class BackAcross(nn.ConvTranspose2d):
    """Its mirror."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        return super().forward(in_layout(x), output_size)


class AlongTime(nn.Conv1d):
    """A convolution along time, of every bin by itself: `(B, C, F, T)` -> `(B, C', F, T')`."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(
            in_layout(x),
            self.weight.unsqueeze(2),
            self.bias,
            stride=(1, *self.stride),
            padding=(0, int(self.padding[0])),
            dilation=(1, *self.dilation),
        )


class BackAlongTime(nn.ConvTranspose1d):
    """Its mirror."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        return functional.conv_transpose2d(in_layout(x), self.weight.unsqueeze(2), self.bias, stride=(1, *self.stride))


class Norm(nn.GroupNorm):
    """A GroupNorm whose result does not depend on the layout.

    In this one PyTorch's has the variance as a difference of two means in single precision. Of maps that are nearly
    constant, as those of silence are, that leaves too little.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.num_groups > 1:
            return super().forward(x.contiguous())
        places = x.permute(0, 2, 3, 1)
        normed = functional.layer_norm(places, places.shape[1:], eps=self.eps)
        return torch.addcmul(self.bias, normed, self.weight).permute(0, 3, 1, 2)


def overwrites(x: Tensor) -> bool:
    """Whether there may be pieces, and what is computed from `x` may overwrite it; see the module."""
    return x.device.type == "cpu" and not torch.is_grad_enabled()


def in_pieces(step: Callable[..., Tensor], x: Tensor, *more: Tensor, whole: bool = False) -> Tensor:
    """`step`, which sees every place by itself and keeps the shape of `x`; what it gives may overwrite `x`.

    With `whole` there is one piece, as there must be where a step has statistics of everything.
    """
    count = 1 if whole else _count(x)
    if count == 1:
        return step(x, *more)
    axis = next((axis for axis in (0, 2) if x.shape[axis] >= count), 3)  # the outer, the less are pieces scattered
    for piece, *others in zip(*(y.tensor_split(count, axis) for y in (x, *more)), strict=True):
        piece.copy_(step(piece, *others))
    return x


def with_neighbours(step: Callable[..., Tensor], *inputs: Tensor, axis: int, reach: int, whole: bool = False) -> Tensor:
    """`step`, which gets `reach` more places at both ends of `axis` than it gives back; beyond the inputs are zeros."""
    length, count = inputs[0].shape[axis], 1 if whole else _count(inputs[0])
    pieces = []
    for index in range(count):
        start, end = index * length // count - reach, (index + 1) * length // count + reach
        low, high = max(start, 0), min(end, length)
        margins = (0, 0) * (3 - axis) + (low - start, end - high)
        pieces.append(step(*(functional.pad(x.narrow(axis, low, high - low), margins) for x in inputs)))
    return pieces[0] if count == 1 else torch.cat(pieces, axis)


def _count(x: Tensor) -> int:
    """How many pieces to make of `x`."""
    return -(-x.numel() // PIECE) if overwrites(x) else 1
