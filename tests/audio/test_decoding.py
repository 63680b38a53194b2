"""Every format: right rate, right length, right place, right loudspeaker."""

from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest
import soundfile  # type: ignore[import-untyped]
from support.sounds import LENGTH, RATE, bursts, encode, lag, read

from stemsplit.audio.channels import downmix_matrix
from stemsplit.audio.decoding import Block, Source
from stemsplit.audio.reading import open_reader
from stemsplit.audio.sndfile_source import SndfileSource


def decode_with_ffmpeg(path: Path) -> Block:
    with av.open(str(path)) as container:
        parts = [frame.to_ndarray() for frame in container.decode(audio=0)]
        return np.concatenate(parts, axis=1).astype(np.float32)


# Name, encoder; how many samples longer the file is than the song, because the format cannot say where it ends.
FORMATS = [
    ("x.mp3", "libmp3lame", 0),
    ("x.m4a", "aac", 1024),
    ("x.mp4", "aac", 1024),
    ("alac.m4a", "alac", 0),
    ("x.flac", "flac", 0),
    ("x.ogg", "libvorbis", 0),
    ("flac.ogg", "flac", 0),
    ("x.wv", "wavpack", 0),
    ("x.tta", "tta", 0),
    ("x.mka", "flac", 0),
    ("x.mov", "pcm_s24le", 0),
    ("x.wav", "pcm_s16le", 0),
    ("adpcm.wav", "adpcm_ms", 1024),
    ("x.aiff", "pcm_s24be", 0),
    ("x.au", "pcm_s16be", 0),
    ("x.caf", "pcm_s16le", 0),
]


@pytest.mark.full
@pytest.mark.parametrize(("name", "codec", "tail"), FORMATS)
def test_formats_keep_their_place_and_length(tmp_path: Path, name: str, codec: str, tail: int) -> None:
    song = bursts()
    encode(tmp_path / name, song, codec)
    result = read(tmp_path / name)
    assert lag(result, song) == 0
    assert 0 <= result.shape[1] - LENGTH <= tail
    assert np.std(result[:, :LENGTH] - song) < 0.2 * np.std(song)


@pytest.mark.parametrize("name", ["x.opus", "x.webm", "x.mka", "x.mp4"])
def test_opus_in_any_container(tmp_path: Path, name: str) -> None:
    encode(tmp_path / name, bursts(), "libopus", rate=48_000)
    result = read(tmp_path / name)
    soundfile.write(tmp_path / "same.wav", bursts().T, RATE, subtype="FLOAT")
    with open_reader(tmp_path / name) as reader:
        assert (reader.rate, reader.channels, reader.downmixed_from) == (48_000, 2, None)
    song = decode_at(tmp_path / "same.wav", 48_000)
    assert lag(result, song) == 0
    assert abs(result.shape[1] - song.shape[1]) <= 960  # one Opus frame


def decode_at(path: Path, rate: int) -> Block:
    with av.open(str(path)) as container:
        fit = av.AudioResampler("fltp", "stereo", rate)
        frames = [part for frame in container.decode(audio=0) for part in fit.resample(frame)]
        return np.concatenate([part.to_ndarray() for part in [*frames, *fit.resample(None)]], axis=1).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("x.mp3", "libmp3lame"), ("x.m4a", "aac"), ("x.aac", "aac"), ("x.wma", "wmav2"), ("x.ogg", "libvorbis")],
)
def test_same_as_ffmpeg(tmp_path: Path, name: str, codec: str) -> None:
    encode(tmp_path / name, bursts(), codec)
    result, expected = read(tmp_path / name), decode_with_ffmpeg(tmp_path / name)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6)


def test_mp3_from_another_encoder(tmp_path: Path) -> None:
    song = bursts()
    soundfile.write(tmp_path / "x.mp3", song.T, RATE)
    result = read(tmp_path / "x.mp3")
    assert result.shape == song.shape
    assert lag(result, song) == 0


@pytest.mark.full
def test_variable_bit_rate_without_a_header_is_read_to_its_end(tmp_path: Path) -> None:
    """Where libsndfile expects the first frame's bit rate to stay, and stops early without a word."""
    bare = {"write_xing": "0", "id3v2_version": "0"}
    encode(tmp_path / "rich.mp3", bursts(), "libmp3lame", bit_rate=320_000, options=bare)
    encode(tmp_path / "poor.mp3", bursts(), "libmp3lame", bit_rate=64_000, options=bare)
    join(tmp_path / "x.mp3", tmp_path / "rich.mp3", tmp_path / "poor.mp3")
    assert soundfile.info(tmp_path / "x.mp3").frames < 1.5 * LENGTH  # why it is not trusted with MP3
    assert read(tmp_path / "x.mp3").shape[1] > 2 * LENGTH


