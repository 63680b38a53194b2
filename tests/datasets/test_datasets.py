"""Data sets: packed songs, the index, splits, and what is wrong with a folder."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import platformdirs
import pytest
import soundfile  # type: ignore[import-untyped]
import torch
from support.program import Run
from support.songs import RATE, STEMS, write_packed

from stemsplit.datasets import index, stem_files
from stemsplit.datasets.check import inspect_dataset
from stemsplit.datasets.multitracks import find_songs, read_mixture, read_stems
from stemsplit.datasets.splits import MUSDB18_VALIDATION, split_songs
from stemsplit.datasets.stem_files import STREAMS, read_streams
from stemsplit.errors import DatasetError

MakeSong = Callable[..., dict[str, np.ndarray]]


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one packed song of ten seconds."""
    folder = tmp_path_factory.mktemp("packed")
    write_packed(folder / "Band - Song.stem.mp4", 10 * RATE)
    return folder


def decode_whole(path: Path) -> np.ndarray:
    """All tracks `(5, C, N)` in one go, without any seeking."""
    with av.open(str(path)) as container:
        streams = list(container.streams.audio)
        pieces: list[list[np.ndarray]] = [[] for _ in streams]
        for packet in container.demux(streams):
            pieces[packet.stream.index] += [frame.to_ndarray() for frame in packet.decode()]  # type: ignore[union-attr]
        return np.stack([np.concatenate(piece, axis=1) for piece in pieces])


# ---- packed songs


@pytest.mark.full
def test_a_packed_song_is_one_song(packed: Path) -> None:
    (song,) = find_songs(packed, STEMS)
    assert song.name == "Band - Song"
    assert (song.rate, song.channels, song.length) == (RATE, 2, 10 * RATE)
    excerpt = read_stems(song, STEMS, RATE, RATE)
    pitches = torch.fft.rfft(excerpt[:, 0]).abs().argmax(-1)
    assert pitches.tolist() == [3000, 110, 440, 990]  # vocals are the last track
    mixture = read_mixture(song, RATE, RATE)
    assert (mixture - excerpt.sum(0)).square().mean() < 0.03 * mixture.square().mean()
    assert read_stems(song, ("piano", "bass"), RATE, RATE)[0].abs().max() == 0


@pytest.mark.full
@pytest.mark.parametrize("length", [1, 1000, 132_300])
def test_seeking_in_aac_is_exact_to_the_sample(packed: Path, length: int) -> None:
    path = packed / "Band - Song.stem.mp4"
    whole = decode_whole(path)[..., : 10 * RATE]
    starts = [0, 1, 1023, 1024, 2047, 2048, 2049, 5000, 10 * RATE - length, 10 * RATE - 1]
    starts += np.random.default_rng(0).integers(0, 10 * RATE, 20).tolist()
    for start in starts:
        expected = np.zeros((5, 2, length), np.float32)
        there = whole[..., start : start + length]
        expected[..., : there.shape[-1]] = there
        np.testing.assert_array_equal(read_streams(path, STREAMS, start, length), expected, err_msg=str(start))
        np.testing.assert_array_equal(read_streams(path, ("other", "drums"), start, length), expected[[3, 1]])


@pytest.mark.full
def test_beyond_the_end_there_is_silence(packed: Path) -> None:
    (song,) = find_songs(packed, STEMS)
    assert read_stems(song, STEMS, 11 * RATE, 100).abs().max() == 0
    assert read_stems(song, STEMS, 0, 0).shape == (4, 2, 0)


def test_packed_songs_of_another_kind(tmp_path: Path) -> None:
    write_packed(tmp_path / "duo.stem.mp4", 5000, tracks=2)
    with pytest.raises(DatasetError, match=r"duo\.stem\.mp4' has 2 audio streams instead of the 5 of MUSDB18"):
        find_songs(tmp_path, STEMS)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.98])
def test_a_half_copied_packed_song(packed: Path, tmp_path: Path, share: float) -> None:
    data = (packed / "Band - Song.stem.mp4").read_bytes()
    (tmp_path / "cut.stem.mp4").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DatasetError, match=r"cannot read '.*cut\.stem\.mp4': |mp4' has 1 audio stream") as caught:
        find_songs(tmp_path, STEMS)
    assert caught.value.hint


