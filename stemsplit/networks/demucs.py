"""Demucs: a U-Net on the samples, in its third version.

Défossez, Usunier, Bottou and Bach, "Music Source Separation in the Waveform Domain" (2019, revised 2021), with the
residual branches of Défossez, "Hybrid Spectrogram and Waveform Source Separation" (MDX workshop at ISMIR 2021) where
there was one large LSTM. It works at twice the sample rate.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from stemsplit.networks._demucs import GROUPS, KERNEL, NEVER, STRIDE, check_flags, check_sizes, check_widths, rescale
from stemsplit.networks._layout import AlongTime, BackAlongTime, Norm
from stemsplit.networks._residual import DConv

# Of the resampling filters: zero crossings to each side, and the cutoff as a share of the lower rate.
ZEROS, ROLLOFF = 24, 0.945


@dataclass(frozen=True, slots=True)
class Config:
    """Shape of the network.

    Args:
        width: feature maps after the first layer; every further one doubles them.
        depth: layers of the encoder and of the decoder.
        rewrite: whether every layer has a gated convolution besides the strided one.
        compress: how many times narrower the residual branches are.
        norm_starts: the first layer with normalisations; 999 for none.
        memory_starts: the first layer whose residual branches have an LSTM and attention.
        normalize: scale the mixture before, and the stems back.
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
    """See the module. `forward` takes any length."""

    def __init__(self, config: Config, *, stems: int, channels: int) -> None:
        super().__init__()
        self.stems, self.normalize = stems, config.normalize
        self.up, self.down = Resampling(1, 2), Resampling(2, 1)
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        inner = channels
        for index in range(config.depth):
            outer, first = config.width * 2**index, index == 0
            norms = index >= config.norm_starts
            branch = DConv(outer, config.compress, memory=index >= config.memory_starts)
            down = AlongTime(inner, outer, KERNEL, STRIDE)
            up = BackAlongTime(outer, stems * inner if first else inner, KERNEL, STRIDE)
            before, after = (_gate(outer, context, norms) if config.rewrite else [] for context in (1, 0))
            self.encoder.append(nn.Sequential(down, _norm(outer, norms), nn.GELU(), branch, *after))
            bend = [] if first else [_norm(inner, norms), nn.GELU()]
            self.decoder.insert(0, nn.Sequential(*before, up, *bend))
            inner = outer
        rescale(self)

    def forward(self, mix: Tensor) -> Tensor:
        """Mixture `(B, C, N)` -> stems `(B, S, C, N)`."""
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
            x = layer(x + _middle(skips.pop(), x.shape[-1]))
        x = _middle(self.down(x.float().squeeze(2)), n)
        if self.normalize:
            x = torch.addcmul(mean, x, deviation)
        return x.reshape(b, self.stems, c, n)

    def input_length(self, length: int) -> int:
        """The least length, not below `length`, of which no layer leaves samples over: what is best seen."""
        steps = 2 * length
        for _ in self.encoder:
            steps = max(1, math.ceil((steps - KERNEL) / STRIDE) + 1)
        for _ in self.encoder:
            steps = (steps - 1) * STRIDE + KERNEL
        return steps // 2


class Resampling(nn.Module):
    """From rate `old` to rate `new`, by a filter for each of the `new` phases: `(B, C, N)` -> `(B, C, N * new // old)`.

    The filters are cosine-windowed sincs, scaled to keep a constant as it is. At its ends the signal goes on as a
    constant. See Smith, "Digital Audio Resampling Home Page" (2002).
    """

    filters: Tensor

    def __init__(self, old: int, new: int) -> None:
        super().__init__()
        self.old, self.new = old, new
        cutoff = min(old, new) * ROLLOFF
        self.reach = math.ceil(ZEROS * old / cutoff)
        with torch.device("cpu"):  # these are computed, also in a network whose weights are still to come
            offsets = torch.arange(-self.reach, self.reach + old) / old - torch.arange(new).unsqueeze(1) / new
        crossings = (offsets * cutoff).clamp(-ZEROS, ZEROS)
        filters = torch.sinc(crossings) * torch.cos(crossings * (math.pi / 2 / ZEROS)) ** 2
        filters = (filters / filters.sum(1, keepdim=True)).unsqueeze(1)
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        b, c, n = x.shape
        padded = functional.pad(x, (self.reach, self.reach + self.old), mode="replicate").flatten(0, 1).unsqueeze(1)
        phases = functional.conv1d(padded, self.filters, stride=self.old)
        return phases.transpose(1, 2).reshape(b, c, -1)[..., : n * self.new // self.old]


def _norm(width: int, wanted: bool) -> nn.Module:
    return Norm(GROUPS, width) if wanted else nn.Identity()


def _gate(width: int, context: int, norms: bool) -> list[nn.Module]:
    """A convolution that sees `context` neighbours to each side, and whose one half decides what the other lets by."""
    convolution = AlongTime(width, 2 * width, 1 + 2 * context, padding=context)
    return [convolution, _norm(2 * width, norms), nn.GLU(1)]


def _middle(x: Tensor, length: int) -> Tensor:
    """The middle of `(B, C, N)`, `length` long; of an odd rest the larger half goes from the end."""
    start = (x.shape[-1] - length) // 2
    return x[..., start : start + length]
