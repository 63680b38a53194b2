"""Time stretching at constant pitch, by the phase vocoder of torchaudio: the one module that imports it.

torchaudio's last release cannot be imported beside many builds of PyTorch: with one for another version of CUDA it
raises RuntimeError, and with one for CPUs its compiled part cannot be loaded. The phase vocoder needs no compiled code,
so it is imported without running the part that fails.
"""

import importlib
import importlib.util
import math
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from stemsplit.errors import UsageError
from stemsplit.wording import one_line

Vocoder = Callable[[Tensor, float, Tensor], Tensor]

NAME = "torchaudio"
FRAME_SECONDS = 0.046  # of the STFT: 2048 samples at 44.1 kHz


def stretch(samples: Tensor, length: int, rate: int) -> Tensor:
    """Stretch samples to another length at constant pitch (Flanagan and Golden, "Phase vocoder", 1966).

    Args:
        samples: `(..., N)`.
        length: Samples in the result.
        rate: Hz.

    Returns:
        `(..., length)`.

    Raises:
        UsageError: torchaudio is missing, or unusable.
    """
    vocoder = load_vocoder()
    n_fft = 2 ** round(math.log2(rate * FRAME_SECONDS))
    hop = n_fft // 4
    flat = samples.reshape(-1, samples.shape[-1])
    window = torch.hann_window(n_fft)
    spectrum = torch.stft(flat, n_fft, hop, window=window, pad_mode="constant", return_complex=True)
    advance = torch.linspace(0, math.pi * hop, n_fft // 2 + 1)[:, None]
    stretched = vocoder(spectrum, samples.shape[-1] / length, advance)
    played = torch.istft(stretched, n_fft, hop, window=window, length=length)
    return played.reshape(*samples.shape[:-1], length)


@lru_cache
def load_vocoder() -> Vocoder:
    """Return torchaudio's `phase_vocoder`.

    Raises:
        UsageError: torchaudio is missing, or unusable.
    """
    try:
        if importlib.util.find_spec(NAME) is None:
            raise UsageError(
                "pitch shifting and time stretching need torchaudio, which is not installed",
                "pip install 'stemsplit-audio[train]', or set pitch = 0 and tempo = 0 in the recipe",
            )
        loaded = sys.modules.get(f"{NAME}.functional") or _load_functional()
        vocoder: Vocoder = loaded.phase_vocoder
    except (ImportError, AttributeError, OSError, RuntimeError, ValueError) as error:
        hint = "pip install --upgrade 'stemsplit-audio[train]', or set pitch = 0 and tempo = 0 in the recipe"
        raise UsageError(f"the installed torchaudio is unusable: {one_line(error)}", hint) from error
    return vocoder


def _load_functional() -> ModuleType:
    """Import `torchaudio.functional` below an empty stand-in for the package that only has its path."""
    spec = importlib.util.find_spec(NAME)
    assert spec is not None
    package = ModuleType(NAME)
    package.__path__ = list(spec.submodule_search_locations or ())
    extension: Any = ModuleType(f"{NAME}._extension")
    # Flags for compiled parts, all false, and decorators for functions that need them.
    extension.__getattr__ = lambda name: (lambda function: function) if name.startswith("fail_") else False
    with _in_place_of_torchaudio({NAME: package, extension.__name__: extension}), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(f"{NAME}.functional")


@contextmanager
def _in_place_of_torchaudio(modules: dict[str, ModuleType]) -> Iterator[None]:
    """Replace torchaudio within the block; later imports get the real package, or its error."""
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == NAME}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == NAME]:
            del sys.modules[name]
        sys.modules.update(before)
