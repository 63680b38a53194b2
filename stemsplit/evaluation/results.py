"""The folder that an evaluation leaves: `report.html`, `scores.json`, and the files for museval."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from stemsplit.errors import StemsplitError, UsageError
from stemsplit.evaluation.museval_files import SUBSET, flat
from stemsplit.files import replacing

REPORT, SCORES = "report.html", "scores.json"


def check_free(folder: Path, names: Iterable[str], *, overwrite: bool) -> None:
    """Refuse, before anything is computed, a folder that cannot be made, or has results that may not be replaced.

    names: of the estimators. Raises UsageError if it is a file, StemsplitError if there are results in it.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise UsageError(f"the output {str(folder)!r} is no folder", "choose another name with --output")
    taken = [folder / REPORT, folder / SCORES, *(folder / flat(name) / SUBSET for name in names)]
    for path in taken:
        if os.path.lexists(path) and not overwrite:
            hint = "choose another folder with --output, or replace the results with --overwrite"
            raise StemsplitError(f"{str(path)!r} exists already", hint)


def write(folder: Path, texts: Mapping[str, str], *, overwrite: bool) -> None:
    """Write files by their paths in the folder, each complete or not at all.

    When results are replaced, museval's files of songs that are no longer there go, as it would count them. Raises
    StemsplitError when a file cannot be written.
    """
    path = folder
    try:
        for name, text in texts.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as part:
                part.write_bytes(text.encode(errors="replace"))
        if overwrite:
            written = {folder / name for name in texts}
            for parent in {path.parent for path in written} - {folder}:
                for path in set(parent.glob("*.json")) - written:
                    path.unlink()
    except OSError as error:
        hint = "make room, choose another folder with --output, or change its permissions"
        raise StemsplitError(f"cannot write {str(path)!r}: {error.strerror}", hint) from error
