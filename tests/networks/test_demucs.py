"""The Demucs families against the demucs package: the same weights give the same stems."""

import hashlib
import importlib
from typing import Any

import pytest
import torch
from support.demucs import CLASSES, SMALL, difference, noise, pair, reference, shuffle
from support.networks import names_and_shapes
from torch import nn

from stemsplit.errors import ModelError
from stemsplit.networks._demucs_layers import rescale
from stemsplit.networks._demucs_residual import DConv
from stemsplit.networks.demucs import Resampling
from stemsplit.networks.families import build

TOLERANCE = 1e-4  # of the peak


@pytest.mark.full
@pytest.mark.parametrize(("stems", "channels"), [(4, 2), (6, 1)])
@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_parity(name: str, stems: int, channels: int) -> None:
    theirs, ours = pair(name, stems=stems, channels=channels)
    theirs.eval()
    ours.eval()
    # Long enough for LSTMs to cut their input into segments; odd; shorter than a frame.
    for length in (5001, 4096, 301, 5):
        mix = noise(2, channels, length)
        assert difference(ours(mix), theirs(mix)) <= TOLERANCE


@pytest.mark.full
@pytest.mark.parametrize("gain", [1.0, 8.0, 40.0])
@torch.no_grad()
def test_parity_of_the_residual_branches(gain: float) -> None:
    """By themselves, as a whole network hides most of what they do: with steep decays and sharp attention."""
    theirs = importlib.import_module("demucs.demucs").DConv(16, compress=2, lstm=True, attn=True)
    shuffle(theirs)
    for name, parameter in theirs.named_parameters():
        if "query" in name or "key" in name:
            parameter.mul_(gain)
    ours = DConv(16, 2, lstm=True)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    for length in (1, 2, 57, 200, 201, 300, 451):
        x = 10 * noise(2, 16, length)
        y = ours(x.clone().unsqueeze(2)).squeeze(2)  # it may overwrite its input
        assert difference(y - x, theirs(x) - x) <= TOLERANCE


@pytest.mark.parametrize(("old", "new"), [(1, 2), (2, 1)])
@torch.no_grad()
def test_parity_of_resampling(old: int, new: int) -> None:
    resample = importlib.import_module("julius").resample_frac
    for length in (1, 2, 51, 1000, 1001):
        if length * new >= old:
            x = noise(2, 3, length)
            assert difference(Resampling(old, new)(x), resample(x, old, new)) <= 1e-6


@pytest.mark.full
@pytest.mark.parametrize("name", SMALL)
def test_parity_of_the_gradient(name: str) -> None:
    theirs, ours = pair(name, stems=4, channels=2)
    for module in theirs.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    mix, weights = noise(2, 2, 1999), noise(2, 4, 2, 1999)
    for network in (theirs, ours):
        (network.train()(mix) * weights).sum().backward()
    expected = {key: parameter.grad for key, parameter in theirs.named_parameters()}
    peak = max(float(grad.abs().max()) for grad in expected.values())
    for key, parameter in ours.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().max() > 0
        torch.testing.assert_close(parameter.grad, expected[key], rtol=1e-3, atol=1e-5 * peak)


@pytest.mark.parametrize("family", CLASSES)
@pytest.mark.slow
@torch.no_grad()
def test_parity_of_the_published_sizes(family: str) -> None:
    theirs = reference(family, {}, stems=4, channels=2).eval()
    shuffle(theirs)
    ours = build(family, {}, stems=4, channels=2).eval()
    ours.load_state_dict(theirs.state_dict(), strict=True)
    mix = noise(1, 2, 343_980 if family == "htdemucs" else 88_201)
    error = difference(ours(mix), theirs(mix))
    print(f"{family}: {error:.1e} of the peak")
    assert error <= TOLERANCE


@pytest.mark.parametrize(
    ("family", "config", "stems", "count", "digest"),
    [
        ("htdemucs", {}, 4, 533, "3e59a81e3f097d4ca341d7f40b7ae6ddd12cce3bad91fb0da67273e55a2c26f1"),
        (
            "htdemucs",
            {"bottom_channels": 0},
            6,
            525,
            "2ceb40b6bf8052bfb459a9874a668b2df266eb2a30aee2e74349e76de3c2f89a",
        ),
        ("hdemucs", {}, 4, 395, "e4989c964ed4f237ebd95eedf051430d88bb5717854ab7eceef7869088804372"),
    ],
)
def test_names_and_shapes_of_published_weights(
    family: str, config: dict[str, Any], stems: int, count: int, digest: str
) -> None:
    """The digest is of sorted lines, one for each tensor: `name 1x2x3`."""
    with torch.device("meta"):
        state = build(family, config, stems=stems, channels=2).state_dict()
    assert len(state) == count
    assert hashlib.sha256(names_and_shapes(state).encode()).hexdigest() == digest


