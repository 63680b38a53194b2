"""Spleeter: one U-Net for each stem estimates its magnitudes, and the masks are ratios of their squares.

With the magnitude v_j that the U-Net of stem j estimates for a bin, its mask there is v_j^2 / sum over i of v_i^2.

Hennequin, Khlif, Voituret and Moussallam, "Spleeter: a fast and efficient music source separation tool with pre-trained
models" (Journal of Open Source Software 5(50), 2020); the U-Nets follow Jansson et al., "Singing voice separation with
deep U-Net convolutional networks" (ISMIR 2017). They were trained on segments of 512 frames, on magnitudes that are not
normalized, and take the lowest 1024 bins only.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from stemsplit.dsp.stft import Stft
from stemsplit.networks.masking import CHUNK_FRAMES, MaskNetwork

DEPTH = 6
SAME_PADDING = (1, 2, 1, 2)  # TensorFlow's "same" for an even size, kernel 5 and stride 2
EPSILON = 1e-10  # where all estimates are zero, it makes the masks equal
LIMITS = {"n_fft": 2**15, "frames": 2**14, "bins": 2**14}
MAX_WIDTH = 2**13
ACTIVATIONS: dict[str, Callable[..., Tensor]] = {  # by their names in Spleeter's own configuration
    "ELU": functional.elu,
    "LeakyReLU": partial(functional.leaky_relu, negative_slope=0.2),
    "ReLU": functional.relu,
}


@dataclass(frozen=True, slots=True)
class Config:
    """Shape of the network. The defaults are those of the published weights, except for the masks above 11 kHz.

    Attributes:
        n_fft: Samples of an STFT frame.
        hop: Samples from one frame to the next.
        frames: Frames of a segment, a multiple of 64. The U-Nets see one segment at a time; a shorter one is
            padded with zeros.
        bins: How many of the lowest bins the U-Nets see, a multiple of 64.
        widths: Feature maps after each of the six layers, from full resolution down.
        extension: The masks of the bins above. "average" is the mean of the frame's mask over the lower bins, so that
            masks sum to one everywhere and stems to the mixture. "zeros", Spleeter's default, leaves what is up there
            out of all stems.
        conv_activation: Of the encoder, a key of `ACTIVATIONS`. The four-stem model has ELU, the two-stem model
            LeakyReLU. The shapes of the weights do not show which.
        deconv_activation: Of the decoder. The four-stem model has ELU, the two-stem model ReLU.

    Raises:
        ValueError: A setting is impossible.
    """

    n_fft: int = 4096
    hop: int = 1024
    frames: int = 512
    bins: int = 1024
    widths: Sequence[int] = (16, 32, 64, 128, 256, 512)
    extension: str = "average"
    conv_activation: str = "ELU"
    deconv_activation: str = "ELU"

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        for name, limit in LIMITS.items():
            if type(getattr(self, name)) is not int or not 0 < getattr(self, name) <= limit:
                raise ValueError(f"{name} must be a whole number in 1..{limit}")
        if type(self.hop) is not int:
            raise ValueError("hop must be a whole number")
        if self.frames % 2**DEPTH or self.bins % 2**DEPTH or self.bins > self.n_fft // 2 + 1:
            raise ValueError(f"frames and bins must be multiples of {2**DEPTH}, and bins at most {self.n_fft // 2 + 1}")
        if len(self.widths) != DEPTH or not all(type(width) is int and 0 < width <= MAX_WIDTH for width in self.widths):
            raise ValueError(f"there must be {DEPTH} widths in 1..{MAX_WIDTH}")
        if self.extension not in ("average", "zeros"):
            raise ValueError("extension must be 'average' or 'zeros'")
        for name in ("conv_activation", "deconv_activation"):
            if getattr(self, name) not in ACTIVATIONS:
                raise ValueError(f"{name} must be one of {', '.join(ACTIVATIONS)}")


def windows(config: Config) -> tuple[int, int]:
    """The windows in which a song is separated: as long as a segment allows, overlapping by a sixteenth.

    The hop is a whole number of frames. With the published 512 frames it is a multiple of 32 frames, so the strided
    layers but the last sample all windows at the same positions.

    Args:
        config: The shape of the network.

    Returns:
        Length and hop, samples.
    """
    length = (config.frames - 1) * config.hop - config.n_fft
    return length, min(config.frames * 15 // 16 * config.hop, length * 19 // 20)  # the latter for very short segments


class Network(MaskNetwork):
    """Spleeter. The U-Nets run one after the other, as their feature maps together exceed a CPU's cache.

    Args:
        config: The shape of the network.
        stems: S, the number of stems.
        channels: C, of the mixture and of each stem.
    """

    def __init__(self, config: Config, *, stems: int, channels: int) -> None:
        super().__init__(Stft(config.n_fft, config.hop))
        self.frames, self.bins, self.extension = config.frames, config.bins, config.extension
        self.networks = nn.ModuleList(_UNet(channels, config) for _ in range(stems))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # see `unet`

    def input_length(self, length: int) -> int:
        """Samples that the network needs to separate `length` of them: half a frame of context at either end.

        Then the first and the last frame lie where Spleeter has them.
        """
        return length + self.stft.n_fft

    def masks(self, spectrum: Tensor) -> Tensor:
        """Estimate the masks; see the base class.

        Args:
            spectrum: Of the mixture, `(B, C, F, T)` complex.

        Returns:
            `(B, S, C, F, T)` real, in [0, 1].
        """
        return torch.cat(list(self.masks_in_chunks(spectrum)), dim=-1)

    def masks_in_chunks(self, spectrum: Tensor) -> Iterator[Tensor]:
        """Estimate the masks, and give them a few frames at a time; see the base class.

        Args:
            spectrum: Of the mixture, `(B, C, F, T)` complex.

        Yields:
            Masks `(B, S, C, F, t)`, consecutive in time; a single chunk while gradients are recorded.
        """
        return self._ratio_masks(spectrum, exponent=2)

    def wiener_masks(self, spectrum: Tensor) -> Tensor:
        """Ratios of magnitudes, not of their squares: what Spleeter itself starts Wiener filtering from.

        Args:
            spectrum: Of the mixture, `(B, C, F, T)` complex.

        Returns:
            `(B, S, C, F, T)` real, in [0, 1].
        """
        return torch.cat(list(self._ratio_masks(spectrum, exponent=1)), dim=-1)

    def _ratio_masks(self, spectrum: Tensor, exponent: int) -> Iterator[Tensor]:
        """The estimated magnitudes to a power, over their sum over the stems; extended to all bins."""
        estimates = list(self._estimates(spectrum))
        frames = spectrum.shape[-1] if torch.is_grad_enabled() else CHUNK_FRAMES
        for chunks in zip(*(torch.split(estimate, frames, dim=2) for estimate in estimates), strict=True):
            powers = torch.stack(chunks, dim=1) ** exponent
            masks = (powers + EPSILON / len(chunks)) / (powers.sum(1, keepdim=True) + EPSILON)
            above = masks.mean(-1, keepdim=True) if self.extension == "average" else masks.new_zeros(1)
            above = above.expand(*masks.shape[:-1], self.stft.bins - self.bins)
            yield torch.cat([masks, above], dim=-1).transpose(-1, -2)

    def _estimates(self, spectrum: Tensor) -> Iterator[Tensor]:
        """Mixture `(B, C, F, T)` complex -> the magnitude of each stem, `(B, C, T, bins)`."""
        magnitude = spectrum[..., : self.bins, :].transpose(-1, -2).abs()
        b, c, t, _ = magnitude.shape
        padded = functional.pad(magnitude, (0, 0, 0, -t % self.frames))
        segments = padded.view(b, c, -1, self.frames, self.bins).transpose(1, 2).flatten(0, 1)
        x = segments.contiguous(memory_format=torch.channels_last)
        for network in self.networks:
            mask = network(x).contiguous(memory_format=torch.contiguous_format)
            estimate = (mask * segments).view(b, -1, c, self.frames, self.bins).transpose(1, 2)
            yield estimate.reshape(b, c, -1, self.bins)[:, :, :t]


class _UNet(nn.Module):
    """The U-Net of a stem: magnitudes `(B, C, T, F)`, T and F multiples of 64 -> their mask in [0, 1], the same shape.

    Layers are named as in the published files.
    """

    def __init__(self, channels: int, config: Config) -> None:
        super().__init__()
        widths = config.widths
        self.activate = ACTIVATIONS[config.conv_activation]
        self.activate_up = ACTIVATIONS[config.deconv_activation]
        mirrored = [*widths[-2::-1], 1]
        inner = [widths[-1], *(2 * width for width in mirrored[:-1])]  # with the skip connection
        self.encoder = tuple(nn.Conv2d(*pair, 5, stride=2) for pair in pairwise((channels, *widths)))
        self.decoder = tuple(nn.ConvTranspose2d(*pair, 5, stride=2) for pair in zip(inner, mirrored, strict=True))
        # Keras calls this a momentum of 0.99: the part of the running statistics that it keeps.
        self.norms = tuple(nn.BatchNorm2d(width, eps=1e-3, momentum=0.01) for width in (*widths[:-1], *mirrored))
        for name, layers, first in (("conv", self.encoder, 0), ("up", self.decoder, 1), ("bn", self.norms, 0)):
            for number, layer in enumerate(layers, start=first):
                self.add_module(f"{name}{number or ''}", layer)
        self.up7 = nn.Conv2d(1, channels, 4, dilation=2, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        kind = x.device.type
        if torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16:
            # Magnitudes are not normalized, so they and the feature maps may exceed the range of float16.
            with torch.autocast(kind, enabled=False):
                return self._forward(x)
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled() and not self.training and x.device.type == "cpu":
            return self._infer(x)
        skips = []
        for conv, norm in zip(self.encoder, (*self.norms[: DEPTH - 1], None), strict=True):
            x = conv(functional.pad(x, SAME_PADDING))
            if norm is not None:  # the last one has no activation
                skips.append(x)
                x = self.activate(norm(x), inplace=True)
        for number, (up, norm) in enumerate(zip(self.decoder, self.norms[DEPTH - 1 :], strict=True)):
            x = norm(self.activate_up(_upsample(x, up, large=number < 2), inplace=True))
            if number < 3:
                x = functional.dropout(x, 0.5, self.training)
            if skips:
                x = torch.cat([skips.pop(), x], dim=1)
        mask: Tensor = self.up7(x).sigmoid()
        return mask

    def _infer(self, x: Tensor) -> Tensor:
        """`_forward` on a CPU, where moving data costs as much as the arithmetic.

        Feature maps are written where the next layer reads them: inside their padding, or beside the skip connection.
        """
        x, skips = _padded(x), []
        for conv, norm, up in zip(self.encoder, self.norms, self.decoder[-2::-1], strict=False):
            raw = conv(x)
            skips.append(_with_space(raw, up.out_channels))
            x = _padded(raw, norm, self.activate)
        x = self.encoder[-1](x)
        for number, (up, norm) in enumerate(zip(self.decoder[:-1], self.norms[DEPTH - 1 :], strict=False)):
            joined = skips.pop()
            space = joined[:, -up.out_channels :]
            if number < 2:
                _normalize(self.activate_up(_upsample(x, up, large=True), inplace=True), norm, out=space)
            else:
                for phase, part in _upsampled_phases(x, up):
                    _normalize(self.activate_up(part, inplace=True), norm, out=space[phase])
            x = joined
        x = self.norms[-1](self.activate_up(_upsample(x, self.decoder[-1], large=False), inplace=True))
        mask: Tensor = self.up7(x).sigmoid_()
        return mask


def _padded(x: Tensor, norm: nn.BatchNorm2d | None = None, activate: Callable[..., Tensor] | None = None) -> Tensor:
    """`x` with the "same" padding of the next convolution; with a `norm`, first through it and an activation."""
    b, c, t, f = x.shape
    y = x.new_empty(b, t + 3, f + 3, c)
    for border in (y[:, :1], y[:, -2:], y[:, :, :1], y[:, :, -2:]):
        border.zero_()
    inner = y[:, 1:-2, 1:-2].permute(0, 3, 1, 2)
    if norm is None or activate is None:
        inner.copy_(x)
    else:
        _normalize(x, norm, out=inner)
        activate(inner, inplace=True)
    return y.permute(0, 3, 1, 2)


def _with_space(x: Tensor, maps: int) -> Tensor:
    """`x` followed by that many feature maps that are not filled yet."""
    b, c, t, f = x.shape
    y = x.new_empty(b, t, f, c + maps).permute(0, 3, 1, 2)
    y[:, :c] = x
    return y


def _normalize(x: Tensor, norm: nn.BatchNorm2d, *, out: Tensor) -> None:
    """Write `norm(x)`, by its running statistics, to `out`."""
    assert norm.running_var is not None and norm.running_mean is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift = norm.bias - norm.running_mean * scale
    torch.addcmul(shift[:, None, None], x, scale[:, None, None], out=out)


def _upsample(x: Tensor, layer: nn.ConvTranspose2d, *, large: bool) -> Tensor:
    """A transposed convolution with TensorFlow's "same" padding: `(B, C, T, F)` -> `(B, C', 2 T, 2 F)`.

    A CPU can take twice as long for it as for ordinary convolutions with parts of the kernel, which are cut out anew on
    every call. That pays unless the weights are `large`.
    """
    assert layer.bias is not None
    if layer.out_channels == 1:
        return _upsample_to_one_map(x, layer.weight, layer.bias)
    if large:
        return functional.conv_transpose2d(x, layer.weight, layer.bias, stride=2, padding=1)[..., :-1, :-1]
    (b, _, t, f), maps = x.shape, layer.out_channels
    y = x.new_empty(b, 2 * t, 2 * f, maps).permute(0, 3, 1, 2)
    for phase, part in _upsampled_phases(x, layer):
        y[phase] = part
    return y


def _upsampled_phases(x: Tensor, layer: nn.ConvTranspose2d) -> Iterator[tuple[tuple[slice, ...], Tensor]]:
    """The polyphase form of `_upsample`: for even and odd rows and columns, where they are in the result, and they."""
    (t, f), all_ = x.shape[-2:], slice(None)
    kernels = layer.weight.transpose(0, 1).flip(2, 3)
    # Row 2 t of the output depends on rows t - 1 and t, by every second row of the kernel, and row 2 t + 1 on rows
    # t - 1, t and t + 1, by the others; columns likewise.
    for row in (0, 1):
        for column in (0, 1):
            kernel = kernels[..., 1 - row :: 2, 1 - column :: 2].contiguous(memory_format=torch.channels_last)
            part = functional.conv2d(x, kernel, layer.bias, padding=1)
            yield (all_, all_, slice(row, None, 2), slice(column, None, 2)), part[..., :t, :f]


def _upsample_to_one_map(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`_upsample` to a single map, by a convolution that gives blocks of 4 x 4 outputs.

    One output at a time would leave most of a vector register idle.
    """
    index = torch.arange(4, device=x.device)
    # Row r of a block of outputs depends on rows -1..2 of the block of two input rows at the same position.
    kernel_rows = index.unsqueeze(1) - 2 * (index - 1) + 1
    valid = (kernel_rows >= 0) & (kernel_rows < 5)
    rows = torch.where(valid, kernel_rows, 0)
    weights = weight[:, 0][:, rows[:, :, None, None], rows] * (valid[:, :, None, None] & valid)
    kernel = weights.permute(1, 3, 0, 2, 4).flatten(0, 1).contiguous(memory_format=torch.channels_last)
    y = functional.conv2d(x, kernel, bias.expand(16), stride=2, padding=1)
    b, _, t, f = y.shape
    return y.view(b, 1, 4, 4, t, f).permute(0, 1, 4, 2, 5, 3).reshape(b, 1, 4 * t, 4 * f)
