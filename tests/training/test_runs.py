"""Training as a user meets it: fine-tuning, several processes, early ends, memory that runs out, curves."""

import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
import torch
from support.demucs_files import publish
from support.networks import TINY_UNET
from support.program import Run
from support.songs import STEMS, write_packed
from support.training import RECIPE, same, train, weights
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from torch import Tensor, nn

from stemsplit.datasets.multitracks import Multitrack, find_songs
from stemsplit.errors import DatasetError, DeviceError, UsageError
from stemsplit.evaluation.charts import draw_curves
from stemsplit.models import checkpoint
from stemsplit.models.checkpoint import Header, new_model
from stemsplit.models.registry import LocalModel, ModelSpec, WeightFile
from stemsplit.training import data as data_module
from stemsplit.training import run as run_module
from stemsplit.training.data import Crops, Loader
from stemsplit.training.fit import BEST, REPORT, STATE, WEIGHTS, fit, load_start
from stemsplit.training.loss import compute
from stemsplit.training.ranks import Ranks
from stemsplit.training.recipe import make_recipe, read_recipe
from stemsplit.training.report import render_training

pytestmark = pytest.mark.full

MakeSong = Callable[..., dict[str, np.ndarray]]
DEMUCS = {"width": 8, "depth": 2, "norm_starts": 1, "memory_starts": 1}
TOML = """
epochs = 2
steps = 2
batch_size = 2
"""
NETWORK = """
rate = 8000
window_seconds = 0.25
overlap_seconds = 0.0625
[config]
n_fft = 512
hop = 128
bands = 24
linear_bands = 8
widths = [4, 6]
"""


@pytest.fixture
def data(make_song: MakeSong, here: Path) -> Path:
    """A tiny data set, laid out as MUSDB18-HQ is."""
    for seed, name in enumerate(("train/A - B", "train/C - D", "train/ANiMAL - Rockshow", "test/E - F")):
        stems = make_song(here / "musdb" / name, seed=seed)
        soundfile.write(here / "musdb" / name / "mixture.wav", sum(stems.values()), 8000)
    (here / "recipe.toml").write_text(TOML + NETWORK)
    (here / "few.toml").write_text(TOML)
    return here / "musdb"


def train_by_hand(run: Run, *arguments: str) -> str:
    """What `stemsplit train` says, all went well."""
    outcome = run("train", "musdb", "--device", "cpu", "--workers", "0", *arguments, model=False)
    assert outcome.code == 0, outcome.err
    return outcome.err


# ---- data sets and fine-tuning


def test_a_data_set_is_split_and_the_best_weights_are_named(run: Run, data: Path, here: Path) -> None:
    outcome = run("train", "musdb", "-o", "run", "--recipe", "recipe.toml", "--device", "cpu", model=False)
    assert outcome.code == 0
    assert outcome.err.splitlines()[:2] == [
        "2 songs to train on, 1 to validate on, device cpu",
        "not trained on: test in musdb",
    ]
    assert outcome.out == f"{Path('run', BEST)}\n"
    assert {path.name for path in (here / "run").iterdir()} == {WEIGHTS, BEST, STATE, REPORT}
    assert run("evaluate", "musdb/test", "--model", f"run/{BEST}", "--device", "cpu", model=False).code == 0


def test_songs_to_validate_on_can_be_named(run: Run, data: Path) -> None:
    output = train_by_hand(run, "-o", "run", "--recipe", "recipe.toml", "--valid", "musdb/test")
    assert "3 songs to train on, 1 to validate on" in output


@pytest.mark.parametrize(("family", "config"), [("unet", TINY_UNET), ("demucs", DEMUCS)])
def test_any_model_can_be_trained_further(
    run: Run, data: Path, here: Path, family: str, config: dict[str, object]
) -> None:
    header = Header(family, config, STEMS, rate=8000, channels=2, length=4000, hop=3000)
    checkpoint.save(new_model(header), here / "first.safetensors")
    train_by_hand(run, "-o", "run", "--recipe", "few.toml", "--from", "first.safetensors")
    first, then = checkpoint.load(here / "first.safetensors"), checkpoint.load(here / "run" / WEIGHTS)
    assert then.header == replace(first.header, config=then.header.config)
    moved = [
        (a - b).abs().max().item() for a, b in zip(first.network.parameters(), then.network.parameters(), strict=True)
    ]
    assert 0 < max(moved) < 0.01  # a few small steps


