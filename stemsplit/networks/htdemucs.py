"""Hybrid Transformer Demucs: two U-Nets, on the spectrogram and on the samples, joined by a transformer.

Rouard, Massa and Défossez, "Hybrid Transformers for Music Source Separation" (ICASSP 2023). The outputs of the two
encoders become two sequences of tokens. The layers of the transformer attend by turns within each sequence and to the
other one.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from stemsplit.networks._checks import check_sizes
from stemsplit.networks._demucs_hybrid import HybridNetwork
from stemsplit.networks._demucs_layers import KERNEL, NEVER, STRIDE, check_widths
from stemsplit.networks._demucs_transformer import CrossTransformer
from stemsplit.networks._layers import linear

NORM_STARTS = 4


@dataclass(frozen=True, slots=True)
class Config:
    """Shape of the network.

    Attributes:
        n_fft: Samples of an STFT frame, a multiple of `2 * 4**depth`. The hop is a quarter of it.
        width: Feature maps after the first layer; every further one doubles them.
        depth: Layers of each encoder and decoder.
        compress: How many times narrower the residual branches are.
        bottom_channels: Features of a token; 0 for as many as the encoders give.
        layers: Of the transformer, for each of the two sequences.
        heads: Of each attention.
        length: Samples that it was trained on, and the most that it takes. Shorter inputs are padded with zeros.

    Raises:
        ValueError: A setting is impossible.
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
            raise ValueError(f"n_fft {self.n_fft} does not allow {self.depth} layers of stride {STRIDE}")
        if self.features % 4 or self.features % self.heads:
            raise ValueError(
                f"the {self.features} features of a token must be a multiple of 4 and of {self.heads} heads"
            )

    @property
    def features(self) -> int:
        """Features of a token."""
        return self.bottom_channels or self.width * 2 ** (self.depth - 1)


class Network(HybridNetwork):
    """Hybrid Transformer Demucs. It takes mixtures of up to `config.length` samples.

    Args:
        config: The shape of the network.
        stems: S, the number of stems.
        channels: C, of the mixture and of each stem.
    """

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
            decoder_residual=True,
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
        """Separate a mixture. In eval mode it is padded to the length that the network was trained on.

        Args:
            mix: `(B, C, N)`.

        Returns:
            Stems `(B, S, C, N)`.

        Raises:
            ValueError: N is above that length, in eval mode.
        """
        if self.training:
            return super().forward(mix)
        length = mix.shape[-1]
        if length > self.length:
            raise ValueError(f"{length} samples are more than the {self.length} that the network takes")
        return super().forward(functional.pad(mix, (0, self.length - length)))[..., :length]

    def input_length(self, length: int) -> int:
        """Samples that the network needs, whatever the length: those that it was trained on."""
        return self.length

    def bottleneck(self, x: Tensor, xt: Tensor) -> tuple[Tensor, Tensor]:
        """Apply the transformer to the outputs of the encoders.

        Args:
            x: Of the spectrogram's encoder, `(B, C', F, T)`.
            xt: Of the samples' encoder, `(B, C', 1, T')`.

        Returns:
            Inputs of the two decoders, of the same shapes.
        """
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
    """A convolution of kernel size 1, on tokens `(B, tokens, features)`."""
    return linear(x, layer.weight.squeeze(2), layer.bias)
