"""Beats: clicks are found where they are, at the tempo that one would tap, and noise has none."""

import numpy as np
import pytest

from stemsplit.player.beats import BeatTracker

RATE = 22_050


def clicks(bpm: float, seconds: float = 20) -> tuple[np.ndarray, np.ndarray]:
    """A song of clicks and soft noise, and the samples at which they are."""
    rng = np.random.default_rng(0)
    samples = 0.01 * rng.standard_normal(round(seconds * RATE))
    places = np.arange(0.3 * RATE, len(samples) - 2_000, 60 / bpm * RATE).astype(int)
    for place in places:
        samples[place : place + 1_000] += 0.5 * rng.standard_normal(1_000) * np.exp(-np.arange(1_000) / 150)
    return samples.astype(np.float32), places


def track(samples: np.ndarray, block: int = 65_536) -> np.ndarray:
    tracker = BeatTracker(RATE)
    for start in range(0, len(samples), block):
        tracker.add(samples[start : start + block])
    return np.array(tracker.finish())


@pytest.mark.parametrize("bpm", [60, 90, 120, 140])
def test_clicks_are_beats(bpm: float) -> None:
    samples, places = clicks(bpm)
    beats = track(samples)
    inside = beats[(beats >= places[0] - 500) & (beats <= places[-1] + 500)]
    assert abs(len(inside) - len(places)) <= 1
    off = np.abs(inside[:, None] - places).min(axis=1) / RATE
    assert off.max() < 0.02  # seconds
    assert 60 * RATE / np.diff(inside).mean() == pytest.approx(bpm, rel=0.01)


def test_blocks_do_not_matter() -> None:
    samples, _ = clicks(100, 10)
    np.testing.assert_array_equal(track(samples, 1_000), track(samples))


@pytest.mark.parametrize("length", [0, 1, 5_000, 20 * RATE])
def test_without_a_beat_there_are_none(length: int) -> None:
    assert len(track(np.zeros(length, np.float32))) == 0
    tones = sum(np.sin(2 * np.pi * tone / RATE * np.arange(length)) for tone in (600, 1_400, 2_600))
    assert len(track((0.2 * tones).astype(np.float32))) == 0
    assert len(track(np.random.default_rng(0).uniform(-0.5, 0.5, length).astype(np.float32))) == 0
