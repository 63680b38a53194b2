"""The command that trains a network on songs with known stems."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from stemsplit.cli.options import Device
from stemsplit.interruption import Stopped


def train(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="A folder with one folder of stems for each song.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where weights and state go.")],
    recipe: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings in TOML; without it, the defaults.")
    ] = None,
    valid: Annotated[Path | None, typer.Option(metavar="DATA", help="Songs to validate on, never trained on.")] = None,
    start: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="Begin with these weights, not with random ones.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last epoch in FOLDER.")] = False,
    epochs: Annotated[int | None, typer.Option(min=1, help="How many in all, instead of the recipe's.")] = None,
    device: Device = "auto",
    workers: Annotated[int, typer.Option(min=0, help="Processes that read and mix the songs.")] = 1,
    validate_every: Annotated[int, typer.Option(min=1, help="Validate after every so many epochs.")] = 1,
) -> None:
    """Train a network on songs with known stems.

    Stop it with Ctrl-C at any time, and go on with --resume.
    """
    from stemsplit import console

    messages = console.Messages()
    with messages.progress("starting"):
        from stemsplit import devices, evaluation
        from stemsplit.songs import find_songs
        from stemsplit.training import fit
        from stemsplit.training.recipe import Recipe, load_recipe

        settings = Recipe() if recipe is None else load_recipe(recipe)
        if epochs is not None:
            settings = replace(settings, epochs=epochs)
        songs = find_songs(data, settings.stems)
        valid_songs = [] if valid is None else find_songs(valid, settings.stems)
        chosen = devices.choose(device)
    messages.note(f"{len(songs)} songs to train on, {len(valid_songs)} to validate on, device {chosen}")
    try:
        with messages.training(settings.epochs, settings.steps) as progress, devices.memory_checked(chosen):
            run = partial(fit.fit, start=start, resume=resume, device=chosen, workers=workers)
            on_step = progress.step
            for epoch in run(settings, songs, valid_songs, output, validate_every=validate_every, on_step=on_step):
                scores = _with_mean(evaluation.mean_scores(epoch.scores)) if epoch.scores else {}
                progress.finish(epoch.number, epoch.loss, scores, epoch.seconds)
    except Stopped as stop:
        command = shlex.join(["stemsplit", *sys.argv[1:], *([] if resume else ["--resume"])])
        saved = (output / fit.STATE).exists()
        stop.hint = f"go on with  {command}" if saved else "no epoch was finished, so there is nothing to go on from"
        raise
    console.write(str(output / fit.WEIGHTS))


def _with_mean(sdr: Mapping[str, float]) -> dict[str, float]:
    from stemsplit.evaluation import mean_sdr

    return {**sdr, "mean": mean_sdr(sdr)}
