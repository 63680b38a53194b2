"""Transfers: a song becomes a temporary file, and a stem is uploaded as a whole."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from stemsplit import signals
from stemsplit.errors import AudioError
from stemsplit.files import make_temporary_folder
from stemsplit.storage.location import Location, Stat
from stemsplit.storage.requests import IncompleteError, StoppedError, attempt

LARGEST_UNKNOWN = 2**32
"""Bytes of a song of which the server does not state the size: a radio station never ends."""

_T = TypeVar("_T")
_PREFIX = "stemsplit-song-"
_ABANDONED_SECONDS = 3600  # since the last write to any file in it


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a folder for one song and its stems, which is deleted with them; those of killed processes are as well.

    Raises:
        AudioError: There is none where one could be made.
    """
    with make_temporary_folder("a song or a stem at a URL", _PREFIX) as folder:
        _sweep(Path(folder).parent)
        yield Path(folder)


@contextmanager
def local_song(song: Path | Location) -> Iterator[Path]:
    """Yield the file of a song; of one at a URL a copy that is deleted when the block ends.

    Raises:
        FileNotFoundError: There is no such song at the URL.
        AudioError: It cannot be fetched.
    """
    if isinstance(song, Path):
        yield song
        return
    with temporary_folder() as folder:
        path = folder / f"song{song.suffix}"
        fetch(song, path)
        yield path


def fetch(location: Location, path: Path, check: Callable[[], None] = signals.check) -> None:
    """Copy a song to a temporary file, which gets its time of change, or 0 if the server does not state it.

    Args:
        location: The song.
        path: The file.
        check: Called between its blocks; it raises whatever ends the transfer.

    Raises:
        FileNotFoundError: There is no such song.
        AudioError: It cannot be read completely, changes while it is read, or is too large for the disk.
    """

    def copy() -> None:
        stat = location.stat(fresh=True)
        _check_room(location, stat, path.parent)
        system, name = location.open_system()
        limit = LARGEST_UNKNOWN if stat.st_size < 0 else stat.st_size + 2**20
        system.get_file(name, str(path), callback=_reporter(check, limit, location))
        size = path.stat().st_size
        if size != stat.st_size >= 0:
            raise IncompleteError(f"{size} bytes arrived, and {stat.st_size} were announced")
        # One answer of a web server is one version; other clients may ask for a file in pieces.
        if not location.is_web and location.stat(fresh=True) != stat:
            raise IncompleteError("it is being changed")
        os.utime(path, ns=(stat.st_mtime_ns, stat.st_mtime_ns))

    _run(lambda: attempt(copy, location, "read"), check)


def upload(path: Path, location: Location, check: Callable[[], None] = signals.check) -> Stat:
    """Copy a file to its final name, where it appears as a whole; return what the server says about it then.

    Args:
        path: The file.
        location: Where it goes.
        check: Called between its blocks; it raises whatever ends the transfer.

    Raises:
        AudioError: It cannot be written there.
    """

    def copy() -> Stat:
        system, name = location.open_system()
        if not location.is_object:
            system.makedirs(system._parent(name), exist_ok=True)
        system.put_file(str(path), name, callback=_reporter(check, None, location))
        stat = location.stat(fresh=True)
        if stat.st_size != path.stat().st_size:
            raise IncompleteError(f"{stat.st_size} bytes arrived, and {path.stat().st_size} were sent")
        return stat

    try:
        return _run(lambda: attempt(copy, location, "write to"), check)
    except FileNotFoundError:
        raise AudioError(f"cannot write to {str(location)!r}: there is no such bucket", "check the URL") from None


def _run(transfer: Callable[[], _T], check: Callable[[], None]) -> _T:
    try:
        return transfer()
    except StoppedError:
        check()
        raise


def _reporter(check: Callable[[], None], limit: int | None, location: Location) -> Any:
    """Return a callback of fsspec that ends a transfer."""
    from fsspec.callbacks import Callback  # type: ignore[import-untyped]

    class Reporter(Callback):  # type: ignore[misc]
        def relative_update(self, inc: int = 1) -> None:
            super().relative_update(inc)
            try:
                check()
            except BaseException as error:  # in a thread of fsspec, which does not pass it on
                raise StoppedError from error
            if limit is not None and self.value > limit:
                raise AudioError(f"{str(location)!r} does not end", "a song is a file, and no station or live stream")

    return Reporter()


def _check_room(location: Location, stat: Stat, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if stat.st_size > free:
        message = f"{str(location)!r} has {stat.st_size / 1e6:.1f} MB, and the folder for temporary files has room for"
        raise AudioError(f"{message} {free / 1e6:.1f} MB", "make room, or set TMPDIR to another folder")


def _sweep(folders: Path) -> None:
    """Delete the folders of processes that were killed."""
    for folder in folders.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            newest = max(path.stat().st_mtime for path in (folder, *folder.rglob("*")) if path.stem != "song")
            if newest < time.time() - _ABANDONED_SECONDS:
                shutil.rmtree(folder)
