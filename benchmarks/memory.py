"""Peak memory and time of the `stemsplit` command for songs of growing length."""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from demo_audio import write_song


def measure_command(command: list[str]) -> tuple[float, float]:
    """Run a command and return its peak resident memory in MB and its wall time in seconds."""
    start = time.monotonic()
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    process = os.posix_spawnp(command[0], command, os.environ, file_actions=quiet)
    _, status, usage = os.wait4(process, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    # Linux counts in KiB, macOS in bytes.
    return usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e6 / 1024), time.monotonic() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("minutes", nargs="*", type=float, default=[1, 10, 60], help="lengths of songs (1 10 60)")
    parser.add_argument("--model", default="mini")
    arguments = parser.parse_args()
    print(f"{'minutes':>8} {'peak MB':>8} {'seconds':>8} {'x real time':>12}")
    for minutes in arguments.minutes:
        with tempfile.TemporaryDirectory() as folder:
            song = Path(folder) / "song.wav"
            write_song(song, minutes * 60)
            command = [sys.executable, "-m", "stemsplit", "-q", "-m", arguments.model, "-o", folder + "/out", str(song)]
            peak, seconds = measure_command(command)
            print(f"{minutes:8g} {peak:8.0f} {seconds:8.1f} {minutes * 60 / seconds:12.1f}", flush=True)


if __name__ == "__main__":
    main()
