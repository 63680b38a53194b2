"""Demucs: a U-Net on the samples, in its third version. It works at twice the sample rate.

Défossez, Usunier, Bottou and Bach, "Music Source Separation in the Waveform Domain" (2019, revised 2021). In place of
the large LSTM of earlier versions it has the residual branches of Défossez, "Hybrid Spectrogram and Waveform Source
Separation" (MDX workshop at ISMIR 2021).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from stemsplit.networks._checks import check_flags, check_sizes
from stemsplit.networks._demucs_layers import (
    GROUPS,
    KERNEL,
    NEVER,
    STRIDE,
    check_widths,
    rescale,
)
from stemsplit.networks._demucs_residual import DConv
from stemsplit.networks._layers import GroupNorm, TimeConv, TimeConvTranspose

ZERO_CROSSINGS = 24  # of the resampling filters, to either side
ROLLOFF = 0.945  # their cutoff frequency, as a fraction of the lower rate's Nyquist frequency


@dataclass(frozen=True, slots=True)
class Config:
    """Shape of the network.

    Attributes:
        width: Feature maps after the first layer; every further one doubles them.
        depth: Layers of the encoder and of the decoder.
        rewrite: Whether every layer has a gated convolution besides the strided one.
        compress: How many times narrower the residual branches are.
        norm_starts: The first layer with normalizations; 999 for none.
        memory_starts: The first layer whose residual branches have an LSTM and attention; 999 for none.
        normalize: Whether to standardize the mixture, and to scale the stems back.

    Raises:
        ValueError: A setting is impossible.
    """

    width: int = 64
    depth: int = 6
    rewrite: bool = False
    compress: int = 4
    norm_starts: int = 4
    memory_starts: int = 4
    normalize: bool = True

    def __post_init__(self) -> None:
        starts = {"norm_starts": (0, NEVER), "memory_starts": (0, NEVER)}
        check_sizes(self, {"width": (1, 1024), "depth": (1, 10), "compress": (1, 1024), **starts})
        check_flags(self, "rewrite", "normalize")
        check_widths(
            self.width,
            self.depth,
            self.compress,
            norm_starts=self.norm_starts,
            memory_starts=self.memory_starts,
        )


class Network(nn.Module):
    """Demucs. It takes mixtures of any length.

    Args:
        config: The shape of the network.
        stems: S, the number of stems.
        channels: C, of the mixture and of each stem.

    Attributes:
        standardized: Songs are standardized as a whole, whether or not `config.normalize` does it to each window.
    """

    standardized = True

    def __init__(self, config: Config, *, stems: int, channels: int) -> None:
        super().__init__()
        self.stems, self.normalize = stems, config.normalize
        self.up, self.down = Resampling(1, 2), Resampling(2, 1)
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        inner = channels
        for index in range(config.depth):
            outer, first = config.width * 2**index, index == 0
            norms = index >= config.norm_starts
            residual = DConv(outer, config.compress, lstm=index >= config.memory_starts)
            strided = TimeConv(inner, outer, KERNEL, STRIDE)
            transposed = TimeConvTranspose(outer, stems * inner if first else inner, KERNEL, STRIDE)
            gate_up, gate = (_gate(outer, context, norms) if config.rewrite else [] for context in (1, 0))
            self.encoder.append(nn.Sequential(strided, _norm(outer, norms), nn.GELU(), residual, *gate))
            activation = [] if first else [_norm(inner, norms), nn.GELU()]
            self.decoder.insert(0, nn.Sequential(*gate_up, transposed, *activation))
            inner = outer
        rescale(self)

    def forward(self, mix: Tensor) -> Tensor:
        """Separate a mixture.

        Args:
            mix: `(B, C, N)`, of any length.

        Returns:
            Stems `(B, S, C, N)`.
        """
        b, c, n = mix.shape
        x = mix
        if self.normalize:
            mono = mix.mean(dim=1, keepdim=True)
            deviation, mean = torch.std_mean(mono, dim=2, correction=int(n > 1), keepdim=True)
            x = (mix - mean) / (deviation + 1e-5)
        missing = self.input_length(n) - n
        x = self.up(functional.pad(x, (missing // 2, missing - missing // 2))).unsqueeze(2)
        skips = []
        for layer in self.encoder:
            x = layer(x)
            skips.append(x)
        for layer in self.decoder:
            x = layer(x + _center_crop(skips.pop(), x.shape[-1]))
        x = _center_crop(self.down(x.float().squeeze(2)), n)
        if self.normalize:
            x = torch.addcmul(mean, x, deviation)
        return x.reshape(b, self.stems, c, n)

    def input_length(self, length: int) -> int:
        """Samples that the network needs to separate `length` of them.

        It is the smallest length, `length` or above, that the strides of all layers divide without a remainder.
        """
        steps = 2 * length
        for _ in self.encoder:
            steps = max(1, math.ceil((steps - KERNEL) / STRIDE) + 1)
        for _ in self.encoder:
            steps = (steps - 1) * STRIDE + KERNEL
        return steps // 2


class Resampling(nn.Module):
    """A polyphase resampler: `(B, C, N)` -> `(B, C, N * new // old)`.

    Its filters are cosine-windowed sincs with a gain of one at 0 Hz (Smith, "Digital Audio Resampling Home Page",
    2002). Beyond its ends, the signal is continued with its first and last value.

    Args:
        old: Sample rate of the input.
        new: Sample rate of the output, in the same unit; only their ratio counts.
    """

    filters: Tensor

    def __init__(self, old: int, new: int) -> None:
        super().__init__()
        self.old, self.new = old, new
        cutoff = min(old, new) * ROLLOFF
        self.reach = math.ceil(ZERO_CROSSINGS * old / cutoff)
        with torch.device("cpu"):  # computed even under the meta device, as they are not in any file
            offsets = torch.arange(-self.reach, self.reach + old) / old - torch.arange(new).unsqueeze(1) / new
        crossings = (offsets * cutoff).clamp(-ZERO_CROSSINGS, ZERO_CROSSINGS)
        filters = torch.sinc(crossings) * torch.cos(crossings * (math.pi / 2 / ZERO_CROSSINGS)) ** 2
        filters = (filters / filters.sum(1, keepdim=True)).unsqueeze(1)
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        b, c, n = x.shape
        padded = functional.pad(x, (self.reach, self.reach + self.old), mode="replicate").flatten(0, 1).unsqueeze(1)
        phases = functional.conv1d(padded, self.filters, stride=self.old)
        return phases.transpose(1, 2).reshape(b, c, -1)[..., : n * self.new // self.old]


def _norm(width: int, wanted: bool) -> nn.Module:
    return GroupNorm(GROUPS, width) if wanted else nn.Identity()


def _gate(width: int, context: int, norms: bool) -> list[nn.Module]:
    """A gated convolution that sees `context` neighbours on either side."""
    convolution = TimeConv(width, 2 * width, 1 + 2 * context, padding=context)
    return [convolution, _norm(2 * width, norms), nn.GLU(1)]


def _center_crop(x: Tensor, length: int) -> Tensor:
    """The centre of `(B, C, N)`, `length` long; of an odd number of samples, one more is cut from the end."""
    start = (x.shape[-1] - length) // 2
    return x[..., start : start + length]
