"""Models as they are run: one network or a bag of several, each with its share in every stem.

A bag may have a network for every stem, or weigh what several networks give for the same one. Its networks are in a
file each, or all in one.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from stemsplit.errors import ModelError, UsageError
from stemsplit.models import checkpoint, conversion, headers
from stemsplit.models.checkpoint import Header, Model
from stemsplit.models.registry import ONNX
from stemsplit.networks.families import input_length
from stemsplit.networks.masking import MaskNetwork

MOST_SHARE = 1e6


@dataclass(frozen=True, slots=True)
class EnsembleMember:
    """A network in a bag.

    Args:
        shares: for which of the bag's stems, which of those that the network gives counts how much.
        length: samples of its window.
        weights: what the network has to be given before it runs, when it serves other members of the bag as well.
        wanted: the numbers of the stems that a network of masks is to give, if not all.
    """

    network: nn.Module
    shares: tuple[tuple[int, int, float], ...]
    length: int
    weights: Mapping[str, Tensor] | None = None
    wanted: tuple[int, ...] | None = None

    def input_length(self, length: int) -> int:
        """How many samples the network wants to see to separate `length` of them."""
        return input_length(self.network, length, self.length)

    def ready(self, *, wiener: int = 0) -> Callable[[Tensor], Tensor]:
        """The network with this member's weights in it: mixtures `(B, C, N)` -> stems `(B, S, C, N)`.

        wiener: how often what a network of masks gives is refined by Wiener filtering.
        """
        if self.weights is not None:
            self.network.load_state_dict(self.weights)
        options = {name: value for name, value in (("stem_indices", self.wanted), ("wiener", wiener)) if value}
        return partial(self.network, **options) if options else self.network


@dataclass(frozen=True, slots=True)
class Ensemble:
    """A model that is ready to run; `header` says what goes in, which stems come out, and in which windows.

    `whole` says whether these are all the stems that its networks give.
    """

    header: Header
    members: tuple[EnsembleMember, ...]
    complete: bool = True

    @property
    def masks_sum_to_one(self) -> bool:
        """Whether the stems are masked parts of the mixture that add up to it, but for rounding and resampling."""
        network = self.members[0].network
        return (
            self.complete and len(self.members) == 1 and isinstance(network, MaskNetwork) and network.masks_sum_to_one
        )

    def input_length(self, length: int) -> int:
        """How many samples its networks want to see, at most, to separate `length` of them."""
        return max(member.input_length(length) for member in self.members)

    def check_wiener(self, iterations: int) -> None:
        """Raise UsageError if Wiener filtering cannot refine the stems of its networks."""
        if iterations and not all(isinstance(member.network, MaskNetwork) for member in self.members):
            raise UsageError("only models that estimate masks can be refined by Wiener filtering")


def ensemble_of(model: Model) -> Ensemble:
    """The bag with one network in it."""
    shares = tuple((stem, stem, 1.0) for stem in range(len(model.header.stems)))
    return Ensemble(model.header, (EnsembleMember(model.network, shares, model.header.length),))


def load_ensemble(
    paths: Sequence[Path],
    gives: Sequence[Sequence[str]],
    *,
    config: Mapping[str, Any] | None = None,
    stems: Sequence[str] = (),
    device: str = "cpu",
    shared: bool = True,
) -> Ensemble:
    """A model of one file or of several networks.

    Args:
        gives: the stems that each file is for; none for all it has.
        config: settings of the network that ONNX files are for, if they are not its usual ones.
        stems: those that are wanted; all by default. Networks without a share in them are not loaded.
        shared: on a CPU, let networks of the same shape be one, which is given the weights of each in turn; it can
            then run in one thread only.

    Raises ModelError as `checkpoint.load` does, and when the networks do not go together or lack a stem; UsageError
    when nothing gives a stem that is wanted.
    """
    if any(path.suffix == ONNX for path in paths):
        paths, gives = [conversion.convert(paths, gives, config or {})], [()]
    parts = [part for path, names in zip(paths, gives, strict=True) for part in _parts(path, names)]
    first = parts[0].header
    for part in parts:
        same = replace(part.header, family=first.family, config=first.config, stems=first.stems, notes=first.notes)
        if same != first:
            named = " and ".join(dict.fromkeys(repr(str(path)) for path in (paths[0], part.path)))
            raise ModelError(f"the networks in {named} are not for the same audio", checkpoint.DAMAGED)
    known = list(dict.fromkeys(stem for part in parts for stem in part.shares))
    if missing := [stem for stem in stems if stem not in known]:
        raise UsageError(f"the model has no stem {missing[0]!r}", f"its stems are {', '.join(known)}")
    wanted = tuple(stem for stem in known if stem in (stems or known))
    complete = {stem for part in parts for stem in part.header.stems} == set(wanted)
    needed = [part for part in parts if any(part.shares.get(stem) for stem in wanted)]
    return Ensemble(
        replace(first, stems=wanted),
        tuple(_members(needed, wanted, device, shared and device == "cpu")),
        complete,
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """A network before its weights are read: `shares` by the name of the stem, `prefix` of its weights in the file."""

    path: Path
    header: Header
    shares: Mapping[str, float]
    prefix: str = ""

    @property
    def shape(self) -> str:
        """Equal for networks that could have each other's weights."""
        return json.dumps([self.header.family, self.header.config, len(self.header.stems)])


