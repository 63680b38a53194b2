"""Hybrid Transformer Demucs: between the encoders and decoders of two U-Nets goes a transformer over both.

Rouard, Massa and Défossez, "Hybrid Transformers for Music Source Separation" (ICASSP 2023). One sequence of tokens
comes from the spectrogram and one from the samples; layers by turns attend within each and from one to the other.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from stemsplit.networks._demucs import KERNEL, NEVER, STRIDE, check_sizes, check_widths
from stemsplit.networks._hybrid import HybridNetwork
from stemsplit.networks._products import linear
from stemsplit.networks._transformer import CrossTransformer

NORM_STARTS = 4


@dataclass(frozen=True, slots=True)
class Config:
    """Shape of the network.

    Args:
        n_fft: of the STFT, samples, a multiple of `2 * 4**depth`.
        width: feature maps after the first layer; every further one doubles them.
        depth: layers of each encoder and decoder.
        compress: how many times narrower the residual branches are.
        bottom_channels: features of a token; 0 for as many as the last layer of the encoders gives.
        layers, heads: of the transformer.
        length: samples that it was trained for, and the most that it takes. Shorter inputs are filled up with zeros.
    """

    n_fft: int = 4096
    width: int = 48
    depth: int = 4
    compress: int = 8
    bottom_channels: int = 512
    layers: int = 5
    heads: int = 8
    length: int = 343_980

    def __post_init__(self) -> None:
        check_sizes(
            self,
            {
                "n_fft": (64, 16384),
                "width": (1, 1024),
                "depth": (1, 6),
                "compress": (1, 1024),
                "bottom_channels": (0, 8192),
                "layers": (1, 64),
                "heads": (1, 1024),
                "length": (1, 2**24),
            },
        )
        check_widths(self.width, self.depth, self.compress, norm_starts=NORM_STARTS, memory_starts=NEVER)
        bins = self.n_fft // 2
        if self.n_fft % (2 * STRIDE**self.depth) or bins // STRIDE ** (self.depth - 1) <= KERNEL:
            raise ValueError(f"{bins} bins cannot be narrowed {self.depth} times")
        if self.features % 4 or self.features % self.heads:
            raise ValueError(f"tokens of {self.features} features do not suit {self.heads} heads and their positions")

    @property
    def features(self) -> int:
        """How many features a token has."""
        return self.bottom_channels or self.width * 2 ** (self.depth - 1)


class Network(HybridNetwork):
    """See the module."""

    def __init__(self, config: Config, *, stems: int, channels: int) -> None:
        super().__init__(
            stems=stems,
            channels=channels,
            n_fft=config.n_fft,
            width=config.width,
            depth=config.depth,
            compress=config.compress,
            norm_starts=NORM_STARTS,
            memory_starts=NEVER,
            decoder_branches=True,
        )
        self.length = config.length
        self.resized = config.bottom_channels > 0
        if self.resized:
            maps = config.width * 2 ** (config.depth - 1)
            self.channel_upsampler = nn.Conv1d(maps, config.features, 1)
            self.channel_downsampler = nn.Conv1d(config.features, maps, 1)
            self.channel_upsampler_t = nn.Conv1d(maps, config.features, 1)
            self.channel_downsampler_t = nn.Conv1d(config.features, maps, 1)
        self.crosstransformer = CrossTransformer(config.features, layers=config.layers, heads=config.heads)

    def forward(self, mix: Tensor) -> Tensor:
        """Mixture `(B, C, N)` -> stems `(B, S, C, N)`.

        In eval mode the network always sees the length that it was trained for. Raises ValueError when `N` is above it.
        """
        if self.training:
            return super().forward(mix)
        length = mix.shape[-1]
        if length > self.length:
            raise ValueError(f"{length} samples are more than the {self.length} that the network takes")
        return super().forward(functional.pad(mix, (0, self.length - length)))[..., :length]

    def input_length(self, length: int) -> int:
        """How many samples it wants to see, whatever the length."""
        return self.length

    def between(self, x: Tensor, xt: Tensor) -> tuple[Tensor, Tensor]:
        """The transformer: `(B, C', F, T)` and `(B, C', 1, T')` -> the same shapes."""
        b, _, bins, frames = x.shape
        x = x.permute(0, 2, 3, 1).flatten(1, 2)  # tokens, all frames of a bin in a row
        xt = xt.squeeze(2).transpose(1, 2)
        if self.resized:
            x, xt = _pointwise(self.channel_upsampler, x), _pointwise(self.channel_upsampler_t, xt)
        x, xt = self.crosstransformer(x, xt, bins=bins)
        if self.resized:
            x, xt = _pointwise(self.channel_downsampler, x), _pointwise(self.channel_downsampler_t, xt)
        return x.view(b, bins, frames, -1).permute(0, 3, 1, 2), xt.transpose(1, 2).unsqueeze(2)


def _pointwise(layer: nn.Conv1d, x: Tensor) -> Tensor:
    """A convolution that sees one token at a time, on `(B, tokens, features)`."""
    return linear(x, layer.weight.squeeze(2), layer.bias)
