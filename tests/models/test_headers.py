"""Checkpoints of others: files in exactly the layout in which the author of Demucs publishes his."""

import importlib
import inspect
import json
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.demucs import difference, noise
from support.demucs_files import BOMB, NETWORKS, SOURCES, as_json, publish, reference

from stemsplit.errors import ModelError
from stemsplit.models import checkpoint, headers, registry
from stemsplit.separation.separator import Separator

TOLERANCE = 1e-5  # of the peak


@pytest.mark.full
@pytest.mark.parametrize("name", NETWORKS)
def test_a_published_file_is_a_model(tmp_path: Path, name: str) -> None:
    path = publish(name, tmp_path / "x.safetensors")
    spec = registry.read_bundled().find(str(path))
    assert (spec.family, spec.stems) == (name.split()[0], ("vocals", "drums", "bass", "other"))
    header = checkpoint.load(path).header
    assert (header.stems, header.rate, header.channels) == (tuple(SOURCES), 8000, 2)  # in the order of the output
    assert (header.length, header.hop) == (6240, 4680)  # 7.8 s, of which a quarter overlaps, at a tenth of the size


@pytest.mark.full
@pytest.mark.parametrize("name", NETWORKS)
@torch.no_grad()
def test_its_stems_are_those_of_the_authors_program(tmp_path: Path, name: str) -> None:
    model = checkpoint.load(publish(name, tmp_path / "x.safetensors"))
    mix = noise(2, 2, model.header.length)
    assert difference(model.network(mix), reference(name)(mix)) <= TOLERANCE


@pytest.mark.full
def test_it_separates_songs(tmp_path: Path) -> None:
    model = checkpoint.load(publish("hdemucs in bands", tmp_path / "x.safetensors"))
    song = np.random.default_rng(0).standard_normal((2, 21_001)).astype(np.float32) * 0.1
    stems = np.concatenate(list(Separator(model).separate(np.array_split(song, 7, axis=1), 8000)), axis=2)
    assert stems.shape == (4, 2, 21_001)
    assert np.isfinite(stems).all()


@pytest.mark.parametrize("name", headers.CLASSES)
def test_every_argument_of_the_class_is_known_with_its_default(name: str) -> None:
    known = headers.CLASSES[name]
    kind = getattr(importlib.import_module(f"demucs.{known.family}"), name)
    defaults = {key: given.default for key, given in inspect.signature(kind).parameters.items()}
    groups = [set(known.config), set(known.fixed), set(known.ignored)]
    assert set().union(*groups) == set(defaults)
    assert sum(map(len, groups)) == len(defaults)
    assert {key: default for key, (_, default) in {**known.config, **known.fixed}.items()} == {
        key: default for key, default in defaults.items() if key not in known.ignored
    }
    assert defaults["segment"] == known.segment


@pytest.mark.full
@pytest.mark.parametrize("name", headers.CLASSES)
def test_what_is_not_given_has_the_default_of_the_class(name: str) -> None:
    known = headers.CLASSES[name]
    needed = {"dconv_mode": 3} if name == "HTDemucs" else {}
    header = headers.translate_class(name, [], {"sources": SOURCES, **needed})
    with torch.device("meta"):
        ours = checkpoint.new_model(checkpoint.Header(**{**header, "stems": tuple(header["stems"])})).network
        kind = getattr(importlib.import_module(f"demucs.{known.family}"), name)
        theirs = kind(SOURCES, rescale=0, **needed).state_dict()
    assert {k: t.shape for k, t in ours.state_dict().items()} == {k: t.shape for k, t in theirs.items()}


def changed(name: str, **kwargs: Any) -> dict[str, str]:
    return {"kwargs": json.dumps({**NETWORKS[name][1], **kwargs}, default=as_json)}


