"""The network that Band-Split RoFormer and Mel-Band RoFormer share.

Lu, Wang, Kong and Hung, "Music source separation with Band-Split RoPE Transformer" (ICASSP 2024); Wang, Lu and Won,
"Mel-Band RoFormer for music source separation" (2023). Every band of the spectrum becomes one token for each frame.
Transformers along time, with the bands in the batch, and along the bands, with the frames in the batch, take turns.
Position is encoded by rotation (Su et al., "RoFormer", 2021). Then a small network for each stem and band turns its
tokens into a complex mask. Modules are named as in the published checkpoints.

On a CPU, each sequence, or a few short ones, passes through a whole transformer before the next one does, and the
result takes its place. So what is wide inside a transformer fits the cache, and memory is little more than the tokens.
While gradients are recorded, and on other devices, all sequences pass at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby, pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from stemsplit.dsp.stft import Stft
from stemsplit.networks._checks import check_flags, check_sizes
from stemsplit.networks._layers import attention, linear, may_overwrite

EXPANSION = 4  # how many times wider the feed-forward networks are inside
THETA = 10_000.0  # the slowest rotation has this period, over 2 pi and but for a power near 1, in tokens
TOKENS_AT_ONCE = 1024  # in a transformer, on a CPU


@dataclass(frozen=True, slots=True)
class RoformerConfig:
    """Shape of the network, as far as both families share it.

    Attributes:
        n_fft: Samples of an STFT frame, even.
        hop: Samples from one frame to the next.
        width: Features of a token.
        depth: Pairs of transformers, one along time and one along the bands.
        heads: Of each attention.
        head_width: Features of a head, even.
        mask_layers: Linear layers of the networks that estimate the masks.
        mask_expansion: How many times wider than a token these are inside.
        remainder: Whether the last stem has no mask, but is what the others leave of the mixture.
        zero_dc: Whether the stems have no energy in the lowest bin, below 11 Hz at the default sizes.

    Raises:
        ValueError: A setting is impossible.
    """

    n_fft: int = 2048
    hop: int = 512
    width: int = 256
    depth: int = 12
    heads: int = 8
    head_width: int = 64
    mask_layers: int = 2
    mask_expansion: int = 4
    remainder: bool = False
    zero_dc: bool = True

    def __post_init__(self) -> None:
        check_sizes(
            self,
            {
                "n_fft": (16, 16384),
                "hop": (1, 16384),
                "width": (1, 8192),
                "depth": (1, 128),
                "heads": (1, 256),
                "head_width": (2, 1024),
                "mask_layers": (1, 8),
                "mask_expansion": (1, 16),
            },
        )
        check_flags(self, "remainder", "zero_dc")
        if self.head_width % 2:
            raise ValueError(f"head_width must be even, not {self.head_width}")


class RoformerNetwork(nn.Module):
    """A RoFormer. It takes mixtures of more than `n_fft // 2` samples.

    Args:
        config: The shape of the network.
        bands: The bins of each band; they may overlap. Every bin must be in one.
        norm_each: Whether every transformer ends with a normalization; otherwise there is one after all of them.
        stems: S, the number of stems.
        channels: C, of the mixture and of each stem.
    """

    bins: Tensor
    bands_of_bin: Tensor

    def __init__(
        self, config: RoformerConfig, bands: Sequence[Sequence[int]], *, norm_each: bool, stems: int, channels: int
    ) -> None:
        super().__init__()
        self.stft = Stft(config.n_fft, config.hop)
        self.head_width, self.zero_dc, self.remainder = config.head_width, config.zero_dc, config.remainder
        if stems == 1 and config.remainder:
            raise ValueError("a network that gives the remainder of the mixture needs another stem besides")
        bins = torch.tensor([index for band in bands for index in band], device="cpu")
        counts = torch.bincount(bins, minlength=self.stft.bins)
        if len(counts) > self.stft.bins or not counts.all():
            raise ValueError(f"the bands do not cover the {self.stft.bins} bins of the spectrum")
        self.register_buffer("bins", bins, persistent=False)
        self.register_buffer("bands_of_bin", counts.float(), persistent=False)
        self.overlapping = len(bins) > self.stft.bins
        values = [2 * channels * len(band) for band in bands]  # real and imaginary parts of all bins
        self.layers = nn.ModuleList(
            nn.ModuleList(_Transformer(config, norm=norm_each) for _ in ("time", "bands")) for _ in range(config.depth)
        )
        self.final_norm = nn.Identity() if norm_each else RmsNorm(config.width)
        self.band_split = _BandSplit(values, config.width)
        self.mask_estimators = nn.ModuleList(_MaskEstimator(values, config) for _ in range(stems - config.remainder))

    def forward(self, mix: Tensor, stem_indices: Sequence[int] | None = None) -> Tensor:
        """Separate a mixture.

        Args:
            mix: `(B, C, N)`.
            stem_indices: Which stems to return; all by default. The masks of the others are not computed.

        Returns:
            Stems `(B, S, C, N)`, in ascending order of their indices.
        """
        masked = range(len(self.mask_estimators))
        wanted = range(len(masked) + self.remainder) if stem_indices is None else sorted(stem_indices)
        needed = masked if len(masked) in wanted else wanted
        spectrum = self.stft(mix)
        tokens = self._tokens(spectrum)
        stems = {}
        for index in needed:
            estimate = self._masked(self.mask_estimators[index](tokens), spectrum)
            stems[index] = self.stft.inverse(estimate, mix.shape[-1])
        if len(masked) in wanted:
            stems[len(masked)] = mix - sum(stems.values())
        return torch.stack([stems[index] for index in wanted], dim=1)

    def _tokens(self, spectrum: Tensor) -> Tensor:
        """`(B, C, F, T)` complex -> `(K, B, T, D)`, the features of K bands."""
        values = spectrum.permute(0, 3, 2, 1)
        values = values.index_select(2, self.bins) if self.overlapping else values.contiguous()
        x = self.band_split(torch.view_as_real(values).flatten(2))
        positions = [rotation(length, self.head_width, x.device) for length in (x.shape[2], len(x))]
        for pair in list[Any](self.layers):
            along_time, along_bands = (partial(layer, positions=at) for layer, at in zip(pair, positions, strict=True))
            x = _map_sequences(along_time, x.flatten(0, 1)).view_as(x)
            x = _map_sequences(along_bands, x.flatten(1, 2).transpose(0, 1)).transpose(0, 1).view_as(x)
        normed: Tensor = self.final_norm(x)
        return normed

    def _masked(self, values: Tensor, spectrum: Tensor) -> Tensor:
        """Apply a mask, given as the values of all bands `(B, T, ...)`, to `(B, C, F, T)` complex."""
        b, channels, bins, frames = spectrum.shape
        mask = values.float().view(b, frames, -1, channels, 2)
        if self.overlapping:  # the mean over the bands of each bin, most often two: their order cannot matter
            total = mask.new_zeros(b, frames, bins, channels, 2).index_add(2, self.bins, mask)
            mask = total / self.bands_of_bin[:, None, None]
        # Frame by frame in memory, as the inverse STFT needs them.
        masked = (torch.view_as_complex(mask) * spectrum.permute(0, 3, 2, 1)).permute(0, 3, 1, 2).contiguous()
        if self.zero_dc:
            masked[..., 0] = 0
        return masked.transpose(-1, -2)


class RmsNorm(nn.Module):
    """Scales vectors to the norm of a vector of ones, then each feature: `(..., D)` -> `(..., D)`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return unit_rms(x) * self.gamma


