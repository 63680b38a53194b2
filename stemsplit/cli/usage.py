"""Typer's errors about the command line, as ours: one sentence and a hint."""

import re
from collections.abc import Sequence
from typing import Any, get_args, get_origin

import typer

from stemsplit.errors import UsageError
from stemsplit.wording import closest, did_you_mean

TyperUsageError: type[Exception] = typer.BadParameter.__bases__[0]
"""Of which all of Typer's errors about the command line are; it is not exported under a name of its own."""

_KINDS = {int: "a whole number", float: "a number"}

_OTHER_PROGRAMS = {
    "-n": "it is --model here, or -m",
    "--name": "it is --model here, or -m",
    "--mp3": "it is --format mp3 here",
    "--flac": "it is --format flac here",
    "--wav": "it is --format wav here, which is the default",
    "--int24": "it is --bits 24 here, which is the default",
    "--float32": "it is --bits 32f here",
    "--mp3-bitrate": "it is --bitrate here, such as  --bitrate 320k",
    "--mp3-preset": "it is --quality here, from 0 (best) to 9",
    "--out": "it is --output here, or -o",
    "--clip-mode": "it is --clip here",
    "--segment": "the length of windows is the model's",
    "--no-split": "the length of windows is the model's; memory does not grow with the song",
    "--offset": "songs are separated from their beginning",
    "--duration": "songs are separated to their end",
    "--output_format": "it is --format here",
    "--output_dir": "it is --output here, or -o",
    "--output_path": "it is --output here, or -o",
    "--model_filename": "it is --model here, or -m",
}
"""Options of demucs, Spleeter and audio-separator, which many users know, and what is meant by them here."""


def translate(error: Any) -> UsageError:
    """Return our error for one of Typer's.

    Args:
        error: A `TyperUsageError`.
    """
    command = error.ctx.command if error.ctx else None
    help = f"{error.ctx.command_path} --help" if error.ctx else "stemsplit --help"
    match type(error).__name__:
        case "NoSuchOption":
            return _unknown_option(error.option_name, command, f"see  {help}")
        case "MissingParameter":
            return UsageError(f"{name_of(error.param)} is missing", f"see  {help}")
        case "BadParameter":
            name, value = name_of(error.param) if error.param else "a value", _value_in(error)
            what = f"{name} cannot be {value!r}" if value is not None else f"{name} is invalid"
            return UsageError(f"{what}: {reason_of(error)}", f"see  {help}")
        case "BadOptionUsage" if "requires" in error.message:
            return UsageError(f"{error.option_name} needs a value", f"see  {help}")
        case "BadOptionUsage":
            return UsageError(f"{error.option_name} takes no value", f"see  {help}")
    text = plain(error.format_message())
    if unknown := re.match(r"no such command '(.*?)'", text):
        hint = did_you_mean(unknown[1], command.commands, f"see  {help}") if command else f"see  {help}"
        return UsageError(f"there is no command {unknown[1]!r}", hint)
    if extra := re.fullmatch(r"got unexpected extra arguments?(?:\(s\))? \((.*)\)", text):
        return UsageError(f"there is an argument too many: {extra[1]!r}", f"see  {help}")
    return UsageError(text, f"see  {help}")


def name_of(parameter: Any) -> str:
    """Return the name of an option or argument as it is typed: its longest one."""
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper()).strip("[].")
    return str(max(parameter.opts, key=len))


def reason_of(error: Any) -> str:
    """Return why a value was refused, by Typer or by us: part of a sentence on the value."""
    expected = _expected(error.param) if getattr(error, "param", None) else ""
    return f"it should be {expected}" if expected else plain(str(getattr(error, "message", error)))


def plain(text: str) -> str:
    """Return a message of Typer as part of a sentence."""
    text = text.removeprefix("Value error, ").rstrip(".")
    return text[:1].lower() + text[1:]


def _unknown_option(name: str, command: Any, help: str) -> UsageError:
    known = [option for parameter in command.params for option in parameter.opts] if command else []
    if name in _OTHER_PROGRAMS and command and command.name == "separate":
        return UsageError(f"there is no option {name}", _OTHER_PROGRAMS[name])
    guess = closest(name, known, cutoff=0.7)
    return UsageError(f"there is no option {name}", f"did you mean {guess}?" if guess else help)


def _expected(parameter: Any) -> str:
    """Describe the values that a parameter takes; empty for anything."""
    annotation = getattr(getattr(parameter, "type_descriptor", None), "annotation", None)
    if get_origin(annotation) is list:
        annotation = get_args(annotation)[0]
    if choices := _choices(annotation):
        return choices[0] if len(choices) == 1 else f"{', '.join(choices[:-1])} or {choices[-1]}"
    kind = _KINDS.get(annotation, "")  # type: ignore[arg-type]
    low, high = parameter.min, parameter.max
    if kind and low is not None and high is not None:
        return f"{kind} from {low} to {high}"
    return f"{kind}, {low} or more" if kind and low is not None else kind


def _choices(annotation: Any) -> Sequence[str]:
    return [each for each in get_args(annotation) if isinstance(each, str)]


def _value_in(error: Exception) -> Any:
    """Return the refused value, from the error of the library that validates for Typer; None if it does not tell."""
    cause: Any = error.__cause__
    problems = cause.errors() if hasattr(cause, "errors") else []
    return problems[0].get("input") if problems else None
