"""Requests to servers: repeated with growing pauses where that may help, and explained where it did not."""

import errno
import random
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from stemsplit import signals
from stemsplit.errors import AudioError
from stemsplit.storage.redaction import redact
from stemsplit.wording import one_line

if TYPE_CHECKING:
    from stemsplit.storage.location import Location

PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds between two tries of a request; the real pause is a random share of it, so that clients spread out."""

_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}  # HTTP
_TRANSIENT_ERRNO = {errno.EBUSY, errno.EAGAIN, errno.ETIMEDOUT, errno.ECONNRESET, errno.EPIPE, errno.EIO}
_CLIENTS = ("aiohttp", "aiobotocore", "botocore", "httpx", "httpx2", "requests", "urllib3")
_DENIED = (401, 403)

T = TypeVar("T")


class IncompleteError(Exception):
    """What arrived is not what was announced; the text says how it differs."""


class StoppedError(Exception):
    """A transfer was stopped, as its caller asked; file systems pass on nothing but an Exception."""


def attempt(action: Callable[[], T], location: "Location", verb: str) -> T:
    """Return the result of a request, which is repeated if the server is busy, or the connection fails.

    Args:
        action: The request.
        location: What it is about.
        verb: What was tried, for the message, such as "read".

    Raises:
        FileNotFoundError: There is no such file.
        AudioError: It failed for another reason. No secret of the URL is in it.
    """
    for pause in (*PAUSES, None):
        try:
            return action()
        except (StoppedError, AudioError):
            raise
        except Exception as caught:
            error = _reason_of(caught)
            if _status(error) == 404 or isinstance(error, FileNotFoundError):
                raise FileNotFoundError(errno.ENOENT, "there is no such file", str(location)) from None
            if pause is None or not _is_transient(error):
                raise _explained(error, location, verb) from None
        _wait(pause * random.uniform(0.5, 1))
    raise AssertionError("the last try returns or raises")


def _wait(seconds: float) -> None:
    """Sleep, unless the program is to stop."""
    done = threading.Event()
    while seconds > 0:
        signals.check()
        done.wait(min(seconds, 0.2))
        seconds -= 0.2


def _reason_of(error: BaseException) -> BaseException:
    """Return the error itself, or what it hides: some file systems call a file missing that a server did not show."""
    cause = error.__cause__
    hides = cause is not None and (_status(cause) is not None or _is_transient(cause))
    return cause if cause is not None and hides and isinstance(error, OSError) and _status(error) is None else error


def _status(error: BaseException) -> int | None:
    """Return the HTTP status that an error of any client stands for."""
    status = getattr(error, "status", None) or _status_of(getattr(error, "response", None))
    if type(error).__module__.startswith("gcsfs"):
        status = getattr(error, "code", None)
    return status if isinstance(status, int) and 100 <= status < 600 else None


def _status_of(response: object) -> object:
    if isinstance(response, dict):  # of botocore
        return response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return getattr(response, "status_code", None)


def _is_transient(error: BaseException) -> bool:
    status = _status(error)
    if status is not None:
        return status in _TRANSIENT
    if isinstance(error, (TimeoutError, ConnectionError, IncompleteError)):
        return True
    if isinstance(error, OSError) and error.errno in _TRANSIENT_ERRNO:
        return True
    return type(error).__module__.partition(".")[0] in _CLIENTS and not isinstance(error, (ValueError, TypeError))


def _explained(error: BaseException, location: "Location", verb: str) -> AudioError:
    """Return an error of any client as a sentence."""
    what, status = f"cannot {verb} {str(location)!r}", _status(error)
    if isinstance(error, IncompleteError):
        return AudioError(f"{what}: {error}", "try again later")
    if status in _DENIED or isinstance(error, PermissionError) or type(error).__name__ == "NoCredentialsError":
        hint = "check the credentials, which are taken from where other programs of this service look for them"
        return AudioError(f"{what}: permission denied", hint)
    if status in (429, 503) or (isinstance(error, OSError) and error.errno == errno.EBUSY):
        return AudioError(f"{what}: the server is too busy", "try again later, or with fewer songs at a time")
    if status is not None:
        return AudioError(f"{what}: the server answers with the HTTP status {status}", "check the URL")
    if isinstance(error, TimeoutError):
        return AudioError(f"{what}: the server does not answer in time", "check the network, and try again")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return AudioError(f"{what}: the disk for temporary files is full", "make room, or set TMPDIR to another folder")
    if _is_transient(error):
        return AudioError(
            f"{what}: the connection fails: {_reason(redact(one_line(error)), location)}",
            "check the URL, and the network",
        )
    return AudioError(f"{what}: {_reason(redact(one_line(error)), location)}", "check the URL")


def _reason(text: str, location: "Location") -> str:
    """Return the reason for an error without the parts of the URL that are secret, however they are quoted in it."""
    authority, _, rest = location.url.partition("://")[2].partition("/")
    secrets = [*authority.rpartition("@")[0].split(":"), rest.partition("?")[2] if location.is_web else ""]
    for secret in secrets:
        text = text.replace(secret, "...") if secret else text
    return text
