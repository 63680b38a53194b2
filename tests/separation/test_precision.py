"""Which precision is chosen, and what is recorded of it."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from support.program import Run, write_song

from stemsplit import devices
from stemsplit.devices import choose_precision
from stemsplit.models.checkpoint import Model
from stemsplit.separation.options import SeparationOptions
from stemsplit.separation.separator import Separator


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A function that says what the machine chooses."""
    return lambda precision: monkeypatch.setattr(devices, "choose_precision", lambda device: precision)


class _Clock:
    """Stands for a processor on which products take as long as is said here."""

    def __init__(self, seconds: dict[torch.dtype, float]) -> None:
        self.now, self.seconds = 0.0, seconds

    def linear(self, matrix: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        self.now += self.seconds[matrix.dtype]
        return weight


@pytest.mark.parametrize(("bfloat16", "precision"), [(0.5, "half"), (0.9, "full"), (1.7, "full")])
def test_16_bits_where_they_are_faster(monkeypatch: pytest.MonkeyPatch, bfloat16: float, precision: str) -> None:
    clock = _Clock({torch.float32: 1.0, torch.bfloat16: bfloat16})
    monkeypatch.setattr(torch.nn.functional, "linear", clock.linear)
    monkeypatch.setattr(time, "perf_counter", lambda: clock.now)
    devices.computes_bfloat16_faster.cache_clear()
    try:
        assert choose_precision("cpu") == precision
    finally:
        devices.computes_bfloat16_faster.cache_clear()


@pytest.mark.parametrize(("capability", "precision"), [((6, 1), "full"), ((7, 0), "half"), ((9, 0), "half")])
def test_on_graphics_cards(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: str) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    assert choose_precision("cuda") == precision
    assert choose_precision("mps") == "full"


@pytest.mark.parametrize("precision", ["full", "half"])
def test_auto_is_what_the_machine_chooses(
    unet_model: Callable[..., Model], chosen: Callable[[str], None], precision: str
) -> None:
    chosen(precision)
    model, mixture = unet_model(), np.random.default_rng(1).standard_normal((2, 9000)).astype(np.float32)
    separator = Separator(model)
    assert separator.options.precision == precision
    expected = Separator(model, SeparationOptions(precision=precision)).separate_array(mixture, 44_100)
    for stem, audio in separator.separate_array(mixture, 44_100).items():
        assert np.array_equal(audio, expected[stem])


@pytest.mark.full
def test_the_manifest_says_what_ran(run: Run, here: Path, chosen: Callable[[str], None]) -> None:
    """Stems are not made again because another machine would choose another precision, but if one is asked for."""
    write_song(here / "song.wav")

    def separate(*options: str) -> tuple[str, bytes]:
        assert run("song.wav", "--skip-existing", *options).code == 0
        manifest = json.loads((here / "separated/song/stemsplit.json").read_text())
        return manifest["runs"][0]["settings"]["precision"], (here / "separated/song/bass.wav").read_bytes()

    chosen("half")
    first = separate()
    assert first[0] == "half"
    chosen("full")
    assert separate() == first
    assert separate("--precision", "half") == first
    full = separate("--precision", "full")
    assert full[0] == "full"
    assert full[1] != first[1]
