"""Training data: random crops of songs, remixed every time, and a loader of batches."""

import logging
import multiprocessing
from collections.abc import Iterator, Sequence

import numpy as np
import soxr  # type: ignore[import-untyped]
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from stemsplit.datasets.multitracks import Multitrack, check_format, read_mixture, read_stems
from stemsplit.errors import DatasetError, StemsplitError
from stemsplit.training.augmentation import augment, augment_mixture
from stemsplit.training.ranks import Ranks
from stemsplit.training.recipe import Recipe
from stemsplit.training.vocoder import load_vocoder, stretch
from stemsplit.wording import one_line

_log = logging.getLogger(__name__)

SILENCE = 1e-3  # root mean square, -60 dBFS: a quieter crop teaches little
READY_BATCHES = 2  # that each worker prepares in advance


class Crops(Dataset[Tensor]):
    """Crops `(S, C, length)` whose sum is the mixture, `recipe.steps * recipe.batch_size` an epoch.

    With `recipe.mixture` they are `(S + 1, C, length)`: the last part is what a mixture has beside its stems.

    Crop `i` of an epoch depends on (seed, epoch, i) alone, so any number of workers gives the same data. Indices beyond
    an epoch are those of the next.

    Args:
        songs: The songs to draw from.
        recipe: How to draw, and how to augment.

    Attributes:
        epoch: The epoch that index 0 belongs to, from 0.
        songs_with: For each stem, the songs that have it.
        mixed_songs: Songs for crops that are not remixed: those with several stems, if there are any.

    Raises:
        DatasetError: A song does not fit the recipe, or no song has one of its stems.
        UsageError: The recipe shifts pitch or tempo, and torchaudio is unusable.
    """

    def __init__(self, songs: Sequence[Multitrack], recipe: Recipe) -> None:
        check_format(songs, recipe.rate, recipe.channels)
        if recipe.pitch or recipe.tempo:
            load_vocoder()
        self.recipe, self.epoch = recipe, 0
        self.songs_with = {stem: [song for song in songs if stem in song.stems] for stem in recipe.stems}
        missing = [stem for stem, matching in self.songs_with.items() if not matching]
        if missing:
            hint = "every stem of the recipe must occur in the data"
            raise DatasetError(f"no song has {' or '.join(missing)}", hint, stem=missing[0])
        self.mixed_songs = [song for song in songs if len(song.stems) > 1] or songs
        self._chances_with = {stem: _by_length(matching) for stem, matching in self.songs_with.items()}
        self._mixed_chances = _by_length(self.mixed_songs)

    def __len__(self) -> int:
        return self.recipe.steps * self.recipe.batch_size

    def __getitem__(self, index: int) -> Tensor:
        epochs, position = divmod(index, len(self))
        recipe, rng = self.recipe, np.random.default_rng((self.recipe.seed, self.epoch + epochs, position))
        if rng.random() < recipe.remix:
            crop = augment(self._remix(rng), recipe, rng)
        else:
            song = self.mixed_songs[rng.choice(len(self.mixed_songs), p=self._mixed_chances)]
            if recipe.mixture and song.mixture and rng.random() < recipe.mixture:
                return augment_mixture(self._read(song, recipe.stems, rng, rest=True), recipe, rng)
            crop = augment(self._read(song, recipe.stems, rng), recipe, rng)
        return torch.cat([crop, torch.zeros_like(crop[:1])]) if recipe.mixture else crop

    def _remix(self, rng: np.random.Generator) -> Tensor:
        """Each stem from a random position of a random song (Uhlich et al., 2017); silence is redrawn twice."""
        stems = []
        for stem in self.recipe.stems:
            songs, chances = self.songs_with[stem], self._chances_with[stem]
            for _ in range(3):
                crop = self._read(songs[rng.choice(len(songs), p=chances)], (stem,), rng)
                if crop.square().mean().sqrt() > SILENCE:
                    break
            stems.append(crop)
        return torch.cat(stems)

    def _read(self, song: Multitrack, stems: Sequence[str], rng: np.random.Generator, *, rest: bool = False) -> Tensor:
        """Stems `(S, C, length)` from a random position, at a random speed, pitch and tempo.

        With the `rest`, what else is in the mixture's file follows them.
        """
        recipe = self.recipe
        speed = 2 ** (rng.uniform(-recipe.speed, recipe.speed) / 12)
        pitch = tempo = 1.0
        if (recipe.pitch or recipe.tempo) and rng.random() < recipe.warp:
            pitch, tempo = 2 ** (rng.uniform(-recipe.pitch, recipe.pitch) / 12), 1 + rng.uniform(-1, 1) * recipe.tempo
        length = round(recipe.length * speed * tempo)
        start = int(rng.integers(max(song.length - length, 0) + 1))
        crop = read_stems(song, stems, start, length)
        if rest:
            crop = torch.cat([crop, (read_mixture(song, start, length) - crop.sum(0))[None]])
        crop = crop.expand(-1, recipe.channels, -1)
        if pitch != 1 or tempo != 1:
            crop = stretch(crop, round(recipe.length * speed * pitch), recipe.rate)
        return _resample(crop, recipe.length)


