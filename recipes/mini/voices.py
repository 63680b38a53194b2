"""Speech of many synthetic voices, analysed by the WORLD vocoder and cut into syllables that can be sung."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyworld
from numpy.typing import NDArray
from scipy import ndimage, signal
from songs import RATE, read, resample

FRAME = 5.0  # ms between two frames of the analysis
_FLITE = ("slt", "rms", "kal16", "slt", "rms")  # the natural ones twice; awb is kept for the test songs
FLITE_TEST = "awb"
# Names and sounds to choose from, separated by blanks.
_LANGUAGES = "en-us en-gb en-gb-scotland en-us es es-419 it pt-br fr-fr de nl sv fi ja pl cs el ro hu tr id sw eo la"
_VARIANTS = (
    "f1 f2 f3 f4 f5 m1 m2 m3 m4 m5 m6 m7 m8 klatt2 klatt4 Andy Annie Alicia Andrea Diogo Gene Hugo Jacky Lee Mario "
    "Michael Mike Storm anika antonio aunty belinda benjamin caleb david ed grandma iven john marcelo max michel "
    "miguel pablo paul pedro rob shelby steph travis zac"
)
_WORDS = (
    "love night light fire heart away tonight forever dancing shadow river morning over under running falling again "
    "dream baby never always higher summer winter rain home road city silver golden moon star ocean wave hold me you "
    "we are the in of and I feel know want need see come go stay take give leave remember tomorrow burning shining "
    "alone together nothing everything maybe crazy easy slowly sweet blue deep wild free true lost found time mind "
    "line sky high low down around breathe believe whisper secret mirror stranger angel machine electric radio"
)
_ONSETS = "b d f g h k l m n p r s t v w z sh ch st tr l n m r"
_VOWELS = "a e i o u a o ai ei au ia"
_CODAS = ("", "", "", "", "n", "m", "l", "s", "r")


@dataclass(frozen=True)
class Voice:
    """A speaker: flite voice or espeak-ng voice and variant; `size` scales the formants, `range` are MIDI keys."""

    engine: str
    name: str
    size: float
    low: int
    breath: float


@dataclass(frozen=True)
class Syllable:
    """A syllable, in frames: its start, the steady part of its vowel, and its end."""

    start: int
    core_start: int
    core_end: int
    end: int


@dataclass(frozen=True)
class Phrase:
    """Analysed speech: envelope and aperiodicity (frames, bins), voicing (frames,), and its syllables."""

    envelope: NDArray[np.float64]
    aperiodicity: NDArray[np.float64]
    voiced: NDArray[np.bool_]
    syllables: tuple[Syllable, ...]


def random_voice(rng: np.random.Generator) -> Voice:
    """Choose a speaker other than the test one, with another vocal tract."""
    size, breath = float(np.exp(rng.normal(0, 0.08))), float(rng.choice([0.0, 0.0, 0.1, 0.3]))
    if rng.random() < 0.5:
        name = str(rng.choice(_FLITE))
        low = 55 if name == "slt" else 45
    else:
        variant = str(rng.choice(_VARIANTS.split()))
        name = f"{rng.choice(_LANGUAGES.split())}+{variant}"
        low = 55 if variant[0] == "f" or variant[-1] == "a" else 47
    low += int(rng.integers(-3, 5)) + round(12 * np.log2(1 / size))
    return Voice("espeak-ng" if "+" in name else "flite", name, size, low, breath)


def test_voice(rng: np.random.Generator) -> Voice:
    """Return the speaker that is held out from training."""
    return Voice("flite", FLITE_TEST, float(np.exp(rng.normal(0, 0.05))), 46, 0.0)


def random_text(voice: Voice, rng: np.random.Generator) -> str:
    """Make a line to sing: English words, or invented ones that the voice reads in its own language."""
    if voice.engine == "flite" or (voice.name.startswith("en") and rng.random() < 0.7):
        return " ".join(rng.choice(_WORDS.split(), size=int(rng.integers(4, 8))))
    words = []
    for _ in range(int(rng.integers(3, 6))):
        parts = [f"{rng.choice(_ONSETS.split())}{rng.choice(_VOWELS.split())}" for _ in range(int(rng.integers(1, 4)))]
        words.append("".join(parts) + str(rng.choice(_CODAS)))
    return " ".join(words)


def speak(voice: Voice, text: str) -> Phrase:
    """Synthesise the text, and analyse it at `RATE`."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "speech.wav")
        if voice.engine == "flite":
            command = ["flite", "-voice", voice.name, "-t", text, "-o", str(file)]
        else:
            command = ["espeak-ng", "-v", voice.name, "-s", "140", "-w", str(file), text]
        subprocess.run(command, check=True, timeout=60, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        audio, rate = read(file)
    return analyse(resample(audio, rate)[0], band=0.41 * rate)


def analyse(audio: NDArray[np.float32], *, band: float = 0.0) -> Phrase:
    """WORLD analysis of mono speech (N,); above `band` Hz, where slow voices have nothing, treble is invented."""
    samples = audio.astype(np.float64) / max(1e-6, float(np.abs(audio).max()))
    rough, times = pyworld.dio(samples, RATE, f0_floor=60, f0_ceil=900, frame_period=FRAME)
    pitch = pyworld.stonemask(samples, rough, times, RATE)
    envelope = pyworld.cheaptrick(samples, pitch, times, RATE)
    aperiodicity = pyworld.d4c(samples, pitch, times, RATE)
    voiced = pitch > 0
    if band:
        _extend(envelope, aperiodicity, voiced, band)
    return Phrase(envelope, aperiodicity, voiced, tuple(_syllables(envelope, voiced)))


def _extend(
    envelope: NDArray[np.float64], aperiodicity: NDArray[np.float64], voiced: NDArray[np.bool_], band: float
) -> None:
    """Continue the envelope above `band` from the level below it, falling 9 dB an octave; vowels 6 dB lower."""
    frequencies = np.arange(envelope.shape[1]) * RATE / 2 / (envelope.shape[1] - 1)
    edge, below = int(np.searchsorted(frequencies, band)), int(np.searchsorted(frequencies, 0.7 * band))
    level = np.log(envelope[:, below:edge] + 1e-16).mean(axis=1) - 1.4 * voiced
    fall = 10 ** (-0.9 * np.log2(frequencies[edge:] / (0.85 * band)))
    envelope[:, edge:] = np.exp(level)[:, None] * fall
    aperiodicity[:, edge:] = np.maximum(aperiodicity[:, edge:], 0.6)


def _syllables(envelope: NDArray[np.float64], voiced: NDArray[np.bool_]) -> list[Syllable]:
    """A syllable around each peak of the energy between 300 and 3500 Hz, cut at the minima between them."""
    bins = envelope.shape[1]
    low, high = (int(2 * bins * frequency / RATE) for frequency in (300, 3500))
    energy = 10 * np.log10(envelope[:, low:high].sum(axis=1) + 1e-12)
    energy = ndimage.gaussian_filter1d(np.maximum(energy, energy.max() - 50), 5)
    peaks, _ = signal.find_peaks(energy, prominence=2.5, distance=18)
    peaks = [int(peak) for peak in peaks if voiced[peak] and energy[peak] > energy.max() - 25]
    if not peaks:
        return []
    cuts = [a + int(np.argmin(energy[a:b])) for a, b in pairwise(peaks)]
    sounding = np.flatnonzero(energy > energy.max() - 40)
    edges = [min(int(sounding[0]), peaks[0]), *cuts, max(int(sounding[-1]) + 1, peaks[-1] + 1)]
    syllables = []
    for start, peak, end in zip(edges[:-1], peaks, edges[1:], strict=True):
        steady = voiced & (energy > energy[peak] - 4)
        first, last = peak, peak
        while first > start and steady[first - 1]:
            first -= 1
        while last < end - 1 and steady[last + 1]:
            last += 1
        syllables.append(Syllable(start, first, last + 1, end))
    return syllables
