"""The next song, opened and decoded beside the work on another one, as far as it is worth the memory."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from stemsplit.audio.decoding import Block
from stemsplit.audio.reading import Reader, open_reader
from stemsplit.files import FileStamp

BLOCKS = 16  # that wait at most: 24 s at 44.1 kHz, 8 MB
_PATIENCE_SECONDS = 0.1

_Item = Block | BaseException | None


class PrefetchReader(Reader):
    """A Reader whose file is opened, and whose first blocks are decoded, by a thread that begins at once.

    Raises what `open_song` and `Reader.blocks` do, but only when it is entered, or its blocks are asked for.
    """

    def __init__(self, path: Path, open_song: Callable[[Path], Reader] = open_reader) -> None:
        self.path = path
        self._open_song = open_song
        self._ready: queue.Queue[Reader | BaseException] = queue.Queue()
        self._waiting: queue.Queue[_Item] = queue.Queue(BLOCKS)
        self._closed = threading.Event()
        self._stamp = _stamp(path)  # before it is opened, not after
        self._thread = threading.Thread(target=self._run, name="ahead", daemon=True)
        self._thread.start()

    def __enter__(self) -> "PrefetchReader":
        reader = self._ready.get()
        if isinstance(reader, BaseException):
            raise reader
        self.rate, self.channels, self.length = reader.rate, reader.channels, reader.length
        self.folded_from, self.warnings = reader.folded_from, reader.warnings
        return self

    def is_fresh(self) -> bool:
        """Whether the file is still the one that was opened; if not, what was decoded of it is of no use."""
        return _stamp(self.path) == self._stamp

    def close(self) -> None:
        """Stop, and close the file; a second time does nothing."""
        self._closed.set()
        self._thread.join()

    def blocks(self, size: int = 65_536) -> Iterator[Block]:
        """As of a Reader; `size` is always the usual one."""
        while (item := self._waiting.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    def _run(self) -> None:
        try:
            reader = self._open_song(self.path)
        except BaseException as error:
            self._ready.put(error)
            return
        self._ready.put(reader)
        with reader:
            try:
                for block in reader.blocks():
                    if not self._put(block):
                        return
                self._put(None)
            except BaseException as error:
                self._put(error)

    def _put(self, item: _Item) -> bool:
        """Whether somebody still wants it."""
        while not self._closed.is_set():
            with suppress(queue.Full):
                self._waiting.put(item, timeout=_PATIENCE_SECONDS)
                return True
        return False


def _stamp(path: Path) -> FileStamp | None:
    try:
        return FileStamp.of(path, hashed=False)
    except OSError:
        return None
