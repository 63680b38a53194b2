"""The page of the app in a real browser, used as a person would."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile  # type: ignore[import-untyped]
from support import chromium
from support.app import Running, registry_of, running
from support.chromium import Page
from support.hub import REPO
from support.hub_server import COMMIT, Hub
from support.songs import STEMS

from stemsplit.models import checkpoint
from stemsplit.models.checkpoint import Model
from stemsplit.models.registry import Registry, WeightFile

pytestmark = [
    pytest.mark.browser,
    pytest.mark.full,
    pytest.mark.skipif(chromium.PROGRAM is None, reason="there is no Chromium; on Debian: apt-get install chromium"),
]

HOSTILE = "<img src=x onerror=document.title='owned'> \u202e & 🎸.wav"
ROW = "document.querySelectorAll('.song')"
READY = "document.querySelectorAll('#presets input').length > 0"
RATE = 8_000


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, unet_model: Callable[..., Model]) -> Registry:
    folder = tmp_path_factory.mktemp("model")
    checkpoint.save(unet_model(rate=RATE), folder / "model.safetensors")
    return registry_of(folder / "model.safetensors")


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("app")
    with running(folder / "kept", folder / "out", registry) as app:
        yield app


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with chromium.chromium(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(browser: Page) -> Iterator[Page]:
    """A tab in which nothing goes wrong, and which asks nobody but the app for anything."""
    browser.requests.clear()
    browser.problems.clear()
    browser.resize(1280, 900)
    yield browser
    assert browser.problems == []
    hosts = {address.split("/")[2].split(":")[0] for address in browser.requests if address[:4] == "http"}
    assert hosts == {"127.0.0.1"}


def write(path: Path, seconds: float = 2) -> Path:
    """A song: a tone of 440 Hz."""
    samples = 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(RATE * seconds)) / RATE)
    with path.open("wb") as file:
        soundfile.write(file, np.stack([samples, samples], 1), RATE, format="WAV")
    return path


def texts(page: Page, selector: str) -> list[str]:
    found: list[str] = page.run(f"[...document.querySelectorAll({selector!r})].map((each) => each.textContent)")
    return found


def click(page: Page, text: str) -> None:
    """Press the first button with this text."""
    page.run(f"[...document.querySelectorAll('button')].find((each) => each.textContent === {text!r}).click()")


def pitch(samples: npt.NDArray[np.float64]) -> float:
    """Hz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * RATE / len(samples))


