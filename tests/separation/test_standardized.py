"""Models whose author standardizes songs: whole songs are as from his program, streams go by their level so far."""

import importlib
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
import torch
from support.demucs import difference, shuffle
from support.demucs import reference as new_network
from support.demucs_files import NETWORKS, publish, reference

from stemsplit import Delivery, Format, Separator
from stemsplit.audio.decoding import Block
from stemsplit.audio.read_ahead import PrefetchReader
from stemsplit.audio.reading import Reader
from stemsplit.cli.separate import DEMO
from stemsplit.dsp.level import Level
from stemsplit.errors import AudioError
from stemsplit.models import checkpoint
from stemsplit.models.checkpoint import Header, Model
from stemsplit.models.ensemble import Chain, ChainStep, ensemble_of
from stemsplit.separation.options import SeparationOptions

TOLERANCE = 1e-4  # of the peak
RATE = 8_000
FLOAT = Format("wav", "32f")
AS_IT_IS = Delivery(FLOAT, consistent=False)


def coloured(length: int, *, exponent: float = 1.0, seed: int = 0) -> Block:
    """Noise whose power falls with frequency, in stereo, with a peak of 0.5 and the quiet and loud parts of music."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft(rng.standard_normal((2, length)))
    spectrum /= np.maximum(np.arange(spectrum.shape[1]), 5) ** (exponent / 2)
    samples = np.fft.irfft(spectrum, length) * (0.1 + np.linspace(0, 3, length) % 1)
    scaled: Block = (0.5 * samples / np.abs(samples).max()).astype(np.float32)
    return scaled


# Songs as they are found: gain and constant offset.
SONGS = {
    "as it is": (1.0, 0.0),
    "an offset of 0.001": (1.0, 1e-3),
    "an offset of 0.03": (1.0, 0.03),
    "-40 dB": (1e-2, 0.0),
    "-60 dB": (1e-3, 0.0),
    "-60 dB and an offset": (1e-3, 3e-3),
}


def as_the_author_does(network: Any, mix: Block, *, shifts: int = 0) -> torch.Tensor:
    """Stems by the author's own program, with its defaults but for the random shifts."""
    program = importlib.import_module("demucs.api").Separator
    author = object.__new__(program)  # without its download
    author._model, author._samplerate, author._audio_channels = network, network.samplerate, network.audio_channels
    program.update_parameter(
        author,
        device="cpu",
        shifts=shifts,
        overlap=0.25,
        split=True,
        segment=None,
        jobs=0,
        progress=False,
        callback=None,
        callback_arg=None,
    )
    _, stems = author.separate_tensor(torch.from_numpy(mix.copy()))
    return torch.stack(list(stems.values()))


def separate_file(separator: Separator, folder: Path, mix: Block, delivery: Delivery = AS_IT_IS) -> torch.Tensor:
    """Stems from files, by way of a file."""
    song = folder / "song.wav"
    soundfile.write(song, mix.T, separator.rate, subtype="FLOAT")
    outputs = {stem: folder / f"{stem}.wav" for stem in separator.stems}
    separator.separate_file(song, outputs, delivery=delivery, overwrite=True)
    return torch.stack(
        [torch.from_numpy(soundfile.read(path, dtype="float32")[0].T.copy()) for path in outputs.values()]
    )


def separate_stream(separator: Separator, mix: Block, level: Level | None = None) -> torch.Tensor:
    blocks = np.array_split(mix, 7, axis=-1)
    return torch.from_numpy(np.concatenate(list(separator.separate(blocks, separator.rate, level=level)), axis=-1))


@pytest.fixture(scope="module")
def demucs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Separator]:
    """A function that gives a separator of a small published network by name."""
    folder = tmp_path_factory.mktemp("published")

    def load(name: str = "htdemucs") -> Separator:
        path = folder / f"{name}.safetensors"
        return Separator(checkpoint.load(path if path.exists() else publish(name, path)))

    return load


@pytest.mark.full
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("song", SONGS)
def test_whole_songs_are_as_from_the_authors_program(
    demucs: Callable[[str], Separator], tmp_path: Path, name: str, song: str
) -> None:
    gain, offset = SONGS[song]
    mix = gain * coloured(20_001) + np.float32(offset)
    expected = as_the_author_does(reference(name), mix)
    separator = demucs(name)
    assert difference(separate_file(separator, tmp_path, mix), expected) <= TOLERANCE
    arrays = separator.separate_array(mix, RATE, consistent=False)
    assert difference(torch.from_numpy(np.stack(list(arrays.values()))), expected) <= TOLERANCE


