"""What is done to a training crop, so that no two are alike: functions on stems `(S, C, N)`.

The sum of what comes out is the mixture, so whatever is done to a stem is done to what the network shall find.
"""

import numpy as np
import torch
from torch import Tensor

from stemsplit.training.recipe import Recipe

REVERB_SECONDS = (0.2, 1.5)  # how long a reverb takes to fall by 60 dB
REVERB_DELAY_SECONDS = 0.03  # at most, before it begins
REVERB_DB = (-20.0, -3.0)  # its level below the dry sound


def augment(stems: Tensor, recipe: Recipe, rng: np.random.Generator) -> Tensor:
    """Distortion, equalizers, reverb, gains, polarity, swapped channels and the odd mono mixture; a new tensor."""
    if recipe.distort:
        stems = distort(stems, recipe.distort, rng)
    if recipe.eq_db:
        stems = equalize(stems, recipe.rate, recipe.eq_db, rng)
    if recipe.reverb:
        stems = reverberate(stems, recipe.rate, recipe.reverb, rng)
    gains = rng.uniform(-recipe.gain_db, recipe.gain_db, len(stems)) + rng.uniform(-recipe.gain_db, 0)
    factors = 10 ** (gains / 20) * (rng.random(len(stems)) >= recipe.drop)
    if recipe.polarity:
        factors = np.where(rng.random(len(stems)) < recipe.polarity, -factors, factors)
    stems = stems * torch.from_numpy(factors).float()[:, None, None]
    swapped = rng.random(len(stems)) < recipe.swap
    stems = torch.where(torch.from_numpy(swapped)[:, None, None], stems.flip(1), stems)
    if rng.random() < recipe.mono:
        stems = stems.mean(1, keepdim=True).expand(stems.shape)
    return stems.contiguous()


def distort(stems: Tensor, chance: float, rng: np.random.Generator) -> Tensor:
    """Each stem of `(S, C, N)` soft-clipped with a chance, gently or almost to a square wave; its energy is kept."""
    drives = np.where(rng.random(len(stems)) < chance, np.exp(rng.uniform(0, np.log(30), len(stems))), 0.0)
    clipped = [
        torch.tanh(stem * (drive / max(float(stem.abs().max()), 1e-6))) if drive else stem
        for stem, drive in zip(stems, drives.tolist(), strict=True)
    ]
    return _as_loud(torch.stack(clipped), stems)


def equalize(stems: Tensor, rate: int, depth: float, rng: np.random.Generator) -> Tensor:
    """Every stem of `(S, C, N)` through a smooth random curve of +-`depth` dB over the octaves, its energy kept.

    Without phase shift, and around the crop's ends: a curve this smooth rings for milliseconds only.
    """
    spectrum = torch.fft.rfft(stems)
    octaves = np.log2(np.maximum(np.fft.rfftfreq(stems.shape[-1], 1 / rate), 16.0))
    knots = np.arange(4.0, np.log2(rate / 2) + 1)
    curves = np.stack([np.interp(octaves, knots, rng.uniform(-depth, depth, len(knots))) for _ in range(len(stems))])
    shaped = torch.fft.irfft(spectrum * torch.from_numpy(10 ** (curves / 20)).float()[:, None], n=stems.shape[-1])
    return _as_loud(shaped, stems)


def reverberate(stems: Tensor, rate: int, chance: float, rng: np.random.Generator) -> Tensor:
    """Each stem of `(S, C, N)` in a room of its own with a chance; its energy is kept.

    A late reverb is noise that falls exponentially (Moorer, "About this reverberation business", 1979), another one in
    each channel.
    """
    rows = []
    for stem in stems:
        if rng.random() >= chance:
            rows.append(stem)
            continue
        seconds, delay = rng.uniform(*REVERB_SECONDS), int(rng.uniform(0, REVERB_DELAY_SECONDS) * rate)
        tail = min(int(seconds * rate), stem.shape[-1])
        fall = 10 ** (-3 * np.arange(tail) / (seconds * rate))
        noise = torch.from_numpy(rng.standard_normal((len(stem), tail)) * fall).float()
        noise *= 10 ** (rng.uniform(*REVERB_DB) / 20) / float(np.sqrt(np.square(fall).sum()))
        size = 2 ** int(np.ceil(np.log2(stem.shape[-1] + tail)))
        wet = torch.fft.irfft(torch.fft.rfft(stem, size) * torch.fft.rfft(noise, size), size)
        rows.append(stem + torch.nn.functional.pad(wet, (delay, 0))[..., : stem.shape[-1]])
    return _as_loud(torch.stack(rows), stems)


def _as_loud(stems: Tensor, model: Tensor) -> Tensor:
    """`stems`, each with the energy that it has in `model`."""
    have, want = (x.square().mean((1, 2), keepdim=True) for x in (stems, model))
    scaled: Tensor = stems * (want / have.clamp(min=1e-12)).sqrt()
    return scaled
