"""Tags and cover art of a song, read from files of any format and passed on to its stems.

Not every format can hold everything: M4A has neither publisher nor key. Covers that are neither JPEG nor PNG, or very
large, become JPEGs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from stemsplit.audio.ffmpeg_source import open_container
from stemsplit.audio.foreign_tags import find_sound
from stemsplit.audio.splice import Splice, whole

if TYPE_CHECKING:
    from av.container import InputContainer

_LONGEST_TEXT = 1_000  # characters: some files keep a whole booklet in their comment
_LARGEST_PICTURE = 8 * 2**20  # bytes; FLAC holds at most twice as many
_IMAGE_CODECS = ("mjpeg", "png")  # what every format can hold
_LONGEST_SIDE = 2_000  # pixels of a picture that is converted
_MOST_PIXELS = 2**27  # of one to be converted: decoded, it takes half a gigabyte
_JPEG_QUALITY = 2 * 118  # the best but one of FFmpeg's
# Frames of MP3, so that FFmpeg reads an ID3 tag that is in front of something else.
_MP3 = 4 * (b"\xff\xfb\x90\xc4" + bytes(413))

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
        warnings: Predicates about the song, for what could not be read: "has ...".
    """

    fields: Mapping[str, str] = field(default_factory=dict)
    picture: Picture | None = None
    warnings: tuple[str, ...] = ()

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
    with path.open("rb", buffering=0) as file:
        sound = find_sound(file)
        tags = _read(Splice(file, range(sound.start, whole(file).stop)))
        if sound.start:
            front = _read(Splice(file, range(sound.start), _MP3), format="mp3")
            fields = {name: text for name in FIELDS if (text := tags.fields.get(name) or front.fields.get(name))}
            tags = Tags(fields, tags.picture or front.picture, tags.warnings or front.warnings)
        return tags


def _read(file: Splice, *, format: str | None = None) -> Tags:
    try:
        with open_container(file, format=format) as container:
            fields = dict(_read_fields(container))
            try:
                return Tags(fields, _read_picture(container))
            except Exception:  # damaged pictures make PyAV raise more than its own class
                return Tags(fields, warnings=("has a cover that cannot be read; the stems have none",))
    except Exception:  # as do damaged files
        if file.error:
            raise file.error from None
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
    """Return the front cover, or the first picture if none is marked as such.

    Raises:
        Exception: There are pictures, but none can be read.
    """
    import av

    streams = [stream for stream in container.streams.video if stream.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        return None
    # Demuxers give attached pictures first, as one packet each.
    packets = {packet.stream_index: packet for packet in islice(container.demux(streams), len(streams))}
    problem: Exception = ValueError("no picture")
    for stream in sorted(streams, key=lambda stream: stream.metadata.get("comment") != "Cover (front)"):
        packet = packets.get(stream.index)
        codec = stream.codec_context.name if stream.codec_context else ""
        if packet is None or not packet.size:
            continue
        if codec in _IMAGE_CODECS and stream.width and stream.height and packet.size <= _LARGEST_PICTURE:
            return Picture(bytes(packet), codec, stream.width, stream.height)
        try:
            return _as_jpeg(bytes(packet), codec, stream.width * stream.height)
        except Exception as error:
            problem = error
    raise problem


def _as_jpeg(data: bytes, codec: str, pixels: int) -> Picture:
    """Convert a picture, which becomes smaller if it is very large.

    Raises:
        Exception: It cannot be decoded, or has too many pixels.
    """
    import av

    if pixels > _MOST_PIXELS:
        raise ValueError("too many pixels")
    decoder = av.CodecContext.create(codec, "r")
    assert isinstance(decoder, av.VideoCodecContext)
    frame = [*decoder.decode(av.Packet(data)), *decoder.decode(None)][0]
    scale = min(1.0, _LONGEST_SIDE / max(frame.width, frame.height))
    width, height = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
    encoder = av.CodecContext.create("mjpeg", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuvj420p"
    encoder.qscale, encoder.global_quality = True, _JPEG_QUALITY
    picture = frame.reformat(width, height, "yuvj420p")
    picture.pts = 0
    jpeg = b"".join(bytes(packet) for packet in [*encoder.encode(picture), *encoder.encode(None)])
    return Picture(jpeg, "mjpeg", width, height)


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
