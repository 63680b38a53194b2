"""The whole command on a machine that others use as well: beside some programs that compute all the time.

    python benchmarks/busy.py [--model mini] [--seconds 30] [--runs 3] [--beside 0 1 2]

By turns with the threads as stemsplit has them and as PyTorch has them by default, where a thread that waits for
another keeps its core for milliseconds.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile

RATE = 44_100
SETTINGS = {"as PyTorch has them": {"GOMP_SPINCOUNT": "300000"}, "as stemsplit has them": {}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--beside", type=int, nargs="+", default=[0, 1, 2], help="programs that compute all the time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        song = Path(folder) / "song.wav"
        noise = np.random.default_rng(0).standard_normal((int(options.seconds * RATE), 2)) * 0.1
        soundfile.write(song, noise, RATE)
        command = [sys.executable, "-m", "stemsplit", str(song), "--model", options.model, "-o", folder]
        for count in options.beside:
            others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
            seconds: dict[str, list[float]] = {name: [] for name in SETTINGS}
            for _ in range(options.runs):
                for name, setting in SETTINGS.items():
                    began = time.monotonic()
                    environment = {**os.environ, **setting}
                    subprocess.run(
                        [*command, "--quiet", "--overwrite"], env=environment, check=True, stdout=subprocess.DEVNULL
                    )
                    seconds[name].append(time.monotonic() - began)
            for other in others:
                other.kill()
            for name, values in seconds.items():
                spread = f"{min(values):.1f} to {max(values):.1f}"
                print(f"beside {count}: {statistics.median(values):6.1f} s ({spread})  threads {name}", flush=True)


if __name__ == "__main__":
    main()
