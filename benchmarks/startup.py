"""Wall time of `stemsplit --help`, in a fresh process."""

import statistics
import sys

from memory import measure


def main() -> None:
    command = [sys.executable, "-m", "stemsplit", "--help"]
    taken = sorted(measure(command)[1] for _ in range(11))
    print(f"stemsplit --help: median {statistics.median(taken):.3f} s, from {taken[0]:.3f} to {taken[-1]:.3f} s")


if __name__ == "__main__":
    main()
