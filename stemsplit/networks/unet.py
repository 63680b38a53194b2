"""A U-Net on the mixture's magnitude spectrogram that estimates one soft mask a stem and channel.

The spectrogram is first gathered into bands, one bin each at the bottom and ever wider ones above, as hearing does, so
that the network spends its work where pitch is resolved. The masks are estimated per band and spread back over the
bins; no part of the spectrum is left out.

The encoder-decoder with skip connections follows Jansson et al., "Singing voice separation with deep U-Net
convolutional networks" (ISMIR 2017); the blocks, convolutions followed by a fully connected layer along frequency,
follow Choi et al., "Investigating U-Nets with various intermediate blocks for spectrogram-based singing voice
separation" (ISMIR 2020).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from stemsplit.dsp.stft import Stft
from stemsplit.networks.masking import MaskNetwork, energy, power

MOST_LEVELS = 16
MOST_WEIGHTS = 2**24  # of bins times bands: 64 MB


@dataclass(frozen=True, slots=True)
class Config:
    """Shape of the network.

    Args:
        n_fft, hop: the STFT, samples.
        bands: how many bands the bins are gathered into.
        linear_bands: the lowest bands, one bin each; the others widen geometrically up to half the sample rate.
        widths: feature maps at each level, from full resolution down; every level halves time and frequency.
        bottleneck: the fully connected layer along frequency is this many times narrower than the bands at its level.
    """

    n_fft: int = 4096
    hop: int = 1024
    bands: int = 320
    linear_bands: int = 140
    widths: Sequence[int] = (16, 48, 96, 128, 192)
    bottleneck: int = 4

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        sizes = (self.n_fft, self.hop, self.bands, self.linear_bands, self.bottleneck, *self.widths)
        if not all(type(size) is int and size > 0 for size in sizes):
            raise ValueError("every size must be a whole number above 0")
        if not 2 <= len(self.widths) <= MOST_LEVELS or self.bands * (self.n_fft // 2 + 1) > MOST_WEIGHTS:
            raise ValueError(
                f"{len(self.widths)} levels and {self.bands} bands of {self.n_fft // 2 + 1} bins are out of range"
            )


class Network(MaskNetwork):
    """See the module; masks of the stems add up to one in every bin."""

    def __init__(self, config: Config, *, stems: int, channels: int) -> None:
        super().__init__(Stft(config.n_fft, config.hop))
        self.stems, self.channels = stems, channels
        weights = band_weights(self.stft.bins, config.bands, config.linear_bands)
        self.gather = _Banded(weights.T / weights.sum(0).unsqueeze(1))
        self.spread = _Banded(weights)
        # What `error_energy` needs of each band, and of each two neighbours.
        self.summed, self.squared, self.paired = (
            _Banded(kind.T) for kind in (weights, weights.square(), weights[:, :-1] * weights[:, 1:])
        )

        features = channels if channels == 1 else channels + 1
        widths, heights = list(config.widths), [config.bands]
        for _ in widths[1:]:
            heights.append((heights[-1] + 1) // 2)
        if heights[-1] < config.bottleneck:
            raise ValueError(
                f"{config.bands} bands are too few for {len(widths)} levels and bottleneck {config.bottleneck}"
            )
        # Every band has its own loudness and spread: centre and scale each before the first convolution.
        self.scale = nn.BatchNorm1d(features * config.bands)
        self.entry = nn.Conv2d(features, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList(
            _Block(width, height, config.bottleneck) for width, height in zip(widths[1:], heights[1:], strict=True)
        )
        self.down = nn.ModuleList(nn.Conv2d(upper, lower, 3, stride=2, padding=1) for upper, lower in pairwise(widths))
        self.up = nn.ModuleList(nn.ConvTranspose2d(lower, upper, 2, stride=2) for upper, lower in pairwise(widths))
        self.decoder = nn.ModuleList(
            _Block(width, height, config.bottleneck) for width, height in zip(widths[1:-1], heights[1:-1], strict=True)
        )
        # At full resolution, where a block would cost as much as all the rest, one convolution has to do.
        self.exit = nn.Sequential(
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
            nn.Conv2d(widths[0], widths[0], 3, padding=1, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
            nn.Conv2d(widths[0], stems * channels, 1),
        )
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # twice as fast as the default layout on CPUs with AVX

    def masks(self, spectrum: Tensor) -> Tensor:
        """`(B, C, F, T)` complex -> `(B, S, C, F, T)` in [0, 1], adding up to one over the stems."""
        return self.masks_of(self.shares(spectrum))

    def shares(self, spectrum: Tensor) -> Tensor:
        """What part of each band is whose: `(B, C, F, T)` complex -> `(B, S, C, bands, T)`."""
        scores = self._scores(self._features(spectrum))
        b, _, bands, t = scores.shape
        return scores.float().reshape(b, self.stems, self.channels, bands, t).softmax(dim=1)

    def masks_of(self, shares: Tensor) -> Tensor:
        """`(B, S, C, bands, T)` -> `(B, S, C, F, T)`: as each bin's weights over the bands, they add up to one."""
        masks: Tensor = self.spread(shares)
        return masks

    def error_energy(self, shares: Tensor, mix: Tensor, true: Tensor) -> Tensor:
        """As in the base class, without masks that have every bin, which take as long as the network itself.

        A mask is linear in the shares of the bands, so the energy is a quadratic form in them, in which a band meets
        itself and its neighbours only; what it is multiplied with depends on the spectra alone.
        """
        with torch.autocast(mix.device.type, enabled=False):  # these are large, and their differences small
            of_mix = power(mix).unsqueeze(1)
            in_phase = mix.real.unsqueeze(1) * true.real + mix.imag.unsqueeze(1) * true.imag
            bands = self.squared(of_mix) * shares.square() - 2 * self.summed(in_phase) * shares
            pairs = 2 * self.paired(of_mix) * shares[..., :-1, :] * shares[..., 1:, :]
            error: Tensor = bands.sum((-3, -2, -1)) + pairs.sum((-3, -2, -1)) + energy(true)
            return error

    def _features(self, spectrum: Tensor) -> Tensor:
        """Log magnitudes of channels and their difference by band, whatever the level: `(B, features, bands, T)`."""
        if self.channels > 1:
            spectrum = torch.cat([spectrum, (spectrum[:, :1] - spectrum[:, 1:2])], dim=1)
        magnitude = self.gather(spectrum.abs())
        level = magnitude.mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-8)
        features = torch.log10(magnitude / level + 1e-3)
        scaled: Tensor = self.scale(features.flatten(1, 2))
        return scaled.reshape(features.shape)

    def _scores(self, features: Tensor) -> Tensor:
        """The U-Net: `(B, features, bands, T)` -> `(B, S * C, bands, T)`."""
        x: Tensor = self.entry(features.contiguous(memory_format=torch.channels_last))
        skips = []
        for down, block in zip(self.down, self.encoder, strict=True):
            skips.append(x)
            x = block(down(x))
        for up, block, skip in zip(
            reversed(self.up), [*reversed(self.decoder), self.exit], reversed(skips), strict=True
        ):
            # Odd sizes were rounded up on the way down: the surplus row or column is cut off here.
            x = block(up(x)[..., : skip.shape[-2], : skip.shape[-1]] + skip)
        return x


