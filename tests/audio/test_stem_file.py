"""Stem files: boxes where Traktor and Mixxx look for them, and the right sound in every track."""

import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

from stemsplit.audio.formats import Format
from stemsplit.audio.reading import open_reader
from stemsplit.audio.stem_file import StemFile, add_manifest, manifest
from stemsplit.audio.tags import Tags, read_tags
from stemsplit.audio.writing import StemWriter
from stemsplit.errors import UsageError

ROWS = {"vocals": 0, "drums": 1, "bass": 2, "other": 3}
Rows = npt.NDArray[np.float32]


def tones(channels: int = 2, length: int = 30_000, rate: int = 44_100) -> Rows:
    """A tone of its own for each of four stems, and their sum."""
    time = np.arange(length) / rate
    stems = np.stack([0.2 * np.sin(2 * np.pi * pitch * time) for pitch in (300, 700, 1_100, 1_700)])
    rows = np.concatenate([stems, stems.sum(0, keepdims=True)])[:, None].repeat(channels, 1)
    return rows.astype(np.float32)


def write(path: Path, rows: Rows, *, rate: int = 44_100, name: str = "m4a", tags: Tags | None = None) -> StemWriter:
    stem_file = StemFile(path, 4, ROWS, Format(name), tags or Tags())
    with StemWriter([], rate=rate, channels=rows.shape[1], stem_file=stem_file) as writer:
        for start in range(0, rows.shape[2], 7_000):
            writer.write(rows[:, :, start : start + 7_000])
    return writer