def unit_rms(x: Tensor) -> Tensor:
    """Scale vectors `(..., D)` to a root mean square of one; zeros stay zeros."""
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True).clamp(min=1e-12)
    scaled: Tensor = x * (x.shape[-1] ** 0.5 / norm)
    return scaled


def rotation(length: int, width: int, device: torch.device) -> Tensor:
    """The rotations of every pair of features at every position, as unit complex numbers `(length, width / 2)`.

    The files of weights have a copy of the frequencies for every layer, but those in half precision are too coarse:
    they would turn late positions by a fraction of a radian too far.
    """
    angles = torch.outer(torch.arange(length, dtype=torch.float32), _frequencies(width)).to(device)
    return torch.polar(torch.ones_like(angles), angles)


def _frequencies(width: int) -> Tensor:
    """Radians from one position to the next, of every pair of features."""
    return THETA ** -(torch.arange(0, width, 2, dtype=torch.float32, device="cpu") / width)


class _Rotary(nn.Module):
    """The copy of the frequencies that the files of weights have in every layer. It is not used, see `rotation`."""

    freqs: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("freqs", _frequencies(width))


class _Attention(nn.Module):
    """Attention of several heads, each with a gate of its own: `(N, T, D)` -> `(N, T, D)`."""

    def __init__(self, config: RoformerConfig) -> None:
        super().__init__()
        inner = config.heads * config.head_width
        self.heads = config.heads
        self.rotary_embed = _Rotary(config.head_width)
        self.norm = RmsNorm(config.width)
        self.to_qkv = nn.Linear(config.width, 3 * inner, bias=False)
        self.to_gates = nn.Linear(config.width, config.heads)
        self.to_out = nn.Sequential(nn.Linear(inner, config.width, bias=False))

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        out: Any = self.to_out[0]
        x = self.norm(x)
        projected = linear(x, self.to_qkv.weight).contiguous()  # it is, but for sequences of one token
        query_key, value = projected.tensor_split([2 * out.in_features], dim=2)
        query, key = _rotate(query_key, positions).chunk(2, dim=2)
        mixed = attention(query, key, value, self.heads)
        gates = linear(x, self.to_gates.weight, self.to_gates.bias).sigmoid()
        mixed = mixed.view(*x.shape[:2], self.heads, -1) * gates.unsqueeze(3)
        return linear(mixed.flatten(2), out.weight)


