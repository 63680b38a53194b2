"""Prefetching: the next song of a batch is opened and decoded in a thread while another one is separated."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from stemsplit.audio.decoding import Block
from stemsplit.audio.reading import Reader, open_reader
from stemsplit.files import FileStamp

BLOCKS = 16  # decoded ahead at most: 24 s at 44.1 kHz, 8 MB
_POLL_SECONDS = 0.1

_Item = Block | BaseException | None


class PrefetchReader(Reader):
    """A Reader that opens its file and decodes its first blocks in a thread, which starts at once.

    Errors of `open_song` are raised on entering the context, those of `Reader.blocks` by `blocks`.

    Args:
        path: The song.
        open_song: Opens it.
    """

    def __init__(self, path: Path, open_song: Callable[[Path], Reader] = open_reader) -> None:
        self.path = path
        self._open_song = open_song
        self._ready: queue.Queue[Reader | BaseException] = queue.Queue()
        self._queue: queue.Queue[_Item] = queue.Queue(BLOCKS)
        self._closed = threading.Event()
        self._stamp = _stamp(path)  # before the file is opened, not after
        self._thread = threading.Thread(target=self._run, name="prefetch", daemon=True)
        self._thread.start()

    def __enter__(self) -> "PrefetchReader":
        reader = self._ready.get()
        if isinstance(reader, BaseException):
            raise reader
        self._reader, self.incomplete = reader, False
        self.rate, self.channels, self.length = reader.rate, reader.channels, reader.length
        self.downmixed_from, self.warnings = reader.downmixed_from, reader.warnings
        return self

    def reopen(self) -> Reader:
        """Open the same song once more, from its start, without a thread."""
        return self._open_song(self.path)

    def is_fresh(self) -> bool:
        """Return whether the file has not been replaced or changed since it was opened."""
        return _stamp(self.path) == self._stamp

    def close(self) -> None:
        """Stop the thread and close the file; a second call does nothing."""
        self._closed.set()
        self._thread.join()

    def blocks(self, size: int = 65_536) -> Iterator[Block]:
        """Yield the song's blocks, as `Reader.blocks` does; `size` is ignored."""
        while (item := self._queue.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
        self.incomplete = self._reader.incomplete

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
        """Wait for room in the queue; return False if the reader was closed instead."""
        while not self._closed.is_set():
            with suppress(queue.Full):
                self._queue.put(item, timeout=_POLL_SECONDS)
                return True
        return False


def _stamp(path: Path) -> FileStamp | None:
    try:
        return FileStamp.of(path, hashed=False)
    except OSError:
        return None
