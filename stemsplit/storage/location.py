"""Files and folders at URLs, named and looked up like paths, through fsspec.

Nothing here is needed for local files, and fsspec is imported only once a URL is opened. URLs may hold passwords and
signatures: `str(location)` has neither, and is the only form that messages, manifests and logs get to see.
"""

import errno
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from pathlib import PurePosixPath
from tempfile import SpooledTemporaryFile
from typing import IO, Any
from urllib.parse import unquote, urljoin, urlsplit

from stemsplit.errors import AudioError
from stemsplit.storage.redaction import redact, redact_url
from stemsplit.storage.requests import attempt
from stemsplit.version import DISTRIBUTION

ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
"""The start of a URL."""

SILENCE_SECONDS = 60.0
"""How long a web server may say nothing."""

_VIDEO_SITES = frozenset(
    "youtube.com youtu.be youtube-nocookie.com vimeo.com dailymotion.com dai.ly twitch.tv tiktok.com bilibili.com "
    "facebook.com instagram.com soundcloud.com bandcamp.com spotify.com deezer.com tidal.com music.apple.com".split()
)
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}  # by scheme
_IN_MEMORY = 2**22  # bytes of a copy: manifests and playlists
_TIMES = ("LastModified", "Last-Modified", "updated", "mtime", "last_modified", "modified", "created")
_snapshots: dict[str, Mapping[str, "Stat"]] = {}  # by the URL of a folder, while `listed`


@dataclass(frozen=True, slots=True)
class Stat:
    """What a server says about a file, under the names of `os.stat`.

    Attributes:
        st_size: Bytes, or -1 if the server does not say.
        st_mtime_ns: Time of the last change in nanoseconds, in whole seconds; 0 if the server does not say.
        version: A text that is another one for another content, or empty.
        type: The media type, such as "text/html", or empty.
    """

    st_size: int
    st_mtime_ns: int = 0
    version: str = ""
    type: str = ""


