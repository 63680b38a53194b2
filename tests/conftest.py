"""What the tests share: tiny networks, songs made of sines and noise, the program itself, and a Hub on this machine."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
import torch
from huggingface_hub import constants
from support.hub import CONTENT, REPO, SPEC, point_to
from support.hub_server import Hub, serve
from support.networks import TINY_UNET
from support.program import Outcome, Run
from support.songs import STEMS
from torch import Tensor, nn

from stemsplit import devices
from stemsplit.cli import main as cli
from stemsplit.models import checkpoint
from stemsplit.models.checkpoint import Header, Model, new_model
from stemsplit.models.registry import ModelSpec

torch.set_num_threads(1)
# What the caller ignores, programs that the tests start would ignore as well: SIGINT in the background jobs of a shell,
# SIGHUP under nohup. A handler of Python's is not inherited.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, lambda number, frame: None)
hypothesis.settings.register_profile("any machine", deadline=None)  # how busy it is says nothing about the code
hypothesis.settings.load_profile("any machine")


@pytest.fixture(scope="session", autouse=True)
def own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Nothing that the user has configured or downloaded plays a part, and nothing is left there."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "HF_HOME"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name)))
        for name in ("HF_HUB_CACHE", "HF_ENDPOINT", "HF_TOKEN", "HF_HUB_OFFLINE"):
            patch.delenv(name, raising=False)
        for name in [name for name in os.environ if name.startswith("STEMSPLIT_")]:
            patch.delenv(name)
        # Results are compared to the last bit, whatever this processor would choose.
        patch.setattr(devices, "choose_precision", lambda device: "full")
        yield


class Shares(nn.Module):
    """Gives every stem a fixed share of the mixture: what comes out is known, and adds up if the shares do."""

    def __init__(self, shares: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("shares", torch.tensor(shares)[:, None, None])
        self.batches: list[int] = []

    def forward(self, mix: Tensor) -> Tensor:
        """`(B, C, N)` -> `(B, S, C, N)`."""
        self.batches.append(len(mix))
        return mix.unsqueeze(1) * self.get_buffer("shares")


@pytest.fixture(scope="session")
def shares_model() -> Callable[..., Model]:
    """A function that makes a model whose stems are known shares of the mixture."""

    def make(
        *,
        shares: Sequence[float] = (0.5, 0.25, 0.125, 0.125),
        rate: int = 44_100,
        channels: int = 2,
        length: int = 4096,
        hop: int = 3000,
    ) -> Model:
        names = STEMS[: len(shares)]
        header = Header("shares", {}, stems=names, rate=rate, channels=channels, length=length, hop=hop)
        return Model(header, Shares(shares).eval())

    return make


@pytest.fixture(scope="session")
def unet_model() -> Callable[..., Model]:
    """A function that makes a tiny U-Net with random weights; the same seed gives the same weights."""

    def make(
        *,
        seed: int = 1,
        stems: tuple[str, ...] = STEMS,
        rate: int = 44_100,
        channels: int = 2,
        length: int = 4096,
        hop: int = 3072,
    ) -> Model:
        torch.manual_seed(seed)
        model = new_model(Header("unet", TINY_UNET, stems=stems, rate=rate, channels=channels, length=length, hop=hop))
        model.network.train()
        with torch.no_grad():  # batch statistics unlike those of a fresh network
            model.network(torch.randn(4, channels, length))
        return Model(model.header, model.network.eval())

    return make


@pytest.fixture(scope="session")
def make_song() -> Callable[..., dict[str, np.ndarray]]:
    """A function that writes a folder of stems, float WAV, and returns them `(N, C)` by name."""

    def make(
        folder: Path,
        *,
        stems: Sequence[str] = STEMS,
        length: int = 16_000,
        rate: int = 8_000,
        channels: int = 2,
        seed: int = 0,
    ) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        time = np.arange(length)[:, None] / rate
        pan = rng.uniform(0.3, 1.0, (4, channels))
        beat = np.exp(-((time * 4) % 1) * 20)
        tune = 1 + rng.uniform(0, 0.3)
        parts = {
            "vocals": 0.2 * np.sin(2 * np.pi * (500 * tune * time + 3 * np.sin(2 * np.pi * 5 * time))) * pan[0],
            "drums": 0.3 * rng.standard_normal((length, channels)) * beat * pan[1],
            "bass": 0.3 * np.sin(2 * np.pi * 70 * tune * time) * pan[2],
            "other": 0.1 * sum(np.sin(2 * np.pi * f * tune * time) for f in (1500, 2100, 2700)) * pan[3],
        }
        folder.mkdir(parents=True, exist_ok=True)
        written = {stem: parts[stem].astype(np.float32) for stem in stems}
        for stem, samples in written.items():
            soundfile.write(folder / f"{stem}.wav", samples, rate, subtype="FLOAT")
        return written

    return make


# The program


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(
    here: Path,
    unet_model: Callable[..., Model],
    monkeypatch: pytest.MonkeyPatch,
    capfdbinary: pytest.CaptureFixture[bytes],
) -> Run:
    """A function that runs `stemsplit`, through `main()`, with a tiny model under the name model.safetensors."""
    checkpoint.save(unet_model(rate=8_000), here / "model.safetensors")

    def call(*arguments: str, model: bool = True) -> Outcome:
        chosen = ["--model", "model.safetensors", "--device", "cpu"] if model else []
        monkeypatch.setattr(sys, "argv", ["stemsplit", *arguments, *chosen])
        capfdbinary.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
            raise SystemExit(0)
        return Outcome(int(str(ended.value.code or 0)), *map(os.fsdecode, capfdbinary.readouterr()))

    return call


# The Hub


@pytest.fixture
def server() -> Iterator[Hub]:
    """A Hub without repositories."""
    with serve() as running:
        yield running


@pytest.fixture
def cache(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a client that uses it and the server."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "own"))
    point_to(server.endpoint, monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    return tmp_path / "hub"


@pytest.fixture
def spec(server: Hub, cache: Path) -> ModelSpec:
    """A model of two files that the server has, with sizes and hashes."""
    files = []
    for file in SPEC.files:
        content = file.name.encode() + CONTENT
        files.append(replace(file, size=len(content), sha256=server.add(REPO, file.name, content)))
    return replace(SPEC, files=tuple(files))
