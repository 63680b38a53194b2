"""Text for people and programs: figures, durations, the reasons for errors, suggestions, JSON."""

import difflib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

_LONGEST_REASON = 300  # characters; a damaged file can make a library quote a lot of it


def printable(text: str) -> str:
    """Return `text` on one line, with escapes for everything that is not printable."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in text
    )


def told(error: BaseException) -> str:
    """Return the sentence of an error with paths of Windows as they are: `repr` has doubled their backslashes."""
    return str(error).replace("\\\\", "\\")


def one_line(error: BaseException) -> str:
    """Return the reason for an error, on one line of at most 300 characters.

    For an `OSError` this is the system's reason without its number and path; for an error without text, its class.
    """
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return printable(" ".join(text.split()) or type(error).__name__)[:_LONGEST_REASON]


def closest(name: str, names: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the one of `names` that `name` is most likely a misspelling of, or None.

    Args:
        name: What the user typed.
        names: What exists.
        cutoff: Least similarity, from 0 to 1 (Ratcliff and Obershelp, as in `difflib`).
    """
    return next(iter(difflib.get_close_matches(name, list(names), n=1, cutoff=cutoff)), None)


def did_you_mean(name: str, names: Iterable[str], then: str = "") -> str:
    """Return a hint for an unknown name: "did you mean X?" if one of `names` is close to it, followed by `then`."""
    guess = closest(name, names)
    return " ".join(filter(None, (f"did you mean {guess}?" if guess else "", then)))


def decibels(value: float) -> str:
    """Format a figure in dB; NaN is a dash."""
    return "-" if math.isnan(value) else f"{value:.2f}"


def duration(seconds: float) -> str:
    """Format a time: 4.2 s, 1:05 min, 2:03:04 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{seconds:02} h"


def size_of(count: int) -> str:
    """Format a number of bytes: 1.2 GB, 3.4 MB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{max(count / 1e6, 0.1):.1f} MB"


def speed_of(length_seconds: float, took_seconds: float) -> str:
    """Format a speed of processing: 12.3 x real time."""
    return f"{length_seconds / max(took_seconds, 1e-3):.1f} x real time"


def to_json(value: Mapping[str, Any], *, indent: int | None = 2) -> str:
    """Return JSON; NaN and infinity, which it lacks, become null."""
    return json.dumps(_finite(value), indent=indent)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
