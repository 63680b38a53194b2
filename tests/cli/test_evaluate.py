"""`stemsplit evaluate`, as its user sees it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
from support.hub_server import Hub
from support.museval import museval
from support.program import Run
from support.songs import STEMS

from stemsplit.evaluation import projection
from stemsplit.models import checkpoint
from stemsplit.models.checkpoint import Model

MakeSong = Callable[..., dict[str, np.ndarray]]
MakeModel = Callable[..., Model]


@pytest.fixture(autouse=True)
def few_taps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "TAPS", 32)


@pytest.fixture
def data(here: Path, make_song: MakeSong) -> Path:
    for seed, name in enumerate(("a [bold]", "b")):
        make_song(here / "data" / name, seed=seed)
    make_song(here / "data/c", stems=("vocals", "drums"), seed=3)
    return here / "data"


@pytest.mark.full
def test_the_table(run: Run, data: Path) -> None:
    outcome = run("evaluate", "data")
    assert outcome.code == 0
    rows = [line.rsplit(maxsplit=5) for line in outcome.out.splitlines() if line.strip()]
    means = ["mean: model.safetensors", "mean: mixture", "mean: ideal ratio mask"]
    titles = ["SDR in dB", "a [bold]", "b", "c", *means, "SI-SDR of whole songs, dB", *means]
    assert [row[0].strip() for row in rows] == titles
    assert rows[0][1:] == [*STEMS, "mean"]
    assert rows[3][3:5] == ["-", "-"]

    figures = json.loads(run("evaluate", "data", "--json", "-q").out)
    sdr = figures["sdr"]
    assert sdr["model.safetensors"]["songs"]["c"]["bass"] is None
    assert f"{sdr['model.safetensors']['songs']['b']['vocals']:.2f}" == rows[2][1]
    assert sdr["mixture"]["mean"]["mean"] < sdr["ideal ratio mask"]["mean"]["mean"]
    assert figures["failed"] == []
    assert "bss_eval" not in figures
    alone = json.loads(run("evaluate", "data", "--json", "--no-references").out)
    assert list(alone["sdr"]) == list(alone["si_sdr"]) == ["model.safetensors"]


@pytest.mark.full
def test_bss_eval_and_the_folder(run: Run, data: Path) -> None:
    outcome = run("evaluate", "data", "--bss-eval", "-o", "scores", "--json")
    assert outcome.code == 0
    figures = json.loads(outcome.out)
    assert json.loads(Path("scores/scores.json").read_text()) == figures
    assert list(figures["bss_eval"]) == ["SDR", "SIR", "ISR", "SAR"]
    store = museval.EvalStore()
    store.add_eval_dir("scores/model.safetensors")
    theirs = store.agg_frames_tracks_scores()
    for metric, table in figures["bss_eval"].items():
        for stem in STEMS:
            assert table["model.safetensors"]["median"][stem] == pytest.approx(theirs[stem, metric], abs=1e-5)
    assert sorted(p.name for p in Path("scores/mixture/test").iterdir()) == ["a [bold].json", "b.json", "c.json"]
    page = Path("scores/report.html").read_text()
    assert "<svg" in page
    assert "a [bold]" in page

    again = run("evaluate", "data", "-o", "scores")
    assert (again.code, again.out) == (1, "")
    assert "exists already\nhint: choose another folder with --output, or replace the results with" in again.err
    assert json.loads(Path("scores/scores.json").read_text()) == figures
    assert run("evaluate", "data", "-o", "scores", "--overwrite").code == 0
    assert "bss_eval" not in json.loads(Path("scores/scores.json").read_text())


@pytest.mark.full
def test_two_models(run: Run, here: Path, make_song: MakeSong, unet_model: MakeModel) -> None:
    for seed in range(6):
        make_song(here / f"data/{seed}", seed=seed, length=8000)
    checkpoint.save(unet_model(rate=8000, seed=5), here / "other.safetensors")
    outcome = run("evaluate", "data", "--against", "other.safetensors", "--no-references")
    assert outcome.code == 0
    lines = [line for line in outcome.out.splitlines() if line.strip()]
    assert lines[1].startswith("0: model.safetensors ")
    assert lines[2].startswith("0: other.safetensors ")
    assert lines[-1].startswith("By the SDR of whole songs: ")
    assert "Wilcoxon signed-rank test, p = " in lines[-1]
    figures = json.loads(run("evaluate", "data", "--against", "other.safetensors", "--json").out)
    mean = figures["comparison"]["sdr"]["mean"]
    assert mean["songs"] == mean["ahead"] + mean["behind"] == 6
    both = [figures["sdr"][name]["songs"] for name in ("model.safetensors", "other.safetensors")]
    assert mean["ahead"] == sum(both[0][song]["mean"] > both[1][song]["mean"] for song in both[0])
    assert figures["comparison"]["verdicts"] == [lines[-1]]


def test_models_that_cannot_be_compared(run: Run, data: Path, unet_model: MakeModel) -> None:
    outcome = run("evaluate", "data", "--against", "model.safetensors")
    assert (outcome.code, outcome.out) == (2, "")
    assert "cannot be compared with itself" in outcome.err
    checkpoint.save(unet_model(rate=8000, stems=("vocals", "rest")), Path("two.safetensors"))
    outcome = run("evaluate", "data", "--against", "two.safetensors")
    assert (outcome.code, outcome.out) == (2, "")
    assert "'two.safetensors' gives vocals, rest: only models with the same stems" in outcome.err


@pytest.mark.full
def test_songs_that_cannot_be_scored(run: Run, data: Path, make_song: MakeSong) -> None:
    """They are reported, and the others are scored."""
    make_song(data / "rate", rate=16_000)
    make_song(data / "damaged")
    (data / "damaged/bass.wav").write_bytes(b"nothing")
    make_song(data / "cut")
    samples, rate = soundfile.read(data / "cut/drums.wav")
    soundfile.write(data / "cut/drums.wav", samples[:-5], rate)
    make_song(data / "flac")
    soundfile.write(data / "flac/bass.flac", samples, rate)
    (data / "flac/bass.wav").unlink()
    whole = (data / "flac/bass.flac").read_bytes()
    (data / "flac/bass.flac").write_bytes(whole[: len(whole) // 2] + bytes(len(whole) // 2))
    outcome = run("evaluate", "data", "--json")
    assert outcome.code == 1
    figures = json.loads(outcome.out)
    assert list(figures["sdr"]["mixture"]["songs"]) == ["a [bold]", "b", "c"]
    assert len(figures["failed"]) == 4
    for word in ("damaged/bass.wav", "'cut' do not match", "'rate' have 16000 Hz", "flac/bass.flac"):
        assert sum(word in reason for reason in figures["failed"]) == 1, word
        assert word in outcome.err
    assert outcome.err.count("hint: ") == 3  # two in a row have the same


def test_no_song_that_can_be_scored(run: Run, here: Path, make_song: MakeSong) -> None:
    make_song(here / "data/a", rate=44_100)
    outcome = run("evaluate", "data", "-o", "scores")
    assert (outcome.code, outcome.out) == (1, "")
    assert "'a' have 44100 Hz" in outcome.err
    assert not Path("scores").exists()
    Path("empty").mkdir()
    outcome = run("evaluate", "empty")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith("stemsplit: no stems found in 'empty'\nhint: expected <song>/vocals.wav")


@pytest.mark.full
def test_a_song_without_a_second_for_bss_eval(run: Run, here: Path, make_song: MakeSong) -> None:
    written = make_song(here / "data/a", length=16_000)
    for stem, part in (("vocals", slice(0, 8000)), ("bass", slice(8000, 16_000))):
        written[stem][part] = 0
        soundfile.write(here / f"data/a/{stem}.wav", written[stem], 8000, subtype="FLOAT")
    outcome = run("evaluate", "data", "--bss-eval")
    assert outcome.code == 0
    assert "warning: BSS Eval has no figures for 'a': there is no second in which all its stems sound" in outcome.err


def test_songs_are_looked_for_before_a_model_is_downloaded(
    run: Run, here: Path, cache: Path, server: Hub, data: Path
) -> None:
    (here / "empty").mkdir()
    for folder in ("missing", "empty"):
        assert run("evaluate", folder, "--model", "htdemucs", model=False).code == 1
    (here / "scores").mkdir()
    (here / "scores/report.html").touch()
    assert run("evaluate", "data", "--model", "htdemucs", "-o", "scores", model=False).code == 1
    assert server.requests == []


@pytest.mark.full
def test_the_output_of_stems_is_not_that_of_reports(run: Run, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEMSPLIT_OUTPUT", "stems")
    assert run("evaluate", "data", "--no-references").code == 0
    assert not Path("stems").exists()


def test_a_report_does_not_go_to_standard_output(run: Run, data: Path) -> None:
    code, out, err = run("evaluate", "data", "-o", "-")
    assert (code, out) == (2, "")
    assert err.startswith("stemsplit: a report is several files, which standard output cannot have")
    assert not Path("-").exists()
