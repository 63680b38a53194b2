"""Rock, pop, reggae and country bands: human drumming, sampled basses and guitars with amplifiers, and keys."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import composing
import drumming
import midi
import mido
import numpy as np
import sampler
from composing import Piece
from effects import compress, filter_with, high_pass, low_pass, pan, produce, reverberate, saturate
from midi import Note
from scipy import signal
from songs import RATE, Audio, Job, Song, fit

SECONDS = (28.0, 42.0)
_BASSES = (
    "electric-bass-YR/FingerBassYR 20190930", "electric-bass-YR/PickedBassYR 20190930", "karoryfer.swagbass/swagbass",
    "karoryfer.swagbass/swagbass_clean", "karoryfer.swagbass/swagbass_shiny", "karoryfer.growlybass/growlybass_clean",
)  # fmt: skip
_GUITARS = (
    "karoryfer.emilyguitar/emily_basic", "karoryfer.emilyguitar/emily_clean",
    "spanish-classical-guitar/SpanishClassicalGuitar-20190618",
)  # fmt: skip
_BASS_PROGRAMS = (32, 33, 33, 34, 34, 35, 36)
_KITS = (0, 0, 8, 8, 16, 32, 40)  # standard, room, power, jazz, brush
_KEYS = {
    "piano": (0, 1, 2, 3), "electric piano": (4, 5, 7), "organ": (16, 17, 18, 19), "strings": (48, 49, 50),
    "brass": (61, 56, 66), "pad": (89, 90, 91, 95),
}  # fmt: skip
# Sixteenths of a bar on which a rhythm guitar strikes.
_RIFFS = (
    tuple(range(0, 16, 2)), tuple(range(16)), (0, 3, 6, 8, 11, 14), (0, 2, 3, 4, 6, 7, 8, 10, 12, 14), (0, 4, 8, 12),
    (0, 6, 8, 14), (0, 2, 6, 8, 10, 14), (0,), (0, 8),
)  # fmt: skip
_STRUMS = ((0, 4, 6, 10, 12, 14), (0, 4, 8, 12), tuple(range(0, 16, 2)), (0, 3, 6, 8, 10, 14), (0, 6, 10), (0,))
_OFF_BEATS = ((4, 12), (2, 6, 10, 14), (4, 6, 12, 14), (2, 3, 6, 10, 11, 14))


def _choose(options: tuple[Any, ...], rng: np.random.Generator) -> Any:
    return options[int(rng.integers(len(options)))]


def _human(notes: list[Note], rng: np.random.Generator, *, spread: float = 0.009) -> list[Note]:
    """Notes a little early or late, as a player who drags or pushes; `spread` in seconds."""
    lag = rng.normal(0, 0.006)
    moved = []
    for note in notes:
        shift = lag + rng.normal(0, spread)
        velocity = int(np.clip(note.velocity + rng.normal(0, 8), 20, 127))
        moved.append(replace(note, start=max(0.0, note.start + shift), end=note.end + shift, velocity=velocity))
    return sorted(moved, key=lambda note: note.start)


def _amplifier(audio: Audio, rng: np.random.Generator, *, drive: float) -> Audio:
    """A guitar amplifier: bass cut, one or two stages of clipping, and the band and the peaks of a loudspeaker."""
    audio = high_pass(audio, rng.uniform(60, 250), 1)
    audio = saturate(audio, drive)
    if drive > 8 and rng.random() < 0.6:
        audio = saturate(low_pass(audio, rng.uniform(3000, 8000), 1) + np.float32(rng.normal(0, 0.02)), drive / 3)
    return _loudspeaker(audio, rng, low=rng.uniform(70, 130), high=rng.uniform(3500, 6500))


def _loudspeaker(audio: Audio, rng: np.random.Generator, *, low: float, high: float) -> Audio:
    """Band limits and a few resonances, the same in both channels."""
    audio = high_pass(low_pass(audio, high, 4), low, 2)
    for _ in range(int(rng.integers(2, 6))):
        centre = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        b, a = signal.iirpeak(centre, rng.uniform(1, 6), fs=RATE)
        resonance = filter_with(signal.tf2sos(b, a), audio)
        audio = audio + np.float32(rng.uniform(-0.5, 1.0)) * resonance
    return audio


def _sampled(
    names: tuple[str, ...], sources: Path, notes: list[Note], seconds: float, rng: np.random.Generator
) -> Audio:
    zones = sampler.read_instrument(sources / "samples" / f"{_choose(names, rng)}.sfz")
    return sampler.play_notes(zones, notes, seconds, rng)


def _synthesized(program: int, font: Path, notes: list[Note], seconds: float) -> Audio:
    """Notes with one program of a sound font."""
    events = [midi.Event(0.0, mido.Message("program_change", program=program))]
    for note in notes:
        message = mido.Message("note_on", note=int(np.clip(note.key, 0, 127)), velocity=note.velocity)
        events += [midi.Event(note.start, message, "all"), midi.Event(note.end, message.copy(velocity=0), "all")]
    return midi.render(events, font, seconds)


def _struck(piece: Piece, pattern: tuple[int, ...], tones: Callable[[int], list[int]], hold: float, strum: float,
            rng: np.random.Generator) -> list[Note]:  # fmt: skip
    """Chords on the sixteenths of a pattern; each string is struck `strum` seconds after the one before."""
    unit, notes = piece.beat / 4, []
    for bar in range(len(piece.chords)):
        keys = tones(bar)
        for index, place in enumerate(pattern):
            following = pattern[index + 1] if index + 1 < len(pattern) else 16
            start = (bar * 16 + place) * unit
            end = start + max(0.06, (following - place) * unit * hold)
            velocity = int(rng.integers(80, 120)) - (12 if place % 4 else 0)
            order = keys if place % 4 == 0 or strum == 0 else keys[::-1]
            notes += [Note(start + strum * i, end, key, velocity) for i, key in enumerate(order)]
    return notes


def _guitar_chord(piece: Piece, bar: int, low: int) -> list[int]:
    chord = piece.chord(bar, low)
    return [*chord, *(key + 12 for key in chord)][:5]


def _power_chord(piece: Piece, bar: int, low: int) -> list[int]:
    root = low + (piece.key(piece.chords[bar], 0) - low) % 12
    return [root, root + 7, root + 12]


def _distorted_guitar(piece: Piece, sources: Path, font: Path, rng: np.random.Generator) -> Audio:
    """Power chords, most often played twice and panned to both sides."""
    hold = rng.choice([0.35, 0.6, 0.95])
    notes = _struck(
        piece, _choose(_RIFFS, rng), partial(_power_chord, piece, low=int(rng.integers(38, 46))), hold, 0.004, rng
    )
    drive, sampled, program = (
        float(np.exp(rng.uniform(np.log(4), np.log(60)))),
        rng.random() < 0.6,
        _choose((27, 28, 29, 30), rng),
    )
    takes = []
    for _ in range(2 if rng.random() < 0.7 else 1):
        played = _human(notes, rng, spread=0.012)
        if sampled:
            take = _sampled(_GUITARS[:2], sources, played, piece.seconds, rng)
        else:
            take = _synthesized(program, font, played, piece.seconds)
        takes.append(_amplifier(take, rng, drive=drive if sampled or program < 29 else drive / 6))
    if len(takes) == 1:
        return pan(takes[0], rng.uniform(-0.5, 0.5))
    spread = rng.uniform(0.4, 1.0)
    return pan(takes[0], -spread) + pan(takes[1], spread)


def _strummed_guitar(piece: Piece, sources: Path, font: Path, rng: np.random.Generator) -> Audio:
    """Clean or acoustic chords, on the beat or, as in reggae and ska, off it."""
    off = rng.random() < 0.3
    pattern = _choose(_OFF_BEATS if off else _STRUMS, rng)
    low = int(rng.integers(43, 55))
    notes = _struck(
        piece, pattern, partial(_guitar_chord, piece, low=low), 0.4 if off else rng.uniform(0.6, 1.2),
        rng.uniform(0.005, 0.025), rng,
    )  # fmt: skip
    notes = _human(notes, rng)
    if rng.random() < 0.5:
        audio = _sampled(_GUITARS, sources, notes, piece.seconds, rng)
    else:
        audio = _synthesized(_choose((24, 25, 25, 26, 27, 27, 28), rng), font, notes, piece.seconds)
    if rng.random() < 0.4:
        audio = _amplifier(audio, rng, drive=rng.uniform(1, 5))
    return pan(audio, rng.uniform(-0.7, 0.7))


def _picked_guitar(piece: Piece, sources: Path, font: Path, rng: np.random.Generator) -> Audio:
    notes = _human(composing.arpeggio(piece, range(len(piece.chords)), int(rng.integers(43, 57)), rng), rng)
    if rng.random() < 0.5:
        audio = _sampled(_GUITARS, sources, notes, piece.seconds, rng)
    else:
        audio = _synthesized(_choose((24, 25, 26, 27, 105), rng), font, notes, piece.seconds)
    return pan(audio, rng.uniform(-0.7, 0.7))


def _lead_guitar(piece: Piece, sources: Path, font: Path, rng: np.random.Generator) -> Audio:
    count, low = int(rng.integers(5, 16)), int(rng.integers(55, 68))
    notes = [n for bar in range(0, len(piece.chords) - 1, 2) for n in composing.melody(piece, bar, 2, count, low, rng)]
    notes = _human(notes, rng)
    if rng.random() < 0.5:
        audio = _sampled(_GUITARS[:2], sources, notes, piece.seconds, rng)
    else:
        audio = _synthesized(_choose((27, 29, 30), rng), font, notes, piece.seconds)
    return _amplifier(audio, rng, drive=float(np.exp(rng.uniform(0.7, 4))))


def _keys(piece: Piece, sources: Path, font: Path, rng: np.random.Generator) -> Audio:
    del sources
    kind = _choose(tuple(_KEYS), rng)
    bars = range(len(piece.chords))
    low = int(rng.integers(48, 62))
    if kind in ("organ", "strings", "pad") and rng.random() < 0.6:
        notes = _struck(piece, (0,), partial(piece.chord, low=low, size=4), 1.0, 0.0, rng)
    elif rng.random() < 0.2:
        notes = composing.arpeggio(piece, bars, low, rng)
    else:
        notes = composing.chord_notes(piece, bars, low, rng)
    if kind == "piano" and rng.random() < 0.5:  # a left hand, in the range of the bass
        notes += composing.bass_line(piece, bars, 36, rng)
    audio = _synthesized(_choose(_KEYS[kind], rng), font, _human(notes, rng), piece.seconds)
    if kind in ("organ", "electric piano") and rng.random() < 0.4:
        audio = saturate(audio, rng.uniform(1, 6))
    return audio


_LAYERS = (
    _distorted_guitar, _distorted_guitar, _distorted_guitar, _strummed_guitar, _strummed_guitar, _picked_guitar,
    _lead_guitar, _keys, _keys,
)  # fmt: skip


def _bass(piece: Piece, sources: Path, font: Path, rng: np.random.Generator) -> Audio:
    notes = composing.bass_line(piece, range(len(piece.chords)), int(rng.integers(26, 36)), rng)
    if rng.random() < 0.4:  # passing notes of the scale before a new chord
        notes += [
            Note((bar * 16 - 2) * piece.beat / 4, bar * 4 * piece.beat, piece.key(piece.chords[bar] - 1, 24) + 7, 100)
            for bar in range(1, len(piece.chords))
        ]
    if rng.random() < 0.4:  # damped by the palm or by foam
        hold = rng.uniform(0.3, 0.8)
        notes = [replace(note, end=note.start + max(0.07, hold * (note.end - note.start))) for note in notes]
    if rng.random() < 0.25:  # with gaps, as in reggae
        notes = [note for note in notes if rng.random() < 0.7] or notes
    notes = _human(notes, rng, spread=0.008)
    if rng.random() < 0.7:
        audio = _sampled(_BASSES, sources, notes, piece.seconds, rng)
    else:
        audio = _synthesized(_choose(_BASS_PROGRAMS, rng), font, notes, piece.seconds)
    if rng.random() < 0.6:
        audio = compress(audio, ratio=rng.uniform(2, 8), depth=rng.uniform(4, 14))
    if rng.random() < 0.5:
        drive = float(np.exp(rng.uniform(0, 2.5)))
        amplified = _loudspeaker(saturate(audio, drive), rng, low=rng.uniform(30, 60), high=rng.uniform(1500, 5000))
        share = np.float32(rng.uniform(0.3, 1.0))  # of the loudspeaker; the rest is the instrument's direct signal
        audio = share * amplified + (1 - share) * audio
    tone = rng.random()
    if tone < 0.35:  # dull: flat-wound strings, a closed tone control, dub
        audio = low_pass(audio, float(np.exp(rng.uniform(np.log(90), np.log(500)))), int(rng.integers(1, 5)))
    elif tone < 0.6:  # thin: the mixing engineer leaves the lowest octave to the bass drum
        audio = high_pass(audio, rng.uniform(60, 160), int(rng.integers(1, 3)))
    return audio


def _drums(path: Path, piece: Piece, begin: float, sources: Path, fonts: Path, rng: np.random.Generator) -> Audio:
    events = midi.read_events(path)
    speed = piece.bpm / _tempo(path)
    hits = [
        Note((e.time - begin) / speed, (e.time - begin) / speed + 0.1,
             drumming.TO_GENERAL_MIDI.get(e.message.note, e.message.note), e.message.velocity)
        for e in events if midi.is_start(e) and begin <= e.time < begin + piece.seconds * speed
    ]  # fmt: skip
    if rng.random() < 0.15:
        return sampler.play_drums(sampler.random_kit(sources, rng), hits, piece.seconds, rng)
    channel = midi.DRUM_CHANNEL
    played = [midi.Event(0.0, mido.Message("program_change", channel=channel, program=_choose(_KITS, rng)))]
    for hit in hits:
        message = mido.Message("note_on", channel=channel, note=hit.key, velocity=hit.velocity)
        played += [midi.Event(hit.start, message, "drums"), midi.Event(hit.end, message.copy(velocity=0), "drums")]
    audio = midi.render(played, fonts / _choose(midi.SOUND_FONTS, rng), piece.seconds)
    if rng.random() < 0.5:  # the room that a kit is recorded in, compressed
        room = reverberate(audio, rng, seconds=rng.uniform(0.2, 1.0), wet=1.0) - audio
        audio = audio + np.float32(rng.uniform(0.1, 0.6)) * compress(room, ratio=6, depth=15)
    # Recorded kits have more below 60 Hz and less above 4 kHz than those of sound fonts.
    if rng.random() < 0.6:
        low = low_pass(audio, rng.uniform(45, 90), 2)
        audio = audio + np.float32(10 ** (rng.uniform(0, 14) / 20) - 1) * low
    if rng.random() < 0.6:
        dull = low_pass(audio, rng.uniform(2000, 6000), 1)
        audio = dull + np.float32(rng.uniform(0.1, 0.7)) * (audio - dull)
    return audio


def _tempo(path: Path) -> float:
    match = re.search(r"_(\d+)_(?:beat|fill)_", path.name)
    assert match is not None, path
    return float(match.group(1))


def _song(path: Path, sources: Path, fonts: Path, rng: np.random.Generator) -> Song:
    font = fonts / midi.SOUND_FONTS[0]
    bpm = _tempo(path) * rng.uniform(0.92, 1.1)
    piece = replace(composing.random_piece(rng, rng.uniform(*SECONDS)), bpm=bpm)
    bars = max(8, round(rng.uniform(*SECONDS) / (4 * piece.beat)))
    piece = replace(piece, chords=tuple(piece.chords[i % len(piece.chords)] for i in range(bars)))
    bar = 4 * 60 / _tempo(path)
    last = max(midi.read_events(path), key=lambda event: event.time).time
    begin = bar * int(rng.integers(0, max(1, int((last - piece.seconds) / bar))))
    length = int(piece.seconds * RATE)
    other = np.zeros((2, length), np.float32)
    for index in range(int(rng.choice([1, 2, 3, 4], p=[0.2, 0.35, 0.3, 0.15]))):
        layer = fit(_choose(_LAYERS, rng)(piece, sources, font, rng), length)
        if index and rng.random() < 0.5:  # it rests for some groups of four bars
            rests = np.repeat(rng.random(-(-bars // 4)) < 0.4, 4)[:bars]
            gate = np.interp(np.arange(length) / RATE / (4 * piece.beat), np.arange(bars) + 0.5, (~rests).astype(float))
            layer = layer * gate.astype(np.float32)
        other += layer * np.float32(0.05 * np.exp(rng.normal(0, 0.4)) / max(1e-4, float(layer.std())))
    song = {
        "drums": fit(_drums(path, piece, begin, sources, fonts, rng), length),
        "bass": fit(_bass(piece, sources, font, rng), length),
        "other": other,
    }
    return {stem: produce(stem, audio, rng) for stem, audio in song.items()}


def jobs(sources: Path, fonts: Path, *, count: int) -> list[Job]:
    """`count` songs on human drum performances in 4/4, those of rock, pop, punk, reggae and the like first."""
    paths = [path for path in drumming.performances(sources) if path.stem.endswith("4-4")]
    wanted = ("rock", "pop", "punk", "reggae", "country", "soul", "funk", "blues", "highlife")
    first = [path for path in paths if any(style in path.stem for style in wanted)]
    order = [*first, *(path for path in paths if path not in first)]
    return [
        Job("train", f"ensemble-{index:03d}", partial(_song, order[index % len(order)], sources, fonts))
        for index in range(count)
    ]
