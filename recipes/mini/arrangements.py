"""Songs from complete MIDI band arrangements, rendered stem by stem with a General MIDI sound font."""

from __future__ import annotations

import hashlib
from functools import lru_cache, partial
from pathlib import Path

import midi
import mido
import numpy as np
from effects import produce
from songs import Job, Song

HELD_OUT = ("d_dm05", "d_e2m3", "d_map07", "d_map24")
_INSTRUMENTS = {  # programs that may stand in for each other, by General MIDI family
    "bass": (32, 33, 34, 35, 36, 37, 38, 39),
    "piano": (0, 1, 2, 3, 4, 5, 6, 7),
    "organ": (16, 17, 18, 19, 21),
    "guitar": (24, 25, 26, 27, 28, 29, 30),
    "strings": (40, 41, 42, 44, 48, 49, 50, 51),
    "brass": (56, 57, 58, 60, 61, 62, 63),
    "reed": (64, 65, 66, 67, 68, 71),
    "pipe": (72, 73, 74, 75, 79),
    "lead": (80, 81, 82, 84, 85, 86, 87),
    "pad": (88, 89, 90, 91, 92, 93, 94, 95),
}


@lru_cache
def files(sources: Path) -> tuple[Path, ...]:
    """The arrangements, each once (some are there under several names), longer than half a minute."""
    distinct: dict[str, Path] = {}
    for path in sorted((sources / "midi" / "freedoom" / "musics").glob("d_*.mid")):
        events = midi.read_events(path)
        starts = [event for event in events if midi.is_start(event)]
        if len(starts) < 100 or starts[-1].time < 30:
            continue
        print_of = hashlib.sha256(repr([(round(e.time, 2), e.message.note) for e in starts]).encode()).hexdigest()
        if path.stem in HELD_OUT or print_of not in distinct:
            distinct[print_of] = path
    return tuple(sorted(distinct.values()))


def reorchestrate(events: list[midi.Event], rng: np.random.Generator) -> list[midi.Event]:
    """Exchange programs within their family, and the drum kit."""
    kit = int(rng.choice(midi.DRUM_KITS))
    chosen = {p: int(rng.choice(family)) for family in _INSTRUMENTS.values() for p in family}
    changed = []
    for event in events:
        message = event.message
        if message.type == "program_change":
            program = kit if message.channel == midi.DRUM_CHANNEL else chosen.get(message.program, message.program)
            message = message.copy(program=program)
        changed.append(midi.Event(event.time, message, event.stem))
    first = mido.Message("program_change", channel=midi.DRUM_CHANNEL, program=kit)
    return [midi.Event(0.0, first), *changed]


def excerpt_of(path: Path, rng: np.random.Generator, seconds: float, *, varied: bool) -> list[midi.Event]:
    """The busiest `seconds` of a file; `varied` in tempo, key and instruments."""
    events = midi.read_events(path)
    if varied:
        events = reorchestrate(events, rng)
        events = midi.vary(events, speed=rng.uniform(0.8, 1.25), transpose=int(rng.integers(-5, 7)))
    return midi.excerpt(events, midi.busiest_excerpt(events, seconds), seconds)


def _song(path: Path, font: Path, seconds: float, varied: bool, rng: np.random.Generator) -> Song:
    events = excerpt_of(path, rng, seconds, varied=varied)
    stems = sorted({event.stem for event in events if midi.is_start(event)})
    return {stem: produce(stem, midi.render(events, font, seconds, stem=stem), rng) for stem in stems}


def jobs(sources: Path, fonts: Path, *, again: bool = False) -> list[Job]:
    """One excerpt of each arrangement, the sound fonts in turn; `again` in another font, tempo, key and scoring."""
    made = []
    for index, path in enumerate(files(sources)):
        if path.stem in HELD_OUT:
            continue
        font = fonts / midi.SOUND_FONTS[(index + again) % 2]
        name = f"freedoom-{path.stem}" + ("-varied" if again else "")
        made.append(Job("train", name, partial(_song, path, font, 60.0 if again else 75.0, again)))
    return made