@pytest.mark.full
def test_an_estimated_length_is_not_taken_for_a_promise(tmp_path: Path) -> None:
    """At 48 kHz, the length that FFmpeg estimates from the first bit rate may well be a whole number."""
    bare = {"write_xing": "0", "id3v2_version": "0"}
    for name, bit_rate in (("poor", 64_000), ("rich", 320_000)):
        path = tmp_path / f"{name}.mp3"
        encode(path, bursts(length=6 * RATE), "libmp3lame", rate=48_000, bit_rate=bit_rate, options=bare)
    join(tmp_path / "x.mp3", tmp_path / "poor.mp3", tmp_path / "rich.mp3")
    with open_reader(tmp_path / "x.mp3") as reader:
        assert reader.length
        assert reader.length % 1 == 0
        assert reader.length > 20 * 48_000  # instead of 12 s
        assert sum(block.shape[1] for block in reader.blocks()) == pytest.approx(12 * 48_000, abs=10_000)
        assert reader.warnings == []
    with open_reader(tmp_path / "x.mp3") as reader:
        assert reader.exact_length() == pytest.approx(12 * 48_000, abs=10_000)


@pytest.mark.full
@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("x.mp3", "libmp3lame", {}),
        ("x.mp3", "libmp3lame", {"write_xing": "0"}),
        ("x.flac", "flac", {}),
        ("x.ogg", "libvorbis", {}),
        ("x.opus", "libopus", {}),
        ("x.wav", "adpcm_ima_wav", {}),
        ("x.wav", "pcm_s24le", {}),
    ],
)
@pytest.mark.parametrize("random_access", [False, True])
def test_excerpts_are_what_reading_from_the_start_gives(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], random_access: bool
) -> None:
    encode(tmp_path / name, bursts(), codec, rate=48_000 if codec == "libopus" else RATE, options=options)
    whole = read(tmp_path / name)
    with open_reader(tmp_path / name, random_access=random_access) as reader:
        assert reader.exact_length() == whole.shape[1]
    for start in (0, 1, 20_000, 50_001, whole.shape[1] - 5_000, whole.shape[1] + 10):
        for length in (1, 10_000):
            with open_reader(tmp_path / name, random_access=random_access) as reader:
                excerpt = reader.excerpt(start, length)
            np.testing.assert_allclose(excerpt, whole[:, start : start + length], rtol=0, atol=1e-5)


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_101, 96_000, 192_000])
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE"])
def test_plain_samples_are_exact(tmp_path: Path, rate: int, subtype: str) -> None:
    bits = {"PCM_U8": 8, "PCM_16": 16}.get(subtype, 24)
    song = (np.rint(bursts(1, 999) * 2 ** (bits - 1)) / 2 ** (bits - 1)).astype(np.float32)
    soundfile.write(tmp_path / "x.wav", np.int32(song.T * 2.0**31) if "PCM" in subtype else song.T, rate, subtype)
    with open_reader(tmp_path / "x.wav") as reader:
        assert (reader.rate, reader.channels, reader.length, reader.warnings) == (rate, 1, 999, [])
    np.testing.assert_array_equal(read(tmp_path / "x.wav"), song)


@pytest.mark.parametrize(("name", "codec"), [("x.flac", "flac"), ("x.wv", "wavpack"), ("x.mka", "pcm_s24le")])
def test_lossless_is_exact(tmp_path: Path, name: str, codec: str) -> None:
    song = (np.rint(bursts() * 2**15) / 2**15).astype(np.float32)
    encode(tmp_path / name, song, codec)
    np.testing.assert_array_equal(read(tmp_path / name), song)


LAYOUTS = ["3.0", "4.0", "quad", "5.0", "5.1", "5.1(side)", "6.0", "6.1", "7.0", "7.1", "7.1(wide)", "3.1.2"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_downmix_is_that_of_ffmpeg(layout: str) -> None:
    channels = av.AudioLayout(layout).channels
    matrix = downmix_matrix([channel.name for channel in channels])
    unit = np.eye(len(channels), dtype=np.float32)
    frame = av.AudioFrame.from_ndarray(unit.reshape(1, -1), "flt", layout)
    frame.sample_rate = RATE
    # Mixing for integer samples, FFmpeg scales by this itself.
    fold = av.AudioResampler("fltp", "stereo", RATE, options={"rematrix_maxval": "1"})
    expected = np.concatenate([part.to_ndarray() for part in [*fold.resample(frame), *fold.resample(None)]], axis=1)
    np.testing.assert_allclose(matrix, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["x.wav", "x.flac", "x.m4a", "x.wv"])
@pytest.mark.parametrize(("layout", "speaker", "left", "right"), [("5.1", 2, 0.29, 0.29), ("7.1", 6, 0.23, 0.0)])
def test_surround_is_downmixed(tmp_path: Path, name: str, layout: str, speaker: int, left: float, right: float) -> None:
    count = av.AudioLayout(layout).nb_channels
    song = np.zeros((count, 20_000), dtype=np.float32)
    song[speaker] = bursts(1, 20_000)
    codecs = {"x.wav": "pcm_s16le", "x.flac": "flac", "x.m4a": "aac", "x.wv": "wavpack"}
    encode(tmp_path / name, song, codecs[name], layout=layout, bit_rate=320_000)
    with open_reader(tmp_path / name) as reader:
        assert (reader.channels, reader.downmixed_from) == (2, count)
    result = read(tmp_path / name)[:, :19_000]
    gains = result @ song[speaker, :19_000] / np.sum(song[speaker, :19_000] ** 2)
    np.testing.assert_allclose(gains, [left, right], rtol=0, atol=0.02)


@pytest.mark.parametrize("count", [3, 6, 8, 9, 16])
def test_layouts_that_the_file_does_not_tell(tmp_path: Path, count: int) -> None:
    """As FFmpeg guesses them; where it has no idea, each channel goes to both sides. Nothing can clip."""
    soundfile.write(tmp_path / "x.wav", np.eye(count) * 0.5, RATE)
    result = 2 * read(tmp_path / "x.wav")
    assert result.shape == (2, count)
    names = {3: "2.1", 6: "5.1", 8: "7.1", 16: "9.1.6"}
    if count in names:
        expected = downmix_matrix([channel.name for channel in av.AudioLayout(names[count]).channels])
    else:
        expected = np.full((2, count), 1 / count, dtype=np.float32)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-4)
    assert result.sum(axis=1).max() <= 1 + 1e-6


