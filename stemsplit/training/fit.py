"""The training loop, from random weights or from those of a model."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from stemsplit import signals
from stemsplit.datasets.multitracks import Multitrack, check_format
from stemsplit.errors import DeviceError, UsageError
from stemsplit.evaluation.scoring import SongScores, evaluate, mean_scores, mean_sdr
from stemsplit.files import sweep
from stemsplit.models import checkpoint
from stemsplit.models.checkpoint import Header, Model
from stemsplit.models.ensemble import load_ensemble
from stemsplit.models.registry import LocalModel
from stemsplit.networks.masking import MaskNetwork
from stemsplit.separation.options import SeparationOptions
from stemsplit.separation.separator import Separator
from stemsplit.training.data import Crops, Loader
from stemsplit.training.events import load_summary_writer
from stemsplit.training.loss import MASK_LOSSES
from stemsplit.training.ranks import Ranks, joined
from stemsplit.training.recipe import Recipe
from stemsplit.training.report import figures, write_report
from stemsplit.training.run import Run
from stemsplit.wording import one_line

WEIGHTS, BEST, STATE, REPORT = "model.safetensors", "best.safetensors", "state.pt", "report.html"


@dataclass(frozen=True, slots=True)
class Epoch:
    """The result of one epoch.

    Attributes:
        number: From 1.
        loss: The mean over its steps.
        scores: Of the songs to validate on; empty if the epoch was not validated.
        seconds: How long it took.
        best: Whether no epoch has had better scores.
        last: Whether training ends with it.
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
    """Train a network, and yield after every epoch, when everything is saved.

    `folder` then has `model.safetensors` (averaged weights), `best.safetensors` (those of the epoch with the best mean
    SDR on the songs to validate on, if there are any), `state.pt` to resume from, and `report.html` with curves. A
    process that is killed loses no more than the current epoch. Started by torchrun, all processes train one network:
    each on its part of every batch, and of the songs to validate on.

    Args:
        recipe: The settings.
        songs: Songs to learn from.
        valid: Songs to score the averaged weights on.
        folder: Where to save; it need not exist.
        device: "cpu", "cuda" or "mps".
        workers: Processes that read and mix crops, for each process that trains.
        start: A model with the recipe's stems and network, to begin with its weights instead of random ones.
        resume: Continue from `state.pt`. Only `epochs`, which changes the schedule, and `patience` of its recipe may
            differ.
        validate_every: Epochs from one validation to the next; the last epoch is always validated.
        tensorboard: Also write a log for TensorBoard into `folder`.
        on_step: Called with the number of steps done in this epoch, and the loss of the last one.

    Yields:
        The result of each epoch.

    Raises:
        DatasetError: The data does not fit the recipe.
        UsageError: `folder` cannot be resumed or is in use, the recipe contradicts itself, or TensorBoard is missing.
        ModelError: The recipe's network cannot be built.
        DeviceError: Memory runs out.
    """
    with ExitStack() as stack:
        ranks = stack.enter_context(joined(device, recipe.batch_size))
        stack.enter_context(_out_of_memory_explained(device, recipe))
        summary_writer = load_summary_writer() if tensorboard else None
        torch.manual_seed(recipe.seed)
        header = _header_of(recipe)
        crops = Crops(songs, recipe)
        check_format(valid, recipe.rate, recipe.channels)
        if recipe.patience and not valid:
            raise UsageError("patience needs songs to validate on", "name them with --valid, or set patience = 0")
        run = Run(recipe, _first_network(header, recipe, start), device, ranks)
        if resume:
            run.restore(folder / STATE)
        elif any((folder / name).exists() for name in (STATE, WEIGHTS)):
            hint = "add --resume, or choose another folder"
            raise UsageError(f"{str(folder)!r} already holds a training run", hint, path=folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            message = f"cannot make the folder {str(folder)!r}: {one_line(error)}"
            raise UsageError(message, "choose another one with --output", path=folder) from error
        for name in (WEIGHTS, BEST, STATE, REPORT):
            sweep(folder / name)
        if ranks.rank and not resume:  # random numbers, which dropout for instance draws, differ between processes
            torch.manual_seed(recipe.seed + ranks.rank)
        loader = Loader(crops, ranks, workers=workers, pinned=device == "cuda")
        log = stack.enter_context(summary_writer(str(folder))) if summary_writer and ranks.first else None
        while run.epoch < recipe.epochs and not _done(run):
            began = time.monotonic()
            losses, norms = [], []
            for step, stems in enumerate(loader.epoch(run.epoch), start=1):
                signals.check()
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
                for name, value in figures(run.history[-1]).items():
                    log.add_scalar(name, value, run.steps)
                log.flush()
            run.save(folder / STATE)
            last = run.epoch == recipe.epochs or _done(run)
            row = run.history[-1]
            yield Epoch(run.epoch, row["loss"], scores, row["seconds"], best, last)


def load_start(local: LocalModel) -> Model:
    """Load a model of any family to begin with.

    Raises:
        ModelError: As for `load_ensemble`.
        UsageError: The model has several networks.
    """
    name = local.spec.name
    if local.components:
        parts, kind = [part.spec.name for part in local.components], "chain" if local.spec.steps else "mean"
        raise UsageError(f"{name!r} is a {kind} of models", f"begin with one of them: {', '.join(parts)}", model=name)
    ensemble = load_ensemble(local)
    if len(ensemble.members) > 1:
        message = f"{name!r} has {len(ensemble.members)} networks, and only one network can be trained"
        where = f"; to list its files:  stemsplit models path {name}" if len(local.paths) > 1 else ""
        raise UsageError(message, f"begin with one of its networks, if they have separate files{where}", model=name)
    member, header = ensemble.members[0], ensemble.header
    # The model may list its stems in another order than its network.
    outputs = sorted(member.contributions, key=lambda share: share.output)
    return Model(replace(header, stems=tuple(header.stems[share.stem] for share in outputs)), member.network)


def finetuning_recipe(model: Model) -> Recipe:
    """Return the default recipe to fine-tune a model: its own network and windows, and few, small steps."""
    header: Header = model.header
    return replace(
        Recipe(),
        family=header.family,
        config=dict(header.config),
        stems=header.stems,
        rate=header.rate,
        channels=header.channels,
        window_seconds=header.length / header.rate,
        overlap_seconds=(header.length - header.hop) / header.rate,
        epochs=20,
        batch_size=4,
        learning_rate=1e-4,
        loss="magnitude" if isinstance(model.network, MaskNetwork) else "waveform",
    )


def _header_of(recipe: Recipe) -> Header:
    """The header of the model that a recipe describes."""
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
    """Whether the patience of the recipe is used up."""
    return 0 < run.recipe.patience <= run.stale()


def _validate(model: Model, songs: Sequence[Multitrack], device: str, ranks: Ranks) -> tuple[SongScores, ...]:
    """Score every n-th song in each process; return all scores in all of them, in the order of the songs."""
    separator = Separator(model, SeparationOptions(precision="full"), device=device)
    own = list(evaluate(separator, songs[ranks.rank :: ranks.size]))
    gathered = ranks.gather(own)
    return tuple(gathered[number % ranks.size][number // ranks.size] for number in range(len(songs)))


def _first_network(header: Header, recipe: Recipe, start: Model | None) -> nn.Module:
    """The recipe's network, with the weights to begin with."""
    initial = start.header if start else header
    if initial.family != header.family:
        message = (
            f"the weights to begin with are of family {initial.family!r}, the recipe's network of {header.family!r}"
        )
        raise UsageError(message, "leave family and [config] out of the recipe: they come with the weights")
    if initial.stems != header.stems:
        message = f"the weights to begin with give {', '.join(initial.stems)}, the recipe {', '.join(header.stems)}"
        raise UsageError(message, "name the same stems in the same order")
    network = checkpoint.new_model(header).network
    losses = [recipe.loss] if isinstance(recipe.loss, str) else list(recipe.loss)
    need_masks = [loss for loss in losses if loss in MASK_LOSSES]
    if need_masks and not isinstance(network, MaskNetwork):
        message = f"the loss {need_masks[0]!r} needs a network that estimates masks, unlike those of {header.family!r}"
        raise UsageError(message, 'choose another, for instance  loss = "waveform"')
    if start:
        try:
            network.load_state_dict(start.network.state_dict())
        except RuntimeError as error:
            hint = "leave [config] and channels out of the recipe: they come with the weights"
            raise UsageError("the weights to begin with do not fit the recipe's network", hint) from error
    return network


@contextmanager
def _out_of_memory_explained(device: str, recipe: Recipe) -> Iterator[None]:
    """Raise DeviceError when memory runs out, on the device, on this machine, or in a worker."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _too_little_memory(device, recipe) from error
    except RuntimeError as error:
        if "allocate memory" in str(error):  # PyTorch has no class for this on CPUs
            raise _too_little_memory("cpu", recipe) from error
        if "DataLoader worker" in str(error):
            message = "a worker process that reads songs was killed, most likely because memory ran out"
            raise DeviceError(message, "use fewer --workers, or set a lower batch_size in the recipe") from error
        raise


def _too_little_memory(device: str, recipe: Recipe) -> DeviceError:
    message = f"the {device} device has too little free memory for batches of {recipe.batch_size} crops"
    hint = "set a lower batch_size"
    if recipe.precision == "float32":
        hint += ', precision = "bfloat16"'
    return DeviceError(message, f"{hint} or a lower window_seconds in the recipe, or train a smaller network")
