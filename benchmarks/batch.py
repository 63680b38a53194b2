"""How much of the time of a batch the networks compute; the rest is decoding, resampling, encoding and manifests.

    python benchmarks/batch.py [--model mini] [--songs 20] [--seconds 60] [--format wav]

The model is warm: loading it does not count.
"""

import argparse
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import soundfile
import torch

from stemsplit import devices
from stemsplit.audio.formats import Format
from stemsplit.batch.events import SeparationStarted
from stemsplit.batch.run import separate_batch
from stemsplit.models.registry import read_registry
from stemsplit.separation.outputs import Delivery
from stemsplit.separation.runner import EnsembleRunner

RATE = 44_100


def write_songs(folder: Path, count: int, seconds: float) -> None:
    """Write songs of noise, a different one each."""
    rng = np.random.default_rng(0)
    for number in range(count):
        noise = rng.standard_normal((int(seconds * RATE), 2)) * 0.1
        soundfile.write(folder / f"{number:03d}.flac", noise, RATE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--songs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--format", default="wav")
    options = parser.parse_args()
    devices.keep_freed_memory()
    busy, began, compute = 0.0, 0.0, EnsembleRunner._run_networks

    def timed(runner: EnsembleRunner, batch: list) -> torch.Tensor:
        nonlocal busy
        start = time.monotonic()
        stems = compute(runner, batch)
        busy += time.monotonic() - start
        return stems

    def on_event(event: object) -> None:
        nonlocal began
        if isinstance(event, SeparationStarted):
            began = time.monotonic()

    with tempfile.TemporaryDirectory() as folder, patch.object(EnsembleRunner, "_run_networks", timed):
        songs, stems = Path(folder) / "songs", Path(folder) / "stems"
        songs.mkdir()
        write_songs(songs, options.songs, options.seconds)
        separate_batch(
            [songs],
            stems,
            model=read_registry(None).find(options.model),
            delivery=Delivery(Format.parse(options.format)),
            on_event=on_event,
        )
        wall = time.monotonic() - began
    print(f"{options.songs} songs of {options.seconds:g} s: {wall:.1f} s, the networks {busy:.1f} s, {busy / wall:.1%}")


if __name__ == "__main__":
    main()
