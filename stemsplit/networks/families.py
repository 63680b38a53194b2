"""Which families of networks there are, and how one is built; reading the list imports no torch.

The contract is the same for all of them: a module `networks/<family>.py` has a frozen dataclass `Config` (every field
can be written as JSON) and an `nn.Module` called `Network`, built as `Network(config, stems=S, channels=C)`, whose
`forward` maps a mixture `(B, C, N)` to stems `(B, S, C, N)`, float32, deterministic in eval mode, with no state kept
between calls. Buffers that no file has are computed on the CPU, even while a network is made without values, on the
meta device. A network that takes windows of several lengths has a method `input_length(n)`: how many samples it wants
to see, context included, to separate `n` of them.

A new family is one new file in this folder: every module is one, except those whose names begin with an underscore and
those in `_SHARED`.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stemsplit.errors import ModelError

if TYPE_CHECKING:
    from torch import nn

_SHARED = {"families", "masking"}


def families() -> list[str]:
    """Names of the families this version can build, sorted."""
    names = {module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])}
    return sorted(name for name in names - _SHARED if not name.startswith("_"))


def build(family: str, config: Mapping[str, Any], *, stems: int, channels: int) -> "nn.Module":
    """A network of `family` with fresh random weights, in training mode.

    Raises ModelError when the family is unknown, or when the configuration has unknown keys or impossible values.
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


def input_length(network: "nn.Module", length: int, usual: int) -> int:
    """How many samples `network` wants to see to separate `length` of them; `usual` is its window."""
    return int(network.input_length(length)) if hasattr(network, "input_length") else usual  # type: ignore[operator]