@pytest.mark.parametrize("name", ["htdemucs", "hdemucs", "demucs"])
def test_files_of_the_author_of_demucs_can_be_trained_further(
    run: Run, make_song: MakeSong, here: Path, name: str
) -> None:
    make_song(here / "songs" / "song")
    publish(name, here / "first.safetensors")
    (here / "few.toml").write_text("epochs = 1\nsteps = 2\nwindow_seconds = 0.25\noverlap_seconds = 0.05\n")
    arguments = ("-o", "run", "--recipe", "few.toml", "--device", "cpu", "--workers", "0")
    outcome = run("train", "songs", "--from", "first.safetensors", *arguments, model=False)
    assert outcome.code == 0, outcome.err
    header = checkpoint.load(here / "run" / WEIGHTS).header
    assert (header.family, header.stems) == (name, ("drums", "bass", "other", "vocals"))


def test_a_registered_model_can_be_trained_further(run: Run, data: Path, make_song: MakeSong, here: Path) -> None:
    make_song(here / "cd" / "song", rate=44_100, length=150_000)
    (here / "few.toml").write_text("epochs = 1\nsteps = 1\nbatch_size = 1\n")
    arguments = ("-o", "run", "--recipe", "few.toml", "--from", "mini-unet", "--device", "cpu", "--workers", "0")
    outcome = run("train", "cd", *arguments, model=False)
    assert outcome.code == 0, outcome.err
    assert checkpoint.load(here / "run" / WEIGHTS).header.length == 132_300


def test_a_chain_is_refused_and_its_steps_are_named(run: Run, data: Path, here: Path) -> None:
    code, out, err = run("train", "musdb", "-o", "run", "--from", "mini", model=False)
    assert (code, out) == (2, "")
    assert "'mini' is a chain of models\nhint: begin with one of them: spleeter-2stems, mini-accompaniment" in err


def test_a_model_of_another_family_is_refused(run: Run, data: Path, here: Path) -> None:
    header = Header("unet", TINY_UNET, STEMS, rate=8000, channels=2, length=4000, hop=3000)
    checkpoint.save(new_model(header), here / "first.safetensors")
    (here / "other.toml").write_text('family = "demucs"\n')
    outcome = run("train", "musdb", "-o", "run", "--recipe", "other.toml", "--from", "first.safetensors", model=False)
    assert outcome.code == 2
    assert "of family 'unet', the recipe's network of 'demucs'" in outcome.err
    assert not (here / "run").exists()


def test_several_networks_in_one_are_refused(run: Run, data: Path, here: Path) -> None:
    header = Header("unet", TINY_UNET, STEMS, rate=8000, channels=2, length=4000, hop=3000)
    for name in ("a", "b"):
        checkpoint.save(new_model(header), here / f"{name}.safetensors")
    with pytest.raises(UsageError, match="'pair' has 2 networks") as caught:
        files = (WeightFile("a", gives=("vocals",)), WeightFile("b", gives=("drums", "bass", "other")))
        spec = ModelSpec(name="pair", summary="", license="", files=files)
        load_start(LocalModel(spec, (here / "a.safetensors", here / "b.safetensors")))
    assert "stemsplit models path pair" in caught.value.hint


def test_a_loss_of_masks_needs_a_network_with_masks(songs: list[Multitrack], tmp_path: Path) -> None:
    for loss in ("magnitude", {"waveform": 1.0, "distortion": 0.1}):
        recipe = replace(RECIPE, family="demucs", config=DEMUCS, loss=loss)
        with pytest.raises(UsageError, match=r"needs a network that estimates masks, unlike those of 'demucs'"):
            train(tmp_path / "run", recipe, songs)
    assert not (tmp_path / "run").exists()


def test_losses_can_be_combined(tmp_path: Path) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text("loss = { waveform = 2, stft = 0.5 }")
    assert read_recipe(path).loss == {"waveform": 2.0, "stft": 0.5}
    network = nn.Module()
    network.forward = lambda mix: mix.unsqueeze(1).expand(-1, 4, -1, -1) / 4
    stems = torch.randn(2, 4, 2, 3000)
    one, other = (compute(loss, network, stems) for loss in ("waveform", "stft"))
    assert torch.allclose(compute({"waveform": 2.0, "stft": 0.5}, network, stems), 2 * one + 0.5 * other)


