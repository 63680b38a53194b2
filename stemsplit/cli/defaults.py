"""Default values of options, from environment variables and the settings file, in the form that Typer needs.

Every option of `separate` can be set; other commands use the settings for the options that they share with it.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from stemsplit import settings
from stemsplit.cli import help, usage
from stemsplit.errors import StemsplitError, UsageError
from stemsplit.wording import did_you_mean

HELP = (
    f"Options can be set for all runs: by lines such as batch_size = 4 in {settings.folder() / 'config.toml'}, and by "
    f"environment variables such as {settings.variable('batch_size')}=4, which overrule the file. The command line "
    "overrules both."
)
_PRESETS = ", ".join(f"{preset} is {model}" for preset, model in settings.PRESETS.items())
Preset = Annotated[
    settings.Preset | None,
    typer.Option("--preset", rich_help_panel=help.STEMS, help=f"Instead of a model: {_PRESETS}."),
]

_OF_ITS_OWN = {"evaluate": ("output",)}  # options of commands that are not the same as those of `separate`
_SOURCES = ("COMMANDLINE", "ENVIRONMENT", "DEFAULT_MAP")  # Typer's names, by precedence


def options(group: Any) -> dict[str, Any]:
    """Return the options that can be set for all runs, by their long names with underscores."""
    return _options_of(group.commands["separate"])


def connect_environment(group: Any) -> None:
    """Connect the options of all commands with their environment variables."""
    known = options(group)
    for command in _commands(group):
        for name, parameter in _options_of(command).items():
            if name in known:
                parameter.envvar = settings.variable(name)
                parameter.show_envvar = False  # `separate --help` explains the rule


def read(group: Any, context: Any) -> dict[str, Any]:
    """Return the options that the settings file sets, by name.

    Raises:
        UsageError: The file cannot be read, or has an unknown option or an invalid value.
    """
    known, path = options(group), str(settings.config_file())
    values = settings.read()
    for name, value in values.items():
        if name not in known:
            hint = did_you_mean(name, known) or f"known settings: {', '.join(known)}"
            raise UsageError(f"{path!r} sets {name!r}, which is not a setting", hint)
        if problem := _problem(known[name], value, context):
            raise UsageError(f"{path!r} has {name} = {_toml(value)}: {problem}", "correct it, or delete the line")
    return values


def default_map(group: Any, context: Any) -> dict[str, Any]:
    """Return Typer's `default_map` for the program: for each command, its parameters and their defaults.

    If the file is invalid, every run fails, but --help does not, and neither does `doctor`, which reports it.
    """
    try:
        return _by_command(group, read(group, context), options(group))
    except UsageError as error:
        invalid = _by_command(group, dict.fromkeys(options(group), _InvalidFile(error)), options(group))
        return {name: value for name, value in invalid.items() if name != "doctor"}


def check_names(group: Any) -> Iterator[UsageError]:
    """Yield an error for each environment variable with our prefix that is no option: it would do nothing."""
    known = {settings.variable(name) for name in options(group)}
    for variable in settings.environment():
        if variable not in known and variable != settings.CONFIG:
            yield UsageError(f"unknown environment variable {variable}", did_you_mean(variable, known) or "unset it")


def check_environment(group: Any, context: Any) -> Iterator[tuple[UsageError, bool]]:
    """Yield what is wrong with variables whose names start with our prefix, and whether that fails every run."""
    known = {settings.variable(name): parameter for name, parameter in options(group).items()}
    yield from ((error, False) for error in check_names(group))
    for variable, value in settings.environment().items():
        if variable in known and (problem := _refusal(known[variable], value, context)):
            yield _wrong_variable(variable, problem), True


def explain(error: Any) -> UsageError:
    """Return our error for one of Typer's; it names the environment variable if the value came from one."""
    parameter = getattr(error, "param", None)
    source = error.ctx.get_parameter_source(parameter.name) if parameter is not None and error.ctx else None
    if source is not None and source.name == "ENVIRONMENT" and parameter is not None:
        return _wrong_variable(parameter.envvar, usage.reason_of(error))
    return usage.translate(error)


def add_source(error: StemsplitError, group: Any, given: Sequence[str]) -> None:
    """Add to the hint where a value in the message was set, if it was not given on the command line."""
    try:
        values = settings.read()
    except UsageError:
        return
    for name in options(group):
        variable = settings.variable(name)
        value = os.environ.get(variable) or values.get(name)
        if isinstance(value, str) and repr(value) in str(error) and not any(value in argument for argument in given):
            where = variable if os.environ.get(variable) else repr(str(settings.config_file()))
            error.hint = f"{error.hint}; {name} is set in {where}" if error.hint else f"{name} is set in {where}"


