"""Synthesizers in numpy: oscillators without aliasing, envelopes, a swept resonant filter; instruments as patches."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from effects import saturate
from midi import Note
from numpy.typing import NDArray
from scipy import signal
from songs import RATE, Audio

Wave = NDArray[np.float64]  # (N,)


@dataclass(frozen=True)
class Patch:
    """A sound. Times in s; `cutoff` in Hz, and `sweep` octaves above it that decay in `sweep_time`."""

    kind: str  # saw, square, fm, pluck, sine
    voices: int = 1
    detune: float = 0.0  # semitones between the outermost voices
    attack: float = 0.005
    decay: float = 0.3
    sustain: float = 0.7
    release: float = 0.1
    ratio: float = 2.0  # FM: modulator to carrier
    index: float = 2.0  # FM: depth
    sub: float = 0.0  # level of a sine an octave below
    cutoff: float = 8000.0
    sweep: float = 0.0
    sweep_time: float = 0.2
    resonance: float = 0.7
    wobble: float = 0.0  # octaves by which the filter swings, `wobble_rate` times a second
    wobble_rate: float = 4.0
    drive: float = 0.0  # soft clipping after the filter; 8 is a distortion


def _saw(phase: Wave, step: float) -> Wave:
    """Sawtooth whose jump is rounded by two samples (PolyBLEP, Valimaki and Huovilainen 2007)."""
    at = phase % 1.0
    early, late = at < step, at > 1 - step
    wave = 2 * at - 1
    t = at[early] / step
    wave[early] -= 2 * t - t * t - 1
    t = (at[late] - 1) / step
    wave[late] -= t * t + 2 * t + 1
    return wave


def _envelope(patch: Patch, held: int, total: int) -> Wave:
    """Attack, decay to the sustain level, and a release that begins after `held` samples."""
    time = np.arange(total) / RATE
    rise = np.minimum(1, time / max(1e-4, patch.attack))
    fall = patch.sustain + (1 - patch.sustain) * np.exp(-np.maximum(0, time - patch.attack) / max(1e-3, patch.decay))
    after = np.maximum(0, np.arange(total) - held) / RATE
    shape = rise * fall * np.exp(-5 * after / max(1e-3, patch.release))
    fade = min(200, total)
    shape[total - fade :] *= np.linspace(1, 0, fade)
    return np.asarray(shape, dtype=np.float64)


def _pluck(frequency: float, total: int, rng: np.random.Generator) -> Wave:
    """Karplus-Strong string: a burst of noise around a damped delay line."""
    delay = max(2, round(RATE / frequency))
    burst = np.zeros(total)
    burst[: min(delay, total)] = rng.uniform(-1, 1, min(delay, total))
    feedback = np.zeros(delay + 2)
    feedback[0], feedback[delay], feedback[delay + 1] = 1.0, -0.498, -0.498
    return np.asarray(signal.lfilter([1.0], feedback, burst), dtype=np.float64)


def tone(patch: Patch, key: float, seconds: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """One note (2, N), held for `seconds`, before the filter."""
    held, total = int(seconds * RATE), int((seconds + patch.release) * RATE)
    time = np.arange(total) / RATE
    out = np.zeros((2, total))
    for voice in range(patch.voices):
        spread = 0.0 if patch.voices == 1 else voice / (patch.voices - 1) - 0.5
        frequency = 440 * 2 ** ((key + spread * patch.detune - 69) / 12)
        phase = rng.uniform() + frequency * time
        step = frequency / RATE
        if patch.kind == "saw":
            wave = _saw(phase, step)
        elif patch.kind == "square":
            wave = _saw(phase, step) - _saw(phase + patch.sustain * 0.3 + 0.25, step)
        elif patch.kind == "fm":
            depth = patch.index * np.exp(-time / max(0.02, patch.sweep_time * 3))
            wave = np.sin(2 * np.pi * phase + depth * np.sin(2 * np.pi * patch.ratio * frequency * time))
        elif patch.kind == "pluck":
            wave = _pluck(frequency, total, rng)
        else:
            wave = np.sin(2 * np.pi * phase)
        angle = (1 + 1.6 * spread) * np.pi / 4
        out += np.outer([np.cos(angle), np.sin(angle)], wave)
    if patch.sub:
        out += patch.sub * np.sin(np.pi * 440 * 2 ** ((key - 69) / 12) * time)
    return np.asarray(out * _envelope(patch, held, total) / np.sqrt(patch.voices), dtype=np.float64)


def sweep_filter(audio: NDArray[np.float64], cutoff: Wave, resonance: float) -> NDArray[np.float64]:
    """Two-pole low-pass whose cutoff (Hz, a value for every 128 samples) moves, applied without phase shift; (2, N)."""
    size, hop = 1024, 256
    frequencies, _, spectrum = signal.stft(audio, RATE, nperseg=size, noverlap=size - hop)
    moments = np.minimum(2 * np.arange(spectrum.shape[2]), len(cutoff) - 1)
    relative = frequencies[:, None] / np.clip(cutoff[moments], 30, 0.45 * RATE)
    spectrum *= 1 / np.sqrt((1 - relative**2) ** 2 + (relative / resonance) ** 2)
    _, filtered = signal.istft(spectrum, RATE, nperseg=size, noverlap=size - hop)
    return np.asarray(filtered[:, : audio.shape[1]], dtype=np.float64)


def play(patch: Patch, notes: list[Note], seconds: float, rng: np.random.Generator, *, slow: float = 0.0) -> Audio:
    """Notes on a patch: audio (2, N). `slow` octaves: a random slow movement of the filter over the song."""
    length = int(seconds * RATE)
    out = np.zeros((2, length))
    made: dict[tuple[int, int], NDArray[np.float64]] = {}
    hops = np.zeros(-(-length // 128))
    for note in notes:
        start = int(note.start * RATE)
        if start >= length:
            continue
        which = (note.key, round((note.end - note.start) * 100))
        if which not in made:
            made[which] = tone(patch, note.key, max(0.03, note.end - note.start), rng)
        sound = made[which][:, : length - start]
        out[:, start : start + sound.shape[1]] += sound * (note.velocity / 127)
        if patch.sweep:
            first = start // 128
            hops[first:] = np.exp(-np.arange(len(hops) - first) * 128 / RATE / patch.sweep_time)
    octaves = patch.sweep * hops
    if slow:
        knots = rng.uniform(-slow, slow / 2, max(2, int(seconds / 4)))
        octaves = octaves + np.interp(np.linspace(0, 1, len(hops)), np.linspace(0, 1, len(knots)), knots)
    if patch.wobble:
        swing = np.sin(2 * np.pi * patch.wobble_rate * np.arange(len(hops)) * 128 / RATE)
        octaves = octaves + patch.wobble * (1 + swing) / 2
    filtered = sweep_filter(out, patch.cutoff * 2.0**octaves, patch.resonance).astype(np.float32)
    return saturate(filtered, patch.drive) if patch.drive else filtered


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def random_bass(rng: np.random.Generator) -> Patch:
    """A sub, saw, square, FM, acid, or decaying 808-like bass; one in three growls through its middle register."""
    kind = str(rng.choice(["sub", "saw", "square", "fm", "acid", "boom", "reese", "growl", "growl", "growl", "growl"]))
    short = Patch("saw", attack=0.003, release=rng.uniform(0.03, 0.15), decay=rng.uniform(0.1, 0.6))
    swept = replace(short, sweep=rng.uniform(0, 4), sweep_time=rng.uniform(0.05, 0.4), cutoff=rng.uniform(150, 900))
    if kind == "sub":
        return replace(short, kind="sine", sustain=0.9, cutoff=2000)
    if kind == "growl":
        return replace(
            short, kind=str(rng.choice(["saw", "square", "fm"])), voices=int(rng.choice([1, 2, 3])),
            detune=rng.uniform(0.1, 0.6), sub=rng.uniform(0.2, 2), sustain=rng.uniform(0.6, 1),
            ratio=float(rng.choice([0.5, 1, 2, 3, 4])), index=rng.uniform(3, 12), sweep_time=rng.uniform(0.1, 1),
            cutoff=_log_uniform(rng, 200, 2000), resonance=rng.uniform(1, 8),
            sweep=float(rng.choice([0, rng.uniform(0, 3)])), wobble=float(rng.choice([0, rng.uniform(1, 4)])),
            wobble_rate=float(rng.choice([1, 2, 3, 4, 6, 8])) * rng.uniform(0.8, 1.2), drive=rng.uniform(1, 8),
        )  # fmt: skip
    if kind == "fm":
        ratio = float(rng.choice([0.5, 1, 1, 2]))
        return replace(short, kind="fm", ratio=ratio, index=rng.uniform(0.5, 4), cutoff=5000)
    if kind == "acid":
        return replace(swept, sustain=0.6, resonance=rng.uniform(3, 9), sweep=rng.uniform(2, 5))
    if kind == "boom":
        return Patch("sine", sustain=0.0, cutoff=3000, attack=0.002, decay=rng.uniform(0.3, 1.0), release=0.2)
    if kind == "reese":
        return replace(swept, voices=3, detune=rng.uniform(0.2, 0.6), sub=0.5, sustain=0.9)
    return replace(swept, kind=kind, sub=rng.uniform(0, 0.8), sustain=rng.uniform(0.4, 1))


def random_pad(rng: np.random.Generator) -> Patch:
    """Something for chords: supersaw, soft square, electric piano."""
    if rng.random() < 0.3:
        return Patch("fm", ratio=float(rng.choice([1, 2, 3, 7, 14])), index=rng.uniform(0.5, 3), sustain=0.2,
                     decay=rng.uniform(0.4, 1.5), release=0.3, cutoff=rng.uniform(3000, 12000))  # fmt: skip
    return Patch(
        str(rng.choice(["saw", "saw", "square"])), voices=int(rng.choice([1, 2, 3, 5, 7])),
        detune=rng.uniform(0.1, 0.5), attack=float(rng.choice([0.005, 0.02, 0.3])), decay=rng.uniform(0.2, 1.0),
        sustain=rng.uniform(0.3, 1), release=rng.uniform(0.1, 0.6), cutoff=_log_uniform(rng, 300, 9000),
        sweep=float(rng.choice([0, rng.uniform(0.5, 3)])), sweep_time=rng.uniform(0.1, 0.6),
        resonance=rng.uniform(0.6, 2),
    )  # fmt: skip


def random_lead(rng: np.random.Generator) -> Patch:
    """Something for arpeggios and lines: short, bright, plucked or bell-like."""
    kind = str(rng.choice(["saw", "square", "fm", "fm", "pluck", "sine"]))
    return Patch(
        kind, voices=1 if kind not in ("saw", "square") else int(rng.choice([1, 2, 3])), detune=rng.uniform(0.05, 0.3),
        decay=rng.uniform(0.08, 0.6), sustain=rng.uniform(0, 0.6), release=rng.uniform(0.05, 0.5),
        ratio=float(rng.choice([1, 2, 3, 3.5, 5, 7])), index=rng.uniform(0.5, 5), cutoff=_log_uniform(rng, 500, 14000),
        sweep=float(rng.choice([0, rng.uniform(0.5, 3)])), sweep_time=rng.uniform(0.05, 0.4),
        resonance=rng.uniform(0.6, 3),
    )  # fmt: skip
