"""The page to listen on, in a real browser: it plays, it is exact, it does what keys and mouse say, nothing overflows.

The sound is judged in two ways: as the page plays it, by an analyser behind its last gain; and to the sample, where the
page's own scheduler plays into an OfflineAudioContext.
"""

import base64
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile  # type: ignore[import-untyped]
from support import chromium
from support.chromium import Page
from support.pages import HOSTILE, heard, lag, read_page

from stemsplit.dsp.stretching import stretch
from stemsplit.player.mp3_segments import SEGMENT
from stemsplit.player.page import write_player

pytestmark = [
    pytest.mark.browser,
    pytest.mark.full,
    pytest.mark.skipif(chromium.PROGRAM is None, reason="there is no Chromium; on Debian: apt-get install chromium"),
]

Samples = npt.NDArray[np.float32]

RATE = 44_100
LENGTH = 14 * RATE + 11  # three segments
TONES = {"vocals": 600, "drums": 1_400, "bass": 2_600, "other": 4_400}  # Hz
SOON = 2205  # samples, 0.05 s: when the scheduler starts if the clock stands at 0


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """One browser for all tests; every test opens a page in it anew."""
    with chromium.chromium(tmp_path_factory.mktemp("profile")) as running:
        yield running


def write_song(folder: Path, stems: dict[str, Samples], title: str = "A song") -> Path:
    paths = {}
    for i, (stem, samples) in enumerate(stems.items()):
        paths[stem] = folder / f"{i}.wav"
        soundfile.write(paths[stem], samples, RATE, subtype="FLOAT")
    write_player(folder / "player.html", title, paths)
    return folder / "player.html"


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page whose stems are a tone each."""
    time = np.arange(LENGTH) / RATE
    stems = {stem: 0.2 * np.sin(2 * np.pi * tone * time) for stem, tone in TONES.items()}
    folder = tmp_path_factory.mktemp("tones")
    return write_song(folder, {stem: np.stack([x, x], 1).astype(np.float32) for stem, x in stems.items()})


@pytest.fixture(scope="module")
def noises(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Samples]:
    """A page whose stems are unlike each other, and unlike themselves a little later: `(S, C, N)`."""
    rng = np.random.default_rng(0)
    white = np.fft.rfft(rng.standard_normal((3, 2, LENGTH)))
    white *= np.exp(-np.arange(white.shape[-1]) / LENGTH * RATE / 2_000)  # mostly below 2 kHz: kind to MP3
    stems = np.fft.irfft(white, LENGTH)
    stems = (0.4 * stems / np.abs(stems).max()).astype(np.float32)
    folder = tmp_path_factory.mktemp("noises")
    return write_song(folder, {f"stem {i}": stem.T for i, stem in enumerate(stems)}), stems


@pytest.fixture
def show(page: Page) -> Iterator[Callable[..., Page]]:
    """A function that opens a page in a window of some size. Nothing else may be opened then, and nothing go wrong."""

    def open_page(path: Path, width: int = 1280, height: int = 800, **taste: Any) -> Page:
        page.requests.clear()
        page.problems.clear()
        page.resize(width, height, **taste)
        page.open(path)
        return page

    yield open_page
    page.run("player.pause()")
    assert page.problems == []
    assert len(page.requests) == 1 and page.requests[0].startswith("file:")


def floats(text: str) -> Samples:
    return np.frombuffer(base64.b64decode(text), np.float32)


def play_offline(page: Page, start: int, length: int) -> Samples:
    """What the page plays, `(C, length)`, from sample `start` on."""
    script = f"""(async () => {{
        const offline = new OfflineAudioContext(2, {SOON + length}, {RATE});
        player.graph = new Graph(offline, song.stems.length);
        player.graph.set(player.levels(), gainOf(player.master));
        player.run = new Run(player.graph, false, player.speed, player.semitones);
        player.heard = [];
        player.feed(player.run, {start});
        const covered = () => player.heard.reduce((sum, part) => sum + part.length, 0);
        const warped = player.speed !== 1 || player.semitones !== 0;
        const enough = () => player.run.sources.size >= (song.stems.length * {length}) / {RATE} * 6;
        while (warped ? !enough() : covered() < {length}) await sleep(0.01);
        const sound = await offline.startRendering();
        player.halt(0);
        player.graph = null;
        const letters = [0, 1].map((c) => new Uint8Array(sound.getChannelData(c).slice({SOON}).buffer));
        return letters.map((each) => btoa(Array.from(each, (byte) => String.fromCharCode(byte)).join("")));
    }})()"""
    return np.stack([floats(channel) for channel in page.run(script)])


def listen(page: Page) -> None:
    """Put an analyser behind the page's last gain."""
    page.run("""(() => {
        window.ear = new AnalyserNode(player.graph.context, { fftSize: 8192, smoothingTimeConstant: 0 });
        player.graph.master.connect(ear);
    })()""")


