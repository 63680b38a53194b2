"""The page to listen on, without a browser: what is in it, that it is all there is, and that it is exact."""

import base64
import hashlib
import itertools
import re
import secrets
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
import soxr  # type: ignore[import-untyped]
from support.pages import HOSTILE, Content, Samples, decode, heard, lag, read_page, unpack

import stemsplit.player.mp3_segments
import stemsplit.player.page
from stemsplit.errors import AudioError, UsageError
from stemsplit.player.mp3_segments import LEAD, PROBE, QUALITIES, SEGMENT, TAIL, Quality, Stream, probe
from stemsplit.player.overview import BANDS, HOP, N_FFT, PEAK_COLUMNS, POWER_COLUMNS, RANGE_DB, Overview, mel_bands
from stemsplit.player.packing import ALPHABET, pack
from stemsplit.player.page import SCRIPTS, write_player

Song = Callable[..., dict[str, Samples]]

RATE = 44_100


def snr(reference: Samples, estimate: Samples) -> float:
    return float(10 * np.log10((reference**2).sum() / ((reference - estimate) ** 2).sum()))


@pytest.fixture
def song(make_song: Song, tmp_path: Path) -> tuple[dict[str, Path], dict[str, Samples]]:
    """Twelve seconds in three segments: the files of the stems, and their samples `(N, C)`."""
    samples = make_song(tmp_path / "stems", length=12 * RATE + 7, rate=RATE)
    return {stem: tmp_path / "stems" / f"{stem}.wav" for stem in samples}, samples


@pytest.fixture
def short(make_song: Song, tmp_path: Path) -> dict[str, Path]:
    """The files of two stems of a second."""
    samples = make_song(tmp_path / "short", stems=("vocals", "drums"), length=RATE, rate=RATE)
    return {stem: tmp_path / "short" / f"{stem}.wav" for stem in samples}


# The page


@pytest.mark.full
def test_the_sound_is_exact(song: tuple[dict[str, Path], dict[str, Samples]], tmp_path: Path) -> None:
    paths, samples = song
    write_player(tmp_path / "player.html", "A song", paths)
    content = read_page(tmp_path / "player.html")
    described = content.song()
    assert described["length"] == 12 * RATE + 7
    assert (described["rate"], described["channels"], described["segment"]) == (RATE, 2, SEGMENT)
    assert [stem["name"] for stem in described["stems"]] == list(samples)
    assert len(content.segments()) == 3
    for i, (stem, original) in enumerate(samples.items()):
        result = heard(content, i)
        assert result.shape == original.T.shape
        assert lag(original[:, 0], result[0]) == 0
        # Nothing is worse where two segments meet. Noise is what MP3 changes most.
        least = 4 if stem == "drums" else 20
        assert snr(original.T, result) > least
        for border in (SEGMENT, 2 * SEGMENT):
            around = slice(border - 600, border + 600)
            assert snr(original.T[:, around], result[:, around]) > least - 3


