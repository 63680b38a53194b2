"""Everything that the user sees: results go to standard output, everything else to standard error.

Names of songs come from anywhere. They never pass through rich's markup, and never reach a terminal with control
characters in them. Only the paths on standard output, which are for programs, are written unchanged, byte by byte.
"""

import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import TaskID
from rich.table import Table
from rich.text import Text

from stemsplit import devices, signals
from stemsplit.cli.progress import Bars
from stemsplit.errors import StemsplitError
from stemsplit.wording import decibels, duration, printable, speed_of, to_json, told

if TYPE_CHECKING:
    from stemsplit.separation.outputs import Report
    from stemsplit.storage.location import Location


class Messages:
    """Messages and progress bars on standard error.

    Args:
        quiet: Show warnings and errors only.
        verbose: Show details as well.
        bars: Draw progress bars, if standard error is a terminal.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool = False, bars: bool = True) -> None:
        self.quiet, self.verbose = quiet, verbose
        self._console = Console(stderr=True, highlight=False)
        on_terminal = sys.stderr is not None and sys.stderr.isatty()
        self._live = bars and on_terminal and not self._console.is_dumb_terminal and not quiet
        self._warned: set[str] = set()
        self._last_hint = ""

    def note(self, text: str) -> None:
        """Print a note on progress or results, unless `quiet`."""
        if not self.quiet:
            self._print(text)

    def detail(self, text: str) -> None:
        """Print a detail, if `verbose`."""
        if self.verbose:
            self._print(text)

    @contextmanager
    def log_shown(self) -> Iterator[None]:
        """Print what the library logs within the block: warnings, and if `verbose`, what it does."""
        logger, handler = logging.getLogger("stemsplit"), _LogHandler(self)
        level = logger.level
        logger.setLevel(logging.INFO if self.verbose else logging.WARNING)
        logger.addHandler(handler)
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.setLevel(level)

    def separated(self, song: str, folder: str, report: "Report", seconds: float) -> None:
        """Print that a song is separated: where its stems are, how long it took, and warnings."""
        length_seconds = report.length / report.rate
        speed = speed_of(length_seconds, seconds)
        self.note(f"{song} -> {folder} ({duration(length_seconds)} in {duration(seconds)}, {speed})")
        for warning in report.warnings:
            self.warn(warning)
        if report.gain != 1:
            self.note(
                f"the stems of {song!r} are turned down by {-20 * math.log10(report.gain):.2f} dB, so that none clips"
            )
        if report.clipped:
            self.warn(
                f"{report.clipped} samples of the stems of {song!r} are beyond full scale and were clipped",
                "turn all of its stems down with --clip gain, or write them unclipped with --bits 32f",
            )

    def warn(self, text: str, hint: str = "") -> None:
        """Print a warning; each text only once, even if it holds for many songs."""
        if text not in self._warned:
            self._warned.add(text)
            self._print(f"warning: {text}", hint)

    def error(self, error: StemsplitError) -> None:
        """Print an error: its sentence on one line, its hint on another; a hint is not repeated for the next error."""
        hint, self._last_hint = error.hint if error.hint != self._last_hint else "", error.hint
        self._print(f"stemsplit: {told(error)}", hint)

    @contextmanager
    def progress(self, text: str) -> Iterator[Callable[[int, int | None], None]]:
        """Show a bar on a terminal; yields a function to call with what is done and the total, if that is known."""
        with self._bars() as bars:
            task = bars.add_task(printable(text), total=None, state="")
            yield lambda done, total: bars.update(task, completed=done, total=total)

    @contextmanager
    def loading(self, text: str) -> Iterator[None]:
        """Show that libraries and models are loaded; signals wait, as PyTorch aborts if its import is interrupted."""
        devices.check_limit()
        with signals.deferred(), self.progress(text):
            yield

    @contextmanager
    def songs(self, lengths: Sequence[float | None]) -> Iterator["SongsProgress"]:
        """Show bars for every running song and for all together; `lengths` in seconds, None if unknown."""
        with self._bars() as bars:
            yield SongsProgress(self, bars, lengths)

    @contextmanager
    def download(self, text: str) -> Iterator[Callable[[int, int | None], None]]:
        """Show a download with its speed and the time left; yields as `progress` does, in bytes."""
        with self._bars(of_bytes=True) as bars:
            task = bars.add_task(printable(text), total=None, visible=False, state="")
            yield lambda done, total: bars.update(task, completed=done, total=total, visible=True)

    @contextmanager
    def training(self, epochs: int, steps: int) -> Iterator["TrainingProgress"]:
        """Show bars for the epoch and the whole training, and print a line after every epoch."""
        with self._bars() as bars:
            yield TrainingProgress(self, bars, epochs, steps)

    def _bars(self, *, of_bytes: bool = False) -> Bars:
        return Bars(self._console, disable=not self._live, of_bytes=of_bytes)

    def _print(self, text: str, hint: str = "") -> None:
        for line in (text, f"hint: {hint}" if hint else ""):
            if line:
                self._console.print(Text(printable(line)), soft_wrap=True)


class _LogHandler(logging.Handler):
    def __init__(self, messages: Messages) -> None:
        super().__init__(logging.INFO)
        self._messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            self._messages.warn(record.getMessage())
            return
        for line in self.format(record).splitlines():  # several if it has a traceback
            self._messages.detail(line)


class SongsProgress:
    """Progress of a batch: a bar for each song and one for all; without bars but with `verbose`, some lines."""

    STEP = 10  # per cent between two of these lines

    def __init__(self, messages: Messages, bars: Bars, lengths: Sequence[float | None]) -> None:
        self._messages, self._bars, self._count = messages, bars, len(lengths)
        known = [seconds for seconds in lengths if seconds is not None]
        self._mean = sum(known) / len(known) if known else 1.0  # stands in for unknown lengths
        self._began = time.monotonic()
        self._done = 0.0  # seconds of audio of finished songs
        self._running: dict[object, float] = {}  # seconds of audio done of songs in progress
        self._finished = 0
        self._all: TaskID | None = None
        if self._count > 1:
            total = sum(self._mean if seconds is None else seconds for seconds in lengths)
            self._all = bars.add_task("", total=max(total, 1e-3), state="")
            self._update()

    @contextmanager
    def song(self, text: str, seconds: float | None) -> Iterator[Callable[[int, int | None], None]]:
        """Show a song while the block runs; yields a function to call with the samples done and the total."""
        key, began, next_line = object(), time.monotonic(), self.STEP
        length = self._mean if seconds is None else seconds
        task = self._bars.add_task(printable(text), total=None, state="")
        show_lines = self._bars.disable and self._messages.verbose

        def on_progress(done: int, total: int | None) -> None:
            nonlocal next_line
            share = min(done / total, 1.0) if total else 0.0
            self._running[key] = share * length
            speed = speed_of(share * length, time.monotonic() - began)
            self._bars.update(task, completed=done, total=total, state=speed if total else "")
            self._update()
            if show_lines and share * 100 >= next_line and share < 1:
                self._messages.detail(f"{text}: {share:.0%}, {speed}")
                next_line = int(share * 100 // self.STEP + 1) * self.STEP

        try:
            yield on_progress
        finally:
            self._bars.remove_task(task)
            self._running.pop(key, None)
            self._done += length
            self._finished += 1
            self._update()

    @contextmanager
    def progress(self, text: str) -> Iterator[Callable[[int, int | None], None]]:
        """Show a bar that does not count for all songs; yields a function to call with what is done and the total."""
        task = self._bars.add_task(printable(text), total=None, state="")
        try:
            yield lambda done, total: self._bars.update(task, completed=done, total=total)
        finally:
            self._bars.remove_task(task)

    def hidden(self) -> AbstractContextManager[None]:
        """Hide the bars while something else is written to the terminal."""
        return self._bars.hidden()

    def _update(self) -> None:
        if self._all is not None:
            done = self._done + sum(list(self._running.values()))
            speed = speed_of(done, time.monotonic() - self._began)
            text = f"all songs, {self._finished} of {self._count} done"
            self._bars.update(self._all, completed=done, description=text, state=speed if done else "")


class TrainingProgress:
    """Progress of a training."""

    def __init__(self, messages: Messages, bars: Bars, epochs: int, steps: int) -> None:
        self._messages, self._bars = messages, bars
        self._epochs, self._steps = epochs, steps
        self._seconds: list[float] = []
        self._epoch = bars.add_task("epoch", total=steps, state="")
        self._all: TaskID | None = None  # how far a resumed run is shows when its first epoch ends

    def step(self, step: int, loss: float) -> None:
        """Call after every step of an epoch, counted from one."""
        self._bars.update(self._epoch, completed=step, state=f"loss {loss:.5f}")

    def finish(self, epoch: int, loss: float, scores: Mapping[str, float], seconds: float) -> None:
        """Call after every epoch, counted from one, with the mean validation SDR by stem, or an empty mapping."""
        self._seconds.append(seconds)
        remaining = sum(self._seconds) / len(self._seconds) * (self._epochs - epoch)
        line = f"epoch {epoch}/{self._epochs}  loss {loss:.5f}"
        if scores:
            line += "  SDR " + "  ".join(f"{stem} {decibels(value)}" for stem, value in scores.items()) + " dB"
        line += f"  {duration(seconds)}"
        if epoch < self._epochs:
            line += f", {duration(remaining)} to go"
        self._messages.note(line)
        if self._all is None:
            self._all = self._bars.add_task("all epochs", total=self._epochs, state="")
        self._bars.update(self._all, completed=epoch, state=f"{duration(remaining)} to go")
        self._bars.reset(self._epoch, description=f"epoch {epoch + 1}", total=self._steps, state="")


def is_terminal() -> bool:
    """Return whether results go to a terminal, so to a person rather than a program."""
    return sys.stdout is not None and sys.stdout.isatty()


def write_path(path: "Path | Location", end: bytes = b"\n") -> None:
    """Write a path to standard output as the bytes that it is on disk; line breaks in it become `\\n` and `\\r`.

    Args:
        path: The path, or the URL.
        end: What ends it: a newline, or a NUL character, with which line breaks stay as they are.
    """
    text = str(path)
    write(text.replace("\n", "\\n").replace("\r", "\\r") if end == b"\n" else text, end)


def write(text: str, end: bytes = b"\n") -> None:
    """Write a line of results to standard output."""
    if sys.stdout is None:  # the caller has closed it
        return
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(os.fsencode(text) + end)
        sys.stdout.buffer.flush()
    except OSError as error:
        # Python must not try to write the remaining bytes again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise  # the reader has gone: Typer exits quietly
        raise StemsplitError(f"cannot write to standard output: {error.strerror}") from error


def write_json_line(value: Mapping[str, Any]) -> None:
    """Write one of several JSON results, on one line."""
    write(to_json(value, indent=None))


def write_json(value: Mapping[str, Any]) -> None:
    """Write the only JSON result, indented."""
    write(to_json(value))


def write_rows(columns: Sequence[str] | None, rows: Sequence[Sequence[str]]) -> None:
    """Write a table of words under the headings `columns`, if any; the last column wraps to fit the terminal."""
    table = Table(box=None, pad_edge=False, show_header=columns is not None)
    for index in range(len(rows[0])):
        table.add_column(Text(columns[index]) if columns else "", no_wrap=index < len(rows[0]) - 1)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    _write(table)


def write_table(title: str, columns: Sequence[str], sections: Sequence[Mapping[str, Mapping[str, float]]]) -> None:
    """Write sections of rows of figures in dB; `title` is the heading of the row names, `columns` are the others."""
    table = Table(title, box=None, pad_edge=False)
    for column in columns:
        table.add_column(Text(column), justify="right")
    for rows in sections:
        table.add_row()
        for name, values in rows.items():
            table.add_row(Text(printable(name)), *(decibels(values[column]) for column in columns))
    _write(table)


def _write(table: Table) -> None:
    on_terminal = sys.stdout is not None and sys.stdout.isatty()
    console = Console(width=None if on_terminal else 1000, color_system=None)
    with console.capture() as capture:
        console.print(table)
    write("\n".join(line.rstrip() for line in capture.get().rstrip("\n").split("\n")))
