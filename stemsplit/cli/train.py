"""The command that trains a network on songs with known stems."""

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from stemsplit import signals
from stemsplit.cli.download import find_and_download
from stemsplit.cli.options import AcceptLicense, Device, RegistryFile
from stemsplit.models.registry import read_registry
from stemsplit.signals import Stopped

MAX_WORKERS = 8  # without --workers


def train(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Songs with known stems, laid out as MUSDB18 or not.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="Where weights and state go.")],
    recipe: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings in TOML; without it, the defaults.")
    ] = None,
    valid: Annotated[Path | None, typer.Option(metavar="DATA", help="Songs to validate on, never trained on.")] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="MODEL", help="Begin with the weights of a model, by name or path: fine-tune it."
        ),
    ] = None,
    own: RegistryFile = None,
    accept_license: AcceptLicense = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue after the last epoch in FOLDER.")] = False,
    epochs: Annotated[int | None, typer.Option(min=1, help="How many epochs in all, instead of the recipe's.")] = None,
    device: Device = "auto",
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that read and mix songs; by default, it depends on the device.")
    ] = None,
    validate_every: Annotated[int, typer.Option(min=1, help="Epochs from one validation to the next.")] = 1,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also write a log for TensorBoard.")] = False,
) -> None:
    """Train a network on songs with known stems.

    Stop it with Ctrl-C at any time, and continue with --resume. On several GPUs: torchrun --nproc-per-node gpu -m
    stemsplit train ...
    """
    from stemsplit.cli import console

    first = os.environ.get("RANK", "0") == "0"  # of the processes that torchrun has started; it reports for all
    messages = console.Messages(quiet=not first)
    local = find_and_download(read_registry(own), start, messages, accept_license=accept_license) if start else None
    with messages.loading("starting"):
        from stemsplit import devices
        from stemsplit.datasets.multitracks import find_songs
        from stemsplit.datasets.splits import split_songs
        from stemsplit.evaluation import scoring
        from stemsplit.training import fit
        from stemsplit.training.recipe import Recipe, read_recipe

        model = fit.load_start(local) if local else None
        settings = Recipe() if model is None else fit.finetuning_recipe(model)
        if recipe is not None:
            settings = read_recipe(recipe, settings)
        if epochs is not None:
            settings = replace(settings, epochs=epochs)
        split = split_songs(data, settings.stems, validate=valid is None)
        valid_songs = split.valid if valid is None else find_songs(valid, settings.stems)
        chosen = devices.choose(device)
        if workers is None:
            workers = 1 if chosen == "cpu" else min(MAX_WORKERS, os.cpu_count() or 1)
    messages.note(f"{len(split.train)} songs to train on, {len(valid_songs)} to validate on, device {chosen}")
    if split.unused:
        messages.note(f"not trained on: {', '.join(split.unused)} in {data}")
    try:
        with (
            messages.log_shown(),
            messages.training(settings.epochs, settings.steps) as progress,
            devices.memory_checked(chosen),
            signals.deferred(),  # let a step end before the loader is torn down
        ):
            run = partial(fit.fit, start=model, resume=resume, device=chosen, workers=workers)
            run = partial(run, validate_every=validate_every, tensorboard=tensorboard)
            for epoch in run(settings, split.train, valid_songs, output, on_step=progress.step):
                scores = _with_mean(scoring.mean_scores(epoch.scores)) if epoch.scores else {}
                progress.finish(epoch.number, epoch.loss, scores, epoch.seconds)
                if epoch.last and epoch.number < settings.epochs:
                    messages.note(f"ended early: no better validation in the last {settings.patience}")
    except Stopped as stop:
        command = shlex.join(["stemsplit", *sys.argv[1:], *([] if resume else ["--resume"])])
        saved = (output / fit.STATE).exists()
        stop.hint = f"continue with  {command}" if saved else "no epoch was finished, so there is nothing to resume"
        raise
    messages.note(f"curves: {output / fit.REPORT}")
    if first:
        console.write(str(output / (fit.BEST if (output / fit.BEST).exists() else fit.WEIGHTS)))


def _with_mean(sdr: Mapping[str, float]) -> dict[str, float]:
    from stemsplit.evaluation.scoring import mean_sdr

    return {**sdr, "mean": mean_sdr(sdr)}
