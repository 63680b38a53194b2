"""Layers that the Demucs families share.

An encoder layer is a strided convolution, a residual branch along time and a gated 1x1 convolution; a decoder layer is
its mirror. The layers follow Défossez, Usunier, Bottou and Bach, "Music Source Separation in the Waveform Domain"
(2019, revised 2021); the residual branches and the layers along frequency follow Défossez, "Hybrid Spectrogram and
Waveform Source Separation" (MDX workshop at ISMIR 2021).

Modules are named as in the published checkpoints, so that these load without a table of names.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from stemsplit.networks._layout import Across, AlongTime, BackAcross, BackAlongTime, Norm, in_pieces, with_neighbours
from stemsplit.networks._residual import ATTENTION_HEADS, DConv

KERNEL, STRIDE = 8, 4
GROUPS = 4  # of the normalisations of deep layers
NEVER = 999  # a depth that no layer has; what the published settings say where they mean "no layer"


def check_sizes(config: object, limits: Mapping[str, tuple[int, int]]) -> None:
    """Raise ValueError unless each field named in `limits` is an int within them."""
    for name, (low, high) in limits.items():
        value = getattr(config, name)
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"{name} must be a whole number in {low}..{high}")


def check_flags(config: object, *names: str) -> None:
    """Raise ValueError unless each of these fields is a bool."""
    for name in names:
        if type(getattr(config, name)) is not bool:
            raise ValueError(f"{name} must be true or false")


def check_widths(width: int, depth: int, compress: int, *, norm_starts: int, memory_starts: int) -> None:
    """Raise ValueError unless the feature maps of every layer can be divided as its parts need it."""
    for index in range(depth):
        maps, hidden = width * 2**index, width * 2**index // compress
        uneven = (index >= norm_starts and maps % GROUPS) or (index >= memory_starts and hidden % ATTENTION_HEADS)
        if hidden == 0 or uneven:
            raise ValueError(f"layer {index} cannot have {maps} feature maps and {hidden} in its residual branches")


def rescale(network: nn.Module, reference: float = 0.1) -> None:
    """Bring the spread of fresh convolution weights halfway, as ratios go, to `reference` (Défossez et al., 2019)."""
    kinds = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, kinds) and not module.weight.is_meta:  # there, std() would import a compiler
                factor = (reference / module.weight.std()).sqrt()
                for parameter in module.parameters():
                    parameter.mul_(factor)


@dataclass(frozen=True, slots=True)
class Step:
    """How a layer of the encoder, and its mirror in the decoder, move along their axis.

    Args:
        frequency: along `F` of `(B, C, F, T)`; otherwise along `T`, and F is 1.
        kernel, stride, padding: of the convolution along that axis.
        groups: of the normalisations; 0 means there are none.
        compress, memory: of the residual branches, see DConv.
    """

    frequency: bool
    kernel: int = KERNEL
    stride: int = STRIDE
    padding: int = KERNEL // 4
    groups: int = 0
    compress: int = 4
    memory: bool = False

    @property
    def axis(self) -> int:
        """Which one that is."""
        return 2 if self.frequency else 3

    def down(self, inner: int, outer: int) -> nn.Module:
        """The strided convolution."""
        if self.frequency:
            return Across(inner, outer, (self.kernel, 1), (self.stride, 1), (self.padding, 0))
        return AlongTime(inner, outer, self.kernel, self.stride, self.padding)

    def up(self, inner: int, outer: int) -> nn.Module:
        """The transposed one; what `padding` added to the input is still there in its output."""
        if self.frequency:
            return BackAcross(inner, outer, (self.kernel, 1), (self.stride, 1))
        return BackAlongTime(inner, outer, self.kernel, self.stride)

    def gate(self, width: int, context: tuple[int, int] = (0, 0)) -> nn.Module:
        """What goes before a GLU. It sees so many neighbours to each side in frequency and time; along the layer's own
        axis the input is to have them beyond what is wanted.
        """
        if self.frequency:
            return Across(width, 2 * width, (1 + 2 * context[0], 1 + 2 * context[1]), padding=(0, context[1]))
        return AlongTime(width, 2 * width, 1 + 2 * context[1])

    def norm(self, width: int) -> nn.Module:
        """A GroupNorm, or nothing."""
        return Norm(self.groups, width) if self.groups else nn.Identity()

    def branch(self, width: int) -> DConv:
        """Residual branches."""
        return DConv(width, self.compress, memory=self.memory)


def standardize(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`(B, ...)` with mean 0 and deviation 1, and what mean and deviation were, `(B, 1, ...)`."""
    all_ = tuple(range(1, x.dim()))
    mean = x.mean(all_, keepdim=True)
    x = x - mean
    deviation = (x.square().sum(all_, keepdim=True) / max(x[0].numel() - 1, 1)).sqrt()  # 7 times as fast as std_mean
    return x / (deviation + 1e-5), mean, deviation


