"""What becomes of scores: metric tables, files that museval reads, and the report with box plots."""

import json
import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from support import chromium
from support.chromium import Page
from support.museval import museval

from stemsplit.errors import StemsplitError, UsageError
from stemsplit.evaluation.charts import Box, draw_boxes, ticks
from stemsplit.evaluation.report import render_evaluation
from stemsplit.evaluation.results import check_folder, file_name, museval_files, museval_track, write_results
from stemsplit.evaluation.score_tables import MEAN, metric_tables
from stemsplit.evaluation.scoring import SongScores

NAN, INF = math.nan, math.inf
STEMS = ("vocals", "drums")
HOSTILE = '</svg><script>x</script> & "quoted" <b> \u202e\x07\udc80'


def scores(song: str, *, seed: int, seconds: int = 7) -> SongScores:
    """Random figures; some seconds have none, one is infinite, and one stem is not in some songs."""
    rng = np.random.default_rng(seed)
    silent = seed % 3 == 2
    values = rng.normal(5, 4, (2, 4, seconds))
    values[..., 2] = NAN
    values[0, 1, 3] = INF
    if silent:
        values[1] = NAN
    windows = {
        stem: {metric: tuple(map(float, row)) for metric, row in zip(("SDR", "SIR", "ISR", "SAR"), rows, strict=True)}
        for stem, rows in zip(STEMS, values, strict=True)
    }
    whole = {"vocals": float(rng.normal(5)), "drums": NAN if silent else float(rng.normal(6))}
    return SongScores(song, whole, {stem: value - 0.5 for stem, value in whole.items()}, windows)


RESULTS = {
    name: [scores(song, seed=10 * i + j) for j, song in enumerate(("a", "b/c", "Song. With dots", "d", "e", "f"))]
    for i, name in enumerate(("hf://me/new", "mixture"))
}


def test_tables_of_whole_songs() -> None:
    sdr, si_sdr = metric_tables(
        {name: [SongScores(s.song, s.sdr, s.si_sdr) for s in rows] for name, rows in RESULTS.items()}
    )
    assert (sdr.key, si_sdr.key, sdr.columns) == ("sdr", "si_sdr", [*STEMS, MEAN])
    rows = RESULTS["mixture"]
    assert sdr.songs["mixture"]["a"] == {**rows[0].sdr, MEAN: pytest.approx(sum(rows[0].sdr.values()) / 2)}
    assert sdr.summary["mixture"]["drums"] == pytest.approx(np.nanmean([row.sdr["drums"] for row in rows]))
    silent = next(row for row in rows if math.isnan(row.sdr["drums"]))
    assert sdr.songs["mixture"][silent.song][MEAN] == silent.sdr["vocals"]


def test_museval_reads_the_files_and_has_the_same_medians(tmp_path: Path) -> None:
    write_results(tmp_path, museval_files(RESULTS), overwrite=False)
    methods = museval.MethodStore()
    for name in RESULTS:
        store = museval.EvalStore()
        store.add_eval_dir(tmp_path / file_name(name))
        methods.add_eval_dir(tmp_path / file_name(name))
        tables = {table.key: table for table in metric_tables(RESULTS) if table.medians}
        theirs = store.agg_frames_tracks_scores()
        for metric, table in tables.items():
            for stem in STEMS:
                assert table.summary[name][stem] == pytest.approx(theirs[stem, metric], abs=1e-5)
        by_song = store.agg_frames_scores()
        assert by_song["b - c", "vocals", "SAR"] == pytest.approx(tables["SAR"].songs[name]["b/c"]["vocals"], abs=1e-5)
    assert sorted(set(methods.df["method"])) == ["hf_ - me - new", "mixture"]


def test_the_files_are_those_that_museval_writes() -> None:
    score = RESULTS["mixture"][0]
    store = museval.TrackStore(track_name="a")
    for stem, values in score.windows.items():
        store.add_target(stem, values)
    expected = json.loads(store.json)
    del expected["museval_version"]  # it was not museval
    store.scores = museval_track(score)
    store.validate()
    np.testing.assert_equal(museval_track(score), expected)


@pytest.mark.parametrize(
    ("name", "file"),
    [("a/b", "a - b"), ("hf://a/b@c", "hf_ - a - b@c"), ("../../x", "x"), ("/", "_"), ("mini", "mini")],
)
def test_names_of_files(name: str, file: str) -> None:
    assert file_name(name) == file


def test_songs_whose_files_would_have_one_name() -> None:
    results = {"m": [scores("a/b", seed=0), scores("a - b", seed=1)]}
    assert list(museval_files(results)) == ["m/test/a - b.json", "m/test/a - b'.json"]


