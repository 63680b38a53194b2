"""What a song's file says about it: title, artist, cover picture; read from any file, and passed on to its stems.

Every format keeps what it has a place for: WAV no cover, and of the fields only title, artist, album, track, date,
genre, comment and copyright; M4A neither publisher nor key. Covers are kept if they are JPEG or PNG.
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
"""What is carried over. Not what describes the song's own file, such as its loudness or the delay of its encoder."""

# Where formats disagree, and FFmpeg passes on what it finds. Without regard to case.
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
    """A cover. data: a whole JPEG or PNG file. codec: "mjpeg" or "png". width, height: pixels."""

    data: bytes
    codec: str
    width: int
    height: int

    @property
    def mime(self) -> str:
        """Its type, as the Web calls it."""
        return "image/png" if self.codec == "png" else "image/jpeg"


@dataclass(frozen=True, slots=True)
class Tags:
    """What a file says about its song. fields: text by name, of FIELDS. picture: its cover."""

    fields: Mapping[str, str] = field(default_factory=dict)
    picture: Picture | None = None

    def for_stem(self, stem: str) -> "Tags":
        """The same with the stem's name in the title, if there is one: "Song (vocals)"."""
        if "title" not in self.fields:
            return self
        return replace(self, fields={**self.fields, "title": f"{self.fields['title']} ({stem})"})

    def named(self, names: Mapping[str, str]) -> dict[str, str]:
        """The fields by the names that a format has for them; those that it has none for are left out."""
        return {names[name]: _clean(text) for name, text in self.fields.items() if name in names and _clean(text)}


def read_tags(path: Path) -> Tags:
    """What the file of a song says about it; nothing where it says nothing, or cannot be understood.

    OSError: the file cannot be read.
    """
    import av  # 0.1 s, and not needed by everyone who knows what tags are

    with path.open("rb", buffering=0) as file:
        try:
            with open_container(file, metadata_errors="surrogateescape") as container:  # not UTF-8: see _decoded
                return Tags(dict(_read_fields(container)), _read_picture(container))
        except av.FFmpegError:
            return Tags()


def _read_fields(container: "InputContainer") -> Iterator[tuple[str, str]]:
    found: dict[str, str] = {}
    # Ogg has them with the stream of sound, everybody else with the file.
    for metadata in (*(stream.metadata for stream in container.streams.audio[:1]), container.metadata):
        for key, text in metadata.items():
            if cleaned := _clean(_decoded(text)):
                found[_OTHER_NAMES.get(key.lower(), key.lower())] = cleaned
    for name in FIELDS:
        if name in found:
            yield name, found[name]


def _read_picture(container: "InputContainer") -> Picture | None:
    """The front cover, or the first picture if none says that it is that."""
    import av

    streams = [stream for stream in container.streams.video if stream.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        return None
    # Attached pictures are what a demuxer gives first, one packet each.
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
    """Text with bytes in it that are no UTF-8, which are then those of old Windows programs."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape").decode("cp1252", "replace")
    return text


def _clean(text: str) -> str:
    """Without what ends or breaks text in some format, and of bearable length."""
    text = text.replace("\0", " ").encode("utf-8", "replace").decode()
    return text.strip()[:_LONGEST_TEXT]
