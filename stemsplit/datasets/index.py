"""A cache of the headers of audio files, so that thousands of songs are read again without opening one."""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path

from stemsplit import settings
from stemsplit.datasets.stem_files import Shape, read_shape
from stemsplit.files import replacing, sweep

_VERSION = 2  # 1 had wrong lengths of some MP3s
_SETTLED_SECONDS = 2.0  # a file written this recently may be written again with the same time and size


class Index:
    """Shapes of audio files by path; an entry is valid as long as the file keeps its size and modification time.

    Args:
        cache: The file to keep the index in, or None for an index in memory.

    Attributes:
        opened: Number of files that had to be opened.
    """

    def __init__(self, cache: Path | None) -> None:
        self._cache = cache
        self.opened = 0
        self._known = _read_cache(cache) if cache else {}
        self._seen: dict[str, list[int]] = {}

    def shape(self, path: Path) -> Shape:
        """Return the shape of a file, from the cache if the file has not changed.

        Raises:
            DatasetError: The file cannot be read.
            OSError: There is no such file.
        """
        key = os.path.abspath(path)  # noqa: PTH100 (resolve() would ask for each folder on the way)
        status = path.stat()
        stamp = [status.st_mtime_ns, status.st_size]
        entry = self._known.get(key)
        if entry and entry[:2] == stamp:
            self._seen[key] = entry
            return Shape(*entry[2:])
        shape = read_shape(path)
        self.opened += 1
        if time.time() - status.st_mtime > _SETTLED_SECONDS:
            self._seen[key] = [*stamp, *astuple(shape)]
        return shape

    def save(self) -> None:
        """Write the entries that were used. If that fails, only time is lost, so it is not reported."""
        if self._cache is None or self._seen == self._known:
            return
        with contextlib.suppress(OSError):
            self._cache.parent.mkdir(parents=True, exist_ok=True)
            sweep(self._cache)
            with replacing(self._cache) as part:
                part.write_text(json.dumps({"version": _VERSION, "files": self._seen}), encoding="utf-8")


@contextmanager
def open_index(folder: Path) -> Iterator[Index]:
    """Open the index of a folder in the user's cache; it is saved if the block ends without an exception."""
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:20]
    index = Index(settings.cache_folder() / "songs" / f"{name}.json")
    yield index
    index.save()


def _read_cache(cache: Path) -> dict[str, list[int]]:
    """Entries: modification time in ns, bytes, rate, channels, length. A damaged cache counts as empty."""
    try:
        table = json.loads(cache.read_text(encoding="utf-8"))
        if table["version"] != _VERSION:
            return {}
        files = table["files"].items()
        return {path: entry for path, entry in files if len(entry) == 5 and all(type(x) is int for x in entry)}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}
