"""Checkpoints in the format in which Demucs is published, of small networks with random weights."""

import importlib
import json
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from support.demucs import shuffle

SOURCES = ["drums", "bass", "other", "vocals"]


TINY: dict[str, Any] = {"sources": SOURCES, "samplerate": 8000, "segment": Fraction(39, 50), "channels": 8}


# Small networks by name: the class and its arguments.
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "htdemucs": (
        "HTDemucs",
        {
            **TINY,
            "nfft": 256,
            "depth": 2,
            "dconv_mode": 3,
            "bottom_channels": 16,
            "t_layers": 3,
            "t_heads": 2,
            "t_dropout": 0.02,
        },
    ),
    "hdemucs": (
        "HDemucs",
        {**TINY, "nfft": 64, "depth": 4, "dconv_comp": 2, "norm_starts": 1, "dconv_attn": 1, "dconv_lstm": 1},
    ),
    "hdemucs of magnitudes": (
        "HDemucs",
        {**TINY, "nfft": 64, "depth": 2, "cac": False, "hybrid_old": True, "norm_starts": 999, "multi_freqs_depth": 3},
    ),
    "hdemucs in bands": (
        "HDemucs",
        {**TINY, "nfft": 1024, "depth": 4, "multi_freqs": [0.1, 0.31], "norm_starts": 999, "wiener_residual": True},
    ),
    "demucs": ("Demucs", {**TINY, "depth": 3, "rewrite": False, "normalize": False, "dconv_lstm": 2, "dconv_attn": 2}),
    "demucs with rewriting": ("Demucs", {**TINY, "depth": 2, "norm_starts": 1}),
}


def as_json(value: Any) -> Any:
    """A fraction as in the metadata of published checkpoints."""
    return {"_type": "fraction", "numerator": value.numerator, "denominator": value.denominator}


@cache
def reference(name: str) -> Any:
    """A network of the demucs package whose weights are exact in half precision."""
    kind, kwargs = NETWORKS[name]
    torch.manual_seed(0)
    network = getattr(importlib.import_module(f"demucs.{kind.lower()}"), kind)(**kwargs).eval()
    shuffle(network)
    network.load_state_dict({key: tensor.half().float() for key, tensor in network.state_dict().items()})
    return network


def publish(name: str, path: Path, **changes: str) -> Path:
    """Write a checkpoint: weights in half precision under their own names, and three strings of metadata."""
    kind, kwargs = NETWORKS[name]
    metadata = {"klass": f"demucs.{kind.lower()}.{kind}", "args": "[]", "kwargs": json.dumps(kwargs, default=as_json)}
    tensors = {key: tensor.half().contiguous() for key, tensor in reference(name).state_dict().items()}
    save_file(tensors, path, {**metadata, **changes})
    return path


BOMB = "[" * 100_000 + "]" * 100_000