# Values that some of our networks cannot honour: the only one that they can is another.
UNSUPPORTED: dict[str, list[tuple[str, Any]]] = {
    "htdemucs": [("multi_freqs", [0.5]), ("norm_groups", 2), ("t_sin_random_shift", 3), ("use_train_segment", False)],
    "hdemucs": [
        *[("hybrid", False), ("wiener_iters", 1), ("end_iters", 1)],
        *[("channels_time", 4), ("growth", 3), ("rewrite", False), ("freq_emb", 0.1), ("emb_scale", 1)],
        *[("kernel_size", 4), ("stride", 2), ("time_stride", 4), ("context", 0), ("context_enc", 1)],
        *[("norm_groups", 2), ("dconv_mode", 3), ("dconv_depth", 1)],
    ],
    "hdemucs in bands": [("multi_freqs_depth", 3)],
    "demucs": [
        *[("growth", 1.5), ("lstm_layers", 2), ("kernel_size", 4), ("stride", 2), ("context", 2), ("gelu", False)],
        *[("glu", False), ("norm_groups", 2), ("dconv_mode", 0), ("dconv_depth", 1), ("resample", False)],
    ],
}


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        ("hdemucs", {"klass": "os.system"}, "unknown network class 'os.system'"),
        ("hdemucs", {"klass": "demucs.hdemucs.HTDemucs"}, "unknown network class"),
        ("hdemucs", {"klass": "demucs.demucs.Demucs"}, "unknown argument 'nfft'"),
        *[("hdemucs", changed("hdemucs", dconv_lstm=level), f"not supported beside {level}") for level in (2, 999)],
        ("demucs", changed("demucs", dconv_attn=3), "dconv_attn = 3 is not supported beside 2"),
        ("demucs", {"structure": "{}"}, "packed with DiffQ"),
        ("demucs", {"args": "[1]"}, "arguments have no names"),
        ("demucs", {"kwargs": "[]"}, "kwargs must be a table"),
        ("demucs", {"kwargs": "{"}, "invalid header"),
        ("demucs", {"kwargs": "{}"}, "invalid header"),
        ("demucs", {"kwargs": BOMB}, "invalid header"),
        ("demucs", {"args": BOMB}, "invalid header"),
        *[
            (name, changed(name, **{argument: value}), rf"{argument} = .* is not supported, only")
            for name, pairs in UNSUPPORTED.items()
            for argument, value in pairs
        ],
        *[(name, changed(name, novel=1), "unknown argument 'novel'") for name in NETWORKS],
        *[(name, changed(name, segment={"numerator": 1, "denominator": 0}), "invalid header") for name in NETWORKS],
        *[(name, changed(name, segment="1e999999999"), "invalid") for name in NETWORKS],
        *[(name, changed(name, segment=float("nan")), "invalid header") for name in NETWORKS],
        *[(name, changed(name, samplerate="8000"), "invalid header") for name in NETWORKS],
        *[(name, changed(name, audio_channels=[2]), "invalid channels") for name in NETWORKS],
        *[(name, changed(name, channels=16), "has shape") for name in NETWORKS],
        *[(name, changed(name, depth=10**9), "cannot be built") for name in NETWORKS],
        *[(name, changed(name, sources=["../x"]), "stem names") for name in NETWORKS],
        *[(name, changed(name, sources="abcd"), "invalid header") for name in NETWORKS],
        *[(name, changed(name, sources=SOURCES[:3]), "has shape") for name in NETWORKS],
        *[(name, changed(name, cac=0), "invalid header") for name in ("hdemucs", "hdemucs in bands")],
        *[(name, changed(name, multi_freqs=["0.5"]), "cannot be built") for name in ("hdemucs", "hdemucs in bands")],
        ("hdemucs in bands", changed("hdemucs in bands", multi_freqs=[0.1]), "missing or unknown"),
        ("hdemucs", changed("hdemucs", hybrid_old="yes"), "cannot be built"),
        ("demucs", changed("demucs", rewrite=True), "missing or unknown"),
        ("demucs", changed("demucs", normalize=0), "cannot be built"),
    ],
)
def test_what_cannot_be_run_is_refused(tmp_path: Path, name: str, changes: dict[str, str], told: str) -> None:
    path = publish(name, tmp_path / "x.safetensors", **changes)
    with pytest.raises(ModelError, match=told) as caught:
        checkpoint.load(path)
    assert "x.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    try:
        headers.read_header(path)
    except ModelError as error:
        assert "x.safetensors" in str(error)


def test_metadata_may_be_null(tmp_path: Path) -> None:
    """As MLX writes it."""
    text = json.dumps({"__metadata__": None}).encode()
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    assert headers.read_header(tmp_path / "x.safetensors") is None


@pytest.mark.parametrize(("own", "bag", "length"), [(7.8, 44, 62_400), (50, 44, 352_000), ("39/5", 5, 40_000)])
def test_a_bag_may_have_windows_of_its_own(own: Any, bag: float, length: int) -> None:
    """Hybrid Transformer Demucs takes no more than it was trained for, the others take any."""
    _, kwargs = NETWORKS["htdemucs"]
    header = headers.translate_class("HTDemucs", [], {**kwargs, "segment": own}, segment=bag)
    assert header["length"] == header["config"]["length"] == length
    _, kwargs = NETWORKS["demucs"]
    assert headers.translate_class("Demucs", [], {**kwargs, "segment": own}, segment=bag)["length"] == bag * 8000


def test_the_published_model_has_its_published_size() -> None:
    """From the settings and the metadata of the real file, on paper: 84,025,440 bytes, as the Hub has it."""
    given = {"sources": SOURCES, "segment": as_json(Fraction(39, 5)), "dconv_mode": 3, "bottom_channels": 512}
    header = headers.translate_class("HTDemucs", [], given)
    assert (header["length"], header["hop"], header["rate"]) == (343_980, 257_985, 44_100)
    with torch.device("meta"):
        network = checkpoint.new_model(checkpoint.Header(**{**header, "stems": tuple(header["stems"])})).network
    assert sum(tensor.numel() for tensor in network.state_dict().values()) == 41_984_456
    assert registry.read_bundled().models["htdemucs"].size == 84_025_440
