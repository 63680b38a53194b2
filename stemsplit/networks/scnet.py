"""SCNet: a network on the complex spectrogram that compresses its high bands and models both axes with LSTMs.

Tong et al., "SCNet: Sparse Compression Network for music source separation" (ICASSP 2024). Each encoder layer cuts the
spectrum into three bands, which it thins out the more the higher they are. In the middle, LSTMs along frequency and
along time take turns; every second pair of them works on the Fourier transform of the feature maps along time. The
decoder mirrors the encoder, and gives the spectra of the stems themselves, not masks. Modules are named as in the
published checkpoints.

The spectrogram has no window, in neither direction: its frames are cut out as they are.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from stemsplit.dsp.stft import Stft
from stemsplit.networks._checks import check_flags, check_sizes
from stemsplit.networks._layers import GroupNorm, may_overwrite

BANDS = 3
MAX_LAYERS = 8
VALUES_AT_ONCE = 2**22  # 16 MB in a step that treats each sequence by itself, on a CPU


@dataclass(frozen=True, slots=True)
class Config:
    """Shape of the network.

    Attributes:
        n_fft: Samples of an STFT frame, even.
        hop: Samples from one frame to the next.
        widths: Feature maps after each layer of the encoder.
        shares: Shares of the spectrum that the lowest and the middle band have; the highest has the rest.
        strides: How much each band is thinned out along frequency, from the lowest.
        kernels: Bins that the convolutions do so with.
        depths: Convolution modules in each band.
        compress: How many times narrower these are inside.
        kernel: Frames that they see.
        layers: Pairs of LSTMs, an even number.
        expansion: How many times wider than the feature maps the LSTMs are.
        standardized: Whether songs are standardized as a whole, as for the weights of SCNet's authors.

    Raises:
        ValueError: A setting is impossible.
    """

    n_fft: int = 4096
    hop: int = 1024
    widths: Sequence[int] = (32, 64, 128)
    shares: Sequence[float] = (0.175, 0.392)
    strides: Sequence[int] = (1, 4, 16)
    kernels: Sequence[int] = (3, 4, 16)
    depths: Sequence[int] = (3, 2, 1)
    compress: int = 4
    kernel: int = 3
    layers: int = 6
    expansion: int = 1
    standardized: bool = False

    def __post_init__(self) -> None:
        limits = {"n_fft": (16, 16384), "hop": (1, 16384), "compress": (1, 64), "kernel": (1, 99), "layers": (1, 64)}
        check_sizes(self, {**limits, "expansion": (1, 8)})
        check_flags(self, "standardized")
        for name in ("widths", "shares", "strides", "kernels", "depths"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for name, high in (("widths", 4096), ("strides", 64), ("kernels", 64), ("depths", 16)):
            values = getattr(self, name)
            if not all(type(value) is int and 1 <= value <= high for value in values):
                raise ValueError(f"{name} must be whole numbers in 1..{high}")
            if name != "widths" and len(values) != BANDS:
                raise ValueError(f"{name} must be {BANDS} numbers, one for each band")
        if not 1 <= len(self.widths) <= MAX_LAYERS or min(self.widths) < self.compress:
            raise ValueError(f"widths must be 1 to {MAX_LAYERS} numbers, none below {self.compress}")
        if len(self.shares) != 2 or not all(type(share) is float and 0 < share < 1 for share in self.shares):
            raise ValueError("shares must be two fractions")
        if not self.kernel % 2:
            raise ValueError(f"kernel must be odd, not {self.kernel}")
        if self.layers % 2:
            raise ValueError(f"layers must be even, not {self.layers}: every second one transforms time back")
        if any(stride not in (1, size) for stride, size in zip(self.strides, self.kernels, strict=True)):
            raise ValueError("every stride must be 1, or as long as its kernel")
        bins = self.n_fft // 2 + 1
        for _ in self.widths:
            sizes = self.band_sizes(bins)
            if min(sizes) < 1:
                raise ValueError(f"{bins} bins cannot be cut into {BANDS} bands")
            bins = sum(-(-size // stride) for size, stride in zip(sizes, self.strides, strict=True))

    def band_sizes(self, bins: int) -> list[int]:
        """Bins in each of the bands, of `bins` in all."""
        first, second = (math.ceil(bins * share) for share in (self.shares[0], sum(self.shares)))
        return [first, second - first, bins - second]


class Network(nn.Module):
    """SCNet. It takes mixtures of any length.

    Args:
        config: The shape of the network.
        stems: S, the number of stems.
        channels: C, of the mixture and of each stem.
    """

    def __init__(self, config: Config, *, stems: int, channels: int) -> None:
        super().__init__()
        self.stft = Stft(config.n_fft, config.hop, window=torch.ones(config.n_fft, device="cpu"))
        self.stems, self.standardized = stems, config.standardized
        widths = (2 * channels, *config.widths)  # real and imaginary parts
        self.encoder = nn.ModuleList(_EncoderLayer(before, after, config) for before, after in pairwise(widths))
        outputs = (2 * channels * stems, *config.widths)
        self.decoder = nn.ModuleList(
            nn.Sequential(_Fusion(inner), _Expansion(inner, outer, config))
            for inner, outer in zip(widths[:0:-1], outputs[-2::-1], strict=True)
        )
        self.separation_net = _DualPath(widths[-1], config)

    def forward(self, mix: Tensor) -> Tensor:
        """Separate a mixture.

        Args:
            mix: `(B, C, N)`.

        Returns:
            Stems `(B, S, C, N)`.
        """
        b, channels, length = mix.shape
        missing = self._padded_length(length) - length
        spectrum = self.stft(functional.pad(mix, (0, missing))) / self.stft.n_fft**0.5
        bins, frames = spectrum.shape[-2:]
        x = torch.view_as_real(spectrum).permute(0, 1, 4, 2, 3).flatten(1, 2)
        skips, sizes = [], []
        for encode in self.encoder:
            sizes.append(x.shape[2])
            x, skip = encode(x)
            skips.append(skip)
        x = self.separation_net(x)
        for fuse, expand in list[Any](self.decoder):
            x = expand(fuse(x + skips.pop()), sizes.pop())
        planes = x.float().view(b, self.stems, channels, 2, bins, frames).permute(0, 1, 2, 5, 4, 3).contiguous()
        spectra = torch.view_as_complex(planes).transpose(-1, -2) * self.stft.n_fft**0.5
        # By itself the network may make something of nothing, as it gives spectra and not masks.
        return self.stft.inverse(spectra, length) * (mix != 0).flatten(1).any(1).view(b, 1, 1, 1)

    def _padded_length(self, length: int) -> int:
        """Samples with which there is at least one more hop, an even number of frames, and enough to reflect."""
        hops = max(length, self.stft.n_fft // 2) // self.stft.hop + 1
        return (hops + (hops + 1) % 2) * self.stft.hop


class _EncoderLayer(nn.Module):
    """Thins out the bands of a spectrum: `(B, C, F, T)` -> `(B, C', F', T)`, mixed across bins and before that."""

    def __init__(self, before: int, after: int, config: Config) -> None:
        super().__init__()
        self.config = config
        self.SDlayer = _Compression(before, after, config)
        self.conv_modules = nn.ModuleList(_ConvolutionModule(after, depth, config) for depth in config.depths)
        self.globalconv = nn.Conv2d(after, after, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        bands = []
        for band, module in zip(self.SDlayer(x), self.conv_modules, strict=True):
            rows = band.transpose(1, 2).contiguous()  # every bin by itself
            rows = _in_parts(module, rows.flatten(0, 1)).view_as(rows)
            bands.append(functional.gelu(rows.transpose(1, 2)))
        x = torch.cat(bands, dim=2)
        return self.globalconv(x), x


class _Compression(nn.Module):
    """A strided convolution along frequency for each band: `(B, C, F, T)` -> a list of `(B, C', F', T)`."""

    def __init__(self, before: int, after: int, config: Config) -> None:
        super().__init__()
        self.config = config
        sizes = zip(config.kernels, config.strides, strict=True)
        self.convs = nn.ModuleList(nn.Conv2d(before, after, (kernel, 1), (stride, 1)) for kernel, stride in sizes)

    def forward(self, x: Tensor) -> list[Tensor]:
        bands = torch.split(x, self.config.band_sizes(x.shape[2]), dim=2)
        return [conv(_padded(band, conv)) for band, conv in zip(bands, list[Any](self.convs), strict=True)]


def _padded(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Pad frequency so that no bin is left over."""
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    missing = kernel - 1 if stride == 1 else -x.shape[2] % stride
    return functional.pad(x, (0, 0, missing // 2, missing - missing // 2))


class _ConvolutionModule(nn.Module):
    """Convolutions along time, each with a residual connection: `(N, C, T)` -> `(N, C, T)`."""

    def __init__(self, width: int, depth: int, config: Config) -> None:
        super().__init__()
        inner, kernel, padding = width // config.compress, config.kernel, config.kernel // 2
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(1, width),
                nn.Conv1d(width, 2 * inner, kernel, padding=padding),
                nn.GLU(1),
                nn.Conv1d(inner, inner, kernel, padding=padding, groups=inner),
                nn.GroupNorm(1, inner),
                nn.SiLU(),
                nn.Conv1d(inner, width, 1),
            )
            for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + layer(x)
        return x


class _DualPath(nn.Module):
    """The pairs of LSTMs: `(B, C, F, T)` -> `(B, C, F, T)`. In between, time is transformed, and back, by turns."""

    def __init__(self, width: int, config: Config) -> None:
        super().__init__()
        widths = [width * (2 if index % 2 else 1) for index in range(config.layers)]
        self.dp_modules = nn.ModuleList(_LstmPair(width, config.expansion) for width in widths)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1).contiguous()  # the features of a position lie side by side
        for index, pair in enumerate(self.dp_modules):
            x = pair(x).float()
            if index % 2:
                real, imaginary = x.chunk(2, dim=3)
                x = torch.fft.irfft(torch.complex(real, imaginary), dim=2, norm="ortho")
            else:
                spectrum = torch.fft.rfft(x, dim=2, norm="ortho")
                x = torch.cat([spectrum.real, spectrum.imag], dim=3)
        return x.permute(0, 3, 1, 2)


