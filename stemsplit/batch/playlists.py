"""Reading playlists, .m3u and .m3u8, as written by players on any system, from files and from URLs."""

import os
import re
import stat
import unicodedata
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote_to_bytes

from stemsplit.errors import AudioError
from stemsplit.storage.location import ADDRESS, Location
from stemsplit.storage.redaction import redact
from stemsplit.wording import one_line

SUFFIXES = frozenset({".m3u", ".m3u8"})

_LARGEST = 2**24  # bytes: a hundred thousand songs with long names
# As browsers show them, without "https://"; a folder of such a name is asked for first.
_SITE = re.compile(r"(?:www\.)?(?:[\w-]+\.)+(?:be|co|com|de|fm|fr|io|it|jp|ly|net|nl|org|ru|tv|uk|us)/", re.IGNORECASE)
_FILE_ADDRESS = re.compile(r"file:(?://([^/\\]*))?([/\\].*)", re.IGNORECASE)
_DRIVE = re.compile(r"[a-z]:|\\\\", re.IGNORECASE)


def read_playlist(playlist: Path | Location) -> list[bytes]:
    """Return the lines of a playlist that name songs.

    Raises:
        AudioError: It cannot be read, is not a playlist, or names no songs.
    """
    name = repr(str(playlist))
    try:
        if isinstance(playlist, Path) and not stat.S_ISREG(playlist.stat().st_mode):
            raise AudioError(f"the playlist {name} is not a regular file", "save it to a file first")
        with playlist.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except FileNotFoundError as error:
        raise AudioError(f"there is no file {name}", "check the spelling") from error
    except (OSError, ValueError) as error:
        hint = "check its name and its permissions"
        raise AudioError(f"cannot read the playlist {name}: {one_line(error)}", hint) from error
    if content.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        content = content.decode("utf-16", "replace").encode("utf-8", "replace")
    if len(content) > _LARGEST or b"\0" in content:
        raise AudioError(f"{name} is not a playlist, despite its name", "rename it if it is a song")
    lines = [line for line in content.removeprefix(BOM_UTF8).splitlines() if line.strip()]
    if any(line.startswith(b"#EXT-X-") for line in lines):
        hint = "save the sound to a file first, for instance with  ffmpeg -i PLAYLIST song.flac"
        raise AudioError(f"{name} lists the pieces of one stream, not songs", hint)
    songs = [line for line in lines if not line.lstrip().startswith(b"#")]
    if not songs:
        raise AudioError(f"the playlist {name} names no songs", "name the songs themselves")
    return songs


def find_song(line: bytes, playlist: Path | Location) -> Path | Location:
    """Return what a line of a playlist names; relative paths start at the folder of the playlist.

    Raises:
        AudioError: It is a playlist, or a file that does not exist, or a file of this machine in a playlist of another.
    """
    text, *alternatives = _decodings(line)
    entry, where = repr(redact(text.strip())), repr(str(playlist))
    if Path(text.strip()).suffix.lower() in SUFFIXES:
        raise AudioError(f"{entry} in {where} is another playlist, which is not followed", "name it yourself")
    url = _FILE_ADDRESS.match(text.strip())
    if isinstance(playlist, Location):
        if url:
            raise AudioError(f"{entry} in {where} is on another machine", "name the file itself")
        return playlist.sibling(_with_slashes(text.strip()))
    if url:
        text, alternatives = _path_of_url(url[1] or "", url[2], f"{entry} in {where}"), []
    elif ADDRESS.match(text.strip()):
        return Location.parse(text.strip())
    for decoding in (text, *alternatives):
        for spelling in _spellings(decoding):
            path = playlist.parent / spelling
            if os.path.lexists(path):
                return path
    if os.name != "nt" and _DRIVE.match(text):
        raise AudioError(f"{entry} in {where} is on a Windows drive", "export the playlist with relative paths")
    hint = "paths in a playlist are relative to its folder: was either of them moved?"
    raise AudioError(f"there is no file {str(playlist.parent / text.strip())!r}, which {where} names", hint)


def path_of(text: str) -> str:
    """Return the path in a file URL, as browsers and file managers copy it; other text unchanged.

    Raises:
        AudioError: It is the URL of a file on another machine, a URL without its scheme, or a path of Windows on
            another system.
    """
    if url := _FILE_ADDRESS.fullmatch(text):
        return _path_of_url(url[1] or "", url[2], repr(text))
    if _SITE.match(text) and not os.path.isdir(text.partition("/")[0]):  # noqa: PTH112
        location = Location.parse(f"https://{text}")  # a site for videos is refused
        raise AudioError(f"{text!r} is a URL, not a file", f"name the URL of a song as  {location}")
    if os.name != "nt" and _DRIVE.match(text):
        hint = "write it as this system does: in WSL, C:\\Music is /mnt/c/Music"
        raise AudioError(f"{text!r} is a path of Windows", hint)
    return text


def _decodings(line: bytes) -> list[str]:
    """Return the possible texts of a line, the likeliest first: UTF-8, else Windows-1252, Latin-1, or raw bytes."""
    try:
        return [line.decode()]
    except UnicodeDecodeError:
        return [line.decode("cp1252", "replace"), line.decode("latin-1"), os.fsdecode(line)]


def _spellings(text: str) -> Iterator[str]:
    """Yield `text`, then the other ways in which players may have meant it, for when there is no such file."""
    forms = [text]
    yield text
    for change in (str.strip, _with_slashes, _unquoted, _composed, _decomposed):
        new = [form for form in map(change, forms) if form not in forms]
        forms += new
        yield from new


def _with_slashes(text: str) -> str:
    return text.replace("\\", "/")


def _unquoted(text: str) -> str:
    return os.fsdecode(unquote_to_bytes(os.fsencode(text))) if "%" in text else text


def _composed(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _decomposed(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def _path_of_url(host: str, path: str, what: str) -> str:
    """Return the path in a file URL (RFC 8089); `what` names it in messages."""
    if host.lower() not in ("", "localhost"):
        raise AudioError(f"{what} is on another machine", "copy the song, and name its file")
    path = _unquoted(path)
    return path[1:] if os.name == "nt" and re.match(r"/[a-z]:", path, re.IGNORECASE) else path
