"""Composed electronic songs: programmed drums, synth bass, pads, arpeggios and leads, some with a singer."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import composing
import numpy as np
import sampler
import synths
import voices
from composing import Piece
from effects import echo, produce
from midi import Note
from numpy.typing import NDArray
from songs import RATE, Audio, Job, Song
from vocals import sung

Hit = tuple[float, str, float]  # start in seconds, role, gain

# Sixteenths of a bar on which a role plays.
_KICKS = ((0, 4, 8, 12), (0, 4, 8, 12), (0, 4, 8, 12, 14), (0, 10), (0, 6, 10), (0, 3, 10), (0, 7, 8), (0, 2, 10, 13))
_SNARES = ((4, 12), (4, 12), (4, 12), (8,), (4, 12, 15), (4, 7, 9, 12), ())
_HATS = (
    (2, 6, 10, 14), tuple(range(0, 16, 2)), tuple(range(16)), (0, 2, 3, 6, 8, 10, 11, 14), (0, 3, 6, 8, 11, 14),
    (0, 2, 4, 6, 8, 10, 12, 13, 14, 15), (),
)  # fmt: skip


def _pick(options: tuple[tuple[int, ...], ...], rng: np.random.Generator) -> tuple[int, ...]:
    return options[int(rng.integers(len(options)))]


def drum_hits(piece: Piece, plays: NDArray[np.bool_], rng: np.random.Generator) -> list[Hit]:
    """A programmed beat in the bars in which drums play, with fills and a crash after them."""
    patterns = {"kick": _pick(_KICKS, rng), "snare": _pick(_SNARES, rng), "closed": _pick(_HATS, rng)}
    patterns["open"] = (2, 6, 10, 14) if rng.random() < 0.3 else (14,) if rng.random() < 0.3 else ()
    patterns["percussion"] = tuple(int(i) for i in np.flatnonzero(rng.random(16) < rng.choice([0, 0, 0.15, 0.3])))
    swing, unit = float(rng.choice([0, 0, 0, 0.18, 0.3])), piece.beat / 4
    hits: list[Hit] = []
    for bar in np.flatnonzero(plays):
        fill = bar % 4 == 3 and rng.random() < 0.5
        for role, pattern in patterns.items():
            for place in pattern:
                if fill and place >= 12 and role != "closed":
                    continue
                late = swing * unit if place % 2 else 0.0
                hits.append(((bar * 16 + place) * unit + late, role, float(rng.uniform(0.75, 1.0))))
        if fill:
            role = str(rng.choice(["snare", "tom", "percussion"]))
            places = np.flatnonzero(rng.random(4) < 0.8) + 12
            hits += [((bar * 16 + place) * unit, role, 0.5 + 0.04 * place) for place in places]
        if bar % 8 == 0 and rng.random() < 0.5:
            hits.append((bar * 16 * unit, "crash", 1.0))
    return hits


def duck(audio: Audio, times: list[float], *, depth: float, seconds: float) -> Audio:
    """Side chain: the level dips by `depth` (0 to 1) at each kick and comes back within `seconds`."""
    gain = np.ones(audio.shape[1], np.float32)
    shape = 1 - depth * (1 - np.linspace(0, 1, int(seconds * RATE), dtype=np.float32)) ** 2
    for time in times:
        start = int(time * RATE)
        span = gain[start : start + len(shape)]
        np.minimum(span, shape[: len(span)], out=span)
    return audio * gain


def _layers(bars: int, rng: np.random.Generator, chance: float) -> NDArray[np.bool_]:
    """Choose the bars in which a layer plays, four at a time."""
    return np.repeat(rng.random(-(-bars // 4)) < chance, 4)[:bars]


def _in_bars(notes: list[Note], plays: NDArray[np.bool_], piece: Piece) -> list[Note]:
    return [note for note in notes if plays[min(int(note.start / (4 * piece.beat) + 1e-6), len(plays) - 1)]]


def other(piece: Piece, rng: np.random.Generator) -> Audio:
    """Two to four layers of chords, arpeggios and lines, echoes in time."""
    bars = range(len(piece.chords))
    mix = np.zeros((2, int(piece.seconds * RATE)), np.float32)
    for index in range(int(rng.integers(2, 5))):
        kind = "chords" if index == 0 else str(rng.choice(["chords", "arpeggio", "arpeggio", "line"]))
        low = int(rng.integers(48, 62))
        if kind == "chords":
            patch, notes = synths.random_pad(rng), composing.chord_notes(piece, bars, low, rng)
        elif kind == "arpeggio":
            patch, notes = synths.random_lead(rng), composing.arpeggio(piece, bars, low + 4, rng)
        else:
            patch = synths.random_lead(rng)
            count = int(rng.integers(4, 14))
            notes = [
                note
                for bar in range(0, len(bars) - 1, 2)
                for note in composing.melody(piece, bar, 2, count, low + 12, rng)
            ]
        notes = _in_bars(notes, _layers(len(bars), rng, rng.uniform(0.3, 0.9)), piece)
        audio = synths.play(patch, notes, piece.seconds, rng, slow=float(rng.choice([0, 1, 2.5])))
        if rng.random() < 0.4:
            steps = float(rng.choice([0.5, 0.75, 1.0]))
            audio = echo(audio, seconds=steps * piece.beat, feedback=rng.uniform(0.2, 0.6), wet=rng.uniform(0.2, 0.6))
        mix += audio * np.float32(np.exp(rng.normal(0, 0.4)) / max(1e-3, float(audio.std())) * 0.05)
    return mix


def bass(patch: synths.Patch, line: list[Note], seconds: float, rng: np.random.Generator) -> Audio:
    """A bass line; in two of five songs with a second sound one to three octaves above, which could be a lead."""
    audio = synths.play(patch, line, seconds, rng, slow=float(rng.choice([0, 0, 1.5])))
    if rng.random() >= 0.4:
        return audio
    octaves = 12 * int(rng.integers(1, 4))
    above = [Note(note.start, note.end, note.key + octaves, note.velocity) for note in line]
    second = synths.random_lead(rng) if rng.random() < 0.5 else synths.random_bass(rng)
    second = replace(second, sustain=max(second.sustain, 0.5), cutoff=max(second.cutoff, 800.0))
    layer = synths.play(second, above, seconds, rng)
    level = 10 ** (rng.uniform(-12, 3) / 20) * float(audio.std()) / max(1e-6, float(layer.std()))
    return audio + np.float32(level) * layer


def _song(sources: Path, test: bool, rng: np.random.Generator, *, sings: bool = True) -> Song:
    piece = composing.random_piece(rng, 42)
    bars, seconds = len(piece.chords), piece.seconds
    hits = drum_hits(piece, _layers(bars, rng, rng.uniform(0.5, 1)), rng)
    drums = sampler.play_hits(sampler.random_kit(sources, rng), hits, seconds)
    patch = synths.random_bass(rng)
    line = _in_bars(
        composing.bass_line(piece, range(bars), int(rng.integers(26, 36)), rng),
        _layers(bars, rng, rng.uniform(0.4, 1)),
        piece,
    )
    song = {
        "drums": drums,
        "bass": bass(patch, line, seconds, rng),
        "other": other(piece, rng),
    }
    if rng.random() < 0.5:
        kicks = [time for time, role, _ in hits if role == "kick"]
        depth, release = rng.uniform(0.3, 0.95), rng.uniform(0.1, 0.9) * piece.beat
        song |= {stem: duck(song[stem], kicks, depth=depth, seconds=release) for stem in ("bass", "other")}
    if test or (sings and rng.random() < 0.6):
        voice = voices.test_voice(rng) if test else voices.random_voice(rng)
        song["vocals"] = sung(piece, voice, rng)
    return {stem: produce(stem, audio, rng) for stem, audio in song.items()}


def jobs(sources: Path, *, count: int) -> list[Job]:
    """`count` songs for training, and two for testing, sung by the held-out voice."""
    tests = [Job("test", f"electronic-test-{index}", partial(_song, sources, True)) for index in range(2)]
    return tests + [Job("train", f"electronic-{index:03d}", partial(_song, sources, False)) for index in range(count)]


def instrumental_jobs(sources: Path, *, count: int) -> list[Job]:
    """Songs for training without a singer."""
    make = partial(_song, sources, False, sings=False)
    return [Job("train", f"instrumental-{index:03d}", make) for index in range(count)]
