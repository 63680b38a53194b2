"""Spleeter's networks against the output of Spleeter 2.4.2 with the same weights.

data/spleeter.npz has random weights of a small network, named as in the published files, two mixtures `(N, C)` of one
and two segments, and every 25th sample of the stems that Spleeter separated them into.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
import torch
from support.songs import STEMS
from torch import Tensor, nn
from torch.nn import functional

import stemsplit
from stemsplit.errors import ModelError
from stemsplit.models import checkpoint
from stemsplit.models.checkpoint import Header, Model
from stemsplit.networks.families import build
from stemsplit.networks.spleeter import Network, _upsample
from stemsplit.separation.separator import Separator

GOLDEN: dict[str, np.ndarray] = dict(np.load(Path(__file__).parents[1] / "data" / "spleeter.npz"))
STEP = 25
SMALL: dict[str, Any] = {"n_fft": 1024, "hop": 256, "frames": 64, "bins": 256, "widths": [4, 6, 8, 10, 12, 14]}
LENGTH = 63 * 256 - 1024  # samples of a window that fills the frames
TOLERANCE = 1e-5


def small(**change: Any) -> Network:
    """The network with the golden weights, in eval mode."""
    network = build("spleeter", {**SMALL, **change}, stems=4, channels=2)
    assert isinstance(network, Network)
    weights = {
        f"networks.{STEMS.index(stem)}.{part}": torch.from_numpy(value)
        for name, value in GOLDEN.items()
        for stem, _, part in [name.partition("/")]
        if stem in STEMS
    }
    keys = network.load_state_dict(weights, strict=False)
    assert not keys.unexpected_keys
    assert all(name.endswith("num_batches_tracked") for name in keys.missing_keys)
    return network.eval()


def mixture(case: str) -> Tensor:
    return torch.from_numpy(GOLDEN[f"{case}/mix"].T.copy())


def difference(stems: Tensor, case: str, extension: str) -> float:
    """The largest difference between stems `(S, C, N)` and Spleeter's; the mixtures are near full scale."""
    expected = np.stack([GOLDEN[f"{case}/{extension}/{stem}"].T for stem in STEMS])
    return float((stems[..., ::STEP] - torch.from_numpy(expected)).abs().max())


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.1


@pytest.mark.parametrize(
    ("case", "extension"), [("one_split", "zeros"), ("one_split", "average"), ("two_splits", "average")]
)
@torch.no_grad()
def test_parity(case: str, extension: str) -> None:
    mix = mixture(case)
    before = SMALL["n_fft"] // 2  # with as many zeros the first frame is Spleeter's
    after = -(mix.shape[1] + before) % SMALL["hop"] + before
    stems = small(extension=extension)(functional.pad(mix, (before, after))[None])[0]
    assert difference(stems[..., before : before + mix.shape[1]], case, extension) <= TOLERANCE


@pytest.mark.full
@torch.no_grad()
def test_parity_of_the_two_stem_model() -> None:
    """The bundled weights, on a real song: slow_motion_dream by Steven M Bryant, CC BY 3.0, from Spleeter's repository.

    Spleeter 2.4.2 was given exactly these weights. Its stems are stored at half their level, so that they do not clip.
    """
    path = Path(stemsplit.__file__).parent / "weights" / "spleeter-2stems.safetensors"
    header = checkpoint.read_header(path)
    network = build("spleeter", {**header.config, "extension": "zeros"}, stems=2, channels=2).eval()
    assert isinstance(network, Network)
    network.load_state_dict(checkpoint.read_weights(path, header))
    folder = Path(__file__).parents[1] / "data" / "spleeter-2stems"
    song, *stems = (
        torch.from_numpy(soundfile.read(folder / f"{name}.flac", dtype="float32")[0].T)
        for name in ("mixture", *header.stems)
    )
    before = network.stft.n_fft // 2
    after = -(song.shape[1] + before) % network.stft.hop + before
    result = network(functional.pad(song, (before, after))[None])[0, ..., before : before + song.shape[1]]
    for stem, expected in zip(result, stems, strict=True):
        assert (stem - 2 * expected).abs().max() <= 1e-4 * 2 * expected.abs().max()


def test_parity_of_a_song_of_one_window() -> None:
    """`Separator` begins and ends its windows where Spleeter does."""
    header = Header("spleeter", SMALL, STEMS, rate=44_100, channels=2, length=LENGTH, hop=LENGTH)
    stems = Separator(Model(header, small())).separate([mixture("one_split").numpy()], 44_100)
    assert difference(torch.from_numpy(np.concatenate(list(stems), axis=-1)), "one_split", "average") <= TOLERANCE


def test_inference_agrees_with_the_differentiable_path() -> None:
    network, mix = small(), noise(2, 2, 8000)
    plain = network(mix)
    assert plain.requires_grad
    with torch.no_grad():
        torch.testing.assert_close(network(mix), plain.detach(), rtol=0, atol=1e-6)