@pytest.mark.parametrize(
    "table",
    ["{}", "{ waveform = 0 }", "{ waveform = -1.0 }", "{ waveform = true }", '{ stft = "x" }', "{ stft = inf }"],
)
def test_combinations_that_make_no_sense(tmp_path: Path, table: str) -> None:
    path = tmp_path / "recipe.toml"
    path.write_text(f"loss = {table}")
    with pytest.raises(UsageError, match=r"recipe.toml': loss = .* should give each loss a weight") as caught:
        read_recipe(path)
    assert caught.value.hint
    path.write_text("loss = { volume = 1.0 }")
    with pytest.raises(UsageError, match="unknown loss 'volume'"):
        read_recipe(path)


def test_a_loss_in_decibels_counts_in_decibels() -> None:
    stems = torch.randn(3, 4, 2, 4000, generator=torch.Generator().manual_seed(0))
    values = []
    for decibels in (0, 10, 20):
        error = 10 ** (-decibels / 20)

        class Wrong(nn.Module):
            def forward(self, mix: Tensor, error: float = error) -> Tensor:
                return stems * (1 + error)

        values.append(compute("sdr", Wrong(), stems).item())
    assert values == pytest.approx([0, -10, -20], abs=2)  # where it ends, at 30 dB, begins early


def test_the_recipe_for_musdb18_runs_on_a_tiny_one(run: Run, here: Path) -> None:
    """The published command, on songs of the same two formats; two steps instead of its own many."""
    for name in ("train/A - B", "train/Skelpolu - Human Mistakes", "test/C - D"):
        write_packed(here / "musdb18" / f"{name}.stem.mp4", 4 * 44_100)
    text = (Path(__file__).parents[2] / "recipes" / "unet-musdb18" / "recipe.toml").read_text(encoding="utf-8")
    text = re.sub(
        r"^steps = .*", "steps = 1", re.sub(r"^batch_size = .*", "batch_size = 2", text, flags=re.M), flags=re.M
    )
    (here / "recipe.toml").write_text(re.sub(r"^widths = .*", "widths = [4, 8]", text, flags=re.M))
    assert read_recipe(here / "recipe.toml").loss == "magnitude"
    arguments = ("--recipe", "recipe.toml", "--output", "run", "--device", "cpu", "--workers", "0", "--epochs", "1")
    outcome = run("train", "musdb18", *arguments, model=False)
    assert outcome.code == 0, outcome.err
    assert "1 songs to train on, 1 to validate on" in outcome.err
    assert outcome.out == f"{Path('run', BEST)}\n"
    header = checkpoint.load(here / "run" / BEST).header
    assert (header.rate, header.channels, header.length) == (44_100, 2, 3 * 44_100)
    scored = run("evaluate", "musdb18/test", "--model", f"run/{BEST}", "--device", "cpu", "--json", model=False)
    assert scored.code == 0, scored.err
    assert "C - D" in scored.out


# ---- several processes


