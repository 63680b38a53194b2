"""Models in memory: an ensemble of one or more networks, and a chain of such models.

An ensemble may have one network for each stem, or average several networks for the same stem. Its networks are in one
file each, or all in the same one. In a chain, each model separates a stem of an earlier one.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from stemsplit.errors import ModelError, UsageError
from stemsplit.models import checkpoint, headers, spleeter_onnx
from stemsplit.models.checkpoint import Header, Model
from stemsplit.models.registry import ONNX, LocalModel, ModelSpec
from stemsplit.networks.families import input_length, is_standardized, selects_stems
from stemsplit.networks.masking import MaskNetwork

MAX_GAIN = 1e6


class Contribution(NamedTuple):
    """The share of a network in a stem. The gains of all contributions to a stem add up to 1.

    Attributes:
        stem: Index of the stem in the ensemble.
        output: Index of the output in the network.
        gain: Linear gain of that output.
    """

    stem: int
    output: int
    gain: float


@dataclass(frozen=True, slots=True)
class EnsembleMember:
    """A network in an ensemble.

    Attributes:
        network: In eval mode, on its device.
        contributions: The stems that it contributes to.
        length: Window, samples.
        weights: Weights to load into the network before it runs, if other members share the network; else None.
        needed: Indices of the stems that the network should compute, if it can leave out others; None for all.
    """

    network: nn.Module
    contributions: tuple[Contribution, ...]
    length: int
    weights: Mapping[str, Tensor] | None = None
    needed: tuple[int, ...] | None = None

    def input_length(self, length: int) -> int:
        """Return how many samples the network needs to separate `length` of them."""
        return input_length(self.network, length, self.length)

    def prepare(self, *, wiener: int = 0) -> Callable[[Tensor], Tensor]:
        """Load this member's weights into the network, if it is shared, and return how to call it.

        Args:
            wiener: Iterations of Wiener filtering, for mask networks.

        Returns:
            A function from mixtures `(B, C, N)` to stems `(B, S, C, N)`.
        """
        if self.weights is not None:
            self.network.load_state_dict(self.weights)
        options = {name: value for name, value in (("stem_indices", self.needed), ("wiener", wiener)) if value}
        return partial(self.network, **options) if options else self.network


@dataclass(frozen=True, slots=True)
class Ensemble:
    """A model of one or more networks that is ready to run.

    Attributes:
        header: Rate and channels of input and output, the stems, and the windows.
        members: The networks.
        complete: Whether the ensemble gives all stems of its networks.
    """

    header: Header
    members: tuple[EnsembleMember, ...]
    complete: bool = True

    @property
    def standardized(self) -> bool:
        """Whether its networks expect songs of zero mean and unit deviation."""
        return all(is_standardized(member.network) for member in self.members)

    @property
    def remainder(self) -> str:
        """The stem that is the mixture minus all others; empty if there is none."""
        member = self.members[0]
        if not self.complete or len(self.members) > 1 or not getattr(member.network, "remainder", False):
            return ""
        return self.header.stems[max(member.contributions, key=lambda share: share.output).stem]

    def input_length(self, length: int) -> int:
        """Return how many samples its networks need, at most, to separate `length` of them."""
        return max(member.input_length(length) for member in self.members)

    def check_wiener(self, iterations: int) -> None:
        """Check whether the networks' output can be refined by Wiener filtering.

        Args:
            iterations: How often; 0 for not at all.

        Raises:
            UsageError: A network does not estimate masks.
        """
        if iterations and not all(isinstance(member.network, MaskNetwork) for member in self.members):
            raise UsageError("Wiener filtering needs a model that estimates masks")


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean of models that may have different windows: each stem is the weighted mean of those that they give.

    Attributes:
        header: Rate and channels of all models, and the stems of the mean; the windows are those of the first model.
        ensembles: The models.
        weights: Their weights.
    """

    header: Header
    ensembles: tuple[Ensemble, ...]
    weights: tuple[float, ...]

    @property
    def complete(self) -> bool:
        """Whether the mean gives all stems of its networks."""
        return all(ensemble.complete for ensemble in self.ensembles)

    @property
    def standardized(self) -> bool:
        """Whether one of its networks expects songs of zero mean and unit deviation."""
        return any(ensemble.standardized for ensemble in self.ensembles)

    def check_wiener(self, iterations: int) -> None:
        """Check whether the networks' output can be refined by Wiener filtering, as `Ensemble.check_wiener` does.

        Raises:
            UsageError: A network does not estimate masks.
        """
        for ensemble in self.ensembles:
            ensemble.check_wiener(iterations)


@dataclass(frozen=True, slots=True)
class ChainStep:
    """A model in a chain.

    Attributes:
        ensemble: Its networks, or a mean of several models.
        of: The stem of an earlier step that it separates; empty for the mixture.
        rename: Names of its stems in the chain, where they differ.
    """

    ensemble: Ensemble | Mean
    of: str = ""
    rename: Mapping[str, str] = field(default_factory=dict)

    @property
    def stems(self) -> tuple[str, ...]:
        """Names of its stems in the chain, in the order of its output; the same name may occur twice."""
        return tuple(self.rename.get(stem, stem) for stem in self.ensemble.header.stems)


