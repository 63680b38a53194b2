"""Singing: the syllables of a phrase are stretched over notes, and the voice's pitch follows the melody."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyworld
from midi import Note
from numpy.typing import NDArray
from scipy import ndimage
from songs import RATE, Audio
from voices import FRAME, Phrase, Syllable, Voice

Curve = NDArray[np.float64]


def _time_map(syllables: list[Syllable], notes: list[Note], length: int) -> Curve:
    """For each of `length` output frames the source frame: vowels begin on the beat and fill their notes.

    Consonants keep their duration unless the note is too short for that; -1 is silence.
    """
    source = np.full(length, -1.0)
    per_second = 1000 / FRAME
    for index, (part, note) in enumerate(zip(syllables, notes, strict=True)):
        onset, coda = part.core_start - part.start, part.end - part.core_end
        begin, end = note.start * per_second, note.end * per_second
        onset_out = min(onset, 0.16 * per_second)
        follower = notes[index + 1] if index + 1 < len(notes) else None
        if follower is not None and follower.start - note.end < 0.05:  # make room for the next syllable's onset
            next_part = syllables[index + 1]
            end = follower.start * per_second - min(next_part.core_start - next_part.start, 0.16 * per_second)
        end = max(end, begin + 0.06 * per_second)
        coda_out = min(coda, 0.35 * (end - begin), 0.15 * per_second)
        places = np.array([begin - onset_out, begin, end - coda_out, end])
        frames = np.array([part.start, part.core_start, part.core_end - 1, part.end - 1], dtype=float)
        first, last = max(0, int(np.ceil(places[0]))), min(length, int(np.floor(places[3])))
        if last > first:
            source[first:last] = np.interp(np.arange(first, last), places, frames)
    return source


def _pitch(notes: list[Note], length: int, rng: np.random.Generator) -> Curve:
    """The sung pitch in MIDI keys: steps softened to glides, vibrato on long notes, drift and jitter."""
    pitch = np.full(length, float(notes[0].key))
    vibrato = np.zeros(length)
    rate, depth = rng.uniform(4.6, 6.4), rng.uniform(0.1, 0.6)
    glide = rng.uniform(3, 11)  # frames
    lead = int(rng.uniform(0, 10))
    for note in notes:
        begin, end = (int(time * 1000 / FRAME) for time in (note.start, note.end))
        pitch[max(0, begin - lead) :] = note.key
        if end - begin > 60:
            grow = np.clip((np.arange(end - begin) - 35) / 50, 0, 1)
            span = slice(begin, min(end, length))
            vibrato[span] = np.maximum(vibrato[span], grow[: max(0, min(end, length) - begin)])
        if rng.random() < 0.25:  # scoop up into the note
            span = slice(max(0, begin - lead), min(length, begin - lead + 14))
            pitch[span] -= rng.uniform(0.5, 2.0) * np.linspace(1, 0, max(0, span.stop - span.start))
    pitch = ndimage.gaussian_filter1d(pitch, glide / 2)
    time = np.arange(length) * FRAME / 1000
    drift = ndimage.gaussian_filter1d(rng.standard_normal(length), 40) * 1.0
    jitter = ndimage.gaussian_filter1d(rng.standard_normal(length), 2) * 0.06
    swing = vibrato * depth * np.sin(2 * np.pi * rate * time + ndimage.gaussian_filter1d(drift, 30) * 3)
    return np.asarray(pitch + swing + drift * rng.uniform(0.3, 1.2) + jitter, dtype=np.float64)


def sing(phrase: Phrase, notes: list[Note], voice: Voice, seconds: float, rng: np.random.Generator) -> Audio:
    """A phrase sung on notes, a syllable each (as many as both have): audio (1, N) of `seconds`."""
    count = min(len(phrase.syllables), len(notes))
    notes, syllables = notes[:count], list(phrase.syllables[:count])
    length = int(seconds * 1000 / FRAME)
    source = _time_map(syllables, notes, length)
    heard = source >= 0
    at = np.clip(source, 0, len(phrase.voiced) - 1)
    before = np.floor(at).astype(int)
    after, part = np.minimum(before + 1, len(phrase.voiced) - 1), (at - before)[:, None]
    envelope = np.exp((1 - part) * np.log(phrase.envelope[before]) + part * np.log(phrase.envelope[after]))
    noise = phrase.aperiodicity[before]
    voiced = phrase.voiced[before] & heard
    envelope = _resize(envelope, voice.size)
    if voice.breath:
        noise = np.where(
            voiced[:, None], np.clip(noise + voice.breath * np.linspace(0, 1, noise.shape[1]), 0, 1), noise
        )
    loudness = np.exp(ndimage.gaussian_filter1d(rng.standard_normal(length), 20)) * _dynamics(notes, length)
    gate = ndimage.gaussian_filter1d(heard.astype(float), 1.5) * heard
    envelope = envelope * (loudness * gate)[:, None] ** 2 + 1e-14
    frequency = 440 * 2 ** ((_pitch(notes, length, rng) - 69) / 12)
    return _synthesize(np.where(voiced, frequency, 0.0), envelope, noise)[:, : int(seconds * RATE)]


def _synthesize(frequency: Curve, envelope: Curve, noise: Curve) -> Audio:
    """WORLD synthesis: audio (1, N)."""
    parts = (np.ascontiguousarray(part) for part in (frequency, envelope, noise))
    return np.asarray(pyworld.synthesize(*parts, RATE, FRAME)[None], dtype=np.float32)


def _resize(envelope: Curve, size: float) -> Curve:
    """Scale the vocal tract by `size`: formants move down as it grows."""
    bins = np.arange(envelope.shape[1])
    at = np.minimum(bins * size, bins[-1])
    before = np.floor(at).astype(int)
    after, part = np.minimum(before + 1, bins[-1]), at - before
    return np.asarray((1 - part) * envelope[:, before] + part * envelope[:, after], dtype=np.float64)


def _dynamics(notes: list[Note], length: int) -> Curve:
    level = np.ones(length)
    for note in notes:
        level[max(0, int(note.start * 1000 / FRAME) - 20) :] = 0.4 + 0.6 * note.velocity / 127
    return np.asarray(ndimage.gaussian_filter1d(level, 8), dtype=np.float64)


def humanize(notes: list[Note], rng: np.random.Generator, *, shift: int = 0) -> list[Note]:
    """The notes as a second singer would time them, `shift` keys higher."""
    moved = []
    for note in notes:
        late = rng.normal(0, 0.018)
        start = max(0.0, note.start + late)
        moved.append(replace(note, start=start, end=max(note.end + late, start + 0.08), key=note.key + shift))
    return moved


def transform(phrase: Phrase, pitch: Curve, *, size: float, stretch: float) -> Audio:
    """Resynthesise analysed singing with its own pitch (Hz, a value a frame) changed beforehand: audio (1, N)."""
    length = int(len(pitch) * stretch)
    at = np.minimum((np.arange(length) / stretch).astype(int), len(pitch) - 1)
    return _synthesize(pitch[at], _resize(phrase.envelope[at], size), phrase.aperiodicity[at])
