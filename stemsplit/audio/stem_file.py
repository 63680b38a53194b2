"""Stem files: one MP4 with the mixture and four stems, as defined by Native Instruments for its DJ software.

The first audio stream is the mixture, the only one that an ordinary player plays. A box `moov/udta/stem` holds the
names and colours of the other four as JSON. Traktor and Mixxx read such files.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from stemsplit.audio.formats import Format
from stemsplit.audio.tags import Tags
from stemsplit.errors import UsageError

RATES = (44_100, 48_000)  # Hz
COUNT = 4
SUFFIX = ".stem.mp4"
NAME = "stem_file"  # of this output, beside those of the stems

_ORDER = ("drums", "bass", "other", "vocals")  # the order that other programs use
_COLORS = ("#009E73", "#D55E00", "#CC79A7", "#56B4E9")
# Effects on the mixture, all off, because a song is mastered already. The values are those of Native Instruments' tool.
_MASTERING: dict[str, Any] = {
    "compressor": {
        "enabled": False,
        "input_gain": 0.5,
        "output_gain": 0.5,
        "threshold": 0,
        "dry_wet": 50,
        "attack": 0.003,
        "release": 0.3,
        "ratio": 3,
        "hp_cutoff": 300,
    },
    "limiter": {"enabled": False, "threshold": 0, "ceiling": -0.35, "release": 0.05},
}


@dataclass(frozen=True, slots=True)
class StemFile:
    """A stem file to write, with the stems or instead of them.

    Attributes:
        path: The file.
        mixture: Index of the mixture in the blocks that are written.
        stems: Indices of the four stems by name.
        format: m4a or alac.
        tags: Tags of the song.

    Raises:
        UsageError: Another format, or not four stems.
    """

    path: Path
    mixture: int
    stems: Mapping[str, int]
    format: Format = field(default_factory=lambda: Format("m4a"))
    tags: Tags = field(default_factory=Tags)

    def __post_init__(self) -> None:
        if len(self.stems) != COUNT:
            hint = "choose a model with four stems, and write all of them"
            raise UsageError(f"a stem file holds exactly four stems, not {len(self.stems)}", hint)
        if self.format.name not in ("m4a", "alac"):
            raise UsageError(f"a stem file cannot hold {self.format}", "choose m4a or alac for it")

    @property
    def names(self) -> list[str]:
        """Names of the stems in the order of the file: drums, bass, other, vocals; other stems as given."""
        known = [name for name in _ORDER if name in self.stems]
        return known if len(known) == COUNT else list(self.stems)

    @property
    def rows(self) -> list[int]:
        """Indices in the order of the file: the mixture, then the stems."""
        return [self.mixture, *(self.stems[name] for name in self.names)]

    @staticmethod
    def rate_for(rate: int) -> int:
        """Return the sample rate of the stem file for a song of `rate` Hz, chosen as by `Format.rate_for`."""
        return min((known for known in RATES if known >= rate), default=max(RATES))


def manifest(names: Sequence[str]) -> bytes:
    """Return the content of the box: JSON with the names and colours of the stems."""
    stems = [{"name": name.capitalize(), "color": color} for name, color in zip(names, _COLORS, strict=True)]
    return json.dumps({"version": 1, "mastering_dsp": _MASTERING, "stems": stems}).encode()


def add_manifest(file: BinaryIO, names: Sequence[str]) -> None:
    """Add the box to a finished MP4 whose last box is `moov`, so that no sample moves.

    Raises:
        ValueError: It is not such a file.
    """
    end = file.seek(0, 2)
    moov = _find(file, "moov", 0, end)
    if moov is None or moov.end != end or moov.content != moov.start + 8:
        raise ValueError("not an MP4 that ends with an index of less than 4 GiB")
    stem = _packed("stem", manifest(names))
    udta = _find(file, "udta", moov.content, moov.end)
    position = udta.end if udta else moov.end
    added = stem if udta else _packed("udta", stem)
    file.seek(position)
    tail = file.read()
    file.seek(position)
    file.write(added + tail)
    for box in [moov, udta] if udta else [moov]:
        file.seek(box.start)
        file.write((box.end - box.start + len(added)).to_bytes(4, "big"))


@dataclass(frozen=True, slots=True)
class _Box:
    """A box, ISO/IEC 14496-12, section 4.2; offsets in the file are in bytes."""

    kind: str
    start: int
    content: int
    end: int


def _find(file: BinaryIO, kind: str, start: int, end: int) -> _Box | None:
    return next((box for box in _boxes(file, start, end) if box.kind == kind), None)


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[_Box]:
    while start + 8 <= end:
        file.seek(start)
        head = file.read(16)
        size, content = int.from_bytes(head[:4], "big"), start + 8
        if size == 1:  # the size needs 64 bits
            size, content = int.from_bytes(head[8:16], "big"), start + 16
        elif size == 0:  # up to the end of the file
            size = end - start
        if size < content - start or start + size > end:
            raise ValueError("damaged boxes in an MP4")
        yield _Box(head[4:8].decode("latin-1"), start, content, start + size)
        start += size


def _packed(kind: str, content: bytes) -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + kind.encode() + content
