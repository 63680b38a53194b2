"""Random but sensible music: a key, a chord progression, and melodies, bass lines and patterns on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from midi import Note

MAJOR, MINOR, DORIAN = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 3, 5, 7, 9, 10)
# Scale degrees, counted from 0, a chord a bar.
_PROGRESSIONS = {
    MAJOR: ((0, 4, 5, 3), (0, 5, 3, 4), (5, 3, 0, 4), (3, 4, 5, 0), (0, 3, 0, 4), (1, 4, 0, 5), (3, 0, 4, 5)),
    MINOR: ((0, 5, 2, 6), (0, 3, 5, 6), (0, 6, 5, 6), (0, 0, 5, 6), (5, 6, 0, 0), (0, 2, 6, 3), (0, 5, 3, 4)),
    DORIAN: ((0, 3, 0, 3), (0, 6, 3, 0), (0, 2, 3, 3), (0, 1, 0, 6)),
}


@dataclass(frozen=True)
class Piece:
    """A piece: `root` is the MIDI key of the tonic, from 0 to 11; there is a chord (scale degree) for each 4/4 bar."""

    bpm: float
    root: int
    scale: tuple[int, ...]
    chords: tuple[int, ...]

    @property
    def beat(self) -> float:
        return 60 / self.bpm

    @property
    def seconds(self) -> float:
        return len(self.chords) * 4 * self.beat

    def key(self, degree: int, low: int) -> int:
        """The MIDI key of a scale degree (which may exceed 6) in the octave that begins at `low`."""
        octave, step = divmod(degree, 7)
        first = low + (self.root - low) % 12
        return first + 12 * octave + self.scale[step]

    def chord(self, bar: int, low: int, size: int = 3) -> list[int]:
        """The chord of a bar in thirds, each tone put into the octave above `low`."""
        tones = [self.key(self.chords[bar] + 2 * i, low) for i in range(size)]
        return sorted(low + (tone - low) % 12 for tone in tones)

    def degrees_near(self, low: int, high: int) -> list[int]:
        """All the keys of the scale from `low` to `high`."""
        return [key for key in range(low, high + 1) if (key - self.root) % 12 in self.scale]


def random_piece(rng: np.random.Generator, seconds: float) -> Piece:
    """Make a piece of about `seconds`, in groups of four bars."""
    scales = (MAJOR, MINOR, MINOR, DORIAN)
    scale = scales[int(rng.integers(len(scales)))]
    options = _PROGRESSIONS[scale]
    first, second = (options[int(rng.integers(len(options)))] for _ in range(2))
    bpm = float(rng.choice([rng.uniform(76, 112), rng.uniform(112, 132), rng.uniform(132, 176)], p=[0.35, 0.45, 0.2]))
    groups = max(2, round(seconds / (16 * 60 / bpm)))
    chords = [degree for group in range(groups) for degree in (first if group % 4 < 2 else second)]
    return Piece(bpm, int(rng.integers(12)), scale, tuple(chords))


def melody(
    piece: Piece, bar: int, bars: int, count: int, low: int, rng: np.random.Generator, contour: list[int] | None = None
) -> list[Note]:
    """A line of `count` notes over some bars: chord tones on strong beats, steps between, a long last note.

    `contour` gives the steps of an earlier line to resemble; they are taken in order.
    """
    grid = 8 if count <= 7 * bars else 16  # positions in a bar
    places = np.arange(bars * grid - grid // 4)
    weight = np.where(places % (grid // 4) == 0, 3.0, np.where(places % (grid // 8) == 0, 1.6, 0.5))
    weight[: grid // 2] *= 1.5
    count = min(count, len(places))
    chosen = np.sort(rng.choice(places, size=count, replace=False, p=weight / weight.sum()))
    keys = piece.degrees_near(low, low + 14)
    at = int(rng.integers(2, len(keys) - 3))
    unit = 4 * piece.beat / grid
    notes = []
    for index, place in enumerate(chosen):
        step = contour[index] if contour and index < len(contour) else int(rng.choice([-2, -1, -1, 0, 1, 1, 2, 3]))
        at += step if 0 <= at + step < len(keys) else -step
        at = min(max(at, 0), len(keys) - 1)
        if place % (grid // 2) == 0:  # a strong beat: the nearest tone of the chord
            tones = {key % 12 for key in piece.chord(min(bar + int(place) // grid, len(piece.chords) - 1), 0)}
            at = min(range(len(keys)), key=lambda i: (keys[i] % 12 not in tones, abs(i - at)))
        following = chosen[index + 1] if index + 1 < count else place + rng.integers(3, 7) * grid // 8
        start = bar * 4 * piece.beat + place * unit
        span = min(float(following - place) * unit, 3 * piece.beat)
        notes.append(Note(start, start + span * rng.uniform(0.85, 1.0), keys[at], int(rng.integers(70, 127))))
    return notes


def bass_line(piece: Piece, bars: range, low: int, rng: np.random.Generator) -> list[Note]:
    """Roots of the chords in one of several rhythms, with octaves and fifths."""
    patterns = (
        (0, 4, 8, 12), (2, 6, 10, 14), (0, 2, 4, 6, 8, 10, 12, 14), (0, 3, 6, 8, 11, 14), (0, 6, 8, 14), (0,),
        (0, 3, 6, 10, 12), (0, 7, 10), tuple(range(16)), (0, 2, 3, 6, 8, 10, 11, 14), (2, 3, 6, 7, 10, 11, 14, 15),
    )  # fmt: skip
    pattern = patterns[int(rng.integers(len(patterns)))]
    steps = rng.choice([0, 0, 0, 12, 7, 0], size=len(pattern))
    hold, unit = rng.uniform(0.5, 1.0), piece.beat / 4
    notes = []
    for bar in bars:
        root = low + (piece.key(piece.chords[bar], 0) - low) % 12
        for index, place in enumerate(pattern):
            following = pattern[index + 1] if index + 1 < len(pattern) else 16
            start = (bar * 16 + place) * unit
            end = start + max(0.08, (following - place) * unit * hold)
            notes.append(Note(start, end, root + int(steps[index]), int(rng.integers(85, 127))))
    return notes


def chord_notes(piece: Piece, bars: range, low: int, rng: np.random.Generator) -> list[Note]:
    """Block chords: held, in quarters off the beat, or in a syncopated pattern."""
    patterns = ((0,), (0, 8), (2, 6, 10, 14), (0, 3, 6, 8, 11, 14), (0, 3, 8, 11), (4, 12), (0, 6, 12))
    pattern = patterns[int(rng.integers(len(patterns)))]
    size, hold, unit = int(rng.integers(3, 5)), rng.uniform(0.4, 1.0), piece.beat / 4
    notes = []
    for bar in bars:
        for index, place in enumerate(pattern):
            following = pattern[index + 1] if index + 1 < len(pattern) else 16
            start = (bar * 16 + place) * unit
            for key in piece.chord(bar, low, size):
                notes.append(Note(start, start + (following - place) * unit * hold, key, int(rng.integers(75, 110))))
    return notes


def arpeggio(piece: Piece, bars: range, low: int, rng: np.random.Generator) -> list[Note]:
    """Arpeggiate the chords in eighths or sixteenths, over one or two octaves."""
    step = int(rng.choice([1, 1, 2]))
    order = rng.permutation(int(rng.choice([4, 6, 8])))
    hold, unit = rng.uniform(0.4, 1.2), piece.beat / 4
    notes = []
    for bar in bars:
        chord = piece.chord(bar, low)
        tones = chord + [key + 12 for key in chord] + [key + 24 for key in chord]
        for index, place in enumerate(range(0, 16, step)):
            start = (bar * 16 + place) * unit
            key = tones[int(order[index % len(order)])]
            notes.append(Note(start, start + step * unit * hold, key, int(rng.integers(70, 120))))
    return notes