def wait_for_tones(page: Page, *stems: str) -> None:
    """Until exactly these stems' tones are heard."""
    bins = [round(tone / RATE * 8192) for tone in TONES.values()]
    expected = [stem in stems for stem in TONES]
    page.wait(f"""(() => {{
        const levels = new Float32Array(ear.frequencyBinCount);
        ear.getFloatFrequencyData(levels);
        const heard = {bins}.map((bin) => levels[bin] > -50);
        return {json.dumps(expected)}.every((each, i) => each === heard[i]);
    }})()""")


def pressed(page: Page, kind: str) -> list[bool]:
    """The buttons of all lanes, as screen readers see them."""
    states = page.run(f"[...document.querySelectorAll('.{kind}')].map((each) => each.getAttribute('aria-pressed'))")
    return [{"true": True, "false": False}[state] for state in states]


def label(page: Page, element: str) -> str:
    text: str = page.run(f"document.querySelector({element!r}).getAttribute('aria-label')")
    return text


# The sound


def tolerance(page: Page, stems: int, exact: float = 1e-5) -> float:
    """How far a sum of stems may be off: some browsers decode MP3 to 16 bits, with rounding and dither."""
    decoded = "player.segments.decode(song.probe).then((probe) => probe.getChannelData(0))"
    steps = f"{decoded}.then((samples) => [...samples].map((x) => x * (x < 0 ? 32768 : 32767)))"
    sixteen = page.run(f"{steps}.then((steps) => steps.every((step) => Math.abs(step - Math.round(step)) < 0.01))")
    return stems * 1.5 * 2**-15 if sixteen else exact


def test_it_plays(show: Callable[..., Page], tones: Path) -> None:
    page = show(tones)
    assert page.run("document.title") == "A song"
    assert label(page, "#play") == "Play"
    assert page.run("document.getElementById('now').textContent") == "0:00.0"
    page.press(" ")
    assert label(page, "#play") == "Pause"
    page.wait("player.position > 22050")
    assert page.run("player.graph.context.sampleRate") == RATE
    listen(page)
    wait_for_tones(page, *TONES)
    page.press(" ")
    assert label(page, "#play") == "Play"
    position = page.run("player.position")
    wait_for_tones(page)
    assert page.run("player.position") == position
    shown = page.run("document.getElementById('now').textContent")
    assert shown == f"0:{position / RATE // 0.1 / 10:04.1f}"
    assert page.run("document.getElementById('position').value * 1") == pytest.approx(position / RATE, abs=0.11)


def test_solo_and_mute_change_the_sound(show: Callable[..., Page], tones: Path) -> None:
    page = show(tones)
    page.press("l")  # over and over
    page.press(" ")
    page.wait("player.position > 4410")
    listen(page)
    wait_for_tones(page, *TONES)
    page.press("2", "Digit2")
    assert pressed(page, "solo") == [False, True, False, False]
    wait_for_tones(page, "drums")
    page.press("4", "Digit4")
    wait_for_tones(page, "drums", "other")
    page.press("$", "Digit4", shift=True)  # muted, but in solo
    assert pressed(page, "mute") == [False, False, False, True]
    wait_for_tones(page, "drums", "other")
    page.press("2", "Digit2")
    page.press("4", "Digit4")
    wait_for_tones(page, "vocals", "drums", "bass")
    page.press("0", "Digit0")
    assert pressed(page, "mute") == pressed(page, "solo") == [False] * 4
    wait_for_tones(page, *TONES)
    page.click(".lane:nth-child(3) .mute")
    wait_for_tones(page, "vocals", "drums", "other")
    page.click(".lane:nth-child(1) .solo")
    wait_for_tones(page, "vocals")
    page.click(".lane:nth-child(1) .solo")
    page.drag(".lane:nth-child(1) .volume", 0.5, 0)
    wait_for_tones(page, "drums", "other")
    assert page.run("document.querySelector('.lane output').textContent") == "off"
    page.drag("#master", 0.5, 0)
    wait_for_tones(page)