@dataclass(frozen=True, slots=True)
class Chain:
    """Models in a row, each of which separates a stem of an earlier one; most often a single model.

    Attributes:
        header: Rate, channels and windows of the first step, and the stems of the chain. Stems of the same name add up.
        steps: The models; the first one separates the mixture.
    """

    header: Header
    steps: tuple[ChainStep, ...]

    @property
    def complete(self) -> bool:
        """Whether the chain gives all stems of its networks, except those that a step separates further."""
        names = set(self.steps[0].stems)
        for step in self.steps[1:]:
            names = names - {step.of} | set(step.stems)
        return names <= set(self.header.stems) and all(step.ensemble.complete for step in self.steps)

    @property
    def remainder(self) -> str:
        """The stem that is the mixture minus all others; empty if there is none."""
        ensemble = self.steps[0].ensemble
        return ensemble.remainder if len(self.steps) == 1 and isinstance(ensemble, Ensemble) else ""

    def check_wiener(self, iterations: int) -> None:
        """Check whether the networks' output can be refined by Wiener filtering.

        Args:
            iterations: How often; 0 for not at all.

        Raises:
            UsageError: A network does not estimate masks.
        """
        for step in self.steps:
            step.ensemble.check_wiener(iterations)


def ensemble_of(model: Model) -> Ensemble:
    """Make an ensemble of one network."""
    contributions = tuple(Contribution(stem, stem, 1.0) for stem in range(len(model.header.stems)))
    return Ensemble(model.header, (EnsembleMember(model.network, contributions, model.header.length),))


def chain_of(model: Model | Ensemble | Mean | Chain) -> Chain:
    """Make a chain of one step of anything but a chain."""
    if isinstance(model, Chain):
        return model
    ensemble = ensemble_of(model) if isinstance(model, Model) else model
    return Chain(ensemble.header, (ChainStep(ensemble),))


def load_model(model: LocalModel, *, device: str = "cpu", reuse_networks: bool = True) -> Chain:
    """Load a model of any kind into memory.

    Args:
        model: The model and its files.
        device: Where to put the networks.
        reuse_networks: As for `load_ensemble`.

    Raises:
        ModelError: As for `load_ensemble`, and when the steps of a chain have different channels.
        UsageError: No network gives a stem that is wanted.
    """
    if not model.spec.steps:
        return chain_of(_load_step(model, device, reuse_networks))
    steps = []
    for step, local in zip(model.spec.needed_steps, model.components, strict=True):
        steps.append(ChainStep(_load_step(local, device, reuse_networks), step.of, step.rename))
    header = steps[0].ensemble.header
    for loaded, local in zip(steps, model.components, strict=True):
        if loaded.ensemble.header.channels != header.channels:
            first, name = model.components[0].spec.name, local.spec.name
            message = f"the steps {first!r} and {name!r} of {model.spec.name!r} have different numbers of channels"
            raise ModelError(message, "chain models of mono, or models of stereo", model=model.spec.name)
    return Chain(replace(header, stems=model.spec.stems), tuple(steps))


def _load_step(model: LocalModel, device: str, reuse_networks: bool) -> Ensemble | Mean:
    """Load a model that is not a chain."""
    if not model.components:
        return load_ensemble(model, device=device, reuse_networks=reuse_networks)
    ensembles = [load_ensemble(part, device=device, reuse_networks=reuse_networks) for part in model.components]
    first = ensembles[0].header
    for ensemble, part in zip(ensembles, model.components, strict=True):
        if (ensemble.header.rate, ensemble.header.channels) != (first.rate, first.channels):
            names = f"{model.components[0].spec.name!r} and {part.spec.name!r}"
            message = f"the models {names} of {model.spec.name!r} differ in sample rate or channels"
            raise ModelError(message, "average models of the same kind", model=model.spec.name)
    weights = tuple(share.weight for share in model.spec.needed_shares)
    return Mean(replace(first, stems=model.spec.stems), tuple(ensembles), weights)


def load_ensemble(model: LocalModel, *, device: str = "cpu", reuse_networks: bool = True) -> Ensemble:
    """Load a model of one or several networks into memory.

    Args:
        model: The model and its files. Networks that contribute to none of `model.spec.stems` are not loaded.
        device: Where to put the networks.
        reuse_networks: On a CPU, use one network for all members of the same shape and give it the weights of each in
            turn. It can then run in one thread only.

    Raises:
        ModelError: As `checkpoint.load`, and when the networks do not go together or lack a stem.
        UsageError: No network gives a stem that is wanted.
    """
    spec = model.spec
    paths, gives = model.paths, model.gives
    if any(path.suffix == ONNX for path in paths):
        paths, gives = (spleeter_onnx.convert(paths, gives, spec.config),), [()]
    parts = [part for path, names in zip(paths, gives, strict=True) for part in _read_parts(path, names, spec)]
    first = parts[0].header
    for part in parts:
        same = replace(part.header, family=first.family, config=first.config, stems=first.stems, notes=first.notes)
        if same != first:
            named = " and ".join(dict.fromkeys(repr(str(path)) for path in (paths[0], part.path)))
            raise ModelError(
                f"the networks in {named} differ in sample rate, channels or windows", checkpoint.DOWNLOAD_AGAIN
            )
    known = list(dict.fromkeys(stem for part in parts for stem in part.gains))
    if missing := [stem for stem in spec.stems if stem not in known]:
        raise UsageError(f"the model has no stem {missing[0]!r}", f"its stems are {', '.join(known)}")
    wanted = spec.stems or tuple(known)
    complete = {stem for part in parts for stem in part.header.stems} == set(wanted)
    needed = [part for part in parts if any(part.gains.get(stem) for stem in wanted)]
    members = _load_members(needed, wanted, device, reuse_networks and device == "cpu")
    return Ensemble(replace(first, stems=wanted), tuple(members), complete)


