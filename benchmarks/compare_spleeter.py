"""Speed and memory of Spleeter's networks, against Spleeter itself: whole commands by turns, songs of growing length.

Spleeter needs a separate environment, with Python 3.8 to 3.11, and ffmpeg on the path:

    python3.11 -m venv spleeter-env
    spleeter-env/bin/pip install spleeter==2.4.2
    python benchmarks/compare_spleeter.py --spleeter spleeter-env/bin/python

Without --spleeter, only stemsplit is measured. The weights are random, as time does not depend on them.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
from demo_audio import demo_song, write_song
from memory import measure_command
from torch import nn

from stemsplit.models import checkpoint
from stemsplit.models.checkpoint import Header, Model

STEMS = ("vocals", "drums", "bass", "other")
# Spleeter's own settings, in windows of 512 frames with a hop of 480.
HEADER = Header("spleeter", {"extension": "zeros"}, STEMS, rate=44_100, channels=2, length=507 * 1024, hop=480 * 1024)


def random_model() -> Model:
    """A model with random weights, whose batch statistics are those of the demo song."""
    torch.manual_seed(0)
    model = checkpoint.new_model(HEADER)
    for layer in model.network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.kaiming_uniform_(layer.weight, mode="fan_in" if isinstance(layer, nn.Conv2d) else "fan_out")
        elif isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
    samples, _ = demo_song()
    with torch.no_grad():
        model.network.train()(torch.from_numpy(samples.T.copy())[None])
    return Model(model.header, model.network.eval())


def write_for_spleeter(model: Model, python: str, folder: Path) -> None:
    """Write the weights to `folder` as a checkpoint of Spleeter, which the interpreter `python` can import."""
    weights = {name.removeprefix("networks."): tensor.numpy() for name, tensor in model.network.state_dict().items()}
    np.savez(folder / "weights.npz", **weights)
    script = Path(__file__).with_name("spleeter_weights.py").read_bytes()
    # On standard input, so that this folder, where modules might hide those of Spleeter, is not on the path.
    command = [python, "-", str(folder / "weights.npz"), str(folder / "4stems")]
    done = subprocess.run(command, input=script, cwd=folder, capture_output=True)
    if done.returncode:
        sys.exit(f"{python} cannot write Spleeter's weights:\n{done.stderr.decode()}")


def cpu_seconds() -> float:
    """CPU time of all commands so far."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure_all(
    commands: Mapping[str, Callable[[Path], list[str]]], songs: Mapping[float, Path], runs: int
) -> dict[tuple[str, float], list[float]]:
    """Run the commands by turns on each song. Returns wall times in seconds by command and minutes of the song."""
    seconds: dict[tuple[str, float], list[float]] = {}
    print(
        f"{'':>10} {'minutes':>8} {'seconds':>8} {'range':>14} {'x real time':>12} {'CPU seconds':>12} {'peak MB':>8}"
    )
    for minutes, song in songs.items():
        results: dict[str, list[tuple[float, float, float]]] = {name: [] for name in commands}
        for _ in range(runs):
            for name, command in commands.items():
                before = cpu_seconds()
                peak, elapsed = measure_command(command(song))
                results[name].append((elapsed, cpu_seconds() - before, peak))
        for name, rows in results.items():
            wall, cpu, peaks = zip(*rows, strict=True)
            seconds[name, minutes] = list(wall)
            median, spread = statistics.median(wall), f"{min(wall):.1f} to {max(wall):.1f}"
            columns = f"{median:8.1f} {spread:>14} {minutes * 60 / median:12.1f} {statistics.median(cpu):12.1f}"
            print(f"{name:>10} {minutes:8g} {columns} {max(peaks):8.0f}", flush=True)
    return seconds


def summarize(
    seconds: Mapping[tuple[str, float], list[float]], names: Sequence[str], songs: Mapping[float, Path]
) -> None:
    """Print the time of an additional minute of audio, and how many times faster the first command is."""
    first, last = min(songs), max(songs)
    added = {}
    for name in names:
        if last > first:
            difference = statistics.median(seconds[name, last]) - statistics.median(seconds[name, first])
            added[name] = difference / (last - first)
            print(f"{name:>10} an additional minute {added[name]:.2f} s, {60 / added[name]:.1f} x real time")
    if len(names) == 2:
        one, other = names
        for minutes in songs:
            ratios = [b / a for a, b in zip(seconds[one, minutes], seconds[other, minutes], strict=True)]
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            print(f"{minutes:g} minutes: {one} is {statistics.median(ratios):.2f} times as fast, {spread}")
        if added:
            print(f"an additional minute: {added[other] / added[one]:.2f} times as fast")


def compare(ours: Path, theirs: Path) -> None:
    """Print the energy of the difference between the stems in two folders, relative to the stems, in dB."""
    for stem in STEMS:
        one, other = (soundfile.read(folder / f"{stem}.wav", dtype="float32")[0] for folder in (ours, theirs))
        difference = np.square(one - other)
        level = 10 * np.log10(difference.mean() / np.square(other).mean())
        position = (np.arange(len(one)) + 4096) % (512 * 1024)  # Spleeter does not overlap its segments
        near = (position < 16 * 1024) | (position > 496 * 1024)
        elsewhere = 10 * np.log10(difference[~near].mean() / np.square(other[~near]).mean())
        print(
            f"{stem:>10} differs by {level:.1f} dB, {elsewhere:.1f} dB away from the boundaries of Spleeter's segments"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("minutes", nargs="*", type=float, default=[1, 3])
    parser.add_argument("--spleeter", metavar="PYTHON", help="Python of the environment with Spleeter")
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} CPUs")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        songs = {minutes: folder / f"song{minutes:g}.wav" for minutes in sorted(arguments.minutes)}
        for minutes, song in songs.items():
            write_song(song, minutes * 60)
        model = random_model()
        weights = folder / "random.safetensors"
        checkpoint.save(model, weights)
        ours = [sys.executable, "-m", "stemsplit", "-q", "--overwrite", "-m", str(weights), "-o", str(folder / "ours")]
        commands = {"stemsplit": lambda song: [*ours, str(song)]}
        if arguments.spleeter:
            write_for_spleeter(model, arguments.spleeter, folder)
            os.environ["MODEL_PATH"] = str(folder)
            theirs = [arguments.spleeter, "-m", "spleeter", "separate", "-p", "spleeter:4stems"]
            theirs += ["-o", str(folder / "theirs")]
            commands["Spleeter"] = lambda song: [*theirs, str(song)]
        summarize(measure_all(commands, songs, arguments.runs), list(commands), songs)
        if arguments.spleeter:
            last = songs[max(songs)].stem
            compare(folder / "ours" / last, folder / "theirs" / last)


if __name__ == "__main__":
    main()