@pytest.mark.full
@pytest.mark.parametrize(
    ("family", "config", "settings"),
    [
        ("demucs", {}, {}),
        ("demucs", {"rewrite": True}, {"rewrite": True}),
        ("hdemucs", {"magnitude": True, "norm_starts": 999}, {"cac": False, "norm_starts": 999}),
        ("hdemucs", {"bands": [0.1, 0.3], "norm_starts": 999}, {"multi_freqs": [0.1, 0.3], "norm_starts": 999}),
    ],
)
def test_members_of_ensembles_have_the_weights_of_the_reference(
    family: str, config: dict[str, Any], settings: dict[str, Any]
) -> None:
    with torch.device("meta"):
        ours = build(family, config, stems=4, channels=2).state_dict()
        theirs = reference(family, {**settings, "rescale": 0}, stems=4, channels=2).state_dict()
    assert {key: tensor.shape for key, tensor in ours.items()} == {key: tensor.shape for key, tensor in theirs.items()}


def small(name: str) -> nn.Module:
    family, config, _ = SMALL[name]
    torch.manual_seed(0)
    network = build(family, config, stems=4, channels=1)
    shuffle(network)
    return network.eval()


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_a_mixture_of_one_sample(name: str) -> None:
    result = small(name)(noise(1, 1, 1))
    assert result.shape == (1, 4, 1, 1)
    assert result.isfinite().all()


@torch.no_grad()
def test_htdemucs_refuses_inputs_longer_than_in_training() -> None:
    network = small("htdemucs")
    with pytest.raises(ValueError, match="5002 samples are more than the 5001"):
        network(noise(1, 1, 5002))
    assert network.train()(noise(1, 1, 5002)).shape == (1, 4, 1, 5002)


@torch.no_grad()
def test_htdemucs_pads_shorter_mixtures_with_zeros() -> None:
    network, mix = small("htdemucs"), noise(1, 1, 3001)
    padded = nn.functional.pad(mix, (0, 2000))
    assert torch.equal(network(mix), network(padded)[..., :3001])


def test_new_convolutions_are_rescaled() -> None:
    torch.manual_seed(0)
    layer = nn.Conv1d(4, 8, 3)
    before = {key: parameter.detach().clone() for key, parameter in layer.named_parameters()}
    rescale(layer)
    factor = (0.1 / before["weight"].std()).sqrt()
    for key, parameter in layer.named_parameters():
        torch.testing.assert_close(parameter.detach(), before[key] * factor)


IMPOSSIBLE: list[tuple[str, dict[str, Any]]] = [
    *[(family, {"width": width}) for family in CLASSES for width in (0, -8, 8.0, "8", True, None, 10**9)],
    *[(family, {"depth": depth}) for family in CLASSES for depth in (0, 2.0, 10**6)],
    *[(family, {"compress": compress}) for family in CLASSES for compress in (0, 1000, 0.5)],
    ("htdemucs", {"n_fft": 4000}),
    ("htdemucs", {"n_fft": 10**9}),
    ("htdemucs", {"depth": 5}),  # strides frequency down to one bin
    ("htdemucs", {"bottom_channels": 513}),
    ("htdemucs", {"bottom_channels": -1}),
    ("htdemucs", {"layers": 0}),
    ("htdemucs", {"heads": 7}),
    ("htdemucs", {"length": 0}),
    ("htdemucs", {"length": 7.8}),
    ("hdemucs", {"n_fft": 2048}),
    ("hdemucs", {"n_fft": 16}),
    ("hdemucs", {"depth": 4}),  # the branches are not merged
    ("hdemucs", {"width": 6, "norm_starts": 0}),
    ("hdemucs", {"width": 24, "memory_starts": 0}),
    ("hdemucs", {"memory_starts": -1}),
    ("hdemucs", {"magnitude": 1}),
    ("hdemucs", {"zero_padding": "no"}),
    ("hdemucs", {"bands": 0.5}),
    ("hdemucs", {"bands": "abc"}),
    ("hdemucs", {"bands": [0.5, 0.2]}),
    ("hdemucs", {"bands": [0.0]}),
    ("hdemucs", {"bands": [1.0]}),
    ("hdemucs", {"bands": [float("nan")]}),
    ("hdemucs", {"bands": [1e-9]}),  # narrower than a bin
    ("hdemucs", {"bands": [0.01 * percent for percent in range(1, 50)]}),
    ("hdemucs", {"bands": [0.5], "norm_starts": 1}),
    ("hdemucs", {"bands": [0.5], "n_fft": 64, "depth": 3}),
    ("demucs", {"width": 6, "norm_starts": 0}),
    ("demucs", {"norm_starts": 1000}),
    ("demucs", {"rewrite": 1}),
    ("demucs", {"normalize": None}),
]


@pytest.mark.parametrize(("family", "change"), IMPOSSIBLE, ids=lambda value: str(value)[:40])
def test_impossible_networks_are_refused(family: str, change: dict[str, Any]) -> None:
    with pytest.raises(ModelError) as caught, torch.device("meta"):
        build(family, change, stems=4, channels=2)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