def test_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    check_folder(folder, ["mini"], overwrite=False)
    write_results(folder, {"report.html": "x", "mini/test/a.json": "{}", "mini/test/b.json": "{}"}, overwrite=False)
    for name in ("report.html", "mini/test"):
        with pytest.raises(StemsplitError, match="exists already"):
            check_folder(folder, ["mini"], overwrite=False)
        if name == "report.html":
            (folder / name).unlink()
    check_folder(folder, ["mini"], overwrite=True)
    check_folder(folder, ["other"], overwrite=False)
    write_results(folder, {"report.html": "y", "mini/test/b.json": "[]"}, overwrite=True)
    # museval would have counted the song that is not there any more.
    assert sorted(p.name for p in folder.rglob("*") if p.is_file()) == ["b.json", "report.html"]
    with pytest.raises(UsageError, match="is not a folder"):
        check_folder(folder / "report.html", [], overwrite=True)
    with pytest.raises(StemsplitError, match="cannot write"):
        write_results(folder / "report.html", {"x": ""}, overwrite=True)


def test_boxes() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 30.0]
    assert Box.of(values) == Box(1, 3, 5, 7, 8)
    assert Box.of([2.5]) == Box(2.5, 2.5, 2.5, 2.5, 2.5)


def test_a_picture_is_to_scale() -> None:
    values = {"a": 1.0, "b": 3.0, "c": -5.0, "d": 2.0, "e": INF, "f": NAN}
    root = ET.fromstring(draw_boxes("SDR", {"vocals": {"new": values, "nobody": {"a": NAN}}}))
    circles = root.findall(".//circle")
    at = {circle[0].text: float(circle.get("cx", "")) for circle in circles}
    assert list(at) == ["a: 1.00 dB", "b: 3.00 dB", "c: -5.00 dB", "d: 2.00 dB"]
    a, b, c, d = at.values()
    assert (b - a) / (a - c) == pytest.approx(2 / 6, abs=0.01)
    (median,) = root.findall(".//line[@class='median']")
    assert float(median.get("x1", "")) == pytest.approx((a + d) / 2, abs=0.1)
    assert [text.text for text in root.findall(".//text[@class='value']")] == ["1.50"]
    assert root.find(".//text[@class='none']") is not None
    ticks = {text.text: float(text.get("x", "")) for text in root.findall(".//text[@class='number']")}
    assert ticks["0"] == pytest.approx(a - (b - a) / 2, abs=0.2)


@pytest.mark.parametrize("values", [[], [0.0], [3.3], [-200.0, 340.0], [1e-9, 2e-9]])
def test_pictures_of_odd_figures(values: list[float]) -> None:
    ET.fromstring(draw_boxes("SDR", {"vocals": {"new": {str(i): value for i, value in enumerate(values)}}}))


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-3.1, 7.2, [-5, 0, 5, 10]), (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1]), (3.0, 3.0, [3, 4]), (-1e-9, 0, [-1e-9, 0])],
)
def test_ticks_enclose_what_is_drawn(low: float, high: float, expected: list[float]) -> None:
    marks = ticks(low, high)
    assert marks[0] <= low and high <= marks[-1]
    assert [marks[0], marks[-1]] == pytest.approx([expected[0], expected[-1]])


def report() -> str:
    songs = [scores(f"{HOSTILE} {i}", seed=i) for i in range(6)]
    tables = metric_tables({"hf://me/new": songs, "mixture": songs, HOSTILE: songs})
    compared = [(tables[0], tables[0].compare("hf://me/new", HOSTILE))]
    return render_evaluation(HOSTILE, f"6 songs of {HOSTILE}", tables, [f"{HOSTILE} is better."], compared)


class Content(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_is_one_file_and_no_name_breaks_it() -> None:
    text = report()
    content = Content()
    content.feed(text)
    assert content.tags.count("svg") == 6
    assert not {"script", "b", "img", "iframe"} & set(content.tags)
    assert "<script>x</script>" in content.text
    assert not re.search("[\x00-\x08\x0e-\x1f\ud800-\udfff]", text)
    assert not re.findall(r'(?:src|href)="(?!data:,)', text)
    text.encode()  # whatever the names are


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if chromium.PROGRAM is None:
        pytest.skip("there is no Chromium; on Debian: apt-get install chromium")
    with chromium.chromium(tmp_path_factory.mktemp("profile")) as running:
        yield running


@pytest.mark.full
@pytest.mark.browser
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (390, False)])
def test_the_page_in_a_browser(tab: Page, tmp_path: Path, width: int, dark: bool) -> None:
    file = tmp_path / "report.html"
    file.write_text(report(), encoding="utf-8")
    tab.resize(width, 900, dark=dark)
    tab.open(file)
    assert tab.problems == []
    assert tab.run("document.documentElement.scrollWidth <= innerWidth")  # wide things scroll in their own boxes
    assert tab.run("document.querySelectorAll('svg[role=img][aria-label]').length") == 6
    shades = tab.run(
        "['body', 'svg .group', 'section'].map((e) => { const s = getComputedStyle(document.querySelector(e));"
        " return e === 'svg .group' ? s.fill : s.backgroundColor })"
    )
    assert shades[0] == ("rgb(18, 19, 21)" if dark else "rgb(247, 247, 245)")
    assert shades[1] == ("rgb(236, 236, 234)" if dark else "rgb(28, 29, 31)")
    # No name of a series is under the boxes.
    assert tab.run("[...document.querySelectorAll('svg .series')].every((e) => e.getBBox().x >= 0)")
    assert all(each.startswith(("file:", "data:")) for each in tab.requests)
