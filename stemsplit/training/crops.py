"""Songs on disk -> random training crops, mixed anew every time."""

from collections.abc import Sequence

import numpy as np
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
        start = int(rng.integers(max(song.length - self.recipe.length, 0) + 1))
        crop = read_stems(song, stems, start, self.recipe.length)
        return crop.expand(-1, self.recipe.channels, -1)


def augment(stems: Tensor, recipe: Recipe, rng: np.random.Generator) -> Tensor:
    """Gains, swapped channels and the odd mono mixture, on `(S, C, N)`; a new tensor."""
    gains = rng.uniform(-recipe.gain_db, recipe.gain_db, len(stems)) + rng.uniform(-recipe.gain_db, 0)
    present = rng.random(len(stems)) >= recipe.drop
    stems = stems * torch.from_numpy(10 ** (gains / 20) * present).float()[:, None, None]
    swapped = rng.random(len(stems)) < recipe.swap
    stems = torch.where(torch.from_numpy(swapped)[:, None, None], stems.flip(1), stems)
    if rng.random() < recipe.mono:
        stems = stems.mean(1, keepdim=True).expand(stems.shape)
    return stems.contiguous()


def _by_length(songs: Sequence[Song]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    lengths = np.array([song.length for song in songs], np.float64)
    chances: np.ndarray[tuple[int], np.dtype[np.float64]] = lengths / lengths.sum()
    return chances
