"""Vocal stems: a lead singer on a piece, doubled or harmonised, and new versions of recorded singing."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import composing
import numpy as np
import pyworld
import voices
from composing import Piece
from effects import pan, produce
from midi import Note
from recordings import SOLOS
from singing import humanize, sing, transform
from songs import RATE, Audio, Job, Song, fit, read, resample, stereo
from voices import FRAME, Voice


def sung(piece: Piece, voice: Voice, rng: np.random.Generator, *, rest: float = 0.25) -> Audio:
    """A voice over the whole piece, two bars a line: (2, N), unproduced; `rest` is the share of lines left out.

    Some lines come back with the same words and tune, as choruses do. Two lines in five are doubled or harmonised.
    """
    out = np.zeros((2, int(piece.seconds * RATE)), np.float32)
    length = 2
    lines: list[tuple[voices.Phrase, list[int]]] = []
    style = rng.choice(["single", "double", "harmony", "choir"], p=[0.5, 0.2, 0.2, 0.1])
    for bar in range(0, len(piece.chords) - length + 1, length):
        if rng.random() < rest:
            continue
        if lines and rng.random() < 0.35:
            phrase, contour = lines[int(rng.integers(len(lines)))]
        else:
            phrase = voices.speak(voice, voices.random_text(voice, rng))
            contour = [int(step) for step in rng.choice([-2, -1, -1, 0, 1, 1, 2, 3], size=len(phrase.syllables))]
            if phrase.syllables:
                lines.append((phrase, contour))
        if not phrase.syllables:
            continue
        notes = composing.melody(piece, bar, length, len(phrase.syllables), voice.low, rng, contour)
        begin = max(0.0, notes[0].start - 0.5)
        seconds = min(notes[-1].end + 0.5, piece.seconds) - begin
        near = [Note(n.start - begin, n.end - begin, n.key, n.velocity) for n in notes]
        takes = [(near, 0.0, 1.0)]
        if style == "double":
            takes += [(humanize(near, rng), side, 0.5) for side in (-0.7, 0.7)]
        if style in ("harmony", "choir") and rng.random() < 0.7:
            shifts = [3, 4, 7, -5] if style == "choir" else [int(rng.choice([3, 4, -3, -5, 12]))]
            takes += [(humanize(_harmony(piece, near, shift), rng), rng.uniform(-0.8, 0.8), 0.5) for shift in shifts]
        first = int(begin * RATE)
        for line, place, gain in takes:
            audio = pan(stereo(sing(phrase, line, voice, seconds, rng)), place)[:, : out.shape[1] - first]
            out[:, first : first + audio.shape[1]] += np.float32(gain) * audio
    return out


def _harmony(piece: Piece, notes: list[Note], shift: int) -> list[Note]:
    """The notes about `shift` keys away, moved onto the scale."""
    scale = {(piece.root + step) % 12 for step in piece.scale}
    moved = [note.key + shift for note in notes]
    moved = [key if key % 12 in scale else key - 1 for key in moved]
    return [Note(n.start, n.end, key, n.velocity) for n, key in zip(notes, moved, strict=True)]


def _voice_alone(rng: np.random.Generator) -> Song:
    piece = composing.random_piece(rng, 30)
    return {"vocals": produce("vocals", sung(piece, voices.random_voice(rng), rng, rest=0.1), rng)}


def _solo_transformed(path: Path, rng: np.random.Generator) -> Song:
    """Recorded singing, transposed, with another vocal tract and tempo."""
    audio, rate = read(path)
    mono = resample(audio[:1], rate)[0]
    phrase = voices.analyse(mono)
    samples = mono.astype(np.float64)
    rough, times = pyworld.dio(samples, RATE, f0_floor=60, f0_ceil=1000, frame_period=FRAME)
    pitch = pyworld.stonemask(samples, rough, times, RATE) * 2 ** (rng.uniform(-6, 6) / 12)
    voice = stereo(transform(phrase, pitch, size=float(np.exp(rng.normal(0, 0.1))), stretch=rng.uniform(0.8, 1.25)))
    return {"vocals": produce("vocals", fit(voice, voice.shape[1] + RATE), rng)}


def jobs(sources: Path, *, count: int) -> list[Job]:
    """`count` synthetic singers alone, and 18 transformations of the recorded ones."""
    made = [Job("train", f"voice-{index:03d}", _voice_alone) for index in range(count)]
    for index in range(18):
        path = sources / "vocals" / SOLOS[index % len(SOLOS)]
        made.append(Job("train", f"solo-{path.stem}-{index:02d}", partial(_solo_transformed, path)))
    return made
