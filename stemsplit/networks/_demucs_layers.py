"""The encoder and decoder layers of the Demucs families, and what else these share.

An encoder layer is a strided convolution, a residual branch along time and a gated 1x1 convolution; a decoder layer
mirrors it. The layers follow Défossez, Usunier, Bottou and Bach, "Music Source Separation in the Waveform Domain"
(2019, revised 2021); the residual branches and the layers along frequency follow Défossez, "Hybrid Spectrogram and
Waveform Source Separation" (MDX workshop at ISMIR 2021).

Modules are named as in the published checkpoints, so that these load without a table of names.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from stemsplit.networks._demucs_residual import ATTENTION_HEADS, DConv
from stemsplit.networks._layers import (
    Conv2d,
    ConvTranspose2d,
    GroupNorm,
    TimeConv,
    TimeConvTranspose,
    map_chunks,
    map_chunks_with_context,
)

KERNEL, STRIDE = 8, 4
GROUPS = 4  # of the normalizations of deep layers
NEVER = 999  # a depth that no layer has: "no layer" in the published settings


def check_widths(width: int, depth: int, compress: int, *, norm_starts: int, memory_starts: int) -> None:
    """Check that the feature maps of every layer divide into groups and attention heads, where it has these.

    Args:
        width: Feature maps after the first layer; every further one doubles them.
        depth: Number of layers.
        compress: How many times narrower the residual branches are.
        norm_starts: First layer with group normalization.
        memory_starts: First layer whose residual branches have an LSTM and attention.

    Raises:
        ValueError: They do not.
    """
    for index in range(depth):
        maps, hidden = width * 2**index, width * 2**index // compress
        uneven = (index >= norm_starts and maps % GROUPS) or (index >= memory_starts and hidden % ATTENTION_HEADS)
        if hidden == 0 or uneven:
            raise ValueError(f"layer {index} cannot have {maps} feature maps and {hidden} in its residual branches")


def rescale(network: nn.Module, reference: float = 0.1) -> None:
    """Rescale new convolutions: weights and biases by sqrt(reference / standard deviation of the weights).

    Défossez et al., "Music Source Separation in the Waveform Domain" (2019).

    Args:
        network: All of its convolutions are changed.
        reference: The standard deviation to approach.
    """
    kinds = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, kinds) and not module.weight.is_meta:  # there, std() would import a compiler
                factor = (reference / module.weight.std()).sqrt()
                for parameter in module.parameters():
                    parameter.mul_(factor)


def standardize(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Bring every example to mean 0 and standard deviation 1.

    Args:
        x: `(B, ...)`.

    Returns:
        The standardized tensor `(B, ...)`, and the mean and the standard deviation, `(B, 1, ...)`.
    """
    axes = tuple(range(1, x.dim()))
    mean = x.mean(axes, keepdim=True)
    x = x - mean
    deviation = (x.square().sum(axes, keepdim=True) / max(x[0].numel() - 1, 1)).sqrt()  # 7 times as fast as std_mean
    return x / (deviation + 1e-5), mean, deviation


@dataclass(frozen=True, slots=True)
class LayerSettings:
    """How a layer of the encoder, and its mirror in the decoder, are built.

    Attributes:
        frequency: True for strides along F of `(B, C, F, T)`, False for strides along T; then F is 1.
        kernel: Of the strided convolution.
        stride: Along that axis.
        padding: Of the strided convolution, at either end.
        groups: Of the normalizations; 0 for none.
        compress: How many times narrower the residual branches are.
        lstm: Whether the residual branches have an LSTM and attention.
    """

    frequency: bool
    kernel: int = KERNEL
    stride: int = STRIDE
    padding: int = KERNEL // 4
    groups: int = 0
    compress: int = 4
    lstm: bool = False

    @property
    def axis(self) -> int:
        """The axis along which the layer strides: 2 for frequency, 3 for time."""
        return 2 if self.frequency else 3

    def strided_conv(self, inner: int, outer: int) -> nn.Module:
        """The encoder's convolution, from `inner` to `outer` feature maps."""
        if self.frequency:
            return Conv2d(inner, outer, (self.kernel, 1), (self.stride, 1), (self.padding, 0))
        return TimeConv(inner, outer, self.kernel, self.stride, self.padding)

    def transposed_conv(self, inner: int, outer: int) -> nn.Module:
        """The decoder's convolution, from `inner` to `outer` feature maps. Its output is not cropped by `padding`."""
        if self.frequency:
            return ConvTranspose2d(inner, outer, (self.kernel, 1), (self.stride, 1))
        return TimeConvTranspose(inner, outer, self.kernel, self.stride)

    def gate_conv(self, width: int, context: tuple[int, int] = (0, 0)) -> nn.Module:
        """The convolution before a GLU.

        Args:
            width: Feature maps after the GLU.
            context: Neighbours that it sees on either side, in frequency and in time. It does not pad its input along
                the axis of the layer.
        """
        if self.frequency:
            return Conv2d(width, 2 * width, (1 + 2 * context[0], 1 + 2 * context[1]), padding=(0, context[1]))
        return TimeConv(width, 2 * width, 1 + 2 * context[1])

    def norm(self, width: int) -> nn.Module:
        """A group normalization of `width` feature maps, or the identity."""
        return GroupNorm(self.groups, width) if self.groups else nn.Identity()

    def residual(self, width: int) -> DConv:
        """The residual branches on `width` feature maps."""
        return DConv(width, self.compress, lstm=self.lstm)


