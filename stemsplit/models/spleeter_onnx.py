"""Spleeter's published weights, one ONNX file per stem, converted to our own format.

A file is read as a container of tensors: its graph is never run. The tensors have the names that they had in PyTorch;
where a converter has lost these, the order of the layers identifies them.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from stemsplit.errors import ModelError
from stemsplit.models import cache, checkpoint
from stemsplit.models.checkpoint import DOWNLOAD_AGAIN, Header, new_model
from stemsplit.models.registry import ONNX_FAMILY as FAMILY
from stemsplit.networks.families import build
from stemsplit.networks.spleeter import Config, Network, windows
from stemsplit.wording import one_line

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorProto

RATE, CHANNELS = 44_100, 2  # of all of Spleeter's models
NOTES = "made from ONNX files"
ACTIVATION_NODES = {"ELU": "Elu", "LeakyReLU": "LeakyRelu", "ReLU": "Relu"}  # types of nodes, by Spleeter's names
NORM = ("weight", "bias", "running_mean", "running_var")
# By type of node: its tensors, in the order of its inputs, and the layers, in the order of data flow.
LAYERS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "Conv": (("weight", "bias"), ("conv", *(f"conv{number}" for number in range(1, 6)), "up7")),
    "ConvTranspose": (("weight", "bias"), tuple(f"up{number}" for number in range(1, 7))),
    "BatchNormalization": (NORM, ("bn", *(f"bn{number}" for number in range(1, 11)))),
}


def convert(paths: Sequence[Path], gives: Sequence[Sequence[str]], config: Mapping[str, Any]) -> Path:
    """Convert ONNX files into one file in our own format, unless that has been done and its result is intact.

    Args:
        paths: The files.
        gives: The one stem that each file is for.
        config: Network settings other than those of the published network.

    Returns:
        The converted file, in the user's cache folder.

    Raises:
        ModelError: The files are not exactly such a network, or the new file cannot be written.
    """
    header = make_header(gives, config)
    path = cache.converted_path(paths, json.dumps(asdict(header)))
    if not cache.is_unchanged(path):
        weights = read_weights(paths, header)
        cache.store_converted(path, partial(checkpoint.write_weights, header, weights))
    return path


def make_header(gives: Sequence[Sequence[str]], config: Mapping[str, Any]) -> Header:
    """Make the header of the network that such files are for.

    Args:
        gives: The one stem that each file is for.
        config: Network settings other than those of the published network.

    Raises:
        ModelError: There can be no such network.
    """
    stems = tuple(stem for names in gives for stem in names)
    if len(set(stems)) != len(gives) or any(len(names) != 1 for names in gives):
        raise ModelError("each of Spleeter's files must give one stem, all different", "check models.toml")
    with torch.device("meta"):
        build(FAMILY, config, stems=1, channels=CHANNELS)  # rejects unknown settings
        length, hop = windows(Config(**config))
        header = Header(FAMILY, dict(config), stems, rate=RATE, channels=CHANNELS, length=length, hop=hop, notes=NOTES)
        return new_model(header).header


def read_weights(paths: Sequence[Path], header: Header) -> dict[str, Tensor]:
    """Read the weights of a network.

    Args:
        paths: A file for each stem, in the order of `header`.
        header: The network.

    Returns:
        Everything in the network's `state_dict()`, floats in the precision of the files.

    Raises:
        ModelError: A file is missing or damaged, or not exactly such a network.
    """
    config = Config(**header.config)
    with torch.device("meta"):
        network = Network(config, stems=1, channels=header.channels)
    prefix = "networks.0."
    wanted = {name.removeprefix(prefix): tensor for name, tensor in network.state_dict().items()}
    weights = {}
    for number, (path, _) in enumerate(zip(paths, header.stems, strict=True)):
        try:
            for name, tensor in _read_tensors(path, wanted, config):
                weights[f"networks.{number}.{name}"] = tensor
        except FileNotFoundError as error:
            raise ModelError(f"there is no model file {str(path)!r}", "check the path") from error
        except (OSError, ValueError) as error:
            message = f"cannot use the ONNX file {str(path)!r}: {one_line(error)}"
            raise ModelError(message, DOWNLOAD_AGAIN, path=path) from error
    return weights


def _read_tensors(path: Path, wanted: Mapping[str, Tensor], config: Config) -> Iterator[tuple[str, Tensor]]:
    """Everything in `wanted`, from a file. Raises ValueError if the file is another network."""
    from onnx import numpy_helper

    model = _parse(path)
    _check_activations(model, config)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    floats = [name for name, tensor in wanted.items() if tensor.is_floating_point()]
    names = {name: name for name in floats} if stored.keys() >= set(floats) else _by_order(model.graph)
    for name, like in wanted.items():
        if not like.is_floating_point():  # the number of batches in training, which nothing depends on
            yield name, torch.zeros(like.shape, dtype=like.dtype)
            continue
        if names[name] not in stored:
            raise ValueError(f"{name} is missing")
        tensor = stored[names[name]]
        _check(name, tensor, like)
        values = torch.tensor(numpy_helper.to_array(tensor))
        if not values.isfinite().all():
            raise ValueError(f"{name} is not all finite numbers")
        yield name, values


def _check_activations(model: "ModelProto", config: Config) -> None:
    """Raise ValueError if a file says that its activations are others: the same tensors are another network then."""
    wanted = {"conv_activation": config.conv_activation, "deconv_activation": config.deconv_activation}
    for entry in model.metadata_props:
        if entry.value != wanted.get(entry.key, entry.value):
            raise ValueError(f"its {entry.key} is {entry.value!r} instead of {wanted[entry.key]!r}")
    nodes = {node.op_type for node in model.graph.node} & set(ACTIVATION_NODES.values())
    if nodes - {ACTIVATION_NODES[name] for name in wanted.values()}:
        raise ValueError(f"its activations are {' and '.join(sorted(nodes))}, not {' and '.join(wanted.values())}")


def _parse(path: Path) -> "ModelProto":
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    from onnx import ModelProto

    model = ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise ValueError("not a valid ONNX file") from error
    return model


def _by_order(graph: "GraphProto") -> dict[str, str]:
    """The names that the tensors of every layer have in the file. Nodes come in the order of data flow."""
    names: dict[str, str] = {}
    for kind, (parts, layers) in LAYERS.items():
        nodes = [node for node in graph.node if node.op_type == kind]
        if len(nodes) != len(layers):
            raise ValueError(f"it has {len(nodes)} {kind} nodes instead of {len(layers)}")
        for node, layer in zip(nodes, layers, strict=True):
            if len(node.input) != len(parts) + 1:
                raise ValueError(f"{layer} has {len(node.input)} inputs instead of {len(parts) + 1}")
            names |= {f"{layer}.{part}": name for part, name in zip(parts, node.input[1:], strict=True)}
    return names


def _check(name: str, tensor: "TensorProto", like: Tensor) -> None:
    from onnx import TensorProto

    if list(tensor.dims) != list(like.shape):
        raise ValueError(f"{name} has shape {list(tensor.dims)} instead of {list(like.shape)}")
    if tensor.data_type not in (TensorProto.FLOAT, TensorProto.FLOAT16):
        raise ValueError(f"{name} has the wrong type {tensor.data_type}")
    if tensor.data_location == TensorProto.EXTERNAL:
        raise ValueError(f"{name} is in another file")
