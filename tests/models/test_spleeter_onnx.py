"""Spleeter's weights from ONNX files, here from files that are made as PyTorch's exporters make them."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import GraphProto, ModelProto, NodeProto, TensorProto
from support.spleeter import CONFIG, ELU, KINDS, anonymous, model, network, nodes, of_stem
from torch import Tensor

from stemsplit.errors import ModelError
from stemsplit.models import spleeter_onnx
from stemsplit.networks.spleeter import Config, Network


def write(path: Path, content: ModelProto) -> Path:
    path.write_bytes(content.SerializeToString())
    return path


def read(*paths: Path) -> dict[str, Tensor]:
    header = spleeter_onnx.make_header([[f"stem{number}"] for number in range(len(paths))], asdict(CONFIG))
    return spleeter_onnx.read_weights(paths, header)


@pytest.fixture
def weights() -> dict[str, np.ndarray]:
    return of_stem(network(1), 0)


@pytest.mark.full
@pytest.mark.parametrize("rename", [str, anonymous])
@torch.no_grad()
def test_four_files_are_one_network(tmp_path: Path, rename: Callable[[str], str]) -> None:
    made = network(4)
    paths = [write(tmp_path / f"{n}.onnx", model(of_stem(made, n), rename=rename)) for n in range(4)]
    loaded = Network(CONFIG, stems=4, channels=2).eval()
    loaded.load_state_dict(read(*paths), strict=True)
    mix = torch.randn(1, 2, 9000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(loaded(mix), made(mix))
    loaded.load_state_dict(read(*paths[::-1]), strict=True)
    torch.testing.assert_close(loaded(mix), made(mix).flip(1), rtol=0, atol=1e-5)


def test_names_count_more_than_order(tmp_path: Path, weights: dict[str, np.ndarray]) -> None:
    content = model(weights, flow=[])
    found = read(write(tmp_path / "a.onnx", content))
    assert all(np.array_equal(found[f"networks.0.{name}"].numpy(), value) for name, value in weights.items())


@pytest.mark.parametrize("rename", [str, anonymous])
def test_half_precision_is_kept(tmp_path: Path, weights: dict[str, np.ndarray], rename: Callable[[str], str]) -> None:
    halved = {name: value.astype(np.float16) for name, value in weights.items()}
    found = read(write(tmp_path / "a.onnx", model(halved, rename=rename)))
    floats = {name: tensor for name, tensor in found.items() if not name.endswith("num_batches_tracked")}
    assert {tensor.dtype for tensor in floats.values()} == {torch.float16}
    assert all(np.array_equal(floats[f"networks.0.{name}"].numpy(), value) for name, value in halved.items())
    Network(CONFIG, stems=1, channels=2).load_state_dict(found, strict=True)


def test_the_published_network_is_the_default() -> None:
    """As listed where the published files are described: 70 tensors, 9,824,711 numbers a stem."""
    with torch.device("meta"):
        state = Network(Config(), stems=1, channels=2).state_dict()
    floats = [tensor for tensor in state.values() if tensor.is_floating_point()]
    assert (len(floats), sum(tensor.numel() for tensor in floats)) == (70, 9_824_711)


def test_files_without_a_description_are_taken(tmp_path: Path, weights: dict[str, np.ndarray]) -> None:
    assert read(write(tmp_path / "a.onnx", model(weights, about={})))


def message(*paths: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read(*paths)
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("rename", [str, anonymous])
@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("conv2.weight", np.zeros((4, 3, 5, 4), np.float32), r"conv2.weight has shape \[4, 3, 5, 4\] instead of"),
        ("bn7.running_var", np.zeros((), np.float32), r"bn7.running_var has shape \[\] instead of"),
        ("up6.weight", np.zeros((1, 4, 5, 5), np.float32), "up6.weight has shape"),
        ("up3.bias", np.zeros(4, np.float64), "up3.bias has the wrong type 11"),
        ("up3.bias", np.zeros(4, np.int32), "up3.bias has the wrong type 6"),
        ("bn.weight", np.array([1, np.nan], np.float32), "bn.weight is not all finite"),
        ("up7.bias", np.array([1, np.inf], np.float16), "up7.bias is not all finite"),
    ],
)
def test_other_tensors_are_refused(
    tmp_path: Path,
    weights: dict[str, np.ndarray],
    rename: Callable[[str], str],
    name: str,
    value: np.ndarray,
    reason: str,
) -> None:
    path = write(tmp_path / "a.onnx", model({**weights, name: value}, rename=rename))
    with pytest.raises(ModelError, match=reason) as caught:
        read(path)
    assert "a.onnx" in str(caught.value)


@pytest.mark.parametrize("about", [{**ELU, "conv_activation": "LeakyReLU"}, {"deconv_activation": "ReLU"}])
def test_another_activation_is_refused(tmp_path: Path, weights: dict[str, np.ndarray], about: dict[str, str]) -> None:
    assert "activation is" in message(write(tmp_path / "a.onnx", model(weights, about=about)))


def test_the_nodes_tell_the_activation_where_the_metadata_do_not(
    tmp_path: Path, weights: dict[str, np.ndarray]
) -> None:
    flow = nodes(str)
    for number, node in enumerate(node for node in flow if node.op_type == "Elu"):
        node.op_type = "LeakyRelu" if number < 5 else "Relu"
    path = write(tmp_path / "a.onnx", model(weights, flow=flow, about={}))
    assert "its activations are LeakyRelu and Relu, not ELU and ELU" in message(path)
    settings = {**asdict(CONFIG), "conv_activation": "LeakyReLU", "deconv_activation": "ReLU"}
    header = spleeter_onnx.make_header([["vocals"]], settings)
    assert spleeter_onnx.read_weights([path], header).keys() > {f"networks.0.{name}" for name in weights}


def test_a_missing_tensor_is_named(tmp_path: Path, weights: dict[str, np.ndarray]) -> None:
    del weights["bn3.running_mean"]
    assert "bn3.running_mean is missing" in message(write(tmp_path / "a.onnx", model(weights)))


def without(flow: list[NodeProto], kind: str) -> list[NodeProto]:
    """The last node of a kind is missing."""
    flow.remove([node for node in flow if node.op_type == kind][-1])
    return flow


@pytest.mark.parametrize("kind", list(KINDS.values()))
def test_other_layers_are_refused(tmp_path: Path, weights: dict[str, np.ndarray], kind: str) -> None:
    flow = without(nodes(anonymous), kind)
    assert f"{kind} nodes instead of" in message(
        write(tmp_path / "a.onnx", model(weights, rename=anonymous, flow=flow))
    )


def test_a_layer_without_a_bias_is_refused(tmp_path: Path, weights: dict[str, np.ndarray]) -> None:
    flow = nodes(anonymous)
    del flow[0].input[-1]
    path = write(tmp_path / "a.onnx", model(weights, rename=anonymous, flow=flow))
    assert "conv has 2 inputs instead of 3" in message(path)


def test_tensors_in_other_files_are_not_looked_for(tmp_path: Path, weights: dict[str, np.ndarray]) -> None:
    content = model(weights)
    tensor = content.graph.initializer[0]
    (tmp_path / "elsewhere").write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="elsewhere")
    assert "is in another file" in message(write(tmp_path / "a.onnx", content))


def test_tensors_cut_short_are_refused(tmp_path: Path, weights: dict[str, np.ndarray]) -> None:
    content = model(weights)
    content.graph.initializer[0].raw_data = content.graph.initializer[0].raw_data[:-4]
    assert "a.onnx" in message(write(tmp_path / "a.onnx", content))


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"onnx", GraphProto().SerializeToString()])
def test_files_of_another_kind_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.onnx"
    path.write_bytes(content)
    assert "cannot use the ONNX file" in message(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_files_cut_short_are_refused(tmp_path: Path, weights: dict[str, np.ndarray], share: float) -> None:
    path = write(tmp_path / "a.onnx", model(weights))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert "cannot use the ONNX file" in message(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path, weights: dict[str, np.ndarray]) -> None:
    good = write(tmp_path / "a.onnx", model(weights))
    assert "there is no model file" in message(good, tmp_path / "b.onnx")
    assert "cannot use the ONNX file" in message(good, tmp_path)


@pytest.mark.parametrize("gives", [[["vocals"], []], [["vocals"], ["drums", "bass"]], [["vocals"], ["vocals"]]])
def test_each_file_gives_a_stem_of_its_own(gives: list[list[str]]) -> None:
    with pytest.raises(ModelError, match="must give one stem"):
        spleeter_onnx.make_header(gives, asdict(CONFIG))


@pytest.mark.parametrize("config", [{"bands": 3}, {"bins": 1000}, {"bins": "1536"}, {"frames": 2**20}])
def test_settings_that_no_network_has_are_refused(config: dict[str, Any]) -> None:
    with pytest.raises(ModelError):
        spleeter_onnx.make_header([["vocals"], ["drums"]], {**config, "frames": config.get("frames", 64)})


def test_the_windows_of_the_published_network() -> None:
    """All frames that a U-Net sees at once, of which the next window has a sixteenth again."""
    header = spleeter_onnx.make_header([["vocals"], ["drums"]], {"bins": 1536})
    assert (header.rate, header.channels, header.stems) == (44_100, 2, ("vocals", "drums"))
    assert (header.length, header.hop) == (507 * 1024, 480 * 1024)
    assert header.config == {"bins": 1536}


@pytest.mark.full
def test_onnx_is_only_imported_to_read() -> None:
    code = "import sys, stemsplit.models.spleeter_onnx; sys.exit('onnx' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_names_and_order_agree() -> None:
    """The helper of these tests makes what it says."""
    taken: dict[str, Any] = {}
    for node in nodes(str):
        for name in node.input[1:]:
            assert name not in taken
            taken[name] = node.op_type
    assert set(taken) == set(of_stem(network(1), 0))
