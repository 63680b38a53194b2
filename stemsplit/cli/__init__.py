"""The command line: parse, check what is cheap, call one function. Nothing heavy is imported before it is needed."""

import difflib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from stemsplit import __version__
from stemsplit.cli import evaluating, learning, models, separating
from stemsplit.errors import StemsplitError, UsageError
from stemsplit.interruption import Stopped, raise_on_signals


class Commands(TyperGroup):
    """The commands, with `separate` for whatever does not begin with the name of one."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `separate` in front of songs and of its options; a misspelt command is no song, though."""
        if args and args[0] not in (*self.commands, *ctx.help_option_names, "--version"):
            close = difflib.get_close_matches(args[0], self.commands, n=1, cutoff=0.75)
            if close and not Path(args[0]).exists():
                raise UsageError(f"there is no command and no song {args[0]!r}", f"did you mean  stemsplit {close[0]}")
            args = ["separate", *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; when it is told to stop, end with one line and the exit code that shells expect."""
        try:
            return super().invoke(ctx)
        except Stopped as stop:
            print(
                f"stemsplit: stopped by {stop.name}",
                *([f"hint: {stop.hint}"] if stop.hint else []),
                sep="\n",
                file=sys.stderr,
            )
            raise typer.Exit(stop.exit_code) from None


app = typer.Typer(
    cls=Commands,
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    subcommand_metavar="COMMAND | SONG...",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"stemsplit {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Turn songs into stems: vocals, drums, bass, other.

    Without a command songs are separated: stemsplit song.mp3 is short for stemsplit separate song.mp3.
    """


app.command()(separating.separate)
app.command()(separating.demo)
app.add_typer(models.app, name="models")
app.command()(evaluating.evaluate)
app.command()(learning.train)


def main() -> None:
    """The one place where errors become messages and exit codes; what is not ours is a bug and keeps its traceback."""
    raise_on_signals()
    try:
        app()
    except StemsplitError as error:
        from stemsplit.console import Messages

        Messages().error(error)
        sys.exit(error.exit_code)
