"""Saving and loading models. Our own format is safetensors with a JSON header in its metadata.

Files that the author of Demucs has published can be loaded as well.
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
DOWNLOAD_AGAIN = "download the file again"
_SHORTEST_WINDOW = 64  # samples
_MOST_WINDOWS = 32  # that a sample may be in
IS_FLOATING = {"F64": True, "F32": True, "F16": True, "BF16": True, "I64": False}  # by safetensors' names of types


@dataclass(frozen=True, slots=True)
class Header:
    """The settings needed to run a network as it was trained.

    Attributes:
        family: Network family, a module of `stemsplit.networks`.
        config: Settings of the network.
        stems: Names of the stems, in the order of the network's output.
        rate: Sample rate, Hz.
        channels: Channels in and out, 1 or 2.
        length: Window that it was trained for, samples.
        hop: Distance between the beginnings of two windows, samples.
        notes: Free text about its origin, for people.
        format: Version of the header.
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
        """How a stream is cut into windows for this network."""
        return WindowPlan(self.length, self.hop)


@dataclass(frozen=True, slots=True)
class Model:
    """A network and the settings needed to run it.

    Attributes:
        header: How to run the network.
        network: In eval mode, unless it is being trained.
    """

    header: Header
    network: nn.Module


def new_model(header: Header) -> Model:
    """Build a model with random weights, in training mode.

    Raises:
        ModelError: There can be no model with such a header.
    """
    try:
        _check_header(header)
    except (TypeError, ValueError) as error:
        raise ModelError(f"invalid model settings: {error}") from error
    network = build(header.family, header.config, stems=len(header.stems), channels=header.channels)
    if input_length(network, header.length, header.length) < header.length:
        raise ModelError(f"windows of {header.length} samples are longer than the network takes")
    if isinstance(network, MaskNetwork) and header.length < network.stft.n_fft:
        raise ModelError(f"windows of {header.length} samples are shorter than STFT frames of {network.stft.n_fft}")
    return Model(header, network)


def build_network(header: Header, weights: Mapping[str, Tensor]) -> nn.Module:
    """Build a network with given weights, in single precision and training mode.

    It skips the random weights that `new_model` starts with, which would take as long as everything else.

    Raises:
        ModelError: There can be no model with such a header.
    """
    with torch.device("meta"):
        network = new_model(header).network
    wanted = network.state_dict()
    network.load_state_dict({name: _laid_out(weights[name], like) for name, like in wanted.items()}, assign=True)
    return network


def _laid_out(weights: Tensor, like: Tensor) -> Tensor:
    """Weights in the type and layout of a network; those of the file itself if they are so already."""
    if (weights.dtype, weights.stride()) == (like.dtype, like.stride()):
        return weights
    # Not by `empty_like`, which for the meta device imports a compiler, for half a second.
    return torch.empty_strided(like.shape, like.stride(), dtype=like.dtype).copy_(weights)


def save(model: Model, path: Path) -> None:
    """Save a model; an existing file is replaced in one step.

    Raises:
        ModelError: The file cannot be written.
    """
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.network.state_dict().items()}
    try:
        with replacing(path) as part:
            write_weights(model.header, weights, part)
    except OSError as error:
        raise ModelError(
            f"cannot write {str(path)!r}: {one_line(error)}", "check the folder and the disk", path=path
        ) from error


def write_weights(header: Header, weights: Mapping[str, Tensor], path: Path) -> None:
    """Write a file in our own format.

    Raises:
        OSError: The file cannot be written.
    """
    path.touch()
    permissions = path.stat().st_mode  # safetensors removes those of everyone but the owner
    try:
        save_file(dict(weights), path, metadata={headers.KEY: json.dumps(asdict(header))})
    except SafetensorError as error:
        raise OSError(one_line(error)) from error
    path.chmod(permissions)


def load(path: Path, device: str = "cpu") -> Model:
    """Load a model of one network, in eval mode and single precision.

    Args:
        path: A file in our own format, or one that the author of Demucs has published.
        device: Where to put the network.

    Raises:
        ModelError: The file is missing, damaged, in another format, or does not fit the network that it names.
    """
    header = read_header(path)
    weights = read_weights(path, header)
    network = build_network(header, weights)
    return Model(header, network.to(device).eval())


def read_header(path: Path) -> Header:
    """Read the header of a file of weights.

    Raises:
        ModelError: The file is missing, damaged, or in another format.
    """
    with open_weights(path) as file:
        return parse_header(file.metadata() or {})