@dataclass(frozen=True, slots=True)
class Location:
    """A file or a folder at a URL. The methods have the names and the meaning of those of `pathlib.Path`.

    Attributes:
        url: As the user typed it; it may contain secrets.
        parts: The path below it.
        known: What a listing said about it, if it comes from one.
    """

    url: str = field(repr=False)
    parts: tuple[str, ...] = ()
    known: Stat | None = field(default=None, compare=False, repr=False)

    @classmethod
    def parse(cls, url: str) -> "Location":
        """Return the place that a URL names.

        Raises:
            AudioError: It is a page of a site for videos or music, or nothing here can open such URLs.
        """
        host = (urlsplit(url).hostname or "").lower() if url.lower().startswith("http") else ""
        if any(host == site or host.endswith(f".{site}") for site in _VIDEO_SITES):
            message = f"stemsplit does not download from {host}"
            raise AudioError(message, "a file that was downloaded from there will do")
        location = cls(url)
        _check_supported(location)
        return location

    def __str__(self) -> str:
        return redact_url(self.real if self.parts else self.url)

    @property
    def scheme(self) -> str:
        """In lower case, such as "s3"."""
        return self.url.partition("://")[0].lower()

    @property
    def is_web(self) -> bool:
        """Whether it is at a web server, which has files, but no folders that can be listed."""
        return self.scheme in ("http", "https")

    @property
    def is_object(self) -> bool:
        """Whether it is in a bucket, where names have slashes in them, and making a folder could make a bucket."""
        return self.scheme in _EXTRAS

    @property
    def name(self) -> str:
        """The last part of its path."""
        if self.parts:
            return self.parts[-1]
        path = self.url.partition("://")[2]
        if self.is_web:
            path = unquote(re.split(r"[?#]", path)[0])
        return path.rstrip("/").rpartition("/")[2].rpartition("@")[2]

    @property
    def suffix(self) -> str:
        """The extension of its name, with the dot."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> "Location":
        """The folder that it is in, at most up to the URL."""
        return Location(self.url, self.parts[:-1])

    @property
    def key(self) -> str:
        """The path below the URL, with slashes."""
        return "/".join(self.parts)

    @property
    def real(self) -> str:
        """What tells it apart from all others; it may contain secrets."""
        return "/".join((self.url.rstrip("/"), *self.parts))

    def joinpath(self, *parts: str) -> "Location":
        """Return a place below it."""
        return Location(self.url, (*self.parts, *parts))

    def with_name(self, name: str) -> "Location":
        """Return another file in the same folder."""
        return self.parent.joinpath(name)

    def with_suffix(self, suffix: str) -> "Location":
        """Return the file with another extension, which begins with a dot."""
        return self.with_name(str(PurePosixPath(self.name).with_suffix(suffix)))

    def sibling(self, reference: str) -> "Location":
        """Return what a relative or absolute reference in this file, such as a line of a playlist, names.

        Raises:
            AudioError: As `parse`.
        """
        if ADDRESS.match(reference):
            return Location.parse(reference)
        if self.is_web:
            return Location(urljoin(self.url, re.sub(r"\s", "%20", reference)))
        scheme, _, path = self.real.partition("://")
        bucket, *_ = above = path.split("/")[:-1]
        target = [bucket] if reference.startswith("/") else list(above)
        for part in reference.split("/"):
            if part == "..":
                target = target[:-1] or [bucket]
            elif part not in ("", "."):
                target.append(part)
        if target[: len(above)] == above:
            return Location(f"{scheme}://{'/'.join(above)}", tuple(target[len(above) :]))
        return Location(f"{scheme}://{'/'.join(target)}")

    def exists(self) -> bool:
        """Return whether there is such a file or folder.

        Raises:
            AudioError: The server does not answer, or refuses to.
        """
        try:
            self.stat()
        except FileNotFoundError:
            return False
        return True

    def stat(self, *, fresh: bool = False) -> Stat:
        """Return what the server, or a listing that is not to be `fresh`, says about it.

        Raises:
            FileNotFoundError: There is no such file.
            AudioError: The server does not answer, or refuses to.
        """
        if not fresh and (known := self.known or self._listed()):
            return known
        system, path = self.open_system()
        return _stat(attempt(lambda: system.info(path), self, "read"))

    def _listed(self) -> Stat | None:
        """Return what is known from `listed`, or None if nothing is; raise FileNotFoundError for what is not there."""
        snapshot = _snapshots.get(self.url)
        if snapshot is not None and self.key not in snapshot:
            raise FileNotFoundError(errno.ENOENT, "there is no such file", str(self))
        return snapshot[self.key] if snapshot is not None else None

    def is_folder(self) -> bool:
        """Return whether it is a folder, or a prefix of names.

        Raises:
            FileNotFoundError: There is nothing of this name.
            AudioError: The server does not answer, or refuses to.
        """
        if self.is_web:
            return False
        system, path = self.open_system()
        return bool(attempt(lambda: system.info(path), self, "read")["type"] == "directory")

    def walk(self) -> Iterator["Location"]:
        """Yield all files below it, sorted by name, with what the listing says about them.

        Raises:
            AudioError: It cannot be listed.
        """
        system, path = self.open_system()
        listing = attempt(lambda: system.find(path, detail=True), self, "list")
        prefix = path.rstrip("/") + "/" if path else ""
        for name in sorted(listing):
            if name.startswith(prefix) and listing[name].get("type", "file") == "file":
                parts = tuple(name.removeprefix(prefix).split("/"))
                yield replace(self.joinpath(*parts), known=_stat(listing[name]))

    @contextmanager
    def listed(self) -> Iterator[None]:
        """Know every file below this folder from one listing within the block, instead of asking for each.

        Raises:
            AudioError: It cannot be listed.
        """
        try:
            found = list(self.walk())
        except FileNotFoundError:
            found = []
        _snapshots[self.url] = {each.key: each.known for each in found if each.known}
        try:
            yield
        finally:
            del _snapshots[self.url]

    def open(self, mode: str = "rb", buffering: int = -1) -> IO[bytes]:
        """Open a temporary copy of it for reading; a large one is on disk. The arguments are for equality with `Path`.

        Raises:
            FileNotFoundError: There is no such file.
            AudioError: The server does not answer, or refuses to.
        """
        self._listed()
        system, path = self.open_system()

        def copy() -> IO[bytes]:  # as a whole, so that a connection that fails later on is not noticed by the reader
            with system.open(path, mode) as remote, ExitStack() as stack:
                file = stack.enter_context(SpooledTemporaryFile(_IN_MEMORY))
                shutil.copyfileobj(remote, file, 2**20)
                stack.pop_all()
            file.seek(0)
            return file

        return attempt(copy, self, "read")

    def write_bytes(self, content: bytes) -> None:
        """Write it as a whole.

        Raises:
            AudioError: It cannot be written.
        """
        system, path = self.open_system()
        attempt(lambda: system.pipe_file(path, content), self, "write to")

    def unlink(self) -> None:
        """Delete it; nothing happens if there is no such file.

        Raises:
            AudioError: It cannot be deleted.
        """
        system, path = self.open_system()
        try:
            attempt(lambda: system.rm_file(path), self, "delete")
        except FileNotFoundError:
            return

    def open_system(self) -> tuple[Any, str]:
        """Return the file system of fsspec, and the name of this place in it."""
        import fsspec  # type: ignore[import-untyped]

        system, path = fsspec.core.url_to_fs(self.url, **_options(self.scheme))
        return system, "/".join((path.rstrip("/"), *self.parts)) if self.parts else path


def is_url(text: str) -> bool:
    """Return whether a text is a URL of any kind."""
    return bool(ADDRESS.match(text))


def _check_supported(location: Location) -> None:
    import fsspec

    scheme = location.scheme
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        package = _EXTRAS.get(scheme)
        hint = f"pip install '{DISTRIBUTION}[{package}]'" if package else redact(str(error))
        raise AudioError(f"{scheme}:// needs a package that is not installed", hint) from None
    except ValueError:
        hint = "use https://, s3://, gs:// or hf://, or name a file"
        raise AudioError(f"nothing is known about {scheme}://, as in {str(location)!r}", hint) from None


def _options(scheme: str) -> dict[str, Any]:
    """Return the options of a file system: lists are always fresh, and no transfer is too long, only too slow."""
    if scheme in ("http", "https"):
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=SILENCE_SECONDS, sock_read=SILENCE_SECONDS)
        return {"client_kwargs": {"timeout": timeout, "trust_env": True}}  # proxies and passwords of the environment
    return {"use_listings_cache": False} if scheme in _EXTRAS else {}


def _stat(info: Mapping[str, Any]) -> Stat:
    size = info.get("size")
    times = (_nanoseconds(info[name]) for name in _TIMES if info.get(name))
    version = next((str(info[name]) for name in ("ETag", "etag", "md5Hash", "blob_id") if info.get(name)), "")
    return Stat(-1 if size is None else int(size), next(times, 0), version, str(info.get("mimetype") or ""))


def _nanoseconds(moment: Any) -> int:
    """Return a time as some file system states it, in whole seconds: a server may list more digits than it answers."""
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment.replace("Z", "+00:00"))
        except ValueError:
            try:
                moment = parsedate_to_datetime(moment)
            except ValueError:
                return 0
    if isinstance(moment, datetime):
        moment = (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()
    return int(moment) * 10**9 if isinstance(moment, (int, float)) and moment < time.time() + 86_400 else 0
