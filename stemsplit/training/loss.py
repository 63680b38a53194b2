"""Losses: how far a network's estimates are from the true stems."""

from collections.abc import Callable, Mapping
from functools import cached_property

import torch
from torch import Tensor, nn

from stemsplit.dsp.level import SMALLEST_DEVIATION
from stemsplit.dsp.stft import energy, squared_magnitude
from stemsplit.networks.families import is_standardized
from stemsplit.networks.masking import MaskNetwork

RESOLUTIONS = (2048, 1024, 512)  # samples of a frame, for the loss at several
HIGHEST_SDR = 30.0  # dB; better estimates do not lower the loss any further
_SMALLEST = 1e-3  # magnitude added in logarithms, about -90 dB of full scale


class Prediction:
    """A network's estimates for a batch of mixtures; each is computed when a loss first needs it.

    Args:
        network: Of any family.
        stems: The true stems `(B, S, C, N)`.
        rest: What the mixture has beside them, `(B, any number, C, N)`.

    Attributes:
        network: The network.
        stems: The true stems.
        mixture: `(B, C, N)`.
    """

    def __init__(self, network: nn.Module, stems: Tensor, rest: Tensor) -> None:
        self.network, self.stems, self.mixture = network, stems, stems.sum(1) + rest.sum(1)

    @property
    def masking(self) -> MaskNetwork:
        """The network, which estimates masks."""
        assert isinstance(self.network, MaskNetwork)
        return self.network

    @cached_property
    def true(self) -> Tensor:
        """Complex spectra `(B, S, C, F, T)` of the stems."""
        return self.masking.stft(self.stems)  # type: ignore[no-any-return]

    @cached_property
    def mix(self) -> Tensor:
        """Complex spectrum `(B, C, F, T)` of the mixture."""
        return self.masking.stft(self.mixture)  # type: ignore[no-any-return]

    @cached_property
    def coarse_masks(self) -> Tensor:
        """Masks `(B, S, C, bands, T)` at the frequency resolution of the network."""
        return self.masking.coarse_masks(self.mix)

    @cached_property
    def masks(self) -> Tensor:
        """Estimated masks `(B, S, C, F, T)`."""
        return self.masking.expand_masks(self.coarse_masks)

    @cached_property
    def samples(self) -> Tensor:
        """Estimated stems `(B, S, C, N)`, of any family."""
        if isinstance(self.network, MaskNetwork):
            return self.network.stft.inverse(self.masks * self.mix.unsqueeze(1), self.stems.shape[-1])
        if not is_standardized(self.network):
            estimate: Tensor = self.network(self.mixture)
            return estimate.float()
        # As in separation, though by the level of the crop and not of the song; see `stemsplit.dsp.level`.
        mono = self.mixture.mean(1, keepdim=True)
        scale, mean = torch.std_mean(mono, dim=2, keepdim=True)
        scale = scale + SMALLEST_DEVIATION
        estimate = self.network((self.mixture - mean) / scale)
        return torch.addcmul(mean.unsqueeze(1), estimate.float(), scale.unsqueeze(1))


def magnitude(prediction: Prediction) -> Tensor:
    """Return the mean absolute error between masked and true magnitude spectrograms (Jansson et al., 2017)."""
    error: Tensor = prediction.masks * prediction.mix.abs().unsqueeze(1) - prediction.true.abs()
    return error.abs().mean()


def spectrum(prediction: Prediction) -> Tensor:
    """Return the mean distance between masked and true complex spectra.

    Where the mixture's phase is far from the stem's, the best mask stays below the true magnitude, which this loss
    teaches (Erdogan et al., "Phase-sensitive and recognition-boosted speech separation", 2015).
    """
    error: Tensor = prediction.masks * prediction.mix.unsqueeze(1) - prediction.true
    return error.abs().mean()


