"""Several processes that train one network together, as PyTorch's launcher, torchrun, starts them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import distributed

from stemsplit.errors import UsageError

T = TypeVar("T")

PATIENCE = timedelta(hours=2)  # how long one waits for the others, of which one may have a long song to score


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which of `size` processes this is; the first one has rank 0, and saves and reports for all."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this one speaks for all."""
        return self.rank == 0

    def mean(self, value: float) -> float:
        """The mean over all processes."""
        return sum(self.gather(value)) / self.size

    def gather(self, value: T) -> list[T]:
        """What each process has, in the order of their ranks."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values  # type: ignore[return-value]


def launched() -> Ranks:
    """What the launcher has told this process through the environment; one alone where there is no launcher."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ or "MASTER_ADDR" not in os.environ:
        return Ranks()
    return Ranks(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))


@contextmanager
def joined(device: str, batch_size: int) -> Iterator[Ranks]:
    """Meet the other processes, each on a GPU of its own.

    Raises UsageError when a batch cannot be shared out evenly, or there are more processes than GPUs.
    """
    ranks = launched()
    if batch_size % ranks.size:
        told = f"a batch of {batch_size} crops cannot be shared out evenly to {ranks.size} processes"
        raise UsageError(told, f"set batch_size to a multiple of {ranks.size}")
    if ranks.size == 1 or distributed.is_initialized():
        yield ranks
        return
    if device == "cuda":
        local = int(os.environ.get("LOCAL_RANK", ranks.rank))
        if local >= torch.cuda.device_count():
            told = f"there are {torch.cuda.device_count()} GPUs, and more processes than that on this machine"
            raise UsageError(told, "start as many as there are GPUs:  torchrun --nproc-per-node gpu ...")
        torch.cuda.set_device(local)
    distributed.init_process_group("nccl" if device == "cuda" else "gloo", timeout=PATIENCE)
    try:
        yield ranks
    finally:
        distributed.destroy_process_group()
