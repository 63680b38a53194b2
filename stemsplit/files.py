"""Files that appear complete or not at all: written under a name beside their own, then renamed in one step."""

import glob
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_ABANDONED_SECONDS = 3600  # a part to which nothing was added for so long is nobody's


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write under: what is there after a block that ends well takes the place of `path`.

    After one that does not, nothing is left, and `path` is as it was. Raises OSError when the file cannot be renamed.
    """
    part = beside(path)
    try:
        yield part
        part.replace(path)
    finally:
        with suppress(OSError):  # nothing is there any more if all went well
            part.unlink()


def beside(path: Path) -> Path:
    """A new name beside `path`, for what is to become it."""
    return path.with_name(f"{_beginning(path)}{secrets.token_hex(4)}.part")


def sweep(path: Path) -> None:
    """Delete what processes have left that were killed while they wrote the same file."""
    discard_abandoned(path.parent.glob(f"{glob.escape(_beginning(path))}{'[0-9a-f]' * 8}.part"))


def discard_abandoned(parts: Iterable[Path]) -> None:
    """Delete those parts to which nothing was added for an hour."""
    for part in parts:
        with suppress(OSError):
            if part.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
                part.unlink()


def _beginning(path: Path) -> str:
    """Of the parts' names: the longest allowed name leaves room for their endings, 4 bytes a letter."""
    return f"{path.name[:48]}."
