"""How many training crops are read, augmented and mixed per second. A GPU that can train on more has to wait.

    python benchmarks/training_data.py DATA [--recipe FILE] [--workers 0 1 2] [--seconds 10]

The first batches are not counted, as the workers have to start.
"""

import argparse
import time
from dataclasses import replace
from itertools import chain, count
from pathlib import Path

import torch

from stemsplit.datasets.splits import split_songs
from stemsplit.training.data import Crops, Loader
from stemsplit.training.ranks import Ranks
from stemsplit.training.recipe import Recipe, read_recipe

WARM_UP_BATCHES = 4  # for each worker


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--recipe", type=Path)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    recipe = Recipe() if arguments.recipe is None else read_recipe(arguments.recipe)
    recipe = replace(recipe, batch_size=4)
    start = time.perf_counter()
    songs = split_songs(arguments.data, recipe.stems).train
    print(f"{len(songs)} songs listed in {time.perf_counter() - start:.2f} s")
    for workers in arguments.workers:
        loader = Loader(Crops(songs, recipe), Ranks(), workers=workers)
        batches = chain.from_iterable(loader.epoch(epoch) for epoch in count())
        for _ in range(WARM_UP_BATCHES * max(workers, 1)):
            next(batches)
        start, crops = time.perf_counter(), 0
        while time.perf_counter() - start < arguments.seconds:
            crops += len(next(batches))
        seconds = time.perf_counter() - start
        print(f"{workers} workers: {crops / seconds:.1f} crops/s of {recipe.window_seconds:g} s")


if __name__ == "__main__":
    main()
