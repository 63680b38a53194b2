"""Running out of memory, told as what it is."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from stemsplit.errors import DeviceError
from stemsplit.training.recipe import Recipe


@contextmanager
def memory_checked(device: str, recipe: Recipe) -> Iterator[None]:
    """Turn running out of memory, on a device, on this machine or in a worker, into a DeviceError."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _too_small(device, recipe) from error
    except RuntimeError as error:
        if "allocate memory" in str(error):  # of PyTorch on CPUs, which has no class of its own for that
            raise _too_small("cpu", recipe) from error
        if "DataLoader worker" in str(error):
            told = "a process that reads songs was ended from outside, most likely because memory ran out"
            raise DeviceError(told, "use fewer --workers, or set a lower batch_size in the recipe") from error
        raise


def _too_small(device: str, recipe: Recipe) -> DeviceError:
    told = f"the {device} device has too little free memory for batches of {recipe.batch_size} crops"
    hint = "set a lower batch_size"
    if recipe.precision == "float32":
        hint += ', precision = "bfloat16"'
    return DeviceError(told, f"{hint} or a lower window_seconds in the recipe, or train a smaller network")
