"""Songs on disk -> random training crops, mixed anew every time."""

from collections.abc import Sequence

import numpy as np
import soxr  # type: ignore[import-untyped]
import torch
from torch import Tensor
from torch.utils.data import Dataset

from stemsplit.errors import DatasetError
from stemsplit.songs import Song, read_stems, require_format
from stemsplit.training.recipe import Recipe

SILENCE = 1e-3  # root mean square, -60 dBFS: a quieter crop teaches little


class Crops(Dataset[Tensor]):
    """`recipe.steps * recipe.batch_size` crops `(S, C, length)` an epoch; their sum is the mixture.

    Crop `i` of an epoch depends on (seed, epoch, i) alone, so any number of loader workers gives the same data.
    """

    def __init__(self, songs: Sequence[Song], recipe: Recipe) -> None:
        require_format(songs, recipe.rate, recipe.channels)
        self.recipe, self.epoch = recipe, 0
        self.having = {stem: [song for song in songs if stem in song.stems] for stem in recipe.stems}
        missing = [stem for stem, having in self.having.items() if not having]
        if missing:
            raise DatasetError(f"no song has {' or '.join(missing)}", "every stem of the recipe must occur in the data")
        self.chances = {stem: _by_length(having) for stem, having in self.having.items()}
        self.whole = [song for song in songs if len(song.stems) > 1] or songs
        self.whole_chances = _by_length(self.whole)

    def __len__(self) -> int:
        return self.recipe.steps * self.recipe.batch_size

    def __getitem__(self, index: int) -> Tensor:
        rng = np.random.default_rng((self.recipe.seed, self.epoch, index))
        remixed = rng.random() < self.recipe.remix
        return augment(self._remix(rng) if remixed else self._excerpt(rng), self.recipe, rng)

    def _excerpt(self, rng: np.random.Generator) -> Tensor:
        """All stems from the same place of one song, as it was composed."""
        song = self.whole[rng.choice(len(self.whole), p=self.whole_chances)]
        return self._read(song, self.recipe.stems, rng)

    def _remix(self, rng: np.random.Generator) -> Tensor:
        """Every stem from another place of another song (Uhlich et al., 2017); silent places are drawn again, twice."""
        stems = []
        for stem in self.recipe.stems:
            for _ in range(3):
                song = self.having[stem][rng.choice(len(self.having[stem]), p=self.chances[stem])]
                crop = self._read(song, (stem,), rng)
                if crop.square().mean().sqrt() > SILENCE:
                    break
            stems.append(crop)
        return torch.cat(stems)

    def _read(self, song: Song, stems: Sequence[str], rng: np.random.Generator) -> Tensor:
        """Stems `(S, C, length)` from a random place, played at a random speed."""
        length = self.recipe.length
        speed = 2 ** (rng.uniform(-self.recipe.speed, self.recipe.speed) / 12)
        taken = round(length * speed)
        start = int(rng.integers(max(song.length - taken, 0) + 1))
        crop = read_stems(song, stems, start, taken).expand(-1, self.recipe.channels, -1)
        if taken == length:
            return crop
        flat = soxr.resample(crop.flatten(0, 1).T.numpy(), taken, length, "LQ")[:length]
        flat = np.pad(flat, ((0, length - len(flat)), (0, 0)))
        return torch.from_numpy(flat.T.copy()).reshape(*crop.shape[:2], length)


def augment(stems: Tensor, recipe: Recipe, rng: np.random.Generator) -> Tensor:
    """Distortion, equalizers, gains, swapped channels and the odd mono mixture, on `(S, C, N)`; a new tensor."""
    if recipe.distort:
        stems = distort(stems, recipe.distort, rng)
    if recipe.eq_db:
        stems = equalize(stems, recipe.rate, recipe.eq_db, rng)
    gains = rng.uniform(-recipe.gain_db, recipe.gain_db, len(stems)) + rng.uniform(-recipe.gain_db, 0)
    present = rng.random(len(stems)) >= recipe.drop
    stems = stems * torch.from_numpy(10 ** (gains / 20) * present).float()[:, None, None]
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


def _as_loud(stems: Tensor, model: Tensor) -> Tensor:
    """`stems`, each with the energy that it has in `model`."""
    have, want = (x.square().mean((1, 2), keepdim=True) for x in (stems, model))
    scaled: Tensor = stems * (want / have.clamp(min=1e-12)).sqrt()
    return scaled


def _by_length(songs: Sequence[Song]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    lengths = np.array([song.length for song in songs], np.float64)
    chances: np.ndarray[tuple[int], np.dtype[np.float64]] = lengths / lengths.sum()
    return chances
