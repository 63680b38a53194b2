"""What the tests share: networks small enough to run anywhere, and songs made of sines and noise."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile  # type: ignore[import-untyped]
import torch
from torch import Tensor, nn

from stemsplit.checkpoint import Header, Model, new_model

STEMS = ("vocals", "drums", "bass", "other")
TINY_UNET = {"n_fft": 512, "hop": 128, "bands": 24, "linear_bands": 8, "widths": [4, 6]}

torch.set_num_threads(1)


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
