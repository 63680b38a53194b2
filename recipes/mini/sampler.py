"""A small sampler: drum kits made of one-shots, and multisampled instruments described by SFZ key maps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from effects import pan, saturate
from midi import Note
from songs import RATE, Audio, read, resample, stereo

# One-shots (Sonic Pi) by the role they play in a kit.
ROLES = {
    "kick": "bd_808 bd_ada bd_boom bd_chip bd_fat bd_gas bd_haus bd_jazz bd_klub bd_mehackit bd_pure bd_sone bd_tek "
    "bd_zome bd_zum drum_bass_hard drum_bass_soft drum_heavy_kick elec_hollow_kick elec_soft_kick",
    "snare": "sn_dolf sn_dub sn_generic sn_zome drum_snare_hard drum_snare_soft elec_snare elec_hi_snare elec_lo_snare "
    "elec_mid_snare elec_filt_snare perc_snap perc_snap2",
    "closed": "hat_bdu hat_cab hat_cats hat_gem hat_gnu hat_gump hat_hier hat_len hat_mess hat_metal hat_noiz "
    "hat_psych hat_raw hat_sci hat_snap hat_star hat_tap hat_yosh hat_zan hat_zap hat_zild "
    "drum_cymbal_closed elec_tick",
    "open": "drum_cymbal_open drum_cymbal_soft hat_gem hat_metal hat_noiz hat_zild elec_cymbal",
    "crash": "drum_cymbal_hard drum_splash_hard drum_splash_soft elec_cymbal",
    "ride": "ride_tri ride_via drum_cymbal_soft drum_cymbal_pedal",
    "tom": "drum_tom_hi_hard drum_tom_mid_hard drum_tom_lo_hard elec_fuzz_tom drum_tom_hi_soft tabla_ghe1 tabla_ghe3",
    "percussion": "drum_cowbell elec_wood elec_pop elec_blip elec_blip2 elec_plip elec_twip perc_impact1 perc_till "
    "tabla_na tabla_te1 tabla_tas1 glitch_perc1 glitch_perc2 glitch_perc3 glitch_perc5 elec_flip",
}
_GENERAL_MIDI = {35: "kick", 36: "kick", 37: "percussion", 38: "snare", 39: "snare", 40: "snare", 42: "closed"}
_GENERAL_MIDI |= {44: "closed", 46: "open", 49: "crash", 52: "crash", 55: "crash", 57: "crash"}
_GENERAL_MIDI |= {51: "ride", 53: "ride", 59: "ride", 41: "tom", 43: "tom", 45: "tom", 47: "tom", 48: "tom", 50: "tom"}
_LOUDNESS = {"kick": 1.0, "snare": 0.8, "closed": 0.35, "open": 0.35, "crash": 0.45, "ride": 0.35, "tom": 0.7}
_ROOM = RATE * 4  # samples added to a mix while it is made, for the decay at its end

Kit = Mapping[str, Audio]  # role -> one-shot (2, N)


@lru_cache(maxsize=600)
def _sample(path: Path) -> Audio:
    """A one-shot (2, N) at our rate without its leading silence."""
    audio, rate = read(path)
    audio = stereo(resample(audio, rate))
    loud = np.flatnonzero(np.abs(audio).max(axis=0) > 0.02 * np.abs(audio).max())
    return audio[:, max(0, int(loud[0]) - 32) : int(loud[-1]) + 2000] if len(loud) else audio


def _shape(audio: Audio, rng: np.random.Generator) -> Audio:
    """Vary a one-shot: tuning, decay, drive; its peak becomes 1."""
    audio = resample(audio, RATE * float(np.exp(rng.normal(0, 0.12))))
    if rng.random() < 0.5:
        audio = audio * np.exp(-np.arange(audio.shape[1]) / (RATE * rng.uniform(0.06, 0.5))).astype(np.float32)
    if rng.random() < 0.3:
        audio = saturate(audio, rng.uniform(1, 6))
    fade = min(400, audio.shape[1])
    audio = audio.copy()
    audio[:, audio.shape[1] - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
    return audio / max(1e-6, float(np.abs(audio).max()))


def random_kit(sources: Path, rng: np.random.Generator) -> Kit:
    """A one-shot for each role, some of them layered from two."""
    folder = sources / "samples" / "sonic-pi-samples" / "etc" / "samples"
    kit = {}
    for role, names in ROLES.items():
        chosen = rng.choice(names.split(), size=2, replace=False)
        sounds = [_shape(_sample(folder / f"{name}.ogg"), rng) for name in chosen]
        audio = sounds[0]
        if role in ("kick", "snare") and rng.random() < 0.35:
            audio = audio.copy()
            length = min(audio.shape[1], sounds[1].shape[1])
            audio[:, :length] += 0.6 * sounds[1][:, :length]
        place = 0.0 if role in ("kick", "snare") else rng.uniform(-0.5, 0.5)
        kit[role] = pan(audio, place) * np.float32(_LOUDNESS.get(role, 0.4) * np.exp(rng.normal(0, 0.2)))
    return kit


def play_hits(kit: Kit, hits: Iterable[tuple[float, str, float]], seconds: float) -> Audio:
    """Hits (start in seconds, role, gain) mixed to audio (2, N); a role of `kit` a hit."""
    out = np.zeros((2, int(seconds * RATE) + _ROOM), np.float32)
    for start, role, gain in hits:
        place, sound = int(start * RATE), kit[role][:, :_ROOM]
        if 0 <= place < out.shape[1] - _ROOM:
            out[:, place : place + sound.shape[1]] += np.float32(gain) * sound
    return out[:, : int(seconds * RATE)]


def play_drums(kit: Kit, notes: list[Note], seconds: float, rng: np.random.Generator) -> Audio:
    """Play General MIDI drum notes on a kit; in some renderings with constant velocity, like a drum machine."""
    hardness = rng.uniform(0.3, 1.5)
    hits = [
        (note.start, _GENERAL_MIDI.get(note.key, "percussion"), (note.velocity / 127) ** hardness) for note in notes
    ]
    return play_hits(kit, hits, seconds)


@dataclass(frozen=True)
class Zone:
    """A sample, and its range of keys and velocities."""

    path: Path
    center: int
    keys: range
    velocities: range


_NAMES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}


def _key(text: str) -> int:
    """A MIDI key given as a number or a name such as c#4."""
    match = re.fullmatch(r"([a-g])([#b]?)(-?\d)", text.lower())
    if not match:
        return int(text)
    letter, accidental, octave = match.groups()
    return _NAMES[letter] + {"#": 1, "b": -1, "": 0}[accidental] + 12 * (int(octave) + 1)


