"""Augmentation: random changes to training crops, as functions on stems `(S, C, N)`.

The mixture is the sum of the changed stems, so the targets of the network are the changed stems as well.
"""

import numpy as np
import torch
from torch import Tensor

from stemsplit.training.recipe import Recipe

REVERB_SECONDS = (0.2, 1.5)  # reverberation time, to -60 dB
REVERB_DELAY_SECONDS = 0.03  # the longest pre-delay
REVERB_DB = (-20.0, -3.0)  # level relative to the dry sound


def augment(stems: Tensor, recipe: Recipe, rng: np.random.Generator) -> Tensor:
    """Apply the augmentations of a recipe: distortion, EQ, reverb, gain, polarity, swapped channels and mono.

    Args:
        stems: `(S, C, N)`, left unchanged.
        recipe: How much of each to apply, and how often.
        rng: Source of randomness.

    Returns:
        A new tensor `(S, C, N)`.
    """
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


def augment_mixture(parts: Tensor, recipe: Recipe, rng: np.random.Generator) -> Tensor:
    """Apply what changes all parts of a mixture in the same way: one EQ, gain and swap, and mono.

    Args:
        parts: `(parts, C, N)`, left unchanged.
        recipe: How much of each to apply, and how often.
        rng: Source of randomness.

    Returns:
        A new tensor `(parts, C, N)`.
    """
    if recipe.eq_db:
        parts = equalize(parts.flatten(0, 1)[None], recipe.rate, recipe.eq_db, rng)[0].view(parts.shape)
    parts = parts * 10 ** ((rng.uniform(-recipe.gain_db, recipe.gain_db) + rng.uniform(-recipe.gain_db, 0)) / 20)
    if rng.random() < recipe.swap:
        parts = parts.flip(1)
    if rng.random() < recipe.mono:
        parts = parts.mean(1, keepdim=True).expand(parts.shape)
    return parts.contiguous()


def distort(stems: Tensor, chance: float, rng: np.random.Generator) -> Tensor:
    """Soft-clip stems, gently or almost to a square wave; their energy is kept.

    Args:
        stems: `(S, C, N)`.
        chance: Of each stem to be distorted, from 0 to 1.
        rng: Source of randomness.
    """
    drives = np.where(rng.random(len(stems)) < chance, np.exp(rng.uniform(0, np.log(30), len(stems))), 0.0)
    clipped = [
        torch.tanh(stem * (drive / max(float(stem.abs().max()), 1e-6))) if drive else stem
        for stem, drive in zip(stems, drives.tolist(), strict=True)
    ]
    return _with_energy_of(stems, torch.stack(clipped))


def equalize(stems: Tensor, rate: int, depth: float, rng: np.random.Generator) -> Tensor:
    """Give each stem a smooth random frequency response; its energy is kept.

    The filter has zero phase, and is circular at the ends of the crop: a curve this smooth rings only for milliseconds.

    Args:
        stems: `(S, C, N)`.
        rate: Hz.
        depth: Largest gain or cut in any octave, in dB.
        rng: Source of randomness.
    """
    spectrum = torch.fft.rfft(stems)
    octaves = np.log2(np.maximum(np.fft.rfftfreq(stems.shape[-1], 1 / rate), 16.0))
    knots = np.arange(4.0, np.log2(rate / 2) + 1)
    curves = np.stack([np.interp(octaves, knots, rng.uniform(-depth, depth, len(knots))) for _ in range(len(stems))])
    shaped = torch.fft.irfft(spectrum * torch.from_numpy(10 ** (curves / 20)).float()[:, None], n=stems.shape[-1])
    return _with_energy_of(stems, shaped)


def reverberate(stems: Tensor, rate: int, chance: float, rng: np.random.Generator) -> Tensor:
    """Add a different reverb to each stem; its energy is kept.

    The impulse response is exponentially decaying noise (Moorer, "About this reverberation business", 1979),
    independent in each channel.

    Args:
        stems: `(S, C, N)`.
        rate: Hz.
        chance: Of each stem to get a reverb, from 0 to 1.
        rng: Source of randomness.
    """
    rows = []
    for stem in stems:
        if rng.random() >= chance:
            rows.append(stem)
            continue
        seconds, delay = rng.uniform(*REVERB_SECONDS), int(rng.uniform(0, REVERB_DELAY_SECONDS) * rate)
        tail = min(int(seconds * rate), stem.shape[-1])
        decay = 10 ** (-3 * np.arange(tail) / (seconds * rate))
        noise = torch.from_numpy(rng.standard_normal((len(stem), tail)) * decay).float()
        noise *= 10 ** (rng.uniform(*REVERB_DB) / 20) / float(np.sqrt(np.square(decay).sum()))
        size = 2 ** int(np.ceil(np.log2(stem.shape[-1] + tail)))
        wet = torch.fft.irfft(torch.fft.rfft(stem, size) * torch.fft.rfft(noise, size), size)
        rows.append(stem + torch.nn.functional.pad(wet, (delay, 0))[..., : stem.shape[-1]])
    return _with_energy_of(stems, torch.stack(rows))


def _with_energy_of(original: Tensor, stems: Tensor) -> Tensor:
    """Scale each stem to the energy that it has in `original`."""
    before, now = (x.square().mean((1, 2), keepdim=True) for x in (original, stems))
    scaled: Tensor = stems * (before / now.clamp(min=1e-12)).sqrt()
    return scaled