def test_what_is_heard_is_what_the_segments_hold(show: Callable[..., Page], noises: tuple[Path, Samples]) -> None:
    path, stems = noises
    page = show(path)
    content = read_page(path)
    # Across the border of two segments, which must not be heard.
    start, length = SEGMENT - RATE, 4 * RATE
    expected = np.array([heard(content, i)[:, start : start + length] for i in range(3)])
    np.testing.assert_allclose(play_offline(page, start, length), expected.sum(axis=0), atol=tolerance(page, 3))
    for i in range(3):
        page.press(str(i + 1), f"Digit{i + 1}")
        alone = play_offline(page, start, length)
        np.testing.assert_allclose(alone, expected[i], atol=tolerance(page, 1))
        assert lag(stems[i, 0, start : start + length], alone[0]) == 0
        page.press(str(i + 1), f"Digit{i + 1}")


def test_the_end_is_where_it_should_be(show: Callable[..., Page], noises: tuple[Path, Samples]) -> None:
    path, _ = noises
    page = show(path)
    length = 3 * RATE
    sound = play_offline(page, LENGTH - length, length)
    expected = np.array([heard(read_page(path), i)[:, -length:] for i in range(3)]).sum(axis=0)
    np.testing.assert_allclose(sound, expected, atol=tolerance(page, 3))


