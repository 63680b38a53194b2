"""Files and folders: written complete or not at all, stamped and hashed, checked for room, and read as TOML."""

import glob
import hashlib
import os
import platform
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stemsplit import signals
from stemsplit.errors import AudioError, StemsplitError, UsageError
from stemsplit.wording import one_line, size_of

if TYPE_CHECKING:
    from stemsplit.storage.location import Location

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
    """Return a new temporary path beside `path`; its name says which process writes it."""
    writer = _Writer.of(os.getpid())
    return path.with_name(f"{_temporary_prefix(path)}{writer.name}-{secrets.token_hex(4)}.part")


def sweep(path: Path) -> None:
    """Delete temporary files that killed processes left behind while writing the same file."""
    discard_abandoned(
        part for part in path.parent.glob(f"{glob.escape(_temporary_prefix(path))}*.part") if _PART.search(part.name)
    )


def sweep_folders(folders: Iterable[Path]) -> None:
    """Delete temporary files that killed processes of this machine left behind in folders, which need not exist."""
    for folder in folders:
        with suppress(OSError), os.scandir(folder) as entries:
            names = [entry.name for entry in entries if (match := _PART.search(entry.name)) and match[1]]
            discard_abandoned(folder / name for name in names)


def discard_abandoned(parts: Iterable[Path]) -> None:
    """Delete those files whose writer has ended, and of unknown writers those not written to for an hour."""
    for part in parts:
        with suppress(OSError):
            is_alive = _Writer.is_alive(part.name)
            if is_alive is None:
                is_alive = part.stat().st_mtime >= time.time() - _ABANDONED_SECONDS
            if not is_alive:
                part.unlink()


def sha256_of(path: "Path | Location") -> str:
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
    def of(cls, path: "Path | Location", *, hashed: bool = True) -> "FileStamp":
        """Return the stamp of a file as it is now.

        Raises:
            OSError: The file cannot be read.
        """
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns, sha256_of(path) if hashed else "")

    def matches(self, path: "Path | Location", *, quickly: bool = True) -> bool:
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


def make_temporary_folder(what: str, prefix: str = "stemsplit-") -> "tempfile.TemporaryDirectory[str]":
    """Make a folder for temporary files, to which only this user has access.

    Args:
        what: What needs it, for the message.
        prefix: Of its name.

    Raises:
        AudioError: There is none where one could be made.
    """
    try:
        return tempfile.TemporaryDirectory(prefix=prefix)
    except OSError as error:
        hint = "let the variable TMPDIR name a folder that you may write to"
        raise AudioError(f"{what} needs a folder for temporary files, and there is none", hint) from error


def real_path(path: str | os.PathLike[str]) -> str:
    """Return a path without links; the path itself where a link may not be read, as of other users in /proc."""
    try:
        return os.path.realpath(path)
    except OSError:
        return os.path.abspath(path)  # noqa: PTH100 (Path.absolute keeps "..")


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
        hint = "skip what is complete with --skip-existing, replace it with --overwrite, or choose another --output"
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
        usage = shutil.disk_usage(nearest_folder(folder))
    except OSError:  # not known on some file systems
        return
    if not usage.total:  # not a disk, as /proc; that it cannot be written to is told when it is tried
        return
    old = [sum(map(_size, paths)) for paths in replaced]
    needed += max(old, default=0) - sum(old)
    if needed > usage.free:
        message = f"the stems need about {size_of(needed)}, and {str(folder)!r} has room for {size_of(usage.free)}"
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


class _Writer(NamedTuple):
    """A process that writes a temporary file: its number, when it started, and the system that counts it.

    A number is used again sooner or later, but not with the same start; and a folder may be shared by machines and
    containers, each of which has its own numbers.
    """

    process: int
    start: str
    system: str

    @property
    def name(self) -> str:
        """As it appears in the names of files."""
        return f"{self.process}-{self.start}-{self.system}"

    @classmethod
    def of(cls, process: int) -> "_Writer":
        """Describe a running process of this system."""
        return cls(process, _start_of(process) or "0", _this_system())

    @classmethod
    def is_alive(cls, part: str) -> bool | None:
        """Return whether the writer of a temporary file with this name is running, or None if that is not known."""
        match = _PART.search(part)
        if not match or not match[1] or match[3] != _this_system():
            return None
        process, start = int(match[1]), match[2]
        if start != "0":
            return _start_of(process) == start
        if os.name == "nt":  # os.kill would end it
            return None
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
        except (OSError, OverflowError):
            return None
        return None  # perhaps another one has its number by now


# The prefix, the writer (which earlier versions did not name), and a random number.
_PART = re.compile(r"\.(?:(\d{1,10})-([0-9a-f]{1,16})-([0-9a-f]{8})-)?[0-9a-f]{8}\.part$")


def _start_of(process: int) -> str | None:
    """Return when a process started, in ticks since the system did; None if it has ended, or if that is not known."""
    try:
        state, *fields = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return None if state in "ZX" else f"{int(fields[18]):x}"  # a zombie has ended
    except (OSError, ValueError, IndexError):
        return None


@cache
def _this_system() -> str:
    """Return what tells this machine since its start, and this container, from others: 8 hexadecimal digits."""
    try:
        known = Path("/proc/sys/kernel/random/boot_id").read_text() + os.readlink("/proc/self/ns/pid")  # noqa: PTH115
    except OSError:
        known = platform.node()
    return hashlib.sha256(known.encode()).hexdigest()[:8]


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _temporary_prefix(path: Path) -> str:
    """Return the start of temporary names for `path`, short enough that whole names stay within 255 bytes."""
    return f"{path.name[:48]}."
