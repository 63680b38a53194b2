"""Separate one song: writes FOLDER/vocals.flac and the like.

python examples/separate_file.py SONG FOLDER [MODEL]
"""

import sys
from pathlib import Path

from stemsplit import Separator, StemsplitError


def main(song: str, folder: str, model: str = "mini") -> None:
    separator = Separator.load(model)
    outputs = {stem: Path(folder) / f"{stem}.flac" for stem in separator.stems}
    report = separator.separate_file(song, outputs)
    print(f"{report.length / report.rate:.1f} s at {report.rate} Hz, {report.clipped} samples clipped")


if __name__ == "__main__":
    if not 2 <= len(sys.argv) - 1 <= 3:
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except StemsplitError as error:
        sys.exit(f"{error} ({error.hint})")
