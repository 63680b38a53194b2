"""The command line: parse, check what is cheap, call one function. Nothing heavy is imported before it is needed."""

import atexit
import gc
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from stemsplit import settings
from stemsplit.cli import app as browser
from stemsplit.cli import data, defaults, doctor, evaluate, help, models, separate, train, usage
from stemsplit.devices import memory_error, settle_threads
from stemsplit.errors import StemsplitError, UsageError
from stemsplit.version import __version__
from stemsplit.wording import closest


class Program(help.Group):
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
            options, words = self._options_first(ctx, args)
            word = words[0] if words and not ctx.resilient_parsing else ""
            if options and word in self.commands and not os.path.lexists(word):
                args = _insert(words, options)
            else:
                close = closest(word, self.commands, cutoff=0.75)
                if close and not os.path.lexists(word):
                    raise UsageError(f"there is no command or file {word!r}", f"did you mean  stemsplit {close}")
                args = ["separate", *args]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; if it refuses a value, add where that was set."""
        try:
            self._check_surroundings(ctx)
            return super().invoke(ctx)
        except usage.TyperUsageError as error:
            raise defaults.explain(error) from error
        except Exception as error:
            known = error if isinstance(error, StemsplitError) else None
            known = memory_error(error) or known
            if known is None:
                raise
            defaults.add_source(known, self, ctx.meta["given"])
            if ctx.meta.get("events"):
                from stemsplit.cli import console, reporting

                console.write_json_line(reporting.error_event(known))
            raise known from (error if known is not error else error.__cause__)

    def _options_first(self, ctx: Any, args: list[str]) -> tuple[list[str], list[str]]:
        """Split arguments into the options of `separate` at their beginning, with their values, and what follows."""
        command = self.commands["separate"]
        parser = command.make_parser(typer.Context(command, parent=ctx, info_name="separate", resilient_parsing=True))
        parser.allow_interspersed_args = False
        songs = next(parameter.name for parameter in command.params if parameter.param_type_name == "argument")
        try:
            values, _, _ = parser.parse_args(list(args))
        except usage.TyperUsageError:  # `separate` will refuse it as well
            return [], []
        words = list(values.get(songs) or ())
        options = args[: len(args) - len(words)]
        return (options, words) if options[-1:] != ["--"] else ([], [])  # what follows is no command

    def _check_surroundings(self, ctx: Any) -> None:
        """Refuse to work in a folder that is gone; tell of a missing home, and of misspelt variables."""
        try:
            Path.cwd()
        except OSError as error:
            raise StemsplitError("the current folder does not exist any more", "change to another one") from error
        warnings = list(defaults.check_names(self)) if ctx.meta["given"][:1] != ("doctor",) else []  # which tells them
        if home := settings.temporary_home():
            reason = f"there is no home folder: downloads are kept in {str(home)!r}, which may not stay"
            warnings.append(UsageError(reason, "let the variable HOME name a folder that you may write to"))
        if warnings:
            from stemsplit.cli.console import Messages

            for warning in warnings:
                Messages().warn(str(warning), warning.hint)

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


def _insert(words: list[str], options: list[str]) -> list[str]:
    """Return a command line with options, which came before the command, behind it."""
    end = words.index("--") if "--" in words else len(words)
    return [*words[:end], *options, *words[end:]]


def _is_simple(name: str, beginning: str) -> bool:
    """Return whether a name starts with `beginning` and needs no quotes in a shell."""
    return name.startswith(beginning) and not name.startswith(".") and shlex.quote(name) == name


app = help.Commands(
    cls=Program,
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
app.command("app")(browser.app)
app.add_typer(models.app, name="models")
app.add_typer(data.app, name="data")
app.command()(evaluate.evaluate)
app.command()(train.train)
app.command()(doctor.doctor)


def main() -> None:
    """Run the program. Our errors become messages and exit codes; any other error is a bug and keeps its traceback."""
    # PyTorch creates half a million objects, none of them garbage: collecting takes a tenth of a second during its
    # import, and half a second when the program ends.
    gc.set_threshold(100_000)
    atexit.register(gc.freeze)
    settle_threads()
    try:
        sys.exit(app(standalone_mode=False, prog_name="stemsplit"))
    except StemsplitError as ours:
        _end(ours)
    except usage.TyperUsageError as problem:
        error: Any = problem
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()
            sys.exit(error.exit_code)
        _end(defaults.explain(error))


def _end(error: StemsplitError) -> NoReturn:
    try:
        from stemsplit.cli.console import Messages

        Messages().error(error)
    except (MemoryError, ImportError, OSError):  # not even for this was there enough memory
        print(f"stemsplit: {error}", f"hint: {error.hint}", sep="\n", file=sys.stderr)
    sys.exit(error.exit_code)