@pytest.mark.full
@pytest.mark.parametrize("length", [2, 57, 6_240, 6_241, 10_000])
def test_songs_of_any_length_are(demucs: Callable[[str], Separator], tmp_path: Path, length: int) -> None:
    mix = coloured(length) + np.float32(0.01)
    expected = as_the_author_does(reference("htdemucs"), mix)
    assert difference(separate_file(demucs("htdemucs"), tmp_path, mix), expected) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("song", SONGS)
def test_music_through_the_published_size_is(tmp_path: Path, song: str) -> None:
    torch.manual_seed(0)
    theirs = new_network("htdemucs", {}, stems=4, channels=2).eval()
    shuffle(theirs)
    theirs.segment = Fraction(39, 5)
    header = Header("htdemucs", {}, tuple(theirs.sources), 44_100, 2, 343_980, 257_985)
    model = checkpoint.new_model(header)
    model.network.load_state_dict(theirs.state_dict())
    gain, offset = SONGS[song]
    mix = gain * soundfile.read(DEMO, 400_000, dtype="float32", always_2d=True)[0].T + np.float32(offset)
    ours = separate_file(Separator(Model(header, model.network.eval())), tmp_path, mix)
    error = difference(ours, as_the_author_does(theirs, mix))
    print(f"{song}: {error:.1e} of the peak")
    assert error <= TOLERANCE


@pytest.mark.full
def test_shifts_delay_silence_and_not_an_offset(demucs: Callable[[str], Separator], tmp_path: Path) -> None:
    separator = Separator(demucs("htdemucs").chain, SeparationOptions(shifts=3))
    mix = coloured(9_000)
    plain = separate_file(separator, tmp_path, mix)
    assert difference(separate_file(separator, tmp_path, mix + np.float32(0.25)) - 0.25, plain) <= TOLERANCE


def test_the_level_is_measured_at_the_rate_of_the_model(demucs: Callable[[str], Separator]) -> None:
    separator, mix = demucs("htdemucs"), coloured(60_000, exponent=0) + np.float32(0.02)
    level = separator.measure(np.array_split(mix, 5, axis=-1), 6 * RATE)
    assert level is not None
    assert level.mean == pytest.approx(mix.mean(), rel=1e-2)
    # A sixth of the band, and so of the power, is left.
    assert level.deviation == pytest.approx(mix.mean(0).std() / 6**0.5, rel=0.1)
    same = separator.measure([mix], RATE)
    assert same is not None
    assert same.deviation == pytest.approx(mix.mean(0).std(), rel=1e-3)


