"""Models as they are run: one network or a bag of several, each with its share in every stem.

A bag may have a network for every stem, or weigh what several networks give for the same one.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

from stemsplit import checkpoint
from stemsplit.checkpoint import Header, Model
from stemsplit.errors import ModelError, UsageError
from stemsplit.networks import seen_by


@dataclass(frozen=True, slots=True)
class Member:
    """A network in a bag.

    Args:
        shares: for which of the bag's stems, which of the network's stems counts how much.
        length: samples of its window.
        weights: what the network has to be given before it runs, when it serves other members of the bag as well.
    """

    network: nn.Module
    shares: tuple[tuple[int, int, float], ...]
    length: int
    weights: Mapping[str, Tensor] | None = None

    def room(self, length: int) -> int:
        """How many samples the network wants to see to separate `length` of them."""
        return seen_by(self.network, length, self.length)

    def ready(self) -> nn.Module:
        """The network with this member's weights in it."""
        if self.weights is not None:
            self.network.load_state_dict(self.weights)
        return self.network


@dataclass(frozen=True, slots=True)
class Bag:
    """A model that is ready to run; `header` says what goes in, which stems come out, and in which windows."""

    header: Header
    members: tuple[Member, ...]

    def room(self, length: int) -> int:
        """How many samples its networks want to see, at most, to separate `length` of them."""
        return max(member.room(length) for member in self.members)


def bag_of(model: Model) -> Bag:
    """The bag with one network in it."""
    shares = tuple((stem, stem, 1.0) for stem in range(len(model.header.stems)))
    return Bag(model.header, (Member(model.network, shares, model.header.length),))


def load_bag(
    paths: Sequence[Path], gives: Sequence[Sequence[str]], *, stems: Sequence[str] = (), device: str = "cpu"
) -> Bag:
    """A model of one file or of several networks.

    Args:
        gives: the stems that each file is for; none for all it has.
        stems: those that are wanted; all by default. Networks without a share in them are not loaded.

    Raises ModelError as `checkpoint.load` does, and when the networks do not go together or lack a stem; UsageError
    when nothing gives a stem that is wanted.
    """
    parts = [_Part.of(path, names) for path, names in zip(paths, gives, strict=True)]
    first = parts[0].header
    for part, path in zip(parts, paths, strict=True):
        same = replace(part.header, family=first.family, config=first.config, stems=first.stems, notes=first.notes)
        if same != first:
            raise ModelError(f"{str(path)!r} and {str(paths[0])!r} are not for the same audio", checkpoint.DAMAGED)
    known = list(dict.fromkeys(stem for part in parts for stem in part.shares))
    if missing := [stem for stem in stems if stem not in known]:
        raise UsageError(f"the model has no stem {missing[0]!r}", f"its stems are {', '.join(known)}")
    wanted = tuple(stem for stem in known if stem in (stems or known))
    needed = [part for part in parts if any(part.shares.get(stem) for stem in wanted)]
    return Bag(replace(first, stems=wanted), tuple(_members(needed, wanted, device)))


@dataclass(frozen=True, slots=True)
class _Part:
    """A network before its weights are read; `shares` by the name of the stem."""

    header: Header
    shares: Mapping[str, float]
    weights: Callable[[], dict[str, Tensor]]

    @classmethod
    def of(cls, path: Path, gives: Sequence[str]) -> "_Part":
        header = checkpoint.read_header(path)
        if missing := [stem for stem in gives if stem not in header.stems]:
            raise ModelError(f"{str(path)!r} does not give {missing[0]!r}", f"it gives {', '.join(header.stems)}")
        return cls(header, dict.fromkeys(gives or header.stems, 1.0), lambda: checkpoint.read(path)[1])

    @property
    def shape(self) -> str:
        """Equal for networks that could have each other's weights."""
        return json.dumps([self.header.family, self.header.config, len(self.header.stems)])


def _members(parts: Sequence[_Part], wanted: Sequence[str], device: str) -> list[Member]:
    """Networks of the same shape are one on a CPU, where half precision is a way to keep weights, not to compute."""
    totals = {stem: sum(part.shares.get(stem, 0.0) for part in parts) for stem in wanted}
    shapes = [part.shape for part in parts]
    networks: dict[str, nn.Module] = {}
    members = []
    for part in parts:
        shares = tuple(
            (wanted.index(stem), part.header.stems.index(stem), share / totals[stem])
            for stem, share in part.shares.items()
            if stem in wanted and share
        )
        shared = device == "cpu" and shapes.count(part.shape) > 1
        network = networks.get(part.shape) if shared else None
        if network is None:
            network = networks[part.shape] = checkpoint.new_model(part.header).network.to(device).eval()
        weights = part.weights()
        if not shared:
            network.load_state_dict(weights)
        members.append(Member(network, shares, part.header.length, weights if shared else None))
    return members
