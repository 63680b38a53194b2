"""BSS Eval here and in museval, side by side in one process: the figures of one song, their difference, the seconds.

The song is a folder of stems, or the demo song cut into four; the estimates are the stems with something of each other.
"""

import argparse
import os
import statistics
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from material import demo_song
from museval import metrics as museval

from stemsplit.datasets.multitracks import find_songs, read_stems
from stemsplit.evaluation.bss_eval import METRICS, bss_eval

STEMS = ("vocals", "drums", "bass", "other")


def demo_stems(length: int) -> torch.Tensor:
    """Four bands of the demo song, repeated, `(S, C, length)`, with 16 bits."""
    song, _ = demo_song()
    spectrum = torch.fft.rfft(torch.from_numpy(song.T.astype(np.float64)))
    edges = [0, 300, 1200, 5000, spectrum.shape[-1]]
    bands = []
    for low, high in pairwise(edges):
        share = torch.full((spectrum.shape[-1],), 0.05)
        share[low * len(song) // 44_100 : high * len(song) // 44_100] = 1
        bands.append(torch.fft.irfft(spectrum * share, len(song)))
    whole = torch.stack(bands).tile(1, 1, 1 + length // len(song))[..., :length]
    return ((whole * 2**14).round() / 2**15).float()


def spread(values: list[float]) -> str:
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
        true = read_stems(song, STEMS, int(arguments.start * rate), min(int(arguments.seconds * rate), song.length))
    else:
        true = demo_stems(length)
    estimate = 0.8 * true + 0.1 * true.sum(0) + 0.1 * true.roll(7, -1)
    estimate = ((estimate + 0.1 * estimate.square()) * 2**15).round() / 2**15

    def ours() -> npt.NDArray[np.float64]:
        return bss_eval(true, estimate, rate).numpy()

    def theirs() -> npt.NDArray[np.float64]:
        both = (each.numpy().transpose(0, 2, 1).astype(np.float64) for each in (true, estimate))
        sdr, isr, sir, sar, _ = museval.bss_eval(*both, window=rate, hop=rate)
        return np.stack([sdr, sir, isr, sar])

    seconds: dict[str, list[float]] = {"stemsplit": [], "museval": []}
    cpu: dict[str, list[float]] = {"stemsplit": [], "museval": []}
    found = {}
    for _ in range(arguments.runs):
        for name, work in (("museval", theirs), ("stemsplit", ours)):
            began, began_cpu = time.perf_counter(), time.process_time()
            found[name] = work()
            seconds[name].append(time.perf_counter() - began)
            cpu[name].append(time.process_time() - began_cpu)
    assert (np.isnan(found["museval"]) == np.isnan(found["stemsplit"])).all()
    apart = np.nanmax(np.abs(found["museval"] - found["stemsplit"]), axis=(1, 2))
    told = ", ".join(f"{metric} {value:.1e}" for metric, value in zip(METRICS, apart, strict=True))
    counted = int((~np.isnan(found["museval"][0, 0])).sum())
    print(f"{true.shape[-1] / rate:.0f} s, {counted} of them with figures; largest difference in dB: {told}")
    print(f"{torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}")
    for what, taken in (("wall", seconds), ("CPU", cpu)):
        for name, values in taken.items():
            print(f"  {what:>4} {name:>9}: {spread(values)} s")
        ratios = [a / b for a, b in zip(taken["museval"], taken["stemsplit"], strict=True)]
        print(f"  {what:>4} times as fast: {spread(ratios)}")


if __name__ == "__main__":
    main()