def boxes(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Kinds and contents of the boxes in a box."""
    at = 0
    while at < len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        kind = content[at + 4 : at + 8].decode("latin-1")
        head = 8
        if size == 1:
            head, size = 16, int.from_bytes(content[at + 8 : at + 16], "big")
        assert size >= head
        yield kind, content[at + head : at + size]
        at += size
    assert at == len(content)


def box(content: bytes, *path: str) -> bytes:
    for kind in path:
        (content,) = (inner for name, inner in boxes(content) if name == kind)
    return content


def decode(path: Path, track: int) -> npt.NDArray[np.float64]:
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=track)]
        whole = np.concatenate(frames, axis=1)
        full = 2.0**31 if whole.dtype == np.int32 else 1.0
        return whole.astype(np.float64) / full


@pytest.mark.full
@pytest.mark.parametrize("tags", [Tags(), Tags({"title": "Song", "artist": "a"})])
def test_the_box_of_names_and_colors(tmp_path: Path, tags: Tags) -> None:
    write(tmp_path / "x.stem.mp4", tones(), tags=tags)
    content = (tmp_path / "x.stem.mp4").read_bytes()
    assert [kind for kind, _ in boxes(content)][0::3] == ["ftyp", "moov"]
    found = json.loads(box(content, "moov", "udta", "stem"))
    assert found["version"] == 1
    assert found["stems"] == [
        {"name": "Drums", "color": "#009E73"},
        {"name": "Bass", "color": "#D55E00"},
        {"name": "Other", "color": "#CC79A7"},
        {"name": "Vocals", "color": "#56B4E9"},
    ]
    assert not found["mastering_dsp"]["compressor"]["enabled"]
    assert not found["mastering_dsp"]["limiter"]["enabled"]
    assert read_tags(tmp_path / "x.stem.mp4") == tags


@pytest.mark.full
def test_only_the_mixture_is_played_by_others(tmp_path: Path) -> None:
    write(tmp_path / "x.stem.mp4", tones())
    tracks = [inner for kind, inner in boxes(box((tmp_path / "x.stem.mp4").read_bytes(), "moov")) if kind == "trak"]
    assert len(tracks) == 5
    enabled = [int.from_bytes(box(track, "tkhd")[1:4], "big") & 1 for track in tracks]
    assert enabled == [1, 0, 0, 0, 0]
    with open_reader(tmp_path / "x.stem.mp4") as reader:
        mixture = np.concatenate([*reader.blocks()], axis=1)
    assert np.std(mixture[:, :30_000] - tones()[4]) < 0.01


@pytest.mark.full
@pytest.mark.parametrize(("name", "most"), [("m4a", 0.01), ("alac", 2**-23)])
def test_every_track_is_the_right_stem(tmp_path: Path, name: str, most: float) -> None:
    rows = tones()
    write(tmp_path / "x.stem.mp4", rows, name=name)
    for track, row in enumerate([4, 1, 2, 3, 0]):  # the mixture, drums, bass, other, vocals
        result = decode(tmp_path / "x.stem.mp4", track)
        assert result.shape[1] - 30_000 in (0, 720 if name == "m4a" else 0)
        assert np.std(result[:, :30_000] - rows[row]) < most


@pytest.mark.full
def test_tracks_are_stereo_at_44_or_48_khz(tmp_path: Path) -> None:
    writer = write(tmp_path / "x.stem.mp4", tones(channels=1, rate=22_050), rate=22_050)
    assert writer.warnings == ["a stem file has no sample rate of 22050 Hz, so it is written at 44100 Hz"]
    with av.open(str(tmp_path / "x.stem.mp4")) as container:
        assert [(s.rate, s.channels, s.duration) for s in container.streams.audio] == [(44_100, 2, 60_000)] * 5
    result = decode(tmp_path / "x.stem.mp4", 4)
    for channel in result[:, :60_000:2]:
        assert np.std(channel - tones(rate=22_050)[0, 0]) < 0.02
    assert [StemFile.rate_for(rate) for rate in (8_000, 44_100, 44_101, 48_000, 96_000)] == [
        44_100,
        44_100,
        48_000,
        48_000,
        48_000,
    ]


def test_other_names_keep_their_order() -> None:
    names = ("speech", "music", "effects", "rest")
    stem_file = StemFile(Path("x"), 0, {name: row + 1 for row, name in enumerate(names)})
    assert (stem_file.names, stem_file.rows) == (list(names), [0, 1, 2, 3, 4])
    found = json.loads(manifest(stem_file.names))
    assert [stem["name"] for stem in found["stems"]] == ["Speech", "Music", "Effects", "Rest"]


def test_what_is_no_stem_file() -> None:
    with pytest.raises(UsageError, match="exactly four stems, not 2") as caught:
        StemFile(Path("x"), 0, {"vocals": 1, "rest": 2})
    assert caught.value.hint
    with pytest.raises(UsageError, match="cannot hold MP3, 320 kbit/s") as caught:
        StemFile(Path("x"), 0, ROWS, Format("mp3"))
    assert caught.value.hint


def packed(kind: bytes, *content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(b"".join(content)), kind) + b"".join(content)


@pytest.mark.parametrize(
    "inner",
    [
        b"",
        packed(b"mvhd", bytes(20)),
        packed(b"udta", packed(b"meta", b"x")) + packed(b"trak", b"after"),
        packed(b"trak", packed(b"udta", b"not this one")) + packed(b"udta"),
    ],
)
def test_nothing_but_the_box_is_added(inner: bytes) -> None:
    # In the middle, a box of 64 bits, as that of the samples of a large file is.
    before = packed(b"ftyp", b"M4A ") + struct.pack(">I4sQ", 1, b"mdat", 21) + b"12345"
    file = io.BytesIO(before + packed(b"moov", inner))
    add_manifest(file, ["a", "b", "c", "d"])
    assert file.getvalue()[: len(before)] == before
    old, new = dict(boxes(inner)), dict(boxes(box(file.getvalue(), "moov")))
    stem = packed(b"stem", manifest(["a", "b", "c", "d"]))
    assert new == old | {"udta": old.get("udta", b"") + stem}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no boxes at all",
        packed(b"ftyp") + packed(b"mdat"),
        packed(b"moov") + packed(b"mdat"),  # samples that would move
        packed(b"moov")[:-1] + b"x" + bytes(3),
        struct.pack(">I4sQ", 1, b"moov", 16),
        packed(b"moov", struct.pack(">I4s", 100, b"udta")),
        packed(b"moov", struct.pack(">I4s", 7, b"udta")),
    ],
)
def test_other_files_are_refused(content: bytes) -> None:
    file = io.BytesIO(content)
    with pytest.raises(ValueError, match="MP4"):
        add_manifest(file, ["a", "b", "c", "d"])
    assert file.getvalue() == content
