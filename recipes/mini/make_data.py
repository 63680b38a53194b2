"""Make the training and test songs of the bundled model `mini` from the sources in DATA.md.

python recipes/mini/make_data.py --sources DIR --out DIR [--seed 1] [--only PART ...] [--processes 2]
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from itertools import zip_longest
from pathlib import Path

import arrangements
import bands
import drumming
import electronic
import ensembles
import heldout
import recordings
import vocals
from songs import Job, generator, write_song

PARTS = {
    "songs": lambda options: recordings.song_jobs(options.sources),
    "solos": lambda options: recordings.solo_jobs(options.sources),
    "arrangements": lambda options: arrangements.jobs(options.sources, options.fonts)[:73],
    "drumming": lambda options: drumming.jobs(options.sources, options.fonts, count=160),
    "vocals": lambda options: vocals.jobs(options.sources, count=70),
    "electronic": lambda options: electronic.jobs(options.sources, count=240),
    "instrumentals": lambda options: electronic.instrumental_jobs(options.sources, count=60),
    "bands": lambda options: bands.jobs(options.sources, options.fonts, count=32),
    "ensembles": lambda options: ensembles.jobs(options.sources, options.fonts, count=300),
    "found": lambda options: recordings.found_jobs(options.sources),
    "heldout": lambda options: heldout.jobs(options.sources, options.fonts),
    "varied": lambda options: arrangements.jobs(options.sources, options.fonts, again=True)[:24],
}


def make(job: Job, *, out: Path, seed: int) -> str:
    """Make one song unless it exists, and return a line about it."""
    folder = out / job.split / job.name
    if folder.exists():
        return f"{job.split}/{job.name}: there already"
    began = time.monotonic()
    write_song(folder, job.make(generator(seed, job.name)))
    return f"{job.split}/{job.name}: {time.monotonic() - began:.1f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the data of the model mini (see DATA.md).")
    parser.add_argument("--sources", type=Path, required=True, help="folder laid out as in DATA.md")
    parser.add_argument(
        "--out", type=Path, required=True, help="gets train/<song>/<stem>.wav and test/<song>/<stem>.wav"
    )
    parser.add_argument("--fonts", type=Path, default=Path("/usr/share/sounds"), help="holds sf2/")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--only", choices=sorted(PARTS), nargs="+", default=sorted(PARTS), metavar="PART", help="%(choices)s"
    )
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    # One job of each part in turn, so that the data is varied at any time.
    rows = zip_longest(*(PARTS[part](options) for part in options.only))
    jobs = [job for row in rows for job in row if job is not None]
    failures = 0
    with ProcessPoolExecutor(options.processes) as pool:
        futures = {pool.submit(partial(make, job, out=options.out, seed=options.seed)): job for job in jobs}
        for done, future in enumerate(as_completed(futures), 1):
            error = future.exception()
            failures += error is not None
            job = futures[future]
            line = f"{job.split}/{job.name}: {error!r}" if error else future.result()
            print(f"{done}/{len(jobs)} {line}", flush=True)
    if failures:
        sys.exit(f"{failures} of {len(jobs)} songs could not be made")


if __name__ == "__main__":
    main()
