"""Speed of a model, x real time: the network alone, file to files in a running process, and the whole command."""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from demo_audio import demo_song, write_song
from memory import measure_command

from stemsplit.separation.separator import Separator


def median_seconds(work: Callable[[], object], runs: int) -> float:
    """Median wall time of some runs, after one to warm up."""
    work()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--seconds", type=float, default=180, help="length of the song")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    separator = Separator.load(arguments.model, device="cpu")
    samples, _ = demo_song()
    print(f"{torch.get_num_threads()} threads, song of {arguments.seconds:g} s, {arguments.model}")
    share = 0.0  # of real time, that the networks of all steps take
    for runner in separator.runners:
        plan, rate = runner.plan, runner.ensemble.header.rate
        windows = [
            (member.prepare(), torch.from_numpy(samples[: member.input_length(plan.length)].T[None].copy()))
            for member in runner.ensemble.members
        ]
        with torch.inference_mode():
            seconds = median_seconds(
                lambda windows=windows: [network(window) for network, window in windows], 10 * arguments.runs
            )
        share += seconds / (plan.hop / rate)
        print(f"windows of {plan.length / rate:g} s, a new one every {plan.hop / rate:g} s: {seconds:.3f} s each")
    print(f"networks alone: {1 / share:6.1f} x real time")
    with tempfile.TemporaryDirectory() as folder:
        song, out = Path(folder) / "song.wav", Path(folder) / "out"
        write_song(song, arguments.seconds)
        outputs = {stem: out / f"{stem}.wav" for stem in separator.stems}
        seconds = median_seconds(lambda: separator.separate_file(song, outputs, overwrite=True), arguments.runs)
        print(f"file to files in a running process: {arguments.seconds / seconds:6.1f} x real time")
        command = [sys.executable, "-m", "stemsplit", "-q", "--overwrite", "-m", arguments.model]
        command += ["-o", str(out), str(song)]
        seconds = median_seconds(lambda: measure_command(command), arguments.runs)
        print(f"whole command: {arguments.seconds / seconds:6.1f} x real time")


if __name__ == "__main__":
    main()
