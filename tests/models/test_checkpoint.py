import json
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from support.networks import TINY_UNET
from support.songs import STEMS
from torch import Tensor

from stemsplit.dsp.overlap_add import WindowPlan
from stemsplit.errors import ModelError
from stemsplit.models import checkpoint
from stemsplit.models.checkpoint import Header, Model, load, new_model, save


@pytest.fixture
def model(unet_model: Callable[..., Model]) -> Model:
    return unet_model()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a [tiny] model.safetensors"


def weights_of(model: Model) -> dict[str, Tensor]:
    return {name: tensor.contiguous() for name, tensor in model.network.state_dict().items()}


def header_table(path: Path) -> dict[str, Any]:
    """Without torch, and without safetensors: 8 bytes of length, then JSON."""
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    table = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["stemsplit"])
    assert isinstance(table, dict)
    return table


def refusal(path: Path) -> str:
    """The sentence with which `load` refuses a file; it names the file, on one line."""
    with pytest.raises(ModelError) as caught:
        load(path)
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    assert len(message) < 500 + len(str(path))
    assert caught.value.hint
    return message


def test_round_trip(model: Model, path: Path) -> None:
    model = Model(replace(model.header, notes="line\nbreak, 音楽"), model.network)
    save(model, path)
    loaded = load(path)
    assert loaded.header == model.header
    assert loaded.header.plan == WindowPlan(4096, 3072)
    assert not loaded.network.training
    weights = weights_of(loaded)
    assert weights.keys() == weights_of(model).keys()
    assert all(torch.equal(weights[name], tensor) for name, tensor in weights_of(model).items())


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_a_file_has_the_permissions_that_the_users_files_have(model: Model, path: Path) -> None:
    save(model, path)
    (other := path.with_name("other")).touch()
    assert path.stat().st_mode == other.stat().st_mode


def test_the_file_is_plain_safetensors_with_a_json_header(model: Model, path: Path) -> None:
    save(model, path)
    table = header_table(path)
    assert table["family"] == "unet"
    assert table["config"] == TINY_UNET
    assert table["stems"] == list(STEMS)
    assert (table["rate"], table["channels"], table["length"], table["hop"]) == (44_100, 2, 4096, 3072)
    assert table["format"] == 1
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) == set(model.network.state_dict())


def test_weights_in_half_precision_are_loaded_as_float32(model: Model, path: Path) -> None:
    save(model, path)
    halves = {name: t.half() if t.is_floating_point() else t for name, t in weights_of(model).items()}
    save_file(halves, path, metadata={"stemsplit": json.dumps(header_table(path))})
    for name, tensor in weights_of(load(path)).items():
        assert tensor.dtype in (torch.float32, torch.int64)
        assert torch.equal(tensor, halves[name].to(tensor.dtype))


def test_saving_replaces_in_one_step(model: Model, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_text("old")

    def fail(weights: object, to: Path, metadata: object) -> None:
        to.write_text("half")
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save_file", fail)
        with pytest.raises(ModelError, match=r"cannot write .*a \[tiny\] model.*: disk full"):
            save(model, path)
    assert path.read_text() == "old"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    save(model, path)
    assert load(path).header == model.header
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_saving_where_there_is_no_folder(model: Model, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot write"):
        save(model, tmp_path / "none" / "model.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_missing_file(path: Path) -> None:
    assert "there is no model file" in refusal(path)


@pytest.mark.parametrize("name", ["missing\nbreak", "missing\udcff"])
def test_strange_names_stay_on_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError) as caught:
        load(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert "missing\\" in str(caught.value)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"short",
        b"this is a text file, it is not a model at all\n" * 10,
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 10) + b"not json!!" + bytes(100),
        b"PK\x03\x04" + bytes(1000),
    ],
)
def test_what_is_not_safetensors(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    assert "is not a readable safetensors file" in refusal(path)


def test_a_folder(path: Path) -> None:
    path.mkdir()
    assert "is not a readable safetensors file" in refusal(path)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.999])
