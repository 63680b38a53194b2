"""Plain help pages, with many options in groups; Typer's own groups need rich, which takes longer than all the rest."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

Function = TypeVar("Function", bound=Callable[..., Any])

TITLES = (STEMS, FILES, SONGS, QUALITY, MESSAGES) = (
    "Models and stems",
    "Files of the stems",
    "Many songs",
    "Quality and speed",
    "Messages",
)
_FEW = 20  # options that need no groups

_KINDS = {"int": "N", "int range": "N", "float": "NUMBER", "float range": "NUMBER", "str": "TEXT", "path": "PATH"}


def groups(parameters: Sequence[Any]) -> Iterator[tuple[str, list[Any]]]:
    """Yield the arguments and the options of a command, if these are many in groups, each with its title."""
    arguments = [each for each in parameters if each.param_type_name == "argument"]
    options = [each for each in parameters if each.param_type_name != "argument"]
    if arguments:
        yield "Arguments", arguments
    if len(options) <= _FEW:
        yield "Options", options
        return
    for title in TITLES:
        if group := [each for each in options if (getattr(each, "rich_help_panel", None) or MESSAGES) == title]:
            yield title, group


def metavar(argument: Any) -> str:
    """Return the name of an argument as help pages show it: SONG..., or [MODEL]... if it may be left out."""
    name = str(argument.metavar or argument.name.upper()).strip("[].")
    name = name if argument.required else f"[{name}]"
    return f"{name}..." if argument.nargs < 0 else name


class Command(TyperCommand):
    """A command with such a page."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the usage line: `[OPTIONS] SONG...`."""
        arguments = [each for each in self.get_params(ctx) if each.param_type_name == "argument"]
        return [*filter(None, [self.options_metavar]), *map(metavar, arguments)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments and options."""
        _write_groups(self, ctx, formatter)


class Commands(typer.Typer):
    """A group of such commands, as decorators add them."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**{"cls": Group, "rich_markup_mode": None, **attributes})

    def command(self, name: str | None = None, **attributes: Any) -> Callable[[Function], Function]:
        """Add a function as a command."""
        return super().command(name, **{"cls": Command, **attributes})


class Group(TyperGroup):
    """A group of commands with such a page."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write options and commands."""
        _write_groups(self, ctx, formatter)
        self.format_commands(ctx, formatter)


def _write_groups(command: Any, ctx: Any, formatter: Any) -> None:
    for title, parameters in groups(command.get_params(ctx)):
        records = [_record(parameter, ctx) for parameter in parameters if not getattr(parameter, "hidden", False)]
        if records:
            with formatter.section(title):
                formatter.write_dl(records)


def _record(parameter: Any, ctx: Any) -> tuple[str, str]:
    """Return a parameter and its help, without Typer's names of types."""
    names, text = parameter.get_help_record(ctx)
    if parameter.param_type_name == "argument":
        return metavar(parameter), text.replace("  [required]", "")
    text = re.sub(r"x>=(\d+)", r"\1 or more", re.sub(r"([\d.]+)<=x<=([\d.]+)", r"\1 to \2", text))
    return re.sub(r"<([^>]*)>", lambda match: _KINDS.get(match[1], match[1]), names), text
