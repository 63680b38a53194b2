"""Whether stemsplit can work here: what `doctor` and `--version` find out, on good machines and on bad ones."""

import errno
import json
import re
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import import_module, metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from support.hub import point_to, write_registry
from support.program import Run

from stemsplit import devices, doctor, settings
from stemsplit.errors import StemsplitError
from stemsplit.models import hub, registry, speeds
from stemsplit.models.registry import ModelSpec
from stemsplit.separation.separator import Separator
from stemsplit.version import __version__


@pytest.fixture(autouse=True)
def nothing_is_set(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings, and a Hub that is not there."""
    for name in settings.environment():
        monkeypatch.delenv(name)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path_factory.mktemp("hub")))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
    point_to(address, monkeypatch)


@pytest.fixture(autouse=True)
def measured(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models whose speed was measured, which is only done where a test is about it."""
    names: list[str] = []

    def speed(spec: ModelSpec, device: str) -> float:
        names.append(spec.name)
        return 2.0

    if "speed" not in request.node.name:
        monkeypatch.setattr("stemsplit.doctor._speed_of", speed)
    return names


@pytest.fixture
def examine(run: Run) -> Callable[..., tuple[int, dict[str, Any]]]:
    """A function that runs `doctor --json` on the CPU, and gives the exit code and what was found."""

    def call(*arguments: str, device: str = "cpu") -> tuple[int, dict[str, Any]]:
        outcome = run("doctor", "--json", "--device", device, *arguments, model=False)
        found = json.loads(outcome.out)
        assert found["good"] == (outcome.code == 0)
        for problem in found["problems"]:
            assert problem["hint"]
            prefix = "stemsplit: " if problem["fatal"] else "warning: "
            assert f"{prefix}{problem['problem']}\nhint: {problem['hint']}\n" in outcome.err
        return outcome.code, found

    return call


def fatal(found: dict[str, Any]) -> list[str]:
    """What keeps stemsplit from separating."""
    return [problem["problem"] for problem in found["problems"] if problem["fatal"]]


# A good machine


@pytest.mark.full
def test_what_is_found(examine: Callable[..., tuple[int, dict[str, Any]]]) -> None:
    code, found = examine()
    assert code == 0
    assert found["stemsplit"] == __version__
    assert {"av", "numpy", "soundfile", "soxr", "torch", "typer"} <= set(found["libraries"])
    assert found["libraries"]["torch"] == metadata.version("torch")
    assert re.fullmatch(r"\d+\.\d+(\.\d+)?", found["ffmpeg"])
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", found["libsndfile"])
    assert found["threads"] == torch.get_num_threads()
    assert found["cores"] >= 1
    processor = found["devices"][0]
    assert processor["device"] == "cpu"
    assert processor["name"]
    assert processor["free"] is None or 0 < processor["free"] <= processor["memory"]
    assert found["settings"]["file"] == {"path": str(settings.config_file()), "there": False, "options": {}}
    assert found["cache"]["folder"] == constants.HF_HUB_CACHE
    assert found["cache"]["writable"]
    assert found["cache"]["free"] > 0
    assert found["cache"]["size"] == 0
    test = found["self_test"]
    assert (test["model"], test["device"], test["passed"]) == ("mini", "cpu", True)
    assert test["deviation"] < 1e-5
    assert test["elapsed_seconds"] > 0


@pytest.mark.full
def test_people_are_told_the_same(run: Run) -> None:
    code, out, err = run("doctor", "--device", "cpu", "--model", "mini", model=False)
    assert (code, err) == (0, "")
    for word in (
        "stemsplit",
        "Python",
        "libraries",
        "FFmpeg",
        "device",
        "settings",
        "cache",
        "Hub",
        "model",
        "self-test",
    ):
        assert re.search(rf"^{word}  ", out, re.MULTILINE)
    assert re.search(r"^model +mini: downloaded, 44 MB", out, re.MULTILINE)
    assert re.search(r"^self-test +passed: a second of audio took [\d.]+ s on cpu", out, re.MULTILINE)
    assert out.splitlines()[-1] == "songs can be separated"


@pytest.mark.full
def test_the_time_of_a_song_is_told_for_each_model_that_is_here(run: Run, measured: list[str]) -> None:
    out = run("doctor", "--device", "cpu", model=False).out
    assert measured == ["mini", "mini-accompaniment", "mini-unet", "spleeter-2stems"]
    assert re.search(r"^speed +mini: a song of 4 minutes takes about 2:00 min$", out, re.MULTILINE)
    assert speeds.read() == dict.fromkeys(measured, 2.0)
    rows = {row.split()[0]: row.split() for row in run("models", model=False).out.splitlines()}
    assert rows["mini"][3] == "2"
    assert run("models", "list", "--json", model=False).code == 0


@pytest.mark.full
def test_the_speed_that_is_measured() -> None:
    assert 0.01 < doctor._speed_of(registry.read_bundled().find("mini-unet"), "cpu") < 10_000


# Settings


@pytest.mark.full
def test_settings_that_are_heeded(
    run: Run, here: Path, examine: Callable[..., tuple[int, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = settings.config_file()
    file.parent.mkdir(parents=True)
    file.write_text('model = "model.safetensors"\nshifts = 2')
    monkeypatch.setenv("STEMSPLIT_STEMS", "vocals")
    monkeypatch.setenv("STEMSPLIT_CONFIG", str(file))
    code, found = examine()
    assert (code, found["problems"]) == (0, [])
    told = found["settings"]
    assert told["file"] == {"path": str(file), "there": True, "options": {"model": "model.safetensors", "shifts": 2}}
    assert told["environment"] == {"STEMSPLIT_CONFIG": str(file), "STEMSPLIT_STEMS": "vocals"}
    size = (here / "model.safetensors").stat().st_size
    assert found["model"] == {"name": "model.safetensors", "named": True, "here": True, "size": size}
    assert examine("--preset", "fast")[1]["model"]["name"] == "spleeter"


@pytest.mark.full
def test_settings_that_are_damaged(
    examine: Callable[..., tuple[int, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = settings.config_file()
    file.parent.mkdir(parents=True)
    file.write_text('modell = "mini"')
    settings.models_file().write_text("damaged")
    monkeypatch.setenv("STEMSPLIT_SHIFTS", "many")
    monkeypatch.setenv("STEMSPLIT_MODLE", "mini")
    code, found = examine()
    assert code == 1
    config, shifts, models = fatal(found)
    assert repr(str(file)) in config
    assert "STEMSPLIT_SHIFTS cannot be 'many'" in shifts
    assert str(settings.models_file()) in models
    typo = next(problem for problem in found["problems"] if "STEMSPLIT_MODLE" in problem["problem"])
    assert (typo["fatal"], typo["hint"]) == (False, "did you mean STEMSPLIT_MODEL?")
    assert found["self_test"]["passed"]  # the rest is looked at nevertheless


@pytest.mark.full
def test_a_model_that_does_not_exist(examine: Callable[..., tuple[int, dict[str, Any]]]) -> None:
    code, found = examine("--model", "minni")
    assert (code, fatal(found)) == (1, ["unknown model 'minni'"])


# Models and the Hub


@pytest.mark.full
def test_without_the_hub(examine: Callable[..., tuple[int, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch) -> None:
    code, found = examine()
    assert code == 0
    assert not found["hub"]["reachable"]
    assert "127.0.0.1" in found["hub"]["reason"]
    assert found["hub"]["endpoint"] == constants.ENDPOINT
    assert found["model"] == {"name": "htdemucs", "named": False, "here": False, "size": 84_025_440}
    (problem,) = found["problems"]
    assert problem["problem"].startswith(
        "the model 'htdemucs' is not downloaded and cannot be downloaded now, and mini"
    )
    assert problem["hint"].endswith("stemsplit models pull htdemucs")
    # Nothing takes the place of a model that was named.
    code, found = examine("--model", "htdemucs_ft")
    assert (code, fatal(found)) == (1, ["the model 'htdemucs_ft' is not downloaded and cannot be downloaded now"])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    code, found = examine("--model", "mini")
    assert (code, found["problems"], found["hub"]["reason"]) == (0, [], "HF_HUB_OFFLINE is set")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    point_to("ftp://nowhere", monkeypatch)
    code, found = examine("--model", "mini")
    assert code == 0
    assert "HF_ENDPOINT is not a valid URL" in found["problems"][0]["problem"]


@pytest.mark.full
def test_the_way_to_the_hub(
    spec: ModelSpec, here: Path, examine: Callable[..., tuple[int, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ["--registry", str(write_registry(here / "models.toml", spec)), "--model", "mine"]
    code, found = examine(*own)
    assert (code, found["problems"]) == (0, [])
    assert found["hub"] == {"endpoint": constants.ENDPOINT, "proxy": None, "reachable": True, "reason": None}
    assert found["model"] == {"name": "mine", "named": True, "here": False, "size": spec.size}
    paths = hub.download(spec).paths
    code, found = examine(*own)
    assert (code, found["model"]["here"], found["cache"]["size"]) == (0, True, spec.size)
    paths[1].write_bytes(b"damaged")
    code, found = examine(*own)
    assert (code, found["model"]["here"]) == (0, False)
    assert "has 7 bytes instead of" in found["problems"][0]["problem"]
    monkeypatch.setenv("http_proxy", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert examine(*own)[1]["hub"]["proxy"] == "http://...@127.0.0.1:9"


@pytest.mark.full
def test_room_for_the_model(
    spec: ModelSpec, here: Path, examine: Callable[..., tuple[int, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ["--registry", str(write_registry(here / "models.toml", spec)), "--model", "mine"]
    usage = SimpleNamespace(free=2 * 10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    code, found = examine(*own)
    assert (code, fatal(found)) == (1, ["the model 'mine' is not downloaded, needs 2 MB, and there is room for 2 MB"])
    assert examine("--model", "mini")[0] == 0

    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    code, found = examine("--model", "mini")
    assert code == 0
    assert "cannot write to" in found["problems"][0]["problem"]
    assert not found["cache"]["writable"]
    assert "cannot write to" in fatal(examine(*own)[1])[0]


# Bad machines


@pytest.mark.full
def test_a_library_is_missing(
    examine: Callable[..., tuple[int, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = metadata.version

    def version(name: str) -> str:
        if name == "soxr":
            raise metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(metadata, "version", version)
    code, found = examine()
    assert (code, fatal(found)) == (1, ["the library soxr is missing"])
    assert found["libraries"]["soxr"] is None


@pytest.mark.full
@pytest.mark.parametrize("name", ["torch", "av", "huggingface_hub"])
def test_a_library_that_cannot_be_loaded(
    run: Run, examine: Callable[..., tuple[int, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def load(library: str) -> object:
        if library == name:
            raise OSError("libsomething.so: cannot open\nshared object file")
        return import_module(library)

    monkeypatch.setattr(devices, "import_module", load)
    code, found = examine()
    told = f"the library {name} cannot be loaded: libsomething.so: cannot open shared object file"
    assert (code, fatal(found)) == (1, [told])
    assert found["self_test"]["passed"] == (name != "torch")
    assert run("doctor", model=False).out.splitlines()[-1] == "songs cannot be separated"
    if name == "torch":
        assert run("--version", model=False).out.splitlines()[2] == f"PyTorch: {told}"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there(examine: Callable[..., tuple[int, dict[str, Any]]]) -> None:
    code, found = examine(device="cuda")
    assert (code, fatal(found)) == (1, ["PyTorch finds no cuda device on this machine"])
    assert not found["self_test"]["passed"]


def _not_numbers(stems: np.ndarray) -> np.ndarray:
    return stems * np.nan


def _too_loud(stems: np.ndarray) -> np.ndarray:
    return stems * 1.01


def _too_short(stems: np.ndarray) -> np.ndarray:
    return stems[..., :-1]


@pytest.mark.full
@pytest.mark.parametrize("break_it", [_not_numbers, _too_loud, _too_short])
def test_wrong_stems(
    examine: Callable[..., tuple[int, dict[str, Any]]],
    monkeypatch: pytest.MonkeyPatch,
    break_it: Callable[[np.ndarray], np.ndarray],
) -> None:
    separate = Separator.separate

    def wrong(self: Separator, blocks: Any, rate: int) -> Iterator[np.ndarray]:
        return map(break_it, separate(self, blocks, rate))

    monkeypatch.setattr(Separator, "separate", wrong)
    code, found = examine()
    assert code == 1
    assert "do not add up" in fatal(found)[0]
    assert not found["self_test"]["passed"]


@pytest.mark.full
def test_a_device_that_fails(
    examine: Callable[..., tuple[int, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeError("no kernel image is available\nfor execution on the device")

    monkeypatch.setattr(Separator, "separate", fail)
    code, found = examine()
    told = "the cpu device cannot separate a second of audio: no kernel image is available for execution on the device"
    assert (code, fatal(found)) == (1, [told])


# Machines that are not here


def fake_torch(*, cuda: str | None, cards: int, mps: bool = False, busy: bool = False) -> Any:
    """A PyTorch that finds GPUs."""

    def mem_get_info(index: int) -> tuple[int, int]:
        if busy:
            raise RuntimeError("out of memory")
        return 3 * 10**9, 24 * 10**9

    return SimpleNamespace(
        __version__="9.9",
        version=SimpleNamespace(cuda=cuda),
        cuda=SimpleNamespace(
            is_available=lambda: cards > 0,
            device_count=lambda: cards,
            get_device_properties=lambda index: SimpleNamespace(name=f"Card {index}", total_memory=24 * 10**9),
            mem_get_info=mem_get_info,
        ),
        mps=SimpleNamespace(recommended_max_memory=lambda: 8 * 10**9),
        backends=SimpleNamespace(mps=SimpleNamespace(is_available=lambda: mps)),
    )


def test_devices_are_named_with_their_memory() -> None:
    processor, *cards = map(str, devices.find_devices(fake_torch(cuda="12.8", cards=2, mps=True)))
    assert processor.startswith("cpu: ")
    assert cards == [
        "cuda:0: Card 0, 24.0 GB of memory, 3.0 GB of it free",
        "cuda:1: Card 1, 24.0 GB of memory, 3.0 GB of it free",
        "mps: the GPU of the processor, 8.0 GB of memory",
    ]
    busy = devices.find_devices(fake_torch(cuda="12.8", cards=1, busy=True))[1]
    assert str(busy) == "cuda:0: Card 0, 24.0 GB of memory"
    assert str(devices.Device("cpu", "Some processor")) == "cpu: Some processor"


def test_a_card_that_is_not_used_is_explained(tmp_path: Path) -> None:
    driver = tmp_path / "version"
    assert devices.explain_unused_gpu(fake_torch(cuda=None, cards=0), driver) is None
    driver.touch()
    assert devices.explain_unused_gpu(fake_torch(cuda="12.8", cards=1), driver) is None
    error = devices.explain_unused_gpu(fake_torch(cuda=None, cards=0), driver)
    assert str(error) == "there is an NVIDIA driver, but PyTorch 9.9 is built without CUDA"
    error = devices.explain_unused_gpu(fake_torch(cuda="12.8", cards=0), driver)
    assert str(error).endswith("is built for CUDA 12.8, which may be too new for the driver")
    assert error and error.hint


# --version


def test_version(run: Run) -> None:
    code, out, err = run("--version", model=False)
    first, python, pytorch, *lines = out.splitlines()
    assert (code, err, first) == (0, "", f"stemsplit {__version__}")
    assert python.startswith(f"Python {sys.version_info.major}.{sys.version_info.minor}.")
    assert pytorch == f"PyTorch {torch.__version__}"
    assert lines[0].startswith("cpu: ")


def test_errors_of_libraries_are_told_on_a_line() -> None:
    with pytest.raises(StemsplitError, match="the library stemsplit_nowhere cannot be loaded: No module named"):
        devices.load("stemsplit_nowhere")
