"""Files of weights <-> models that run. Our own format is safetensors with a JSON header in its metadata.

Files that the author of Demucs has published are read as well.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from stemsplit.dsp.overlap_add import WindowPlan
from stemsplit.errors import ModelError
from stemsplit.files import replacing
from stemsplit.models import headers
from stemsplit.networks.families import build, input_length
from stemsplit.networks.masking import MaskNetwork
from stemsplit.wording import one_line

FORMAT = 1
DAMAGED = "get the file again"
KINDS = {"F64": True, "F32": True, "F16": True, "BF16": True, "I64": False}  # safetensors' names; whether floating


@dataclass(frozen=True, slots=True)
class Header:
    """What must be known to run a network as it was trained.

    Args:
        family, config: the network, see `stemsplit.networks`.
        stems: names, in the order of the network's output. rate: Hz. channels: in and out.
        length, hop: the windows it was trained for, samples.
        notes: free text about its origin, for people.
    """

    family: str
    config: Mapping[str, Any]
    stems: tuple[str, ...]
    rate: int
    channels: int
    length: int
    hop: int
    notes: str = ""
    format: int = FORMAT

    @property
    def plan(self) -> WindowPlan:
        """How a stream is cut for this network."""
        return WindowPlan(self.length, self.hop)


@dataclass(frozen=True, slots=True)
class Model:
    """A network in eval mode and what must be known to run it."""

    header: Header
    network: nn.Module


def new_model(header: Header) -> Model:
    """A model with random weights, in training mode. Raises ModelError when there can be none with such a header."""
    try:
        _check_header(header)
    except (TypeError, ValueError) as error:
        raise ModelError(f"no model can be like this: {error}") from error
    network = build(header.family, header.config, stems=len(header.stems), channels=header.channels)
    if input_length(network, header.length, header.length) < header.length:
        raise ModelError(f"windows of {header.length} samples are longer than the network takes")
    if isinstance(network, MaskNetwork) and header.length < network.stft.n_fft:
        raise ModelError(f"windows of {header.length} samples are shorter than frames of {network.stft.n_fft}")
    return Model(header, network)


def filled(header: Header, weights: Mapping[str, Tensor]) -> nn.Module:
    """A network with these weights, in single precision and training mode: without random ones, which take as long.

    Raises ModelError as `new_model` does.
    """
    with torch.device("meta"):
        network = new_model(header).network
    wanted = network.state_dict()
    # Not by `empty_like`, which for the meta device imports a compiler, for half a second.
    laid_out = {
        name: torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype).copy_(weights[name])
        for name, tensor in wanted.items()
    }
    network.load_state_dict(laid_out, assign=True)
    return network


def save(model: Model, path: Path) -> None:
    """Write weights and header to `path`; an existing file is replaced in one step. Raises ModelError if that fails."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.network.state_dict().items()}
    try:
        with replacing(path) as part:
            write(model.header, weights, part)
    except OSError as error:
        raise ModelError(f"cannot write {str(path)!r}: {one_line(error)}", "check the folder and the disk") from error


def write(header: Header, weights: Mapping[str, Tensor], path: Path) -> None:
    """Write a file in our format. Raises OSError if that fails."""
    path.touch()
    permissions = path.stat().st_mode  # which safetensors takes away from all but the owner
    try:
        save_file(dict(weights), path, metadata={"stemsplit": json.dumps(asdict(header))})
    except SafetensorError as error:
        raise OSError(one_line(error)) from error
    path.chmod(permissions)


def load(path: Path, device: str = "cpu") -> Model:
    """Read a model, in eval mode on `device`, in single precision.

    Raises ModelError when the file is missing, damaged, not one of ours, or does not fit the network that it names.
    """
    header = read_header(path)
    weights = read_weights(path, header)
    network = filled(header, weights)
    return Model(header, network.to(device).eval())


def read_header(path: Path) -> Header:
    """What a file says of itself. Raises ModelError as `load` does."""
    with opened(path) as file:
        return parse_header(file.metadata() or {})


