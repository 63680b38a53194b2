"""U-Net: one network on the mixture's magnitude spectrogram that estimates a soft mask for every stem and channel.

The spectrogram is first gathered into bands, as hearing does: one bin each at low frequencies, ever wider ones above.
So the network spends its work where pitch is resolved. The masks are estimated per band and interpolated back to the
bins; no part of the spectrum is left out.

The encoder-decoder with skip connections follows Jansson et al., "Singing voice separation with deep U-Net
convolutional networks" (ISMIR 2017); its blocks, convolutions followed by a fully connected bottleneck along frequency,
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

from stemsplit.dsp.stft import Stft, energy, squared_magnitude
from stemsplit.networks.masking import MaskNetwork

MAX_LEVELS = 16
STEADY, SUDDEN = 13, 11  # frames and bins whose median shows what lasts, and what is spread over the spectrum
MAX_BAND_WEIGHTS = 2**24  # bins times bands: 64 MB


@dataclass(frozen=True, slots=True)
class Config:
    """Shape of the network.

    Attributes:
        n_fft: Samples of an STFT frame.
        hop: Samples from one frame to the next.
        bands: How many bands the bins are gathered into.
        linear_bands: How many of the lowest bands have one bin each; the others widen geometrically up to half the
            sample rate.
        widths: Feature maps at each level, from full resolution down; every level halves time and frequency.
        bottleneck: The fully connected layers along frequency narrow to the bands of their level divided by this.
        percussive_bands: In so many of the lowest bands, harmonic/percussive separation has as much of a say as the
            network when it comes to dividing the first two stems, which must be drums and bass. These bands must have
            one bin each.

    Raises:
        ValueError: A size is impossible.
    """

    n_fft: int = 4096
    hop: int = 1024
    bands: int = 320
    linear_bands: int = 140
    widths: Sequence[int] = (16, 48, 96, 128, 192)
    bottleneck: int = 4
    percussive_bands: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        sizes = (self.n_fft, self.hop, self.bands, self.linear_bands, self.bottleneck, *self.widths)
        if not all(type(size) is int and size > 0 for size in sizes):
            raise ValueError("every size must be a whole number above 0")
        if type(self.percussive_bands) is not int or not 0 <= self.percussive_bands <= self.linear_bands:
            raise ValueError(f"percussive_bands must be a whole number in 0..{self.linear_bands}")
        if not 2 <= len(self.widths) <= MAX_LEVELS or self.bands * (self.n_fft // 2 + 1) > MAX_BAND_WEIGHTS:
            raise ValueError(
                f"{len(self.widths)} levels and {self.bands} bands of {self.n_fft // 2 + 1} bins are out of range"
            )


class Network(MaskNetwork):
    """The U-Net. A softmax over the stems makes its masks sum to one in every bin.

    Args:
        config: The shape of the network.
        stems: S, the number of stems.
        channels: C, of the mixture and of each stem.

    Raises:
        ValueError: There are too few bands for the number of levels, or too few stems for percussive bands.
    """

    def __init__(self, config: Config, *, stems: int, channels: int) -> None:
        super().__init__(Stft(config.n_fft, config.hop))
        if config.percussive_bands and stems < 2:
            raise ValueError("percussive_bands need two stems to divide")
        self.stems, self.channels, self.percussive_bands = stems, channels, config.percussive_bands
        weights = band_weights(self.stft.bins, config.bands, config.linear_bands)
        self.gather = _BandMatrix(weights.T / weights.sum(0).unsqueeze(1))  # bins -> means of bands
        self.spread = _BandMatrix(weights)  # bands -> bins
        # The sums over bins in `error_energy`.
        self.sum_linear = _BandMatrix(weights.T)
        self.sum_squared = _BandMatrix(weights.square().T)
        self.sum_neighbours = _BandMatrix((weights[:, :-1] * weights[:, 1:]).T)

        features = channels if channels == 1 else channels + 1
        widths, heights = list(config.widths), [config.bands]
        for _ in widths[1:]:
            heights.append((heights[-1] + 1) // 2)
        if heights[-1] < config.bottleneck:
            raise ValueError(
                f"{config.bands} bands are too few for {len(widths)} levels and bottleneck {config.bottleneck}"
            )
        # The level of music falls with frequency: standardize every band by itself.
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
        # At full resolution a block would cost as much as all other layers together, so there is one convolution only.
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
        """Estimate the masks; see the base class. They sum to one over the stems.

        Args:
            spectrum: Of the mixture, `(B, C, F, T)` complex.

        Returns:
            `(B, S, C, F, T)` real, in [0, 1].
        """
        return self.expand_masks(self.coarse_masks(spectrum))

    def coarse_masks(self, spectrum: Tensor) -> Tensor:
        """Estimate one mask value for every band; see the base class. They sum to one over the stems.

        Args:
            spectrum: Of the mixture, `(B, C, F, T)` complex.

        Returns:
            `(B, S, C, bands, T)` real, in [0, 1].
        """
        logits = self._logits(self._features(spectrum))
        b, _, bands, t = logits.shape
        masks = logits.float().reshape(b, self.stems, self.channels, bands, t).softmax(dim=1)
        return self._divide_by_suddenness(masks, spectrum) if self.percussive_bands else masks

    def expand_masks(self, coarse: Tensor) -> Tensor:
        """Interpolate masks of bands to masks of bins. The weights of a bin sum to one, so the masks still do.

        Args:
            coarse: `(B, S, C, bands, T)`.

        Returns:
            `(B, S, C, F, T)`.
        """
        masks: Tensor = self.spread(coarse)
        return masks

    def error_energy(self, coarse: Tensor, mixture: Tensor, stems: Tensor) -> Tensor:
        """Energy of the error of the masked mixture; see the base class.

        It does without the masks of all bins, which take as long to compute as the network itself. With the mask
        m = W c of a stem interpolated from the values c of its bands, the error of the masked mixture x is

            sum over f of |m_f x_f - y_f|^2
                = sum over bands a, b of c_a c_b (sum over f of W_fa W_fb |x_f|^2)
                - 2 sum over bands a of c_a (sum over f of W_fa Re(conj(x_f) y_f))
                + sum over f of |y_f|^2

        The inner sums do not depend on c, and W_fa W_fb is zero unless a and b are equal or neighbours.

        Args:
            coarse: `(B, S, C, bands, T)`.
            mixture: Its spectrum x, `(B, C, F, T)` complex.
            stems: The true spectra y, `(B, S, C, F, T)` complex.

        Returns:
            `(B, S)`.
        """
        with torch.autocast(mixture.device.type, enabled=False):  # small differences of large numbers
            power = squared_magnitude(mixture).unsqueeze(1)
            in_phase = mixture.real.unsqueeze(1) * stems.real + mixture.imag.unsqueeze(1) * stems.imag
            same = self.sum_squared(power) * coarse.square() - 2 * self.sum_linear(in_phase) * coarse
            neighbours = 2 * self.sum_neighbours(power) * coarse[..., :-1, :] * coarse[..., 1:, :]
            error: Tensor = same.sum((-3, -2, -1)) + neighbours.sum((-3, -2, -1)) + energy(stems)
            return error

    def _divide_by_suddenness(self, masks: Tensor, spectrum: Tensor) -> Tensor:
        """Divide the lowest bands of the first two stems half by their masks, half by what is sudden there.

        A kick drum is spread over neighbouring bins, and a bass note over the frames (Fitzgerald, "Harmonic/percussive
        separation using median filtering", DAFx 2010). What both stems have together stays as it is.
        """
        bands = self.percussive_bands
        magnitude = spectrum.detach()[..., : bands + SUDDEN // 2, :].abs()
        steady = _median(magnitude[..., :bands, :], STEADY).square()
        sudden = _median(magnitude.transpose(-1, -2), SUDDEN).transpose(-1, -2)[..., :bands, :].square()
        share = (sudden / (steady + sudden).clamp(min=1e-20)).unsqueeze(1)
        low, high = masks[..., :bands, :], masks[..., bands:, :]
        both = low[:, :2].sum(1, keepdim=True)
        first = (low[:, :1] + share * both) / 2
        return torch.cat([torch.cat([first, both - first, low[:, 2:]], dim=1), high], dim=-2)

    def _features(self, spectrum: Tensor) -> Tensor:
        """Log magnitudes of channels and their difference by band, whatever the level: `(B, features, bands, T)`."""
        if self.channels > 1:
            spectrum = torch.cat([spectrum, (spectrum[:, :1] - spectrum[:, 1:2])], dim=1)
        magnitude = self.gather(spectrum.abs())
        level = magnitude.mean(dim=(1, 2, 3), keepdim=True).clamp(min=1e-8)
        features = torch.log10(magnitude / level + 1e-3)
        scaled: Tensor = self.scale(features.flatten(1, 2))
        return scaled.reshape(features.shape)

    def _logits(self, features: Tensor) -> Tensor:
        """Run the U-Net: `(B, features, bands, T)` -> `(B, S * C, bands, T)`."""
        x: Tensor = self.entry(features.contiguous(memory_format=torch.channels_last))
        skips = []
        for down, block in zip(self.down, self.encoder, strict=True):
            skips.append(x)
            x = block(down(x))
        for up, block, skip in zip(
            reversed(self.up), [*reversed(self.decoder), self.exit], reversed(skips), strict=True
        ):
            # Odd sizes were rounded up on the way down, so there may be a row or column too many.
            x = block(up(x)[..., : skip.shape[-2], : skip.shape[-1]] + skip)
        return x


def _median(x: Tensor, size: int) -> Tensor:
    """The median of `size` neighbours along the last axis, an odd number of them."""
    flat = functional.pad(x.flatten(0, -2), (size // 2, size // 2), mode="replicate")
    return flat.unfold(-1, size, 1).median(-1).values.reshape(x.shape)


class _Block(nn.Module):
    """Two residual steps: two convolutions, then a fully connected bottleneck along frequency."""

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
        by_frequency = functional.relu(self.norm(x)).permute(0, 3, 1, 2)  # (B, T, width, height)
        x = x + self.expand(functional.relu(self.squeeze(by_frequency))).permute(0, 2, 3, 1)
        return x


class _BandMatrix(nn.Module):
    """Product with a matrix that is zero away from its diagonal: `(..., columns, T)` -> `(..., rows, T)`.

    It multiplies a few rows at a time, with only the columns that they use: 8 times as fast as the full matrix.
    """

    def __init__(self, matrix: Tensor, chunks: int = 16) -> None:
        super().__init__()
        self.columns = []
        for number, rows in enumerate(matrix.tensor_split(chunks)):
            used = rows.any(0).nonzero()
            self.columns.append(slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 0))
            self.register_buffer(f"rows{number}", rows[:, self.columns[-1]].clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        chunks = zip(self.buffers(), self.columns, strict=True)
        return torch.cat([rows @ x[..., columns, :] for rows, columns in chunks], dim=-2)


def band_weights(bins: int, bands: int, linear_bands: int) -> Tensor:
    """The weight of every band in every bin: triangles between the centres of neighbouring bands.

    Multiplying by it interpolates linearly from bands to bins.

    Args:
        bins: F, of the STFT.
        bands: Number of bands, at most F.
        linear_bands: How many of the lowest bands have one bin each; the centres of the others are spaced
            geometrically up to the highest bin.

    Returns:
        `(bins, bands)`, in [0, 1]; each row sums to one and has at most two neighbouring values above zero.

    Raises:
        ValueError: The numbers are out of range, or some bands would be narrower than a bin.
    """
    if not 1 <= linear_bands < bands <= bins:
        raise ValueError(f"{bands} bands, the lowest {linear_bands} of one bin each, do not fit {bins} bins")
    centres = np.concatenate([np.arange(linear_bands), np.geomspace(linear_bands, bins - 1, bands - linear_bands)])
    weights = np.stack([np.interp(np.arange(bins), centres, peak) for peak in np.eye(bands)], axis=1)
    if not weights.any(axis=0).all():
        raise ValueError(f"{bands} bands on {bins} bins are narrower than a bin above the lowest {linear_bands}")
    return torch.from_numpy(weights.astype(np.float32))
