"""HTDemucs on a graphics card: x real time by batch size, precision and compilation, beside the demucs package.

    python benchmarks/gpu.py [--device cuda] [--batches 1 2 4 8 16 32] [--runs 5] [--seconds 240]

Prints the table for benchmarks/README.md: windows of 7.8 s with random weights, then a whole song by demucs's
`apply_model(shifts=0)` and by `Separator`, and at last whether a batch is halved when the card has no memory left.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import numpy as np
import torch
from compare_demucs import MODELS, RATE, STEMS
from demo_audio import demo_song
from demucs.apply import apply_model
from demucs.htdemucs import HTDemucs
from torch import Tensor, nn

from stemsplit.models.checkpoint import Header, Model
from stemsplit.networks.families import build
from stemsplit.separation.options import SeparationOptions
from stemsplit.separation.separator import Separator

ARITHMETIC = ("full", "tf32", "fp16", "bf16")
LOW = {"fp16": torch.float16, "bf16": torch.bfloat16}


def finished(device: str) -> None:
    """Wait until the card has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


@contextmanager
def arithmetic(kind: str, device: str) -> Iterator[None]:
    """Compute in this precision."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = kind == "tf32"
    try:
        with torch.autocast(device, LOW[kind]) if kind in LOW else nullcontext():
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False


def first_and_median(work: Callable[[], Tensor], device: str, runs: int) -> tuple[float, float]:
    """Seconds of the first run, and the median of `runs` more."""
    seconds = []
    for _ in range(runs + 1):
        finished(device)
        began = time.perf_counter()
        work()
        finished(device)
        seconds.append(time.perf_counter() - began)
    return seconds[0], statistics.median(seconds[1:])


def graphed(network: Callable[[Tensor], Tensor], mix: Tensor) -> Callable[[], Tensor]:
    """Record what the network does on the card as one CUDA graph, and return what replays it."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            network(mix)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = network(mix)

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


def print_windows(networks: dict[str, nn.Module], window: Tensor, batches: list[int], runs: int, device: str) -> None:
    """Print x real time of one window at a time and more, in each precision."""
    print("| network | arithmetic | windows at a time | x real time | first run | memory |\n|---|---|--:|--:|--:|--:|")
    seconds_each = window.shape[-1] / RATE
    ways = {name: (network, "") for name, network in networks.items()}
    ways |= {"stemsplit, torch.compile": (networks["stemsplit"], "compile")}
    if device == "cuda":
        ways |= {"stemsplit, CUDA graph": (networks["stemsplit"], "graph")}
    for name, (network, way) in ways.items():
        for kind in ARITHMETIC:
            for batch in batches:
                mix = window.expand(batch, -1, -1).contiguous().to(device)
                torch.compiler.reset()
                if device == "cuda":
                    torch.cuda.empty_cache()
                    torch.cuda.reset_peak_memory_stats()
                try:
                    with torch.inference_mode(), arithmetic(kind, device):
                        work: Callable[[], Tensor]
                        if way == "graph":
                            work = graphed(network, mix)
                        else:
                            run = torch.compile(network) if way == "compile" else network
                            work = lambda run=run, mix=mix: run(mix)  # noqa: E731
                        first, median = first_and_median(work, device, runs)
                except Exception as error:  # which is a result as well
                    print(f"| {name} | {kind} | {batch} | {type(error).__name__} | | |", flush=True)
                    continue
                memory = f"{torch.cuda.max_memory_allocated() / 1e9:.1f} GB" if device == "cuda" else ""
                speed = batch * seconds_each / median
                print(f"| {name} | {kind} | {batch} | {speed:.0f} | {first:.1f} s | {memory} |", flush=True)


def print_song(networks: dict[str, nn.Module], samples: np.ndarray, device: str, runs: int) -> None:
    """Print x real time of a whole song in memory."""
    theirs, ours = networks["demucs"], networks["stemsplit"]
    seconds, length = samples.shape[1] / RATE, int(float(MODELS["htdemucs"][2]) * RATE)
    song = torch.from_numpy(samples)[None]
    header = Header("htdemucs", {}, STEMS, rate=RATE, channels=2, length=length, hop=int(0.75 * length))
    works: dict[str, Callable[[], Tensor]] = {
        "demucs": lambda: apply_model(theirs, song, shifts=0, device=device)[0],
    }
    for precision in ("full", "half"):
        separator = Separator(Model(header, ours), SeparationOptions(precision=precision), device=device)  # type: ignore[arg-type]
        works[f"stemsplit, {precision}"] = lambda separator=separator: torch.from_numpy(
            np.concatenate(list(separator.separate([samples], RATE)), axis=-1)
        )
    print(f"\nA song of {seconds:g} s:")
    medians = {name: first_and_median(work, device, runs)[1] for name, work in works.items()}
    for name, median in medians.items():
        print(f"- {name}: {seconds / median:.0f} x real time, {medians['demucs'] / median:.2f} times demucs")


def print_halving(network: nn.Module, samples: np.ndarray) -> None:
    """Print what is said when the card has memory for fewer windows than are asked for."""
    length = int(float(MODELS["htdemucs"][2]) * RATE)
    header = Header("htdemucs", {}, STEMS, rate=RATE, channels=2, length=length, hop=int(0.75 * length))
    separator = Separator(Model(header, network), SeparationOptions(batch_size=4096, precision="full"), device="cuda")
    for _ in separator.separate([np.tile(samples, 40)], RATE):
        pass
    print(f"\n4096 windows at a time: {separator.warnings}, then {separator.runners[0].batch_size}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=240)
    options = parser.parse_args()
    torch.manual_seed(0)
    _, settings, window_seconds = MODELS["htdemucs"]
    theirs = HTDemucs(list(STEMS), **settings).eval()
    theirs.segment = window_seconds
    ours = build("htdemucs", {}, stems=4, channels=2).eval()
    ours.load_state_dict(theirs.state_dict())
    networks = {"demucs": theirs.to(options.device), "stemsplit": ours.to(options.device)}
    demo = demo_song()[0].T
    samples = np.tile(demo, 1 + int(options.seconds * RATE) // demo.shape[1])[:, : int(options.seconds * RATE)]
    window = torch.from_numpy(np.resize(demo, (2, int(window_seconds * RATE))).astype(np.float32))[None]
    card = torch.cuda.get_device_name() if options.device == "cuda" else options.device
    print(f"{card}, torch {torch.__version__}\n")
    print_windows(networks, window, options.batches, options.runs, options.device)
    print_song(networks, np.ascontiguousarray(samples), options.device, options.runs)
    if options.device == "cuda":
        print_halving(ours, samples)


if __name__ == "__main__":
    main()
