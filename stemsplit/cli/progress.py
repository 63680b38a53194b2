"""Progress bars that fit the terminal, however narrow it is, and step aside for what is written beside them."""

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

_LEAST = 24  # characters that are left for the text and the bar, or a figure is left out
_WIDEST = 40  # characters of the bar


class Bars(Progress):
    """One bar for each task: a text, the bar, and figures, of which the last ones are left out where there is no room.

    On standard error alone: what goes to standard output is for a file or another program. Each task has a field
    `state`, a word on how it goes.
    """

    def __init__(self, console: Console, *, disable: bool, of_bytes: bool = False) -> None:
        """disable: draw nothing. of_bytes: what is counted are bytes that are fetched."""
        state = (TextColumn("{task.fields[state]}", markup=False), 19)  # "100.5 x real time"
        usual: _Figures = [(TaskProgressColumn(), 5), (TimeRemainingColumn(), 8), state]
        fetched: _Figures = [(DownloadColumn(), 15), (TimeRemainingColumn(), 8), (TransferSpeedColumn(), 11)]
        self._figures = fetched if of_bytes else usual
        self._text = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True))
        self._bar = BarColumn()
        self._console = console
        super().__init__(
            console=console, transient=True, redirect_stdout=False, disable=disable, speed_estimate_period=600
        )

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        """As of any Progress, with the columns for which there is room."""
        left = self._console.width - 1
        figures: list[ProgressColumn] = []
        for column, size in self._figures:
            if figures and left - size < _LEAST:
                break
            figures.append(column)
            left -= size
        bars: list[ProgressColumn] = []
        if left >= _LEAST:
            self._bar.bar_width = min(left * 2 // 5, _WIDEST)
            left -= self._bar.bar_width + 1
            bars.append(self._bar)
        self._text.get_table_column().max_width = max(left, 1)
        self.columns = (self._text, *bars, *figures)
        return super().make_tasks_table(tasks)

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Take the bars away while something else is written, perhaps to the same terminal."""
        if self.disable:
            yield
            return
        self.stop()
        try:
            yield
        finally:
            # The old display would go up as many lines as it had, over those that have been written since.
            self.live = Live(
                console=self._console, transient=True, redirect_stdout=False, get_renderable=self.get_renderable
            )
            self.start()