def read_instrument(path: Path) -> list[Zone]:
    """The tuned zones of an SFZ file; noises, releases and samples that are missing are left out.

    The maps name WAV or FLAC files; an OGG file of the same name serves.
    """
    zones, group, region = [], dict[str, str](), dict[str, str]()

    def close() -> None:
        settings = group | region
        file = path.parent / settings.get("sample", "").replace("\\", "/")
        file = file if file.suffix and file.exists() else file.with_suffix(".ogg") if file.suffix else file
        if not region or not file.is_file() or re.search("noise|release|scrape|mute", file.parent.name):
            return
        key = settings.get("key")
        center = settings.get("pitch_keycenter", key)
        low, high = settings.get("lokey", key), settings.get("hikey", key)
        if center is None or low is None or high is None:
            return
        velocities = range(int(settings.get("lovel", 0)), int(settings.get("hivel", 127)) + 1)
        zones.append(Zone(file, _key(center), range(_key(low), _key(high) + 1), velocities))

    for line in [*path.read_text(errors="replace").splitlines(), "<group>"]:
        line = line.split("//")[0].strip()
        if line in ("<group>", "<region>", "<master>", "<global>", "<control>"):
            close()
            region = {}
            group = {} if line != "<region>" else group
            inside = line == "<region>"
            target = region if inside else group
        elif "=" in line and not line.startswith("#"):
            name, value = line.split("=", 1)
            target[name.strip()] = value.strip()
    return zones


def _pitched(path: Path, semitones: float) -> Audio:
    return resample(_sample(path), RATE * 2 ** (semitones / 12))


def play_notes(zones: list[Zone], notes: list[Note], seconds: float, rng: np.random.Generator) -> Audio:
    """Notes on a multisampled instrument: audio (2, N). Keys outside its range are moved by octaves."""
    out = np.zeros((2, int(seconds * RATE) + _ROOM), np.float32)
    low = min(zone.keys.start for zone in zones)
    high = max(zone.keys.stop for zone in zones) - 1
    tuning = rng.normal(0, 0.1)
    rendered: dict[tuple[Path, int], Audio] = {}
    for note in notes:
        key = note.key
        while key < low:
            key += 12
        while key > high:
            key -= 12
        fitting = [zone for zone in zones if key in zone.keys]
        fitting = [zone for zone in fitting if note.velocity in zone.velocities] or fitting
        place = int(note.start * RATE)
        if not fitting or not 0 <= place < out.shape[1] - _ROOM:
            continue
        zone = fitting[int(rng.integers(len(fitting)))]
        if (zone.path, key) not in rendered:
            rendered[zone.path, key] = _pitched(zone.path, key - zone.center + tuning)
        length = min(int((note.end - note.start) * RATE), _ROOM - 4000)
        sound = rendered[zone.path, key][:, : length + 4000].copy()
        release = min(4000, sound.shape[1])
        sound[:, sound.shape[1] - release :] *= np.linspace(1, 0, release, dtype=np.float32)
        out[:, place : place + sound.shape[1]] += np.float32((0.2 + note.velocity / 127) / 1.2) * sound
    return out[:, : int(seconds * RATE)]