def read_weights(path: Path, header: Header, prefix: str = "", hint: str = "") -> dict[str, Tensor]:
    """Read the weights of a network, in the precision of the file.

    Args:
        path: File of weights.
        header: The network that they are for.
        prefix: Of their names in the file.
        hint: What to do if the file does not fit the network; by default to download it again.

    Returns:
        The weights by name, without the prefix.

    Raises:
        ModelError: The file is missing or damaged, or does not fit the network.
    """
    with open_weights(path) as file:
        names = {key.removeprefix(prefix): key for key in file.keys() if key.startswith(prefix)}  # noqa: SIM118
        try:
            _check_weights(header, {name: file.get_slice(key) for name, key in names.items()})
        except ModelError as error:
            error.hint = error.hint or hint
            raise
        weights = {name: file.get_tensor(key) for name, key in names.items()}
        if not all(tensor.isfinite().all() for tensor in weights.values()):
            raise ModelError("its weights are not all finite numbers")
    return weights


@contextmanager
def open_weights(path: Path) -> Iterator[Any]:
    """Open a safetensors file.

    Yields:
        The file, as `safetensors.safe_open` gives it.

    Raises:
        ModelError: It cannot be opened, or the block has raised a ModelError, which then names the file.
    """
    name = repr(str(path))
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except FileNotFoundError as error:
        raise ModelError(f"there is no model file {name}", "check the path", path=path) from error
    except (SafetensorError, OSError, UnicodeError) as error:
        raise ModelError(
            f"{name} is not a readable safetensors file: {one_line(error)}", DOWNLOAD_AGAIN, path=path
        ) from error
    except ModelError as error:
        message = f"cannot use the model file {name}: {one_line(error)}"
        raise ModelError(message, error.hint or DOWNLOAD_AGAIN, path=path) from error


def parse_header(metadata: Mapping[str, str]) -> Header:
    """Parse the header in a file's metadata.

    Raises:
        ModelError: There is none, or it is invalid.
    """
    with reject_invalid("header"):
        table = headers.parse_metadata(metadata)
        if table is None:
            raise ModelError("it has no stemsplit header", "only models saved by stemsplit can be run from a file")
        return make_header(table)


def make_header(table: Mapping[str, Any]) -> Header:
    """Make a header from the keys and values in a file.

    Raises:
        ModelError: It was written by a newer version.
        ValueError, TypeError, LookupError: It is invalid.
    """
    if table.get("format", FORMAT) > FORMAT:
        raise ModelError("it was written by a newer stemsplit", "upgrade stemsplit")
    unknown = set(table) - {field.name for field in fields(Header)}
    if unknown:
        raise ValueError(f"unknown keys {', '.join(sorted(unknown))}")
    return Header(**{**table, "stems": tuple(table["stems"])})


@contextmanager
def reject_invalid(what: str) -> Iterator[None]:
    """Turn what parsing untrusted text can raise into a ModelError: "invalid `what`: ..."."""
    try:
        yield
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError) as error:
        raise ModelError(f"invalid {what}: {one_line(error)}") from error


def _check_weights(header: Header, weights: Mapping[str, Any]) -> None:
    """Compare with a network on the meta device, so that nothing is allocated unless the file has all of it."""
    with torch.device("meta"):
        wanted = new_model(header).network.state_dict()
    if unmatched := sorted(wanted.keys() ^ weights.keys()):
        raise ModelError(f"{len(unmatched)} weights are missing or unknown, {unmatched[0]} among them")
    for key, tensor in wanted.items():
        if list(tensor.shape) != weights[key].get_shape():
            raise ModelError(f"{key} has shape {weights[key].get_shape()} instead of {list(tensor.shape)}")
        if IS_FLOATING.get(weights[key].get_dtype()) is not tensor.is_floating_point():
            raise ModelError(f"{key} has the wrong type {weights[key].get_dtype()}")


def _check_header(header: Header) -> None:
    """The header is untrusted: reject types and sizes that no real model has, before anything is allocated."""
    for name, kind in (("family", str), ("config", Mapping), ("notes", str), ("format", int)):
        if not isinstance(getattr(header, name), kind):
            raise TypeError(f"{name} has the wrong type")
    stems = header.stems
    if not all(isinstance(stem, str) and stem.isidentifier() and len(stem) <= 40 for stem in stems):
        raise ValueError("invalid stem names")
    if not 1 <= len(stems) <= 64 or len(set(stems)) < len(stems):
        raise ValueError("stems are missing, too many, or repeated")
    for name, low, high in (
        ("rate", 8_000, 192_000),
        ("channels", 1, 2),
        ("length", _SHORTEST_WINDOW, 2**24),
        ("hop", 1, header.length),
    ):
        value = getattr(header, name)
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"invalid {name}: {value!r}")
    if header.hop * _MOST_WINDOWS < header.length:  # a small file could ask for years of work
        raise ValueError(f"invalid hop: {header.hop!r} of windows of {header.length}")