def _rotate(x: Tensor, positions: Tensor) -> Tensor:
    """Rotate all heads `(N, T, heads * width)` by their position, in single precision."""
    pairs = torch.view_as_complex(x.float().view(*x.shape[:2], -1, positions.shape[1], 2))
    rotated = pairs.mul_(positions.unsqueeze(1)) if may_overwrite(x) else pairs * positions.unsqueeze(1)
    return torch.view_as_real(rotated).flatten(2).to(x.dtype)


class _FeedForward(nn.Module):
    """Two linear layers of every token: `(N, T, D)` -> `(N, T, D)`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = EXPANSION * width
        dropout = nn.Identity()  # it has no weights, but a number
        self.net = nn.Sequential(RmsNorm(width), nn.Linear(width, inner), nn.GELU(), dropout, nn.Linear(inner, width))

    def forward(self, x: Tensor) -> Tensor:
        norm, first, activation, _, last = list[Any](self.net)
        inner = activation(linear(norm(x), first.weight, first.bias))
        return linear(inner, last.weight, last.bias)


class _Transformer(nn.Module):
    """Attention and a feed-forward network, each with a residual connection: `(N, T, D)` -> `(N, T, D)`."""

    def __init__(self, config: RoformerConfig, *, norm: bool) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.ModuleList([_Attention(config), _FeedForward(config.width)])])
        self.norm = RmsNorm(config.width) if norm else nn.Identity()

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        layer: Any = self.layers[0]
        attend, feed_forward = layer
        x = x + attend(x, positions)
        x = x + feed_forward(x)
        normed: Tensor = self.norm(x)
        return normed


def _map_sequences(step: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a transformer to sequences `(N, T, D)`; on a CPU a few at a time, and the result overwrites them."""
    if not may_overwrite(x):
        return step(x.contiguous())
    for some in torch.split(x, max(1, TOKENS_AT_ONCE // x.shape[1])):
        some.copy_(step(some.contiguous()))
    return x


class _BandSplit(nn.Module):
    """A normalization and a linear layer of its own for every band: `(B, T, all values)` -> `(K, B, T, D)`.

    Args:
        values: Of each band.
        width: D, features of a token.
    """

    def __init__(self, values: Sequence[int], width: int) -> None:
        super().__init__()
        self.values = values
        self.to_features = nn.ModuleList(nn.Sequential(RmsNorm(n), nn.Linear(n, width)) for n in values)

    def forward(self, x: Tensor) -> Tensor:
        b, frames, _ = x.shape
        tokens, done, first = [], 0, 0
        for size, equal in groupby(self.values):  # neighbours of equal size in one product
            count = len(list(equal))
            norms, layers = zip(*self.to_features[first : first + count], strict=True)
            bands = unit_rms(x[..., done : done + count * size].view(b * frames, count, size))
            bands = bands * torch.stack([norm.gamma for norm in norms])
            weights = torch.stack([layer.weight.T for layer in layers])
            biases = torch.stack([layer.bias for layer in layers])
            tokens.append(torch.baddbmm(biases.unsqueeze(1), bands.transpose(0, 1), weights))
            done, first = done + count * size, first + count
        return torch.cat(tokens).float().view(len(self.values), b, frames, -1)  # single precision even in autocast


class _MaskEstimator(nn.Module):
    """A small network for every band: `(K, B, T, D)` -> real and imaginary parts of the mask, `(B, T, all values)`.

    Args:
        values: Of each band.
        config: The shape of the network.
    """

    def __init__(self, values: Sequence[int], config: RoformerConfig) -> None:
        super().__init__()
        hidden = [config.mask_expansion * config.width] * (config.mask_layers - 1)
        self.to_freqs = nn.ModuleList(_perceptron([config.width, *hidden, 2 * n]) for n in values)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self._estimate(band, tokens) for band, tokens in zip(self.to_freqs, x, strict=True)], dim=2)

    @staticmethod
    def _estimate(band: Any, x: Tensor) -> Tensor:
        for layer in band[0]:
            x = linear(x, layer.weight, layer.bias) if isinstance(layer, nn.Linear) else _tanh(x)
        return functional.glu(x, dim=2)


def _perceptron(widths: Sequence[int]) -> nn.Sequential:
    """Linear layers with tanh between them, then a gate."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.Tanh()]
    return nn.Sequential(nn.Sequential(*layers[:-1]), nn.GLU())


def _tanh(x: Tensor) -> Tensor:
    return x.tanh_() if may_overwrite(x) else x.tanh()
