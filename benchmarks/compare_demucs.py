"""Speed of the Demucs networks, against the demucs package in the same process.

Both have the same random weights, audio and number of threads, and run by turns: the network alone on one window, then
a song by demucs's `apply_model(shifts=0)` and by `Separator`.
"""

import argparse
import importlib
import os
import statistics
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from demo_audio import demo_song
from demucs.apply import apply_model
from torch import Tensor

from stemsplit.models.checkpoint import Header, Model
from stemsplit.networks.families import build
from stemsplit.separation.separator import Separator

STEMS = ("drums", "bass", "other", "vocals")
RATE = 44_100
# By family: the class in demucs, the arguments of the published networks, and the window in seconds.
MODELS: dict[str, tuple[str, dict[str, Any], Fraction]] = {
    "htdemucs": ("HTDemucs", {"dconv_mode": 3, "bottom_channels": 512, "segment": Fraction(39, 5)}, Fraction(39, 5)),
    "hdemucs": ("HDemucs", {}, Fraction(44)),
    "demucs": ("Demucs", {"rewrite": False}, Fraction(44)),
}


def by_turns(runs: int, *works: Callable[[], Tensor]) -> list[list[float]]:
    """Wall time in seconds of every run of each function, after one run to warm up."""
    seconds: list[list[float]] = [[] for _ in works]
    for number in range(runs + 1):
        for work, measured in zip(works, seconds, strict=True):
            start = time.perf_counter()
            work()
            if number:
                measured.append(time.perf_counter() - start)
    return seconds


def report(title: str, runs: int, theirs: Callable[[], Tensor], ours: Callable[[], Tensor]) -> None:
    """Print how far both results differ, the time of each, and their ratio."""
    expected = theirs()
    difference = float((ours() - expected).abs().max() / expected.abs().max())
    seconds = by_turns(runs, theirs, ours)
    print(f"{title} (largest difference {difference:.1e} of the peak)")
    for name, measured in zip(("demucs", "stemsplit"), seconds, strict=True):
        print(f"  {name:>9}: median {statistics.median(measured):6.2f} s, {min(measured):.2f} to {max(measured):.2f}")
    ratios = [a / b for a, b in zip(*seconds, strict=True)]
    print(
        f"  times as fast: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}", flush=True
    )


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=MODELS, default="htdemucs")
    parser.add_argument("--seconds", type=float, default=30, help="length of the song")
    parser.add_argument("--runs", type=int, default=5, help="of the network; half as many of the song")
    arguments = parser.parse_args()
    name, settings, window = MODELS[arguments.model]
    torch.manual_seed(0)
    theirs = getattr(importlib.import_module(f"demucs.{arguments.model}"), name)(list(STEMS), **settings).eval()
    theirs.segment = window
    ours = build(arguments.model, {"width": 64} if name == "Demucs" else {}, stems=4, channels=2).eval()
    ours.load_state_dict(theirs.state_dict())
    length = int(window * RATE)
    header = Header(arguments.model, {}, STEMS, rate=RATE, channels=2, length=length, hop=int(0.75 * length))
    separator = Separator(Model(header, ours))
    samples = np.tile(demo_song()[0].T, 1 + max(length, int(arguments.seconds * RATE)) // len(demo_song()[0]))
    mix, song = torch.from_numpy(samples[None, :, :length].copy()), samples[:, : int(arguments.seconds * RATE)].copy()

    def separated() -> Tensor:
        return torch.from_numpy(np.concatenate(list(separator.separate([song], RATE)), axis=-1))

    print(f"{arguments.model}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")
    title = f"the network on a window of {float(window):g} s"
    report(title, arguments.runs, lambda: theirs(mix)[0], lambda: ours(mix)[0])
    batch, runs = torch.from_numpy(song)[None], max(1, arguments.runs // 2)
    report(f"a song of {arguments.seconds:g} s", runs, lambda: apply_model(theirs, batch, shifts=0)[0], separated)


if __name__ == "__main__":
    main()