def test_a_truncated_file(model: Model, path: Path, share: float) -> None:
    save(model, path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert "is not a readable safetensors file" in refusal(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_foreign_safetensors(model: Model, path: Path, metadata: dict[str, str] | None) -> None:
    save_file(weights_of(model), path, metadata=metadata)
    assert "it has no stemsplit header" in refusal(path)


@pytest.mark.parametrize(
    "header",
    ["", "not json", "[]", "3", "null", '"unet"', "{}", '{"family": "unet"}', "[" * 100_000, '{"format": "1"}'],
    ids=lambda header: header[:20],
)
def test_a_damaged_header(model: Model, path: Path, header: str) -> None:
    save_file(weights_of(model), path, metadata={"stemsplit": header})
    assert "invalid header: " in refusal(path)


@pytest.mark.full
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"family": "nosuch"}, "unknown network family 'nosuch'"),
        ({"family": "_masking"}, "unknown network family '_masking'"),
        ({"family": "../unet"}, "unknown network family"),
        ({"family": 3}, "family has the wrong type"),
        ({"config": [1]}, "config has the wrong type"),
        ({"config": {**TINY_UNET, "depth": 3}}, "has no setting depth"),
        ({"config": {**TINY_UNET, "bands": 10**9}}, "cannot be built"),
        ({"config": {**TINY_UNET, "n_fft": 10**12}}, "cannot be built"),
        ({"config": {**TINY_UNET, "widths": [10**6, 10**6]}}, "has shape"),
        ({"config": {**TINY_UNET, "widths": [10**12, 10**12]}}, ""),
        ({"config": {**TINY_UNET, "widths": []}}, "cannot be built"),
        ({"config": {**TINY_UNET, "widths": [4, 6, 6]}}, "missing or unknown"),
        ({"config": {**TINY_UNET, "widths": [4, 5]}}, "has shape"),
        (
            {"config": {**TINY_UNET, "n_fft": 8192, "hop": 2048}},
            "windows of 4096 samples are shorter than STFT frames of 8192",
        ),
        ({"stems": []}, "stems are missing"),
        ({"stems": list(STEMS) * 2}, "repeated"),
        ({"stems": [f"stem{n}" for n in range(10**6)]}, "too many"),
        ({"stems": [*STEMS, "fifth"]}, "has shape"),
        ({"stems": ["../../vocals", "drums", "bass", "other"]}, "invalid stem names"),
        ({"stems": ["v" * 1000, "drums", "bass", "other"]}, "invalid stem names"),
        ({"stems": [1, 2, 3, 4]}, "invalid stem names"),
        ({"stems": 4}, "invalid header"),
        ({"rate": 0}, "invalid rate: 0"),
        ({"rate": 44_100.0}, "invalid rate"),
        ({"rate": "44100"}, "invalid rate"),
        ({"channels": True}, "invalid channels"),
        ({"channels": 6}, "invalid channels"),
        ({"channels": 1}, "has shape"),
        ({"length": 10**12}, "invalid length"),
        ({"length": 0}, "invalid length"),
        ({"length": 500, "hop": 400}, "windows of 500 samples are shorter than STFT frames of 512"),
        ({"hop": 0}, "invalid hop"),
        ({"hop": 4097}, "invalid hop"),
        ({"hop": 2}, "invalid hop: 2 of windows of 4096"),
        ({"hop": 127}, "invalid hop: 127 of windows of 4096"),
        ({"length": 1, "hop": 1}, "invalid length"),
        ({"hop": float("nan")}, "invalid hop"),
        ({"notes": 3}, "notes has the wrong type"),
        ({"format": 2}, "written by a newer stemsplit"),
        ({"format": 10**30}, "written by a newer stemsplit"),
        ({"format": [1]}, "invalid header"),
        ({"format": 0.5}, "format has the wrong type"),
        ({"colour": "red", "evil": "x\n" * 9999}, "unknown keys colour, evil"),
        ({"x\n" * 9999: 1}, "unknown keys"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_hostile_headers(model: Model, path: Path, change: dict[str, Any], reason: str) -> None:
    save(model, path)
    save_file(weights_of(model), path, metadata={"stemsplit": json.dumps({**header_table(path), **change})})
    assert reason in refusal(path)


@pytest.mark.parametrize("key", ["family", "config", "stems", "rate", "channels", "length", "hop"])
def test_nothing_may_be_missing(model: Model, path: Path, key: str) -> None:
    save(model, path)
    table = header_table(path)
    del table[key]
    save_file(weights_of(model), path, metadata={"stemsplit": json.dumps(table)})
    assert key in refusal(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers(model: Model, path: Path, value: float) -> None:
    weights = weights_of(model)
    save(model, path)
    weights["exit.5.bias"][3] = value
    save_file(weights, path, metadata={"stemsplit": json.dumps(header_table(path))})
    assert "not all finite" in refusal(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"exit.5.bias": None}, "exit.5.bias among them"),
        ({"extra\nweight": torch.zeros(3)}, "1 weights are missing or unknown, extra weight among them"),
        ({"exit.5.bias": torch.zeros(9)}, "exit.5.bias has shape [9] instead of [8]"),
        ({"exit.5.bias": torch.zeros(8, dtype=torch.complex64)}, "exit.5.bias has the wrong type C64"),
        ({"exit.5.bias": torch.zeros(8, dtype=torch.int64)}, "exit.5.bias has the wrong type I64"),
        ({"exit.5.bias": torch.zeros(8, dtype=torch.float8_e4m3fn)}, "exit.5.bias has the wrong type F8_E4M3"),
        ({"norm": torch.zeros(3)}, "unknown"),
    ],
    ids=str,
)
def test_weights_that_do_not_fit(model: Model, path: Path, change: dict[str, Tensor | None], reason: str) -> None:
    save(model, path)
    weights = {name: tensor for name, tensor in {**weights_of(model), **change}.items() if tensor is not None}
    save_file(weights, path, metadata={"stemsplit": json.dumps(header_table(path))})
    assert reason in refusal(path)


def test_a_header_cannot_ask_for_more_memory_than_the_file_has(
    model: Model, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = []

    def spy(header: Header) -> Model:
        made = new_model(header)
        devices.append({parameter.device.type for parameter in made.network.parameters()})
        return made

    monkeypatch.setattr(checkpoint, "new_model", spy)
    save(model, path)
    table = header_table(path)
    load(path)
    assert devices == [{"meta"}, {"meta"}]
    table["config"]["widths"] = [4096, 4096]  # 1.5 GB
    save_file(weights_of(model), path, metadata={"stemsplit": json.dumps(table)})
    refusal(path)
    assert devices == [{"meta"}, {"meta"}, {"meta"}]


def test_no_model_is_made_that_could_not_be_loaded() -> None:
    header = Header("unet", TINY_UNET, STEMS, rate=44_100, channels=2, length=4096, hop=3072)
    assert new_model(header).network.training
    for change in ({"stems": ("lead vocals", "rest")}, {"rate": 7000}, {"length": 300, "hop": 200}, {"hop": -1}):
        with pytest.raises(ModelError):
            new_model(replace(header, **change))
