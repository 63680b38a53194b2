"""ONNX files like those of Spleeter's published weights, of small networks with random weights."""

import zlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from onnx import ModelProto, NodeProto, helper, numpy_helper

from stemsplit.networks.spleeter import Config, Network

CONFIG = Config(n_fft=512, hop=128, frames=64, bins=128, widths=(2, 3, 4, 5, 6, 7))


# The layers in the order of data flow.
FLOW = [
    "conv",
    "bn",
    "conv1",
    "bn1",
    "conv2",
    "bn2",
    "conv3",
    "bn3",
    "conv4",
    "bn4",
    "conv5",
    "up1",
    "bn5",
    "up2",
    "bn6",
    "up3",
    "bn7",
    "up4",
    "bn8",
    "up5",
    "bn9",
    "up6",
    "bn10",
    "up7",
]


PARTS = ("weight", "bias", "running_mean", "running_var")


KINDS = {"conv": "Conv", "up": "ConvTranspose", "bn": "BatchNormalization"}


ELU = {"conv_activation": "ELU", "deconv_activation": "ELU", "sample_rate": "44100"}


def network(stems: int, seed: int = 0) -> Network:
    """A network with random weights and batch statistics."""
    torch.manual_seed(seed)
    built = Network(CONFIG, stems=stems, channels=2)
    with torch.no_grad():
        built.train()(torch.randn(4, 2, 9000))
    return built.eval()


def of_stem(network: Network, number: int) -> dict[str, np.ndarray]:
    """The weights of one stem under the names of the published files."""
    prefix = f"networks.{number}."
    return {
        name.removeprefix(prefix): tensor.numpy()
        for name, tensor in network.state_dict().items()
        if name.startswith(prefix) and tensor.is_floating_point()
    }


def nodes(rename: Callable[[str], str]) -> list[NodeProto]:
    """Nodes for the layers, with activations between them."""
    result, x = [], "x"
    for number, layer in enumerate(FLOW):
        kind = KINDS["conv" if layer == "up7" else layer.rstrip("0123456789")]
        parts = PARTS if layer.startswith("bn") else PARTS[:2]
        inputs = [x, *(rename(f"{layer}.{part}") for part in parts)]
        result.append(helper.make_node(kind, inputs, [f"value{number}"]))
        result.append(helper.make_node("Elu", [f"value{number}"], [f"elu{number}"]))
        x = f"elu{number}"
    return result


def model(
    weights: Mapping[str, np.ndarray],
    *,
    rename: Callable[[str], str] = lambda name: name,
    flow: Sequence[NodeProto] | None = None,
    about: Mapping[str, str] = ELU,
) -> ModelProto:
    stored = [numpy_helper.from_array(value, rename(name)) for name, value in weights.items()]
    stored.append(numpy_helper.from_array(np.array([0, 1, 2]), "val_7"))  # newer exporters leave some of these
    graph = helper.make_graph(nodes(rename) if flow is None else flow, "main_graph", [], [], stored)
    proto = helper.make_model(graph)
    helper.set_model_props(proto, dict(about))
    return proto


def anonymous(name: str) -> str:
    """A name that reveals neither layer nor order."""
    return f"onnx::{zlib.crc32(name.encode())}"