class Encoder(nn.Module):
    """A layer of the encoder: `(B, inner, F, T)` -> `(B, outer, F / stride, T)`, or the same along time.

    A `bare` one is nothing but the strided convolution.
    """

    def __init__(self, inner: int, outer: int, step: Step, *, bare: bool = False) -> None:
        super().__init__()
        self.step, self.bare = step, bare
        self.conv = step.down(inner, outer)
        if not bare:
            self.norm1 = step.norm(outer)
            self.dconv = step.branch(outer)
            self.rewrite = step.gate(outer)
            self.norm2 = step.norm(2 * outer)

    def forward(self, x: Tensor, inject: Tensor | None = None) -> Tensor:
        """`inject` is added to what the convolution gives."""
        if not self.step.frequency:
            x = functional.pad(x, (0, -x.shape[-1] % self.step.stride))
        y: Tensor = self.conv(x)
        if self.bare:
            return y
        if inject is not None:
            y = y + inject
        whole = self.step.groups > 0
        y = self.dconv(in_pieces(lambda x: functional.gelu(self.norm1(x)), y, whole=whole))
        return in_pieces(lambda x: functional.glu(self.norm2(self.rewrite(x)), dim=1), y, whole=whole)


class Decoder(nn.Module):
    """A layer of the decoder: `(B, inner, F, T)` -> `(B, outer, F * stride, T)`, or the same along time.

    A `bare` one has only the transposed convolution; the `last` one gives samples or bins, and does not bend them.
    `branches` says whether it has residual ones; its gate sees `context` neighbours in frequency and time.
    """

    def __init__(
        self,
        inner: int,
        outer: int,
        step: Step,
        *,
        last: bool,
        branches: bool = False,
        bare: bool = False,
        context: tuple[int, int] = (1, 1),
    ) -> None:
        super().__init__()
        self.step, self.last, self.bare = step, last, bare
        self.conv_tr = step.up(inner, outer)
        self.norm2 = step.norm(outer)
        if not bare:
            self.dconv = step.branch(inner) if branches else None
            self.rewrite = step.gate(inner, context)
            self.reach = context[0 if step.frequency else 1]
            self.norm1 = step.norm(2 * inner)

    def forward(self, x: Tensor | None, skip: Tensor | None, length: int) -> tuple[Tensor, Tensor]:
        """What comes from below plus `skip` -> the output, cut to `length` frames, and its last convolution's input."""
        inside = self.inside(x, skip)
        y: Tensor = self.norm2(self.conv_tr(inside))
        first = self.step.padding
        y = y[:, :, first : y.shape[2] - first] if self.step.frequency else y[..., first : first + length]
        return y if self.last else in_pieces(functional.gelu, y), inside

    def inside(self, x: Tensor | None, skip: Tensor | None) -> Tensor:
        """All that goes before the transposed convolution. Where there is no `x` or no `skip` it is as good as zero."""
        inputs = [y for y in (x, skip) if y is not None]
        if self.bare:
            return _sum(*inputs)
        whole = self.step.groups > 0
        y = with_neighbours(self._gated, *inputs, axis=self.step.axis, reach=self.reach, whole=whole)
        return y if self.dconv is None else self.dconv(y)

    def _gated(self, *inputs: Tensor) -> Tensor:
        return functional.glu(self.norm1(self.rewrite(_sum(*inputs))), dim=1)


def _sum(x: Tensor, *more: Tensor) -> Tensor:
    for y in more:
        x = x + y
    return x
