"""Pairs of networks with the same weights: one of the pymss-core package, the reference, and one of stemsplit."""

import importlib
from typing import Any

import torch
from torch import Tensor, nn

from stemsplit.networks.families import build

CLASSES = {"bs_roformer": "BSRoformer", "mel_band_roformer": "MelBandRoformer", "scnet": "SCNet"}
SMALL_BANDS = [2] * 8 + [4] * 6 + [12] * 4 + [20, 21]  # 129 bins

# Small networks: family, and settings here.
SMALL_SCNETS: dict[str, tuple[str, dict[str, Any]]] = {
    "scnet": (
        "scnet",
        {"n_fft": 512, "hop": 128, "widths": [8, 12, 16], "shares": [0.2, 0.35], "layers": 4, "expansion": 2},
    ),
    "scnet, the top thinned out less": (
        "scnet",
        {"n_fft": 512, "hop": 128, "widths": [8, 12], "shares": [0.2, 0.35], "layers": 2, "depths": [1, 2, 2]}
        | {"strides": [1, 4, 4], "kernels": [3, 4, 4], "compress": 2, "kernel": 5},
    ),
}
SMALL_ROFORMERS: dict[str, tuple[str, dict[str, Any]]] = {
    "bs_roformer": (
        "bs_roformer",
        {"n_fft": 256, "hop": 64, "width": 24, "depth": 2, "heads": 2, "head_width": 16, "bands": SMALL_BANDS},
    ),
    "bs_roformer, hop does not divide": (
        "bs_roformer",
        {"n_fft": 256, "hop": 55, "width": 24, "depth": 1, "heads": 3, "head_width": 8, "bands": SMALL_BANDS}
        | {"mask_expansion": 2, "zero_dc": False},
    ),
    "mel_band_roformer": (
        "mel_band_roformer",
        {"n_fft": 256, "hop": 55, "width": 24, "depth": 2, "heads": 2, "head_width": 16, "bands": 12},
    ),
    "mel_band_roformer, two linear layers": (
        "mel_band_roformer",
        {"n_fft": 512, "hop": 128, "width": 24, "depth": 1, "heads": 2, "head_width": 16, "bands": 20}
        | {"mask_layers": 2, "mask_expansion": 1, "zero_dc": False},
    ),
}


def reference(family: str, config: dict[str, Any], *, stems: int, channels: int) -> Any:
    """A network of the package. All of our settings have another name there."""
    ours = importlib.import_module(f"stemsplit.networks.{family}").Config(**config)
    if family == "scnet":
        return _reference_scnet(ours, stems=stems, channels=channels)
    bands = {"freqs_per_bands": tuple(ours.bands)} if family == "bs_roformer" else {"num_bands": ours.bands}
    # There the number of layers counts differently in the two families; this counts the hidden ones in both.
    masks = {"mask_estimator_depth": ours.mask_layers} if family == "bs_roformer" else {}
    more = {} if family == "bs_roformer" else {"match_input_audio_length": True, "sample_rate": ours.rate}
    hidden = {} if family == "bs_roformer" else {"mlp_hidden_layers": ours.mask_layers - 1}
    kind = getattr(importlib.import_module("pymss_core.modules.bs_roformer"), CLASSES[family])
    return kind(
        dim=ours.width,
        depth=ours.depth,
        stereo=channels == 2,
        num_stems=stems,
        time_transformer_depth=1,
        freq_transformer_depth=1,
        dim_head=ours.head_width,
        heads=ours.heads,
        attn_dropout=0.0,
        ff_dropout=0.0,
        stft_n_fft=ours.n_fft,
        stft_hop_length=ours.hop,
        stft_win_length=ours.n_fft,
        zero_dc=ours.zero_dc,
        mlp_expansion_factor=ours.mask_expansion,
        norm_output=family == "mel_band_roformer",
        **bands,
        **masks,
        **hidden,
        **more,
    )


def _reference_scnet(ours: Any, *, stems: int, channels: int) -> Any:
    return importlib.import_module("pymss_core.modules.scnet").SCNet(
        sources=[f"stem{index}" for index in range(stems)],
        audio_channels=channels,
        dims=[2 * channels, *ours.widths],
        nfft=ours.n_fft,
        hop_size=ours.hop,
        win_size=ours.n_fft,
        band_SR=[*ours.shares, 1 - sum(ours.shares)],
        band_stride=ours.strides,
        band_kernel=ours.kernels,
        conv_depths=ours.depths,
        compress=ours.compress,
        conv_kernel=ours.kernel,
        num_dplayer=ours.layers,
        expand=ours.expansion,
    )


def shuffle(network: nn.Module, seed: int = 0) -> None:
    """Randomize the weights that do little in a new network: norms and biases."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.dim() == 1 and not name.endswith("freqs"):
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))


def pair(family: str, config: dict[str, Any], *, stems: int, channels: int = 2) -> tuple[Any, nn.Module]:
    """The reference and our network, with the same weights."""
    torch.manual_seed(0)
    theirs = reference(family, config, stems=stems, channels=channels)
    shuffle(theirs)
    ours = build(family, config, stems=stems, channels=channels)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return theirs, ours


def separated(network: nn.Module, mix: Tensor) -> Tensor:
    """The stems `(B, S, C, N)`; the reference leaves out the axis of a single one."""
    stems: Tensor = network(mix)
    return stems if stems.dim() == 4 else stems.unsqueeze(1)


def noise(*shape: int) -> Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(shape[-1])) + 0.01


def difference(result: Tensor, expected: Tensor) -> float:
    """The largest absolute difference, relative to the peak of `expected`."""
    assert result.shape == expected.shape
    assert result.dtype == torch.float32
    return float((result - expected).abs().max() / expected.abs().max())


def gradient_difference(theirs: nn.Module, ours: nn.Module, mix: Tensor, weights: Tensor) -> float:
    """The largest difference of a gradient, relative to the peak of all; every parameter must have one.

    Args:
        theirs: The reference.
        ours: The network with the same weights.
        mix: The mixture `(B, C, N)`.
        weights: Of each sample of the stems in the loss, `(B, S, C, N)`.
    """
    for network in (theirs, ours):
        (network.train()(mix) * weights).sum().backward()
    expected = {key: parameter.grad for key, parameter in theirs.named_parameters() if parameter.requires_grad}
    parameters = dict(ours.named_parameters())
    assert parameters.keys() == expected.keys()
    errors, peak = [], 0.0
    for key, parameter in parameters.items():
        reference_gradient = expected[key]
        assert parameter.grad is not None
        assert reference_gradient is not None
        assert parameter.grad.abs().max() > 0
        errors.append(float((parameter.grad - reference_gradient).abs().max()))
        peak = max(peak, float(reference_gradient.abs().max()))
    return max(errors) / peak
