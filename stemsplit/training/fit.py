"""The training loop."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from stemsplit.datasets.multitracks import Multitrack, require_format
from stemsplit.errors import UsageError
from stemsplit.evaluation.scoring import SongScores, evaluate, mean_scores, mean_sdr
from stemsplit.files import sweep
from stemsplit.models import checkpoint
from stemsplit.models.checkpoint import Header, Model
from stemsplit.networks.masking import MaskNetwork
from stemsplit.separation.separator import Separator
from stemsplit.training.data import Crops
from stemsplit.training.events import EventLog
from stemsplit.training.loader import Loader
from stemsplit.training.loss import OF_MASKS
from stemsplit.training.memory import memory_checked
from stemsplit.training.ranks import Ranks, joined
from stemsplit.training.recipe import Recipe
from stemsplit.training.report import figures, write_report
from stemsplit.training.run import Run

WEIGHTS, BEST, STATE, REPORT = "model.safetensors", "best.safetensors", "state.pt", "report.html"


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch gave.

    number: from 1. loss: the mean. scores: of the validation, if there was one. seconds: how long it took.
    best: whether no epoch has had better scores. last: whether training ends with it.
    """

    number: int
    loss: float
    scores: tuple[SongScores, ...]
    seconds: float
    best: bool = False
    last: bool = False