def _parts(path: Path, gives: Sequence[str]) -> list[_Part]:
    """The networks in a file."""
    with checkpoint.opened(path) as file:
        metadata = file.metadata() or {}
        if "signatures" not in metadata:
            header = checkpoint.parse_header(metadata)
            if missing := [stem for stem in gives if stem not in header.stems]:
                raise ModelError(f"it does not give {missing[0]!r}", f"it gives {', '.join(header.stems)}")
            return [_Part(path, header, dict.fromkeys(gives or header.stems, 1.0))]
        with checkpoint.damage_told("its list of networks"):
            tables = headers.describe_bag(metadata)
            described = [checkpoint.make_header(table) for table in tables.values()]
            shares = _parse_shares(json.loads(metadata.get("weights", "null")), described)
        prefixes = [f"{signature}." for signature in tables]
        if odd := [key for key in file.keys() if not key.startswith(tuple(prefixes))]:  # noqa: SIM118 (not a dict)
            raise ModelError(f"{len(odd)} weights belong to none of its networks, {odd[0][:80]!r} among them")
        return [_Part(path, *part) for part in zip(described, shares, prefixes, strict=True)]


def _parse_shares(rows: Any, described: Sequence[Header]) -> list[dict[str, float]]:
    """How much each network counts for each of the stems, which are those of all; 1 where nothing is said."""
    stems = described[0].stems
    if any(header.stems != stems for header in described):
        raise ValueError("its networks do not give the same stems")
    if rows is None:
        rows = [[1] * len(stems)] * len(described)
    if [len(row) for row in rows] != [len(stems)] * len(described):
        raise ValueError(f"its shares are not {len(stems)} numbers for each of {len(described)} networks")
    if not all(type(share) in (int, float) and 0 <= share <= MOST_SHARE for row in rows for share in row):
        raise ValueError(f"its shares are not all numbers from 0 to {MOST_SHARE}")
    if not all(map(any, zip(*rows, strict=True))):
        raise ValueError("no network has a share in one of its stems")
    return [{stem: float(share) for stem, share in zip(stems, row, strict=True)} for row in rows]


def _members(parts: Sequence[_Part], wanted: Sequence[str], device: str, one_of_a_shape: bool) -> list[EnsembleMember]:
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
        shared = one_of_a_shape and shapes.count(part.shape) > 1
        network = networks.get(part.shape) if shared else None
        weights = checkpoint.read_weights(part.path, part.header, part.prefix)
        if network is None:
            network = networks[part.shape] = checkpoint.filled(part.header, weights).to(device).eval()
        member = EnsembleMember(network, shares, part.header.length, weights if shared else None)
        members.append(_without_the_rest(member) if isinstance(network, MaskNetwork) else member)
    return members


def _without_the_rest(member: EnsembleMember) -> EnsembleMember:
    """Let a network of masks give no stem that does not count for any of the bag's."""
    wanted = tuple(sorted({row for _, row, _ in member.shares}))
    shares = tuple((stem, wanted.index(row), share) for stem, row, share in member.shares)
    return replace(member, shares=shares, wanted=wanted)
