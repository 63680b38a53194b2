"""What users set once for all runs: a file, environment variables, and presets. Nothing here needs torch.

The command line comes before the environment, the environment before the file, the file before what is built in.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import platformdirs

from stemsplit.errors import UsageError
from stemsplit.files import read_toml

PREFIX = "STEMSPLIT_"
CONFIG = f"{PREFIX}CONFIG"  # the variable that names another file of settings
_HINT = 'correct it, or rename the file; every line should be like  model = "htdemucs"'

Preset = Literal["fast", "balanced", "best"]
PRESETS: Mapping[Preset, str] = {"fast": "spleeter", "balanced": "htdemucs", "best": "htdemucs_ft"}
"""Models by what matters to the user."""


def folder() -> Path:
    """Where the user's own files are: config.toml and models.toml."""
    return platformdirs.user_config_path("stemsplit")


def config_file() -> Path:
    """The file of settings, whether it exists or not: the one that STEMSPLIT_CONFIG names, or the usual one."""
    named = os.environ.get(CONFIG)
    return Path(named) if named else folder() / "config.toml"


def models_file() -> Path:
    """The user's own list of models, whether it exists or not."""
    return folder() / "models.toml"


def variable(name: str) -> str:
    """The environment variable for an option: `batch_size` -> `STEMSPLIT_BATCH_SIZE`."""
    return PREFIX + name.upper()


def environment() -> dict[str, str]:
    """All variables whose names begin as ours do, and that are not empty."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(PREFIX) and value}


def read() -> dict[str, Any]:
    """What the file says, by the names of options with underscores; nothing if it does not exist.

    A text that begins with `~` stands for a path in the user's home, as in a shell. Raises UsageError when the file
    cannot be read, and when the one that STEMSPLIT_CONFIG names is not there.
    """
    path = config_file()
    try:
        tables = read_toml(path, "settings", _HINT)
    except UsageError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        if CONFIG not in os.environ:
            return {}
        message = f"{CONFIG} names {str(path)!r}, which does not exist"
        raise UsageError(message, f"correct it, or unset {CONFIG}", path=path) from error
    found: dict[str, Any] = {}
    for key, value in tables.items():
        name = key.replace("-", "_")
        if name in found:
            raise UsageError(f"{str(path)!r} sets {name} twice", "delete one of the two lines", path=path)
        found[name] = _at_home(value)
    return found


def _at_home(value: Any) -> Any:
    if isinstance(value, list):
        return [_at_home(each) for each in value]
    return os.path.expanduser(value) if isinstance(value, str) else value  # noqa: PTH111 (never raises)
