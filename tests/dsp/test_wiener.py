"""Multichannel Wiener filtering against the package norbert."""

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from stemsplit.dsp.stft import Stft
from stemsplit.dsp.wiener import refine
from stemsplit.evaluation.metrics import sdr
from stemsplit.models.checkpoint import Model
from stemsplit.networks.families import build
from stemsplit.networks.spleeter import Network
from stemsplit.networks.unet import Network as UNet

TOLERANCE = 1e-4  # of the peak


@pytest.fixture(scope="module")
def norbert() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # where it imports from SciPy
        return importlib.import_module("norbert")


def complex_noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.complex64, generator=torch.Generator().manual_seed(seed))


def random_masks(*shape: int, seed: int = 0) -> Tensor:
    """Masks that sum to one over dimension 1."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).mul(2).softmax(1)


def by_norbert(norbert: Any, masks: Tensor, mixture: Tensor, iterations: int) -> Tensor:
    """norbert's result in double precision, with the regularization that it has in single precision."""
    results = []
    for mask, spectrum in zip(masks, mixture, strict=True):
        magnitudes = (mask * spectrum.abs()).permute(3, 2, 1, 0).double().numpy()
        x = spectrum.permute(2, 1, 0).to(torch.complex128).numpy()  # it is changed
        eps = float(np.finfo(np.float32).eps)
        result = norbert.wiener(magnitudes, x, iterations, use_softmask=False, eps=eps)
        results.append(torch.from_numpy(result).permute(3, 2, 1, 0))
    return torch.stack(results)


def nearly_mono(mixture: Tensor) -> Tensor:
    """`mixture` with channels that hardly differ, so that covariances are nearly singular."""
    return mixture[:, :1] + 1e-3 * mixture


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("gain", [0.01, 1.0, 300.0])
@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("change", [torch.clone, nearly_mono])
def test_parity(norbert: Any, channels: int, gain: float, iterations: int, change: Callable[[Tensor], Tensor]) -> None:
    mixture = change(complex_noise(2, channels, 70, 21)) * gain * torch.tensor([1.0, 0.3])[:, None, None, None]
    masks = random_masks(2, 3, channels, 70, 21)
    expected = by_norbert(norbert, masks, mixture, iterations)
    result = refine(masks * mixture.unsqueeze(1), mixture, iterations)
    assert result.dtype == torch.complex64
    assert (result - expected).abs().max() <= TOLERANCE * expected.abs().max()
    assert (result - masks * mixture.unsqueeze(1)).abs().max() > 1e-2 * expected.abs().max()


@pytest.mark.parametrize("bins", [1, 63, 64, 65, 129])
def test_bins_are_independent(bins: int) -> None:
    mixture = complex_noise(1, 2, bins, 9) / 4
    stems = random_masks(1, 4, 2, bins, 9) * mixture.unsqueeze(1)
    result = refine(stems, mixture, 2)
    assert result.shape == stems.shape
    for start in range(0, bins, 50):
        some = slice(start, start + 50)
        assert torch.allclose(refine(stems[..., some, :], mixture[..., some, :], 2), result[..., some, :], atol=1e-6)


def test_examples_are_independent() -> None:
    mixture = complex_noise(2, 2, 20, 9) * torch.tensor([100.0, 0.1])[:, None, None, None]
    stems = random_masks(2, 4, 2, 20, 9) * mixture.unsqueeze(1)
    both = refine(stems, mixture, 1)
    for number in (0, 1):
        one = slice(number, number + 1)
        assert torch.allclose(refine(stems[one], mixture[one], 1), both[one], rtol=1e-5)


def test_nothing_is_changed_in_place_or_by_no_iterations() -> None:
    mixture = complex_noise(1, 2, 20, 9)
    stems = random_masks(1, 4, 2, 20, 9) * mixture.unsqueeze(1)
    kept, kept_mixture = stems.clone(), mixture.clone()
    assert torch.allclose(refine(stems, mixture, 0), stems, rtol=1e-6)
    refine(stems, mixture, 2)
    assert torch.equal(stems, kept)
    assert torch.equal(mixture, kept_mixture)


