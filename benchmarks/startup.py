"""Wall time of `stemsplit --help`, each run in a new process."""

import argparse
import statistics
import sys

from memory import measure_command


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=11)
    command = [sys.executable, "-m", "stemsplit", "--help"]
    seconds = [measure_command(command)[1] for _ in range(parser.parse_args().runs)]
    print(f"stemsplit --help: median {statistics.median(seconds):.3f} s, {min(seconds):.3f} to {max(seconds):.3f} s")


if __name__ == "__main__":
    main()