class _Block(nn.Module):
    """Two convolutions, then a two-layer perceptron along frequency, each added to its input."""

    def __init__(self, width: int, height: int, bottleneck: int) -> None:
        super().__init__()
        self.local = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False),
        )
        self.norm = nn.BatchNorm2d(width)
        self.squeeze = nn.Linear(height, height // bottleneck)
        self.expand = nn.Linear(height // bottleneck, height)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.local(x)
        along = functional.relu(self.norm(x)).permute(0, 3, 1, 2)  # (B, T, width, height)
        x = x + self.expand(functional.relu(self.squeeze(along))).permute(0, 2, 3, 1)
        return x


class _Banded(nn.Module):
    """Product with a matrix that is zero away from its diagonal: `(..., columns, T)` -> `(..., rows, T)`.

    A few rows at a time, by the few columns that they have: eight times as fast as the whole matrix.
    """

    def __init__(self, matrix: Tensor, pieces: int = 16) -> None:
        super().__init__()
        self.columns = []
        for number, rows in enumerate(matrix.tensor_split(pieces)):
            used = rows.any(0).nonzero()
            self.columns.append(slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 0))
            self.register_buffer(f"rows{number}", rows[:, self.columns[-1]].clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        pieces = zip(self.buffers(), self.columns, strict=True)
        return torch.cat([rows @ x[..., columns, :] for rows, columns in pieces], dim=-2)


def band_weights(bins: int, bands: int, linear_bands: int) -> Tensor:
    """How much every band belongs to every bin: `(bins, bands)`, triangles whose rows add up to one."""
    if not 1 <= linear_bands < bands <= bins:
        raise ValueError(f"cannot gather {bins} bins into {bands} bands of which {linear_bands} are single bins")
    centres = np.concatenate([np.arange(linear_bands), np.geomspace(linear_bands, bins - 1, bands - linear_bands)])
    weights = np.stack([np.interp(np.arange(bins), centres, peak) for peak in np.eye(bands)], axis=1)
    if not weights.any(axis=0).all():
        raise ValueError(f"{bands} bands on {bins} bins are narrower than a bin above the lowest {linear_bands}")
    return torch.from_numpy(weights.astype(np.float32))
