"""What the headers of a folder's files said last time: thousands of songs are known again without opening one."""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path

import platformdirs

from stemsplit.datasets.stem_files import Shape, measure
from stemsplit.files import replacing, sweep

_VERSION = 2  # 1 had wrong lengths of some MP3s
_SETTLED_SECONDS = 2.0  # a file that was written just now may be written again, and look the same


class Index:
    """Shapes of files by path. An entry counts as long as the file's size and time of change are the same."""

    def __init__(self, place: Path | None) -> None:
        """`place` is the file that keeps the index; None for an index that is forgotten."""
        self.place = place
        self.opened = 0
        self._known = _load(place) if place else {}
        self._seen: dict[str, list[int]] = {}

    def measure(self, path: Path) -> Shape:
        """As `song_files.measure`, from memory if the file has not changed."""
        key = os.path.abspath(path)  # noqa: PTH100 (resolve() would ask for each folder on the way)
        status = path.stat()
        stamp = [status.st_mtime_ns, status.st_size]
        entry = self._known.get(key)
        if entry and entry[:2] == stamp:
            self._seen[key] = entry
            return Shape(*entry[2:])
        shape = measure(path)
        self.opened += 1
        if time.time() - status.st_mtime > _SETTLED_SECONDS:
            self._seen[key] = [*stamp, *astuple(shape)]
        return shape

    def save(self) -> None:
        """Keep what was asked for. An index that cannot be written is no loss but of time, and nothing is said."""
        if self.place is None or self._seen == self._known:
            return
        with contextlib.suppress(OSError):
            self.place.parent.mkdir(parents=True, exist_ok=True)
            sweep(self.place)
            with replacing(self.place) as part:
                part.write_text(json.dumps({"version": _VERSION, "files": self._seen}), encoding="utf-8")


@contextmanager
def opened_index(folder: Path) -> Iterator[Index]:
    """The index of a folder, from the user's cache; saved when all went well."""
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:20]
    index = Index(platformdirs.user_cache_path("stemsplit") / "songs" / f"{name}.json")
    yield index
    index.save()


def _load(place: Path) -> dict[str, list[int]]:
    """Entries: nanoseconds, bytes, rate, channels, length. An index that is damaged is none."""
    try:
        table = json.loads(place.read_text(encoding="utf-8"))
        if table["version"] != _VERSION:
            return {}
        files = table["files"].items()
        return {path: entry for path, entry in files if len(entry) == 5 and all(type(x) is int for x in entry)}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}
