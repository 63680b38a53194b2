"""Progress bars that fit narrow terminals, and can be hidden while something else is written."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column, Table

_Figures = Sequence[tuple[ProgressColumn, int]]

_MIN_WIDTH = 24  # characters for the text and for the bar; a figure that would leave fewer is left out
_MAX_BAR_WIDTH = 40  # characters


class Bars(Progress):
    """A line for each task: text, bar and figures, the last of which are left out on a narrow terminal.

    Each task has a field `state`, a few words on its progress. Standard output is never touched.
    """

    def __init__(self, console: Console, *, disable: bool, of_bytes: bool = False) -> None:
        """Create the bars.

        Args:
            console: Of standard error.
            disable: Draw nothing.
            of_bytes: Count downloaded bytes.
        """
        state = (TextColumn("{task.fields[state]}", markup=False), 19)  # "100.5 x real time"
        plain: _Figures = [(TaskProgressColumn(), 5), (TimeRemainingColumn(), 8), state]
        download: _Figures = [(DownloadColumn(), 15), (TimeRemainingColumn(), 8), (TransferSpeedColumn(), 11)]
        self._figures = download if of_bytes else plain
        self._text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True))
        self._bar = BarColumn()
        self._console = console
        super().__init__(
            console=console, transient=True, redirect_stdout=False, disable=disable, speed_estimate_period=600
        )

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        """Return the table of tasks, with the columns for which there is room."""
        left = self._console.width - 1
        figures: list[ProgressColumn] = []
        for column, size in self._figures:
            if figures and left - size < _MIN_WIDTH:
                break
            figures.append(column)
            left -= size
        bars: list[ProgressColumn] = []
        if left >= _MIN_WIDTH:
            self._bar.bar_width = min(left * 2 // 5, _MAX_BAR_WIDTH)
            left -= self._bar.bar_width + 1
            bars.append(self._bar)
        self._text.get_table_column().max_width = max(left, 1)
        self.columns = (self._text, *bars, *figures)
        return super().make_tasks_table(tasks)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Hide the bars while something else is written to the terminal."""
        if self.disable:
            yield
            return
        self.stop()
        try:
            yield
        finally:
            # The old display would move up by its own height, over what has been written since.
            self.live = Live(
                console=self._console, transient=True, redirect_stdout=False, get_renderable=self.get_renderable
            )
            self.start()
