"""The training loop."""

import json
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from stemsplit import checkpoint
from stemsplit.checkpoint import Header, Model
from stemsplit.errors import DatasetError, UsageError
from stemsplit.evaluation import SongScores, evaluate
from stemsplit.separation import Separator
from stemsplit.songs import Song, require_format
from stemsplit.training.crops import Crops
from stemsplit.training.loss import LOSSES
from stemsplit.training.recipe import Recipe, make_recipe

WEIGHTS, STATE = "model.safetensors", "state.pt"


@dataclass(frozen=True, slots=True)
class Epoch:
    """What one epoch gave: its number (from 1), the mean loss, validation scores (if any), and how long it took."""

    number: int
    loss: float
    scores: tuple[SongScores, ...]
    seconds: float


def fit(
    recipe: Recipe,
    songs: Sequence[Song],
    valid: Sequence[Song],
    folder: Path,
    *,
    device: str = "cpu",
    workers: int = 1,
    start: Path | None = None,
    resume: bool = False,
    validate_every: int = 1,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> Iterator[Epoch]:
    """Train, yielding after every epoch, when `folder` holds `model.safetensors` (averaged weights) and `state.pt`.

    Args:
        songs, valid: what is learnt from, and what the averaged weights are scored on every `validate_every` epochs.
        start: a model whose weights to begin with, not with random ones; it must have the recipe's stems and shapes.
        resume: go on from `state.pt`; only `epochs` (and with it the schedule) may differ from its recipe.
        device: "cpu", "cuda" or "mps". workers: processes that read and mix crops.
        on_step: called with the number of steps done in this epoch and the loss of the last.

    Raises DatasetError when the data does not fit the recipe, UsageError when `folder` cannot be resumed or is in use,
    ModelError when the recipe's network cannot be built.
    """
    torch.manual_seed(recipe.seed)
    header = Header(
        family=recipe.family,
        config=dict(recipe.config),
        stems=recipe.stems,
        rate=recipe.rate,
        channels=recipe.channels,
        length=recipe.length,
        hop=recipe.hop,
    )
    crops = Crops(songs, recipe)
    require_format(valid, recipe.rate, recipe.channels)
    run = _Run(recipe, _first_network(header, start), device)
    if resume:
        run.restore(folder / STATE)
    elif (folder / STATE).exists() or (folder / WEIGHTS).exists():
        raise UsageError(f"{str(folder)!r} already holds a training run", "add --resume, or choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    loader = DataLoader(crops, recipe.batch_size, num_workers=workers, pin_memory=device == "cuda")
    while run.epoch < recipe.epochs:
        began = time.monotonic()
        crops.epoch = run.epoch
        total = 0.0
        for step, stems in enumerate(loader, start=1):
            loss = run.step(stems)
            total += loss
            on_step(step, loss)
        run.epoch += 1
        averaged = Model(header, run.averaged.module.eval())
        due = bool(valid) and (run.epoch % validate_every == 0 or run.epoch == recipe.epochs)
        scores = tuple(evaluate(Separator(averaged, device=device), valid)) if due else ()
        checkpoint.save(averaged, folder / WEIGHTS)
        run.save(folder / STATE)
        yield Epoch(run.epoch, total / len(loader), scores, time.monotonic() - began)


def _first_network(header: Header, start: Path | None) -> nn.Module:
    network = checkpoint.new_model(header).network
    if start is None:
        return network
    model = checkpoint.load(start)
    if model.header.stems != header.stems:
        told = f"{str(start)!r} gives {', '.join(model.header.stems)}, the recipe {', '.join(header.stems)}"
        raise UsageError(told, "name the same stems in the same order")
    try:
        network.load_state_dict(model.network.state_dict())
    except RuntimeError as error:
        hint = "give the recipe the family and config that the weights have"
        raise UsageError(f"the weights in {str(start)!r} do not fit the recipe's network", hint) from error
    return network


class _Run:
    """All that changes while training, and goes to disk to be resumed."""

    def __init__(self, recipe: Recipe, network: nn.Module, device: str) -> None:
        self.recipe, self.device, self.epoch = recipe, device, 0
        self.network = network.to(device).train()
        average = get_ema_multi_avg_fn(recipe.average)  # type: ignore[no-untyped-call]
        self.averaged = AveragedModel(self.network, multi_avg_fn=average, use_buffers=True)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.steps = 0
        low = recipe.precision == "bfloat16" or (recipe.precision == "auto" and device == "cuda")
        self.autocast: Callable[[], AbstractContextManager[object]] = lambda: (
            torch.autocast(device, torch.bfloat16) if low else nullcontext()
        )

    def step(self, stems: Tensor) -> float:
        """One update from a batch `(B, S, C, N)`; returns the loss."""
        stems = stems.to(self.device, non_blocking=True)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * self._schedule()
        with self.autocast():
            loss = LOSSES[self.recipe.loss](self.network, stems)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.averaged.update_parameters(self.network)
        self.steps += 1
        value = loss.item()
        if not value < float("inf"):
            reason = f"the loss became {value} in epoch {self.epoch + 1}"
            raise DatasetError(reason, "lower learning_rate, check the data")
        return value

    def _schedule(self) -> float:
        """Share of the highest learning rate: up, level, then linearly down to zero."""
        progress = (self.steps + 1) / (self.recipe.epochs * self.recipe.steps)
        rise = progress / max(self.recipe.warmup, 1e-9)
        fall = (1 - progress) / max(self.recipe.cooldown, 1e-9)
        return max(min(rise, 1.0, fall), 0.0)

    def save(self, path: Path) -> None:
        partial = path.with_name(path.name + ".part")
        torch.save(
            {
                "recipe": json.dumps(asdict(self.recipe)),
                "epoch": self.epoch,
                "steps": self.steps,
                "network": self.network.state_dict(),
                "averaged": self.averaged.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            },
            partial,
        )
        partial.replace(path)

    def restore(self, path: Path) -> None:
        try:
            state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
        except FileNotFoundError as error:
            hint = "leave --resume out to begin one"
            raise UsageError(f"there is no training run to resume at {str(path)!r}", hint) from error
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
            raise UsageError(f"{str(path)!r} is damaged", "begin again in another folder") from error
        began = _as_saved(json.loads(state["recipe"]), path)
        now = _as_saved(asdict(self.recipe), path)
        changed = [key for key in now if key != "epochs" and began[key] != now[key]]
        if changed:
            reason = f"the run in {str(path.parent)!r} began with another {', '.join(changed)}"
            raise UsageError(reason, "only epochs can be changed later")
        self.epoch, self.steps = state["epoch"], state["steps"]
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])


def _as_saved(table: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Settings as they come back from JSON, those that an older version did not know at their defaults."""
    return asdict(make_recipe(json.loads(json.dumps(table)), str(path)))
