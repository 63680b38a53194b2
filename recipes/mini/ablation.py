"""What each augmentation is worth: the same short training with all of them, without each one in turn, with none.

    python recipes/mini/ablation.py DATA --valid DATA --recipe FILE --steps 1000 [--from MODEL] [--seeds 1 2]

The recipe sets the amount of each; those that it does not use are not tried. All runs of a seed begin with the same
weights. Prints the SDR of the songs to validate on as a table in Markdown. The spread over the seeds shows which
differences are significant; with few steps they are small.
"""

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from stemsplit import devices
from stemsplit.datasets.multitracks import Multitrack, find_songs
from stemsplit.evaluation.scoring import mean_scores, mean_sdr
from stemsplit.models import checkpoint
from stemsplit.models.checkpoint import Model
from stemsplit.training.fit import finetuning_recipe, fit
from stemsplit.training.recipe import Recipe, read_recipe

AUGMENTATIONS = (
    *("remix", "drop", "gain_db", "swap", "mono", "speed", "pitch", "tempo"),
    *("distort", "reverb", "polarity", "eq_db"),
)


def score(
    recipe: Recipe,
    songs: Sequence[Multitrack],
    valid: Sequence[Multitrack],
    device: str,
    workers: int,
    start: Model | None,
) -> dict[str, float]:
    """Train once; the mean SDR over the songs by stem, and over the stems, of the averaged weights."""
    with tempfile.TemporaryDirectory() as folder:
        (epoch,) = fit(recipe, songs, valid, Path(folder), device=device, workers=workers, start=start)
    means = mean_scores(epoch.scores)
    return {**means, "mean": mean_sdr(means)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--valid", type=Path, required=True)
    parser.add_argument("--recipe", type=Path, required=True)
    parser.add_argument("--from", dest="start", type=Path)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60.0, help="of each song to validate on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--device", default="auto", choices=devices.NAMES)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    start = checkpoint.load(arguments.start) if arguments.start else None
    recipe = read_recipe(arguments.recipe, finetuning_recipe(start) if start else Recipe())
    recipe = replace(recipe, epochs=1, steps=arguments.steps, patience=0)
    songs = find_songs(arguments.data, recipe.stems)
    limit = round(arguments.seconds * recipe.rate)
    valid = [replace(song, length=min(song.length, limit)) for song in find_songs(arguments.valid, recipe.stems)]
    tried = [name for name in AUGMENTATIONS if getattr(recipe, name)]
    cases = {"all of them": recipe}
    cases |= {f"without {name}": replace(recipe, **{name: 0.0}) for name in tried}
    cases["none"] = replace(recipe, **dict.fromkeys(tried, 0.0))
    device = devices.choose(arguments.device)
    columns = [*recipe.stems, "mean"]
    print(f"| {recipe.steps} steps of {recipe.batch_size} | {' | '.join(columns)} | spread of the mean |")
    print(f"|---|{'--:|' * (len(columns) + 1)}")
    for name, case in cases.items():
        runs = [
            score(replace(case, seed=seed), songs, valid, device, arguments.workers, start) for seed in arguments.seeds
        ]
        means = [statistics.mean(run[column] for run in runs) for column in columns]
        spread = max(run["mean"] for run in runs) - min(run["mean"] for run in runs)
        cells = [f"{mean:.2f}" for mean in means] + [f"{spread:.2f}" if len(runs) > 1 else "-"]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