@dataclass(frozen=True, slots=True)
class _Part:
    """A network before its weights are read: its gain by stem, and the prefix of its weights in the file."""

    path: Path
    header: Header
    gains: Mapping[str, float]
    prefix: str = ""
    hint: str = ""  # if the file does not fit

    @property
    def shape(self) -> str:
        """Equal for networks that can take each other's weights."""
        return json.dumps([self.header.family, self.header.config, len(self.header.stems)])


def _read_parts(path: Path, gives: Sequence[str], spec: ModelSpec) -> list[_Part]:
    """The networks in a file of a model."""
    with checkpoint.open_weights(path) as file:
        if spec.header:
            hint = f"compare config and stems of {spec.name!r} in models.toml with the file"
            return [
                _Part(path, checkpoint.make_header(spec.header), dict.fromkeys(spec.header["stems"], 1.0), "", hint)
            ]
        metadata = file.metadata() or {}
        if "signatures" not in metadata:
            header = checkpoint.parse_header(metadata)
            if missing := [stem for stem in gives if stem not in header.stems]:
                raise ModelError(f"it does not give {missing[0]!r}", f"it gives {', '.join(header.stems)}")
            return [_Part(path, header, dict.fromkeys(gives or header.stems, 1.0))]
        with checkpoint.reject_invalid("list of networks"):
            tables = headers.translate_bag(metadata)
            networks = [checkpoint.make_header(table) for table in tables.values()]
            gains = _parse_gains(json.loads(metadata.get("weights", "null")), networks)
        prefixes = [f"{signature}." for signature in tables]
        if unmatched := [key for key in file.keys() if not key.startswith(tuple(prefixes))]:  # noqa: SIM118 (no dict)
            first = unmatched[0][:80]
            raise ModelError(f"{len(unmatched)} weights belong to none of its networks, {first!r} among them")
        return [_Part(path, *part) for part in zip(networks, gains, prefixes, strict=True)]


def _parse_gains(rows: Any, networks: Sequence[Header]) -> list[dict[str, float]]:
    """The gain of each network for each stem; 1 where nothing is stated."""
    stems = networks[0].stems
    if any(header.stems != stems for header in networks):
        raise ValueError("its networks do not give the same stems")
    if rows is None:
        rows = [[1] * len(stems)] * len(networks)
    if [len(row) for row in rows] != [len(stems)] * len(networks):
        raise ValueError(f"its gains must be {len(stems)} numbers for each of {len(networks)} networks")
    if not all(type(gain) in (int, float) and 0 <= gain <= MAX_GAIN for row in rows for gain in row):
        raise ValueError(f"its gains must be numbers from 0 to {MAX_GAIN}")
    if not all(map(any, zip(*rows, strict=True))):
        raise ValueError("one of its stems has no gain in any network")
    return [{stem: float(gain) for stem, gain in zip(stems, row, strict=True)} for row in rows]


def _load_members(parts: Sequence[_Part], wanted: Sequence[str], device: str, reuse: bool) -> list[EnsembleMember]:
    totals = {stem: sum(part.gains.get(stem, 0.0) for part in parts) for stem in wanted}
    shapes = [part.shape for part in parts]
    networks: dict[str, nn.Module] = {}
    members = []
    for part in parts:
        contributions = tuple(
            Contribution(wanted.index(stem), part.header.stems.index(stem), gain / totals[stem])
            for stem, gain in part.gains.items()
            if stem in wanted and gain
        )
        is_reused = reuse and shapes.count(part.shape) > 1
        network = networks.get(part.shape) if is_reused else None
        weights = checkpoint.read_weights(part.path, part.header, part.prefix, part.hint)
        if network is None:
            network = networks[part.shape] = checkpoint.build_network(part.header, weights).to(device).eval()
        member = EnsembleMember(network, contributions, part.header.length, weights if is_reused else None)
        members.append(_only_needed(member) if selects_stems(network) else member)
    return members


def _only_needed(member: EnsembleMember) -> EnsembleMember:
    """Let a network compute only the stems that contribute to one of the ensemble's."""
    needed = tuple(sorted({contribution.output for contribution in member.contributions}))
    contributions = tuple(share._replace(output=needed.index(share.output)) for share in member.contributions)
    return replace(member, contributions=contributions, needed=needed)
