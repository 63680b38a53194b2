"""Where networks run."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from stemsplit.errors import DeviceError

NAMES = ("auto", "cpu", "cuda", "mps")


def choose(name: str) -> str:
    """The device to run on; "auto" is the first there is of cuda, mps and cpu.

    Raises DeviceError when the one that was asked for is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(device for device, usable in there.items() if usable)
    if name not in there:
        raise DeviceError(f"there is no device called {name!r}", f"one of {', '.join(NAMES)}")
    if not there[name]:
        raise DeviceError(f"PyTorch finds no {name} device on this machine", "use --device cpu, or leave it out")
    return name


def count_threads(jobs: int) -> int:
    """How many threads each of so many jobs has for itself on the processor."""
    return max(1, torch.get_num_threads() // jobs)


def use_threads(count: int) -> None:
    """Let what the calling thread computes on the processor have so many threads."""
    torch.set_num_threads(count)


@contextmanager
def memory_checked(device: str) -> Iterator[None]:
    """Turn running out of the device's memory into a DeviceError."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            f"the {device} device has too little free memory",
            "close other programs that use it, or use --device cpu",
        ) from error
