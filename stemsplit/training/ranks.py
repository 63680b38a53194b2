"""Several processes that train one network together, as torchrun starts them."""

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

TIMEOUT = timedelta(hours=2)  # for the other processes, one of which may have a long song to score


@dataclass(frozen=True, slots=True)
class Ranks:
    """The position of this process among those that train together.

    Attributes:
        rank: From 0; process 0 saves and reports for all.
        size: Number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process saves and reports for all."""
        return self.rank == 0

    def mean(self, value: float) -> float:
        """Return the mean of a value over all processes."""
        return sum(self.gather(value)) / self.size

    def gather(self, value: T) -> list[T]:
        """Return the value of each process, by rank."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        distributed.all_gather_object(values, value)
        return values  # type: ignore[return-value]


def launched_ranks() -> Ranks:
    """Return the position that torchrun set in the environment of this process, or that of a single process."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ or "MASTER_ADDR" not in os.environ:
        return Ranks()
    return Ranks(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))


@contextmanager
def joined(device: str, batch_size: int) -> Iterator[Ranks]:
    """Join the other processes within the block; with CUDA, each process takes its own GPU.

    Args:
        device: "cpu", "cuda" or "mps".
        batch_size: Crops in a batch of all processes together.

    Yields:
        The position of this process.

    Raises:
        UsageError: A batch cannot be divided evenly, or there are more processes than GPUs.
    """
    ranks = launched_ranks()
    if batch_size % ranks.size:
        message = f"a batch of {batch_size} crops cannot be divided evenly among {ranks.size} processes"
        raise UsageError(message, f"set batch_size to a multiple of {ranks.size}")
    if ranks.size == 1 or distributed.is_initialized():
        yield ranks
        return
    if device == "cuda":
        local = int(os.environ.get("LOCAL_RANK", ranks.rank))
        if local >= torch.cuda.device_count():
            message = f"there are more processes than GPUs on this machine, which has {torch.cuda.device_count()}"
            raise UsageError(message, "start one process for each GPU:  torchrun --nproc-per-node gpu ...")
        torch.cuda.set_device(local)
    distributed.init_process_group("nccl" if device == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield ranks
    finally:
        distributed.destroy_process_group()
