"""How quickly models separate on this machine, as `stemsplit doctor` has measured; kept in the user's cache folder."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from stemsplit import settings
from stemsplit.files import replacing


def read() -> dict[str, float]:
    """Return the speed of each model that was measured, in times real time."""
    try:
        table = json.loads(_file().read_text(encoding="utf-8"))
        return {name: value for name, value in table.items() if type(value) is float and value > 0}
    except (OSError, ValueError, AttributeError):  # it was never written, or is damaged
        return {}


def record(speeds: Mapping[str, float]) -> None:
    """Remember measured speeds, in times real time; if they cannot be written, they are just not known later."""
    with suppress(OSError):
        _file().parent.mkdir(parents=True, exist_ok=True)
        with replacing(_file()) as part:
            part.write_text(json.dumps({**read(), **speeds}), encoding="utf-8")


def _file() -> Path:
    return settings.cache_folder() / "speeds.json"
