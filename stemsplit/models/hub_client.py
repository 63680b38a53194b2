"""The way to the Hub: its client, whether there is a network, and what to say when something goes wrong."""

import errno
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn
from urllib.parse import urlsplit

from stemsplit.errors import ModelError, UnreachableError
from stemsplit.models import cache, registry
from stemsplit.models.registry import ModelSpec
from stemsplit.wording import one_line

# To look up a name and to connect; what is asked afterwards gets the client's own, longer times.
_REACH_SECONDS = 1.6
_PIECE = 2**18  # bytes between two reports of a download, and what is lost at most when one goes on after a cut


def client() -> Any:
    """The Hub's client, over plain HTTP: the Rust one that it would prefer heeds neither mirrors nor Ctrl-C."""
    import huggingface_hub.constants
    import huggingface_hub.errors

    huggingface_hub.constants.HF_HUB_DISABLE_XET = True
    huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = _PIECE
    huggingface_hub.logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # what matters is said in our own words
    huggingface_hub.utils.disable_progress_bars()  # type: ignore[attr-defined]  # and shown in our own bars
    return huggingface_hub


def require_network(spec: ModelSpec) -> None:
    """Find out in a moment whether there is a way to the Hub, as the client would try for half a minute.

    The name is looked up in a thread, since that can take longer than any timeout that one could set.
    """
    from urllib.request import getproxies, proxy_bypass

    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        hint = f"unset HF_HUB_OFFLINE, or use {registry.FALLBACK}, which travels with stemsplit"
        raise UnreachableError(f"the model {spec.name!r} is not on this machine, and HF_HUB_OFFLINE is set", hint)
    target = _address(constants.ENDPOINT, "HF_ENDPOINT")
    scheme = urlsplit(constants.ENDPOINT).scheme
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    if proxy and not proxy_bypass(target[0]):
        target = _address(proxy if "//" in proxy else f"http://{proxy}", "the proxy of the environment")
    outcome: list[str] = []

    def connect() -> None:
        try:
            socket.create_connection(target, timeout=_REACH_SECONDS).close()
            outcome.append("")
        except (OSError, UnicodeError) as error:
            outcome.append(getattr(error, "strerror", None) or str(error))

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_REACH_SECONDS)
    if outcome != [""]:
        reason = outcome[0] if outcome else f"no answer within {_REACH_SECONDS} s"
        hint = f"check the network; {registry.FALLBACK} needs none: --model {registry.FALLBACK}"
        raise UnreachableError(f"cannot reach {target[0]} to get the model {spec.name!r}: {reason}", hint)


def _address(url: str, what: str) -> tuple[str, int]:
    """Host and port to connect to."""
    parts = urlsplit(url)
    try:
        port = parts.port or {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}[parts.scheme]
    except (ValueError, KeyError):
        port = 0
    if not parts.hostname or not port:
        raise ModelError(f"{what} is no address: {url!r}", "write it as https://HOST or http://HOST:PORT")
    return parts.hostname, port


class _Expired(BaseException):
    """Time is up; no Exception, so that nothing in between takes it for a reason to try again."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise TimeoutError when the block takes longer.

    The client gives up on a server that sends nothing, but not on one that sends a byte now and then. Works in the main
    thread of systems that have timers (not on Windows), and does nothing elsewhere.
    """
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def expire(number: int, frame: FrameType | None) -> NoReturn:
        raise _Expired

    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)  # again every second, in case something swallows the first
    try:
        yield
    except _Expired:
        raise TimeoutError(f"it took more than {seconds:.0f} s") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def in_our_words(spec: ModelSpec, file: str) -> Iterator[None]:
    """Turn what the Hub's client raises into one sentence and a hint."""
    errors = client().errors
    transport = errors.HfHubHTTPError.__bases__[0]  # of httpx or httpx2, whichever the client uses
    try:
        yield
    except (transport, errors.EntryNotFoundError, OSError, RuntimeError, ValueError, ImportError) as error:
        raise _explain(error, spec, file, errors) from error


def _explain(error: Exception, spec: ModelSpec, file: str, errors: Any) -> ModelError:
    """What went wrong, from the innermost cause that the client names."""
    host = urlsplit(client().constants.ENDPOINT).hostname
    wraps = isinstance(error, (errors.LocalEntryNotFoundError, ValueError))
    cause = error.__cause__ if wraps and isinstance(error.__cause__, Exception) else error
    log_in = "set HF_TOKEN, or log in with  hf auth login"
    if isinstance(cause, errors.GatedRepoError):
        hint = f"ask for access at https://huggingface.co/{spec.repo}, then {log_in}"
        return ModelError(f"the author of {spec.repo!r} wants to be asked before the model is downloaded", hint)
    if isinstance(cause, errors.RepositoryNotFoundError):
        return ModelError(f"{host} has no repository {spec.repo!r}, or not for you", f"check the name; or {log_in}")
    if isinstance(cause, errors.RevisionNotFoundError):
        return ModelError(f"{spec.repo!r} has no revision {spec.revision!r}", "name a branch, a tag or a commit")
    if isinstance(cause, errors.EntryNotFoundError) and not isinstance(cause, errors.LocalEntryNotFoundError):
        return ModelError(f"{spec.repo!r} has no file {file!r} at {spec.revision!r}", "the author may have moved it")
    if isinstance(cause, errors.LocalTokenNotFoundError):
        return ModelError(f"{host} does not know who you are", log_in)
    status = getattr(getattr(cause, "response", None), "status_code", 0)
    if status == 429:
        return UnreachableError(f"{host} wants no more requests for now (429)", f"wait some minutes, or {log_in}")
    if status >= 500 or status == 408:
        return UnreachableError(f"{host} has a problem of its own ({status})", "try again later")
    if status in (401, 403):
        return ModelError(f"{host} refuses access to {spec.repo!r} ({status})", log_in)
    if status:
        return ModelError(f"{host} answers {status} when asked for {file!r} of {spec.repo!r}", "try again later")
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        hint = "make room, or let HF_HOME name a folder on another disk"
        return ModelError(f"there is no room left for the model {spec.name!r} in {str(cache.hub_cache())!r}", hint)
    if isinstance(cause, OSError) and cause.errno and cause.filename:
        reason = f"cannot keep the model {spec.name!r}: {cause.filename!r}: {cause.strerror}"
        return ModelError(reason, "let HF_HOME name a folder that you may write to")
    reason = one_line(cause)
    if isinstance(cause, (ValueError, ImportError)):
        return ModelError(f"the Hub's client refuses {spec.name!r}: {reason}", "check the name and the settings")
    return UnreachableError(f"the transfer of {file!r} of {spec.name!r} broke off: {reason}", "try again")
