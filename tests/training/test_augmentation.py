"""What is done to crops beyond gains and equalizers: pitch, tempo, reverb, polarity, and torchaudio behind it."""

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
import torch
from support.songs import STEMS
from support.training import PLAIN, crop

from stemsplit.datasets.multitracks import Multitrack, find_songs
from stemsplit.errors import UsageError
from stemsplit.training import vocoder
from stemsplit.training.augmentation import augment, reverberate
from stemsplit.training.data import Crops
from stemsplit.training.vocoder import load_vocoder, stretch

PITCHES = (400, 600, 800, 1000)  # Hz
RATE = 8000


@pytest.fixture
def tones(tmp_path: Path) -> list[Multitrack]:
    """A song of beeps: twice a second, each stem at its own pitch."""
    time = np.arange(4 * RATE) / RATE
    (tmp_path / "song").mkdir()
    for stem, pitch in zip(STEMS, PITCHES, strict=True):
        beeps = 0.1 * np.sin(2 * np.pi * pitch * time) * (time % 0.5 < 0.25)
        soundfile.write(tmp_path / "song" / f"{stem}.wav", beeps, RATE)
    return find_songs(tmp_path, STEMS)


def heard(stems: torch.Tensor) -> np.ndarray:
    """The pitches of the stems of a crop, relative to those that they were recorded with, in semitones."""
    size = 16 * stems.shape[-1]
    hertz = torch.fft.rfft(stems[:, 0] * torch.hann_window(stems.shape[-1]), n=size).abs().argmax(-1) * RATE / size
    semitones: np.ndarray = 12 * np.log2(hertz.numpy() / np.array(PITCHES))
    return semitones