def test_stems_are_in_the_same_sample(show: Callable[..., Page], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    samples = rng.uniform(-0.5, 0.5, (7 * RATE, 2)).astype(np.float32)
    # A stem and its opposite cancel, sample by sample, or else they do not.
    page = show(write_song(tmp_path, {"one": samples, "opposite": -samples}))
    start = SEGMENT - RATE
    assert np.abs(play_offline(page, start, 2 * RATE)).max() < tolerance(page, 2, exact=1e-6)
    page.press("2", "Digit2")
    assert np.abs(play_offline(page, start, 2 * RATE)).max() > 0.3


def test_a_loop_has_no_seam(show: Callable[..., Page], noises: tuple[Path, Samples]) -> None:
    path, _ = noises
    page = show(path)
    start, end = SEGMENT - 9_001, SEGMENT + 12_345  # with a border inside
    page.run(f"player.setLoop(true, {start}, {end})")
    whole = np.array([heard(read_page(path), i) for i in range(3)]).sum(axis=0)
    loop = whole[:, start:end]
    expected = np.concatenate([whole[:, start - 1_000 : start], *[loop] * 5], axis=1)
    sound = play_offline(page, start - 1_000, expected.shape[1])
    np.testing.assert_allclose(sound, expected, atol=tolerance(page, 3))


def test_speed_and_pitch(show: Callable[..., Page], tmp_path: Path) -> None:
    """Half speed takes twice the time at the same pitch; an octave is twice the frequency in the same time."""
    time = np.arange(7 * RATE) / RATE
    tone = (0.4 * np.sin(2 * np.pi * 600 * time) * (time > 1)).astype(np.float32)
    page = show(write_song(tmp_path, {"tone": np.stack([tone, tone], 1)}))
    for keys, speed, octaves in (
        (",,,,,,,,,,,,", 0.5, 0),
        ("r", 1, 0),
        ("..........", 1.5, 0),
        ("r", 1, 0),
        ("^", 1, 1),
    ):
        for key in keys:
            page.press(key) if key != "^" else page.run("player.warp(player.speed, 12)")
        assert page.run("[player.speed, player.semitones]") == [speed, 12 * octaves]
        sound = play_offline(page, 0, 3 * RATE)[0]
        begin = int(np.argmax(np.abs(sound) > 0.1)) / RATE
        # An onset may move by a piece of 25 ms, and by as much as pieces are shifted to fit; that does not add up.
        assert begin == pytest.approx(1 / speed, abs=0.055)
        part = sound[round((1 / speed + 0.1) * RATE) :][: RATE // 2]
        part = part[: len(part) // 2 * 2]
        peak = np.argmax(np.abs(np.fft.rfft(part * np.hanning(len(part)), 2**19))) * RATE / 2**19
        assert peak == pytest.approx(600 * 2**octaves, abs=1)
        # Nothing clicks: a tone has no steeper steps than its own.
        assert np.abs(np.diff(part)).max() < 1.2 * 0.4 * 2 * np.pi * 600 * 2**octaves / RATE
    assert page.run("document.querySelector('#pitch').getAttribute('aria-valuetext')") == "12 semitones up"


def test_stems_stay_in_the_same_sample_at_any_speed(show: Callable[..., Page], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    samples = rng.uniform(-0.3, 0.3, (7 * RATE, 2)).astype(np.float32)
    page = show(write_song(tmp_path, {"one": samples, "opposite": -samples}))
    page.run(f"player.setLoop(true, {SEGMENT - RATE}, {SEGMENT + RATE // 4})")
    for speed, semitones in ((0.75, 0), (1.25, -3)):
        page.run(f"player.warp({speed}, {semitones})")
        assert np.abs(play_offline(page, SEGMENT - RATE, 2 * RATE)).max() < 2 * tolerance(page, 2)


def test_speed_is_changed_as_it_is_for_a_file(show: Callable[..., Page], tones: Path) -> None:
    """What a mix is exported with is what was heard: the same pieces, at the same places."""
    page = show(tones)
    length = 2 * RATE
    place = np.arange(length)
    rows = np.stack([np.sin(1e-7 * place**2), np.sin(0.05 * place) * np.sin(0.0003 * place)]).astype(np.float32)
    for speed in (0.6, 1.3):
        script = f"""(() => {{
            const rows = [(i) => Math.sin(1e-7 * i ** 2), (i) => Math.sin(0.05 * i) * Math.sin(0.0003 * i)];
            const stretcher = new Stretcher(2, {RATE}, {speed}, 0);
            stretcher.push(rows.map((at) => Float32Array.from({{ length: {length} }}, (_, i) => at(i))), 0, {length});
            const pieces = [];
            for (let piece; (piece = stretcher.pull()); ) pieces.push(...piece[0]);
            const bytes = new Uint8Array(Float32Array.from(pieces).buffer);
            return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
        }})()"""
        heard = floats(page.run(script))
        written = np.concatenate(list(stretch([rows], speed, rate=RATE, channels=2)), axis=1)[0]
        assert len(heard) > 0.9 * length / speed
        np.testing.assert_allclose(heard, written[: len(heard)], atol=1e-4)


def test_the_position_follows_the_speed(show: Callable[..., Page], tones: Path) -> None:
    page = show(tones)
    page.run("player.warp(0.5, 2)")
    page.press("c")
    page.press(" ")
    # Four clicks first: there are no beats in these tones, so half a second each, at half the speed.
    page.wait("player.graph && player.graph.context.currentTime > 1")
    assert page.run("player.position") == 0
    page.wait("player.position > 22050")
    heard = "(player.graph.context.currentTime - (player.graph.context.outputLatency || 0) - player.run.origin)"
    assert page.run(f"player.position / song.rate / {heard}") == pytest.approx(0.5, abs=0.01)
    assert page.run("player.run.origin") > 4
    assert page.run("document.getElementById('snap').hidden")


def test_the_song_itself_can_be_heard(show: Callable[..., Page], tmp_path: Path) -> None:
    time = np.arange(7 * RATE) / RATE
    stems = [(0.2 * np.sin(2 * np.pi * tone * time)).astype(np.float32) for tone in (600, 1_400)]
    left = (0.1 * np.sin(2 * np.pi * 2_600 * time)).astype(np.float32)
    paths = {}
    for name, samples in {"vocals": stems[0], "drums": stems[1], "song": sum(stems) + left}.items():
        paths[name] = tmp_path / f"{name}.wav"
        soundfile.write(paths[name], samples, RATE, subtype="FLOAT")
    song = paths.pop("song")
    write_player(tmp_path / "player.html", "A song", paths, song=song)
    page = show(tmp_path / "player.html")
    start, length = SEGMENT - RATE, 2 * RATE
    whole = slice(start, start + length)

    def difference(expected: Samples) -> float:
        return float(np.sqrt(np.mean((play_offline(page, start, length)[0] - expected[whole]) ** 2)))

    page.press("1", "Digit1")
    assert difference(stems[0]) < 0.015  # of a tone of 0.2, as MP3 has it
    page.press("o")
    assert page.run("document.getElementById('original').getAttribute('aria-pressed')") == "true"
    assert difference(sum(stems) + left) < 0.03
    page.click("#original")
    assert difference(stems[0]) < 0.015  # of a tone of 0.2, as MP3 has it


def test_volumes_are_decibels(show: Callable[..., Page], noises: tuple[Path, Samples]) -> None:
    path, _ = noises
    page = show(path)
    plain = play_offline(page, 0, RATE)
    for _ in range(6):
        page.press("-")
    page.press("1", "Digit1")
    page.press("1", "Digit1")
    page.run("player.mix(1, { volume: -6 }); player.mix(2, { volume: -6 })")
    np.testing.assert_allclose(play_offline(page, 0, RATE), plain * 10 ** (-6 / 20), atol=1e-5)
    page.run("player.mix(null, { master: 6 })")
    np.testing.assert_allclose(play_offline(page, 0, RATE), plain, atol=1e-5)


def test_the_song_ends_and_begins_again(show: Callable[..., Page], tones: Path) -> None:
    page = show(tones)
    page.run("player.seek(song.length - 20000)")
    page.press(" ")
    page.wait(f"!player.playing && player.position === {LENGTH}")
    assert label(page, "#play") == "Play"
    page.press(" ")
    page.wait("player.playing && player.position > 0 && player.position < song.length / 2")


def test_it_goes_on_while_it_is_moved_about(show: Callable[..., Page], tones: Path) -> None:
    page = show(tones)
    page.press(" ")
    page.wait("player.position > 4410")
    listen(page)
    for position in (9, 2, 12, 5, 5.01):
        page.run(f"player.seek({position} * song.rate)")
        page.wait(f"player.position > {position} * song.rate + 2000")
        assert page.run("player.position / song.rate") < position + 5
    wait_for_tones(page, *TONES)
    # What was on its way before is not heard any more: a run has one source for each stem and piece.
    assert page.run("player.run.sources.size") <= 3 * 4


def test_what_is_decoded_is_forgotten_again(show: Callable[..., Page], tones: Path) -> None:
    page = show(tones)
    read = page.run("""(async () => {
        const read = [];
        player.segments.read = async (index) => read.push(index);
        for (let i = 0; i < 3 * KEPT; i++) {
            await player.segments.get(i);
            await player.segments.get(0); // used again and again, and so kept
        }
        if (player.segments.kept.size !== KEPT) throw new Error(`${player.segments.kept.size} segments are kept`);
        await player.segments.get(1);
        return read;
    })()""")
    assert read == [*range(3 * page.run("KEPT")), 1]


# Keys and mouse


def test_keys_do_what_the_list_says(show: Callable[..., Page], tones: Path) -> None:
    page = show(tones)

    def seconds() -> Any:
        return page.run("player.position / song.rate")

    page.press("ArrowRight")
    assert seconds() == 5
    page.press("ArrowRight", shift=True)
    assert seconds() == 6
    page.press("ArrowLeft")
    assert seconds() == 1
    page.press("ArrowLeft")
    assert seconds() == 0
    page.press("End")
    assert page.run("player.position") == LENGTH
    page.press("Home")
    assert seconds() == 0
    page.press("ArrowRight")
    page.press("[")
    page.press("ArrowRight")
    page.press("]")
    assert page.run("player.loop") == {"on": True, "start": 5 * RATE, "end": 10 * RATE}
    assert page.run("document.getElementById('region').textContent") == "Loop: 0:05.0 \u2013 0:10.0"
    page.press("l")
    assert page.run("[player.loop.on, player.loop.start]") == [False, 5 * RATE]
    page.press("Escape")
    assert page.run("player.loop") == {"on": False, "start": 0, "end": LENGTH}
    page.press("ArrowDown")
    page.press("ArrowDown")
    page.press("s")
    page.press("m")
    page.press("+")
    assert pressed(page, "solo") == pressed(page, "mute") == [False, False, True, False]
    assert page.run("player.stems.map((stem) => stem.volume)") == [0, 0, 1, 0]
    page.press("ArrowUp")
    page.press("m")
    assert pressed(page, "mute") == [False, True, True, False]
    page.press("?", "Slash", shift=True)
    assert page.run("document.getElementById('keys').open")
    page.press("m")
    assert pressed(page, "mute") == [False, True, True, False], "the list is in front"
    page.press("Escape")
    assert not page.run("document.getElementById('keys').open")
    keys = page.run("[...document.querySelectorAll('#keys dt kbd')].map((key) => key.textContent)")
    assert set("0 1 9 S M + \u2212 [ ] L ? Space Home End Esc".split()) <= set(keys)


def test_the_space_bar_presses_what_was_reached_with_keys(show: Callable[..., Page], tones: Path) -> None:
    page = show(tones)
    page.click(".lane:nth-child(2) .mute")
    assert pressed(page, "mute") == [False, True, False, False]
    page.press(" ")
    assert page.run("player.playing"), "a button that was clicked is not pressed again"
    assert pressed(page, "mute") == [False, True, False, False]
    page.press("s")
    assert pressed(page, "solo") == [False, True, False, False], "the lane that was clicked is the chosen one"
    page.press(" ")
    assert not page.run("player.playing")
    page.press("Tab")
    assert page.run("document.activeElement.getAttribute('aria-label')") == "Solo drums"
    page.press(" ")
    assert pressed(page, "solo") == [False] * 4
    assert not page.run("player.playing")
    page.press("Tab")
    position = page.run("player.position")
    page.press("ArrowLeft")
    assert page.run("player.stems[1].volume") == -0.5, "arrows move a slider that has the focus"
    assert page.run("player.position") == position


def test_the_mouse_seeks_and_loops(show: Callable[..., Page], tones: Path) -> None:
    page = show(tones)
    page.drag(".lane:nth-child(4) .track", 0.25, 0.25)
    assert page.run("player.position / song.length") == pytest.approx(0.25, abs=0.002)
    page.drag(".lane:nth-child(1) .track", 0.2, 0.6)
    assert page.run("player.position / song.length") == pytest.approx(0.6, abs=0.002)
    assert not page.run("player.loop.on")
    page.drag("#ruler", 0.7, 0.3)
    assert page.run("[player.loop.on, player.loop.start / song.length, player.loop.end / song.length]") == [
        True,
        pytest.approx(0.3, abs=0.002),
        pytest.approx(0.7, abs=0.002),
    ]
    page.drag("#ruler", 0.7, 0.9)  # one end of it
    assert page.run("[player.loop.start / song.length, player.loop.end / song.length]") == [
        pytest.approx(0.3, abs=0.002),
        pytest.approx(0.9, abs=0.002),
    ]
    page.drag("#ruler", 0.5, 0.5)
    assert page.run("player.position / song.length") == pytest.approx(0.5, abs=0.002)
    page.click("#loop")
    assert not page.run("player.loop.on")
    page.click("#start")
    assert page.run("player.position") == 0
    page.drag("#position", 0, 0.5)
    assert page.run("player.position / song.length") == pytest.approx(0.5, abs=0.01)


def test_screen_readers_find_a_name_for_everything(show: Callable[..., Page], tones: Path) -> None:
    page = show(tones)
    nodes = page.command("Accessibility.getFullAXTree")["nodes"]
    focusable = []
    for node in nodes:
        properties = {each["name"]: each["value"].get("value") for each in node.get("properties", [])}
        if properties.get("focusable") and node["role"]["value"] != "RootWebArea":
            assert node["name"]["value"].strip(), node
            focusable.append((node["role"]["value"], node["name"]["value"]))
    for stem in TONES:
        expected = [("button", f"Mute {stem}"), ("button", f"Solo {stem}"), ("slider", f"Volume of {stem}")]
        assert [each for each in focusable if stem in each[1] and each[0] != "group"] == expected
    assert {("button", "Play"), ("button", "Loop"), ("slider", "Position"), ("radio", "Waveform")} <= set(focusable)
    page.run("player.seek(62 * song.rate)")
    assert page.run("document.getElementById('position').getAttribute('aria-valuetext')") == "14 seconds of 14 seconds"
    assert page.run("[spoken(0), spoken(61), spoken(7322), spoken(3600)]") == [
        "0 seconds",
        "1 minute 1 second",
        "2 hours 2 minutes 2 seconds",
        "1 hour",
    ]


# The looks

PIXELS = """
/** Of the lane's canvas, [red, green, blue, alpha] from (0, 0) on. A copy, as it is drawn on, not read, in the page. */
function pixels(lane) {
    const canvas = document.querySelectorAll('.lane canvas')[lane];
    const pen = new OffscreenCanvas(canvas.width, canvas.height).getContext('2d', { willReadFrequently: true });
    pen.drawImage(canvas, 0, 0);
    return (x, y) => [...pen.getImageData(x * canvas.width, y, 1, 1).data];
}
"""


def pixel(page: Page, lane: int, height: float) -> list[int]:
    """A dot in the middle of a lane."""
    pixels: list[int] = page.run(
        f"{PIXELS} pixels({lane})(0.5, Math.floor({height} * document.querySelector('.lane canvas').height))"
    )
    return pixels


def test_waveforms_and_spectrograms_are_drawn(show: Callable[..., Page], tones: Path) -> None:
    page = show(tones)
    drawn = f"""{PIXELS} [0, 1, 2, 3].map((lane) => {{
        const [ground, at] = [colour(document.querySelector('.lane'), '--ground'), pixels(lane)];
        return Array.from({{ length: document.querySelector('.lane canvas').height }}, (_, y) => {{
            const [red, green, blue, alpha] = at(0.5, y);
            const unlike = Math.abs(red - ground[0]) + Math.abs(green - ground[1]) + Math.abs(blue - ground[2]);
            return alpha > 0 && unlike > 60;
        }});
    }})"""
    half = page.run("document.querySelector('.lane canvas').height") // 2
    places = []
    for column in page.run(drawn):
        wave, spectrum = column[:half], column[half:]
        assert sum(wave) > half * 0.8, "the tones are as loud as each other, and nothing is louder"
        lit = np.flatnonzero(spectrum)
        assert 0 < len(lit) < half / 2, "a tone is a line"
        places.append(lit.mean())
    assert places == sorted(places, reverse=True), "higher tones are higher up"
    page.click("#view label:nth-of-type(2)")
    assert all(sum(column) > 1.6 * half for column in page.run(drawn)), "the waveform has all the room"
    page.click("#view label:nth-of-type(3)")
    assert all(0 < sum(column) < half for column in page.run(drawn)), "the spectrogram has"


def test_light_and_dark(show: Callable[..., Page], tones: Path) -> None:
    colours = []
    for dark in (False, True):
        page = show(tones, dark=dark)
        red, green, blue = map(int, re.findall(r"\d+", page.run("getComputedStyle(document.body).backgroundColor"))[:3])
        assert (red + green + blue > 600) is not dark
        colours.append(pixel(page, 0, 0.25))
    assert colours[0] != colours[1]
    # Whoever changes the scheme while the page is open gets new pictures.
    page.resize(1280, 800, dark=False)
    assert pixel(page, 0, 0.25) == colours[0]


@pytest.mark.parametrize("width", [320, 360, 740, 1280, 2560])
def test_nothing_overflows(width: int, show: Callable[..., Page], tmp_path: Path) -> None:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (RATE, 1)).astype(np.float32)
    stems = {f"{i} {HOSTILE.replace(chr(0), '')}" + "w" * 200: noise for i in range(6)}
    page = show(write_song(tmp_path, stems, "M" * 300), width, 800)
    assert page.run("document.documentElement.scrollWidth") == width
    outside = page.run("""[...document.querySelectorAll('body *')].filter((element) => {
        const { left, right, width, height } = element.getBoundingClientRect();
        const clipped = element.closest('.unseen, .loop, .playhead, template');
        return width && height && !clipped && (left < -0.5 || right > innerWidth + 0.5);
    }).map((element) => element.outerHTML.slice(0, 80))""")
    assert outside == []
    # Nothing lies upon something else that one would want to press.
    pressable = ".lane:first-child :is(h2, button, input, output)"
    boxes = page.run(f"""[...document.querySelectorAll('{pressable}')].map((each) => {{
        const {{ left, right, top, bottom }} = each.getBoundingClientRect();
        return [left, right, top, bottom];
    }})""")
    for i, (left, right, top, bottom) in enumerate(boxes):
        for other in boxes[i + 1 :]:
            assert right <= other[0] or other[1] <= left or bottom <= other[2] or other[3] <= top
    assert page.run("document.querySelectorAll('.lane b, .lane script, #title *').length") == 0


def test_names_are_shown_as_they_are(show: Callable[..., Page], tmp_path: Path) -> None:
    noise = np.zeros((RATE, 1), np.float32)
    page = show(write_song(tmp_path, {"__proto__": noise, HOSTILE: noise, "constructor": noise}, HOSTILE))
    headings = "[...document.querySelectorAll('h1, .lane h2')]"
    shown = page.run(f"{headings}.map((each) => JSON.stringify(each.textContent))")
    assert [json.loads(each) for each in shown] == [HOSTILE, "__proto__", HOSTILE, "constructor"]
    assert page.run(f"{headings}.every((each) => each.title === each.textContent)")


def test_nothing_moves_for_those_who_do_not_want_it(show: Callable[..., Page], tones: Path) -> None:
    page = show(tones)
    durations = "[...document.querySelectorAll('*')].map((each) => getComputedStyle(each).transitionDuration)"
    assert set(page.run(durations)) > {"0s"}
    page.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-reduced-motion", "value": "reduce"}])
    assert set(page.run(durations)) == {"0s"}


# What can go wrong


def test_a_missing_sound_device_is_reported(show: Callable[..., Page], tones: Path) -> None:
    page = show(tones)
    page.run("AudioContext.prototype.resume = () => new Promise((resolve) => (window.found = resolve)); undefined")
    page.press(" ")
    page.wait("!document.getElementById('notice').hidden")
    assert "not found an audio device" in page.run("document.getElementById('notice').textContent")
    assert page.run("player.position") == 0
    page.run("found()")
    page.wait("document.getElementById('notice').hidden && player.position > 4410")


def test_a_page_that_was_cut_off_says_so(show: Callable[..., Page], tones: Path, tmp_path: Path) -> None:
    text = tones.read_text(encoding="utf-8")
    cut = tmp_path / "cut.html"
    cut.write_text(text[: text.index('id="segment-1"') - 20], encoding="utf-8")
    page = show(cut)
    page.press(" ")
    page.wait("player.position > 4410")
    page.run("player.seek(6 * song.rate)")
    page.wait("!document.getElementById('notice').hidden")
    assert "a part of this page is missing" in page.run("document.getElementById('notice').textContent")
    assert not page.run("player.playing")


def test_damaged_sound_is_reported(show: Callable[..., Page], tones: Path, tmp_path: Path) -> None:
    text = tones.read_text(encoding="utf-8")
    damaged = tmp_path / "damaged.html"
    damaged.write_text(re.sub(r'(id="segment-0">\n)\S+', r"\1" + "A" * 80_000, text), encoding="utf-8")
    page = show(damaged)
    page.press(" ")
    page.wait("!document.getElementById('notice').hidden")
    assert "cannot be played" in page.run("document.getElementById('notice').textContent")
    assert not page.run("player.playing")
