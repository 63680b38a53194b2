"""stemsplit in Python: what `import stemsplit` offers, models by name, and songs in files, arrays and blocks."""

import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
from huggingface_hub import constants
from support.hub import REPO, write_registry
from support.hub_server import Hub
from support.program import HEAVY, imported_by
from support.songs import STEMS

import stemsplit
from stemsplit import errors, settings
from stemsplit.errors import DeviceError, ModelError, UnreachableError, UsageError
from stemsplit.models import checkpoint
from stemsplit.models.checkpoint import Model
from stemsplit.models.registry import ModelSpec
from stemsplit.separation import outputs
from stemsplit.separation import separator as separation
from stemsplit.separation.options import SeparationOptions
from stemsplit.separation.separator import Separator


def noise(channels: int, length: int, *, seed: int = 0) -> np.ndarray:
    """Samples `(C, N)`."""
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (channels, length)).astype(np.float32)


# The package


def test_what_the_package_offers() -> None:
    assert stemsplit.__all__ == [
        "AudioError",
        "BatchReport",
        "ClusterOptions",
        "DatasetError",
        "Delivery",
        "DeviceError",
        "Format",
        "LocalModel",
        "ModelError",
        "ModelSpec",
        "Report",
        "SeparationOptions",
        "Separator",
        "StemsplitError",
        "UnreachableError",
        "UsageError",
        "__version__",
        "download_model",
        "list_models",
        "open_reader",
        "separate_batch",
    ]
    assert stemsplit.Separator is separation.Separator
    assert stemsplit.Report is outputs.Report
    assert stemsplit.StemsplitError is errors.StemsplitError
    assert all(hasattr(stemsplit, name) for name in stemsplit.__all__)
    assert set(stemsplit.__all__) <= set(dir(stemsplit))
    assert isinstance(stemsplit.separation, types.ModuleType)


def test_type_checkers_know_it() -> None:
    # mypy would say so if it had nothing to ignore here.
    with pytest.raises(AttributeError, match="module 'stemsplit' has no attribute 'Seperator'"):
        _ = stemsplit.Seperator  # type: ignore[attr-defined]
    number: int = stemsplit.StemsplitError("", "a text").hint  # type: ignore[assignment]
    assert number == "a text"  # type: ignore[comparison-overlap]


@pytest.mark.full
def test_errors_can_be_caught_without_torch() -> None:
    assert not imported_by("import stemsplit; stemsplit.StemsplitError; dir(stemsplit)") & HEAVY
    assert "torch" in imported_by("from stemsplit import Separator")


# Models


def test_models_are_listed_and_downloaded_without_torch(spec: ModelSpec, server: Hub, tmp_path: Path) -> None:
    own = write_registry(tmp_path / "models.toml", spec)
    names = [model.name for model in stemsplit.list_models(own)]
    assert (names[0], names[-1]) == ("mini", "mine")
    local = stemsplit.download_model("mine", stems=["drums"], registry=own)
    assert [path.name for path in local.paths] == ["b.safetensors"]
    assert local.spec.stems == ("drums",)
    assert stemsplit.download_model("mini").paths[0].exists()
    assert "torch" not in imported_by("import stemsplit; stemsplit.list_models(); stemsplit.download_model('mini')")


@pytest.mark.full
def test_the_bundled_model() -> None:
    separator = Separator.load("mini", device="cpu")
    assert (separator.stems, separator.rate, separator.device) == (STEMS, 44_100, "cpu")
    assert (separator.runners[0].batch_size, separator.options.precision) == (1, "full")


def test_a_file_and_options(tmp_path: Path, unet_model: Callable[..., Model]) -> None:
    path = tmp_path / "model.safetensors"
    checkpoint.save(unet_model(rate=8_000), path)
    separator = Separator.load(
        path,
        SeparationOptions(batch_size=3, precision="half", overlap=0.5, shifts=2, seed=1),
        device="cpu",
        stems=["bass", "vocals"],
    )
    assert (separator.stems, separator.rate) == (("vocals", "bass"), 8_000)
    assert (separator.runners[0].batch_size, separator.options.precision) == (3, "half")
    assert separator.runners[0].plan.hop == separator.runners[0].plan.length // 2
    assert len(separator.runners[0].shift_offsets) == 2
    assert (
        separator.runners[0].shift_offsets
        != Separator.load(path, SeparationOptions(shifts=2, seed=2), device="cpu").runners[0].shift_offsets
    )


@pytest.mark.parametrize("name", ["overlap", "shifts", "wiener", "batch_size"])
def test_options_are_checked_before_a_model_is_chosen(name: str) -> None:
    options: dict[str, Any] = {name: -1}
    with pytest.raises(UsageError, match="-1"):
        stemsplit.SeparationOptions(**options)


