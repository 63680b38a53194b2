"""The page of the app in a real browser, used as a person would."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
from support import chromium
from support.app import Running, registry_of, running
from support.chromium import Page
from support.songs import STEMS

from stemsplit.models import checkpoint
from stemsplit.models.checkpoint import Model

pytestmark = [
    pytest.mark.browser,
    pytest.mark.full,
    pytest.mark.skipif(chromium.PROGRAM is None, reason="there is no Chromium; on Debian: apt-get install chromium"),
]

HOSTILE = "<img src=x onerror=document.title='owned'> \u202e & 🎸.wav"
ROW = "document.querySelectorAll('.song')"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, unet_model: Callable[..., Model]) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("app")
    checkpoint.save(unet_model(rate=8_000), folder / "model.safetensors")
    with running(folder / "kept", folder / "out", registry_of(folder / "model.safetensors")) as app:
        yield app


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory, app: Running) -> Iterator[Page]:
    with chromium.chromium(tmp_path_factory.mktemp("profile")) as page:
        page.visit(app.address)
        yield page
        assert page.problems == []
        assert {address.split("/")[2] for address in page.requests if address[:4] == "http"} == {
            f"127.0.0.1:{app.port}"
        }


def write(path: Path, seconds: float = 2) -> Path:
    samples = np.random.default_rng(1).uniform(-0.3, 0.3, (round(8_000 * seconds), 2))
    with path.open("wb") as file:
        soundfile.write(file, samples, 8_000, format="WAV")
    return path


def texts(page: Page, selector: str) -> list[str]:
    found: list[str] = page.run(f"[...document.querySelectorAll({selector!r})].map((each) => each.textContent)")
    return found


def test_a_first_visit(page: Page, app: Running, tmp_path: Path) -> None:
    """Drop songs, one of them broken, watch, listen, and export a mix."""
    assert page.run("location.search") == "", "the token is not in the address any more"
    page.wait("document.querySelectorAll('#presets input').length > 0")
    (tmp_path / "broken.mp3").write_bytes(b"no sound" * 99)
    page.choose("#files", write(tmp_path / HOSTILE), tmp_path / "broken.mp3")
    page.wait(f"{ROW}.length === 2 && [...{ROW}].every((row) => /done|failed/.test(row.dataset.status))")
    assert texts(page, ".song h3") == [HOSTILE, "broken.mp3"]
    assert page.run("document.title") == "stemsplit" and page.run("document.images.length") == 0
    assert "'broken.mp3'" in texts(page, ".song .error")[1]
    assert texts(page, ".song .hint")[1].startswith("What to do: ")
    assert texts(page, "[data-status=done] .stems > *") == ["Listen", *STEMS, "All as a ZIP", "Open the folder"]
    page.click("[data-status=done] .stems button.main")
    page.wait("document.querySelectorAll('iframe').length === 1")
    time.sleep(3)  # the frame has no origin, so that nothing can look into it
    page.click(".stage .buttons button")
    page.wait("/^The mix is mix.wav/.test(document.querySelector('.mixed').textContent)")
    folder = Path(app.ask("GET", "/api/state").json()["songs"][0]["folder"])
    stems = [soundfile.read(folder / f"{stem}.wav")[0] for stem in STEMS]
    np.testing.assert_allclose(soundfile.read(folder / "mix.wav")[0], sum(stems), atol=2**-22)


def test_a_reload_in_the_middle(page: Page, tmp_path: Path) -> None:
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


def test_everything_has_a_name_and_nothing_overflows(page: Page) -> None:
    page.wait("document.querySelectorAll('#presets input').length > 0")
    nodes = page.command("Accessibility.getFullAXTree")["nodes"]
    for node in nodes:
        properties = {each["name"]: each["value"].get("value") for each in node.get("properties", [])}
        if properties.get("focusable") and node["role"]["value"] not in ("RootWebArea", "listitem", "Iframe"):
            assert node["name"]["value"].strip(), node
    for width in (320, 360, 1280, 3840):
        for dark in (False, True):
            page.resize(width, 900, dark=dark)
            assert page.run("document.documentElement.scrollWidth") <= width
