"""Time stretching without a change of pitch, by the phase vocoder of torchaudio: the one module that imports it.

torchaudio's last release refuses to be imported beside many builds of PyTorch: beside one for another version of CUDA
it raises RuntimeError, and beside one for CPUs its compiled half cannot be loaded. The phase vocoder needs no compiled
code, and is taken from the package without running the part that fails.
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
    """Samples `(..., N)` at `rate` Hz, played slower or faster so that they become `(..., length)`, at the same pitch.

    Flanagan and Golden, "Phase vocoder" (1966), as torchaudio has it. Raises UsageError as `load_vocoder` does.
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
    """torchaudio's `phase_vocoder`. Raises UsageError when it is not installed, or of no use."""
    try:
        if importlib.util.find_spec(NAME) is None:
            raise UsageError(
                "shifting the pitch and stretching the time need torchaudio, which is not installed",
                "pip install 'stemsplit[train]', or set pitch = 0 and tempo = 0 in the recipe",
            )
        loaded = sys.modules.get(f"{NAME}.functional") or _load_functional()
        vocoder: Vocoder = loaded.phase_vocoder
    except (ImportError, AttributeError, OSError, RuntimeError, ValueError) as error:
        hint = "pip install --upgrade 'stemsplit[train]', or set pitch = 0 and tempo = 0 in the recipe"
        raise UsageError(f"the torchaudio that is installed cannot be used: {one_line(error)}", hint) from error
    return vocoder


def _load_functional() -> ModuleType:
    """`torchaudio.functional`, imported beneath a package of that name that is empty but for its place on disk."""
    spec = importlib.util.find_spec(NAME)
    assert spec is not None
    package = ModuleType(NAME)
    package.__path__ = list(spec.submodule_search_locations or ())
    extension: Any = ModuleType(f"{NAME}._extension")
    # Its flags of what was compiled, and decorators for functions that need what was not.
    extension.__getattr__ = lambda name: (lambda function: function) if name.startswith("fail_") else False
    with _in_place_of_torchaudio({NAME: package, extension.__name__: extension}), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(f"{NAME}.functional")


@contextmanager
def _in_place_of_torchaudio(modules: dict[str, ModuleType]) -> Iterator[None]:
    """For a moment; whoever imports torchaudio later gets the whole of it, or its error."""
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == NAME}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == NAME]:
            del sys.modules[name]
        sys.modules.update(before)
