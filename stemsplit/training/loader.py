"""Batches of crops, made by processes of their own while the network computes."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from stemsplit.errors import StemsplitError
from stemsplit.training.data import Crops
from stemsplit.training.ranks import Ranks

READY_BATCHES = 2  # for each worker, made before they are asked for


class Loader:
    """Epoch by epoch the batches `(B, S, C, length)` that are for this process; all of them are for all together.

    Args:
        workers: processes that read and mix; 0 for none but this one. They live until the loader is forgotten.
        pinned: put the batches where a GPU can fetch them by itself.
    """

    def __init__(self, crops: Crops, ranks: Ranks, *, workers: int = 0, pinned: bool = False) -> None:
        self._order = _Order(crops.recipe.steps, crops.recipe.batch_size, ranks)
        self._loader: DataLoader[Tensor | StemsplitError] = DataLoader(
            _Guarded(crops),
            batch_sampler=self._order,
            num_workers=workers,
            pin_memory=pinned,
            persistent_workers=workers > 0,
            prefetch_factor=READY_BATCHES if workers else None,
            collate_fn=_collate,
        )

    def epoch(self, number: int) -> Iterator[Tensor]:
        """The batches of an epoch, counted from 0. Raises DatasetError when a song cannot be read."""
        self._order.epoch = number
        for batch in self._loader:
            if isinstance(batch, StemsplitError):
                raise batch
            yield batch


class _Order(Sampler[list[int]]):
    """Which crops are in each batch of an epoch; of a batch every process has every n-th."""

    def __init__(self, steps: int, batch_size: int, ranks: Ranks) -> None:
        self.steps, self.batch_size, self.ranks, self.epoch = steps, batch_size, ranks, 0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        first = self.epoch * self.steps * self.batch_size
        for start in range(first, first + self.steps * self.batch_size, self.batch_size):
            yield list(range(start + self.ranks.rank, start + self.batch_size, self.ranks.size))


class _Guarded(Dataset[Tensor | StemsplitError]):
    """Gives refusals instead of raising them: from a worker, they would come wrapped in its traceback."""

    def __init__(self, crops: Crops) -> None:
        self.crops = crops

    def __getitem__(self, index: int) -> Tensor | StemsplitError:
        try:
            return self.crops[index]
        except StemsplitError as error:
            error.__cause__ = None  # what it came from need not be fit to travel
            return error


def _collate(items: list[Tensor | StemsplitError]) -> Tensor | StemsplitError:
    crops = [item for item in items if isinstance(item, Tensor)]
    refused = [item for item in items if not isinstance(item, Tensor)]
    return refused[0] if refused else torch.stack(crops)
