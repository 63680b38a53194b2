"""The queue of the app: one song after the other is separated in a thread, by the engine of the command line."""

import secrets
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from stemsplit.app.songs import Choices, Shelf, Song, safe_name, unused_name
from stemsplit.audio.formats import Format
from stemsplit.audio.reading import open_reader
from stemsplit.batch.events import Done, Event, ModelLoading, PageProgress, SongProgress, SongStarted
from stemsplit.batch.inputs import Failed
from stemsplit.batch.run import separate_batch
from stemsplit.errors import ModelError, StemsplitError, UnreachableError, UsageError
from stemsplit.models import hub
from stemsplit.models.registry import FALLBACK, LocalModel, ModelSpec, Registry
from stemsplit.separation.outputs import Delivery
from stemsplit.signals import Stopped
from stemsplit.wording import one_line

PEAKS = 240  # columns of the picture of a waveform
_BLOCK = 1024  # samples in a column before it is combined with others
_REPORT_SECONDS = 0.2  # between two reports of progress

Change = Mapping[str, Any]
"""What has changed: `song`, as a page may know it; `removed`, the id of one; or `choices`."""


class Cancelled(BaseException):
    """Ends the work on a song; no Exception, so that nothing takes it for a failure of the song."""


class Queue:
    """The songs, in the order in which they are separated. All methods may be called from any thread.

    Args:
        shelf: Where everything is kept.
        places: The folders that stems can go to, by name; the first is the default.
        registry: The models that can be chosen.
        place: The place that is chosen now, whichever was chosen last.
        device: As of `separate_batch`.
    """

    def __init__(
        self, shelf: Shelf, places: Mapping[str, Path], registry: Registry, *, place: str = "", device: str = "auto"
    ) -> None:
        self.places, self.registry = places, registry
        self._shelf, self._device = shelf, device
        self._songs, choices = shelf.load(registry, places, Choices(registry.default, place=next(iter(places))))
        self.choices = replace(choices, place=place or choices.place)
        for song in self._songs.values():
            if place and song.status != "done":
                self._songs[song.id] = song.wanting(replace(song.choices, place=place))
        self._lock = threading.Condition(threading.RLock())
        self._listeners: list[Callable[[Change], object]] = []
        self._cancelled: str | None = None  # the id of the song that should not go on
        self._closed = False
        self._looking = ThreadPoolExecutor(1, "look")
        self._worker = threading.Thread(target=self._run, name="worker", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        for song in self.songs():
            if not song.peaks and song.status == "waiting":
                self._looking.submit(self._look, song.id)
        self._worker.start()

    def close(self) -> None:
        """Stop; a song that is being separated waits for the next start, and leaves nothing half-written."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
        self._looking.shutdown(wait=False, cancel_futures=True)
        if self._worker.is_alive():
            self._worker.join()

    def listen(self, listener: Callable[[Change], object]) -> Callable[[], None]:
        """Call `listener` with every change, from any thread; return a function that ends this."""
        with self._lock:
            self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def songs(self) -> list[Song]:
        """Return all songs, the oldest first."""
        with self._lock:
            return list(self._songs.values())

    def find(self, id: str) -> Song | None:
        """Return a song, or None."""
        with self._lock:
            return self._songs.get(id)

    def new_upload(self, name: str) -> tuple[Song, Path]:
        """Return a song that is not in the queue yet, and where to write its file."""
        song = Song(id=secrets.token_hex(8), name=name, file=safe_name(name), choices=self.choices)
        path = self._shelf.upload(song)
        path.parent.mkdir(mode=0o700)
        return song, path

    def discard(self, song: Song) -> None:
        """Delete the upload of a song that will not be added."""
        self._shelf.discard(song)

    def add(self, song: Song) -> None:
        """Append a song whose upload is complete."""
        self._put(song)
        self._looking.submit(self._look, song.id)

    def choose(self, choices: Choices) -> None:
        """Set what is wanted of the songs that are added from now on, and of those that wait."""
        with self._lock:
            self.choices = choices
            self._tell({"choices": asdict(choices)})
            for song in self.songs():
                if song.status == "waiting":
                    self._put(song.wanting(choices))
            self._save()

    def cancel(self, id: str) -> None:
        """Stop a song that waits or is being separated; its upload is kept."""
        with self._lock:
            song = self._songs[id]
            if song.status == "working":
                self._cancelled = id
            elif song.status == "waiting":
                self._put(song.reset(status="cancelled"))

    def retry(self, id: str, model: str = "") -> None:
        """Separate a song that failed or was cancelled again: as is chosen now, or with all stems of another model.

        Raises:
            UsageError: It is not one that can be separated again.
        """
        with self._lock:
            song = self._songs[id]
            if song.status not in ("failed", "cancelled") or not self._shelf.upload(song).exists():
                raise UsageError("this song cannot be separated again", "drop it once more")
            now = self.choices
            choices = Choices(model, format=now.format, place=now.place) if model else now
            del self._songs[id]  # it goes to the end
            self._put(song.wanting(choices).reset(status="waiting"))

    def remove(self, id: str) -> None:
        """Forget a song, and delete its upload; its stems stay."""
        with self._lock:
            if self._songs[id].status == "working":
                self._cancelled = id
            song = self._songs.pop(id)
            if song.status != "working":
                self._shelf.discard(song)
            self._tell({"removed": id})
            self._save()
            self._lock.notify_all()

    def _put(self, song: Song, *, save: bool = True) -> None:
        """Add a song, or change it unless it was removed meanwhile."""
        with self._lock:
            self._songs[song.id] = song
            self._tell({"song": song.public()})
            if save:
                self._save()
            self._lock.notify_all()

    def _change(self, id: str, *, save: bool = True, **changes: Any) -> None:
        with self._lock:
            if song := self._songs.get(id):
                self._put(replace(song, **changes), save=save)

    def _tell(self, change: Change) -> None:
        for listener in list(self._listeners):
            listener(change)

    def _save(self) -> None:
        with suppress(OSError):  # on a full disk the queue lives on in memory; songs report it themselves
            self._shelf.save(self._songs, self.choices)

    # Looking at songs

    def _look(self, id: str) -> None:
        """Find out the length and the waveform of a song; one that cannot be read fails at once."""
        if not (song := self.find(id)):
            return
        try:
            seconds, peaks = look_at(self._shelf.upload(song), lambda: self._closed or id not in self._songs)
        except StemsplitError as error:
            with self._lock:
                if (song := self.find(id)) and song.status == "waiting":
                    self._put(self._failed(song, error))
        except (OSError, Cancelled, Stopped):
            return
        else:
            self._change(id, seconds=seconds, peaks=peaks)

    # Separating them

    def _run(self) -> None:
        while song := self._next():
            try:
                self._separate(song)
            except (Cancelled, Stopped):
                self._stopped(song)
            except StemsplitError as error:
                self._finish(self._failed(song, error))
            except Exception as error:
                traceback.print_exc()
                problem = StemsplitError(
                    f"stemsplit has a fault: {one_line(error)}", "see the terminal that it runs in"
                )
                self._finish(self._failed(song, problem))

    def _next(self) -> Song | None:
        """Wait for a song to separate; None once the queue is closed."""
        with self._lock:
            while not self._closed:
                song = next((song for song in self._songs.values() if song.status == "waiting"), None)
                if song:
                    self._cancelled = None
                    song = song.reset(status="working", phase="loading")
                    self._put(song)
                    return song
                self._lock.wait()
            return None

    def _stopped(self, song: Song) -> None:
        with self._lock:
            if song.id not in self._songs:
                self._shelf.discard(song)
            elif self._closed or self._cancelled != song.id:
                self._put(self._songs[song.id].reset(status="waiting"))
            else:
                self._put(self._songs[song.id].reset(status="cancelled"))

    def _finish(self, song: Song) -> None:
        with self._lock:
            if song.id in self._songs:
                self._put(song)
            else:
                self._shelf.discard(song)

    def _failed(self, song: Song, error: StemsplitError) -> Song:
        """Return a song with the sentence and the hint that the command line would give."""
        song = self.find(song.id) or song
        message = str(error).replace(str(self._shelf.upload(song)), song.name)
        offer = FALLBACK if isinstance(error, UnreachableError) and song.choices.model != FALLBACK else ""
        return song.reset(status="failed", error=message, hint=error.hint, offer=offer)

    def _separate(self, song: Song) -> None:
        song, again = self._place(song)
        progress = _Progress(self, song.id)

        def on_event(event: Event) -> None:
            match event:
                case ModelLoading():
                    progress.begin("loading")
                case SongStarted():
                    progress.begin("separating")
                case SongProgress():
                    progress.show("separating", event.done, event.total)
                case PageProgress():
                    progress.show("page", event.done, event.total)
            self.check(song.id)

        def download(spec: ModelSpec) -> LocalModel:
            def on_bytes(done: int, total: int | None) -> None:
                progress.show("downloading", done, total, size=total)
                self.check(song.id)

            def accept_license(part: ModelSpec) -> bool:
                if not song.choices.accepted:
                    message = f"the licence of the model {part.name!r} has to be accepted first: {part.license}"
                    raise ModelError(message, "tick that you accept it, and try again", model=part.name)
                return True

            return hub.download(spec, song.choices.stems, accept_license=accept_license, on_progress=on_bytes)

        report = separate_batch(
            [self._shelf.upload(song)],
            Path(song.folder).parent,
            model=self.registry.find(song.choices.model, song.choices.stems),
            stems=song.choices.stems,
            complement=song.choices.rest,
            player=True,
            delivery=Delivery(Format(song.choices.format)),
            device=self._device,
            overwrite=again,
            download=download,
            on_event=on_event,
        )
        (result,) = report.results
        if isinstance(result, Failed):
            raise result.error
        warnings = result.report.warnings if isinstance(result, Done) else ()
        upload = self._shelf.upload(song)
        self._finish(
            replace(
                (self.find(song.id) or song).reset(status="done"),
                stems={stem: str(Path(str(path)).absolute()) for stem, path in result.outputs.items()},
                folder=str(Path(str(result.track.folder)).absolute()),
                page=str(Path(str(result.track.player_page)).absolute()),
                warnings=tuple(warning.replace(str(upload), song.name) for warning in warnings),
            )
        )
        self._shelf.discard(song)

    def _place(self, song: Song) -> tuple[Song, bool]:
        """Choose a folder for the stems that nothing else is in; return whether it was chosen before."""
        if song.folder:
            return song, True
        output = self.places[song.choices.place].absolute()
        taken = [each.file for each in self.songs() if each.folder and Path(each.folder).parent == output]
        file = unused_name(song.file, output, taken)
        placed = replace(song, file=file, folder=str(output / Path(file).stem))
        with self._lock:
            if song.file != file:
                self._shelf.upload(song).rename(self._shelf.upload(placed))
            self._change(song.id, file=file, folder=placed.folder)
        return placed, False

    def check(self, id: str) -> None:
        """Raise Cancelled if a song should not go on."""
        if self._closed or self._cancelled == id:
            raise Cancelled

    def report(self, id: str, **changes: Any) -> None:
        """Tell how far a song is; this is not kept."""
        self._change(id, save=False, **changes)


class _Progress:
    """Reports how far a song is, not too often."""

    def __init__(self, queue: Queue, id: str) -> None:
        self._queue, self._id = queue, id
        self._phase, self._began, self._next = "", 0.0, 0.0

    def begin(self, phase: str) -> None:
        self._phase, self._began, self._next = phase, time.monotonic(), 0.0
        self._queue.report(self._id, phase=phase, done=None, size=None, elapsed=0.0)

    def show(self, phase: str, done: int, total: int | None, *, size: int | None = None) -> None:
        if phase != self._phase:
            self.begin(phase)
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _REPORT_SECONDS
        share = min(1.0, done / total) if total else None
        self._queue.report(self._id, done=share, size=size, elapsed=round(now - self._began, 2))


def look_at(path: Path, stop: Callable[[], bool] = lambda: False) -> tuple[float, tuple[int, ...]]:
    """Return the length of a song in seconds, and the magnitude of its waveform in PEAKS columns, from 0 to 99.

    Raises:
        AudioError: It cannot be read.
        Cancelled: `stop` became true.
    """
    peaks: list[float] = []
    length = 0
    with open_reader(path) as song:
        for block in song.blocks(64 * _BLOCK):
            if stop():
                raise Cancelled
            length += block.shape[1]
            loudness = np.abs(block).max(axis=0)
            whole = len(loudness) // _BLOCK * _BLOCK
            peaks += loudness[:whole].reshape(-1, _BLOCK).max(axis=1).tolist()
            peaks += [float(loudness[whole:].max())] if whole < len(loudness) else []
        rate = song.rate
    return length / rate, _columns(peaks)


def _columns(peaks: Sequence[float]) -> tuple[int, ...]:
    """Combine peaks to at most PEAKS columns."""
    if not peaks:
        return ()
    count = min(PEAKS, len(peaks))
    starts = np.arange(count) * len(peaks) // count
    columns = np.maximum.reduceat(np.array(peaks), starts)
    return tuple(np.rint(99 * columns / (columns.max() or 1.0)).astype(int).tolist())
