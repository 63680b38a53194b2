"""Spleeter: one U-Net a stem on the mixture's magnitudes, and masks that are their squared shares of the sum.

Hennequin, Khlif, Voituret and Moussallam, "Spleeter: a fast and efficient music source separation tool with pre-trained
models" (Journal of Open Source Software, 2020); the U-Nets follow Jansson et al., "Singing voice separation with deep
U-Net convolutional networks" (ISMIR 2017). They were trained on pieces of 512 frames, on magnitudes that are not scaled
in any way, and see only the lowest bins.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from stemsplit.dsp.stft import Stft
from stemsplit.networks.masking import PIECE, MaskNetwork

DEPTH = 6
SAME = (1, 2, 1, 2)  # what TensorFlow adds around an even size, for a kernel of 5 that steps by 2
SILENCE = 1e-10  # where all stems are silent, each gets the same
LIMITS = {"n_fft": 2**15, "frames": 2**14, "bins": 2**14}
WIDEST = 2**13


@dataclass(frozen=True, slots=True)
class Config:
    """Shape of the network. The defaults are those of the published weights, the masks above 11 kHz excepted.

    Args:
        n_fft, hop: the STFT, samples.
        frames, bins: what a U-Net sees at once, multiples of 64: pieces of so many frames (a shorter one is filled up
            with zeros), and of those the lowest bins.
        widths: feature maps after each of the six layers, from full resolution down.
        extension: the masks of the bins above. "average": the mean of the frame's mask over the others, so that masks
            add up to one, and stems to the mixture, everywhere. "zeros", as in Spleeter: what is up there is lost.
    """

    n_fft: int = 4096
    hop: int = 1024
    frames: int = 512
    bins: int = 1024
    widths: Sequence[int] = (16, 32, 64, 128, 256, 512)
    extension: str = "average"

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        for name, most in LIMITS.items():
            if type(getattr(self, name)) is not int or not 0 < getattr(self, name) <= most:
                raise ValueError(f"{name} must be a whole number in 1..{most}")
        if type(self.hop) is not int:
            raise ValueError("hop must be a whole number")
        if self.frames % 2**DEPTH or self.bins % 2**DEPTH or self.bins > self.n_fft // 2 + 1:
            raise ValueError(f"{self.frames} frames and {self.bins} bins cannot be halved {DEPTH} times")
        if len(self.widths) != DEPTH or not all(type(width) is int and 0 < width <= WIDEST for width in self.widths):
            raise ValueError(f"there must be {DEPTH} widths in 1..{WIDEST}")
        if self.extension not in ("average", "zeros"):
            raise ValueError("extension must be 'average' or 'zeros'")


def windows(config: Config) -> tuple[int, int]:
    """Length and hop of the windows of a song, samples: all that a U-Net sees at once, and 15 sixteenths of that.

    The hop is whole frames, and with the published 512 of them the halves of all layers but the last fall on the same
    places in all windows.
    """
    length = (config.frames - 1) * config.hop - config.n_fft
    return length, min(config.frames * 15 // 16 * config.hop, length * 19 // 20)  # of few frames the edges are much


class Network(MaskNetwork):
    """See the module. One U-Net after the other: together their maps would not fit the caches of a CPU."""

    def __init__(self, config: Config, *, stems: int, channels: int) -> None:
        super().__init__(Stft(config.n_fft, config.hop))
        self.frames, self.bins, self.extension = config.frames, config.bins, config.extension
        self.networks = nn.ModuleList(_UNet(channels, config.widths) for _ in range(stems))
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # see `unet`

    @property
    def masks_sum_to_one(self) -> bool:
        """Not where what lies above the band is lost."""
        return self.extension == "average"

    def input_length(self, length: int) -> int:
        """Samples to be seen to separate `length` of them: frames begin as early and end as late as in Spleeter."""
        return length + self.stft.n_fft

    def masks(self, spectrum: Tensor) -> Tensor:
        """`(B, C, F, T)` complex -> `(B, S, C, F, T)` in [0, 1]; with the extension "average" they add up to one."""
        return torch.cat(list(self.masks_in_pieces(spectrum)), dim=-1)

    def masks_in_pieces(self, spectrum: Tensor) -> Iterator[Tensor]:
        """The same some frames at a time, `(B, S, C, F, t)`."""
        return self._shares(spectrum, 2)

    def rough_masks(self, spectrum: Tensor) -> Tensor:
        """As Spleeter's own Wiener filtering, it starts from shares of magnitudes, not of their squares."""
        return torch.cat(list(self._shares(spectrum, 1)), dim=-1)

    def _shares(self, spectrum: Tensor, power: int) -> Iterator[Tensor]:
        """The magnitudes that the U-Nets estimate, to a power, as shares of the sum over the stems."""
        estimates = list(self._estimates(spectrum))
        frames = spectrum.shape[-1] if torch.is_grad_enabled() else PIECE
        for some in zip(*(torch.split(estimate, frames, dim=2) for estimate in estimates), strict=True):
            powers = torch.stack(some, dim=1) ** power
            masks = (powers + SILENCE / len(some)) / (powers.sum(1, keepdim=True) + SILENCE)
            rest = masks.mean(-1, keepdim=True) if self.extension == "average" else masks.new_zeros(1)
            above = rest.expand(*masks.shape[:-1], self.stft.bins - self.bins)
            yield torch.cat([masks, above], dim=-1).transpose(-1, -2)

    def _estimates(self, spectrum: Tensor) -> Iterator[Tensor]:
        """Mixture `(B, C, F, T)` complex -> magnitude of each stem `(B, C, T, bins)`."""
        magnitude = spectrum[..., : self.bins, :].transpose(-1, -2).abs()
        b, c, t, _ = magnitude.shape
        padded = functional.pad(magnitude, (0, 0, 0, -t % self.frames))
        pieces = padded.view(b, c, -1, self.frames, self.bins).transpose(1, 2).flatten(0, 1)
        x = pieces.contiguous(memory_format=torch.channels_last)
        for network in self.networks:
            share = network(x).contiguous(memory_format=torch.contiguous_format)
            estimate = (share * pieces).view(b, -1, c, self.frames, self.bins).transpose(1, 2)
            yield estimate.reshape(b, c, -1, self.bins)[:, :, :t]


