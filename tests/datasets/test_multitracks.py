from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
import torch
from support.songs import STEMS

from stemsplit.audio.reading import open_reader
from stemsplit.datasets.check import inspect_dataset
from stemsplit.datasets.multitracks import Multitrack, check_format, find_songs, read_stems
from stemsplit.errors import DatasetError

MakeSong = Callable[..., dict[str, np.ndarray]]


def write(path: Path, length: int = 100, rate: int = 8000, channels: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros((length, channels), np.float32), rate)


def refusal(folder: Path) -> str:
    """The sentence with which `find_songs` refuses a folder."""
    with pytest.raises(DatasetError) as caught:
        find_songs(folder, STEMS)
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    return str(caught.value)


def test_songs_are_found_and_sorted(make_song: MakeSong, tmp_path: Path) -> None:
    for name in ("b song", "album/2", "album/1"):
        make_song(tmp_path / name, length=500, rate=16_000, channels=1)
    (tmp_path / "album" / "notes.txt").write_text("nothing")
    (tmp_path / "album" / "1" / "mixture.wav").write_text("not looked at")
    (tmp_path / "album" / "1" / "vocals.txt").write_text("not looked at")
    (tmp_path / "b song" / "drums.wav").rename(tmp_path / "b song" / "drums.WAV")
    songs = find_songs(tmp_path, STEMS)
    assert [song.name for song in songs] == ["album/1", "album/2", "b song"]
    assert {(song.rate, song.channels, song.length) for song in songs} == {(16_000, 1, 500)}
    assert all(set(song.stems) == set(STEMS) for song in songs)


def test_a_folder_may_be_one_song(make_song: MakeSong, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_song(tmp_path / "my song")
    monkeypatch.chdir(tmp_path / "my song")
    assert [song.name for song in find_songs(tmp_path / "my song", STEMS)] == ["my song"]
    assert [song.name for song in find_songs(Path(), STEMS)] == ["my song"]


def test_links_are_followed_and_loops_end(make_song: MakeSong, tmp_path: Path) -> None:
    make_song(tmp_path / "all" / "one")
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "chosen").symlink_to(tmp_path / "all" / "one", target_is_directory=True)
    (tmp_path / "some" / "again").symlink_to(tmp_path / "some", target_is_directory=True)
    assert [song.name for song in find_songs(tmp_path / "some", STEMS)] == ["chosen"]


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3", "aiff"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"vocals.{suffix}", length=20_000, rate=44_100)
    (song,) = find_songs(tmp_path, STEMS)
    assert song.rate == 44_100
    assert read_stems(song, STEMS, 100, 50).shape == (4, 2, 50)


