"""What training makes small: how far an attempt at separating a mixture is from its true stems."""

from collections.abc import Callable, Mapping
from functools import cached_property

import torch
from torch import Tensor, nn

from stemsplit.dsp.stft import energy, squared_magnitude
from stemsplit.networks.masking import MaskNetwork

RESOLUTIONS = (2048, 1024, 512)  # samples of a frame, for the loss at several
LOUDEST_SDR = 30.0  # dB, from where on a better stem counts no more
_SMALLEST = 1e-3  # magnitude that still counts in a logarithm, about -90 dB of full scale


class Prediction:
    """A network's attempt at a batch of mixtures, made as far as a loss asks for it.

    Args:
        stems: `(B, S, C, N)`; their sum is the mixture.
    """

    def __init__(self, network: nn.Module, stems: Tensor) -> None:
        self.network, self.stems, self.mixture = network, stems, stems.sum(1)

    @property
    def masking(self) -> MaskNetwork:
        """The network, of a mask family."""
        assert isinstance(self.network, MaskNetwork)
        return self.network

    @cached_property
    def true(self) -> Tensor:
        """Complex spectra `(B, S, C, F, T)` of the stems."""
        return self.masking.stft(self.stems)  # type: ignore[no-any-return]

    @cached_property
    def mix(self) -> Tensor:
        """Complex spectrum `(B, C, F, T)` of the mixture."""
        return self.true.sum(1)

    @cached_property
    def coarse_masks(self) -> Tensor:
        """Masks `(B, S, C, bands, T)` at the frequency resolution of the network."""
        return self.masking.coarse_masks(self.mix)

    @cached_property
    def masks(self) -> Tensor:
        """`(B, S, C, F, T)`."""
        return self.masking.expand_masks(self.coarse_masks)

    @cached_property
    def samples(self) -> Tensor:
        """Estimated stems `(B, S, C, N)`, of any family."""
        if isinstance(self.network, MaskNetwork):
            return self.network.stft.inverse(self.masks * self.mix.unsqueeze(1), self.stems.shape[-1])
        estimate: Tensor = self.network(self.mixture)
        return estimate.float()


def magnitude(attempt: Prediction) -> Tensor:
    """Mean absolute error between masked and true magnitude spectrograms (Jansson et al., 2017)."""
    error: Tensor = attempt.masks * attempt.mix.abs().unsqueeze(1) - attempt.true.abs()
    return error.abs().mean()


def spectrum(attempt: Prediction) -> Tensor:
    """Mean distance between masked and true complex spectra.

    A mask that knows the mixture's phase to be wrong does better to stay below the true magnitude (Erdogan et al.,
    "Phase-sensitive and recognition-boosted speech separation", 2015): this loss tells it so.
    """
    error: Tensor = attempt.masks * attempt.mix.unsqueeze(1) - attempt.true
    return error.abs().mean()


def distortion(attempt: Prediction) -> Tensor:
    """Energy of the error of every stem's spectrum, relative to the stem's own and a tenth of the mixture's.

    Which is the SDR, inverted and not in dB; the tenth keeps it finite for stems that are silent. Where it cannot be
    known what a bin belongs to, this loss wants the mean of what is likely, and an absolute error the likeliest.
    """
    error = attempt.masking.error_energy(attempt.coarse_masks, attempt.mix, attempt.true)
    ratio: Tensor = error / (energy(attempt.true) + 0.1 * energy(attempt.mix).unsqueeze(1) + 1e-6)
    return ratio.mean()


def waveform(attempt: Prediction) -> Tensor:
    """Mean absolute error of the samples; for any family."""
    return (attempt.samples - attempt.stems).abs().mean()


def stft(attempt: Prediction) -> Tensor:
    """Errors of magnitudes and of their logarithms, in short frames and in long ones; for any family.

    The multi-resolution STFT loss of Yamamoto et al., "Parallel WaveGAN" (2020): spectral convergence and the mean
    error of the logarithms. A tenth of the mixture keeps the first finite for stems that are silent.
    """
    both = torch.stack([attempt.samples, attempt.stems]).flatten(0, 3)
    shape = (2, *attempt.stems.shape[:3])
    losses = []
    for n_fft in [size for size in RESOLUTIONS if size <= both.shape[-1]] or RESOLUTIONS[-1:]:
        window = torch.hann_window(n_fft, device=both.device)
        spectra = torch.stft(
            both, n_fft, n_fft // 4, window=window, pad_mode="constant", normalized=True, return_complex=True
        )
        # Squares first: the slope of abs() is no number where nothing is.
        magnitudes = squared_magnitude(spectra).add(1e-12).sqrt()
        estimate, true = magnitudes.reshape(*shape, *magnitudes.shape[-2:])
        of_mix = true.sum(1, keepdim=True)
        norm, of_mix_norm = (x.square().sum((-3, -2, -1)).sqrt() for x in (true, of_mix))
        distance = (estimate - true).square().sum((-3, -2, -1)).add(1e-12).sqrt()
        converged = distance / (norm + 0.1 * of_mix_norm + 1e-3)
        logarithms = ((estimate + _SMALLEST).log() - (true + _SMALLEST).log()).abs()
        losses.append(converged.mean() + logarithms.mean())
    return torch.stack(losses).mean()


def sdr(attempt: Prediction) -> Tensor:
    """The SDR of every stem in dB, turned over; for any family.

    With a soft threshold, relative to the mixture, above which it counts no more, and which keeps it finite for stems
    that are silent: Wisdom et al., "What's all the fuss about free universal sound separation data?" (2021).
    """
    error, true = ((x.square()).sum((-2, -1)) for x in (attempt.samples - attempt.stems, attempt.stems))
    least = 10 ** (-LOUDEST_SDR / 10) * attempt.mixture.square().sum((-2, -1)).unsqueeze(1) + 1e-6
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
OF_MASKS = ("magnitude", "spectrum", "distortion")  # losses that only mask families can have


def compute(loss: str | Mapping[str, float], network: nn.Module, stems: Tensor) -> Tensor:
    """A loss, or the weighted sum of several, of a network on `(B, S, C, N)`."""
    attempt = Prediction(network, stems)
    parts = {loss: 1.0} if isinstance(loss, str) else loss
    return torch.stack([weight * LOSSES[name](attempt) for name, weight in parts.items()]).sum()
