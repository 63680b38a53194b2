"""BSS Eval against museval in the same process: time, and the largest difference of the metrics.

The stems are those in a folder, or four bands of the demo song; the estimates are the stems with some crosstalk, delay
and distortion.
"""

import argparse
import importlib
import os
import statistics
import sys
import time
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt
import torch
from demo_audio import demo_song

from stemsplit.datasets.multitracks import find_songs, read_stems
from stemsplit.evaluation.bss_eval import METRICS, bss_eval

sys.modules.setdefault("musdb", ModuleType("musdb"))  # museval imports it, and it needs FFmpeg, but not for metrics
museval = importlib.import_module("museval.metrics")

STEMS = ("vocals", "drums", "bass", "other")


def demo_stems(length: int) -> torch.Tensor:
    """Four frequency bands of the demo song, repeated and quantized to 16 bits: `(S, C, length)`."""
    song, _ = demo_song()
    spectrum = torch.fft.rfft(torch.from_numpy(song.T.astype(np.float64)))
    band_edges_hz = [0, 300, 1200, 5000, spectrum.shape[-1]]
    bands = []
    for low, high in pairwise(band_edges_hz):
        gain = torch.full((spectrum.shape[-1],), 0.05)
        gain[low * len(song) // 44_100 : high * len(song) // 44_100] = 1
        bands.append(torch.fft.irfft(spectrum * gain, len(song)))
    stems = torch.stack(bands).tile(1, 1, 1 + length // len(song))[..., :length]
    return ((stems * 2**14).round() / 2**15).float()


def summary(values: list[float]) -> str:
    return f"median {statistics.median(values):.2f}, {min(values):.2f} to {max(values):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--song", type=Path, help="a folder with the stems of one song")
    parser.add_argument("--start", type=float, default=0, help="seconds")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    length, rate = int(arguments.seconds * 44_100), 44_100
    if arguments.song:
        (song,) = find_songs(arguments.song, STEMS)
        rate = song.rate
        reference = read_stems(
            song, STEMS, int(arguments.start * rate), min(int(arguments.seconds * rate), song.length)
        )
    else:
        reference = demo_stems(length)
    estimate = 0.8 * reference + 0.1 * reference.sum(0) + 0.1 * reference.roll(7, -1)
    estimate = ((estimate + 0.1 * estimate.square()) * 2**15).round() / 2**15

    def ours() -> npt.NDArray[np.float64]:
        return bss_eval(reference, estimate, rate).numpy()

    def theirs() -> npt.NDArray[np.float64]:
        both = (each.numpy().transpose(0, 2, 1).astype(np.float64) for each in (reference, estimate))
        sdr, isr, sir, sar, _ = museval.bss_eval(*both, window=rate, hop=rate)
        return np.stack([sdr, sir, isr, sar])

    seconds: dict[str, list[float]] = {"stemsplit": [], "museval": []}
    cpu: dict[str, list[float]] = {"stemsplit": [], "museval": []}
    metrics = {}
    for _ in range(arguments.runs):
        for name, work in (("museval", theirs), ("stemsplit", ours)):
            start, start_cpu = time.perf_counter(), time.process_time()
            metrics[name] = work()
            seconds[name].append(time.perf_counter() - start)
            cpu[name].append(time.process_time() - start_cpu)
    assert (np.isnan(metrics["museval"]) == np.isnan(metrics["stemsplit"])).all()
    differences = np.nanmax(np.abs(metrics["museval"] - metrics["stemsplit"]), axis=(1, 2))
    listed = ", ".join(f"{metric} {value:.1e}" for metric, value in zip(METRICS, differences, strict=True))
    defined = int((~np.isnan(metrics["museval"][0, 0])).sum())
    print(
        f"{reference.shape[-1] / rate:.0f} s, metrics defined in {defined} of them; largest difference in dB: {listed}"
    )
    print(f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")
    for clock, measured in (("wall", seconds), ("CPU", cpu)):
        for name, values in measured.items():
            print(f"  {clock:>4} {name:>9}: {summary(values)} s")
        ratios = [a / b for a, b in zip(measured["museval"], measured["stemsplit"], strict=True)]
        print(f"  {clock:>4} times as fast: {summary(ratios)}")


if __name__ == "__main__":
    main()
