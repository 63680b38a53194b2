"""Tags and cover art of a song, read from files of any format and passed on to its stems.

Not every format can hold everything: WAV has no cover and only title, artist, album, track, date, genre, comment and
copyright; M4A has neither publisher nor key. Covers are kept if they are JPEG or PNG.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from stemsplit.audio.decoding import open_container

if TYPE_CHECKING:
    from av.container import InputContainer

_LONGEST_TEXT = 1_000  # characters: some files keep a whole booklet in their comment
_LARGEST_PICTURE = 8 * 2**20  # bytes; FLAC holds at most twice as many
_IMAGE_CODECS = ("mjpeg", "png")  # what every format can hold

FIELDS = "title artist album_artist album composer track disc date genre comment copyright publisher bpm key".split()
"""The tags that are passed on; others describe the file itself, such as its loudness or its encoder's delay."""

# Names that differ between formats and that FFmpeg does not unify, in lower case.
_OTHER_NAMES = {
    "albumartist": "album_artist",
    "initialkey": "key",
    "initial_key": "key",
    "label": "publisher",
    "organization": "publisher",
    "tbpm": "bpm",
    "tempo": "bpm",
    "tkey": "key",
    "tmpo": "bpm",
    "tracknumber": "track",
    "discnumber": "disc",
    "year": "date",
}


@dataclass(frozen=True, slots=True)
class Picture:
    """A cover.

    Attributes:
        data: A complete JPEG or PNG file.
        codec: "mjpeg" or "png".
        width: Pixels.
        height: Pixels.
    """

    data: bytes
    codec: str
    width: int
    height: int

    @property
    def mime(self) -> str:
        """The media type."""
        return "image/png" if self.codec == "png" else "image/jpeg"


@dataclass(frozen=True, slots=True)
class Tags:
    """Tags of a song.

    Attributes:
        fields: Text by name, of `FIELDS`.
        picture: The cover, or None.
    """

    fields: Mapping[str, str] = field(default_factory=dict)
    picture: Picture | None = None

    def for_stem(self, stem: str) -> "Tags":
        """Return these tags with the stem's name added to the title, if there is one: "Song (vocals)"."""
        if "title" not in self.fields:
            return self
        return replace(self, fields={**self.fields, "title": f"{self.fields['title']} ({stem})"})

    def named(self, names: Mapping[str, str]) -> dict[str, str]:
        """Return the fields under a format's own names; fields that it has no name for are left out."""
        return {names[name]: _clean(text) for name, text in self.fields.items() if name in names and _clean(text)}


def read_tags(path: Path) -> Tags:
    """Read the tags of a file; they are empty if there are none, or FFmpeg cannot decode the file.

    Raises:
        OSError: The file cannot be read.
    """
    import av  # takes 0.1 s

    with path.open("rb", buffering=0) as file:
        try:
            with open_container(file, metadata_errors="surrogateescape") as container:  # not UTF-8: see _decoded
                return Tags(dict(_read_fields(container)), _read_picture(container))
        except av.FFmpegError:
            return Tags()


def _read_fields(container: "InputContainer") -> Iterator[tuple[str, str]]:
    fields: dict[str, str] = {}
    # In Ogg, tags belong to the audio stream, elsewhere to the file.
    for metadata in (*(stream.metadata for stream in container.streams.audio[:1]), container.metadata):
        for key, text in metadata.items():
            if cleaned := _clean(_decoded(text)):
                fields[_OTHER_NAMES.get(key.lower(), key.lower())] = cleaned
    for name in FIELDS:
        if name in fields:
            yield name, fields[name]


def _read_picture(container: "InputContainer") -> Picture | None:
    """Return the front cover, or the first picture if none is marked as such."""
    import av

    streams = [stream for stream in container.streams.video if stream.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        return None
    # Demuxers give attached pictures first, as one packet each.
    packets = {packet.stream_index: packet for packet in islice(container.demux(streams), len(streams))}
    for stream in sorted(streams, key=lambda stream: stream.metadata.get("comment") != "Cover (front)"):
        packet = packets.get(stream.index)
        codec = stream.codec_context.name if stream.codec_context else ""
        if packet is None or not 0 < packet.size <= _LARGEST_PICTURE:
            continue
        if codec in _IMAGE_CODECS and stream.width and stream.height:
            return Picture(bytes(packet), codec, stream.width, stream.height)
    return None


def _decoded(text: str) -> str:
    """Decode text that is not UTF-8 as Windows-1252, which old programs wrote."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape").decode("cp1252", "replace")
    return text


def _clean(text: str) -> str:
    """Remove null characters and lone surrogates, which some formats cannot hold, and cut off very long text."""
    text = text.replace("\0", " ").encode("utf-8", "replace").decode()
    return text.strip()[:_LONGEST_TEXT]
