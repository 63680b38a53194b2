"""Write docs/cli.md, the reference of all commands, from the program itself.

    python docs/generate_cli.py

`make docs` runs it, and tests/test_docs.py compares the file with what the program would give.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import typer

from stemsplit.cli.help import groups, metavar
from stemsplit.cli.main import app

_KINDS = {int: "N", float: "NUMBER", str: "TEXT"}
PAGE = Path(__file__).parent / "cli.md"
INTRODUCTION = """\
<!-- Written by docs/generate_cli.py from the program. Change the help texts in stemsplit/cli, then run `make docs`. -->

# Commands

`separate` is the default command: `stemsplit song.mp3` is short for `stemsplit separate song.mp3`.

**Output.** Results go to standard output; progress, warnings and errors go to standard error. Progress bars are drawn
only on a terminal. A file appears under its final name only when it is complete, and existing files are replaced only
with `--overwrite`.

**Exit codes**

| code | meaning |
|--:|---|
| 0 | everything was done |
| 1 | at least one song failed (the others are still separated), or something else went wrong |
| 2 | the command line or the settings are invalid |
| 130 | interrupted with Ctrl-C |
| 143 | terminated by SIGTERM |

**Environment.** Options with an entry in the column *environment* can also be set by that variable, or in a
[settings file](settings.md).
"""


def render() -> str:
    """Return the text of the page."""
    program: Any = typer.main.get_command(app)
    sections = [INTRODUCTION, _section("stemsplit", program)]
    sections += [_section(f"stemsplit {name}", command) for name, command in commands(program)]
    return "\n".join(sections)


def commands(group: Any) -> Iterator[tuple[str, Any]]:
    """Yield the name and the command for all commands of a group, those of its sub-groups included."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from ((f"{name} {below}", subcommand) for below, subcommand in commands(command))
        else:
            yield name, command


def _section(name: str, command: Any) -> str:
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    usage = [name, "[OPTIONS]", *map(metavar, arguments)]
    if hasattr(command, "commands"):
        usage.append(command.subcommand_metavar)
    lines = [f"## {name}", "", _text(command.help), "", f"    {' '.join(usage)}", ""]
    if arguments:
        rows = [[f"`{metavar(argument)}`", _text(argument.help)] for argument in arguments]
        lines += _table(["argument", "meaning"], rows)
    for title, group in groups(options):
        lines += [f"**{title}**", ""] if title != "Options" else []
        lines += _table_of_options(group)
    return "\n".join(lines)


def _table_of_options(options: list[Any]) -> list[str]:
    header = ["option", "meaning", "default", "environment"]
    rows = [[_option(option), _meaning(option), _default(option), _code(option.envvar)] for option in options]
    filled = [column for column in range(4) if any(row[column] for row in rows)]
    return _table([header[column] for column in filled], [[row[column] for column in filled] for row in rows])


def _option(option: Any) -> str:
    names = sorted(option.opts, key=len) + option.secondary_opts
    return ", ".join(f"`{name}{_value(option)}`" if name == names[-1] else f"`{name}`" for name in names)


def _value(option: Any) -> str:
    """Return what follows the name of an option: its metavar, or its choices."""
    if option.is_flag:
        return ""
    annotation = option.type_descriptor.annotation
    choices = "|".join(map(str, get_args(annotation)))
    return f" {option.metavar or choices or _KINDS.get(annotation, 'VALUE')}"


def _meaning(option: Any) -> str:
    notes = []
    if option.max is not None:
        notes.append(f"From {option.min} to {option.max}.")
    if option.multiple:
        notes.append("Can be repeated.")
    return _text(" ".join([option.help, *notes]))


def _text(text: str) -> str:
    """Escape what Markdown would take for emphasis or HTML."""
    return re.sub(r"([*<])", r"\\\1", text.strip())


def _default(option: Any) -> str:
    if option.required:
        return "required"
    if option.default is None or option.default is False or callable(option.default):
        return ""
    if option.default is True:
        return _code(option.opts[0])
    return _code(str(option.default))


def _code(text: str | None) -> str:
    return f"`{text}`" if text else ""


def _table(header: list[str], rows: list[list[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines] + [""]


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