def join(path: Path, *parts: Path) -> None:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))


@pytest.mark.full
def test_a_video_stream_may_appear_late(tmp_path: Path) -> None:
    encode(tmp_path / "x.flv", bursts(length=20 * RATE), "libmp3lame")
    song = read(tmp_path / "x.flv")
    picture = b"\x12" + bytes(100)
    tag = b"\x09" + len(picture).to_bytes(3, "big") + (20_000).to_bytes(3, "big") + bytes(4) + picture
    late = tag + len(tag).to_bytes(4, "big")
    (tmp_path / "x.flv").write_bytes((tmp_path / "x.flv").read_bytes() + late)
    np.testing.assert_array_equal(read(tmp_path / "x.flv"), song)


def test_a_playlist_opens_nothing_else(tmp_path: Path) -> None:
    encode(tmp_path / "secret.flac", bursts(), "flac")
    (tmp_path / "song.mp3").write_text("ffconcat version 1.0\nfile secret.flac\n")
    with pytest.raises(Exception, match="cannot decode"):
        open_reader(tmp_path / "song.mp3")


def test_who_reads_what(tmp_path: Path) -> None:
    sources: dict[str, type[Source]] = {}
    for name, codec in [("x.wav", "pcm_s16le"), ("x.mp3", "libmp3lame"), ("x.ogg", "libvorbis"), ("x.flac", "flac")]:
        encode(tmp_path / name, bursts(2, 9_999), codec)
        with open_reader(tmp_path / name) as reader:
            sources[name] = type(reader._source)
    assert [name for name, source in sources.items() if source is SndfileSource] == ["x.wav", "x.ogg"]


def test_samples_are_not_shared_between_blocks(tmp_path: Path) -> None:
    song: npt.NDArray[np.float32] = bursts()
    for name, codec in [("x.flac", "flac"), ("x.wav", "pcm_f32le")]:
        encode(tmp_path / name, song, codec)
        with open_reader(tmp_path / name) as reader:
            blocks = list(reader.blocks(1_000))
        assert all(block.flags.c_contiguous and block.dtype == np.float32 for block in blocks)
        assert [block.shape for block in blocks[:-1]] == [(2, 1_000)] * 70
        np.testing.assert_allclose(np.concatenate(blocks, axis=1), song, rtol=0, atol=2**-15)


@pytest.mark.parametrize("name", ["song.wav", "song.aiff"])
def test_a_song_that_is_cut_short_while_it_is_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    soundfile.write(path, bursts().T, RATE)
    with open_reader(path) as reader:
        path.write_bytes(path.read_bytes()[:50_000])
        assert sum(block.shape[1] for block in reader.blocks()) < LENGTH
        assert [warning for warning in reader.warnings if "ends early" in warning]


def test_the_length_of_a_film_is_known_about(tmp_path: Path) -> None:
    path = tmp_path / "film.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width = video.height = 32
        sound = container.add_stream("pcm_s16le", rate=RATE, layout="stereo")
        for count in range(20):
            picture = av.VideoFrame(32, 32, "yuv420p")
            picture.pts = count
            container.mux(video.encode(picture))
        samples = np.ascontiguousarray((bursts().T * 2**15).astype(np.int16).reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(samples, "s16", "stereo")
        frame.sample_rate = RATE
        frame.pts = 0
        container.mux(sound.encode(frame))
        for stream in (video, sound):
            container.mux(stream.encode(None))
    with open_reader(path) as reader:
        longest = max(2.0, LENGTH / RATE)
        assert reader.length == pytest.approx(longest * RATE, rel=0.1)
        assert sum(block.shape[1] for block in reader.blocks()) == LENGTH
        assert reader.warnings == []  # though the pictures may go on when the sound has ended