def test_filtering_is_refused_before_anything_is_downloaded(spec: ModelSpec, server: Hub, tmp_path: Path) -> None:
    own = write_registry(tmp_path / "models.toml", spec)
    own.write_text(own.read_text().replace('family = "unet"', 'family = "htdemucs"'))
    with pytest.raises(UsageError, match="Wiener"):
        Separator.load("mine", SeparationOptions(wiener=1), device="cpu", registry=own)
    assert server.requests == []


def test_settings_for_a_manifest_are_what_decides_the_sound() -> None:
    settings = {"overlap": None, "shifts": 0, "wiener": 0, "precision": "full"}
    assert SeparationOptions(batch_size=3, precision="full").settings() == settings  # as written by earlier versions
    assert SeparationOptions(seed=1, shifts=2, precision="full").settings() == {**settings, "shifts": 2, "seed": 1}


@pytest.mark.full
def test_a_model_is_fetched(
    server: Hub, cache: Path, tmp_path: Path, unet_model: Callable[..., Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(unet_model(stems=("vocals", "drums")), tmp_path / "model.safetensors")
    server.add(REPO, "model.safetensors", (tmp_path / "model.safetensors").read_bytes())
    told: list[object] = []

    def load(stems: tuple[str, ...] = ()) -> Separator:
        return Separator.load(
            f"hf://{REPO}",
            device="cpu",
            stems=stems,
            on_download=lambda spec, size: told.append((spec.repo, size)),
            on_progress=lambda done, total: told.append((done, total)),
        )

    size = (tmp_path / "model.safetensors").stat().st_size
    assert load().stems == ("vocals", "drums")
    assert (told[0], told[-1]) == ((REPO, size), (size, size))
    told.clear()
    assert load(("drums",)).stems == ("drums",)
    assert told == []
    with pytest.raises(UsageError, match="has no stem 'bass'"):
        load(("bass",))


def test_only_what_wanted_stems_need_is_fetched(spec: ModelSpec, server: Hub, tmp_path: Path) -> None:
    own = write_registry(tmp_path / "models.toml", spec)
    with pytest.raises(ModelError):  # what this server has is no model
        Separator.load("mine", stems=["drums"], registry=own, device="cpu")
    assert any("b.safetensors" in request for request in server.requests)
    assert not any("a.safetensors" in request for request in server.requests)


def test_models_of_the_user(spec: ModelSpec, server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    settings.folder().mkdir(parents=True)
    write_registry(settings.models_file(), replace(spec, name="mine"))
    settings.config_file().write_text("damaged: no setting of the program counts here")
    with pytest.raises(ModelError):
        Separator.load("mine", device="cpu")
    assert server.requests


@pytest.mark.parametrize("stems", [["guitar"], ["vocals", "guitar"]])
def test_what_is_wrong_is_told_before_anything_is_fetched(
    spec: ModelSpec, server: Hub, tmp_path: Path, stems: list[str]
) -> None:
    own = write_registry(tmp_path / "models.toml", spec)
    with pytest.raises(UsageError, match="has no stem 'guitar'"):
        Separator.load("mine", stems=stems, registry=own)
    own.write_text(own.read_text().replace('family = "unet"', 'family = "cubist"'))
    with pytest.raises(ModelError, match="unknown network family 'cubist'"):
        Separator.load("mine", registry=own)
    with pytest.raises(DeviceError, match="unknown device 'abacus'"):
        Separator.load("mine", device="abacus", registry=own)
    with pytest.raises(UsageError, match="unknown model 'minni'"):
        Separator.load("minni")
    assert server.requests == []


def test_the_default_is_never_replaced(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UnreachableError, match="'htdemucs'"):
        Separator.load()


# Arrays


@pytest.mark.full
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [44_100, 48_000, 11_025])
@pytest.mark.parametrize("length", [0, 1, 999, 150_001])
def test_an_array_becomes_arrays(shares_model: Callable[..., Model], channels: int, rate: int, length: int) -> None:
    tone = np.sin(2 * np.pi * 0.1 * np.arange(length))  # low enough that resampling there and back keeps it
    mixture = np.repeat(tone[None].astype(np.float32), channels, axis=0)
    before = mixture.copy()
    stems = Separator(shares_model()).separate_array(mixture, rate)
    assert list(stems) == list(STEMS)
    assert np.array_equal(mixture, before)
    for share, stem in zip((0.5, 0.25, 0.125, 0.125), stems.values(), strict=True):
        assert stem.shape == (channels, length)
        assert stem.dtype == np.float32
        middle = slice(2_000, -2_000)  # resampling rings at the ends
        np.testing.assert_allclose(stem[:, middle], share * mixture[:, middle], atol=1e-4)


@pytest.mark.full
def test_arrays_and_files_are_separated_alike(tmp_path: Path, unet_model: Callable[..., Model]) -> None:
    separator = Separator(unet_model(), SeparationOptions(shifts=2, overlap=0.5))
    mixture = noise(2, 70_000)
    soundfile.write(tmp_path / "song.wav", mixture.T, 48_000, subtype="FLOAT")
    outputs = {stem: str(tmp_path / f"{stem}.wav") for stem in ("bass", "vocals")}
    separator.separate_file(str(tmp_path / "song.wav"), outputs)
    stems = separator.separate_array(mixture, 48_000, consistent=False)  # as some stems in files are
    for stem, path in outputs.items():
        written, rate = soundfile.read(path, dtype="float32", always_2d=True)
        assert rate == 48_000
        np.testing.assert_allclose(written.T, stems[stem], atol=2**-23)  # the files have 24 bits


def test_any_array_of_floats(shares_model: Callable[..., Model]) -> None:
    separator = Separator(shares_model())
    mixture = noise(2, 5_000)
    expected = separator.separate_array(mixture, 44_100)["drums"]
    frozen = mixture.copy()
    frozen.flags.writeable = False
    alike = [mixture.astype(np.float64), mixture.T.copy().T, np.repeat(mixture, 2, 1)[:, ::2], frozen, mixture.tolist()]
    for array in alike:
        assert np.array_equal(separator.separate_array(array, 44_100)["drums"], expected)
    # Neither beyond full scale nor in silence is anything scaled.
    np.testing.assert_allclose(separator.separate_array(100 * mixture, 44_100)["drums"], 100 * expected, rtol=1e-5)


def test_progress_of_an_array(shares_model: Callable[..., Model]) -> None:
    told: list[tuple[int, int | None]] = []
    Separator(shares_model()).separate_array(
        noise(1, 100_000), 48_000, on_progress=lambda done, total: told.append((done, total))
    )
    assert told == sorted(told)
    assert len(told) > 5
    assert {total for _, total in told} == {100_000}
    assert told[-1][0] >= 99_999


@pytest.mark.parametrize(
    ("array", "rate", "told"),
    [
        (np.zeros((1_000, 2), np.float32), 44_100, r"not \(1000, 2\)"),
        (np.zeros(1_000, np.float32), 44_100, r"not \(1000,\)"),
        (np.zeros((6, 1_000), np.float32), 44_100, r"not \(6, 1000\)"),
        (np.zeros((0, 1_000), np.float32), 44_100, r"not \(0, 1000\)"),
        (np.zeros((1, 2, 1_000), np.float32), 44_100, r"not \(1, 2, 1000\)"),
        (np.zeros((2, 1_000), np.int16), 44_100, "type int16"),
        (np.zeros((2, 1_000), np.complex64), 44_100, "type complex64"),
        (np.full((2, 1_000), np.nan), 44_100, "infinite or not a number"),
        (np.full((2, 1_000), np.inf), 44_100, "infinite or not a number"),
        (np.zeros((2, 1_000)), 0, "at least 1, not 0"),
    ],
)
def test_arrays_that_are_no_songs(shares_model: Callable[..., Model], array: np.ndarray, rate: int, told: str) -> None:
    with pytest.raises(UsageError, match=told) as raised:
        Separator(shares_model()).separate_array(array, rate)
    assert raised.value.hint or rate == 0


# Blocks


def test_blocks_come_as_they_are_ready(shares_model: Callable[..., Model]) -> None:
    separator = Separator(shares_model())
    mixture = noise(2, 50_000)
    read: list[int] = []

    def blocks() -> Iterator[np.ndarray]:
        for start in range(0, 50_000, 5_000):
            read.append(start)
            yield mixture[:, start : start + 5_000]

    stream = separator.separate(blocks(), separator.rate)
    first = next(stream)
    assert len(read) < 4
    stems = np.concatenate([first, *stream], axis=-1)
    assert stems.shape == (len(separator.stems), 2, 50_000)
    np.testing.assert_allclose(stems.sum(0), mixture, atol=1e-5)


@pytest.mark.parametrize("rate", [44_100, 22_050])
@pytest.mark.parametrize("channels", [1, 2])
def test_blocks_of_any_floats(shares_model: Callable[..., Model], rate: int, channels: int) -> None:
    separator = Separator(shares_model())
    mixture = noise(channels, 9_000)
    frozen = mixture.copy()
    frozen.flags.writeable = False
    expected = np.concatenate(list(separator.separate([mixture], rate)), axis=-1)
    alike: list[Any] = [
        [mixture.astype(np.float64)],
        [frozen],
        [mixture[:, ::-1].copy()[:, ::-1]],
        np.split(mixture, 9, 1),
    ]
    for blocks in alike:
        assert np.array_equal(np.concatenate(list(separator.separate(blocks, rate)), axis=-1), expected)
