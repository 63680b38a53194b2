"""Separate one song: writes FOLDER/vocals.flac and the like.

python examples/separate_file.py SONG FOLDER [MODEL]
"""

import sys
from pathlib import Path

from stemsplit import Separator, StemsplitError


def main(song: str, folder: str, model: str = "mini") -> None:
    try:
        separator = Separator.load(model)
        outputs = {stem: Path(folder) / f"{stem}.flac" for stem in separator.stems}
        report = separator.separate_file(song, outputs)
    except StemsplitError as error:
        sys.exit(f"{error} ({error.hint})")
    print(f"{report.length / report.rate:.1f} s at {report.rate} Hz, {report.clipped} samples clipped")


if __name__ == "__main__":
    main(*sys.argv[1:])
