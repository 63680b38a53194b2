"""Songs on disk -> random training crops, mixed anew every time."""

from collections.abc import Sequence

import numpy as np
import soxr  # type: ignore[import-untyped]
import torch
from torch import Tensor
from torch.utils.data import Dataset

from stemsplit.datasets.multitracks import Multitrack, read_stems, require_format
from stemsplit.errors import DatasetError
from stemsplit.training.augmentation import augment
from stemsplit.training.recipe import Recipe
from stemsplit.training.vocoder import load_vocoder, stretch

SILENCE = 1e-3  # root mean square, -60 dBFS: a quieter crop teaches little


class Crops(Dataset[Tensor]):
    """`recipe.steps * recipe.batch_size` crops `(S, C, length)` an epoch; their sum is the mixture.

    Crop `i` of an epoch depends on (seed, epoch, i) alone, so any number of loader workers gives the same data. The
    crops after those of an epoch are those of the next.
    """

    def __init__(self, songs: Sequence[Multitrack], recipe: Recipe) -> None:
        require_format(songs, recipe.rate, recipe.channels)
        if recipe.pitch or recipe.tempo:
            load_vocoder()
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
        later, within = divmod(index, len(self))
        rng = np.random.default_rng((self.recipe.seed, self.epoch + later, within))
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

    def _read(self, song: Multitrack, stems: Sequence[str], rng: np.random.Generator) -> Tensor:
        """Stems `(S, C, length)` from a random place, played at a random speed, pitch and tempo."""
        recipe = self.recipe
        speed = 2 ** (rng.uniform(-recipe.speed, recipe.speed) / 12)
        pitch = tempo = 1.0
        if (recipe.pitch or recipe.tempo) and rng.random() < recipe.warp:
            pitch, tempo = 2 ** (rng.uniform(-recipe.pitch, recipe.pitch) / 12), 1 + rng.uniform(-1, 1) * recipe.tempo
        taken = round(recipe.length * speed * tempo)
        start = int(rng.integers(max(song.length - taken, 0) + 1))
        crop = read_stems(song, stems, start, taken).expand(-1, recipe.channels, -1)
        if pitch != 1 or tempo != 1:
            crop = stretch(crop, round(recipe.length * speed * pitch), recipe.rate)
        return _resample(crop, recipe.length)


def _resample(crop: Tensor, length: int) -> Tensor:
    """`(S, C, N)` -> `(S, C, length)`: played faster or slower, higher or lower."""
    if crop.shape[-1] == length:
        return crop
    flat = soxr.resample(crop.flatten(0, 1).T.numpy(), crop.shape[-1], length, "LQ")[:length]
    flat = np.pad(flat, ((0, length - len(flat)), (0, 0)))
    return torch.from_numpy(flat.T.copy()).reshape(*crop.shape[:2], length)


def _by_length(songs: Sequence[Multitrack]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    lengths = np.array([song.length for song in songs], np.float64)
    chances: np.ndarray[tuple[int], np.dtype[np.float64]] = lengths / lengths.sum()
    return chances