def period(stems: torch.Tensor) -> float:
    """Seconds from one beep to the next."""
    level = stems[0, 0].abs().unfold(0, 80, 1).mean(-1)
    level = level - level.mean()
    correlation = torch.fft.irfft(torch.fft.rfft(level, 2**16).abs().square())[: len(level)]
    first = int(0.3 * RATE)
    return (first + int(correlation[first : int(0.8 * RATE)].argmax())) / RATE


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.0, 1.3, 2.0])
def test_stretching_changes_the_length_and_not_the_pitch(factor: float) -> None:
    tone = torch.sin(2 * np.pi * 440 * torch.arange(2 * RATE) / RATE).expand(2, 3, -1)
    length = round(2 * RATE * factor)
    stretched = stretch(tone, length, RATE)
    assert stretched.shape == (2, 3, length)
    hertz = torch.fft.rfft(stretched, n=16 * RATE).abs().argmax(-1) / 16
    assert torch.allclose(hertz, torch.tensor(440.0), atol=1)
    middle = slice(length // 4, 3 * length // 4)
    assert stretched[..., middle].square().mean().sqrt() == pytest.approx(
        0.5**0.5, rel=0.2
    )  # phases that disagree cost some


@pytest.mark.full
def test_pitch_is_shifted_and_tempo_kept(tones: list[Multitrack]) -> None:
    recipe = replace(PLAIN, pitch=4.0, warp=1.0, remix=0.0, steps=20, window_seconds=3.0)
    crops = Crops(tones, recipe)
    shifts = []
    for index in range(12):
        stems = crop(crops, index)
        assert stems.shape == (4, 2, recipe.length)
        semitones = heard(stems)
        assert np.ptp(semitones) < 0.15  # all stems of an excerpt alike
        assert period(stems) == pytest.approx(0.5, rel=0.05)
        shifts.append(float(semitones[0]))
    assert max(map(abs, shifts)) <= 4.1
    assert np.ptp(shifts) > 3


@pytest.mark.full
def test_tempo_is_changed_and_pitch_kept(tones: list[Multitrack]) -> None:
    recipe = replace(PLAIN, tempo=0.25, warp=1.0, remix=0.0, steps=20, window_seconds=2.5)
    crops = Crops(tones, recipe)
    periods = []
    for index in range(12):
        stems = crop(crops, index)
        assert np.abs(heard(stems)).max() < 0.15
        periods.append(period(stems))
    assert 0.5 / 1.26 < min(periods) < 0.48
    assert 0.52 < max(periods) < 0.5 / 0.74


@pytest.mark.full
def test_warping_happens_as_often_as_it_shall(tones: list[Multitrack]) -> None:
    recipe = replace(PLAIN, pitch=12.0, warp=0.3, remix=0.0, steps=100, window_seconds=0.5)
    crops = Crops(tones, recipe)
    changed = [bool(np.abs(heard(crop(crops, index))).max() > 0.2) for index in range(150)]
    assert 0.18 < np.mean(changed) < 0.4


def test_settings_that_are_off_draw_nothing(tones: list[Multitrack]) -> None:
    """Recipes from before there were these settings give the crops that they gave."""
    before, off = Crops(tones, PLAIN), Crops(tones, replace(PLAIN, warp=1.0))
    assert torch.equal(crop(before, 3), crop(off, 3))
    stems = torch.randn(4, 2, 300)
    other = replace(PLAIN, reverb=0.0, polarity=0.0, gain_db=3.0)
    one, two = (augment(stems, recipe, np.random.default_rng(0)) for recipe in (other, replace(other, polarity=1.0)))
    assert torch.allclose(one, -two)


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_polarity(share: float) -> None:
    recipe = replace(PLAIN, polarity=share)
    turned = [augment(torch.ones(4, 2, 3), recipe, np.random.default_rng(seed))[:, 0, 0] < 0 for seed in range(200)]
    around = pytest.approx(share, abs=0.0 if share in (0, 1) else 0.1)
    assert float(torch.stack(turned).double().mean()) == around


def test_a_reverb_rings_on_and_keeps_the_energy() -> None:
    clap = torch.zeros(3, 2, 8 * RATE)
    clap[:2, :, 100] = torch.tensor([1.0, 0.01])[:, None]
    dry = clap.clone()
    wet = reverberate(clap, RATE, 1.0, np.random.default_rng(0))
    assert torch.equal(clap, dry)
    assert wet.shape == clap.shape
    assert torch.allclose(wet.square().sum((1, 2)), clap.square().sum((1, 2)), rtol=1e-3)
    assert not wet[2].any()
    assert wet[..., :100].abs().max() < 1e-6  # nothing before it sounds
    early, late = (wet[:2, :, a:b].square().sum((1, 2)) for a, b in ((101, RATE // 2), (2 * RATE, 3 * RATE)))
    assert (early > 100 * late).all()
    assert (early > 0).all()
    assert not torch.allclose(wet[0, 0], wet[0, 1])  # another one in each channel
    assert torch.equal(reverberate(clap, RATE, 0.0, np.random.default_rng(0)), clap)


# ---- torchaudio


def test_the_vocoder_is_that_of_torchaudio_and_leaves_no_trace() -> None:
    assert load_vocoder().__module__ == "torchaudio.functional.functional"
    assert "torchaudio" not in sys.modules


@pytest.mark.full
@pytest.mark.parametrize(
    "failing", ["raise RuntimeError('different CUDA versions')", "raise OSError('Could not load this library')"]
)
def test_a_torchaudio_that_refuses_to_be_imported_is_used(tmp_path: Path, failing: str) -> None:
    spec = importlib.util.find_spec("torchaudio")
    assert spec is not None
    assert spec.submodule_search_locations
    copy = tmp_path / "torchaudio"
    (copy / "_extension").mkdir(parents=True)
    (copy / "__init__.py").write_text("from . import _extension\n")
    (copy / "_extension" / "__init__.py").write_text(failing)
    for name in ("functional", "_internal"):
        (copy / name).symlink_to(Path(spec.submodule_search_locations[0], name), target_is_directory=True)
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import torch\nfrom stemsplit.training.vocoder import stretch\n"
        "print(stretch(torch.randn(2, 4000), 5000, 8000).shape)\n"
        "try:\n    import torchaudio\nexcept (OSError, RuntimeError) as error:\n    print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["torch.Size([2, 5000])", "refused"]


@pytest.fixture
def forgotten() -> Callable[[], None]:
    load_vocoder.cache_clear()
    return load_vocoder.cache_clear


def test_without_torchaudio_there_is_a_sentence(
    tones: list[Multitrack], monkeypatch: pytest.MonkeyPatch, forgotten: Callable[[], None]
) -> None:
    monkeypatch.setattr(vocoder, "NAME", "no_such_torchaudio")
    with pytest.raises(UsageError, match="torchaudio, which is not installed") as caught:
        Crops(tones, replace(PLAIN, pitch=1.0))
    assert "stemsplit-audio[train]" in caught.value.hint
    Crops(tones, PLAIN)  # nothing in it is asked for
    forgotten()


def test_a_torchaudio_without_a_vocoder_is_told(
    tones: list[Multitrack], monkeypatch: pytest.MonkeyPatch, forgotten: Callable[[], None]
) -> None:
    monkeypatch.setattr(vocoder, "_load_functional", lambda: ModuleType("torchaudio.functional"))
    with pytest.raises(UsageError, match=r"installed torchaudio is unusable: .*phase_vocoder"):
        Crops(tones, replace(PLAIN, tempo=0.1))
    forgotten()