def prevailing(context: typer.Context, *names: str) -> str | None:
    """Return which of several mutually exclusive parameters takes precedence, or None if none is set.

    Raises:
        UsageError: Two are set in the same place.
    """
    for kind in _SOURCES:
        sources = {name: context.get_parameter_source(name) for name in names}
        given = [name for name, source in sources.items() if source and source.name == kind]
        given = [name for name in given if context.params[name] is not None]
        if len(given) > 1:
            parameters = {parameter.name: parameter for parameter in context.command.params}
            options = [next(o for o in parameters[name].opts if o.startswith("--")) for name in given]
            if kind == "ENVIRONMENT":
                options = [str(parameters[name].envvar) for name in given]
            where = f" in {str(settings.config_file())!r}" if kind == "DEFAULT_MAP" else ""
            raise UsageError(f"{' and '.join(options)}{where} contradict each other", "leave one of them out")
        if given:
            return given[0]
    return None


def is_typed(context: typer.Context, name: str) -> bool:
    """Return whether a parameter was given on the command line itself."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == _SOURCES[0]


def choose_model(context: typer.Context, model: str | None, preset: settings.Preset | None) -> str | None:
    """Return the model that the parameters `model` and `preset` of a command select; None for the default."""
    if preset is not None and prevailing(context, "model", "preset") == "preset":
        return settings.PRESETS[preset]
    return model


class _InvalidFile:
    """Stands for every value of an invalid file: using it raises the error, showing it in --help does not."""

    def __init__(self, error: UsageError) -> None:
        self._error = error

    def __call__(self) -> NoReturn:
        raise self._error

    def __str__(self) -> str:
        return ""


def _options_of(command: Any) -> dict[str, Any]:
    """Return the options of one command that can be set for all runs.

    Required options cannot, and neither can flags that the command line could not switch off again.
    """
    options = {}
    for parameter in command.params:
        long = next((name for name in parameter.opts if name.startswith("--")), None)
        if long is None or parameter.required or parameter.is_eager:
            continue
        if parameter.name in _OF_ITS_OWN.get(command.name, ()):
            continue
        if not parameter.is_flag or parameter.secondary_opts:
            options[long[2:].replace("-", "_")] = parameter
    return options


def _commands(group: Any) -> Iterator[Any]:
    for command in group.commands.values():
        yield command
        if hasattr(command, "commands"):
            yield from _commands(command)


def _by_command(group: Any, values: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """Return, for each command of a group, those of `values` that it has options for."""
    result: dict[str, Any] = {}
    for name, command in group.commands.items():
        shared = {option: parameter for option, parameter in _options_of(command).items() if option in known}
        own = {parameter.name: values[option] for option, parameter in shared.items() if option in values}
        result[name] = {**own, **(_by_command(command, values, known) if hasattr(command, "commands") else {})}
    return result


def _problem(parameter: Any, value: Any, context: Any) -> str:
    """Return why a value from the file is invalid for an option; empty if it is valid."""
    if parameter.is_flag != isinstance(value, bool):
        return "it should be true or false" if parameter.is_flag else "it should not be true or false"
    typed = value if isinstance(value, (bool, list)) else str(value)  # as it would be on the command line
    if problem := _refusal(parameter, typed, context):
        return problem
    converted = parameter.process_value(context, typed)
    if _is_same(converted, value):
        return ""
    kinds = {list: "a list", tuple: "a list", int: "a whole number", float: "a number"}
    return f"it should be {kinds.get(type(converted), 'text')}"


def _is_same(converted: Any, value: Any) -> bool:
    if isinstance(converted, (list, tuple)):
        return isinstance(value, list) and len(converted) == len(value) and all(map(_is_same, converted, value))
    return bool(
        converted == value or (isinstance(converted, Path) and isinstance(value, str) and converted == Path(value))
    )


def _refusal(parameter: Any, value: Any, context: Any) -> str:
    """Return why Typer rejects a value; empty if it accepts it."""
    try:
        parameter.process_value(context, value)
    except (typer.BadParameter, UsageError) as error:
        return usage.reason_of(error)
    return ""


def _wrong_variable(variable: str, problem: str) -> UsageError:
    value = os.environ[variable]
    return UsageError(f"the environment variable {variable} cannot be {value!r}: {problem}", "correct it, or unset it")


def _toml(value: Any) -> str:
    """Return a value roughly as it is written in the file."""
    return str(value).lower() if isinstance(value, bool) else repr(value)