@pytest.mark.full
def test_the_pictures_are_those_of_the_stems(song: tuple[dict[str, Path], dict[str, Samples]], tmp_path: Path) -> None:
    paths, samples = song
    write_player(tmp_path / "player.html", "A song", paths)
    described = read_page(tmp_path / "player.html").song()
    loudest = max(np.abs(original).max() for original in samples.values())
    columns = -(-described["length"] // described["peakSamples"])
    for stem, original in zip(described["stems"], samples.values(), strict=True):
        lows = np.frombuffer(unpack(stem["lows"]), np.int8)
        highs = np.frombuffer(unpack(stem["highs"]), np.int8)
        assert lows.shape == highs.shape == (columns,)
        assert highs.max() == np.rint(127 * original.max() / loudest)
        assert lows.min() == np.rint(127 * original.min() / loudest)
        powers = np.frombuffer(zlib.decompress(unpack(stem["powers"])), np.uint8).reshape(-1, described["bands"])
        assert len(powers) == -(-described["length"] // described["powerSamples"])
        assert powers.max() > 128


@pytest.mark.full
def test_what_the_stems_leave_of_the_song_is_in_the_page(short: dict[str, Path], tmp_path: Path) -> None:
    """With it the song itself can be heard, and nothing more is needed where the stems add up."""
    parts = [soundfile.read(path, dtype="float32")[0] for path in short.values()]
    rng = np.random.default_rng(3)
    left = np.cumsum(rng.uniform(-0.01, 0.01, parts[0].shape), axis=0).astype(np.float32)  # kind to MP3
    soundfile.write(tmp_path / "equal.wav", sum(parts), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "more.wav", sum(parts) + left, RATE, subtype="FLOAT")
    again = soxr.resample(sum(parts) + left, RATE, 48_000)
    soundfile.write(tmp_path / "rate.wav", again, 48_000, subtype="FLOAT")
    write_player(tmp_path / "plain.html", "A song", short)
    assert read_page(tmp_path / "plain.html").song()["comparable"] is False
    write_player(tmp_path / "equal.html", "A song", short, song=tmp_path / "equal.wav")
    content = read_page(tmp_path / "equal.html")
    assert content.song()["comparable"] is True
    assert {len(segment) for segment in content.segments()} == {2}
    for name in ("more", "rate"):
        write_player(tmp_path / f"{name}.html", "A song", short, song=tmp_path / f"{name}.wav")
        content = read_page(tmp_path / f"{name}.html")
        assert {len(segment) for segment in content.segments()} == {3}
        assert content.song()["length"] == RATE
        assert lag(left[:, 0], heard(content, 2)[0]) == 0
        assert snr(left.T[:, 2_000:-2_000], heard(content, 2)[:, 2_000:-2_000]) > 15


@pytest.mark.full
def test_a_stem_with_equal_channels_is_encoded_in_mono(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (RATE, 2)).astype(np.float32)
    noise[:, 1] = noise[:, 0]
    soundfile.write(tmp_path / "mono.wav", noise, RATE)
    noise[RATE // 2 :, 1] *= 0.9
    soundfile.write(tmp_path / "late.wav", noise, RATE)
    write_player(tmp_path / "player.html", "x", {name: tmp_path / f"{name}.wav" for name in ("mono", "late")})
    content = read_page(tmp_path / "player.html")
    assert content.song()["channels"] == 2
    assert [heard(content, i).shape for i in range(2)] == [(1, RATE), (2, RATE)]
    assert lag(noise[:, 0], heard(content, 0)[0]) == lag(noise[:, 0], heard(content, 1)[0]) == 0


def test_bytes_become_text_and_bytes_again() -> None:
    data = bytes(range(256)) * 3 + b"\xff" * 9
    for end in range(len(data) - 9, len(data)):
        text = pack(data[:end])
        assert unpack(text) == data[:end]
        assert len(text) == 5 * (end // 4) + (end % 4 + 1 if end % 4 else 0)
    assert len(ALPHABET) == 85 and not set(ALPHABET) & set("<>&\"'`\\=/ ")


@pytest.mark.full
def test_a_page_needs_nothing_else(short: dict[str, Path], tmp_path: Path) -> None:
    write_player(tmp_path / "player.html", "A song", short)
    text = (tmp_path / "player.html").read_text(encoding="utf-8")
    assert not re.search(r"(?i)\b(https?|wss?|file|blob):", text)
    content = Content(text)
    assert not re.search(r"@import|url\(", content.texts("style")[0])
    assert not content.open, "every element is closed"
    for tag, attributes, _ in content.elements:
        assert tag not in ("iframe", "object", "embed", "img", "audio", "base")
        assert "src" not in attributes
        assert attributes.get("href", "data:,") == "data:,"
        assert not [name for name in attributes if name.startswith("on")]
    assert all(len(content.texts(tag)) == 1 for tag in ("html", "head", "title", "style", "body", "main", "footer"))


@pytest.mark.full
def test_only_its_own_script_may_run(short: dict[str, Path], tmp_path: Path) -> None:
    write_player(tmp_path / "player.html", "A song", short)
    content = read_page(tmp_path / "player.html")
    (policy,) = [a["content"] for _, a, _ in content.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy and "default-src 'none'" in policy
    scripts = [text for tag, attributes, text in content.elements if tag == "script" and not attributes]
    assert len(scripts) == 1
    for kind, text in (("script", "".join(scripts[0])), ("style", content.texts("style")[0])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}';" in policy


@pytest.mark.full
def test_names_are_text(short: dict[str, Path], tmp_path: Path) -> None:
    names = [f"{HOSTILE} 1", f"{HOSTILE} 2"]
    write_player(tmp_path / "plain.html", "x", short)
    write_player(tmp_path / "player.html", HOSTILE, dict(zip(names, short.values(), strict=True)))
    plain, content = read_page(tmp_path / "plain.html"), read_page(tmp_path / "player.html")
    assert [tag for tag, _, _ in content.elements] == [tag for tag, _, _ in plain.elements]
    assert content.song()["title"] == HOSTILE
    assert [stem["name"] for stem in content.song()["stems"]] == names
    assert content.texts("title") == [re.sub("[\x00\x1b\udce9]", "\ufffd", HOSTILE)]


def test_the_scripts_make_no_markup() -> None:
    for name in SCRIPTS:
        text = (Path(stemsplit.player.page.__file__).parent / name).read_text(encoding="utf-8")
        assert not re.search(
            r"(inner|outer|Adjacent|set)HTML|document\.write|\beval\(|Function\(|fetch\(|XMLHttp", text
        )
        assert "</script" not in text and "<!--" not in text


@pytest.mark.full
def test_the_same_stems_give_the_same_page(short: dict[str, Path], tmp_path: Path) -> None:
    for name in ("one.html", "two.html"):
        write_player(tmp_path / name, "A song", short)
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


@pytest.mark.full
def test_shorter_stems_end_in_silence(tmp_path: Path) -> None:
    paths = {"short": tmp_path / "short.wav", "long": tmp_path / "long.wav"}
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (90_000, 2)).astype(np.float32)
    soundfile.write(paths["short"], noise[:3_000], RATE)
    soundfile.write(paths["long"], noise, RATE)
    write_player(tmp_path / "player.html", "A song", paths)
    content = read_page(tmp_path / "player.html")
    assert content.song()["length"] == 90_000
    assert np.abs(heard(content, 0)[:, 6_000:]).max() < 1e-3
    assert lag(noise[:, 0], heard(content, 1)[0]) == 0


@pytest.mark.full
@pytest.mark.parametrize("length", [1, SEGMENT - 1, SEGMENT, SEGMENT + 1])
def test_segments_cover_any_length(length: int, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(length, 0.25, np.float32), RATE)
    write_player(tmp_path / "player.html", "A song", {"a": tmp_path / "a.wav"})
    content = read_page(tmp_path / "player.html")
    assert content.song()["length"] == length
    assert len(content.segments()) == -(-length // SEGMENT)
    assert heard(content, 0).shape == (1, length)


@pytest.mark.full
@pytest.mark.parametrize(("rate", "expected"), [(8_000, 16_000), (22_050, 22_050), (44_101, 48_000), (96_000, 48_000)])
def test_rates_that_mp3_has_not_are_converted(rate: int, expected: int, make_song: Song, tmp_path: Path) -> None:
    samples = make_song(tmp_path, stems=("vocals",), length=2 * rate, rate=rate, channels=1)["vocals"]
    write_player(tmp_path / "player.html", "A song", {"vocals": tmp_path / "vocals.wav"})
    content = read_page(tmp_path / "player.html")
    assert (content.song()["rate"], content.song()["channels"]) == (expected, 1)
    assert content.song()["length"] == 2 * expected
    times = np.arange(2 * expected) / expected
    again = np.interp(times, np.arange(2 * rate) / rate, samples[:, 0]).astype(np.float32)
    assert abs(lag(again, heard(content, 0)[0])) <= 1  # to the sample, but for what the interpolation does


@pytest.mark.full
def test_mono_and_stereo_stems_go_together(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    soundfile.write(tmp_path / "mono.wav", rng.uniform(-0.5, 0.5, 9_000), RATE)
    soundfile.write(tmp_path / "stereo.wav", rng.uniform(-0.5, 0.5, (9_000, 2)), RATE)
    write_player(tmp_path / "player.html", "x", {name: tmp_path / f"{name}.wav" for name in ("mono", "stereo")})
    content = read_page(tmp_path / "player.html")
    assert [heard(content, i).shape for i in range(2)] == [(1, 9_000), (2, 9_000)]


@pytest.mark.full
def test_long_songs_are_encoded_more_coarsely(
    short: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    for i, quality in enumerate(QUALITIES):
        # Two stems of a second are too long for all qualities before this one.
        ladder = [Quality(1.9, q.rate, q.channels, q.options) for q in QUALITIES[:i]] + [quality]
        monkeypatch.setattr(stemsplit.player.page, "QUALITIES", ladder)
        write_player(tmp_path / f"{i}.html", "A song", short)
        content = read_page(tmp_path / f"{i}.html")
        assert content.song()["rate"] <= quality.rate and content.song()["channels"] <= quality.channels
        assert content.song()["length"] == content.song()["rate"]
        original = soundfile.read(short["vocals"], dtype="float32")[0]
        times = np.arange(content.song()["length"]) / content.song()["rate"]
        again = np.interp(times, np.arange(RATE) / RATE, original.mean(axis=1)).astype(np.float32)
        assert abs(lag(again, heard(content, 0).mean(axis=0))) <= 1
        sizes.append(sum(len(stem) for stem in content.segments()[0]) / SEGMENT * content.song()["rate"])  # bytes/s
    assert sizes[1] <= 2 * 64_000 / 8 * 1.03
    assert sizes[2] <= 2 * 32_000 / 8 * 1.03
    monkeypatch.setattr(stemsplit.player.page, "QUALITIES", [Quality(1.9, RATE, 2, {})])
    with pytest.raises(AudioError, match="too long for the page"):
        write_player(tmp_path / "player.html", "A song", short)
    assert not list(tmp_path.glob("player*"))


@pytest.mark.full
def test_progress_is_reported(short: dict[str, Path], tmp_path: Path) -> None:
    reports: list[tuple[int, int | None]] = []
    write_player(tmp_path / "player.html", "A song", short, on_progress=lambda *now: reports.append(now))
    assert reports[-1] == (RATE, RATE)


# What is refused, and what is left then


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.full
def test_a_page_that_exists_is_kept_unless_told(short: dict[str, Path], tmp_path: Path) -> None:
    page = tmp_path / "player.html"
    page.write_text("mine")
    with pytest.raises(AudioError, match="exists already") as caught:
        write_player(page, "A song", short)
    assert "--overwrite" in caught.value.hint
    assert page.read_text() == "mine"
    write_player(page, "A song", short, overwrite=True)
    assert read_page(page).song()["title"] == "A song"
    assert names(tmp_path) == ["player.html", "short"]


@pytest.mark.full
def test_a_page_that_somebody_wrote_meanwhile_is_kept(short: dict[str, Path], tmp_path: Path) -> None:
    page = tmp_path / "player.html"
    with pytest.raises(AudioError, match="exists already"):
        write_player(page, "A song", short, on_progress=lambda done, total: page.touch())
    assert page.read_bytes() == b""
    assert names(tmp_path) == ["player.html", "short"]


@pytest.mark.full
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, OSError(28, "No space left on device")])
def test_nothing_is_left_of_a_page_that_was_not_finished(
    error: Any, short: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "player.html"
    page.write_text("mine")

    def fail(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(shutil, "copyfileobj", fail)
    with pytest.raises(AudioError if isinstance(error, OSError) else error):
        write_player(page, "A song", short, overwrite=True)
    assert page.read_text() == "mine"
    assert names(tmp_path) == ["player.html", "short"]


@pytest.mark.full
def test_a_page_appears_when_it_is_complete(
    short: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "token_hex", lambda size: "0" * 2 * size)
    page = tmp_path / ("long name " * 24 + ".html")

    def look(source: Any, target: Any) -> None:
        first = names(tmp_path)[0]
        assert page.name.startswith(first.split(".")[0])  # shortened, as what tells writers apart comes after it
        assert first.endswith("-00000000.part")
        assert not page.exists()
        target.write(source.read())

    monkeypatch.setattr(shutil, "copyfileobj", look)
    write_player(page, "A song", short)
    assert names(tmp_path) == [page.name, "short"]


def test_what_cannot_be_written_is_a_sentence(short: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"cannot write '.*missing.*player\.html'"):
        write_player(tmp_path / "missing" / "player.html", "A song", short)
    (tmp_path / "folder").mkdir()
    with pytest.raises(AudioError, match="is a folder"):
        write_player(tmp_path / "folder", "A song", short, overwrite=True)


def test_stems_that_cannot_be_read_are_refused(short: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="there is no file"):
        write_player(tmp_path / "player.html", "A song", {**short, "bass": tmp_path / "bass.wav"})
    soundfile.write(tmp_path / "bass.wav", np.zeros(100), 48_000)
    with pytest.raises(UsageError, match="48000 Hz, and another stem has 44100 Hz"):
        write_player(tmp_path / "player.html", "A song", {**short, "bass": tmp_path / "bass.wav"})
    soundfile.write(tmp_path / "bass.wav", np.zeros(0), RATE)
    with pytest.raises(AudioError, match="has no samples"):
        write_player(tmp_path / "player.html", "A song", {"bass": tmp_path / "bass.wav"})
    with pytest.raises(UsageError, match="no stems"):
        write_player(tmp_path / "player.html", "A song", {})
    assert names(tmp_path) == ["bass.wav", "short"]


def test_stems_that_turn_out_longer_than_they_say_are_refused(
    short: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stemsplit.player.page, "LIMIT", 10)
    soundfile.write(tmp_path / "a.wav", np.zeros(2 * SEGMENT, np.float32), RATE)
    with pytest.raises(AudioError, match="too long for the page"):
        write_player(tmp_path / "player.html", "A song", {"a": tmp_path / "a.wav"})
    assert names(tmp_path) == ["a.wav", "short"]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_song(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (60 * 16_000, 2)).astype(np.float32)
    used = []
    for minutes in (2, 20):
        with soundfile.SoundFile(tmp_path / "a.wav", "w", 16_000, 2, "PCM_16") as file:
            for _ in range(minutes):
                file.write(noise)
        write_player(tmp_path / f"{minutes}.html", "A song", {"a": tmp_path / "a.wav"})
        used.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    assert used[1] - used[0] < 20  # MiB; the sound alone is 73 MiB as 16-bit numbers


# Segments


@pytest.mark.full
def test_every_segment_is_what_the_whole_stream_gives() -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 40_000)).astype(np.float32)
    noise *= np.hanning(4_000)[np.arange(40_000) % 4_000].astype(np.float32)  # beats, for which LAME changes its blocks
    size = 8 * 1152
    for rate, quality in itertools.product((RATE, 24_000), QUALITIES):
        stream = Stream(rate, 2, quality, size=size)
        for block in np.array_split(noise, 7, axis=1):
            stream.add(block)
        stream.finish(-40_000 % size)
        frames = b"".join(stream._frames)
        whole = decode(frames)
        click = decode(probe(rate, 2, quality))
        delay = int(np.abs(click[0]).argmax())
        assert delay == int(np.abs(click[1]).argmax()) == LEAD * (1152 if rate == RATE else 576) + 1105
        count = 0
        while stream.ready:
            part = decode(stream.take())[:, delay : delay + size]
            expected = whole[:, delay + count * size :][:, :size]
            assert part.shape == expected.shape == (2, size)
            np.testing.assert_allclose(part, expected, atol=1e-6)
            count += 1
        assert count == -(-40_000 // size)


def test_the_margins_are_as_long_as_they_say() -> None:
    mp3 = probe(RATE, 2, QUALITIES[0])
    assert decode(mp3).shape == (2, (LEAD + TAIL) * 1152 + PROBE)
    assert SEGMENT % 1152 == PROBE % 1152 == 0


# Pictures


def draw(samples: Samples, rate: int = RATE, block: int = 65_536) -> Any:
    overview = Overview(len(samples), samples.shape[1], rate)
    for start in range(0, samples.shape[-1], block):
        overview.add(samples[..., start : start + block])
    return overview.finish()


@pytest.mark.full
@pytest.mark.parametrize("length", [0, 1, 63, 64, 65, HOP, N_FFT, 100_000, 64 * PEAK_COLUMNS, 1_100_001])
def test_pictures_are_those_of_a_plain_calculation(length: int) -> None:
    samples = np.random.default_rng(length).uniform(-0.5, 0.5, (2, 2, length)).astype(np.float32)
    picture = draw(samples)
    span = picture.peak_samples
    assert span & (span - 1) == 0
    # One column may be left over for what does not fill one.
    assert picture.lows.shape == picture.highs.shape == (2, -(-length // span))
    assert picture.lows.shape[1] <= PEAK_COLUMNS + 1
    loudest = np.abs(samples).max(initial=0)
    for x in range(picture.lows.shape[1]):
        part = samples[..., x * span : (x + 1) * span]
        np.testing.assert_array_equal(picture.lows[:, x], np.rint(part.min(axis=(1, 2)) * (127 / loudest)))
        np.testing.assert_array_equal(picture.highs[:, x], np.rint(part.max(axis=(1, 2)) * (127 / loudest)))


def test_powers_are_those_of_a_plain_calculation() -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 2, 30_000)).astype(np.float32)
    picture = draw(samples)
    assert picture.power_samples == HOP
    padded = np.pad(samples.astype(np.float64), ((0, 0), (0, 0), ((N_FFT - HOP) // 2, N_FFT)))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)
    for frame in range(-(-30_000 // HOP)):
        spectrum = np.fft.rfft(padded[..., frame * HOP : frame * HOP + N_FFT] * window)
        power = (np.abs(spectrum) ** 2).mean(axis=1) @ mel_bands(RATE).T.astype(np.float64)
        expected = 255 * (1 + 10 * np.log10(power / (N_FFT**2 * 3 / 32)) / RANGE_DB)
        np.testing.assert_allclose(picture.powers[:, frame].astype(float), expected, atol=0.51)


def test_blocks_do_not_matter() -> None:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 1, 60_000)).astype(np.float32)
    pictures = [draw(samples, block=block) for block in (1_000, 7_777, 60_000)]
    for picture in pictures[1:]:
        np.testing.assert_array_equal(picture.lows, pictures[0].lows)
        # Products of matrices are rounded differently for different shapes.
        assert np.abs(picture.powers.astype(int) - pictures[0].powers).max() <= 1


def test_a_sine_of_full_scale_is_the_brightest_there_is() -> None:
    time = np.arange(3 * RATE) / RATE
    picture = draw(np.sin(2 * np.pi * 1000 * time).astype(np.float32)[None, None])
    middle = picture.powers[0, 50].astype(int)
    # Two neighbours share it, so that neither has less than half of it: 3 dB.
    assert 255 * (1 - 3.1 / RANGE_DB) < middle.max() <= 255
    assert middle[np.abs(np.arange(BANDS) - middle.argmax()) > 4].max() < 128


def test_silence_is_dark() -> None:
    picture = draw(np.zeros((1, 2, 5_000), np.float32))
    assert not picture.powers.any() and not picture.lows.any() and not picture.highs.any()


@pytest.mark.full
def test_columns_are_bounded() -> None:
    quiet, loud = np.zeros((1, 1, 2**20), np.float32), np.full((1, 1, 2**20), 0.5, np.float32)
    overview = Overview(1, 1, RATE)
    for i in range(12):
        overview.add(loud if i == 10 else quiet)
    picture = overview.finish()
    for columns, span, limit in (
        (picture.highs[0], picture.peak_samples, PEAK_COLUMNS),
        (picture.powers[0, :, 0], picture.power_samples, POWER_COLUMNS),
    ):
        assert limit // 2 <= len(columns) <= limit + 1
        (bright,) = np.nonzero(columns)
        assert abs(bright[0] - 10 * 2**20 / span) <= 1
        assert abs(bright[-1] - 11 * 2**20 / span) <= 1


@pytest.mark.parametrize("rate", [16_000, RATE, 48_000])
def test_bands_share_the_whole_range(rate: int) -> None:
    weights = mel_bands(rate)
    frequencies = np.fft.rfftfreq(N_FFT, 1 / rate)
    inside = (frequencies >= 30) & (frequencies <= min(16_000, rate / 2))
    np.testing.assert_allclose(weights.sum(axis=0), inside, atol=1e-5)
    centres = (weights * frequencies).sum(axis=1) / weights.sum(axis=1)
    assert (np.diff(centres) > 0).all()


# Colours


def luminance(colour: str) -> float:
    """As WCAG 2.2 has it."""
    values = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return float(
        np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)
    )


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_can_be_told_apart(scheme: str) -> None:
    style = (Path(stemsplit.player.page.__file__).parent / "player.css").read_text(encoding="utf-8")
    light, dark = (dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6});", block)) for block in style.split(":root {")[1:3])
    assert set(dark) == set(light)
    colours = {"light": light, "dark": dark}[scheme]
    hues = re.findall(r'\[data-hue="([a-z]+)"\]', style)
    assert len(hues) == 7
    for ground in ("paper", "card"):
        assert contrast(colours["ink"], colours[ground]) > 7
        assert contrast(colours["soft"], colours[ground]) > 4.5
        assert contrast(colours["focus"], colours[ground]) > 3
    for hue in [*hues, "blue"]:
        assert contrast(colours[hue], colours["card"]) > 4.5, hue  # the letter on a pressed button
        assert contrast(colours[hue], colours["ground"]) > 3, hue  # a waveform
    common = [[int(colours[hue][i : i + 2], 16) for i in (1, 3, 5)] for hue in ("rose", "amber", "indigo", "teal")]
    for one, other in itertools.combinations(np.array(common), 2):
        assert np.abs(one - other).max() > 50