def test_a_first_visit(page: Page, app: Running, tmp_path: Path) -> None:
    """Drop songs, one of them broken, watch, listen, and export a mix."""
    page.visit(app.address)
    assert page.run("location.search") == "", "the token is not in the address any more"
    page.wait(READY)
    assert texts(page, "#empty") != [""]
    (tmp_path / "broken.mp3").write_bytes(b"no sound" * 99)
    (tmp_path / "album").mkdir()
    (tmp_path / "album/cover.jpg").write_bytes(b"no song")
    page.drop("#drop", write(tmp_path / HOSTILE), tmp_path / "broken.mp3", write(tmp_path / "album/in.wav").parent)
    page.wait(f"{ROW}.length === 3 && [...{ROW}].every((row) => /done|failed/.test(row.dataset.status))")
    assert texts(page, ".song h3") == [HOSTILE, "broken.mp3", "in.wav"]
    assert texts(page, "#count") == ["2 of 3 done"]
    assert texts(page, "#notice") == ["One file is no song by the name, and left out."]
    assert page.run("document.title") == "stemsplit" and page.run("document.images.length") == 0
    assert "'broken.mp3'" in texts(page, ".song .error")[1]
    assert texts(page, ".song .hint")[1].startswith("What to do: ")
    assert texts(page, ".song:first-child :is(button, a)") == [
        "Remove",
        "Listen",
        "Open the folder",
        *STEMS,
        "All as a ZIP",
    ]
    page.click("[data-status=done] .listen button.main")
    with page.inside("/player"):
        page.wait("document.readyState === 'complete' && typeof player === 'object'")
        assert page.run("origin") == "null", "what is in the frame cannot reach the app"
        page.press(" ")
        page.wait("player.position > 4000")
        page.run(HEAR)
        page.wait("loudness() > 0")
        page.run("player.stems.forEach((_, i) => player.mix(i, { muted: true }))")
        page.wait("loudness() < 1e-4")
        page.press("3", "Digit3")  # in solo
        page.wait("loudness() > 1e-4")
        page.press("0", "Digit0")
        page.press(" ")
    folder = Path(app.ask("GET", "/api/state").json()["songs"][0]["folder"])
    stems = [soundfile.read(folder / f"{stem}.wav")[0] for stem in STEMS]
    click(page, "Save the mix as you hear it")
    page.wait("/^The mix is mix.wav/.test(document.querySelector('.mixed').textContent)")
    np.testing.assert_allclose(soundfile.read(folder / "mix.wav")[0], sum(stems), atol=2**-22)
    with page.inside("/player"):
        page.run("player.warp(0.75, 2); player.mix(0, { muted: true })")
    click(page, "Save the mix as you hear it")
    page.wait("/^The mix is mix 75 % .2.wav/.test(document.querySelector('.mixed').textContent)")
    heard = soundfile.read(folder / "mix 75 % +2.wav")[0]
    assert len(heard) == pytest.approx(len(stems[0]) / 0.75, abs=2)
    assert pitch(heard[:, 0]) == pytest.approx(440 * 2 ** (2 / 12), rel=0.003)
    click(page, "Clear what is done")
    page.wait(f"{ROW}.length === 1")
    assert (folder / "mix.wav").exists(), "what is cleared is the list"
    click(page, "Remove")
    page.wait("!document.getElementById('empty').hidden")


HEAR = """
window.ear = new AnalyserNode(player.graph.context, { fftSize: 2048 });
player.graph.master.connect(ear);
window.loudness = () => {
    const samples = new Float32Array(2048);
    ear.getFloatTimeDomainData(samples);
    return Math.sqrt(samples.reduce((sum, each) => sum + each * each, 0) / 2048);
};
player.setLoop(true);
"""


def test_choices_are_those_of_the_next_visit_and_of_other_tabs(page: Page, app: Running, tmp_path: Path) -> None:
    page.visit(app.address)
    page.wait(READY)
    with page.other_tab(app.origin):
        page.wait(READY)
        page.run("""for (const [id, value] of [["format", "flac"], ["place", "desktop"]]) {
            const select = document.querySelector(`#${id} select`);
            select.value = value;
            select.dispatchEvent(new Event("change"));
        }""")
        page.wait("document.querySelector('#place output').textContent.endsWith('elsewhere')")
    page.wait("document.querySelector('#place output').textContent.endsWith('elsewhere')")
    assert page.run("document.querySelector('#format select').value") == "flac"
    page.choose("#files", write(tmp_path / "a.wav"))
    page.wait(f"[...{ROW}].some((row) => row.dataset.status === 'done')")
    assert page.run("document.querySelector('.folder').textContent").endswith("/elsewhere/a")
    with page.other_tab(app.origin):
        page.wait(f"{ROW}.length === 1")
        assert page.run("document.querySelector('#format select').value") == "flac"
        click(page, "Remove")
        page.wait(f"{ROW}.length === 0")
    page.wait(f"{ROW}.length === 0")


