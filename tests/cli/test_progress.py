"""Progress bars, on a terminal that is just large enough to test them."""

import io
import re

import pytest
from rich.console import Console

from stemsplit.cli.progress import Bars

LONG = "17/20 A very long name of a song (feat. Somebody) [Remastered] - Live at the Hall.flac"


class Terminal(io.StringIO):
    """What is drawn, and what is written beside it."""

    def lines(self) -> list[str]:
        """What is on the screen, as a terminal moves its cursor."""
        screen, row, column = [""], 0, 0
        for code, letter in re.findall(r"\x1b\[([?\d;]*[A-Za-z])|([^\x1b])", self.getvalue()):
            if letter == "\n":
                row, column = row + 1, 0
                screen += [""] * (row + 1 - len(screen))
            elif letter == "\r":
                column = 0
            elif code.endswith("A"):
                row = max(row - int(code[:-1] or 1), 0)
            elif code == "2K":
                screen[row] = ""
            elif letter:
                screen[row] = screen[row][:column].ljust(column) + letter + screen[row][column + 1 :]
                column += 1
        return [line.rstrip() for line in screen]


def console(terminal: Terminal, width: int = 80) -> Console:
    return Console(
        file=terminal, force_terminal=True, width=width, height=20, color_system=None, legacy_windows=False, _environ={}
    )


def draw(width: int, *, of_bytes: bool = False, state: str = "12.3 x real time") -> str:
    """A bar that is half done, on a terminal so wide."""
    terminal = Terminal()
    with Bars(console(terminal, width), disable=False, of_bytes=of_bytes) as bars:
        bars.add_task(LONG, total=20_000_000, completed=10_000_000, state=state)
        return max(terminal.lines(), key=len)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_what_is_written_beside_bars_stays_on_the_screen(count: int) -> None:
    terminal = Terminal()
    with Bars(console(terminal), disable=False) as bars:
        for number in range(count):
            bars.add_task(f"song {number}", total=10, state="")
        for number in range(6):
            with bars.hidden():
                terminal.write(f"stem {number}\n")
            bars.refresh()
        assert len([line for line in terminal.lines() if line.startswith("song")]) == count
    assert [line for line in terminal.lines() if line] == [f"stem {number}" for number in range(6)]


@pytest.mark.parametrize("width", [160, 80, 60])
def test_a_long_name_leaves_room_for_everything_else(width: int) -> None:
    drawn = draw(width)
    assert drawn.startswith("17/20 A very")
    assert " ━━━" in drawn
    assert drawn.endswith(" 50% -:--:-- 12.3 x real time")
    assert len(drawn) <= width


def test_narrow_terminals_get_what_matters_most() -> None:
    assert draw(40).startswith("17/20 A ve")
    assert "━━━" in draw(40)
    assert draw(40).endswith(" 50% -:--:--")
    assert draw(20) == "17/20 A very …  50%"
    assert draw(6).endswith("50%")


@pytest.mark.parametrize(("width", "end"), [(80, " 10.0/20.0 MB -:--:-- ?"), (45, " 10.0/20.0 MB")])
def test_downloads_fit_as_well(width: int, end: str) -> None:
    assert draw(width, of_bytes=True).endswith(end)


def test_nothing_is_drawn_where_it_should_not_be() -> None:
    terminal = Terminal()
    with Bars(console(terminal), disable=True) as bars:
        bars.add_task("song", total=10, state="")
        with bars.hidden():
            terminal.write("stem\n")
    assert terminal.getvalue() == "stem\n"
