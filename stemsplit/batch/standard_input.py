"""A song from standard input, stored in a temporary file for as long as it is needed."""

import errno
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from stemsplit.errors import AudioError
from stemsplit.files import make_temporary_folder

NAME = "stdin"  # of the song, in the names of its stems
_BLOCK = 2**20


class StandardInput:
    """One song from a pipe, in a temporary file, because decoders need to seek; a context manager.

    Nothing is read before `spool`. The file is deleted when the block ends.

    Args:
        stream: The pipe; `sys.stdin` if None.
    """

    def __init__(self, stream: BinaryIO | None = None) -> None:
        self._stream = stream or (sys.stdin.buffer if sys.stdin else None)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._path: Path | None = None

    def __enter__(self) -> "StandardInput":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._folder:
            self._folder.cleanup()

    def spool(self) -> Path:
        """Read standard input to its end and return the file; only the first call reads.

        Raises:
            AudioError: Standard input is a terminal, the disk is full, or there is no folder for temporary files.
        """
        if self._path:
            return self._path
        if self._stream is None or self._stream.isatty():
            hint = "pipe a song into it, for instance  cat song.mp3 | stemsplit -"
            raise AudioError("standard input has no song, but - was given", hint)
        self._folder = make_temporary_folder("the song from standard input")
        try:
            path = Path(self._folder.name) / NAME
            with path.open("wb") as file:
                while block := self._stream.read(_BLOCK):
                    file.write(block)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                hint = "make room there, or set TMPDIR to another folder"
                message = f"there is no room for the song from standard input in {tempfile.gettempdir()!r}"
                raise AudioError(message, hint) from error
            raise AudioError(f"cannot keep the song from standard input: {error.strerror}", "try again") from error
        self._path = path
        return path