def test_a_licence_is_accepted_before_the_download(
    page: Page, registry: Registry, server: Hub, cache: Path, tmp_path: Path
) -> None:
    tiny = registry.models["tiny"]
    content = Path(str(tiny.path)).read_bytes()
    hash = server.add(REPO, "model.safetensors", content)
    file = WeightFile("model.safetensors", len(content), hash)
    facts = {"path": None, "repo": REPO, "revision": COMMIT, "files": (file,), "confirm": True}
    strict = replace(tiny, name="strict", license="do no harm", **facts)  # type: ignore[arg-type]
    with running(tmp_path / "kept", tmp_path / "out", Registry({"strict": strict}, "strict")) as app:
        page.visit(app.address)
        page.wait(READY)
        about = page.run("document.getElementById('about').innerText")
        assert "Licence of its weights: do no harm" in about and "It is downloaded first, once: 1 MB." in about
        assert page.run("document.querySelector('#about input').checked") is False
        page.choose("#files", write(tmp_path / "a.wav"))
        page.wait(f"{ROW}[0]?.dataset.status === 'failed'")
        assert texts(page, ".error") == ["the licence of the model 'strict' has to be accepted first: do no harm"]
        assert texts(page, ".hint") == ["What to do: tick that you accept it, and try again."]
        assert server.requests == []
        page.click("#about label")
        page.wait("document.querySelector('#about input').checked")
        click(page, "Try again")
        page.wait(f"{ROW}[0]?.dataset.status === 'done'")
        assert server.requests
        page.wait("/It is on this computer/.test(document.getElementById('about').textContent)")
        assert page.run("document.querySelector('#about input')") is None


def test_it_goes_on_when_the_server_is_there_again(browser: Page, registry: Registry, tmp_path: Path) -> None:
    browser.resize(1280, 900)
    with running(tmp_path / "kept", tmp_path / "out", registry) as app:
        port = app.port
        browser.visit(app.address)
        browser.wait(READY)
        browser.choose("#files", write(tmp_path / "long.wav", 600))
        browser.wait("document.querySelector('[data-status=working] progress')?.value > 0")
    browser.wait("/does not answer/.test(document.getElementById('notice').textContent)")
    with running(tmp_path / "kept", tmp_path / "out", registry, port=port) as app:
        browser.wait("/was started anew/.test(document.getElementById('notice').textContent)")
        with browser.other_tab(app.address):  # as the command opens it
            browser.wait(f"{ROW}[0]?.dataset.status === 'working'")
        browser.wait("document.getElementById('notice').hidden && document.querySelector('progress')?.value > 0")
        click(browser, "Cancel")
        browser.wait(f"{ROW}[0]?.dataset.status === 'cancelled'")
        browser.command("Page.navigate", url="about:blank")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_a_reload_in_the_middle(page: Page, app: Running, tmp_path: Path) -> None:
    page.visit(app.address)
    page.choose("#files", write(tmp_path / "long.wav", 600))
    page.wait("document.querySelector('[data-status=working] progress')?.value > 0")
    page.run("window.old = true")
    page.command("Page.reload")
    page.wait("!window.old && document.querySelector('[data-status=working] progress')?.value > 0")
    page.click("[data-status=working] .actions button:first-child")
    page.wait("document.querySelectorAll('[data-status=cancelled]').length === 1")
    page.run("document.querySelector('[data-status=cancelled] .actions button:last-child').focus()")
    page.press("Enter")
    page.wait(f"![...{ROW}].some((row) => row.dataset.status === 'cancelled')")
    assert page.run("document.activeElement !== document.body"), "the focus is not lost with the row"


def test_everything_has_a_name_and_nothing_overflows(page: Page, app: Running, tmp_path: Path) -> None:
    page.visit(app.address)
    page.wait(READY)
    page.choose("#files", write(tmp_path / f"{'w' * 90}.wav"))
    page.wait(f"{ROW}[0]?.dataset.status === 'done'")
    nodes = page.command("Accessibility.getFullAXTree")["nodes"]
    for node in nodes:
        properties = {each["name"]: each["value"].get("value") for each in node.get("properties", [])}
        if properties.get("focusable") and node["role"]["value"] not in ("RootWebArea", "listitem", "Iframe"):
            assert node["name"]["value"].strip(), node
    for width in (320, 360, 1280, 3840):
        for dark in (False, True):
            page.resize(width, 900, dark=dark)
            assert page.run("document.documentElement.scrollWidth") <= width
            outside = page.run("""[...document.querySelectorAll('main *')].filter((element) => {
                const box = element.getBoundingClientRect();
                const around = element.closest('.card, #drop')?.getBoundingClientRect();
                return box.width && around && (box.left < around.left || box.right > around.right + 0.5);
            }).map((element) => element.outerHTML.slice(0, 80))""")
            assert outside == []
