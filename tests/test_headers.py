"""Checkpoints of others: files in exactly the layout in which the author of Demucs publishes his."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from demucs.htdemucs import HTDemucs
from safetensors.torch import save_file

from stemsplit import checkpoint, headers, registry
from stemsplit.errors import ModelError
from stemsplit.separation import Separator

SOURCES = ["drums", "bass", "other", "vocals"]
KWARGS: dict[str, Any] = {
    "sources": SOURCES,
    "samplerate": 8000,
    "segment": Fraction(39, 50),
    "channels": 8,
    "nfft": 256,
    "depth": 2,
    "dconv_mode": 3,
    "bottom_channels": 16,
    "t_layers": 3,
    "t_heads": 2,
    "t_dropout": 0.02,
}
METADATA = {"klass": "demucs.htdemucs.HTDemucs", "args": "[]"}


def as_json(value: Any) -> Any:
    """Fractions as the author writes them."""
    return {"_type": "fraction", "numerator": value.numerator, "denominator": value.denominator}


def reference(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return HTDemucs(**KWARGS).eval()


def publish(network: Any, path: Path, **changes: Any) -> Path:
    """Half precision, plain names, three strings of metadata."""
    metadata = {**METADATA, "kwargs": json.dumps(KWARGS, default=as_json), **changes}
    save_file({name: tensor.half().contiguous() for name, tensor in network.state_dict().items()}, path, metadata)
    return path


@pytest.fixture
def half(tmp_path: Path) -> Any:
    """A network whose weights lose nothing when they are published."""
    network = reference()
    network.load_state_dict({name: tensor.half().float() for name, tensor in network.state_dict().items()})
    publish(network, tmp_path / "x.safetensors")
    return network


def test_a_published_file_is_a_model(half: Any, tmp_path: Path) -> None:
    spec = registry.read().find(str(tmp_path / "x.safetensors"))
    assert (spec.family, spec.stems) == ("htdemucs", tuple(SOURCES))
    header = checkpoint.load(tmp_path / "x.safetensors").header
    assert (header.stems, header.rate, header.channels) == (tuple(SOURCES), 8000, 2)
    assert (header.length, header.hop) == (6240, 4680)  # 7.8 s, of which a quarter overlaps, at a tenth of the size


def test_its_stems_are_those_of_the_authors_program(half: Any, tmp_path: Path) -> None:
    model = checkpoint.load(tmp_path / "x.safetensors")
    mix = torch.randn(2, 2, model.header.length) * 0.1
    with torch.inference_mode():
        ours, theirs = model.network(mix), half(mix)
    assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()
    song = np.random.default_rng(0).standard_normal((2, 21_001)).astype(np.float32) * 0.1
    stems = np.concatenate(list(Separator(model).separate(np.array_split(song, 7, axis=1), 8000)), axis=2)
    assert stems.shape == (4, 2, 21_001)
    assert np.isfinite(stems).all()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"klass": "os.system"}, "a network of the class 'os.system' is not known"),
        ({"structure": "{}"}, "packed with DiffQ"),
        ({"args": "[1]"}, "arguments have no names"),
        ({"kwargs": "[]"}, "kwargs is no table"),
        ({"kwargs": "{"}, "damaged"),
        ({"kwargs": "{}"}, "damaged"),
        ({"kwargs": json.dumps({**KWARGS, "dconv_mode": 1}, default=as_json)}, "dconv_mode = 1 is not supported"),
        ({"kwargs": json.dumps({**KWARGS, "novel": 1}, default=as_json)}, "'novel' is not known"),
        ({"kwargs": json.dumps({**KWARGS, "multi_freqs": [0.5]}, default=as_json)}, "multi_freqs is not supported"),
        ({"kwargs": json.dumps({**KWARGS, "segment": {"numerator": 1, "denominator": 0}})}, "damaged"),
        ({"kwargs": json.dumps({**KWARGS, "channels": 16}, default=as_json)}, "has shape"),
        ({"kwargs": json.dumps({**KWARGS, "depth": 10**9}, default=as_json)}, "cannot be built"),
        ({"kwargs": json.dumps({**KWARGS, "sources": ["../x"]}, default=as_json)}, "stem names"),
    ],
)
def test_what_cannot_be_run_is_refused(tmp_path: Path, changes: dict[str, str], told: str) -> None:
    path = publish(reference(), tmp_path / "x.safetensors", **changes)
    with pytest.raises(ModelError, match=told):
        checkpoint.load(path)
    try:
        headers.read(path)
    except ModelError as error:
        assert "x.safetensors" in str(error)


def test_the_published_model_has_its_published_size(tmp_path: Path) -> None:
    """From the settings and the metadata of the real file, on paper: 84,025,440 bytes, as the Hub has it."""
    given = {"sources": SOURCES, "segment": Fraction(39, 5), "dconv_mode": 3, "bottom_channels": 512}
    header = headers.translate({**METADATA, "kwargs": json.dumps(given, default=as_json)})
    assert (header["length"], header["hop"], header["rate"]) == (343_980, 257_985, 44_100)
    with torch.device("meta"):
        network = checkpoint.new_model(checkpoint.Header(**{**header, "stems": tuple(header["stems"])})).network
    assert sum(tensor.numel() for tensor in network.state_dict().values()) == 41_984_456
    assert registry.read().models["htdemucs"].size == 84_025_440
