from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from support.networks import TINY_UNET

from stemsplit.errors import ModelError
from stemsplit.models.checkpoint import Model
from stemsplit.networks.families import build
from stemsplit.networks.masking import MaskNetwork
from stemsplit.networks.unet import Config, Network, band_weights


def noise(batch: int, channels: int, length: int) -> torch.Tensor:
    return torch.randn(batch, channels, length, generator=torch.Generator().manual_seed(length)) * 0.1


@pytest.mark.parametrize("gain", [100.0, 0.01, 1e-4])
@torch.no_grad()
def test_stems_scale_with_the_mixture(unet_model: Callable[..., Model], gain: float) -> None:
    network, mix = unet_model().network, noise(1, 2, 8000)
    torch.testing.assert_close(network(mix * gain), network(mix) * gain, rtol=0, atol=1e-5 * gain)


@torch.no_grad()
def test_the_masks_depend_on_the_mixture(unet_model: Callable[..., Model]) -> None:
    network = unet_model().network
    assert isinstance(network, Network)
    one, other = (network.masks(network.stft(noise(1, 2, length)))[..., :30] for length in (8000, 8001))
    assert (one - other).abs().max() > 1e-3
    assert one.std() > 1e-3


@torch.no_grad()
def test_stereo_position_matters(unet_model: Callable[..., Model]) -> None:
    """The difference of the channels is a feature: the same spectra in and out of phase give different masks."""
    network = unet_model().network
    assert isinstance(network, Network)
    side = noise(1, 1, 8000)
    same, opposite = torch.cat([side, side], dim=1), torch.cat([side, -side], dim=1)
    difference = network.masks(network.stft(same)) - network.masks(network.stft(opposite))
    assert difference.abs().max() > 1e-3


@pytest.mark.parametrize(
    "config",
    [
        {**TINY_UNET, "bands": 23, "widths": [3, 4, 5], "bottleneck": 2},
        {**TINY_UNET, "bands": 37, "widths": [2, 3, 4, 5]},
        {**TINY_UNET, "bands": 25, "widths": [5, 3]},
        {**TINY_UNET, "n_fft": 254, "hop": 84, "bands": 21},
        {**TINY_UNET, "bands": 257, "linear_bands": 256},
    ],
)
@pytest.mark.parametrize("channels", [1, 2])
@torch.no_grad()
def test_odd_sizes(config: dict[str, Any], channels: int) -> None:
    network = build("unet", config, stems=3, channels=channels).eval()
    for length in (512, 2000, 5003):
        mix = noise(2, channels, length)
        result = network(mix)
        assert result.shape == (2, 3, channels, length)
        torch.testing.assert_close(result.sum(1), mix, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("bins", "bands", "linear"), [(257, 24, 8), (2049, 320, 140), (129, 128, 127), (33, 33, 32)])
def test_band_weights(bins: int, bands: int, linear: int) -> None:
    weights = band_weights(bins, bands, linear)
    assert weights.shape == (bins, bands)
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(1), torch.ones(bins), rtol=0, atol=1e-6)
    assert weights.sum(0).min() > 0
    assert torch.equal(weights[:linear, :linear], torch.eye(linear))
    # Triangles: a bin belongs to at most two bands, which are neighbours, and bands ascend.
    for row in weights:
        touched = row.nonzero().flatten()
        assert len(touched) <= 2
        assert touched[-1] - touched[0] <= 1
    assert (weights.argmax(1).diff() >= 0).all()
    # Above the single bins every band is at least as wide as the one before, to within rounding.
    widths = weights.sum(0)[linear + 1 : -1]
    assert (widths.diff() > -1).all()


@torch.no_grad()
def test_a_flat_spectrum_has_flat_bands() -> None:
    config = Config(n_fft=512, hop=128, bands=24, linear_bands=8, widths=[4, 6])
    network = Network(config, stems=2, channels=2)
    torch.testing.assert_close(network.gather(torch.ones(257, 1)), torch.ones(24, 1), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("bins", "bands", "linear"), [(257, 24, 8), (2049, 320, 140), (33, 5, 2), (33, 33, 32)])
@torch.no_grad()
def test_band_matrices_agree_with_full_matrices(bins: int, bands: int, linear: int) -> None:
    config = Config(n_fft=2 * bins - 2, hop=8, bands=bands, linear_bands=linear, widths=[4, 6], bottleneck=2)
    network, weights = Network(config, stems=2, channels=2), band_weights(bins, bands, linear)
    generator = torch.Generator().manual_seed(0)
    spectrum, masks = (torch.rand(2, 3, size, 7, generator=generator) for size in (bins, bands))
    means = weights.T / weights.sum(0).unsqueeze(1)
    torch.testing.assert_close(network.gather(spectrum), means @ spectrum, rtol=0, atol=1e-5)
    torch.testing.assert_close(network.spread(masks), weights @ masks, rtol=0, atol=1e-5)
    assert not [name for name in network.state_dict() if "gather" in name or "spread" in name]


