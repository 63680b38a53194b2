"""What songs say about themselves, read from files as others write them."""

from pathlib import Path

import av
import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
from av.stream import Disposition

from stemsplit.audio import tags
from stemsplit.audio.tags import Picture, Tags, read_tags


def image(codec: str, size: int = 16) -> bytes:
    """A picture file of noise."""
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width = encoder.height = size
    encoder.pix_fmt = {"mjpeg": "yuvj420p", "gif": "rgb8", "bmp": "bgr24"}.get(codec, "rgb24")
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), "u1")
    frame = av.VideoFrame.from_ndarray(noise, "rgb24").reformat(format=encoder.pix_fmt)
    frame.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def song(path: Path, metadata: dict[str, str], pictures: list[tuple[str, str]] | None = None) -> None:
    """A short MP3 or FLAC with pictures of these codecs and kinds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("flac" if path.suffix == ".flac" else "libmp3lame", rate=44_100)
        assert isinstance(stream, av.AudioStream)
        container.metadata.update(metadata)
        packets = []
        for codec, kind in pictures or []:
            picture = container.add_mux_stream(codec, width=16, height=16)
            picture.disposition = Disposition.attached_pic
            picture.metadata["comment"] = kind
            packet = av.Packet(image(codec))
            packet.stream, packet.pts, packet.dts = picture, 0, 0
            packets.append(packet)
        container.start_encoding()
        for packet in packets:
            container.mux(packet)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 3_000), np.float32), "fltp", "stereo")
        frame.sample_rate = 44_100
        frame = av.AudioResampler(stream.format, "stereo", 44_100).resample(frame)[0]
        container.mux([*stream.encode(frame), *stream.encode(None)])


def test_names_of_other_formats(tmp_path: Path) -> None:
    song(tmp_path / "x.mp3", {"title": "a", "TBPM": "120", "TKEY": "Am", "encoder": "x", "replaygain_track_gain": "3"})
    assert read_tags(tmp_path / "x.mp3") == Tags({"title": "a", "bpm": "120", "key": "Am"})
    song(
        tmp_path / "x.flac", {"BPM": "120", "INITIALKEY": "Am", "albumartist": "b", "TRACKNUMBER": "3", "YEAR": "1999"}
    )
    expected = {"bpm": "120", "key": "Am", "album_artist": "b", "track": "3", "date": "1999"}
    assert read_tags(tmp_path / "x.flac") == Tags(expected)


def test_fields_have_one_order(tmp_path: Path) -> None:
    song(tmp_path / "x.mp3", {"genre": "g", "artist": "a", "title": "t"})
    assert list(read_tags(tmp_path / "x.mp3").fields) == ["title", "artist", "genre"]


@pytest.mark.parametrize("codec", ["png", "mjpeg"])
def test_the_front_cover_is_the_one(tmp_path: Path, codec: str) -> None:
    song(tmp_path / "x.mp3", {}, [("png", "Artist/performer"), (codec, "Cover (front)")])
    assert read_tags(tmp_path / "x.mp3").picture == Picture(image(codec), codec, 16, 16)
    song(tmp_path / "y.flac", {}, [(codec, "Other"), ("png", "Artist/performer")])
    found = read_tags(tmp_path / "y.flac").picture
    assert found is not None
    assert (found.codec, found.data) == (codec, image(codec))


def test_too_large_a_cover_becomes_a_jpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    song(tmp_path / "x.mp3", {"title": "a"}, [("png", "Cover (front)")])
    monkeypatch.setattr(tags, "_LARGEST_PICTURE", 100)
    monkeypatch.setattr(tags, "_LONGEST_SIDE", 8)
    found = read_tags(tmp_path / "x.mp3")
    assert found.fields == {"title": "a"}
    assert found.picture
    assert (found.picture.codec, found.picture.width, found.picture.height) == ("mjpeg", 8, 8)
    assert_is_a_jpeg_of(found.picture, 8)


@pytest.mark.parametrize("codec", ["gif", "bmp", "tiff"])
def test_other_pictures_become_jpegs(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "x.mp3"
    song(path, {"title": "a"}, [("png", "Cover (front)")])
    content = path.read_bytes()
    png, other = image("png"), image(codec)
    start = content.index(b"APIC")
    size = int.from_bytes(content[start + 4 : start + 8], "big")
    assert content[3] == 4  # the version of ID3, whose sizes have 7 bits a byte
    size = sum((content[start + 4 + place] & 0x7F) << 7 * (3 - place) for place in range(4))
    frame = content[start + 10 : start + 10 + size].replace(b"image/png", b"image/" + codec.encode())
    frame = frame.replace(png, other)
    changed = content[: start + 4] + synchsafe(len(frame)) + content[start + 8 : start + 10] + frame
    changed += content[start + 10 + size :]
    old = sum((content[6 + place] & 0x7F) << 7 * (3 - place) for place in range(4))
    path.write_bytes(changed[:6] + synchsafe(old + len(frame) - size) + changed[10:])
    found = read_tags(path)
    assert found.fields == {"title": "a"}
    assert found.picture
    assert_is_a_jpeg_of(found.picture, 16)
    assert found.warnings == ()


def synchsafe(size: int) -> bytes:
    return bytes(size >> shift & 0x7F for shift in (21, 14, 7, 0))


def assert_is_a_jpeg_of(picture: Picture, size: int) -> None:
    decoder = av.CodecContext.create("mjpeg", "r")
    assert isinstance(decoder, av.VideoCodecContext)
    frame = [*decoder.decode(av.Packet(picture.data)), *decoder.decode(None)][0]
    assert (frame.width, frame.height) == (picture.width, picture.height) == (size, size)


def test_a_cover_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    song(tmp_path / "x.mp3", {"title": "a"}, [("png", "Cover (front)")])
    monkeypatch.setattr(tags, "_LARGEST_PICTURE", 100)
    monkeypatch.setattr(tags, "_MOST_PIXELS", 100)
    expected = Tags({"title": "a"}, warnings=("has a cover that cannot be read; the stems have none",))
    assert read_tags(tmp_path / "x.mp3") == expected


def test_the_picture_of_a_film_is_no_cover(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "x.mkv"), "w") as container:
        film = container.add_stream("mjpeg", rate=25, width=16, height=16, pix_fmt="yuvj420p")
        sound = container.add_stream("flac", rate=44_100)
        assert isinstance(film, av.VideoStream)
        assert isinstance(sound, av.AudioStream)
        container.metadata["title"] = "film"
        container.mux([*film.encode(av.VideoFrame(16, 16, "yuvj420p")), *film.encode(None), *sound.encode(None)])
    assert read_tags(tmp_path / "x.mkv") == Tags({"title": "film"})


def test_old_windows_programs(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", np.zeros(100), 44_100)
    text = "Die Ärzte".encode("cp1252")
    chunk = b"INFOIART" + len(text).to_bytes(4, "little") + text + bytes(len(text) % 2)
    wav = (tmp_path / "x.wav").read_bytes() + b"LIST" + len(chunk).to_bytes(4, "little") + chunk
    (tmp_path / "x.wav").write_bytes(wav[:4] + (len(wav) - 8).to_bytes(4, "little") + wav[8:])
    assert read_tags(tmp_path / "x.wav") == Tags({"artist": "Die Ärzte"})


def test_files_that_say_nothing(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "x.wav", np.zeros(100), 44_100)
    (tmp_path / "empty").touch()
    (tmp_path / "noise").write_bytes(np.random.default_rng(0).bytes(10_000))
    (tmp_path / "playlist.m3u8").write_text("#EXTM3U\n#EXTINF:1\nx.wav\n")
    for name in ("x.wav", "empty", "noise", "playlist.m3u8"):
        assert read_tags(tmp_path / name) == Tags()
    with pytest.raises(OSError, match="missing"):
        read_tags(tmp_path / "missing")


def test_stems_have_titles_of_their_own() -> None:
    picture = Picture(b"x", "png", 1, 1)
    whole = Tags({"title": "Song", "artist": "a"}, picture)
    assert whole.for_stem("vocals") == Tags({"title": "Song (vocals)", "artist": "a"}, picture)
    assert Tags({"artist": "a"}).for_stem("vocals") == Tags({"artist": "a"})
    assert whole.fields["title"] == "Song"
