"""A training that takes a second."""

from dataclasses import replace
from pathlib import Path

import torch
from support.networks import TINY_UNET
from torch import Tensor

from stemsplit.datasets.multitracks import Multitrack
from stemsplit.models import checkpoint
from stemsplit.training.data import Crops
from stemsplit.training.fit import WEIGHTS, Epoch, fit
from stemsplit.training.recipe import Recipe

RECIPE = Recipe(
    config=TINY_UNET,
    rate=8000,
    window_seconds=0.25,
    overlap_seconds=0.0625,
    epochs=4,
    steps=3,
    batch_size=2,
    average=0.9,
    warmup=0.1,
    seed=7,
)


def train(
    folder: Path, recipe: Recipe, songs: list[Multitrack], *, valid: tuple[Multitrack, ...] = (), resume: bool = False
) -> list[Epoch]:
    return list(fit(recipe, songs, valid, folder, workers=0, resume=resume))


def weights(folder: Path) -> dict[str, Tensor]:
    return checkpoint.load(folder / WEIGHTS).network.state_dict()


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def crop(crops: Crops, index: int, epoch: int = 0) -> Tensor:
    crops.epoch = epoch
    return crops[index]


PLAIN = replace(RECIPE, drop=0.0, gain_db=0.0, swap=0.0, mono=0.0)