@pytest.mark.parametrize(
    "change",
    [
        {"n_fft": 0},
        {"n_fft": -512},
        {"n_fft": 511},
        {"n_fft": 512.0},
        {"n_fft": "512"},
        {"n_fft": True},
        {"n_fft": 10**12},
        {"hop": 0},
        {"hop": 256},
        {"hop": 1000},
        {"bands": 0},
        {"bands": 258},
        {"bands": 10**9},
        {"bands": None},
        {"linear_bands": 0},
        {"linear_bands": 24},
        {"bands": 64, "linear_bands": 2},  # bands narrower than a bin
        {"widths": []},
        {"widths": [4]},
        {"widths": [0]},
        {"widths": [4, -6]},
        {"widths": 4},
        {"widths": "46"},
        {"widths": [[4]]},
        {"widths": [2] * 17},
        {"widths": [2] * 10**6},
        {"widths": [4, 4, 4, 4, 4]},  # 24 bands get too few for the fully connected layer
        {"widths": [10**9, 10**9]},
        {"bottleneck": 0},
        {"bottleneck": 13},
        {"bottleneck": 2.5},
        {"percussive_bands": -1},
        {"percussive_bands": 9},  # more than have one bin each
        {"percussive_bands": True},
    ],
    ids=lambda change: str(change)[:40],
)
def test_impossible_networks_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ModelError) as caught, torch.device("meta"):
        build("unet", {**TINY_UNET, **change}, stems=4, channels=2)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


def test_the_number_of_band_weights_is_limited() -> None:
    with pytest.raises(ModelError, match="32000 bands of 32769 bins are out of range"):  # they would take 8 GB
        build("unet", {**TINY_UNET, "n_fft": 2**16, "bands": 32_000}, stems=4, channels=2)


def divided(mix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Masks `(S, C, bands, T)` with harmonic/percussive separation of no bands and of 8; the loudest frame."""
    results = []
    for bands in (0, 8):
        torch.manual_seed(3)
        network = build("unet", {**TINY_UNET, "percussive_bands": bands}, stems=3, channels=2).eval()
        assert isinstance(network, Network)
        spectrum = network.stft(mix)
        results.append(network.coarse_masks(spectrum)[0])
    return results[0], results[1], int(spectrum.abs().sum((0, 1, 2)).argmax())


@torch.no_grad()
def test_what_lasts_is_bass() -> None:
    """A steady tone, in the fifth band."""
    time = torch.arange(20_000)
    plain, changed, _ = divided(torch.sin(2 * torch.pi * 5 * time / 512).expand(1, 2, -1))
    torch.testing.assert_close(changed[0, :, 5, 40:100], plain[0, :, 5, 40:100] / 2, rtol=0, atol=1e-3)


@torch.no_grad()
def test_what_is_sudden_is_drums() -> None:
    click = torch.zeros(1, 2, 20_000)
    click[..., 10_000] = 1
    plain, changed, frame = divided(click)
    expected = plain[0, :, :8, frame] + plain[1, :, :8, frame] / 2
    torch.testing.assert_close(changed[0, :, :8, frame], expected, rtol=0, atol=1e-3)


@torch.no_grad()
def test_only_drums_and_bass_are_divided_anew() -> None:
    plain, changed, _ = divided(noise(1, 2, 9000))
    assert (plain[:2, :, :8] - changed[:2, :, :8]).abs().max() > 0.01
    torch.testing.assert_close(changed[:2].sum(0), plain[:2].sum(0), rtol=0, atol=1e-6)
    assert torch.equal(changed[2], plain[2])
    assert torch.equal(changed[:, :, 8:], plain[:, :, 8:])
    assert changed.min() >= 0


def test_percussive_bands_need_two_stems() -> None:
    with pytest.raises(ModelError, match="need two stems"):
        build("unet", {**TINY_UNET, "percussive_bands": 4}, stems=1, channels=2)


def test_band_weights_interpolate() -> None:
    """Values at the centres of bands are interpolated linearly to bins."""
    weights = band_weights(257, 24, 8).numpy()
    centres = np.concatenate([np.arange(8), np.geomspace(8, 256, 16)])
    values = np.random.default_rng(0).random(24)
    np.testing.assert_allclose(weights @ values, np.interp(np.arange(257), centres, values), atol=1e-6)


def test_error_energy_agrees_with_the_base_class() -> None:
    """So do its gradients, for stems of very different levels, one of them silent, and under half precision."""
    torch.manual_seed(0)
    network = build("unet", TINY_UNET, stems=4, channels=2)
    assert isinstance(network, Network)
    levels = torch.tensor([1.0, 0.3, 0.01, 0.0])[:, None, None]
    true = network.stft(torch.randn(3, 4, 2, 6000, generator=torch.Generator().manual_seed(1)) * levels)
    mix = true.sum(1)
    coarse = network.coarse_masks(mix).detach().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        banded = network.error_energy(coarse, mix, true)
    plain = MaskNetwork.error_energy(network, coarse, mix, true)
    torch.testing.assert_close(banded, plain, rtol=1e-5, atol=0)
    (slope,), (expected,) = (torch.autograd.grad(energy.sum(), coarse) for energy in (banded, plain))
    torch.testing.assert_close(slope, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
