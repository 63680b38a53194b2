"""Shared by the parts of the recipe: a song as stems, its random generator, and writing it atomically."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
import soxr
from numpy.typing import NDArray

RATE = 44_100  # Hz
STEMS = ("vocals", "drums", "bass", "other")

Audio = NDArray[np.float32]  # (C, N)
Song = Mapping[str, Audio]  # stem name -> (2, N), all of one length


@dataclass(frozen=True)
class Job:
    """A song to make: `make` gets the song's own random generator, so neither order nor parallelism matters."""

    split: str  # "train" or "test"
    name: str
    make: Callable[[np.random.Generator], Song]


def generator(seed: int, name: str) -> np.random.Generator:
    """The random generator of the song `name` under `seed`."""
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def read(path: Path) -> tuple[Audio, int]:
    """Audio (C, N) of a file and its rate in Hz."""
    samples, rate = sf.read(path, dtype="float32", always_2d=True)
    return np.ascontiguousarray(samples.T), int(rate)


def resample(audio: Audio, rate: float, *, to: float = RATE) -> Audio:
    """Audio (C, N) at another rate; `rate` above the true one speeds up and raises the pitch ("varispeed")."""
    if rate == to:
        return audio
    return np.ascontiguousarray(soxr.resample(np.ascontiguousarray(audio.T), rate, to).T.astype(np.float32))


def stereo(audio: Audio) -> Audio:
    """Copy mono (1, N) to both channels; return stereo unchanged."""
    return np.repeat(audio, 2, axis=0) if len(audio) == 1 else audio[:2]


def fit(audio: Audio, length: int) -> Audio:
    """Cut audio, or pad it with silence, to `length` samples."""
    return np.pad(audio[:, :length], ((0, 0), (0, max(0, length - audio.shape[1]))))


def active_powers(audio: Audio) -> NDArray[np.float32]:
    """Mean square of every quarter second that is louder than -45 dB of full scale."""
    block = RATE // 4
    count = audio.shape[1] // block
    power = (audio[:, : count * block].reshape(len(audio), count, block) ** 2).mean(axis=(0, 2))
    return np.asarray(power[power > 10**-4.5])


def active_level(audio: Audio) -> float:
    """RMS in dB of full scale over the quarter seconds louder than -45 dB (-inf where there is none)."""
    power = active_powers(audio)
    return float(10 * np.log10(power.mean())) if len(power) else -np.inf


def at_level(audio: Audio, level: float) -> Audio:
    """Scale audio to an active RMS of `level` dB; quiet audio is first raised above the threshold."""
    peak = float(np.abs(audio).max(initial=0))
    if peak < 1e-5:
        return audio
    audio = audio * np.float32(0.5 / peak)
    present = active_level(audio)
    return audio if present == -np.inf else audio * np.float32(10 ** ((level - present) / 20))


def write_song(folder: Path, song: Song) -> None:
    """Write `<folder>/<stem>.wav` (16 bit); the folder appears complete or not at all.

    One gain for all the stems keeps every peak under full scale. Stems of digital silence are left out.
    """
    stems = {name: audio for name, audio in song.items() if float(np.abs(audio).max(initial=0)) > 1e-4}
    if not stems:
        raise ValueError(f"nothing sounds in {folder.name}")
    if len({audio.shape for audio in stems.values()}) != 1 or not all(np.isfinite(a).all() for a in stems.values()):
        raise ValueError(f"stems of {folder.name} differ in shape or hold NaN: {[a.shape for a in stems.values()]}")
    gain = min(1.0, 0.97 / max(float(np.abs(audio).max()) for audio in stems.values()))
    making = folder.parent.parent / ".making" / folder.name
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    for name, audio in stems.items():
        sf.write(making / f"{name}.wav", audio.T * np.float32(gain), RATE, subtype="PCM_16")
    making.rename(folder)
