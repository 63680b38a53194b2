"""The Hugging Face Hub's client: its set-up, a quick check whether the Hub can be reached, and its errors as ours."""

import errno
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from stemsplit.errors import ModelError, UnreachableError
from stemsplit.models import cache, registry
from stemsplit.models.registry import ModelSpec
from stemsplit.wording import one_line

_CONNECT_SECONDS = 1.6  # to look up the host's name and to connect
_ANSWER_SECONDS = 5.0  # instead of the client's default of 10; downloads have another time-out
_CHUNK = 2**18  # bytes between two reports of progress, and the most that is lost when a download is resumed


def client() -> Any:
    """The `huggingface_hub` package, set to plain HTTP: its Rust transport ignores mirrors and Ctrl-C."""
    import huggingface_hub.constants
    import huggingface_hub.errors

    huggingface_hub.constants.HF_HUB_DISABLE_XET = True
    huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = _CHUNK
    huggingface_hub.logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # we report errors
    huggingface_hub.utils.disable_progress_bars()  # type: ignore[attr-defined]  # and draw our own bars
    return huggingface_hub


def answer_timeout() -> float:
    """Return how long to wait for the Hub's answer about a model, seconds; HF_HUB_ETAG_TIMEOUT sets it."""
    constants = client().constants
    is_default = constants.HF_HUB_ETAG_TIMEOUT == constants.DEFAULT_ETAG_TIMEOUT
    return _ANSWER_SECONDS if is_default else float(constants.HF_HUB_ETAG_TIMEOUT)


def check_reachable(spec: ModelSpec, *, damage: str = "", publishing: bool = False) -> None:
    """Check within two seconds whether the Hub, or the proxy to it, accepts connections.

    The client would wait for the resolver of a machine without a network for half a minute. The name is looked up in a
    thread, as that cannot be given a time-out.

    Args:
        spec: The model that is to be downloaded or published, for the message.
        damage: What is wrong with the files that are here already.
        publishing: Whether it is to be published.

    Raises:
        UnreachableError: There is no connection, or HF_HUB_OFFLINE is set.
        ModelError: The address of the Hub or of the proxy is invalid.
    """
    from urllib.request import getproxies, proxy_bypass

    from huggingface_hub import constants

    state, purpose = f"the model {spec.name!r} is not downloaded", f"to download the model {spec.name!r}"
    instead = f", or use {registry.FALLBACK}, which is bundled with stemsplit"
    if damage:
        state, purpose = f"the model {spec.name!r} is damaged: {damage}", "to download it again"
    if publishing:
        state, purpose, instead = f"{spec.name!r} cannot be published", f"to publish {spec.name!r}", ""
    if constants.HF_HUB_OFFLINE:
        raise UnreachableError(f"{state}, and HF_HUB_OFFLINE is set", f"unset HF_HUB_OFFLINE{instead}", model=spec.name)
    target = _parse_address(constants.ENDPOINT, "HF_ENDPOINT")
    scheme = urlsplit(constants.ENDPOINT).scheme
    proxies = getproxies()
    proxy = proxies.get(scheme) or proxies.get("all")
    if proxy and not proxy_bypass(target[0]):
        target = _parse_address(proxy if "//" in proxy else f"http://{proxy}", "the proxy in the environment")
    outcome: list[str] = []

    def connect() -> None:
        try:
            socket.create_connection(target, timeout=_CONNECT_SECONDS).close()
            outcome.append("")
        except (OSError, UnicodeError) as error:
            outcome.append(getattr(error, "strerror", None) or str(error))

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_CONNECT_SECONDS)
    if outcome != [""]:
        reason = outcome[0] if outcome else f"no answer within {_CONNECT_SECONDS} s"
        told = f"cannot reach {target[0]} {purpose}: {reason}"
        raise UnreachableError(f"{state}; {told}" if damage else told, f"check the network{instead}", model=spec.name)


def not_the_hub(spec: ModelSpec) -> UnreachableError:
    """Return the error for an answer that the Hub would not give: the page of a network that wants a login, say."""
    host = urlsplit(client().constants.ENDPOINT).hostname
    message = f"what answers as {host} is not the Hub, so the model {spec.name!r} cannot be downloaded"
    hint = "open a browser: does the network ask for a login? Else check HF_ENDPOINT and the proxy"
    return UnreachableError(message, hint, model=spec.name)


