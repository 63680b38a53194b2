"""The level of a song, and standardizing by it."""

import numpy as np
import pytest
import torch

from stemsplit.dsp.level import Level


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("size", [1, 7, 999, 5_000])
@pytest.mark.parametrize(("gain", "offset"), [(0.1, 0.0), (1e-3, 0.03), (1e-5, 0.5), (0.0, 0.1)])
def test_it_is_that_of_the_mono_mixture_however_it_is_cut(size: int, gain: float, offset: float) -> None:
    song = np.float32(gain) * noise(2, 5_000) + np.float32(offset)
    level = Level.of(song[:, start : start + size] for start in range(0, 5_000, size))
    mono = song.astype(np.float64).mean(0)
    assert level.mean == pytest.approx(mono.mean(), rel=1e-9, abs=1e-12)
    assert level.deviation == pytest.approx(mono.std(ddof=1), rel=1e-6, abs=1e-12)


def test_songs_without_a_deviation() -> None:
    assert Level.of([]) == Level.of([np.zeros((2, 0), np.float32)]) == Level(0.0, 0.0)
    assert Level.of([np.array([[0.5], [0.25]], np.float32)]) == Level(0.375, 0.0)
    assert Level.of([np.full((1, 9), 0.25, np.float32)] * 3) == Level(0.25, 0.0)


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_what_is_standardized_is_restored(kind: type) -> None:
    song = np.float32(1e-3) * noise(2, 1_000) + np.float32(0.03)
    level = Level.of([song])
    standardized = level.standardize(kind(song))
    assert standardized.dtype in (np.float32, torch.float32)
    assert Level.of([np.asarray(standardized)]).deviation == pytest.approx(1, rel=1e-4)
    np.testing.assert_allclose(np.asarray(level.restore(standardized)), song, atol=1e-8)


def test_a_constant_song_is_silence_to_a_network_whatever_that_makes_of_it() -> None:
    level = Level(0.25, 0.0)
    assert not level.standardize(np.full((2, 9), 0.25, np.float32)).any()
    assert (level.restore(noise(4, 2, 9)) == 0.25).all()
    assert not Level().restore(noise(4, 2, 9)).any()