class _LstmPair(nn.Module):
    """An LSTM along frequency and one along time, with residual connections: `(B, F, T, C)` -> `(B, F, T, C)`."""

    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        inner = width * expansion
        self.lstm_layers = nn.ModuleList(nn.LSTM(width, inner, batch_first=True, bidirectional=True) for _ in range(2))
        self.linear_layers = nn.ModuleList(nn.Linear(2 * inner, width) for _ in range(2))
        self.norm_layers = nn.ModuleList(GroupNorm(1, width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        along_frequency, along_time = zip(self.norm_layers, self.lstm_layers, self.linear_layers, strict=True)
        x = x + self._recur(x, *along_frequency, transpose=True)
        return x + self._recur(x, *along_time, transpose=False)

    @staticmethod
    def _recur(x: Tensor, norm: nn.Module, lstm: nn.Module, linear: nn.Module, *, transpose: bool) -> Tensor:
        x = norm(x.float().permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = (x.transpose(1, 2) if transpose else x).contiguous()
        # In single precision on a CPU even where products are in half: not every processor has such LSTMs.
        with torch.autocast(x.device.type, enabled=False) if x.device.type == "cpu" else nullcontext():
            y = _in_parts(lambda sequences: linear(lstm(sequences)[0]), x.flatten(0, 1)).view_as(x)
        return y.transpose(1, 2) if transpose else y


class _Fusion(nn.Module):
    """A gated convolution of an encoder's and a decoder's output: `(B, C, F, T)` -> `(B, C, F, T)`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * width, 2 * width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        # Published networks were trained to convolve two copies of the input: the same as one with summed weights.
        first, second = self.conv.weight.chunk(2, dim=1)
        return functional.glu(functional.conv2d(x, first + second, self.conv.bias, padding=1), dim=1)


class _Expansion(nn.Module):
    """Undoes the thinning of the bands: `(B, C, F', T)`, and F -> `(B, C', F, T)`."""

    def __init__(self, before: int, after: int, config: Config) -> None:
        super().__init__()
        self.config = config
        sizes = zip(config.kernels, config.strides, strict=True)
        self.convtrs = nn.ModuleList(
            nn.ConvTranspose2d(before, after, (kernel, 1), (stride, 1)) for kernel, stride in sizes
        )

    def forward(self, x: Tensor, bins: int) -> Tensor:
        sizes = self.config.band_sizes(bins)
        thinned = [-(-size // stride) for size, stride in zip(sizes, self.config.strides, strict=True)]
        bands = []
        for band, size, conv in zip(torch.split(x, thinned, dim=2), sizes, self.convtrs, strict=True):
            expanded = conv(band)
            bands.append(expanded.narrow(2, (expanded.shape[2] - size) // 2, size))
        return torch.cat(bands, dim=2)


def _in_parts(step: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a step that treats every sequence `(N, ...)` by itself; on a CPU a few at a time, as its inside is wide."""
    if not may_overwrite(x):
        return step(x)
    for some in torch.split(x, max(1, VALUES_AT_ONCE // x[0].numel())):
        some.copy_(step(some))
    return x
