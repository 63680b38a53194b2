"""Audio to measure with: the demo song, repeated to any length."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

import stemsplit

DEMO = Path(stemsplit.__file__).parent / "demo.ogg"


def demo_song() -> tuple[npt.NDArray[np.float32], int]:
    """Read the demo song: samples `(N, C)` and sample rate in Hz."""
    samples, rate = soundfile.read(DEMO, dtype="float32", always_2d=True)
    return samples, rate


def write_song(path: Path, seconds: float) -> None:
    """Write a 16-bit WAV of exactly `seconds`, one repetition of the demo song at a time."""
    samples, rate = demo_song()
    left = round(seconds * rate)
    with soundfile.SoundFile(path, "w", rate, samples.shape[1], "PCM_16") as file:
        while left:
            block = samples[:left]
            file.write(block)
            left -= len(block)
