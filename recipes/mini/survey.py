"""Summarise a data folder: songs and minutes of each source and stem, levels, and problems.

python recipes/mini/survey.py DIR
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from songs import RATE, STEMS, active_level, active_powers, read


@dataclass
class Total:
    """Totals for one stem of one source."""

    songs: int = 0
    seconds: float = 0.0
    active: float = 0.0  # seconds louder than -45 dB
    levels: float = 0.0  # sum of the active levels in dB


def _source(name: str) -> str:
    """Return the source of a song, which is called <source>-<number>, or by its own name if it is real."""
    first = name.split("-")[0].split("@")[0]
    return f"{first} varied" if name.endswith("-varied") else first


def main() -> None:
    parser = argparse.ArgumentParser(description="Count and check made data.")
    parser.add_argument("folder", type=Path, help="what make_data.py wrote")
    totals: defaultdict[tuple[str, str, str], Total] = defaultdict(Total)
    faults = []
    folder = parser.parse_args().folder
    for file in sorted([*folder.glob("train/*/*.wav"), *folder.glob("test/*/*.wav")]):
        audio, rate = read(file)
        total = totals[file.parts[-3], _source(file.parts[-2]), file.stem]
        total.songs += 1
        total.seconds += audio.shape[1] / RATE
        total.active += len(active_powers(audio)) / 4
        level = active_level(audio)
        total.levels += level if np.isfinite(level) else -60
        peak, offset = float(np.abs(audio).max()), float(np.abs(audio.mean()))
        lengths = {other.stat().st_size for other in file.parent.glob("*.wav")}
        if rate != RATE or len(audio) != 2 or len(lengths) > 1 or not 0.01 < peak < 0.999 or offset > 0.003:
            faults.append(
                f"{file}: {rate} Hz, {audio.shape}, peak {peak:.3f}, offset {offset:.4f}, {len(lengths)} lengths"
            )
    print(
        "| split | source | stem | songs | minutes | active minutes | active level, dB |\n|---|---|---|--:|--:|--:|--:|"
    )
    order = sorted(totals, key=lambda key: (key[0], key[1], STEMS.index(key[2])))
    for key in order:
        t = totals[key]
        row = (*key, t.songs, f"{t.seconds / 60:.1f}", f"{t.active / 60:.1f}", f"{t.levels / t.songs:.1f}")
        print("|", " | ".join(map(str, row)), "|")
    for split in ("train", "test"):
        sums = (
            f"{stem} {sum(t.active for k, t in totals.items() if k[::2] == (split, stem)) / 60:.0f}" for stem in STEMS
        )
        print(f"{split}, active minutes: {', '.join(sums)}")
    sys.exit("\n".join(faults) if faults else None)


if __name__ == "__main__":
    main()
