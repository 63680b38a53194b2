"""Separate all songs of a folder; run again, it goes on where it stopped.

python examples/separate_folder.py FOLDER OUTPUT [MODEL]
"""

import sys

from stemsplit import StemsplitError, separate_batch
from stemsplit.batch.events import Done, Event, Skipped, SongProgress


def show(event: Event) -> None:
    match event:
        case SongProgress(track=track, done=done, total=total) if total:
            print(f"\r{track.label}: {done / total:.0%}", end="", file=sys.stderr)
        case Done(track=track, seconds=seconds):
            print(f"{track.label}: separated in {seconds:.1f} s")
        case Skipped(track=track):
            print(f"{track.label}: complete already")


def main(folder: str, output: str, model: str = "mini") -> int:
    report = separate_batch(folder, output, model=model, skip_existing=True, on_event=show)
    for failure in report.failed:
        print(f"{failure.source}: {failure.error}")
    return 1 if report.failed else 0


if __name__ == "__main__":
    if not 2 <= len(sys.argv) - 1 <= 3:
        sys.exit(__doc__)
    try:
        sys.exit(main(*sys.argv[1:]))
    except StemsplitError as error:
        sys.exit(f"{error} ({error.hint})")
