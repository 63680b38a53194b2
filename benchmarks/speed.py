"""x real time of a model: the whole command, the flow inside a warm process, and the network alone."""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from material import demo_song, write_song
from memory import measure

from stemsplit.models import checkpoint, hub, registry
from stemsplit.separation.separator import Separator


def median_seconds(work: Callable[[], object], runs: int) -> float:
    """Median wall time of some runs, after one that does not count."""
    work()
    taken = []
    for _ in range(runs):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--seconds", type=float, default=180, help="length of the song")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    model = checkpoint.load(hub.obtain(registry.read().find(arguments.model))[1][0])
    plan, rate = model.header.plan, model.header.rate
    samples, _ = demo_song()
    window = torch.from_numpy(samples[: plan.length].T[None].copy())
    with torch.inference_mode():
        seconds = median_seconds(lambda: model.network(window), 10 * arguments.runs)
    print(f"threads {torch.get_num_threads()}, song of {arguments.seconds:g} s, windows of {plan.length / rate:g} s")
    print(f"network alone, a window for every {plan.hop / rate:g} s: {plan.hop / rate / seconds:6.1f} x real time")
    with tempfile.TemporaryDirectory() as folder:
        song, out = Path(folder) / "song.wav", Path(folder) / "out"
        write_song(song, arguments.seconds)
        outputs = {stem: out / f"{stem}.wav" for stem in model.header.stems}
        seconds = median_seconds(lambda: Separator(model).separate_file(song, outputs, overwrite=True), arguments.runs)
        print(f"file to files in a warm process: {arguments.seconds / seconds:6.1f} x real time")
        command = [
            sys.executable,
            "-m",
            "stemsplit",
            "-q",
            "--overwrite",
            "-m",
            arguments.model,
            "-o",
            str(out),
            str(song),
        ]
        seconds = median_seconds(lambda: measure(command), arguments.runs)
        print(f"whole command: {arguments.seconds / seconds:6.1f} x real time")


if __name__ == "__main__":
    main()
