"""The demo's singer: flite's voice slt, cut into syllables by the phones that flite reports."""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import score
from effects import pan
from midi import Note
from singing import humanize, sing
from songs import RATE, Audio, read, resample, stereo
from voices import FRAME, Phrase, Syllable, Voice, analyse

VOICE = Voice("flite", "slt", size=0.98, low=55, breath=0.08)
_VOWELS = ("aa", "ae", "ah", "ao", "aw", "ax", "ay", "eh", "er", "ey", "ih", "iy", "ow", "oy", "uh", "uw")


def _speak(text: str) -> Phrase:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "speech.wav")
        command = ["flite", "-psdur", "-voice", VOICE.name, "-t", text, "-o", str(file)]
        spoken = subprocess.run(command, check=True, timeout=60, capture_output=True, text=True).stdout
        audio, rate = read(file)
    phrase = analyse(resample(audio, rate)[0], band=0.41 * rate)
    phones, begin = [], 0.0
    for entry in spoken.split():
        name, end = entry.split(":")
        phones.append((name, begin, float(end)))
        begin = float(end)
    return replace(phrase, syllables=tuple(_syllables([phone for phone in phones if phone[0] != "pau"])))


def _syllables(phones: list[tuple[str, float, float]]) -> list[Syllable]:
    """Split phones into syllables, one for each vowel; the last consonant between two vowels belongs to the second."""
    vowels = [index for index, (name, _, _) in enumerate(phones) if name in _VOWELS]
    firsts = [0] + [max(index - 1, before + 1) for before, index in pairwise(vowels)]
    syllables = []
    for vowel, first, following in zip(vowels, firsts, [*firsts[1:], len(phones)], strict=True):
        _, begin, end = phones[vowel]
        length = end - begin
        times = (phones[first][1], begin + 0.25 * length, begin + 0.65 * length, phones[following - 1][2])
        syllables.append(Syllable(*(round(time * 1000 / FRAME) for time in times)))
    return syllables


def perform(rng: np.random.Generator) -> Audio:
    """The whole vocal (2, N), dry: the lead, and in the hook two quieter doubles and a second voice a third above."""
    out = np.zeros((2, int(score.SECONDS * RATE)), np.float32)
    for line in score.LINES:
        phrase, notes = _speak(line.text), score.melody(line)
        if len(phrase.syllables) != len(notes):
            raise ValueError(f'"{line.text}": {len(phrase.syllables)} syllables for {len(notes)} notes')
        takes = [(notes, 0.0, 1.0)]
        if line.bar >= score.HOOK:
            takes += [(humanize(notes, rng), -0.75, 0.28), (humanize(notes, rng), 0.75, 0.28)]
            above = score.third(notes, 2)
            takes += [(humanize(above, rng), 0.45, 0.3), (humanize(above, rng), -0.45, 0.3)]
        first = int((notes[0].start - 0.5) * RATE)
        seconds = notes[-1].end - notes[0].start + 1.0
        for take, place, gain in takes:
            shifted = [Note(n.start - first / RATE, n.end - first / RATE, n.key, n.velocity) for n in take]
            audio = pan(stereo(sing(phrase, shifted, VOICE, seconds, rng)), place)[:, : out.shape[1] - first]
            out[:, first : first + audio.shape[1]] += np.float32(gain) * audio
    return out