@torch.no_grad()
def test_a_full_window_is_one_segment() -> None:
    network = small()
    assert network.stft(torch.zeros(1, network.input_length(LENGTH))).shape[-1] == SMALL["frames"]


@pytest.mark.full
@torch.no_grad()
def test_segments_are_independent() -> None:
    network = small()
    spectrum = network.stft(noise(2, 2, 139 * 256))
    masks = network.masks(spectrum)
    for start in (0, 64, 128):
        segment = network.masks(spectrum[..., start : start + 64])
        torch.testing.assert_close(masks[..., start : start + 64], segment, rtol=0, atol=1e-6)
    assert (masks[..., 60:68] - network.masks(spectrum[..., 60:68])).abs().max() > 1e-3


@pytest.mark.parametrize("maps", [1, 3, 16])
@pytest.mark.parametrize("large", [False, True])
@torch.no_grad()
def test_upsampling_agrees_with_a_transposed_convolution(maps: int, large: bool) -> None:
    layer = nn.ConvTranspose2d(6, maps, 5, stride=2)
    for shape in ((1, 6, 2, 2), (2, 6, 4, 10), (1, 6, 32, 6)):
        x = noise(*shape)
        torch.testing.assert_close(_upsample(x, layer, large=large), layer(x)[..., 1:-2, 1:-2], rtol=0, atol=1e-6)


@pytest.mark.parametrize("maps", [1, 3])
def test_gradients_of_upsampling_agree_with_a_transposed_convolution(maps: int) -> None:
    layer = nn.ConvTranspose2d(6, maps, 5, stride=2)
    x, weight = noise(1, 6, 8, 8), noise(1, maps, 16, 16, seed=1)
    expected = torch.autograd.grad((layer(x)[..., 1:-2, 1:-2] * weight).sum(), list(layer.parameters()))
    result = torch.autograd.grad((_upsample(x, layer, large=False) * weight).sum(), list(layer.parameters()))
    for one, other in zip(result, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.full
@torch.no_grad()
def test_masks_above_the_band() -> None:
    mix = noise(1, 2, 8000)
    zeros, average = small(extension="zeros"), small()
    masks, spectrum = average.masks(average.stft(mix)), average.stft(mix)
    above = masks[..., 256:, :]
    torch.testing.assert_close(above, masks[..., :256, :].mean(-2, keepdim=True).expand_as(above), rtol=0, atol=1e-6)
    torch.testing.assert_close(average(mix).sum(1), mix, rtol=0, atol=1e-5)
    assert zeros.masks(spectrum)[..., 256:, :].abs().max() == 0
    assert torch.equal(zeros.masks(spectrum)[..., :256, :], masks[..., :256, :])


@pytest.mark.full
@torch.no_grad()
def test_selected_stems() -> None:
    network, mix = small(), noise(2, 2, 8000)
    every = network(mix)
    assert torch.equal(network(mix, [0]), every[:, :1])
    assert torch.equal(network(mix, [3, 1]), every[:, [1, 3]])
    refined = network(mix, wiener=1)
    assert torch.equal(network(mix, [2], wiener=1), refined[:, [2]])
    assert not torch.allclose(refined, every, atol=1e-3)


@torch.no_grad()
def test_loud_mixtures_in_half_precision() -> None:
    """Their magnitudes exceed the range of float16."""
    network, mix = small(), noise(1, 2, 8000) * 1000
    with torch.autocast("cpu", torch.float16):
        half = network(mix)
    torch.testing.assert_close(half, network(mix), rtol=0, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        low = network(mix)
    assert low.isfinite().all()
    assert 0 < (low - half).abs().max() < 0.05 * half.abs().max()


@pytest.fixture
def refused() -> Callable[..., str]:
    def refused(**change: Any) -> str:
        with pytest.raises(ModelError) as caught, torch.device("meta"):
            build("spleeter", {**SMALL, **change}, stems=4, channels=2)
        return str(caught.value)

    return refused


@pytest.mark.parametrize(
    "change",
    [
        {"n_fft": 0},
        {"n_fft": 10**9},
        {"n_fft": 1023},
        {"n_fft": "1024"},
        {"hop": 0},
        {"hop": 512},
        {"hop": 1.5},
        {"frames": 0},
        {"frames": 65},
        {"frames": 2**20},
        {"frames": True},
        {"bins": 0},
        {"bins": 200},
        {"bins": 576},
        {"widths": [4, 6, 8, 10, 12]},
        {"widths": [4, 6, 8, 10, 12, 14, 16]},
        {"widths": [4, 6, 8, 10, 12, 0]},
        {"widths": [4, 6, 8, 10, 12, 10**9]},
        {"widths": [4, 6, 8, 10, 12, 2.0]},
        {"widths": 4},
        {"extension": "mean"},
        {"extension": None},
    ],
    ids=str,
)
def test_impossible_networks_are_refused(refused: Callable[..., str], change: dict[str, Any]) -> None:
    assert "cannot be built" in refused(**change)