class _UNet(nn.Module):
    """Magnitudes `(B, C, T, F)`, T and F multiples of 64 -> which part of them the stem has, the same shape.

    The names of the layers are those in the published files.
    """

    def __init__(self, channels: int, widths: Sequence[int]) -> None:
        super().__init__()
        mirrored = [*widths[-2::-1], 1]
        inner = [widths[-1], *(2 * width for width in mirrored[:-1])]  # with the skip connection
        self.encoder = tuple(nn.Conv2d(*pair, 5, stride=2) for pair in pairwise((channels, *widths)))
        self.decoder = tuple(nn.ConvTranspose2d(*pair, 5, stride=2) for pair in zip(inner, mirrored, strict=True))
        # Keras keeps 99 % of its running statistics, which here is called a momentum of 0.01.
        self.norms = tuple(nn.BatchNorm2d(width, eps=1e-3, momentum=0.01) for width in (*widths[:-1], *mirrored))
        for name, layers, first in (("conv", self.encoder, 0), ("up", self.decoder, 1), ("bn", self.norms, 0)):
            for number, layer in enumerate(layers, start=first):
                self.add_module(f"{name}{number or ''}", layer)
        self.up7 = nn.Conv2d(1, channels, 4, dilation=2, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        kind = x.device.type
        if torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16:
            # Magnitudes that are not scaled, and what is made of them, may be beyond its range.
            with torch.autocast(kind, enabled=False):
                return self._forward(x)
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled() and not self.training and x.device.type == "cpu":
            return self._infer(x)
        skips = []
        for conv, norm in zip(self.encoder, (*self.norms[: DEPTH - 1], None), strict=True):
            x = conv(functional.pad(x, SAME))
            if norm is not None:  # the last one goes on as it is
                skips.append(x)
                x = functional.elu(norm(x), inplace=True)
        for number, (up, norm) in enumerate(zip(self.decoder, self.norms[DEPTH - 1 :], strict=True)):
            x = norm(functional.elu(_doubled(x, up, large=number < 2), inplace=True))
            if number < 3:
                x = functional.dropout(x, 0.5, self.training)
            if skips:
                x = torch.cat([skips.pop(), x], dim=1)
        share: Tensor = self.up7(x).sigmoid()
        return share

    def _infer(self, x: Tensor) -> Tensor:
        """The same on a CPU, where going through memory costs as much as the arithmetic: maps are written where the
        next layer wants them, with their borders or beside those that skip.
        """
        x, joined = _bordered(x), []
        for conv, norm, up in zip(self.encoder, self.norms, self.decoder[-2::-1], strict=False):
            raw = conv(x)
            joined.append(_join(raw, up.out_channels))
            x = _bordered(raw, norm)
        x = self.encoder[-1](x)
        for number, (up, norm) in enumerate(zip(self.decoder[:-1], self.norms[DEPTH - 1 :], strict=False)):
            both = joined.pop()
            into = both[:, -up.out_channels :]
            if number < 2:
                _scale(functional.elu(_doubled(x, up, large=True), inplace=True), norm, into)
            else:
                _double_into(x, up, norm, into)
            x = both
        x = self.norms[-1](functional.elu(_doubled(x, self.decoder[-1], large=False), inplace=True))
        share: Tensor = self.up7(x).sigmoid_()
        return share


def _bordered(x: Tensor, norm: nn.BatchNorm2d | None = None) -> Tensor:
    """With the zeros around that the next convolution wants; normalized and through the ELU, with a `norm`."""
    b, c, t, f = x.shape
    y = x.new_empty(b, t + 3, f + 3, c)
    for edge in (y[:, :1], y[:, -2:], y[:, :, :1], y[:, :, -2:]):
        edge.zero_()
    inner = y[:, 1:-2, 1:-2].permute(0, 3, 1, 2)
    if norm is None:
        inner.copy_(x)
    else:
        _scale(x, norm, inner)
        functional.elu(inner, inplace=True)
    return y.permute(0, 3, 1, 2)


def _join(x: Tensor, more: int) -> Tensor:
    """With room for `more` maps behind its own."""
    b, c, t, f = x.shape
    y = x.new_empty(b, t, f, c + more).permute(0, 3, 1, 2)
    y[:, :c] = x
    return y


def _scale(x: Tensor, norm: nn.BatchNorm2d, into: Tensor) -> None:
    """Write `x`, normalized by what was learnt, to another place."""
    assert norm.running_var is not None and norm.running_mean is not None
    scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
    shift = norm.bias - norm.running_mean * scale
    torch.addcmul(shift[:, None, None], x, scale[:, None, None], out=into)


def _doubled(x: Tensor, layer: nn.ConvTranspose2d, *, large: bool) -> Tensor:
    """The transposed convolution, without what TensorFlow cuts off: `(B, C, T, F)` -> `(B, C', 2 T, 2 F)`.

    A CPU takes up to twice as long for it as for convolutions that do the same, the latter with kernels that are made
    from the weights each time. That pays unless the weights are `large`.
    """
    assert layer.bias is not None
    if layer.out_channels == 1:
        return _doubled_in_blocks(x, layer.weight, layer.bias)
    if large:
        return functional.conv_transpose2d(x, layer.weight, layer.bias, stride=2, padding=1)[..., :-1, :-1]
    (b, _, t, f), maps = x.shape, layer.out_channels
    y = x.new_empty(b, 2 * t, 2 * f, maps).permute(0, 3, 1, 2)
    for place, part in _quarters(x, layer):
        y[place] = part
    return y


def _double_into(x: Tensor, layer: nn.ConvTranspose2d, norm: nn.BatchNorm2d, into: Tensor) -> None:
    """The same, through the ELU and normalized."""
    for place, part in _quarters(x, layer):
        _scale(functional.elu(part, inplace=True), norm, into[place])


def _quarters(x: Tensor, layer: nn.ConvTranspose2d) -> Iterator[tuple[tuple[slice, ...], Tensor]]:
    """Every second row and column of it, as convolutions with parts of the kernel, and where they belong."""
    (t, f), all_ = x.shape[-2:], slice(None)
    kernels = layer.weight.transpose(0, 1).flip(2, 3)
    # Row 2 t of the output is made of rows t - 1 and t, by every second row of the kernel, and row 2 t + 1 of rows
    # t - 1, t and t + 1, by the others; columns likewise.
    for row in (0, 1):
        for column in (0, 1):
            kernel = kernels[..., 1 - row :: 2, 1 - column :: 2].contiguous(memory_format=torch.channels_last)
            part = functional.conv2d(x, kernel, layer.bias, padding=1)
            yield (all_, all_, slice(row, None, 2), slice(column, None, 2)), part[..., :t, :f]


def _doubled_in_blocks(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The same to a single map, in blocks of 4 x 4: with one output at a time most of a vector register is idle."""
    place = torch.arange(4, device=x.device)
    # Row r of a block of the output is made of rows -1..2 of the block of two rows at the same place in the input.
    used = place.unsqueeze(1) - 2 * (place - 1) + 1  # by which row of the kernel
    there = (used >= 0) & (used < 5)
    rows = torch.where(there, used, 0)
    taken = weight[:, 0][:, rows[:, :, None, None], rows] * (there[:, :, None, None] & there)
    kernel = taken.permute(1, 3, 0, 2, 4).flatten(0, 1).contiguous(memory_format=torch.channels_last)
    y = functional.conv2d(x, kernel, bias.expand(16), stride=2, padding=1)
    b, _, t, f = y.shape
    return y.view(b, 1, 4, 4, t, f).permute(0, 1, 4, 2, 5, 3).reshape(b, 1, 4 * t, 4 * f)
