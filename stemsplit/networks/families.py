"""The network families: the list of them, how to build one, and the contract that all of them keep.

The contract
------------
A family is a module `stemsplit/networks/<family>.py` with two classes:

- `Config`, a frozen dataclass of everything that shapes the network. Its values can be written as JSON, as they are
  stored in the header of every file of weights: once published, a field keeps its name and its meaning. Its
  `__post_init__` raises ValueError for impossible values; headers come from untrusted files, so it also bounds sizes.
- `Network`, a `torch.nn.Module` that is built as `Network(config, stems=S, channels=C)` and whose `forward` maps a
  mixture `(B, C, N)` to stems `(B, S, C, N)`, both float32.

In eval mode the output is deterministic, an example does not depend on the others in its batch, and no state is kept
between calls. The input is not modified.

Files are checked against a network built under `torch.device("meta")`, and their weights are then assigned to it. A
buffer that is not saved (`persistent=False`) must hold its values even then: compute it with `device="cpu"`.

A network that can leave out stems takes `stem_indices` as a second argument, as `masking.MaskNetwork` does: the indices
of those to return, in ascending order. One whose last stem is what the others leave of the mixture has an attribute
`remainder` that is true.

A network that needs context around a window, or that takes certain lengths only, has a method `input_length(n)`: the
samples that it needs to separate n of them, which are in their centre. It is non-decreasing. A result below n means
that the network cannot take n samples at once; a model with such windows is refused.

A network whose author has trained it on songs that were standardized as a whole, and runs it on such, has an attribute
`standardized = True`: it is given songs of zero mean and unit deviation, and its stems are scaled back (see
`stemsplit.dsp.level`). That is how all versions of Demucs are run; those of Spleeter and our own U-Net get songs as
they are.

Adding a family
---------------
1. Write the module. If the network estimates masks, inherit `stemsplit.networks.masking.MaskNetwork`, implement
   `masks`, and add the name to `MASK_FAMILIES`. Modules whose names begin with an underscore are not families.
2. Run tests/networks/test_families.py, which holds every family to this contract. Add a small configuration to its
   `TINY` if the default one is slow.
3. If the network exists elsewhere, test that the same weights give the same stems (see tests/networks/test_demucs.py).
4. To run weights published in another format, teach `stemsplit.models.headers` to read what they say of themselves.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stemsplit.errors import ModelError

if TYPE_CHECKING:  # listing the families must not import torch
    from torch import nn

MASK_FAMILIES = ("spleeter", "unet")  # families whose networks estimate masks, known without importing them
_NOT_FAMILIES = {"families", "masking"}


def families() -> list[str]:
    """Names of the families that this version can build, sorted."""
    names = {module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])}
    return sorted(name for name in names - _NOT_FAMILIES if not name.startswith("_"))


def build(family: str, config: Mapping[str, Any], *, stems: int, channels: int) -> "nn.Module":
    """Build a network with random weights, in training mode.

    Args:
        family: One of `families()`.
        config: Fields of the family's `Config`; the others have their defaults.
        stems: S, the number of stems.
        channels: C, of the mixture and of each stem.

    Returns:
        The network: mixture `(B, C, N)` -> stems `(B, S, C, N)`.

    Raises:
        ModelError: The family or a setting is unknown, or a value is impossible.
    """
    if family not in families():
        raise ModelError(f"unknown network family {family!r}", f"this version knows {', '.join(families())}")
    module = importlib.import_module(f"stemsplit.networks.{family}")
    unknown = set(config) - {field.name for field in fields(module.Config)}
    if unknown:
        raise ModelError(f"network family {family!r} has no setting {', '.join(sorted(unknown))}")
    try:
        network = module.Network(module.Config(**config), stems=stems, channels=channels)
    except (TypeError, ValueError, LookupError, ArithmeticError, RuntimeError, MemoryError) as error:
        raise ModelError(f"network family {family!r} cannot be built with these settings: {error}") from error
    return network  # type: ignore[no-any-return]


def selects_stems(network: "nn.Module") -> bool:
    """Whether a network can compute only some of its stems."""
    return "stem_indices" in inspect.signature(network.forward).parameters


def input_length(network: "nn.Module", length: int, default: int) -> int:
    """How many samples a network needs to separate `length` of them, context included.

    Args:
        network: Of any family.
        length: Samples to separate.
        default: The result for a network without a method `input_length`, which takes any input: its window.

    Returns:
        Samples.
    """
    return int(network.input_length(length)) if hasattr(network, "input_length") else default  # type: ignore[operator]


def is_standardized(network: "nn.Module") -> bool:
    """Whether a network expects songs of zero mean and unit deviation."""
    return bool(getattr(network, "standardized", False))
