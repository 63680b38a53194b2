"""The command line: parse, check what is cheap, call one function. Nothing heavy is imported before it is needed."""

import atexit
import gc
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from stemsplit.cli import data, defaults, doctor, evaluate, models, separate, train
from stemsplit.errors import StemsplitError, UsageError
from stemsplit.signals import Stopped, raise_on_signals
from stemsplit.version import __version__
from stemsplit.wording import closest


class Commands(TyperGroup):
    """The commands; arguments that do not begin with the name of one belong to `separate`."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        defaults.connect_environment(self)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `separate` in front of songs and options, unless the first word looks like a misspelt command."""
        if not ctx.resilient_parsing:  # else a shell completes a word
            ctx.default_map = defaults.default_map(self, ctx)
        ctx.meta["given"] = tuple(args)
        own = {name for parameter in self.get_params(ctx) for name in parameter.opts}
        if args and args[0] not in self.commands and args[0] not in own:
            close = closest(args[0], self.commands, cutoff=0.75)
            if close and not Path(args[0]).exists() and not ctx.resilient_parsing:
                raise UsageError(f"there is no command or file {args[0]!r}", f"did you mean  stemsplit {close}")
            args = ["separate", *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; if it refuses a value, add where that was set."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            defaults.explain(error)
            raise
        except StemsplitError as error:
            defaults.add_source(error, self, ctx.meta["given"])
            if ctx.meta.get("events"):
                from stemsplit.cli import console, reporting

                console.write_json_line(reporting.error_event(error))
            raise

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Complete the first word: to a command, a song, or an option of `separate`."""
        items = super().shell_complete(ctx, incomplete)
        if incomplete.startswith("-"):
            command = self.commands["separate"]
            with command.make_context("separate", [], parent=ctx, resilient_parsing=True) as below:
                known = {item.value for item in items}
                return items + [i for i in command.shell_complete(below, incomplete) if i.value not in known]
        # If nothing is returned, the shell completes file names itself, and better.
        names = sorted(path.name for path in Path().iterdir()) if items else []
        return items + [type(items[0])(name) for name in names if _is_simple(name, incomplete)]


def _is_simple(name: str, beginning: str) -> bool:
    """Return whether a name starts with `beginning` and needs no quotes in a shell."""
    return name.startswith(beginning) and not name.startswith(".") and shlex.quote(name) == name


app = typer.Typer(
    cls=Commands,
    rich_markup_mode=None,
    no_args_is_help=True,
    subcommand_metavar="COMMAND | SONG...",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"stemsplit {__version__}")  # before torch is imported, which takes seconds
        from stemsplit import devices, signals

        with signals.deferred():
            for line in devices.describe_versions():
                typer.echo(line)
        raise typer.Exit


@app.callback()
def common(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_show_version,
            is_eager=True,
            help="Show the versions of stemsplit, Python and PyTorch, and the devices, and exit.",
        ),
    ] = False,
) -> None:
    """Turn songs into stems: vocals, drums, bass, other.

    Without a command songs are separated: stemsplit song.mp3 is short for stemsplit separate song.mp3.
    """


app.command(epilog=defaults.HELP)(separate.separate)
app.command()(separate.demo)
app.add_typer(models.app, name="models")
app.add_typer(data.app, name="data")
app.command()(evaluate.evaluate)
app.command()(train.train)
app.command()(doctor.doctor)


def main() -> None:
    """Run the program. Our errors become messages and exit codes; any other error is a bug and keeps its traceback."""
    raise_on_signals()
    # PyTorch creates half a million objects, none of them garbage: collecting takes a tenth of a second during its
    # import, and half a second when the program ends.
    gc.set_threshold(100_000)
    atexit.register(gc.freeze)
    try:
        app()
    except Stopped as stop:
        lines = [f"stemsplit: stopped by {stop.name}", *([f"hint: {stop.hint}"] if stop.hint else [])]
        print(*lines, sep="\n", file=sys.stderr)
        sys.exit(stop.exit_code)
    except StemsplitError as error:
        from stemsplit.cli.console import Messages

        Messages().error(error)
        sys.exit(error.exit_code)