def _parse_address(url: str, what: str) -> tuple[str, int]:
    """Host and port to connect to."""
    parts = urlsplit(url)
    try:
        port = parts.port or {"http": 80, "https": 443, "socks5": 1080, "socks5h": 1080}[parts.scheme]
    except (ValueError, KeyError):
        port = 0
    if not parts.hostname or not port:
        raise ModelError(f"{what} is not a valid URL: {url!r}", "write it as https://HOST or http://HOST:PORT")
    return parts.hostname, port


@contextmanager
def translated_errors(spec: ModelSpec, file: str) -> Iterator[None]:
    """Turn what the Hub's client raises into a ModelError or an UnreachableError of one sentence and a hint.

    Args:
        spec: The model that the request is for.
        file: The file in its repository.
    """
    errors = client().errors
    transport = errors.HfHubHTTPError.__bases__[0]  # of httpx or httpx2, whichever the client uses
    try:
        yield
    except (json.JSONDecodeError, TypeError, LookupError, AttributeError) as error:
        raise not_the_hub(spec) from error
    except (transport, errors.EntryNotFoundError, OSError, RuntimeError, ValueError, ImportError) as error:
        translated = _translate(error, spec, file, errors)
        translated.model = spec.name
        raise translated from error


def _translate(error: Exception, spec: ModelSpec, file: str, errors: Any) -> ModelError:
    """Our error for the innermost cause that the client reports."""
    host = urlsplit(client().constants.ENDPOINT).hostname
    wraps = isinstance(error, (errors.LocalEntryNotFoundError, ValueError))
    cause = error.__cause__ if wraps and isinstance(error.__cause__, Exception) else error
    log_in = "set HF_TOKEN, or log in with  hf auth login"
    if isinstance(cause, errors.GatedRepoError):
        page = f"https://huggingface.co/{spec.repo}"
        return ModelError(
            f"access to {spec.repo!r} must be requested on its page", f"{page}, then {log_in}", model=spec.name
        )
    if isinstance(cause, errors.RepositoryNotFoundError):
        message = f"{host} has no repository {spec.repo!r}, or it is private"
        return ModelError(message, f"check the name; or {log_in}")
    if isinstance(cause, errors.RevisionNotFoundError):
        return ModelError(
            f"{spec.repo!r} has no revision {spec.revision!r}", "name a branch, a tag or a commit", model=spec.name
        )
    if isinstance(cause, errors.EntryNotFoundError) and not isinstance(cause, errors.LocalEntryNotFoundError):
        return ModelError(
            f"{spec.repo!r} has no file {file!r} at {spec.revision!r}", "the author may have moved it", model=spec.name
        )
    if isinstance(cause, errors.LocalTokenNotFoundError):
        return ModelError(f"not logged in to {host}", log_in)
    status = getattr(getattr(cause, "response", None), "status_code", 0)
    if status == 429:
        return UnreachableError(f"{host}: too many requests (429)", f"wait a few minutes, or {log_in}")
    if status >= 500 or status == 408:
        return UnreachableError(f"{host}: server error ({status})", "try again later")
    if status in (401, 403):
        return ModelError(f"{host} denies access to {spec.repo!r} ({status})", log_in)
    if status:
        message = f"{host}: unexpected response ({status}) for {file!r} of {spec.repo!r}"
        return ModelError(message, "try again later")
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        hint = "make room, or let HF_HOME name a folder on another disk"
        return ModelError(
            f"no space left for the model {spec.name!r} in {str(cache.hub_cache())!r}", hint, model=spec.name
        )
    if isinstance(cause, OSError) and cause.errno and cause.filename:
        message = f"cannot store the model {spec.name!r}: {cause.filename!r}: {cause.strerror}"
        return ModelError(message, "let HF_HOME name a folder that you may write to")
    reason = one_line(cause)
    if isinstance(cause, (ValueError, ImportError)):
        message = f"the Hub's client rejects {spec.name!r}: {reason}"
        return ModelError(message, "check the name and the settings")
    return UnreachableError(f"the download of {file!r} of {spec.name!r} failed: {reason}", "try again")