def fit(
    recipe: Recipe,
    songs: Sequence[Multitrack],
    valid: Sequence[Multitrack],
    folder: Path,
    *,
    device: str = "cpu",
    workers: int = 1,
    start: Model | None = None,
    resume: bool = False,
    validate_every: int = 1,
    tensorboard: bool = False,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> Iterator[Epoch]:
    """Train, yielding after every epoch, when `folder` holds all there is so far.

    That is `model.safetensors` (averaged weights), `best.safetensors` (those of the epoch with the best mean SDR of the
    validation, if there is one), `state.pt` to go on from, and `report.html` with curves to look at. A process that
    is killed loses no more than the epoch that it was in. Started by torchrun, all processes train one network: each on
    its share of every batch, and of the songs to validate on.

    Args:
        songs, valid: what is learnt from, and what the averaged weights are scored on every `validate_every` epochs.
        start: a model whose weights to begin with, not with random ones; it must have the recipe's stems and shapes.
        resume: go on from `state.pt`; of its recipe only `epochs`, and with it the schedule, and `patience` may differ.
        device: "cpu", "cuda" or "mps". workers: processes that read and mix crops, for each that trains.
        tensorboard: write a log for TensorBoard into `folder` as well.
        on_step: called with the number of steps done in this epoch and the loss of the last.

    Raises DatasetError when the data does not fit the recipe, UsageError when `folder` cannot be resumed or is in use,
    or the recipe contradicts itself, ModelError when its network cannot be built, DeviceError when memory runs out.
    """
    with joined(device, recipe.batch_size) as ranks, memory_checked(device, recipe):
        torch.manual_seed(recipe.seed)
        header = make_header(recipe)
        crops = Crops(songs, recipe)
        require_format(valid, recipe.rate, recipe.channels)
        if recipe.patience and not valid:
            raise UsageError("patience needs songs to validate on", "name them with --valid, or set patience = 0")
        run = Run(recipe, _first_network(header, recipe, start), device, ranks)
        if resume:
            run.restore(folder / STATE)
        elif any((folder / name).exists() for name in (STATE, WEIGHTS)):
            raise UsageError(f"{str(folder)!r} already holds a training run", "add --resume, or choose another folder")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot make the folder {str(folder)!r}: {error.strerror}", "choose another") from error
        for name in (WEIGHTS, BEST, STATE, REPORT):
            sweep(folder / name)
        if ranks.rank and not resume:  # what chance decides, each decides for itself
            torch.manual_seed(recipe.seed + ranks.rank)
        loader = Loader(crops, ranks, workers=workers, pinned=device == "cuda")
        log = EventLog(folder) if tensorboard and ranks.first else None
        while run.epoch < recipe.epochs and not _done(run):
            began = time.monotonic()
            losses, norms = [], []
            for step, stems in enumerate(loader.epoch(run.epoch), start=1):
                loss, norm = run.step(stems)
                losses.append(loss)
                norms.append(norm)
                on_step(step, loss)
            run.epoch += 1
            averaged = Model(header, run.averaged.module.eval())
            due = bool(valid) and (run.epoch % validate_every == 0 or run.epoch == recipe.epochs)
            scores = _validate(averaged, valid, device, ranks) if due else ()
            score = mean_sdr(mean_scores(scores)) if scores else None
            run.history.append(
                {
                    "epoch": run.epoch,
                    "loss": sum(losses) / len(losses),
                    "gradient": sum(norms) / len(norms),
                    "learning_rate": run.optimizer.param_groups[0]["lr"],
                    "score": score if score == score else None,  # NaN where all true stems are silent
                    "sdr": {stem: sdr for stem, sdr in mean_scores(scores).items() if sdr == sdr},
                    "seconds": time.monotonic() - began,
                }
            )
            best = run.history[-1]["score"] is not None and not run.stale()
            if ranks.first:
                checkpoint.save(averaged, folder / WEIGHTS)
                if best:
                    checkpoint.save(averaged, folder / BEST)
                write_report(run.history, recipe, folder / REPORT)
            if log:
                log.add(run.steps, figures(run.history[-1]))
            run.save(folder / STATE)
            last = run.epoch == recipe.epochs or _done(run)
            row = run.history[-1]
            yield Epoch(run.epoch, row["loss"], scores, row["seconds"], best, last)


def make_header(recipe: Recipe) -> Header:
    """What the model will say of itself."""
    return Header(
        family=recipe.family,
        config=dict(recipe.config),
        stems=recipe.stems,
        rate=recipe.rate,
        channels=recipe.channels,
        length=recipe.length,
        hop=recipe.hop,
    )


def _done(run: Run) -> bool:
    """Whether it has not got better for as long as the recipe bears with."""
    return 0 < run.recipe.patience <= run.stale()


def _validate(model: Model, songs: Sequence[Multitrack], device: str, ranks: Ranks) -> tuple[SongScores, ...]:
    """Every process scores every n-th song; all get all scores, in the order of the songs."""
    own = list(evaluate(Separator(model, device=device), songs[ranks.rank :: ranks.size]))
    shares = ranks.gather(own)
    return tuple(shares[number % ranks.size][number // ranks.size] for number in range(len(songs)))


def _first_network(header: Header, recipe: Recipe, start: Model | None) -> nn.Module:
    theirs = start.header if start else header
    if theirs.family != header.family:
        told = f"the weights to begin with are of family {theirs.family!r}, the recipe's network of {header.family!r}"
        raise UsageError(told, "leave family and [config] out of the recipe: they come with the weights")
    if theirs.stems != header.stems:
        told = f"the weights to begin with give {', '.join(theirs.stems)}, the recipe {', '.join(header.stems)}"
        raise UsageError(told, "name the same stems in the same order")
    network = checkpoint.new_model(header).network
    losses = [recipe.loss] if isinstance(recipe.loss, str) else list(recipe.loss)
    odd = [loss for loss in losses if loss in OF_MASKS]
    if odd and not isinstance(network, MaskNetwork):
        told = f"the loss {odd[0]!r} is for networks that estimate masks, and those of family {header.family!r} do not"
        raise UsageError(told, 'choose another, for instance  loss = "waveform"')
    if start:
        try:
            network.load_state_dict(start.network.state_dict())
        except RuntimeError as error:
            hint = "leave [config] and channels out of the recipe: they come with the weights"
            raise UsageError("the weights to begin with do not fit the recipe's network", hint) from error
    return network
