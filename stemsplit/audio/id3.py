"""ID3v2.3 tags, which WAV files hold in a chunk of their own: everything that RIFF's INFO chunk has no name for.

The version is the one that Windows, DAWs and DJ software read everywhere (id3.org, "ID3 tag version 2.3.0").
"""

import struct

from stemsplit.audio.tags import Picture, Tags

FRAMES = {
    "title": "TIT2",
    "artist": "TPE1",
    "album_artist": "TPE2",
    "album": "TALB",
    "composer": "TCOM",
    "track": "TRCK",
    "disc": "TPOS",
    "genre": "TCON",
    "copyright": "TCOP",
    "publisher": "TPUB",
    "bpm": "TBPM",
    "key": "TKEY",
}
"""Names of text frames, by those of `tags.FIELDS`; date and comment have frames of other forms."""

_LATIN1, _UTF16 = b"\0", b"\1"
_FRONT_COVER = b"\3"


def pack(tags: Tags) -> bytes:
    """Return a complete tag; nothing if there is nothing to say."""
    frames = [_frame(name, _text(text)) for name, text in tags.named(FRAMES).items()]
    frames += [_frame(*date) for date in _dates(tags.named({"date": "date"}).get("date", ""))]
    if comment := tags.named({"comment": "comment"}).get("comment"):
        unknown_language, no_description = b"XXX", "\ufeff\0".encode("utf-16-le")
        frames.append(_frame("COMM", _UTF16 + unknown_language + no_description + _utf16(comment)))
    if tags.picture:
        frames.append(_frame("APIC", _picture(tags.picture)))
    body = b"".join(frames)
    return b"ID3\3\0\0" + _synchsafe(len(body)) + body if body else b""


def _frame(name: str, body: bytes) -> bytes:
    return name.encode() + struct.pack(">IH", len(body), 0) + body


def _text(text: str) -> bytes:
    try:
        return _LATIN1 + text.encode("latin-1")
    except UnicodeEncodeError:
        return _UTF16 + _utf16(text)


def _utf16(text: str) -> bytes:
    return f"\ufeff{text}".encode("utf-16-le")


def _dates(date: str) -> list[tuple[str, bytes]]:
    """Return frames for a date such as 2024 or 2024-11-30: the year, and day and month."""
    year, month, day = date[:4], date[5:7], date[8:10]
    if not year.isdigit():
        return []
    has_day = month.isdigit() and day.isdigit() and date[4:8:3] == "--"
    return [("TYER", _text(year)), *([("TDAT", _text(day + month))] if has_day else [])]


def _picture(picture: Picture) -> bytes:
    return _LATIN1 + picture.mime.encode() + b"\0" + _FRONT_COVER + b"\0" + picture.data


def _synchsafe(size: int) -> bytes:
    """Return a size as ID3 stores it, with 7 bits a byte."""
    return bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))