def distortion(prediction: Prediction) -> Tensor:
    """Return the energy of the error of each stem's spectrum, relative to the stem's plus a tenth of the mixture's.

    This is 1 / SDR, not in dB; the tenth keeps it finite for silent stems. Where it is uncertain which stem a bin
    belongs to, this loss favours the mean of what is likely, and an absolute error the median.
    """
    error = prediction.masking.error_energy(prediction.coarse_masks, prediction.mix, prediction.true)
    ratio: Tensor = error / (energy(prediction.true) + 0.1 * energy(prediction.mix).unsqueeze(1) + 1e-6)
    return ratio.mean()


def waveform(prediction: Prediction) -> Tensor:
    """Return the mean absolute error of the samples; for any family."""
    return (prediction.samples - prediction.stems).abs().mean()


def stft(prediction: Prediction) -> Tensor:
    """Return the error of magnitudes and of their logarithms, in frames of several lengths; for any family.

    This is the multi-resolution STFT loss of Yamamoto et al., "Parallel WaveGAN" (2020): spectral convergence plus the
    mean error of the logarithms. A tenth of the mixture keeps the former finite for silent stems.
    """
    signals = torch.stack([prediction.samples, prediction.stems]).flatten(0, 3)
    shape = (2, *prediction.stems.shape[:3])
    losses = []
    for n_fft in [size for size in RESOLUTIONS if size <= signals.shape[-1]] or RESOLUTIONS[-1:]:
        window = torch.hann_window(n_fft, device=signals.device)
        spectra = torch.stft(
            signals, n_fft, n_fft // 4, window=window, pad_mode="constant", normalized=True, return_complex=True
        )
        # Not abs(): the gradient of a magnitude is undefined at 0.
        magnitudes = squared_magnitude(spectra).add(1e-12).sqrt()
        estimate, true = magnitudes.reshape(*shape, *magnitudes.shape[-2:])
        of_mix = true.sum(1, keepdim=True)
        norm, of_mix_norm = (x.square().sum((-3, -2, -1)).sqrt() for x in (true, of_mix))
        distance = (estimate - true).square().sum((-3, -2, -1)).add(1e-12).sqrt()
        converged = distance / (norm + 0.1 * of_mix_norm + 1e-3)
        logarithms = ((estimate + _SMALLEST).log() - (true + _SMALLEST).log()).abs()
        losses.append(converged.mean() + logarithms.mean())
    return torch.stack(losses).mean()


def sdr(prediction: Prediction) -> Tensor:
    """Return the negative SDR of the stems in dB, averaged; for any family.

    A soft threshold relative to the mixture bounds it at `HIGHEST_SDR`, and keeps it finite for silent stems (Wisdom et
    al., "What's all the fuss about free universal sound separation data?", 2021).
    """
    error, true = ((x.square()).sum((-2, -1)) for x in (prediction.samples - prediction.stems, prediction.stems))
    least = 10 ** (-HIGHEST_SDR / 10) * prediction.mixture.square().sum((-2, -1)).unsqueeze(1) + 1e-6
    ratio: Tensor = 10 * torch.log10((error + least) / (true + least))
    return ratio.mean()


LOSSES: dict[str, Callable[[Prediction], Tensor]] = {
    "magnitude": magnitude,
    "spectrum": spectrum,
    "distortion": distortion,
    "waveform": waveform,
    "stft": stft,
    "sdr": sdr,
}
MASK_LOSSES = ("magnitude", "spectrum", "distortion")  # these need a network that estimates masks


def compute(loss: str | Mapping[str, float], network: nn.Module, stems: Tensor, rest: Tensor | None = None) -> Tensor:
    """Compute a loss, or the weighted sum of several, of a network on a batch.

    Args:
        loss: A name from `LOSSES`, or weights by name.
        network: Of any family; `MASK_LOSSES` need a `MaskNetwork`.
        stems: The true stems `(B, S, C, N)`.
        rest: What the mixture has beside them, `(B, any number, C, N)`; nothing if None.

    Returns:
        A scalar with a gradient.
    """
    prediction = Prediction(network, stems, stems[:, :0] if rest is None else rest)
    parts = {loss: 1.0} if isinstance(loss, str) else loss
    return torch.stack([weight * LOSSES[name](prediction) for name, weight in parts.items()]).sum()
