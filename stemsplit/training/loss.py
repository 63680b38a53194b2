"""What training makes small: functions of the network, the mixture and its true stems."""

from collections.abc import Callable

from torch import Tensor, nn

from stemsplit.networks._masking import MaskNetwork

Loss = Callable[[nn.Module, Tensor], Tensor]


def magnitude(network: nn.Module, stems: Tensor) -> Tensor:
    """Mean absolute error between masked and true magnitude spectrograms (Jansson et al., 2017).

    Args:
        network: of a mask family.
        stems: `(B, S, C, N)`; their sum is the mixture.
    """
    assert isinstance(network, MaskNetwork)
    true = network.stft(stems).abs()
    mix = network.stft(stems.sum(1))
    error: Tensor = network.masks(mix) * mix.abs().unsqueeze(1) - true
    return error.abs().mean()


def spectrum(network: nn.Module, stems: Tensor) -> Tensor:
    """Mean distance between masked and true complex spectra.

    A mask that knows the mixture's phase to be wrong does better to stay below the true magnitude (Erdogan et al.,
    "Phase-sensitive and recognition-boosted speech separation", 2015): this loss tells it so.
    """
    _, _, error = _spectra(network, stems)
    return error.abs().mean()


def distortion(network: nn.Module, stems: Tensor) -> Tensor:
    """Energy of the error of every stem's spectrum, relative to the stem's own and a tenth of the mixture's.

    Which is the SDR, inverted and not in dB; the tenth keeps it finite for stems that are silent. Where it cannot be
    known what a bin belongs to, this loss wants the mean of what is likely, and an absolute error the likeliest.
    """
    true, mix, error = _spectra(network, stems)
    energy, of_mix = _energy(true), _energy(mix).unsqueeze(1)
    ratio: Tensor = _energy(error) / (energy + 0.1 * of_mix + 1e-6)
    return ratio.mean()


def _spectra(network: nn.Module, stems: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Complex spectra of the stems, of the mixture, and of what masking the one lacks of the others."""
    assert isinstance(network, MaskNetwork)
    true, mix = network.stft(stems), network.stft(stems.sum(1))
    return true, mix, network.masks(mix) * mix.unsqueeze(1) - true


def _energy(spectra: Tensor) -> Tensor:
    """`(..., C, F, T)` complex -> `(...)`."""
    return (spectra.real.square() + spectra.imag.square()).sum((-3, -2, -1))


def waveform(network: nn.Module, stems: Tensor) -> Tensor:
    """Mean absolute error of the samples; for any family."""
    estimate: Tensor = network(stems.sum(1))
    return (estimate - stems).abs().mean()


LOSSES: dict[str, Loss] = {
    "magnitude": magnitude,
    "spectrum": spectrum,
    "distortion": distortion,
    "waveform": waveform,
}
