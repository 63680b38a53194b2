"""A song from standard input, kept in a file for as long as it is needed."""

import errno
import os
import secrets
import sys
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from stemsplit.errors import AudioError

NAME = "stdin"  # of the song, in the names of its stems
_BLOCK = 2**20


class StandardInput:
    """One song from a pipe, in a temporary file, as decoders have to go back and forth in it; a context manager.

    Nothing is read before `spool`. The file is deleted when the block ends, however it does, and at the latest when the
    program ends, unless it is killed by SIGKILL.
    """

    def __init__(self, stream: BinaryIO | None = None) -> None:
        """stream: sys.stdin if None."""
        self._stream = stream or (sys.stdin.buffer if sys.stdin else None)
        # Known before it is made: a signal may strike anywhere.
        self._path = Path(tempfile.gettempdir()) / f"stemsplit-{secrets.token_hex(8)}"
        self._delete = weakref.finalize(self, _delete, self._path)
        self._spooled = False

    def __enter__(self) -> "StandardInput":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._delete()

    def spool(self) -> Path:
        """The file with all that comes; only the first call reads. AudioError: nothing comes, or there is no room."""
        if self._spooled:
            return self._path
        if self._stream is None or self._stream.isatty():
            hint = "pipe a song into it, for instance  cat song.mp3 | stemsplit -"
            raise AudioError("standard input has no song, but - was given", hint)
        try:
            # For nobody else, as a song may be private.
            with os.fdopen(os.open(self._path, _FLAGS, 0o600), "wb") as file:
                while block := self._stream.read(_BLOCK):
                    file.write(block)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                hint = "make room there, or set TMPDIR to another folder"
                told = f"there is no room for the song from standard input in {str(self._path.parent)!r}"
                raise AudioError(told, hint) from error
            raise AudioError(f"cannot keep the song from standard input: {error.strerror}", "try again") from error
        self._spooled = True
        return self._path


_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


def _delete(path: Path) -> None:
    with suppress(OSError):
        path.unlink()
