"""Values as people, and programs, read them."""

import json
import math
from collections.abc import Mapping
from typing import Any


def printable(text: str) -> str:
    """`text` on one line, with escapes for all that is no visible character."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def decibels(value: float) -> str:
    """A figure in dB; a dash where there is none."""
    return "-" if math.isnan(value) else f"{value:.2f}"


def duration(seconds: float) -> str:
    """A time as people write it: 4.2 s, 1:05 min, 2:03:04 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02} h"


def speed_of(length_seconds: float, took_seconds: float) -> str:
    """How quickly sound was separated."""
    return f"{length_seconds / max(took_seconds, 1e-3):.1f} x real time"


def to_json(value: Mapping[str, Any], *, indent: int | None = 2) -> str:
    """JSON; numbers that it does not have become null."""
    return json.dumps(_finite(value), indent=indent)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