def test_stems_add_up_to_the_mixture() -> None:
    mixture = complex_noise(1, 2, 100, 50) * 100
    result = refine(0.5 * random_masks(1, 4, 2, 100, 50) * mixture.unsqueeze(1), mixture, 1)
    assert (result.sum(1) - mixture).abs().max() < 2e-3 * mixture.abs().max()


def test_silence_stays_silent() -> None:
    mixture = torch.zeros(1, 2, 100, 50, dtype=torch.complex64)
    assert refine(mixture.unsqueeze(1).expand(1, 4, 2, 100, 50), mixture, 2).abs().max() == 0


def test_more_than_two_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="one or two channels, not 3"):
        refine(complex_noise(1, 4, 3, 5, 5), complex_noise(1, 3, 5, 5), 1)


def test_sounds_from_different_directions_get_clearer() -> None:
    """What one channel alone does not tell: three sources of noise, left, right and in the middle, and rough masks."""
    generator = torch.Generator().manual_seed(0)
    loudness = torch.rand(3, 1, 40, generator=generator).repeat_interleave(1000, -1)  # every source comes and goes
    sources = torch.randn(3, 1, 40_000, generator=generator) * loudness
    stems = (sources * torch.tensor([[1.0, 0.2], [0.2, 1.0], [0.7, 0.7]]).unsqueeze(2)).unsqueeze(0)
    stft = Stft(512, 128)
    spectra = stft(stems)
    mixture = spectra.sum(1)
    power = (
        spectra.abs().square().mean(dim=(2, 3), keepdim=True)
    )  # so the masks depend on the level only, not on the direction
    masked = (power / power.sum(1, keepdim=True)) * mixture.unsqueeze(1)
    before = sdr(stems[0], stft.inverse(masked, 40_000)[0])
    after = sdr(stems[0], stft.inverse(refine(masked, mixture, 1), 40_000)[0])
    assert (after > before + 0.3).all()
    assert after.mean() > before.mean() + 1


# As an option of the networks that estimate masks


@pytest.mark.full
@torch.no_grad()
def test_the_option_of_mask_networks(unet_model: Callable[..., Model]) -> None:
    network = unet_model().network
    assert isinstance(network, UNet)
    mix = 0.1 * torch.randn(2, 2, 5000, generator=torch.Generator().manual_seed(0))
    spectrum = network.stft(mix)
    plain, masked = network(mix), network.masks(spectrum) * spectrum.unsqueeze(1)
    refined = network(mix, wiener=2)
    torch.testing.assert_close(refined, network.stft.inverse(refine(masked, spectrum, 2), 5000), rtol=0, atol=1e-6)
    assert (refined - plain).abs().max() > 1e-3
    assert torch.equal(network(mix, [1, 2], wiener=2), refined[:, 1:3])
    assert torch.equal(network(mix), plain)


@pytest.mark.parametrize("iterations", [1, 2])
@torch.no_grad()
def test_as_spleeter_does_it(norbert: Any, iterations: int) -> None:
    """Spleeter hands the magnitudes that its networks estimate, zero above their band, to norbert."""
    torch.manual_seed(0)
    config = {"n_fft": 1024, "hop": 256, "frames": 64, "bins": 192, "widths": [3, 4, 5, 6, 7, 8], "extension": "zeros"}
    network = build("spleeter", config, stems=3, channels=2)
    assert isinstance(network, Network)
    mix = 0.1 * torch.randn(1, 2, 9000)
    network.train()(mix.expand(4, -1, -1))
    network.eval()
    spectrum = network.stft(mix)
    estimates = torch.stack(list(network._estimates(spectrum)))  # (S, B, C, T, bins)
    magnitudes = functional.pad(estimates, (0, network.stft.bins - network.bins))[:, 0]
    expected = norbert.wiener(
        magnitudes.permute(2, 3, 1, 0).double().numpy(),
        spectrum[0].permute(2, 1, 0).to(torch.complex128).numpy(),
        iterations,
        eps=float(np.finfo(np.float32).eps),
    )
    stems = network.stft.inverse(torch.from_numpy(expected).permute(3, 2, 1, 0).to(torch.complex64), mix.shape[-1])
    assert (network(mix, wiener=iterations)[0] - stems).abs().max() <= TOLERANCE * stems.abs().max()