def test_other_models_get_songs_as_they_are_and_files_are_read_once(
    shares_model: Callable[..., Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unread = iter([coloured(9_000)])
    separator = Separator(shares_model(rate=RATE))
    assert separator.measure(unread, RATE) is None
    assert next(unread).any()
    monkeypatch.setattr(Reader, "reopen", lambda reader: pytest.fail("read again"))
    separate_file(separator, tmp_path, coloured(9_000))


def test_a_first_pass_is_stopped_by_whoever_shows_progress(demucs: Callable[[str], Separator], tmp_path: Path) -> None:
    def stop(done: int, total: int | None) -> None:
        assert (done, total) == (0, 200_000)
        raise TimeoutError

    soundfile.write(tmp_path / "song.wav", np.zeros((200_000, 2)), RATE)
    with pytest.raises(TimeoutError):
        demucs("htdemucs").separate_file(tmp_path / "song.wav", {"bass": tmp_path / "b.wav"}, on_progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["song.wav"]


def test_it_is_known_before_a_first_pass_whether_stems_can_be_written(
    demucs: Callable[[str], Separator], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Reader, "reopen", lambda reader: pytest.fail("too early"))
    soundfile.write(tmp_path / "song.wav", np.zeros((1_000, 2)), RATE)
    (tmp_path / "b.wav").touch()
    with pytest.raises(AudioError, match="exists already"):
        demucs("htdemucs").separate_file(tmp_path / "song.wav", {"bass": tmp_path / "b.wav"})


def test_songs_that_are_read_ahead_can_be_read_again(tmp_path: Path) -> None:
    mix = coloured(100_000)
    soundfile.write(tmp_path / "song.wav", mix.T, RATE, subtype="FLOAT")
    with PrefetchReader(tmp_path / "song.wav") as ahead, ahead.reopen() as once, ahead.reopen() as twice:
        for reader in (once, twice, ahead):
            np.testing.assert_array_equal(np.concatenate(list(reader.blocks()), axis=-1), mix)


# Streams


@pytest.mark.full
@pytest.mark.parametrize("name", ["htdemucs", "hdemucs", "demucs"])
@pytest.mark.parametrize(("gain", "tolerance"), [(1e-2, TOLERANCE), (1e-3, 3e-4)])  # 1e-8 is added to the deviation
def test_streams_do_not_depend_on_their_level(
    demucs: Callable[[str], Separator], name: str, gain: float, tolerance: float
) -> None:
    separator, mix = demucs(name), coloured(20_001)
    expected = separate_stream(separator, mix)
    assert difference(separate_stream(separator, gain * mix) / gain, expected) <= tolerance


@pytest.mark.full
def test_streams_keep_their_offset_and_end_in_silence(demucs: Callable[[str], Separator]) -> None:
    separator, mix = demucs("htdemucs"), coloured(20_001)
    expected = separate_stream(separator, mix)
    assert difference(separate_stream(separator, mix + np.float32(0.25)) - 0.25, expected) <= TOLERANCE


@pytest.mark.full
def test_streams_come_closer_to_the_authors_program(demucs: Callable[[str], Separator]) -> None:
    separator, mix = demucs("htdemucs"), 1e-3 * np.tile(coloured(12_000), 8) + np.float32(3e-3)
    expected = as_the_author_does(reference("htdemucs"), mix)
    stems = separate_stream(separator, mix)
    errors = [difference(stems[..., part], expected[..., part]) for part in (slice(12_000), slice(84_000, None))]
    assert errors[1] < 0.2 * errors[0]


@pytest.mark.full
def test_streams_of_known_level_are_as_whole_songs(demucs: Callable[[str], Separator]) -> None:
    separator, mix = demucs("htdemucs"), coloured(20_001) + np.float32(0.01)
    level = separator.measure([mix], RATE)
    expected = as_the_author_does(reference("htdemucs"), mix)
    assert difference(separate_stream(separator, mix, level), expected) <= TOLERANCE
    assert difference(separate_stream(separator, mix), expected) > TOLERANCE


def test_silence_stays_silent(demucs: Callable[[str], Separator], tmp_path: Path) -> None:
    silence = np.zeros((2, 15_000), np.float32)
    assert not separate_stream(demucs("htdemucs"), silence).any()
    assert not separate_file(demucs("htdemucs"), tmp_path, silence).any()


@pytest.mark.full
def test_later_steps_of_a_chain_go_by_their_level_so_far(
    shares_model: Callable[..., Model], demucs: Callable[[str], Separator], tmp_path: Path
) -> None:
    first, second = shares_model(shares=(0.75, 0.25), rate=RATE), demucs("htdemucs").chain
    rename = {"vocals": "voice", "drums": "beat"}
    stems = ("vocals", "beat", "bass", "other", "voice")
    chain = Chain(
        replace(first.header, stems=stems),
        (ChainStep(ensemble_of(first)), ChainStep(second.steps[0].ensemble, "drums", rename)),
    )
    mix = coloured(20_001) + np.float32(0.01)
    ours = separate_file(Separator(chain), tmp_path, mix)
    expected = separate_stream(demucs("htdemucs"), 0.25 * mix)
    assert difference(ours[0], torch.from_numpy(0.75 * mix)) <= TOLERANCE
    assert difference(ours[1:], expected) <= TOLERANCE


# What is no music


@pytest.mark.parametrize("name", ["htdemucs", "hdemucs", "demucs"])
@pytest.mark.parametrize("length", [1, 2, 9_000])
def test_a_constant_offset_is_shared_by_the_stems(
    demucs: Callable[[str], Separator], tmp_path: Path, name: str, length: int
) -> None:
    separator = demucs(name)
    stems = separate_file(separator, tmp_path, np.full((2, length), 0.5, np.float32), Delivery(FLOAT))
    np.testing.assert_allclose(stems, 0.125, atol=1e-6)


@pytest.mark.parametrize("name", ["htdemucs", "hdemucs", "demucs"])
def test_one_sample_of_sound(demucs: Callable[[str], Separator], tmp_path: Path, name: str) -> None:
    stems = separate_file(demucs(name), tmp_path, np.array([[0.9], [-0.3]], np.float32), Delivery(FLOAT))
    np.testing.assert_allclose(stems.sum(0), [[0.9], [-0.3]], atol=1e-6)
    assert stems.abs().max() <= 0.9
