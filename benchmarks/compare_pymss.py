"""Speed and memory of RoFormers and SCNet, against pymss-core.

Both networks have the same random weights, audio and number of threads, and separate one window by turns in one
process. Time is that of the processor, over all threads, so that other programs on the machine matter less. Peak memory
is that of a process of its own for each, from its start through one window.
"""

import argparse
import importlib
import os
import resource
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from stemsplit.models import checkpoint
from stemsplit.models.registry import read_bundled

NAMES = ("pymss-core", "stemsplit")


def settings_of(model: str, depth: int | None, seconds: float | None) -> tuple[checkpoint.Header, dict[str, Any]]:
    """The header of a model, of fewer layers and a shorter window if so wished, and the settings of its network."""
    table = dict(read_bundled().find(model).header)
    depths = {"layers" if table["family"] == "scnet" else "depth": depth} if depth else {}
    length = round(seconds * table["rate"]) if seconds else table["length"]
    window = {"length": length, "hop": min(table["hop"], length)}
    header = checkpoint.make_header({**table, **window, "config": {**table["config"], **depths}})
    kind = importlib.import_module(f"stemsplit.networks.{header.family}").Config
    config = kind(**header.config)
    return header, {name: getattr(config, name) for name in kind.__dataclass_fields__}


def reference(header: checkpoint.Header, config: dict[str, Any]) -> nn.Module:
    """The network of pymss-core with these settings."""
    family, stems = header.family, len(header.stems) - bool(config.get("remainder"))
    module = importlib.import_module(f"pymss_core.modules.{'scnet' if family == 'scnet' else 'bs_roformer'}")
    if family == "scnet":
        network = module.SCNet(
            sources=list(header.stems),
            dims=[4, *config["widths"]],
            nfft=config["n_fft"],
            hop_size=config["hop"],
            win_size=config["n_fft"],
            band_SR=[*config["shares"], 1 - sum(config["shares"])],
            band_stride=config["strides"],
            band_kernel=config["kernels"],
            conv_depths=config["depths"],
            num_dplayer=config["layers"],
        )
        return network.eval()  # type: ignore[no-any-return]
    mel = family == "mel_band_roformer"
    more = {"mask_estimator_depth": config["mask_layers"], "freqs_per_bands": config["bands"]}
    if mel:  # which counts the layers of its mask estimators differently
        more = {"mlp_hidden_layers": config["mask_layers"] - 1, "num_bands": config["bands"]}
        more["match_input_audio_length"] = True
    network = getattr(module, "MelBandRoformer" if mel else "BSRoformer")(
        dim=config["width"],
        depth=config["depth"],
        stereo=True,
        num_stems=stems,
        time_transformer_depth=1,
        freq_transformer_depth=1,
        heads=config["heads"],
        dim_head=config["head_width"],
        attn_dropout=0.0,
        ff_dropout=0.0,
        stft_n_fft=config["n_fft"],
        stft_hop_length=config["hop"],
        stft_win_length=config["n_fft"],
        zero_dc=config["zero_dc"],
        mlp_expansion_factor=config["mask_expansion"],
        norm_output=mel,
        **more,
    )
    return network.eval()  # type: ignore[no-any-return]


def ours(header: checkpoint.Header, weights: dict[str, Tensor]) -> nn.Module:
    """Our network, with weights that it shares with another one."""
    return checkpoint.build_network(header, weights).eval()


@torch.inference_mode()
def peak_memory(name: str, arguments: argparse.Namespace) -> float:
    """The peak memory of this process, in MB, after one window."""
    header, config = settings_of(arguments.model, arguments.depth, arguments.seconds)
    network = reference(header, config)
    if name == "stemsplit":
        network = ours(header, network.state_dict())
    network(0.1 * torch.randn(1, 2, header.length))
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage / (1e6 if sys.platform == "darwin" else 1e6 / 1024)


def processor_time(work: Callable[[], Tensor]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


@torch.inference_mode()
def compare_times(arguments: argparse.Namespace) -> None:
    """Print how far both results differ, the time of each, and their ratio."""
    torch.manual_seed(0)
    header, config = settings_of(arguments.model, arguments.depth, arguments.seconds)
    theirs = reference(header, config)
    networks = dict(zip(NAMES, (theirs, ours(header, theirs.state_dict())), strict=True))
    mix = 0.1 * torch.randn(1, 2, header.length)
    expected = theirs(mix)
    expected = expected if expected.dim() == 4 else expected.unsqueeze(1)
    difference = (networks["stemsplit"](mix)[:, : expected.shape[1]] - expected).abs().max() / expected.abs().max()
    print(f"largest difference {float(difference):.1e} of the peak", flush=True)
    times: dict[str, list[float]] = {name: [] for name in NAMES}
    for _ in range(arguments.runs):
        for name, network in networks.items():
            times[name].append(processor_time(partial(network, mix)))
    for name, measured in times.items():
        spread = f"{min(measured):.2f} to {max(measured):.2f}"
        print(f"{name:>10}: median {statistics.median(measured):.2f} s of processor time, {spread}", flush=True)
    ratios = [a / b for a, b in zip(*times.values(), strict=True)]
    print(f"times as fast: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}", flush=True)


def compare_memory() -> None:
    """Print the peak memory of a process of its own for each."""
    for name in NAMES:
        subprocess.run([sys.executable, *sys.argv, "--peak-of", name], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mel_roformer_kim")
    parser.add_argument("--depth", type=int, help="layers, if not as many as the model has: quicker, at the same ratio")
    parser.add_argument("--seconds", type=float, help="length of the window, if not that of the model")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=("time", "memory"))
    parser.add_argument("--peak-of", choices=NAMES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")  # of the reference, about SCNet's missing window
    if arguments.peak_of:
        print(f"{arguments.peak_of:>10}: peak memory {peak_memory(arguments.peak_of, arguments):.0f} MB", flush=True)
        return
    print(f"{arguments.model}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}", flush=True)
    if arguments.only != "memory":
        compare_times(arguments)
    if arguments.only != "time":
        compare_memory()


if __name__ == "__main__":
    main()
