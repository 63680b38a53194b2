"""Weights damaged at random: they are loaded, or refused with a sentence, within bounds; nothing else happens."""

import json
import random
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file
from support.demucs_files import NETWORKS, publish, reference
from support.mutations import mutate
from support.spleeter import CONFIG, model, network, of_stem

from stemsplit.errors import ModelError
from stemsplit.models import checkpoint, headers, spleeter_onnx
from stemsplit.models.checkpoint import Model

CASES = 60  # of each kind
CPU_SECONDS = 20  # for one of them; a hundred times what is usual
MEGABYTES = 600
VALUES: tuple[Any, ...] = (
    0,
    1,
    -1,
    2,
    7,
    2**31,
    2**63,
    10**30,
    0.5,
    1e300,
    float("nan"),
    "",
    "x",
    "1/0",
    None,
    True,
    [],
)


def peak_memory() -> float:
    """The most memory that this process has had, in MB; 0 where the system does not say."""
    if sys.platform != "linux":
        return 0.0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def assert_is_survived(path: Path) -> None:
    began = time.process_time()
    for load in (headers.read_header, checkpoint.load):
        try:
            load(path)
        except ModelError as error:
            assert str(error).isprintable()
            assert len(str(error)) < 600 + len(str(path))
    assert time.process_time() - began < CPU_SECONDS


def with_metadata(content: bytes, change: Callable[[dict[str, str]], None]) -> bytes:
    """The same file with changed strings in its header."""
    (length,) = struct.unpack("<Q", content[:8])
    table = json.loads(content[8 : 8 + length])
    change(table["__metadata__"])
    changed = json.dumps(table).encode()
    return struct.pack("<Q", len(changed)) + changed + content[8 + length :]


def replace_values(table: Any, rng: random.Random) -> Any:
    """Replace about one value in eight, at any depth."""
    if rng.random() < 0.12:
        return rng.choice(VALUES)
    if isinstance(table, dict):
        kept = {key: replace_values(value, rng) for key, value in table.items() if rng.random() > 0.02}
        return {**kept, **({"other": 1} if rng.random() < 0.03 else {})}
    if isinstance(table, list):
        return [replace_values(value, rng) for value in table]
    return table


@pytest.mark.full
def test_our_own_files(tmp_path: Path, unet_model: Callable[..., Model]) -> None:
    path = tmp_path / "x.safetensors"
    checkpoint.save(unet_model(), path)
    content = path.read_bytes()
    before = peak_memory()
    for seed in range(CASES):
        path.write_bytes(mutate(content, seed))
        assert_is_survived(path)

        def change(metadata: dict[str, str], seed: int = seed) -> None:
            table = json.loads(metadata["stemsplit"])
            metadata["stemsplit"] = json.dumps(replace_values(table, random.Random(seed)))

        path.write_bytes(with_metadata(content, change))
        assert_is_survived(path)
    assert peak_memory() - before < MEGABYTES


@pytest.mark.full
@pytest.mark.parametrize("name", NETWORKS)
def test_files_of_demucs(tmp_path: Path, name: str) -> None:
    path = publish(name, tmp_path / "x.safetensors")
    content = path.read_bytes()
    before = peak_memory()
    for seed in range(CASES // 3):
        path.write_bytes(mutate(content, seed))
        assert_is_survived(path)

        def change(metadata: dict[str, str], seed: int = seed) -> None:
            metadata["kwargs"] = json.dumps(replace_values(json.loads(metadata["kwargs"]), random.Random(seed)))

        path.write_bytes(with_metadata(content, change))
        assert_is_survived(path)
    assert peak_memory() - before < MEGABYTES


@pytest.mark.full
def test_bags_of_demucs(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    kind, kwargs = NETWORKS["demucs"]
    table = {"class_name": kind, "args": [], "kwargs": {**kwargs, "segment": 0.78}}
    tensors = {f"s.{key}": tensor.half().contiguous() for key, tensor in reference("demucs").state_dict().items()}
    for seed in range(CASES):
        rng = random.Random(seed)
        metadata = {"signatures": json.dumps(replace_values(["s"], rng)), "s": json.dumps(replace_values(table, rng))}
        save_file(tensors, path, metadata)
        try:
            headers.read_header(path)
        except ModelError as error:
            assert str(error).isprintable()


@pytest.mark.full
def test_onnx_files(tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    content = model(of_stem(network(1), 0)).SerializeToString()
    header = spleeter_onnx.make_header([["vocals"]], asdict(CONFIG))
    before, refused = peak_memory(), 0
    for seed in range(CASES):
        path.write_bytes(mutate(content, seed))
        began = time.process_time()
        try:
            spleeter_onnx.read_weights([path], header)
        except ModelError as error:
            refused += 1
            assert str(error).isprintable()
        assert time.process_time() - began < CPU_SECONDS
    assert refused > CASES / 4
    assert peak_memory() - before < MEGABYTES