def launch(here: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """torchrun with two processes."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "stemsplit", "train", "musdb", "--device", "cpu", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(checkpoint.__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, timeout=240, check=False)


def test_two_processes_do_what_one_does(run: Run, data: Path, here: Path) -> None:
    network = NETWORK.partition("[config]")[0] + 'family = "demucs"\nloss = "waveform"\n[config]\n'
    network += "".join(f"{key} = {value}\n" for key, value in DEMUCS.items())
    (here / "recipe.toml").write_text(TOML + network)  # of a family that does not look at the whole batch at once
    alone = train_by_hand(run, "-o", "alone", "--recipe", "recipe.toml", "--epochs", "1")
    done = launch(here, "-o", "two", "--recipe", "recipe.toml", "--workers", "0", "--epochs", "1")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{Path('two', BEST)}\n"  # one speaks for both
    assert done.stderr.count("epoch 1/1") == 1

    def figures(output: str) -> list[str]:
        return re.findall(r"(?:loss|SDR|vocals|drums|bass|other) (-?[\d.]+)", output)

    assert [float(x) for x in figures(done.stderr)] == pytest.approx([float(x) for x in figures(alone)], abs=0.02)
    one, two = (checkpoint.load(here / name / WEIGHTS).network.state_dict() for name in ("alone", "two"))
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)
    again = launch(here, "-o", "two", "--recipe", "recipe.toml", "--workers", "1", "--resume")
    assert again.returncode == 0, again.stderr
    assert "epoch 2/2" in again.stderr


def test_batches_are_shared_out(songs: list[Multitrack]) -> None:
    recipe = replace(RECIPE, batch_size=6, steps=2)
    whole = list(Loader(Crops(songs, recipe), Ranks()).epoch(3))
    parts = [list(Loader(Crops(songs, recipe), Ranks(rank, 2), workers=rank).epoch(3)) for rank in (0, 1)]
    for batch, first, second in zip(whole, *parts, strict=True):
        assert torch.equal(batch[0::2], first)
        assert torch.equal(batch[1::2], second)


def test_a_batch_that_cannot_be_shared_out(
    songs: list[Multitrack], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "3"), ("MASTER_ADDR", "127.0.0.1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="a batch of 2 crops cannot be divided evenly among 3 processes"):
        train(tmp_path / "run", RECIPE, songs)


@pytest.mark.parametrize("place", ["multiprocessing.synchronize.SemLock.__init__", "multiprocessing.Process.start"])
def test_workers_that_cannot_be_started(
    songs: list[Multitrack], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    """Without shared memory, say: this process does their work."""
    alone = list(Loader(Crops(songs, RECIPE), Ranks()).epoch(0))

    def fails(*arguments: object, **options: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(place, fails)
    batches = list(Loader(Crops(songs, RECIPE), Ranks(), workers=2).epoch(0))
    assert all(torch.equal(*pair) for pair in zip(batches, alone, strict=True))
    told = "cannot start worker processes: Read-only file system; this process reads the songs itself"
    assert caplog.messages == [told]


def test_workers_live_on_from_epoch_to_epoch(songs: list[Multitrack]) -> None:
    loader, alone = Loader(Crops(songs, RECIPE), Ranks(), workers=2), Loader(Crops(songs, RECIPE), Ranks())
    for epoch in (0, 1, 5):
        together = zip(loader.epoch(epoch), alone.epoch(epoch), strict=True)
        assert all(torch.equal(one, other) for one, other in together)


# ---- ends


def test_training_ends_when_it_gets_no_better(songs: list[Multitrack], tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=30, patience=3, learning_rate=1e-9, warmup=0.0)
    epochs = list(fit(recipe, songs[:2], songs[2:], tmp_path, workers=0))
    assert 4 <= len(epochs) < 30
    best = [epoch.number for epoch in epochs if epoch.best][-1]
    assert epochs[-1].number == best + 3
    assert [epoch.last for epoch in epochs] == [False] * (len(epochs) - 1) + [True]
    assert list(fit(recipe, songs[:2], songs[2:], tmp_path, workers=0, resume=True)) == []
    more = next(fit(replace(recipe, patience=4), songs[:2], songs[2:], tmp_path, workers=0, resume=True))
    assert more.number == epochs[-1].number + 1


def test_the_best_weights_are_kept(songs: list[Multitrack], tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=4, learning_rate=0.3, schedule="constant", average=0.0)
    kept: dict[int, dict[str, Tensor]] = {}
    epochs = []
    for epoch in fit(recipe, songs[:2], songs[2:], tmp_path, workers=0):
        kept[epoch.number] = weights(tmp_path)
        epochs.append(epoch)
    best = [epoch.number for epoch in epochs if epoch.best][-1]
    assert same(checkpoint.load(tmp_path / BEST).network.state_dict(), kept[best])


def test_patience_needs_songs(songs: list[Multitrack], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="patience needs songs to validate on"):
        train(tmp_path / "run", replace(RECIPE, patience=1), songs)


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_schedules(schedule: str) -> None:
    recipe = replace(RECIPE, epochs=10, steps=10, warmup=0.1, learning_rate=1.0, schedule=schedule)
    run = run_module.Run(recipe, nn.Linear(1, 1), "cpu")
    rates = []
    for run.steps in range(100):
        rates.append(run.learning_rate())
    assert rates[:9] == pytest.approx(np.arange(1, 10) / 10)
    if schedule == "constant":
        assert rates[10:] == [1.0] * 90
    else:
        assert rates[10:] == sorted(rates[10:], reverse=True)
        assert rates[54] == pytest.approx(0.5)
        assert rates[-1] == pytest.approx(0, abs=1e-9)


def test_random_numbers_go_on_where_they_were(tmp_path: Path) -> None:
    run = run_module.Run(RECIPE, nn.Linear(1, 1), "cpu")
    torch.manual_seed(5)
    run.save(tmp_path / STATE)
    expected = torch.rand(3)
    torch.manual_seed(6)
    run_module.Run(RECIPE, nn.Linear(1, 1), "cpu").restore(tmp_path / STATE)
    assert torch.equal(torch.rand(3), expected)


def test_a_state_of_an_older_version_can_be_resumed(songs: list[Multitrack], tmp_path: Path) -> None:
    train(tmp_path, replace(RECIPE, epochs=2), songs)
    state = torch.load(tmp_path / STATE, weights_only=True)
    recipe = json.loads(state["recipe"])
    for key in ("pitch", "tempo", "warp", "reverb", "polarity", "schedule", "patience"):
        del recipe[key]
    del state["history"], state["generators"]
    torch.save({**state, "recipe": json.dumps(recipe)}, tmp_path / STATE)
    assert [epoch.number for epoch in train(tmp_path, RECIPE, songs, resume=True)] == [3, 4]


# ---- what goes wrong in the middle


@pytest.mark.parametrize("workers", [0, 1])
def test_a_song_that_is_damaged_inside_is_one_sentence(make_song: MakeSong, tmp_path: Path, workers: int) -> None:
    make_song(tmp_path / "data", length=80_000)
    samples, rate = soundfile.read(tmp_path / "data" / "bass.wav")
    (tmp_path / "data" / "bass.wav").unlink()
    soundfile.write(tmp_path / "data" / "bass.flac", samples, rate)
    whole = (tmp_path / "data" / "bass.flac").read_bytes()
    (tmp_path / "data" / "bass.flac").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DatasetError, match=r"^cannot decode '.*bass\.flac': [^\n]*$") as caught:
        list(fit(RECIPE, find_songs(tmp_path / "data", STEMS), (), tmp_path / "run", workers=workers))
    assert "stemsplit data check" in caught.value.hint


def exhausted_gpu(*arguments: object) -> Tensor:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


def exhausted_machine(*arguments: object) -> Tensor:
    return torch.empty(10**17)  # PyTorch's own complaint


@pytest.mark.parametrize("exhausted", [exhausted_gpu, exhausted_machine])
def test_running_out_of_memory_is_one_sentence(
    songs: list[Multitrack], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exhausted: Callable[..., Tensor]
) -> None:
    monkeypatch.setattr(run_module, "compute", exhausted)
    with pytest.raises(DeviceError, match="the cpu device has too little free memory for batches of 2 crops") as caught:
        train(tmp_path / "run", RECIPE, songs)
    assert "batch_size" in caught.value.hint


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL")
@pytest.mark.skipif(bool(data_module.explain_no_workers()), reason="/dev/shm cannot be written to")
def test_a_worker_that_is_killed_is_one_sentence(
    songs: list[Multitrack], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Linux does when memory runs out."""
    monkeypatch.setattr(data_module, "read_stems", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(DeviceError, match="most likely because memory ran out") as caught:
        list(fit(RECIPE, songs, (), tmp_path / "run", workers=1))
    assert "--workers" in caught.value.hint


@pytest.mark.parametrize(
    ("table", "message", "hint"),
    [
        ({"pitches": 2.0}, "unknown setting 'pitches'", "did you mean pitch?"),
        ({"pitch": -1.0}, "pitch = -1.0 should be from 0 to 24", ""),
        ({"tempo": 1.0}, "tempo = 1.0 should be from 0 to 0.5", ""),
        ({"warp": 2}, "warp = 2 should be from 0 to 1", ""),
        ({"reverb": math.nan}, "reverb = nan", ""),
        ({"polarity": "yes"}, "polarity = 'yes' should be like 0.0", ""),
        ({"patience": -1}, "patience = -1", ""),
        ({"schedule": "step"}, "schedule = 'step' should be one of trapezoid, cosine, constant", ""),
    ],
)
def test_new_settings_are_checked(table: dict[str, object], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_recipe(table, "here")
    assert message in str(caught.value)
    assert hint in caught.value.hint


# ---- curves


def page_of(text: str) -> ElementTree.Element:
    """The page, parsed strictly enough to find a tag that is not closed."""
    body = text[text.index("<body>") :].removesuffix("</html>\n")
    return ElementTree.fromstring(body)


def test_a_run_leaves_a_report_with_curves(songs: list[Multitrack], tmp_path: Path) -> None:
    epochs = list(fit(replace(RECIPE, epochs=3), songs[:2], songs[2:], tmp_path, workers=0))
    text = (tmp_path / REPORT).read_text(encoding="utf-8")
    assert not re.search(r'(src|href)\s*=(?!"data:,")|<script|https?:|@import', text)  # nothing from elsewhere
    page = page_of(text)
    curves = page.findall(".//svg")
    assert len(curves) == 4
    sdr, loss = curves[0], curves[1]
    assert [line.get("points", "").count(",") for line in sdr.findall("polyline")] == [3] * 5
    assert {"mean", *STEMS} <= {label.text for label in sdr.findall("text")}
    (line,) = loss.findall("polyline")
    heights = [float(point.split(",")[1]) for point in line.get("points", "").split()]
    losses = [epoch.loss for epoch in epochs]
    assert np.argsort(heights).tolist() == np.argsort(losses)[::-1].tolist()  # down the page is up the curve
    rows = page.findall(".//tbody/tr")
    assert ["".join(row[1].itertext()) for row in rows] == [f"{loss:.5f}" for loss in losses]
    assert "learning_rate" in page.findtext(".//pre", "")


def test_a_report_without_validation_and_with_odd_names() -> None:
    row: dict[str, Any] = {
        "epoch": 1,
        "loss": 0.5,
        "gradient": 1.0,
        "learning_rate": 1e-3,
        "score": None,
        "sdr": {},
        "seconds": 1.0,
    }
    page = page_of(render_training([row], replace(RECIPE, stems=("<b>", "&"))))
    assert "SDR" not in "".join(page.itertext()).partition("Recipe")[0]
    scored = {**row, "epoch": 2, "score": -3.0, "sdr": {"<b>": -3.0}}
    assert "<b>" in "".join(page_of(render_training([row, scored], RECIPE)).itertext())
    assert "of 4 epochs" in "".join(page_of(render_training([], RECIPE)).itertext())


def test_logs_for_tensorboard(songs: list[Multitrack], tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=2)
    epochs = list(fit(recipe, songs[:2], songs[2:], tmp_path, workers=0, tensorboard=True))
    log = EventAccumulator(str(tmp_path)).Reload()
    for name in ("loss", "learning rate", "gradient", "SDR/mean", "SDR/vocals"):
        assert [event.step for event in log.Scalars(name)] == [recipe.steps, 2 * recipe.steps]
    assert [event.value for event in log.Scalars("loss")] == pytest.approx([epoch.loss for epoch in epochs])
    sdr = [epoch.scores[0].sdr["vocals"] for epoch in epochs]
    assert [event.value for event in log.Scalars("SDR/vocals")] == pytest.approx(sdr)


def test_a_resumed_run_has_a_log_of_its_own(songs: list[Multitrack], tmp_path: Path) -> None:
    for epochs in (1, 2):
        recipe = replace(RECIPE, epochs=epochs)
        list(fit(recipe, songs, (), tmp_path, workers=0, tensorboard=True, resume=epochs > 1))
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 2
    assert len(EventAccumulator(str(tmp_path)).Reload().Scalars("loss")) == 2


@pytest.mark.parametrize("package", ["tensorboard", "tensorboard.compat"])
def test_without_tensorboard_nothing_is_begun(
    songs: list[Multitrack], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match="tensorboard") as caught:
        next(fit(RECIPE, songs, (), tmp_path / "run", workers=0, tensorboard=True))
    assert "stemsplit-audio[train]" in caught.value.hint
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "values", [[], [1.0], [0.0, 0.0], [math.nan], [1e-9, 2e-9], [-1e6, 1e6], [5.0, math.inf, 6.0], [-0.3, -0.2, 7]]
)
def test_curves_of_any_values_stay_within_their_frame(values: list[float]) -> None:
    svg = ElementTree.fromstring(draw_curves("A curve", [("a", list(enumerate(values, start=1)))]))
    _, _, width, height = map(float, svg.get("viewBox", "").split())
    for line in svg.findall("polyline"):
        for point in line.get("points", "").split():
            x, y = map(float, point.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height
