"""Settings for all runs: a file, environment variables, and presets. Nothing here needs torch.

The command line takes precedence over the environment, the environment over the file, the file over the defaults.
"""

import os
import stat
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import platformdirs

from stemsplit.errors import UsageError
from stemsplit.files import read_toml

PREFIX = "STEMSPLIT_"
CONFIG = f"{PREFIX}CONFIG"  # the variable that names another file of settings
_HINT = 'correct it, or rename the file; every line should be like  model = "htdemucs"'

Preset = Literal["fast", "balanced", "best", "vocals", "karaoke"]
PRESETS: Mapping[Preset, str] = {
    "fast": "spleeter",
    "balanced": "htdemucs",
    "best": "kim_htdemucs_ft",
    "vocals": "mel_roformer_kim",
    "karaoke": "spleeter-2stems",
}
"""Models by what matters to the user."""


@cache
def temporary_home() -> Path | None:
    """Give a user who has no home folder, as that of `docker run --user` or of a service, a temporary one.

    From then on the variable HOME names it, by which the Hub's client finds its cache as well.

    Returns:
        The folder, which no other user can write to; None if there is a home.
    """
    if os.path.expanduser("~") != "~":  # noqa: PTH111 (never raises)
        return None
    try:
        home = _private_folder()
    except OSError:  # not even a temporary one: then nothing is kept
        home = Path(os.sep)
    os.environ["HOME"] = str(home)
    return home


def _private_folder() -> Path:
    """Return a temporary folder that is the same in every run, unless another user has made it first."""
    number = os.getuid() if hasattr(os, "getuid") else 0
    path = Path(tempfile.gettempdir()) / f"stemsplit-{number}"
    path.mkdir(mode=0o700, exist_ok=True)
    status = path.lstat()
    is_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == number and not status.st_mode & 0o077
    return path if is_ours else Path(tempfile.mkdtemp(prefix="stemsplit-"))


def folder() -> Path:
    """Return the folder of the user's config.toml and models.toml."""
    temporary_home()
    return platformdirs.user_config_path("stemsplit")


def cache_folder() -> Path:
    """Return the folder for what is made again if it is lost."""
    temporary_home()
    return platformdirs.user_cache_path("stemsplit")


def config_file() -> Path:
    """Return the path of the settings file, whether or not it exists: STEMSPLIT_CONFIG, or config.toml."""
    named = os.environ.get(CONFIG)
    return Path(named) if named else folder() / "config.toml"


def models_file() -> Path:
    """Return the path of the user's own list of models, whether or not it exists."""
    return folder() / "models.toml"


def variable(name: str) -> str:
    """Return the environment variable of an option: `batch_size` -> `STEMSPLIT_BATCH_SIZE`."""
    return PREFIX + name.upper()


def environment() -> dict[str, str]:
    """Return all environment variables that start with our prefix and are not empty."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(PREFIX) and value}


def read() -> dict[str, Any]:
    """Read the settings file: values by the names of options, with underscores; empty if it does not exist.

    `~` at the start of a text stands for the user's home folder, as in a shell.

    Raises:
        UsageError: The file cannot be read, or the one that STEMSPLIT_CONFIG names does not exist.
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
    values: dict[str, Any] = {}
    for key, value in tables.items():
        name = key.replace("-", "_")
        if name in values:
            raise UsageError(f"{str(path)!r} sets {name} twice", "delete one of the two lines", path=path)
        values[name] = _expand_home(value)
    return values


def _expand_home(value: Any) -> Any:
    if isinstance(value, list):
        return [_expand_home(item) for item in value]
    return os.path.expanduser(value) if isinstance(value, str) else value  # noqa: PTH111 (never raises)
