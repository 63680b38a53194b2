"""Drums only: human performances on sound-font kits and on one-shots, and loops."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

import midi
import mido
import numpy as np
import sampler
from effects import produce
from songs import Job, Song, fit, read, resample, stereo

# The electronic kit of the performances sends keys that General MIDI lacks: hi-hat edges and rims.
TO_GENERAL_MIDI = {22: 42, 26: 46, 58: 43}
LOOPS = ("amen", "amen_full", "breakbeat", "compus", "industrial", "mehackit1", "mehackit2", "mika", "safari", "tabla")


def performances(sources: Path) -> list[Path]:
    """The performances of 20 s and more, in a fixed shuffled order so that any first part of the list is varied."""
    folder = sources / "midi" / "groove"
    with (folder / "info.csv").open(newline="") as table:
        rows = [row["midi_filename"] for row in csv.DictReader(table) if float(row["duration"]) >= 20]
    rows.sort()
    return [folder / rows[index] for index in np.random.default_rng(0).permutation(len(rows))]


def drum_notes(path: Path, rng: np.random.Generator, seconds: float) -> list[midi.Note]:
    """An excerpt of a performance in General MIDI keys, somewhat faster or slower."""
    events = midi.read_events(path)
    starts = [event for event in events if midi.is_start(event)]
    latest = max(0.0, starts[-1].time - seconds)
    begin, speed = rng.uniform(0, latest), rng.uniform(0.85, 1.2)
    return [
        midi.Note(
            (event.time - begin) / speed,
            (event.time - begin) / speed + 0.1,
            TO_GENERAL_MIDI.get(event.message.note, event.message.note),
            event.message.velocity,
        )
        for event in starts
        if begin <= event.time < begin + seconds * speed
    ]


def _on_sound_font(path: Path, fonts: Path, rng: np.random.Generator) -> Song:
    seconds = rng.uniform(20, 45)
    channel, kit = midi.DRUM_CHANNEL, int(rng.choice(midi.DRUM_KITS))
    events = [midi.Event(0.0, mido.Message("program_change", channel=channel, program=kit))]
    for note in drum_notes(path, rng, seconds):
        message = mido.Message("note_on", channel=channel, note=note.key, velocity=note.velocity)
        events += [midi.Event(note.start, message, "drums")]
        events += [midi.Event(note.end, message.copy(velocity=0), "drums")]
    font = fonts / str(rng.choice(midi.SOUND_FONTS))
    return {"drums": produce("drums", midi.render(events, font, seconds), rng)}


def _on_one_shots(path: Path, sources: Path, rng: np.random.Generator) -> Song:
    seconds = rng.uniform(20, 40)
    kit = sampler.random_kit(sources, rng)
    audio = sampler.play_drums(kit, drum_notes(path, rng, seconds), seconds, rng)
    return {"drums": produce("drums", audio, rng)}


def _loop(path: Path, rng: np.random.Generator) -> Song:
    """A drum loop at some speed, its eighths shuffled in half of the bars."""
    audio, rate = read(path)
    audio = resample(stereo(audio), rate * rng.uniform(0.8, 1.25))
    bars = []
    for _ in range(max(2, round(16 * 44_100 / audio.shape[1]))):
        if rng.random() < 0.5:
            bars.append(audio)
        else:
            pieces = np.array_split(audio, 8, axis=1)
            bars.append(np.concatenate([pieces[i] for i in rng.integers(0, 8, 8)], axis=1))
    joined = np.concatenate(bars, axis=1)
    return {"drums": produce("drums", fit(joined, min(joined.shape[1], 44_100 * 25)), rng)}


def jobs(sources: Path, fonts: Path, *, count: int) -> list[Job]:
    """`count` performances, sound fonts and one-shots in turn, and each of the loops twice."""
    made = []
    for index, path in enumerate(performances(sources)[:count]):
        name = f"groove-{path.parent.parent.name}-{path.parent.name}-{path.stem}"
        if index % 2:
            made.append(Job("train", name, partial(_on_sound_font, path, fonts)))
        else:
            made.append(Job("train", name, partial(_on_one_shots, path, sources)))
    for take in (1, 2):
        for loop in LOOPS:
            path = sources / "samples" / "sonic-pi-samples" / "etc" / "samples" / f"loop_{loop}.ogg"
            made.append(Job("train", f"loop-{loop}-{take}", partial(_loop, path)))
    return made
