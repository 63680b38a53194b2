"""Pairs of small networks with the same weights: one of the demucs package, the reference, and one of stemsplit."""

import importlib
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from stemsplit.networks.families import build

STEMS = ("drums", "bass", "other", "vocals", "guitar", "piano")


CLASSES = {"demucs": "Demucs", "hdemucs": "HDemucs", "htdemucs": "HTDemucs"}


# Arguments of the published checkpoints where they differ from the defaults of the classes.
PUBLISHED: dict[str, dict[str, Any]] = {
    "demucs": {"channels": 64, "rewrite": False},
    "hdemucs": {"dconv_init": 1e-3},
    "htdemucs": {"dconv_mode": 3, "bottom_channels": 512, "t_dropout": 0.02, "segment": Fraction(39, 5)},
}


# Small networks: family, its settings here, and the same settings in the reference.
SMALL: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "htdemucs": (
        "htdemucs",
        {"n_fft": 256, "width": 8, "depth": 2, "bottom_channels": 16, "layers": 3, "heads": 2, "length": 5001},
        {"nfft": 256, "channels": 8, "depth": 2, "bottom_channels": 16, "t_layers": 3, "t_heads": 2},
    ),
    "htdemucs without resizing": (
        "htdemucs",
        {"n_fft": 512, "width": 8, "depth": 3, "bottom_channels": 0, "layers": 2, "heads": 4, "length": 5001},
        {"nfft": 512, "channels": 8, "depth": 3, "bottom_channels": 0, "t_layers": 2, "t_heads": 4},
    ),
    "hdemucs": (
        "hdemucs",
        {"n_fft": 64, "width": 8, "depth": 4, "norm_starts": 1, "memory_starts": 1},
        {"nfft": 64, "channels": 8, "depth": 4, "norm_starts": 1, "dconv_attn": 1, "dconv_lstm": 1},
    ),
    "hdemucs whose branches merge in the last layer": (
        "hdemucs",
        {"n_fft": 64, "width": 8, "depth": 2},
        {"nfft": 64, "channels": 8, "depth": 2},
    ),
    "hdemucs of magnitudes": (
        "hdemucs",
        {"n_fft": 64, "width": 8, "depth": 3, "magnitude": True, "zero_padding": True},
        {"nfft": 64, "channels": 8, "depth": 3, "cac": False, "hybrid_old": True},
    ),
    "hdemucs in bands": (
        "hdemucs",
        {"n_fft": 1024, "width": 8, "depth": 4, "bands": [0.1, 0.31]},
        {"nfft": 1024, "channels": 8, "depth": 4, "multi_freqs": [0.1, 0.31]},
    ),
    "demucs": (
        "demucs",
        {"width": 8, "depth": 3, "norm_starts": 1, "memory_starts": 1},
        {"channels": 8, "depth": 3, "norm_starts": 1, "dconv_attn": 1, "dconv_lstm": 1},
    ),
    "demucs with rewriting, not normalized": (
        "demucs",
        {"width": 8, "depth": 2, "rewrite": True, "normalize": False},
        {"channels": 8, "depth": 2, "rewrite": True, "normalize": False},
    ),
}


def reference(family: str, settings: dict[str, Any], *, stems: int, channels: int) -> Any:
    """A network of the demucs package."""
    kind = getattr(importlib.import_module(f"demucs.{family}"), CLASSES[family])
    return kind(list(STEMS[:stems]), audio_channels=channels, **{**PUBLISHED[family], **settings})


def shuffle(network: nn.Module, seed: int = 0) -> None:
    """Randomize the weights that do nothing in a new network: norms, layer scales, biases, decays of attention."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("scale"):
                parameter.copy_(0.5 * noise)
            elif parameter.dim() == 1 or "query_decay" in name:
                parameter.add_(0.3 * noise)


def noise(*shape: int) -> Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(shape[-1])) + 0.01


def pair(name: str, *, stems: int, channels: int) -> tuple[Any, nn.Module]:
    """The reference and our network, with the same weights."""
    family, config, settings = SMALL[name]
    if family == "htdemucs":
        settings = {**settings, "segment": Fraction(config["length"], 44_100)}
    torch.manual_seed(
        0
    )  # with some other seeds a ReLU is zero everywhere, and no gradient reaches the layers before it
    theirs = reference(family, settings, stems=stems, channels=channels)
    shuffle(theirs)
    ours = build(family, config, stems=stems, channels=channels)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours


def difference(result: Tensor, expected: Tensor) -> float:
    """The largest absolute difference, relative to the peak of `expected`."""
    assert result.shape == expected.shape
    assert result.dtype == torch.float32
    return float((result - expected).abs().max() / expected.abs().max())