@pytest.mark.full
def test_an_mp3_of_variable_bit_rate_is_read_to_its_end_even_without_a_header(tmp_path: Path) -> None:
    """Where libsndfile trusts an estimate from the first frames, and stops halfway."""
    length = 20 * 44_100 // 1152 * 1152
    samples = np.random.default_rng(0).uniform(-0.3, 0.3, (length, 2)).astype(np.float32)
    samples[length // 2 :] = 0
    with av.open(str(tmp_path / "vocals.mp3"), "w", options={"write_xing": "0"}) as container:
        stream = container.add_stream("libmp3lame", rate=44_100, layout="stereo")
        assert isinstance(stream, av.AudioStream)
        stream.codec_context.qscale = True
        stream.codec_context.global_quality = 2 * 118
        for start in range(0, length, 1152):
            block = np.ascontiguousarray(samples[start : start + 1152].T)
            frame = av.AudioFrame.from_ndarray(block, "fltp", "stereo")
            frame.sample_rate, frame.pts = 44_100, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with open_reader(tmp_path / "vocals.mp3") as reader:
        whole = np.concatenate(list(reader.blocks()), axis=1)
    assert whole.shape[1] >= length
    assert soundfile.info(tmp_path / "vocals.mp3").frames < 0.9 * length
    soundfile.write(tmp_path / "mixture.wav", 2 * whole.T, 44_100)
    soundfile.write(tmp_path / "drums.wav", whole.T, 44_100)
    (song,) = find_songs(tmp_path, STEMS)
    assert song.length == whole.shape[1]
    for start in (0, 1000, 300_000, length - 50_000, length - 10):
        excerpt = read_stems(song, ("vocals",), start, 60_000)[0].numpy()
        expected = whole[:, start : start + 60_000]
        np.testing.assert_array_equal(excerpt[:, : expected.shape[1]], expected)
        assert not excerpt[:, expected.shape[1] :].any()
    assert inspect_dataset(tmp_path, ("vocals", "drums")).issues == ()


@pytest.mark.full
def test_a_truncated_mp3_is_refused_where_it_ends(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).uniform(-0.3, 0.3, (200_000, 2))
    soundfile.write(tmp_path / "vocals.mp3", samples, 44_100)
    whole = (tmp_path / "vocals.mp3").read_bytes()
    (tmp_path / "vocals.mp3").write_bytes(whole[: len(whole) // 2])
    (song,) = find_songs(tmp_path, STEMS)
    assert song.length == 200_000
    assert read_stems(song, ("vocals",), 0, 50_000).any()
    with pytest.raises(DatasetError, match="ends before the 200000 samples"):
        read_stems(song, ("vocals",), 150_000, 10_000)


@pytest.mark.parametrize(("start", "length"), [(0, 16_000), (0, 0), (123, 456), (15_990, 30), (16_000, 5), (99_999, 5)])
def test_excerpts(make_song: MakeSong, tmp_path: Path, start: int, length: int) -> None:
    """Whatever lies beyond the end is silent, and so is a stem that the song has not."""
    written = make_song(tmp_path, stems=("vocals", "bass", "other"))
    (song,) = find_songs(tmp_path, STEMS)
    excerpt = read_stems(song, ("other", "drums", "vocals"), start, length)
    assert excerpt.shape == (3, 2, length)
    assert excerpt.dtype == torch.float32
    for row, stem in zip(excerpt, ("other", None, "vocals"), strict=True):
        expected = np.zeros((length, 2), np.float32)
        if stem:
            samples = written[stem][start : start + length]
            expected[: len(samples)] = samples
        np.testing.assert_array_equal(row.numpy().T, expected)


def test_no_folder(tmp_path: Path) -> None:
    assert "is not a folder" in refusal(tmp_path / "none\nsuch")
    (tmp_path / "file").write_text("")
    assert "is not a folder" in refusal(tmp_path / "file")


def test_no_songs(tmp_path: Path) -> None:
    (tmp_path / "song").mkdir()
    write(tmp_path / "song" / "piano.wav")
    assert "no stems found" in refusal(tmp_path)
    with pytest.raises(DatasetError) as caught:
        find_songs(tmp_path, STEMS)
    assert "<song>/vocals.wav" in caught.value.hint


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({"rate": 16_000}, "16000 Hz, 2 channels, 100 samples"),
        ({"channels": 1}, "8000 Hz, 1 channel, 100 samples"),
        ({"length": 99}, "8000 Hz, 2 channels, 99 samples"),
    ],
)
def test_stems_that_do_not_fit_each_other(tmp_path: Path, other: dict[str, int], told: str) -> None:
    write(tmp_path / "song" / "vocals.wav")
    write(tmp_path / "song" / "drums.flac", **other)
    message = refusal(tmp_path)
    assert "the stems of 'song' do not match" in message
    assert f"drums.flac: {told}" in message
    assert "vocals.wav: 8000 Hz, 2 channels, 100 samples" in message


def test_two_files_for_a_stem(tmp_path: Path) -> None:
    write(tmp_path / "song" / "vocals.wav")
    write(tmp_path / "song" / "vocals.flac")
    assert "has two files for vocals" in refusal(tmp_path)


def test_empty_songs(tmp_path: Path) -> None:
    write(tmp_path / "song" / "vocals.wav", length=0)
    assert "the stems of 'song' are empty" in refusal(tmp_path)


def test_corrupt_files(tmp_path: Path) -> None:
    write(tmp_path / "song" / "vocals.wav")
    (tmp_path / "song" / "bass.wav").write_text("not a song")
    assert "bass.wav" in refusal(tmp_path)
    assert "it is damaged, or not audio" in refusal(tmp_path)


def test_a_file_that_vanished(tmp_path: Path) -> None:
    song = Multitrack("gone", {"vocals": tmp_path / "vocals.wav"}, rate=8000, channels=2, length=100)
    with pytest.raises(DatasetError, match=r"there is no file .*vocals\.wav"):
        read_stems(song, ("vocals",), 0, 10)


def test_rates_and_channels_are_required(tmp_path: Path) -> None:
    mono, stereo = (Multitrack(f"{n} channels", {}, rate=8000, channels=n, length=1) for n in (1, 2))
    check_format([mono, stereo], 8000, 2)
    check_format([mono], 8000, 1)
    with pytest.raises(DatasetError, match=r"'2 channels' have 8000 Hz and 2 channels, not 8000 Hz and 1 channel$"):
        check_format([mono, stereo], 8000, 1)
    with pytest.raises(DatasetError, match=r"'1 channels' have 8000 Hz and 1 channel, not 44100 Hz and 2 channels$"):
        check_format([mono], 44_100, 2)