def read_weights(path: Path, header: Header, prefix: str = "") -> dict[str, Tensor]:
    """The weights of a network, in the precision of the file, without what stands there before their names.

    Raises ModelError as `load` does.
    """
    with opened(path) as file:
        names = {key.removeprefix(prefix): key for key in file.keys() if key.startswith(prefix)}  # noqa: SIM118
        _check_weights(header, {name: file.get_slice(key) for name, key in names.items()})
        weights = {name: file.get_tensor(key) for name, key in names.items()}
        if not all(tensor.isfinite().all() for tensor in weights.values()):
            raise ModelError("its weights are not all finite numbers")
    return weights


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A safetensors file, open; what is wrong with it is told with its name (ModelError)."""
    name = repr(str(path))
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except FileNotFoundError as error:
        raise ModelError(f"there is no model file {name}", "check the path") from error
    except (SafetensorError, OSError, UnicodeError) as error:
        raise ModelError(f"{name} is not a readable safetensors file: {one_line(error)}", DAMAGED) from error
    except ModelError as error:
        raise ModelError(f"cannot use the model file {name}: {one_line(error)}", error.hint or DAMAGED) from error


def parse_header(metadata: Mapping[str, str]) -> Header:
    """The header in a file's metadata. Raises ModelError."""
    with damage_told("its header"):
        table = headers.parse(metadata)
        if table is None:
            raise ModelError("it has no stemsplit header", "only models saved by stemsplit can be run from a file")
        return make_header(table)


def make_header(table: Mapping[str, Any]) -> Header:
    """A header from what a file has. Raises ModelError, ValueError, TypeError or LookupError."""
    if table.get("format", FORMAT) > FORMAT:
        raise ModelError("it was written by a newer stemsplit", "upgrade stemsplit")
    unknown = set(table) - {field.name for field in fields(Header)}
    if unknown:
        raise ValueError(f"unknown keys {', '.join(sorted(unknown))}")
    return Header(**{**table, "stems": tuple(table["stems"])})


@contextmanager
def damage_told(what: str) -> Iterator[None]:
    """Turn what untrusted text can raise into a ModelError."""
    try:
        yield
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError) as error:
        raise ModelError(f"{what} is damaged: {one_line(error)}") from error


def _check_weights(header: Header, weights: Mapping[str, Any]) -> None:
    """Compare with a network that takes no memory: what a header asks for is only allocated if the file has it all."""
    with torch.device("meta"):
        wanted = new_model(header).network.state_dict()
    if odd := sorted(wanted.keys() ^ weights.keys()):
        raise ModelError(f"{len(odd)} weights are missing or not known, {odd[0]} among them")
    for key, tensor in wanted.items():
        if list(tensor.shape) != weights[key].get_shape():
            raise ModelError(f"{key} has shape {weights[key].get_shape()} instead of {list(tensor.shape)}")
        if KINDS.get(weights[key].get_dtype()) is not tensor.is_floating_point():
            raise ModelError(f"{key} is of kind {weights[key].get_dtype()}")


def _check_header(header: Header) -> None:
    """The header is untrusted: refuse kinds and sizes that no real model has, before anything is allocated."""
    for name, kind in (("family", str), ("config", Mapping), ("notes", str), ("format", int)):
        if not isinstance(getattr(header, name), kind):
            raise TypeError(f"{name} has the wrong kind")
    stems = header.stems
    if not all(isinstance(stem, str) and stem.isidentifier() and len(stem) <= 40 for stem in stems):
        raise ValueError("impossible stem names")
    if not 1 <= len(stems) <= 64 or len(set(stems)) < len(stems):
        raise ValueError("stems are missing, too many, or named twice")
    for name, low, high in (
        ("rate", 8_000, 192_000),
        ("channels", 1, 2),
        ("length", 1, 2**24),
        ("hop", 1, header.length),
    ):
        value = getattr(header, name)
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"impossible {name} {value!r}")
