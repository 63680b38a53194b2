"""The demo song as notes: "Take the song apart", C major, fourteen bars (intro 2, verse 4, hook 8)."""

from __future__ import annotations

from dataclasses import dataclass

from midi import Note

BPM = 108.0
BARS = 14
VERSE, HOOK = 2, 6  # first bars
STEP = 60 / BPM / 4  # seconds of a sixteenth
BAR = 16 * STEP
SECONDS = BARS * BAR + 2.0  # with the final decay

# One chord per bar, from the lowest note; the bass plays the root.
CHORDS = (
    ("F", (57, 60, 65)), ("G", (59, 62, 67)),
    ("A", (57, 60, 64)), ("F", (57, 60, 65)), ("C", (55, 60, 64)), ("G", (55, 59, 62)),
    ("F", (57, 60, 65)), ("C", (55, 60, 64)), ("G", (55, 59, 62)), ("A", (57, 60, 64)),
    ("F", (57, 60, 65)), ("C", (55, 60, 64)), ("G", (55, 59, 62)), ("C", (55, 60, 64)),
)  # fmt: skip
_ROOTS = {"C": 36, "F": 29, "G": 31, "A": 33}
_NAMES = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_SCALE = sorted(_NAMES.values())


@dataclass(frozen=True)
class Line:
    """A line of the lyrics: its first bar, and the position (in sixteenths) and note of each syllable."""

    bar: int
    text: str
    places: tuple[int, ...]
    tones: str
    end: int  # sixteenth at which the last syllable ends


LINES = (
    Line(2, "late at night the speakers glow", (2, 4, 6, 8, 10, 12, 16), "A3 A3 C4 B3 A3 G3 A3", 26),
    Line(4, "all the layers that we know", (2, 4, 6, 8, 10, 12, 16), "G3 G3 C4 D4 E4 C4 D4", 27),
    Line(6, "take the song apart with me", (0, 3, 6, 8, 11, 14, 16), "C4 A3 C4 D4 C4 A3 G3", 28),
    Line(8, "every voice is floating free", (0, 2, 4, 6, 8, 11, 14, 16), "B3 B3 A3 B3 D4 C4 B3 A3", 28),
    Line(10, "drums and bass and melody", (0, 3, 6, 8, 11, 14, 16), "C4 A3 C4 D4 C4 D4 E4", 28),
    Line(12, "hear them all in harmony", (0, 3, 6, 8, 11, 14, 16), "D4 B3 D4 E4 D4 B3 C4", 34),
)


def _key(tone: str) -> int:
    return _NAMES[tone[0]] + 12 * (int(tone[1]) + 1)


def melody(line: Line) -> list[Note]:
    """The sung notes of a line, in seconds of the song."""
    ends = (*line.places[1:], line.end)
    start = line.bar * BAR
    return [
        Note(start + place * STEP, start + end * STEP, _key(tone), 110 if place % 4 == 0 else 95)
        for place, end, tone in zip(line.places, ends, line.tones.split(), strict=True)
    ]


def third(notes: list[Note], steps: int) -> list[Note]:
    """The notes `steps` scale steps away, for a second voice."""
    moved = []
    for note in notes:
        degree = _SCALE.index(note.key % 12) + steps
        key = note.key - note.key % 12 + 12 * (degree // 7) + _SCALE[degree % 7]
        moved.append(Note(note.start, note.end, key, note.velocity))
    return moved


def _note(bar: int, place: float, length: float, key: int, velocity: int) -> Note:
    start = bar * BAR + place * STEP
    return Note(start, start + length * STEP, key, velocity)


def bass() -> list[Note]:
    """Long roots in the verse, driving eighths with octaves in the hook, a last long C."""
    notes = [_note(1, 8, 8, 31, 90)]
    for bar in range(VERSE, BARS - 1):
        root = _ROOTS[CHORDS[bar][0]]
        if bar < HOOK:
            notes += [_note(bar, 0, 7, root, 105), _note(bar, 8, 3, root, 90), _note(bar, 12, 4, root + 7, 85)]
        else:
            notes += [
                _note(bar, p, 1.7, root + (12 if p in (6, 14) else 0), 115 if p % 4 else 95) for p in range(0, 16, 2)
            ]
    return [*notes, _note(BARS - 1, 0, 14, 36, 110)]


def piano() -> list[Note]:
    """Electric piano: a chord on the first beat and one before the third."""
    notes = []
    for bar, (_, chord) in enumerate(CHORDS):
        hits = ((0, 5.5, 80), (6, 9, 66)) if bar < BARS - 1 else ((0, 20, 84),)
        for place, length, velocity in hits:
            notes += [_note(bar, place, length, key, velocity) for key in chord]
        notes.append(_note(bar, 0, 12, chord[0] - 12, 60))
    return notes


def pads() -> list[Note]:
    """The wide chords of the hook."""
    return [
        _note(bar, 0, 15.5, key, 90) for bar in range(HOOK, BARS) for key in (*CHORDS[bar][1], CHORDS[bar][1][0] + 12)
    ]


def arpeggio() -> list[Note]:
    """Sixteenths over each chord, up and down two octaves."""
    notes = []
    for bar in range(BARS - 1):
        a, b, c = CHORDS[bar][1]
        wave = (a, b, c, a + 12, b + 12, c + 12, b + 12, a + 12)
        notes += [_note(bar, p, 1.0, wave[(p * 3) % 8] + 12, 100 if p % 4 == 0 else 70) for p in range(16)]
    return notes


def lead() -> list[Note]:
    """Answers the singer in the second half of every other bar of the hook."""
    answers = {7: (76, 79, 76, 74), 9: (72, 76, 81, 79), 11: (79, 76, 79, 84)}
    return [
        _note(bar, 8 + 2 * i, 1.8 if i < 3 else 3, key, 95)
        for bar, tones in answers.items()
        for i, key in enumerate(tones)
    ]


def drums() -> list[tuple[float, str, float]]:
    """Hits: start in seconds, role, gain."""
    hits: list[tuple[float, str, float]] = []

    def add(bar: int, role: str, places: tuple[int, ...], gain: float) -> None:
        hits.extend(((bar * 16 + place) * STEP, role, gain * (1.0 if place % 4 == 0 else 0.75)) for place in places)

    add(1, "closed", (0, 2, 4, 6, 8, 10, 12, 13, 14, 15), 0.5)
    for bar in range(VERSE, HOOK):
        add(bar, "kick", (0, 10), 0.9)
        add(bar, "snare", (4, 12), 0.65)
        add(bar, "closed", tuple(range(0, 16, 2)), 0.5)
    add(HOOK - 1, "snare", (13, 14, 15), 0.6)
    for bar in range(HOOK, BARS - 1):
        add(bar, "kick", (0, 4, 8, 12), 1.0)
        add(bar, "snare", (4, 12), 0.7)
        add(bar, "clap", (4, 12), 0.8)
        add(bar, "open", (2, 6, 10, 14), 0.8)
        add(bar, "closed", (0, 3, 4, 7, 8, 11, 12, 15), 0.5)
    add(BARS - 2, "snare", (10, 13, 14, 15), 0.7)
    for bar in (HOOK, HOOK + 4, BARS - 1):
        add(bar, "crash", (0,), 0.7)
    add(BARS - 1, "kick", (0,), 1.0)
    return hits
