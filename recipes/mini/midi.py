"""MIDI files as note lists in seconds, taken apart into stems, and rendered with a General MIDI sound font."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import mido
import numpy as np
from songs import RATE, Audio, fit, read

SOUND_FONTS = ("sf2/FluidR3_GM.sf2", "sf2/MuseScore_General_Full.sf2")  # both MIT
DRUM_CHANNEL = 9  # counted from 0
DRUM_KITS = (0, 8, 16, 24, 25, 32, 40, 48)  # standard, room, power, electronic, TR-808, jazz, brush, orchestra
_TICKS = 960  # to the half second at the 120 beats per minute everything is written in


@dataclass(frozen=True)
class Event:
    """A channel message at `time` seconds; notes also have their stem."""

    time: float
    message: mido.Message
    stem: str = ""


@dataclass(frozen=True)
class Note:
    """A note of one stem: times in seconds, MIDI key and velocity."""

    start: float
    end: float
    key: int
    velocity: int
    program: int = 0


def stem_of(channel: int, program: int) -> str:
    """The stem of a General MIDI program: channel 10 and percussive programs are drums."""
    if channel == DRUM_CHANNEL or 112 <= program <= 119:
        return "drums"
    return "bass" if 32 <= program <= 39 else "other"


def read_events(path: Path) -> list[Event]:
    """Read all channel messages of a file, in order of time."""
    events, programs, now = [], [0] * 16, 0.0
    for message in mido.MidiFile(path, clip=True):
        now += message.time
        if message.is_meta or not hasattr(message, "channel"):
            continue
        if message.type == "program_change":
            programs[message.channel] = message.program
        is_note = message.type in ("note_on", "note_off")
        stem = stem_of(message.channel, programs[message.channel]) if is_note else ""
        events.append(Event(now, message, stem))
    return events


def is_start(event: Event) -> bool:
    return bool(event.message.type == "note_on" and event.message.velocity > 0)


def busiest_excerpt(events: list[Event], seconds: float) -> float:
    """The start of the excerpt in which the fewest stems fall silent: each second counts the stems that start notes."""
    starts = [event for event in events if is_start(event)]
    length = int(starts[-1].time) + 1
    sounding = np.zeros((3, length + 1))
    for event in starts:
        sounding[("drums", "bass", "other").index(event.stem), int(event.time)] = 1
    total = np.convolve(sounding.sum(axis=0), np.ones(int(seconds)))[int(seconds) - 1 :]
    last = max(1, length - int(seconds) + 1)
    return float(np.argmax(total[:last]))


def excerpt(events: list[Event], start: float, seconds: float) -> list[Event]:
    """Cut an excerpt, shifted to 0; controllers that were set before it are set at its start."""
    kept = []
    for event in events:
        if event.stem == "" and event.time < start + seconds:
            kept.append(replace(event, time=max(0.0, event.time - start)))
        elif event.stem and start <= event.time < start + seconds:
            kept.append(replace(event, time=event.time - start))
    return kept


def vary(events: list[Event], *, speed: float, transpose: int) -> list[Event]:
    """Change the tempo, and transpose everything but the drums."""
    varied = []
    for event in events:
        message = event.message
        if event.stem and event.stem != "drums":
            message = message.copy(note=int(np.clip(message.note + transpose, 0, 127)))
        varied.append(Event(event.time / speed, message, event.stem))
    return varied


def notes_of(events: list[Event], stem: str) -> list[Note]:
    """The notes of a stem, with the program each was played with."""
    notes: list[Note] = []
    programs, sounding = [0] * 16, dict[tuple[int, int], Note]()
    for event in events:
        message = event.message
        if message.type == "program_change":
            programs[message.channel] = message.program
        if event.stem != stem:
            continue
        begun = sounding.pop((message.channel, message.note), None)
        if begun is not None:
            notes.append(replace(begun, end=max(event.time, begun.start + 0.03)))
        if is_start(event):
            note = Note(event.time, event.time, message.note, message.velocity, programs[message.channel])
            sounding[(message.channel, message.note)] = note
    return sorted(notes, key=lambda note: note.start)


def render(events: list[Event], font: Path, seconds: float, *, stem: str = "", gain: float = 0.5) -> Audio:
    """Play the notes of `stem` (all notes if empty) and every controller; audio (2, N), reverb and chorus off."""
    track = mido.MidiTrack()
    before = 0
    for event in sorted(events, key=lambda event: event.time):
        if event.stem and stem and event.stem != stem:
            continue
        tick = round(event.time * 2 * _TICKS)
        track.append(event.message.copy(time=tick - before))
        before = tick
    # All sound off on every channel: fluidsynth keeps playing while anything sounds.
    rest = max(0, round(seconds * 2 * _TICKS) - before)
    for channel in range(16):
        time = rest if channel == 0 else 0
        track.append(mido.Message("control_change", channel=channel, control=120, time=time))
    with tempfile.TemporaryDirectory() as folder:
        score, audio = Path(folder, "score.mid"), Path(folder, "audio.wav")
        mido.MidiFile(tracks=[track], ticks_per_beat=_TICKS).save(score)
        command = ["fluidsynth", "-niq", "-R0", "-C0", f"-g{gain}", f"-r{RATE}", "-Twav", "-Ofloat", f"-F{audio}"]
        command += ["-o", "synth.dynamic-sample-loading=1", str(font), str(score)]
        # Rendering is much faster than real time, so the limit only catches a renderer that hangs.
        limit = 60 + 2 * seconds
        subprocess.run(command, check=True, timeout=limit, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        rendered, _ = read(audio)
    return fit(rendered, int(seconds * RATE))
