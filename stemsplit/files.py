"""Files and folders: written complete or not at all, stamped and hashed, checked for room, and read as TOML."""

import glob
import hashlib
import os
import secrets
import shutil
import stat
import sys
import time
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stemsplit import signals
from stemsplit.errors import AudioError, StemsplitError, UsageError
from stemsplit.wording import one_line

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_BLOCK = 2**20  # bytes that are hashed at a time
_ABANDONED_SECONDS = 3600  # since the last write, after which a temporary file is abandoned


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; if the block succeeds, the file there replaces `path`.

    Otherwise it is deleted, and `path` is unchanged. Signals wait for the end of the block.

    Raises:
        OSError: The file cannot be renamed.
    """
    part = beside(path)
    with signals.deferred():
        try:
            yield part
            part.replace(path)
        finally:
            with suppress(OSError):  # already renamed on success
                part.unlink()


def beside(path: Path) -> Path:
    """Return a new temporary path beside `path`."""
    return path.with_name(f"{_temporary_prefix(path)}{secrets.token_hex(4)}.part")


def sweep(path: Path) -> None:
    """Delete temporary files that killed processes left behind while writing the same file."""
    discard_abandoned(path.parent.glob(f"{glob.escape(_temporary_prefix(path))}{'[0-9a-f]' * 8}.part"))


def discard_abandoned(parts: Iterable[Path]) -> None:
    """Delete those files that have not been written to for an hour."""
    for part in parts:
        with suppress(OSError):
            if part.stat().st_mtime < time.time() - _ABANDONED_SECONDS:
                part.unlink()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal. Memory does not grow with its size.

    Raises:
        OSError: The file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class FileStamp:
    """Size, time and hash of a file, by which to tell whether it has changed.

    Attributes:
        size: Bytes.
        mtime_ns: Time of the last change in nanoseconds, or 0 if it cannot be relied on.
        sha256: Hash of the content, hexadecimal, or empty if unknown.
    """

    size: int
    mtime_ns: int
    sha256: str = ""

    @classmethod
    def of(cls, path: Path, *, hashed: bool = True) -> "FileStamp":
        """Return the stamp of a file as it is now.

        Raises:
            OSError: The file cannot be read.
        """
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns, sha256_of(path) if hashed else "")

    def matches(self, path: Path, *, quickly: bool = True) -> bool:
        """Return whether a file still has this content.

        Args:
            path: The file.
            quickly: Trust a file that kept its size and its time of change, without hashing it.

        Raises:
            OSError: The file cannot be read.
        """
        status = path.stat()
        if status.st_size != self.size:
            return False
        if (quickly or not self.sha256) and status.st_mtime_ns == self.mtime_ns != 0:
            return True
        return bool(self.sha256) and sha256_of(path) == self.sha256


def nearest_folder(path: Path) -> Path:
    """Return the folder itself if it exists, else the nearest one above it that does."""
    while not os.path.isdir(path) and path != path.parent:  # noqa: PTH112 (never raises)
        path = path.parent
    return path


def fold_name(name: str) -> str:
    """Return a key that is equal for names that some file systems do not tell apart: by case or accents' encoding."""
    return unicodedata.normalize("NFC", name).casefold()


def check_free(path: Path, *, overwrite: bool) -> None:
    """Check that a file can be written without replacing something that should stay.

    Raises:
        AudioError: `path` is a folder, or exists and `overwrite` is not set.
        OSError: The folder cannot be searched.
    """
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISDIR(mode):
        hint = "choose another name, or another folder with --output"
        raise AudioError(f"{str(path)!r} is a folder", hint, path=path)
    if not overwrite:
        hint = "choose another folder with --output, or replace it with --overwrite"
        raise AudioError(f"{str(path)!r} exists already", hint, path=path)


def check_room(needed: int, folder: Path, *, replaced: Iterable[Iterable[Path]] = ()) -> None:
    """Check that the disk has room for stems.

    Args:
        needed: Bytes.
        folder: Where they go; it need not exist yet.
        replaced: For each song, the files that its new ones replace once these are complete.

    Raises:
        AudioError: There is too little room.
    """
    try:
        free = shutil.disk_usage(nearest_folder(folder)).free
    except OSError:  # not known on some file systems
        return
    old = [sum(map(_size, paths)) for paths in replaced]
    needed += max(old, default=0) - sum(old)
    if needed > free:
        message = f"the stems need about {_gigabytes(needed)}, and {str(folder)!r} has room for {_gigabytes(free)}"
        hint = "make room, name another folder with --output, or choose a smaller --format"
        raise AudioError(message, hint, path=folder)


def read_toml(path: Path, what: str, hint: str = "", *, error: type[StemsplitError] = UsageError) -> dict[str, Any]:
    """Read a TOML file that a user wrote.

    Args:
        path: The file.
        what: What it contains, for messages: "settings", "models".
        hint: For a file that is not valid TOML.
        error: The class of errors that are raised.

    Raises:
        StemsplitError: Of the class `error`; the file cannot be read, or is not TOML. Its cause is a FileNotFoundError
            if the file does not exist.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as problem:  # ValueError: not UTF-8, or a null character in the name
        reason = one_line(problem) if isinstance(problem, OSError) else "it is not UTF-8 text"
        message = f"cannot read the {what} in {str(path)!r}: {reason}"
        raise error(message, "check the path", path=path) from problem
    return parse_toml(text, repr(str(path)), hint, error=error)


def parse_toml(text: str, source: str, hint: str = "", *, error: type[StemsplitError] = UsageError) -> dict[str, Any]:
    """Parse TOML.

    Args:
        text: The content.
        source: Its name in messages.
        hint: For a text that is not valid TOML.
        error: The class of errors that are raised.

    Raises:
        StemsplitError: Of the class `error`; the text is not valid TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as problem:
        raise error(f"{source} is not valid TOML: {one_line(problem)}", hint) from problem


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(count / 1e6, 0.1):.1f} MB"


def _temporary_prefix(path: Path) -> str:
    """Return the start of temporary names for `path`, short enough that whole names stay within 255 bytes."""
    return f"{path.name[:48]}."
