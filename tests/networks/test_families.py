"""The contract of network families. A new module in `stemsplit/networks` is tested without a change here."""

import importlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from support.networks import TINY_ROFORMER, TINY_UNET
from support.songs import STEMS
from torch import Tensor, nn

from stemsplit.errors import ModelError
from stemsplit.models import checkpoint
from stemsplit.models.checkpoint import Header, Model
from stemsplit.networks.families import MASK_FAMILIES, build, families
from stemsplit.networks.masking import MaskNetwork

TINY: dict[str, dict[str, Any]] = {  # configurations; families that are missing have their default one
    "unet": TINY_UNET,
    "bs_roformer": {**TINY_ROFORMER, "bands": [2] * 16 + [32, 65]},
    "mel_band_roformer": {**TINY_ROFORMER, "bands": 12},
    "demucs": {"width": 8, "depth": 2, "norm_starts": 1, "memory_starts": 1},
    "hdemucs": {"n_fft": 64, "width": 8, "depth": 3, "norm_starts": 1, "memory_starts": 2},
    "htdemucs": {"n_fft": 256, "width": 8, "depth": 2, "bottom_channels": 16, "layers": 2, "heads": 2, "length": 4410},
    "scnet": {"n_fft": 512, "hop": 128, "widths": [8, 12], "layers": 2},
    "spleeter": {"n_fft": 512, "hop": 128, "frames": 64, "bins": 128, "widths": [2, 3, 4, 5, 6, 7]},
}
LENGTH = 4410  # samples


def noise(batch: int, channels: int = 2, length: int = LENGTH, seed: int = 0) -> Tensor:
    return torch.randn(batch, channels, length, generator=torch.Generator().manual_seed(seed)) * 0.1


@pytest.fixture(params=families())
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(family: str) -> Callable[..., nn.Module]:
    """A function that builds a network in eval mode, after one batch for its batch statistics."""

    def make(channels: int = 2, stems: int = 4) -> nn.Module:
        torch.manual_seed(1)
        network = build(family, TINY.get(family, {}), stems=stems, channels=channels)
        with torch.no_grad():
            network.train()(noise(4, channels, seed=9))
        return network.eval()

    return make


@pytest.mark.full
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("stems", [2, 4])
@pytest.mark.parametrize("length", [LENGTH, 512, 513, 1023])
@torch.no_grad()
def test_shape_and_type(make: Callable[..., nn.Module], channels: int, stems: int, length: int) -> None:
    result = make(channels, stems)(noise(3, channels, length))
    assert result.shape == (3, stems, channels, length)
    assert result.dtype == torch.float32
    assert result.isfinite().all()
    assert result.abs().max() > 0


@pytest.mark.full
@torch.no_grad()
def test_examples_in_a_batch_are_independent(make: Callable[..., nn.Module]) -> None:
    network, loud, soft = make(), noise(1, seed=1), noise(1, seed=2) * 0.01
    both = network(torch.cat([loud, soft]))
    torch.testing.assert_close(both, torch.cat([network(loud), network(soft)]), rtol=0, atol=1e-6)


@torch.no_grad()
def test_silence_stays_silent(make: Callable[..., nn.Module]) -> None:
    assert make()(torch.zeros(1, 2, LENGTH)).abs().max() < 1e-4  # -80 dBFS


@pytest.mark.full
@torch.no_grad()
def test_no_state_is_kept_between_calls(make: Callable[..., nn.Module]) -> None:
    network, mix = make(), noise(2)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    first = network(mix)
    network(noise(1, length=2000, seed=5))
    assert torch.equal(network(mix), first)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_the_mixture_is_not_changed(make: Callable[..., nn.Module]) -> None:
    mix = noise(1)
    make()(mix)
    assert torch.equal(mix, noise(1))


@pytest.mark.full
def test_the_gradient_reaches_every_parameter(make: Callable[..., nn.Module]) -> None:
    network = make().train()
    (network(noise(2)) * torch.randn(2, 4, 2, LENGTH)).sum().backward()
    unreached = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not unreached


@pytest.mark.full
def test_the_seed_determines_the_weights(make: Callable[..., nn.Module]) -> None:
    for one, other in zip(make().state_dict().values(), make().state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_config_survives_json(family: str) -> None:
    kind = importlib.import_module(f"stemsplit.networks.{family}").Config
    for config in (kind(), kind(**TINY.get(family, {}))):
        assert kind(**json.loads(json.dumps(asdict(config)))) == config
        hash(config)


@pytest.mark.full
@torch.no_grad()
def test_a_saved_network_is_the_same(make: Callable[..., nn.Module], family: str, tmp_path: Path) -> None:
    network, path = make(), tmp_path / "model.safetensors"
    header = Header(family, TINY.get(family, {}), STEMS, rate=44_100, channels=2, length=LENGTH, hop=4000)
    checkpoint.save(Model(header, network), path)
    loaded = checkpoint.load(path)
    assert loaded.header == header
    assert not loaded.network.training
    saved, weights = network.state_dict(), loaded.network.state_dict()
    assert saved.keys() == weights.keys()
    assert all(torch.equal(saved[name], weights[name]) for name in saved)
    # Weights of a file lie at other addresses, which can change how a sum is rounded.
    torch.testing.assert_close(loaded.network(noise(1)), network(noise(1)), rtol=0, atol=1e-6)


@torch.no_grad()
def test_masks_sum_to_one(make: Callable[..., nn.Module]) -> None:
    network, mix = make(), noise(2)
    if not isinstance(network, MaskNetwork):
        pytest.skip("not a mask network")
    masks = network.masks(network.stft(mix))
    assert masks.shape == (2, 4, 2, network.stft.bins, 1 + LENGTH // network.stft.hop)
    assert masks.min() >= 0
    assert masks.max() <= 1
    torch.testing.assert_close(masks.sum(1), torch.ones_like(masks[:, 0]), rtol=0, atol=1e-5)
    torch.testing.assert_close(network(mix).sum(1), mix, rtol=0, atol=1e-5)


def test_mask_families_are_listed(make: Callable[..., nn.Module], family: str) -> None:
    assert isinstance(make(), MaskNetwork) == (family in MASK_FAMILIES)


def test_families_are_the_public_modules() -> None:
    assert "unet" in families()
    assert not any(name.startswith("_") for name in families())


def test_unknown_families_and_settings_are_named() -> None:
    with pytest.raises(ModelError, match="unknown network family 'nosuch'") as caught:
        build("nosuch", {}, stems=4, channels=2)
    assert "unet" in caught.value.hint
    with pytest.raises(ModelError, match="'unet' has no setting depth, width"):
        build("unet", {"width": 1, "depth": 2}, stems=4, channels=2)
