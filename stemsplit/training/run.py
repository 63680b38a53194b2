"""The state of a training run: weights, their average, optimizer and progress, saved to resume from."""

import json
import math
import pickle
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from stemsplit.errors import DatasetError, StemsplitError, UsageError
from stemsplit.files import replacing
from stemsplit.training.loss import compute
from stemsplit.training.ranks import Ranks
from stemsplit.training.recipe import Recipe, make_recipe
from stemsplit.wording import one_line

ALONE = Ranks()


class Run:
    """A network in training, with the average of its weights, its optimizer and its progress.

    Args:
        recipe: The settings.
        network: With the weights to begin with.
        device: "cpu", "cuda" or "mps".
        ranks: The processes that train together.

    Attributes:
        epoch: Epochs done.
        steps: Updates done.
        history: A row of figures for each epoch, as in `stemsplit.training.report`.
        network: The network.
        averaged: The exponential moving average of its weights.
        optimizer: Its optimizer.
    """

    def __init__(self, recipe: Recipe, network: nn.Module, device: str, ranks: Ranks = ALONE) -> None:
        self.recipe, self.device, self.ranks = recipe, device, ranks
        self.epoch = self.steps = 0
        self.history: list[dict[str, Any]] = []
        if ranks.size > 1 and device == "cuda":  # which CPUs do not have
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        self.network = network.to(device).train()
        average = get_ema_multi_avg_fn(recipe.average)  # type: ignore[no-untyped-call]
        self.averaged = AveragedModel(self.network, multi_avg_fn=average, use_buffers=True)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self.objective: nn.Module = _Objective(self.network, recipe.loss, len(recipe.stems))
        if ranks.size > 1:
            self.objective = DistributedDataParallel(self.objective)
        low = recipe.precision == "bfloat16" or (recipe.precision == "auto" and device == "cuda")
        self.autocast: Callable[[], AbstractContextManager[object]] = lambda: (
            torch.autocast(device, torch.bfloat16) if low else nullcontext()
        )

    def step(self, stems: Tensor) -> tuple[float, float]:
        """Update the weights from a batch.

        Args:
            stems: The true stems `(B, S, C, N)`, and what else is in the mixture, see `stemsplit.training.data.Crops`.

        Returns:
            The loss, and the norm of the gradient before clipping.

        Raises:
            DatasetError: The loss is not finite.
        """
        stems = stems.to(self.device, non_blocking=True)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        with self.autocast():
            loss = self.objective(stems)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip)
        self.optimizer.step()
        self.averaged.update_parameters(self.network)
        self.steps += 1
        value = self.ranks.mean(loss.item())
        if not math.isfinite(value):
            message = f"the loss became {value} in epoch {self.epoch + 1}"
            raise DatasetError(message, "lower learning_rate, or check the data")
        return value, norm.item()

    def learning_rate(self) -> float:
        """Return the learning rate of the next step."""
        recipe = self.recipe
        progress = (self.steps + 1) / (recipe.epochs * recipe.steps)
        rise = progress / max(recipe.warmup, 1e-9)
        level = 1.0
        if recipe.schedule == "trapezoid":
            level = (1 - progress) / max(recipe.cooldown, 1e-9)
        elif recipe.schedule == "cosine":
            level = 0.5 + 0.5 * math.cos(math.pi * max(progress - recipe.warmup, 0) / max(1 - recipe.warmup, 1e-9))
        return recipe.learning_rate * max(min(rise, 1.0, level), 0.0)

    def stale(self) -> int:
        """Return the number of validations since the best one."""
        scores = [row["score"] for row in self.history if row.get("score") is not None]
        return len(scores) - 1 - scores.index(max(scores)) if scores else 0

    def save(self, path: Path) -> None:
        """Save the state; the file appears complete or not at all.

        All processes must call this, and the first one writes.

        Raises:
            StemsplitError: The file cannot be written.
        """
        generators = self.ranks.gather(self._generators())
        if not self.ranks.first:
            return
        state = {
            "recipe": json.dumps(asdict(self.recipe)),
            "epoch": self.epoch,
            "steps": self.steps,
            "history": json.dumps(self.history),
            "generators": generators,
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        try:
            with replacing(path) as part:
                torch.save(state, part)
        except (OSError, RuntimeError) as error:
            message = f"cannot write {str(path)!r}: {one_line(error)}"
            raise StemsplitError(message, "check the folder and the disk", path=path) from error

    def restore(self, path: Path) -> None:
        """Continue from a saved state.

        Raises:
            UsageError: There is none, it is damaged, or from another recipe.
        """
        try:
            # To the CPU, where the states of random generators must be.
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError as error:
            message = f"there is no training run to resume at {str(path)!r}"
            raise UsageError(message, "leave out --resume to begin one", path=path) from error
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
            raise UsageError(f"{str(path)!r} is damaged", "begin again in another folder", path=path) from error
        saved = _as_saved(json.loads(state["recipe"]), path)
        current = _as_saved(asdict(self.recipe), path)
        changed = [key for key in current if key not in ("epochs", "patience") and saved[key] != current[key]]
        if changed:
            message = f"the run in {str(path.parent)!r} began with another {', '.join(changed)}"
            raise UsageError(message, "only epochs and patience can be changed later", path=path)
        self.epoch, self.steps = state["epoch"], state["steps"]
        self.history = json.loads(state.get("history", "[]"))
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        generators = state.get("generators", [])
        if self.ranks.rank < len(generators):
            self._set_generators(generators[self.ranks.rank])

    def _generators(self) -> dict[str, Tensor]:
        """The states of PyTorch's random generators, which dropout and others draw from."""
        states = {"cpu": torch.get_rng_state()}
        if self.device == "cuda":
            states["cuda"] = torch.cuda.get_rng_state()
        return states

    def _set_generators(self, states: Mapping[str, Tensor]) -> None:
        torch.set_rng_state(states["cpu"])
        if self.device == "cuda" and "cuda" in states:
            torch.cuda.set_rng_state(states["cuda"])


class _Objective(nn.Module):
    """The loss as a module, as `DistributedDataParallel` needs it."""

    def __init__(self, network: nn.Module, loss: str | Mapping[str, float], stems: int) -> None:
        super().__init__()
        self.network, self.loss, self.stems = network, loss, stems

    def forward(self, parts: Tensor) -> Tensor:
        return compute(self.loss, self.network, parts[:, : self.stems], parts[:, self.stems :])


def _as_saved(table: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Settings as they come back from JSON, with defaults for those that an older version did not have."""
    return asdict(make_recipe(json.loads(json.dumps(table)), str(path)))