def test_a_packed_song_with_holes_in_it(packed: Path, tmp_path: Path) -> None:
    """The index of the file is fine, and what it points to is not."""
    data = bytearray((packed / "Band - Song.stem.mp4").read_bytes())
    data[len(data) // 4 : len(data) // 2] = bytes(len(data) // 2 - len(data) // 4)
    (tmp_path / "hole.stem.mp4").write_bytes(data)
    found = inspect_dataset(tmp_path, STEMS)
    assert [(issue.song, issue.kind) for issue in found.issues] == [("hole", "damaged")]


# ---- the index


def settle(folder: Path) -> None:
    """Make the files older than the index would trust."""
    for path in folder.rglob("*"):
        os.utime(path, (time.time() - 60,) * 2)


@pytest.fixture
def headers_read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of all files whose headers were read."""
    read: list[str] = []
    real = stem_files.read_shape

    def read_shape(path: Path) -> object:
        read.append(path.name)
        return real(path)

    monkeypatch.setattr(index, "read_shape", read_shape)
    return read


def test_only_what_has_changed_is_opened_again(make_song: MakeSong, tmp_path: Path, headers_read: list[str]) -> None:
    for name in "ab":
        make_song(tmp_path / name)
    settle(tmp_path)
    first = find_songs(tmp_path, STEMS)
    assert len(headers_read) == 8
    assert find_songs(tmp_path, STEMS) == first
    assert len(headers_read) == 8
    make_song(tmp_path / "a", length=9000, stems=STEMS)
    del headers_read[:]
    assert [song.length for song in find_songs(tmp_path, STEMS)] == [9000, 16_000]
    assert len(headers_read) == 4
    (tmp_path / "b" / "bass.wav").unlink()
    assert set(find_songs(tmp_path, STEMS)[1].stems) == {"vocals", "drums", "other"}


def test_a_file_that_was_just_written_is_opened_again(
    make_song: MakeSong, tmp_path: Path, headers_read: list[str]
) -> None:
    make_song(tmp_path)
    find_songs(tmp_path, STEMS)
    find_songs(tmp_path, STEMS)
    assert len(headers_read) == 8


@pytest.mark.parametrize("content", ["", "[]", '{"version": 1}', '{"version": 1, "files": {"x": 3}}', '{"version": 9}'])
def test_a_damaged_index_is_none(make_song: MakeSong, tmp_path: Path, content: str) -> None:
    make_song(tmp_path / "data")
    settle(tmp_path)
    first = find_songs(tmp_path / "data", STEMS)
    cache = platformdirs.user_cache_path("stemsplit") / "songs"
    newest = max(cache.iterdir(), key=lambda path: path.stat().st_mtime)
    newest.write_text(content)
    assert find_songs(tmp_path / "data", STEMS) == first
    assert len(json.loads(newest.read_text())["files"]) == 4


def test_an_index_that_cannot_be_written_is_no_error(
    make_song: MakeSong, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_song(tmp_path / "data")
    settle(tmp_path)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(find_songs(tmp_path / "data", STEMS)) == 1


# ---- splits


def test_musdb18_is_split_as_its_makers_do(make_song: MakeSong, tmp_path: Path) -> None:
    assert len(MUSDB18_VALIDATION) == 14
    for name in ("train/Meaxic - Take A Step", "train/Meaxic - You Listen", "test/AM Contra - Heart Peripheral"):
        make_song(tmp_path / name)
    write_packed(tmp_path / "train" / "Leaf - Summerghost.stem.mp4", 5000, rate=8000)
    split = split_songs(tmp_path, STEMS)
    assert [song.name for song in split.train] == ["Meaxic - You Listen"]
    assert [song.name for song in split.valid] == ["Leaf - Summerghost", "Meaxic - Take A Step"]
    assert split.unused == ("test",)
    assert len(split_songs(tmp_path, STEMS, validate=False).train) == 3
    shutil.rmtree(tmp_path / "train" / "Meaxic - You Listen")
    with pytest.raises(DatasetError, match="only validation songs"):
        split_songs(tmp_path, STEMS)


def test_a_folder_for_validation_is_used(make_song: MakeSong, tmp_path: Path) -> None:
    for name in ("train/Meaxic - Take A Step", "valid/mine", "test/x"):
        make_song(tmp_path / name)
    split = split_songs(tmp_path, STEMS)
    assert [song.name for song in split.train] == ["Meaxic - Take A Step"]
    assert [song.name for song in split.valid] == ["mine"]


def test_any_other_folder_is_all_for_training(make_song: MakeSong, tmp_path: Path) -> None:
    for name in ("train", "Leaf - Summerghost"):
        make_song(tmp_path / name)
    split = split_songs(tmp_path, STEMS)
    assert [song.name for song in split.train] == ["Leaf - Summerghost", "train"]
    assert split.valid == []


# ---- what is wrong


def damage_length(song: Path) -> None:
    (song / "bass.wav").write_bytes((song / "bass.wav").read_bytes()[:50_000])


def damage_rate(song: Path) -> None:
    for stem in STEMS:
        samples, _ = soundfile.read(song / f"{stem}.wav")
        soundfile.write(song / f"{stem}.wav", samples, 16_000, subtype="FLOAT")


def damage_stem(song: Path) -> None:
    (song / "drums.wav").unlink()


def damage_silent(song: Path) -> None:
    soundfile.write(song / "other.wav", np.zeros((16_000, 2)), 8000, subtype="FLOAT")


def damage_sum(song: Path) -> None:
    samples = sum(soundfile.read(song / f"{stem}.wav")[0] for stem in STEMS[1:])
    soundfile.write(song / "mixture.wav", samples, 8000, subtype="FLOAT")


def damage_mixture(song: Path) -> None:
    soundfile.write(song / "mixture.wav", np.zeros((16_000, 1)), 8000, subtype="FLOAT")


def damage_header(song: Path) -> None:
    (song / "vocals.wav").write_text("not a song")


def damage_body(song: Path) -> None:
    samples, rate = soundfile.read(song / "vocals.wav")
    soundfile.write(song / "vocals.flac", samples, rate)
    (song / "vocals.wav").unlink()
    data = (song / "vocals.flac").read_bytes()
    (song / "vocals.flac").write_bytes(data[: len(data) // 2])


def damage_numbers(song: Path) -> None:
    samples, rate = soundfile.read(song / "drums.wav")
    samples[77] = np.nan
    soundfile.write(song / "drums.wav", samples, rate, subtype="FLOAT")


def damage_double(song: Path) -> None:
    shutil.copy(song / "bass.wav", song / "bass.flac")


@pytest.mark.full
@pytest.mark.parametrize(
    ("damage", "kind", "message"),
    [
        (damage_length, "mismatch", "bass.wav: 8000 Hz, 2 channels, 62"),
        (damage_rate, "rate", "its sample rate is 16000 Hz, but 2 of 3 songs have 8000 Hz"),
        (damage_stem, "missing", "drums is missing"),
        (damage_silent, "silent", "other is silent"),
        (damage_sum, "sum", "do not add up to the mixture in"),
        (damage_mixture, "mismatch", "the mixture does not match the stems (8000 Hz, 1 channel, 16000 samples"),
        (damage_header, "damaged", "vocals.wav': it is damaged, or not audio"),
        (damage_body, "damaged", "vocals.flac': "),
        (damage_numbers, "numbers", "drums has samples that are not finite"),
        (damage_double, "double", "has two files for bass"),
    ],
)
def test_issues_are_reported(
    make_song: MakeSong, run: Run, tmp_path: Path, damage: Callable[[Path], None], kind: str, message: str
) -> None:
    for seed, name in enumerate(("fine", "fine, too", "odd")):
        stems = make_song(tmp_path / "data" / name, seed=seed)
        soundfile.write(tmp_path / "data" / name / "mixture.wav", sum(stems.values()), 8000, subtype="PCM_16")
    assert run("data", "check", "data", model=False).code == 0
    if kind in ("rate", "missing", "silent", "numbers", "damaged"):
        (tmp_path / "data" / "odd" / "mixture.wav").unlink()
    damage(tmp_path / "data" / "odd")
    outcome = run("data", "check", "data", model=False)
    assert outcome.code == 1
    (line,) = outcome.out.splitlines()
    assert line.startswith("odd: ")
    assert message in line
    assert "1 with issues" in outcome.err
    table = json.loads(run("data", "check", "data", "--json", model=False).out)
    assert [(row["song"], row["kind"]) for row in table["faults"]] == [("odd", kind)]
    forgiven = run("data", "check", "data", "--missing-ok", model=False)
    assert forgiven.code == (0 if kind in ("missing", "silent") else 1)
    quick = run("data", "check", "data", "--quick", model=False)
    heard = kind in ("silent", "sum", "numbers") or damage is damage_body
    assert quick.code == (0 if heard else 1)


def test_all_issues_are_reported_at_once(make_song: MakeSong, tmp_path: Path) -> None:
    for number, damage in enumerate((damage_length, damage_stem, damage_header, damage_silent)):
        make_song(tmp_path / str(number))
        damage(tmp_path / str(number))
    found = inspect_dataset(tmp_path, STEMS)
    assert [issue.kind for issue in found.issues] == ["mismatch", "missing", "damaged", "silent"]
    assert (found.found, found.songs, found.seconds) == (4, 2, 4.0)


@pytest.mark.parametrize("damage", [damage_header, damage_body])
def test_all_damaged_files_of_a_song_are_reported(
    run: Run, make_song: MakeSong, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    for name in ("good", "bad"):
        make_song(tmp_path / "data" / name)
    damage(tmp_path / "data/bad")
    (broken,) = [issue.message for issue in inspect_dataset(tmp_path / "data", STEMS).issues]
    for stem in STEMS:
        if f"{stem}." not in broken:
            (tmp_path / f"data/bad/{stem}.wav").write_bytes(b"no audio")
    found = inspect_dataset(tmp_path / "data", STEMS)
    assert len({issue.message for issue in found.issues}) >= 3
    assert {issue.kind for issue in found.issues} == {"damaged"}
    err = run("data", "check", "data", model=False).err
    assert err == "2 songs, 1 of them unusable, 0:02 min; 1 with issues\n".replace("0:02 min", "2.0 s")


def test_stems_that_differ_from_the_mixture_as_coding_does_add_up(packed: Path) -> None:
    assert inspect_dataset(packed, STEMS).issues == ()


def test_a_folder_without_songs(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for arguments in (["empty"], ["none"], ["empty", "--stems", " , "]):
        outcome = run("data", "check", *arguments, model=False)
        assert outcome.code in (1, 2)
        assert outcome.err.count("\n") == 2
        assert outcome.err.splitlines()[1].startswith("hint: ")