class Loader:
    """Loads batches `(B, S, C, length)` epoch by epoch, in other processes while the network computes.

    Args:
        crops: The data.
        ranks: The processes that train, which share each batch out among themselves.
        workers: Processes that read and mix, which live as long as the loader; with 0, this process does it.
        pinned: Put batches into page-locked memory, from which a GPU copies faster.
    """

    def __init__(self, crops: Crops, ranks: Ranks, *, workers: int = 0, pinned: bool = False) -> None:
        self._order = _Order(crops.recipe.steps, crops.recipe.batch_size, ranks)
        self._crops, self._pinned = crops, pinned
        if workers and (problem := explain_no_workers()):
            _warn(problem)
            workers = 0
        self._loader = self._make(workers)

    def epoch(self, number: int) -> Iterator[Tensor]:
        """Yield this process's part of each batch of an epoch, counted from 0.

        Raises:
            DatasetError: A song cannot be read.
        """
        self._order.epoch = number
        for batch in self._batches():
            if isinstance(batch, StemsplitError):
                raise batch
            yield batch

    def _batches(self) -> Iterator[Tensor | StemsplitError]:
        try:
            return iter(self._loader)
        except (OSError, RuntimeError) as error:  # no further process may be started
            if not self._loader.num_workers:
                raise
            _warn(one_line(error))
            self._loader = self._make(0)
            return iter(self._loader)

    def _make(self, workers: int) -> DataLoader[Tensor | StemsplitError]:
        return DataLoader(
            _ErrorsAsItems(self._crops),
            batch_sampler=self._order,
            num_workers=workers,
            pin_memory=self._pinned,
            persistent_workers=workers > 0,
            prefetch_factor=READY_BATCHES if workers else None,
            collate_fn=_collate,
        )


def explain_no_workers() -> str:
    """Return why no worker can share memory with this process, as in containers without /dev/shm; empty if one can."""
    try:
        multiprocessing.get_context().SimpleQueue().close()
    except OSError as error:
        return one_line(error)
    return ""


def _warn(problem: str) -> None:
    _log.warning("cannot start worker processes: %s; this process reads the songs itself", problem)


class _Order(Sampler[list[int]]):
    """The indices of this process in each batch of an epoch: every n-th."""

    def __init__(self, steps: int, batch_size: int, ranks: Ranks) -> None:
        self.steps, self.batch_size, self.ranks, self.epoch = steps, batch_size, ranks, 0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        first = self.epoch * self.steps * self.batch_size
        for start in range(first, first + self.steps * self.batch_size, self.batch_size):
            yield list(range(start + self.ranks.rank, start + self.batch_size, self.ranks.size))


class _ErrorsAsItems(Dataset[Tensor | StemsplitError]):
    """Crops, or the errors that they raise: PyTorch would wrap an error from a worker in its traceback."""

    def __init__(self, crops: Crops) -> None:
        self.crops = crops

    def __getitem__(self, index: int) -> Tensor | StemsplitError:
        try:
            return self.crops[index]
        except StemsplitError as error:
            error.__cause__ = None  # which may not be picklable
            return error


def _collate(items: list[Tensor | StemsplitError]) -> Tensor | StemsplitError:
    crops = [item for item in items if isinstance(item, Tensor)]
    errors = [item for item in items if not isinstance(item, Tensor)]
    return errors[0] if errors else torch.stack(crops)


def _resample(crop: Tensor, length: int) -> Tensor:
    """`(S, C, N)` -> `(S, C, length)`: played faster or slower, pitch included."""
    if crop.shape[-1] == length:
        return crop
    flat = soxr.resample(crop.flatten(0, 1).T.numpy(), crop.shape[-1], length, "LQ")[:length]
    flat = np.pad(flat, ((0, length - len(flat)), (0, 0)))
    return torch.from_numpy(flat.T.copy()).reshape(*crop.shape[:2], length)


def _by_length(songs: Sequence[Multitrack]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Probabilities in proportion to the lengths, so that every second of the data counts the same."""
    lengths = np.array([song.length for song in songs], np.float64)
    chances: np.ndarray[tuple[int], np.dtype[np.float64]] = lengths / lengths.sum()
    return chances
