"""RoFormers against a reference implementation, and against what is known of the published weights."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.networks import file_size, names_and_shapes
from support.pymss import SMALL_ROFORMERS as SMALL
from support.pymss import difference, gradient_difference, noise, pair, separated
from torch import nn

from stemsplit.errors import ModelError
from stemsplit.networks._roformer import rotation
from stemsplit.networks.families import build
from stemsplit.networks.mel_band_roformer import mel_bands

FAMILIES = ("bs_roformer", "mel_band_roformer")
TOLERANCE = 1e-5  # of the peak
GRADIENT_TOLERANCE = 1e-4

# Model: family, settings, stems; tensors, their digest, and bytes of the published file.
PUBLISHED: dict[str, tuple[str, dict[str, Any], int, int, str, int]] = {
    "mel_roformer_kim": (
        "mel_band_roformer",
        {},
        1,
        684,
        "a96aee46840014fc33445d9528e1bd94579e710597a2385483e4abc5d8019b8f",
        912_885_624,
    ),
    "bs_roformer_sw": (
        "bs_roformer",
        {},
        6,
        1939,
        "b09b716c767feff61a08af375b4de0bb17535bacbbae140fa07ff18b2b00c511",
        698_840_448,
    ),
    "bs_roformer_anvuew": (
        "bs_roformer",
        {},
        1,
        699,
        "64c4f71b43e4ad5aec62352acbdc1e3eb3f1b200efda485b06067d7b351ce976",
        204_274_176,
    ),
    "bs_roformer_viperx": (
        "bs_roformer",
        {"hop": 441, "width": 512},
        1,
        699,
        "36d2654b92648051978e999e605a23428db9cb67b4a2cce68bd6441f61ea8522",
        639_109_056,
    ),
}


@pytest.mark.full
@pytest.mark.parametrize(("stems", "channels"), [(1, 2), (6, 2), (2, 1)])
@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_parity(name: str, stems: int, channels: int) -> None:
    theirs, ours = pair(*SMALL[name], stems=stems, channels=channels)
    theirs.eval()
    ours.eval()
    for length in (5001, 4400, 300):
        mix = noise(2, channels, length)
        assert difference(ours(mix), separated(theirs, mix)) <= TOLERANCE


@pytest.mark.full
@pytest.mark.parametrize("name", SMALL)
def test_parity_of_the_gradient(name: str) -> None:
    theirs, ours = pair(*SMALL[name], stems=2)
    assert gradient_difference(theirs, ours, noise(2, 2, 1999), noise(2, 2, 2, 1999)) <= GRADIENT_TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
@torch.no_grad()
def test_parity_of_the_published_sizes(name: str) -> None:
    family, config, stems, *_ = PUBLISHED[name]
    theirs, ours = pair(family, config, stems=stems)
    theirs.eval()
    ours.eval()
    mix = noise(1, 2, 88_201)
    error = difference(ours(mix), separated(theirs, mix))
    print(f"{name}: {error:.1e} of the peak")
    assert error <= TOLERANCE


@pytest.mark.full
@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes_of_published_weights(name: str) -> None:
    """The digest is of sorted lines, one for each tensor: `name 1x2x3`."""
    family, config, stems, count, digest, size = PUBLISHED[name]
    with torch.device("meta"):
        state = build(family, config, stems=stems, channels=2).state_dict()
    assert len(state) == count
    assert hashlib.sha256(names_and_shapes(state).encode()).hexdigest() == digest
    assert file_size(state) == size


def test_the_size_of_a_file_is_what_safetensors_writes(tmp_path: Path) -> None:
    family, config = SMALL["mel_band_roformer"]
    state = build(family, config, stems=1, channels=2).state_dict()
    save_file(state, tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").stat().st_size == file_size(state)


def small(name: str, stems: int = 2) -> nn.Module:
    family, config = SMALL[name]
    torch.manual_seed(0)
    return build(family, config, stems=stems, channels=2).eval()


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_only_some_stems(name: str) -> None:
    network, mix = small(name, stems=3), noise(2, 2, 1000)
    every = network(mix)
    assert torch.equal(network(mix, [2, 0]), every[:, [0, 2]])
    assert torch.equal(network(mix, [1]), every[:, [1]])


@pytest.mark.full
@pytest.mark.parametrize("name", SMALL)
def test_in_parts_or_at_once_the_result_is_the_same(name: str) -> None:
    """On a CPU without gradients, sequences go through the transformers a few at a time."""
    network, mix = small(name), noise(2, 2, 40_000)
    with torch.no_grad():
        in_parts = network(mix)
    torch.testing.assert_close(in_parts, network(mix).detach(), rtol=0, atol=1e-6)


def test_rotation_is_by_an_angle_proportional_to_the_position() -> None:
    table = rotation(2000, 64, torch.device("cpu"))
    assert table.shape == (2000, 32)
    angles = torch.arange(2000, dtype=torch.float64)[:, None] * 10_000 ** (-torch.arange(32, dtype=torch.float64) / 32)
    expected = torch.complex(angles.cos(), angles.sin())
    assert (table - expected).abs().max() < 2e-4  # the angle itself is in single precision


@pytest.mark.parametrize("name", ["bs_roformer", "mel_band_roformer"])
@torch.no_grad()
def test_frequencies_in_a_file_do_not_matter(name: str) -> None:
    """Those in half precision would turn late positions too far."""
    network, mix = small(name), noise(1, 2, 5000)
    expected = network(mix)
    coarse = {key: value.half() if key.endswith("freqs") else value for key, value in network.state_dict().items()}
    network.load_state_dict({key: value.float() for key, value in coarse.items()})
    assert torch.equal(network(mix), expected)


def test_mel_bands_of_the_published_network() -> None:
    bands = mel_bands(60, n_fft=2048, rate=44_100)
    expected = (
        "7 6 6 6 6 6 6 6 6 6 6 6 6 6 6 7 7 7 9 9 9 10 10 11 13 13 13 15 16 17 19 20 20 22 24 26 28 29 31 33 36 39"
    )
    expected += " 41 44 47 50 54 57 61 66 71 76 80 86 93 99 105 113 122 130"
    assert [len(band) for band in bands] == list(map(int, expected.split()))
    assert all(list(band) == list(range(band[0], band[-1] + 1)) for band in bands)
    assert {index for band in bands for index in band} == set(range(1025))


@pytest.mark.full
@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_half_precision(name: str) -> None:
    """As `--precision half` computes on a CPU: only products are in bfloat16."""
    network, mix = small(name), noise(1, 2, 5000)
    with torch.autocast("cpu", torch.bfloat16):
        result = network(mix)
    assert difference(result, network(mix)) < 0.1


IMPOSSIBLE: list[tuple[str, dict[str, Any], str]] = [
    *[
        (family, {"width": value}, "width")
        for family in ("bs_roformer", "mel_band_roformer")
        for value in (0, 1.0, "8")
    ],
    ("bs_roformer", {"depth": 0}, "depth must be a whole number"),
    ("bs_roformer", {"heads": True}, "heads must be"),
    ("bs_roformer", {"head_width": 63}, "head_width must be even, not 63"),
    ("bs_roformer", {"zero_dc": 1}, "zero_dc must be true or false"),
    ("bs_roformer", {"mask_layers": 0}, "mask_layers"),
    ("bs_roformer", {"hop": 1024}, "hop must be in 1..682"),
    ("bs_roformer", {"n_fft": 4096}, "the bands have 1025 bins, not the 2049 of the spectrum"),
    ("bs_roformer", {"bands": [1024]}, "the bands have 1024 bins, not the 1025 of the spectrum"),
    ("bs_roformer", {"bands": [0, 1025]}, "whole numbers of bins"),
    ("bs_roformer", {"bands": []}, "whole numbers of bins"),
    ("bs_roformer", {"bands": [1] * 1025}, "bands must be 1 to 1024"),
    ("mel_band_roformer", {"bands": [2, 3]}, "bands must be a whole number"),
    ("mel_band_roformer", {"bands": 900}, "a band has no bins"),
    ("mel_band_roformer", {"rate": 7}, "rate must be"),
]


@pytest.mark.parametrize(("family", "change", "message"), IMPOSSIBLE, ids=lambda value: str(value)[:40])
def test_impossible_networks_are_refused(family: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message), torch.device("meta"):
        build(family, change, stems=4, channels=2)