class EncoderLayer(nn.Module):
    """A layer of an encoder: `(B, inner, F, T)` -> `(B, outer, F / stride, T)`, or strided along time instead.

    Args:
        inner: Feature maps of the input.
        outer: Feature maps of the output.
        settings: Of the layer.
        conv_only: Leave out all but the strided convolution.
    """

    def __init__(self, inner: int, outer: int, settings: LayerSettings, *, conv_only: bool = False) -> None:
        super().__init__()
        self.settings, self.conv_only = settings, conv_only
        self.conv = settings.strided_conv(inner, outer)
        if not conv_only:
            self.norm1 = settings.norm(outer)
            self.dconv = settings.residual(outer)
            self.rewrite = settings.gate_conv(outer)
            self.norm2 = settings.norm(2 * outer)

    def forward(self, x: Tensor, inject: Tensor | None = None) -> Tensor:
        """Encode.

        Args:
            x: `(B, inner, F, T)`. Along time, T is padded to a multiple of the stride.
            inject: Added to the output of the strided convolution.

        Returns:
            `(B, outer, F', T')`.
        """
        if not self.settings.frequency:
            x = functional.pad(x, (0, -x.shape[-1] % self.settings.stride))
        y: Tensor = self.conv(x)
        if self.conv_only:
            return y
        if inject is not None:
            y = y + inject
        chunked = self.settings.groups == 0  # a normalization needs the statistics of all positions
        y = self.dconv(map_chunks(lambda x: functional.gelu(self.norm1(x)), y, chunked=chunked))
        return map_chunks(lambda x: functional.glu(self.norm2(self.rewrite(x)), dim=1), y, chunked=chunked)


class DecoderLayer(nn.Module):
    """A layer of a decoder: `(B, inner, F, T)` -> `(B, outer, F * stride, T)`, or along time instead.

    Args:
        inner: Feature maps of the input.
        outer: Feature maps of the output.
        settings: Of the layer.
        last: Whether its output is that of the network, and so has no activation.
        residual: Whether it has residual branches.
        conv_only: Leave out all but the transposed convolution.
        context: Neighbours that the gated convolution sees, in frequency and in time.
    """

    def __init__(
        self,
        inner: int,
        outer: int,
        settings: LayerSettings,
        *,
        last: bool,
        residual: bool = False,
        conv_only: bool = False,
        context: tuple[int, int] = (1, 1),
    ) -> None:
        super().__init__()
        self.settings, self.last, self.conv_only = settings, last, conv_only
        self.conv_tr = settings.transposed_conv(inner, outer)
        self.norm2 = settings.norm(outer)
        if not conv_only:
            self.dconv = settings.residual(inner) if residual else None
            self.rewrite = settings.gate_conv(inner, context)
            self.context = context[0 if settings.frequency else 1]
            self.norm1 = settings.norm(2 * inner)

    def forward(self, x: Tensor | None, skip: Tensor | None, length: int) -> tuple[Tensor, Tensor]:
        """Decode.

        Args:
            x: Output of the layer below, `(B, inner, F, T)`; None counts as zero.
            skip: Skip connection, of the same shape; None counts as zero.
            length: Frames or samples of the output.

        Returns:
            The output `(B, outer, F', length)`, and the input of its transposed convolution.
        """
        hidden = self.before_upsampling(x, skip)
        y: Tensor = self.norm2(self.conv_tr(hidden))
        start = self.settings.padding
        y = y[:, :, start : y.shape[2] - start] if self.settings.frequency else y[..., start : start + length]
        return y if self.last else map_chunks(functional.gelu, y), hidden

    def before_upsampling(self, x: Tensor | None, skip: Tensor | None) -> Tensor:
        """The part of the layer before the transposed convolution.

        Args:
            x: As in `forward`.
            skip: As in `forward`.

        Returns:
            `(B, inner, F, T)`.
        """
        inputs = [y for y in (x, skip) if y is not None]
        if self.conv_only:
            return _sum(*inputs)
        axis, chunked = self.settings.axis, self.settings.groups == 0
        y = map_chunks_with_context(self._gated, *inputs, axis=axis, context=self.context, chunked=chunked)
        return y if self.dconv is None else self.dconv(y)

    def _gated(self, *inputs: Tensor) -> Tensor:
        return functional.glu(self.norm1(self.rewrite(_sum(*inputs))), dim=1)


def _sum(x: Tensor, *more: Tensor) -> Tensor:
    for y in more:
        x = x + y
    return x
