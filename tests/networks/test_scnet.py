"""SCNet against a reference implementation, and against what is known of the published weights."""

import hashlib
from typing import Any

import pytest
import torch
from support.networks import file_size, names_and_shapes
from support.pymss import SMALL_SCNETS as SMALL
from support.pymss import difference, gradient_difference, noise, pair

from stemsplit.errors import ModelError
from stemsplit.networks.families import build, is_standardized

TOLERANCE = 1e-5  # of the peak
GRADIENT_TOLERANCE = 1e-4
LARGE = {"widths": [64, 128, 256]}
XL = {**LARGE, "shares": [0.23, 0.37], "strides": [1, 4, 4], "kernels": [3, 4, 4], "depths": [3, 3, 3], "layers": 8}

# Settings; tensors, their digest, and bytes of the published file (of SCNet-large: of one in this layout).
PUBLISHED: dict[str, tuple[dict[str, Any], int, str, int]] = {
    "scnet_xl": (XL, 510, "e586aa1f96cd80b510074ef0c466b94cda42975fd057339aad40c954d95f83ac", 213_925_688),
    "scnet_large": (
        {**LARGE, "shares": [0.225, 0.372]},
        372,
        "a30d46ee7e15f9c39f4ed9577d4f96990506e564c5fe259c491d9b68eb6766d6",
        168_767_472,
    ),
}

pytestmark = pytest.mark.filterwarnings("ignore:A window was not provided")  # by the reference, and that is right


@pytest.mark.full
@pytest.mark.parametrize(("stems", "channels"), [(4, 2), (1, 1)])
@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_parity(name: str, stems: int, channels: int) -> None:
    theirs, ours = pair(*SMALL[name], stems=stems, channels=channels)
    theirs.eval()
    ours.eval()
    for length in (5001, 3072, 2944, 300):  # among them whole numbers of hops, odd and even
        mix = noise(2, channels, length)
        assert difference(ours(mix), theirs(mix)) <= TOLERANCE


@pytest.mark.full
@pytest.mark.parametrize("name", SMALL)
def test_parity_of_the_gradient(name: str) -> None:
    theirs, ours = pair(*SMALL[name], stems=2)
    assert gradient_difference(theirs, ours, noise(2, 2, 1999), noise(2, 2, 2, 1999)) <= GRADIENT_TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
@torch.no_grad()
def test_parity_of_the_published_sizes(name: str) -> None:
    theirs, ours = pair("scnet", PUBLISHED[name][0], stems=4)
    theirs.eval()
    ours.eval()
    mix = noise(1, 2, 88_201)
    error = difference(ours(mix), theirs(mix))
    print(f"{name}: {error:.1e} of the peak")
    assert error <= TOLERANCE


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes_of_published_weights(name: str) -> None:
    """The digest is of sorted lines, one for each tensor: `name 1x2x3`."""
    config, count, digest, size = PUBLISHED[name]
    with torch.device("meta"):
        state = build("scnet", config, stems=4, channels=2).state_dict()
    assert len(state) == count
    assert hashlib.sha256(names_and_shapes(state).encode()).hexdigest() == digest
    assert file_size(state) == size


@torch.no_grad()
def test_a_mixture_of_one_sample() -> None:
    torch.manual_seed(0)
    network = build(*SMALL["scnet"], stems=4, channels=2).eval()
    result = network(noise(1, 2, 1))
    assert result.shape == (1, 4, 2, 1)
    assert result.isfinite().all()


def test_standardized_songs_are_for_the_weights_of_the_authors() -> None:
    with torch.device("meta"):
        for wanted in (False, True):
            network = build("scnet", {"standardized": wanted}, stems=4, channels=2)
            assert is_standardized(network) == wanted


@pytest.mark.full
@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_half_precision(name: str) -> None:
    """As `--precision half` computes on a CPU: only products are in bfloat16."""
    torch.manual_seed(0)
    network, mix = build(*SMALL[name], stems=2, channels=2).eval(), noise(1, 2, 5000)
    with torch.autocast("cpu", torch.bfloat16):
        result = network(mix)
    assert difference(result, network(mix)) < 0.1


IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({"n_fft": 8}, "n_fft must be a whole number"),
    ({"hop": 4096}, "hop must be in 1..1365"),
    ({"widths": []}, "widths must be 1 to 8 numbers"),
    ({"widths": [2, 64]}, "none below 4"),
    ({"widths": [32.0]}, "widths must be whole numbers"),
    ({"shares": [0.5]}, "shares must be two fractions"),
    ({"shares": [0.5, 1.5]}, "shares must be two fractions"),
    ({"shares": [0.6, 0.5]}, "2049 bins cannot be cut into 3 bands"),
    ({"strides": [1, 4]}, "strides must be 3 numbers"),
    ({"strides": [1, 2, 16]}, "every stride must be 1, or as long as its kernel"),
    ({"kernel": 4}, "kernel must be odd, not 4"),
    ({"layers": 5}, "layers must be even, not 5"),
    ({"depths": [0, 1, 1]}, "depths must be whole numbers in 1..16"),
    ({"standardized": 1}, "standardized must be true or false"),
]


@pytest.mark.parametrize(("change", "message"), IMPOSSIBLE, ids=lambda value: str(value)[:40])
def test_impossible_networks_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message), torch.device("meta"):
        build("scnet", change, stems=4, channels=2)
