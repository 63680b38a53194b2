"""Parts of a file and other bytes, read as one file: so decoders see what they understand."""

import io
from typing import BinaryIO

Piece = bytes | range
"""Bytes, or a range of positions in a file."""


class Splice(io.RawIOBase):
    """A file put together from pieces, for decoders.

    Reading and seeking never raise: an exception inside a callback of FFmpeg or libsndfile is lost, or printed later.
    Several can share one file, as each seeks before it reads, but not in several threads.

    Args:
        file: An opened, unbuffered file; it stays open.
        pieces: In order.

    Attributes:
        error: Why reading has ended early, or None.
        size: Bytes in all.
        file_name: Of the file.
        name: Unset; FFmpeg's reader of files looks for it.
    """

    name: str

    def __init__(self, file: BinaryIO, *pieces: Piece) -> None:
        self.error: OSError | None = None
        self.file_name = str(getattr(file, "name", ""))
        self._file = file
        self._pieces = pieces
        self.size = sum(map(len, pieces))
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def again(self) -> "Splice":
        """Return the same file, at its beginning."""
        return Splice(self._file, *self._pieces)

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move the position; a damaged file can ask for one before the beginning, which is ignored and gives -1."""
        target = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        if target < 0:
            return -1
        self._position = target
        return target

    def readinto(self, buffer: object, /) -> int:
        """Read as much as there is room and bytes for."""
        room = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        count, start = 0, 0
        for piece in self._pieces:
            offset = self._position - start
            start += len(piece)
            if 0 <= offset < len(piece):
                got = self._copy(piece[offset : offset + len(room) - count], room[count:])
                self._position += got
                count += got
        return count

    def _copy(self, piece: Piece, room: memoryview) -> int:
        """Copy the bytes of a piece; return how many there were."""
        if isinstance(piece, bytes):
            room[: len(piece)] = piece
            return len(piece)
        count = 0
        try:
            self._file.seek(piece.start)
            while count < len(piece):
                if not (got := self._file.readinto(room[count : len(piece)])):  # type: ignore[attr-defined]
                    break
                count += got
        except OSError as error:
            self.error = error
        return count


def whole(file: BinaryIO) -> range:
    """Return the range of all bytes of a file.

    Raises:
        OSError: The file cannot be read.
    """
    return range(file.seek(0, io.SEEK_END))


def read_at(file: BinaryIO, position: int, size: int) -> bytes:
    """Return bytes of a file; fewer at its end.

    Raises:
        OSError: The file cannot be read.
    """
    file.seek(position)
    return file.read(size)
