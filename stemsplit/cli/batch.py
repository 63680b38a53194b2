"""The output of a batch: its events become lines, bars, paths and JSON."""

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

import typer

from stemsplit import devices
from stemsplit.batch.events import (
    BatchReport,
    Done,
    Event,
    ModelLoading,
    PageProgress,
    Planned,
    Result,
    SeparationStarted,
    Skipped,
    SongProgress,
    SongStarted,
    TracksFound,
)
from stemsplit.batch.inputs import Failed
from stemsplit.batch.tracks import Track
from stemsplit.cli import console, reporting
from stemsplit.cli.console import Messages, SongsProgress
from stemsplit.errors import UsageError
from stemsplit.models import speeds


class BatchPrinter:
    """Prints the events of `separate_batch`; a context manager, which removes the bars.

    Args:
        messages: Where notes and bars go.
        as_json: Write one JSON object for each event to standard output.
        single: The place of the only stem of the only song: "standard output", or a file.
        player: Also write the path of the player page.
        dry_run: Only show what would be done.
        end: What ends a path on standard output.
    """

    def __init__(
        self,
        messages: Messages,
        *,
        as_json: bool = False,
        single: str = "",
        player: bool = False,
        dry_run: bool = False,
        end: bytes = b"\n",
    ) -> None:
        self.count = 0
        self._messages = messages
        self._as_json, self._single, self._player, self._dry_run = as_json, single, player, dry_run
        self._end, self._to_stdout = end, single == "standard output"
        self._loading = ExitStack()
        self._bars = ExitStack()
        self._progress: SongsProgress | None = None
        self._songs: dict[str, _Song] = {}

    def __enter__(self) -> "BatchPrinter":
        return self

    def __exit__(self, *error: object) -> None:
        for song in self._songs.values():
            song.bar.close()
        self._loading.close()
        self._bars.close()

    def __call__(self, event: Event) -> None:
        """Print an event."""
        match event:
            case TracksFound():
                self.count = len(event.tracks)
                if self._single and self.count > 1:
                    raise UsageError(f"{self._single} has room for one song", "name a folder with --output")
            case Planned():
                if self._as_json:
                    console.write_json_line(reporting.plan_event(event))
            case ModelLoading():
                self._loading.enter_context(self._messages.progress(f"loading {event.model}"))
                devices.keep_freed_memory()
            case SeparationStarted():
                self._loading.close()
                lengths = [track.seconds for track in event.tracks]
                self._progress = self._bars.enter_context(self._messages.songs(lengths))
            case SongStarted():
                self._start(event)
            case SongProgress():
                song = self._songs[event.track.label]
                song.show(event.done, event.total)
                if self._as_json and song.throttle.allows(time.monotonic()):
                    console.write_json_line(reporting.progress_event(event))
            case PageProgress():
                self._show_page(event)
            case Done() | Skipped() | Failed():
                self._finish(event)

    def close(self, report: BatchReport) -> None:
        """Print the summary, and exit with 1 if a song failed."""
        if self._dry_run:
            rows = reporting.plan_rows(report, self._where)
            if rows and not self._as_json:
                console.write_rows(reporting.PLAN_COLUMNS, rows)
            if report.planned:
                self._messages.note(reporting.plan_summary(report, speeds.read().get(report.model)))
        else:
            if self._as_json:
                console.write_json_line(reporting.end_event(report))
            if len(report.results) > 1:
                for kind, count, text in reporting.result_rows(report):
                    self._messages.note(f"{kind:<8} {count:>5}  {text}".rstrip())
            if report.fallback and report.done:
                self._messages.note(f"separated with {report.model}, not with {report.fallback['instead_of']}")
        if report.failed:
            raise typer.Exit(1)

    def _start(self, event: SongStarted) -> None:
        if self._as_json:
            console.write_json_line(reporting.begin_event(event))
        track, song = event.track, _Song()
        if before := self._songs.pop(track.label, None):  # it begins again, as a worker of a cluster has died
            before.bar.close()
        label = track.name
        if event.count > 1:
            label = f"{event.number}/{event.count} {os.path.basename(track.name)}"  # noqa: PTH119
        if self._progress:
            song.show = song.bar.enter_context(self._progress.song(label, track.seconds))
        self._songs[track.label] = song

    def _show_page(self, progress: PageProgress) -> None:
        """Show a bar of its own for the page, in place of that of the song."""
        song = self._songs.setdefault(progress.track.label, _Song())
        if not song.on_page:
            song.on_page = True
            song.bar.close()
            bars = self._progress or self._messages
            text = f"page of {os.path.basename(progress.track.name)}"  # noqa: PTH119
            song.show = song.bar.enter_context(bars.progress(text))
        song.show(progress.done, progress.total)

    def _finish(self, result: Result) -> None:
        if song := self._songs.pop(result.source if isinstance(result, Failed) else result.track.label, None):
            song.bar.close()
        if self._progress:
            with self._progress.hidden():
                self._print(result)
        else:
            self._print(result)

    def _print(self, result: Result) -> None:
        if isinstance(result, Failed):
            self._messages.error(result.error)
        elif isinstance(result, Done):
            track = result.track
            self._messages.separated(track.name, self._where(track), result.report, result.seconds)
        elif not self._dry_run:  # the plan has it as well
            track = result.track
            self._messages.note(f"{track.name}: skipped, its stems in {track.folder} are complete")
        if self._as_json:
            console.write_json_line(reporting.result_event(result, player=self._player))
        elif isinstance(result, Done) and not self._to_stdout:
            pages = [result.track.player_page] if self._player else []
            # On a terminal the line above has said where the stems are.
            told = console.is_terminal() and not self._messages.quiet
            for path in pages if told else (*result.outputs.values(), *pages):
                console.write_path(path, self._end)

    def _where(self, track: Track) -> str:
        return self._single.strip("'") or str(track.folder)


@dataclass
class _Song:
    """The bar of a song that is being separated."""

    bar: ExitStack = field(default_factory=ExitStack)
    show: Callable[[int, int | None], None] = lambda done, total: None
    on_page: bool = False  # its stems are complete
    throttle: reporting.Throttle = field(default_factory=reporting.Throttle)
