"""A drum machine of sines and noise: one-shots (2, N)."""

from __future__ import annotations

import numpy as np
from effects import high_pass, low_pass, saturate
from numpy.typing import NDArray
from songs import RATE, Audio


def _time(seconds: float) -> NDArray[np.float64]:
    return np.arange(int(seconds * RATE)) / RATE


def _noise(seconds: float, decay: float, rng: np.random.Generator, *, width: float = 0.3) -> Audio:
    time = _time(seconds)
    middle, side = rng.standard_normal((2, len(time)))
    return np.asarray(np.stack([middle + width * side, middle - width * side]) * np.exp(-time / decay), np.float32)


def _sweep(seconds: float, low: float, high: float, bend: float, decay: float) -> Audio:
    """A sine that falls from `high` to `low` Hz."""
    time = _time(seconds)
    frequency = low + (high - low) * np.exp(-time / bend)
    wave = np.sin(2 * np.pi * np.cumsum(frequency) / RATE) * np.exp(-time / decay)
    return np.asarray(np.stack([wave, wave]), np.float32)


def make_kit(rng: np.random.Generator) -> dict[str, Audio]:
    """Kick, snare, clap, closed and open hi-hat, crash; each at its level in the mix."""
    kick = saturate(_sweep(0.45, 48, 320, 0.022, 0.16), 2.0)
    kick[:, :300] += 0.25 * high_pass(_noise(0.02, 0.002, rng), 2000)[:, :300]
    snare = 0.6 * _sweep(0.3, 185, 330, 0.015, 0.08) + 0.35 * high_pass(_noise(0.3, 0.09, rng), 900)
    clap = np.zeros((2, int(0.4 * RATE)), np.float32)
    for start, decay in ((0.0, 0.006), (0.011, 0.006), (0.023, 0.006), (0.034, 0.11)):
        burst = low_pass(high_pass(_noise(0.36, decay, rng, width=0.6), 900), 7000)
        clap[:, int(start * RATE) :][:, : burst.shape[1]] += 0.5 * burst[:, : clap.shape[1] - int(start * RATE)]
    closed = high_pass(_noise(0.09, 0.022, rng), 7000, 4)
    opened = high_pass(_noise(0.35, 0.1, rng), 6500, 4)
    crash = high_pass(_noise(2.2, 0.6, rng, width=0.8), 3500)
    kit = {"kick": kick, "snare": snare, "clap": clap, "closed": closed, "open": opened, "crash": crash}
    levels = {"kick": 1.0, "snare": 0.6, "clap": 0.45, "closed": 0.22, "open": 0.24, "crash": 0.25}
    return {role: sound * np.float32(levels[role] / np.abs(sound).max()) for role, sound in kit.items()}
