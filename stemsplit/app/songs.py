"""The songs of the app, what was chosen for them, and the file that keeps both from one start to the next."""

import json
import os
import re
import shutil
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from stemsplit.audio.formats import FORMATS
from stemsplit.errors import ModelError, UsageError
from stemsplit.files import fold_name, replacing
from stemsplit.models.registry import Registry

Status = Literal["waiting", "working", "done", "failed", "cancelled"]

LONGEST_NAME = 120  # bytes, so that paths stay within the limits of all systems
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # on Windows


@dataclass(frozen=True, slots=True)
class Choices:
    """What is wanted of a song.

    Attributes:
        model: Its name in models.toml.
        stems: The stems to write; all if empty.
        rest: Also write the song without the only one in `stems`.
        format: One of `formats.FORMATS`.
        accepted: Whether the licence of the model was accepted, where it has to be.
        place: Where the stems go, as one of the names that the app has for folders; never a path.
    """

    model: str
    stems: tuple[str, ...] = ()
    rest: bool = False
    format: str = "wav"
    accepted: bool = False
    place: str = ""

    @classmethod
    def parse(cls, value: Any, registry: Registry, places: Collection[str]) -> "Choices":
        """Check choices that came from a page or a file.

        Raises:
            UsageError: They are not what a page would send.
            ModelError: There is no such model.
        """
        if not isinstance(value, dict) or not value.keys() <= {each.name for each in fields(cls)}:
            raise UsageError("the choices are not those of this version", "reload the page")
        model, stems = value.get("model"), value.get("stems", [])
        if not isinstance(model, str) or model not in registry.models:  # neither a path nor an address
            raise ModelError(f"unknown model {str(model)!r}", "choose one of the list")
        if not isinstance(stems, list) or not all(isinstance(stem, str) for stem in stems):
            raise UsageError("the stems are not a list of names", "reload the page")
        known = registry.models[model].only(stems).stems if stems else ()
        chosen = value.get("format", "wav")
        if not isinstance(chosen, str) or chosen not in FORMATS:
            raise UsageError(f"unknown format {str(chosen)!r}", f"choose one of {', '.join(FORMATS)}")
        rest, accepted, place = (value.get(name) for name in ("rest", "accepted", "place"))
        if not isinstance(place, str) or place not in places:
            raise UsageError("there is no such place for the stems", "choose one of the list")
        return cls(model, known, rest is True and len(known) == 1, chosen, accepted is True, place)


@dataclass(frozen=True, slots=True, kw_only=True)
class Song:
    """A song in the queue.

    Attributes:
        id: Names it in addresses, and the folder of its upload.
        name: As it was dropped, for people; never part of a path.
        file: The name of its upload, made safe; that of the folder of its stems, too, but for the suffix.
        choices: What is wanted.
        status: What has become of it.
        seconds: Its length, if it is known.
        peaks: The magnitude of its waveform in equal parts of its length, from 0 to 99.
        phase: While it is being worked on: "downloading", "loading", "separating" or "page".
        done: Share of the phase, from 0 to 1; None if it is unknown.
        size: Bytes of the download.
        elapsed: Seconds since the phase began.
        error: One sentence, if it failed.
        hint: What to do about it.
        offer: A model that could be used instead, because the chosen one cannot be downloaded.
        stems: The files of its stems, by name.
        folder: Where they are.
        page: The page on which to listen to them.
        warnings: Sentences about the song and its stems.
    """

    id: str
    name: str
    file: str
    choices: Choices
    status: Status = "waiting"
    seconds: float | None = None
    peaks: tuple[int, ...] = ()
    phase: str = ""
    done: float | None = None
    size: int | None = None
    elapsed: float = 0.0
    error: str = ""
    hint: str = ""
    offer: str = ""
    stems: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""
    page: str = ""
    warnings: Sequence[str] = ()

    def public(self) -> dict[str, Any]:
        """Return what a page may know: everything but the paths of files."""
        known = asdict(self)
        for name in ("file", "page"):
            del known[name]
        return {**known, "stems": list(self.stems), "player": bool(self.page)}

    def wanting(self, choices: Choices) -> "Song":
        """Return the song with other choices; if its stems go elsewhere now, that folder is still to be made."""
        return replace(self, choices=choices, folder=self.folder if choices.place == self.choices.place else "")

    def reset(self, **changes: Any) -> "Song":
        """Return the song as if nothing had been done yet."""
        fresh: dict[str, Any] = {"phase": "", "done": None, "size": None, "elapsed": 0.0}
        fresh |= {"error": "", "hint": "", "offer": "", "warnings": ()}
        return replace(self, **{**fresh, **changes})


class Shelf:
    """The folder in which the app keeps uploads, the queue and the last choices.

    Args:
        folder: It is created when needed, for its owner alone.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uploads = folder / "uploads"
        self.uploads.mkdir(parents=True, exist_ok=True, mode=0o700)

    def load(self, registry: Registry, places: Collection[str], default: Choices) -> tuple[dict[str, Song], Choices]:
        """Return the songs by id, and the last choices; what was being worked on waits again.

        What cannot be read is left out, and what cannot be had any more is replaced by what is the default: a queue is
        worth less than a start.
        """
        songs, choices = {}, default

        def read(kept: Any) -> Choices:
            try:
                return Choices.parse({**kept, "place": _one_of(places, kept.get("place"))}, registry, places)
            except (UsageError, ModelError):
                return default

        try:
            kept = json.loads((self.folder / "queue.json").read_text(encoding="utf-8"))
            choices = read(kept["choices"])
            for entry in kept["songs"]:
                song = Song(**{**entry, "choices": read(entry["choices"]), "peaks": tuple(entry["peaks"])})
                if self._is_whole(song):
                    songs[song.id] = song.reset(status="waiting") if song.status == "working" else song
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            songs, choices = {}, default
        for leftover in self.uploads.iterdir():
            if leftover.name not in songs:
                shutil.rmtree(leftover, ignore_errors=True)
        return songs, choices

    def save(self, songs: Mapping[str, Song], choices: Choices) -> None:
        """Keep the queue.

        Raises:
            OSError: The disk is full, or the folder is not writable.
        """
        kept = {"choices": asdict(choices), "songs": [asdict(song) for song in songs.values()]}
        with replacing(self.folder / "queue.json") as part:
            part.write_text(json.dumps(kept), encoding="utf-8")

    def upload(self, song: Song) -> Path:
        """Return the file of a song that was uploaded."""
        return self.uploads / song.id / song.file

    def discard(self, song: Song) -> None:
        """Delete the upload of a song, if there is one."""
        shutil.rmtree(self.uploads / song.id, ignore_errors=True)

    def _is_whole(self, song: Song) -> bool:
        files = song.stems.values() if song.status == "done" else [self.upload(song)]
        return all(os.path.exists(file) for file in files)  # noqa: PTH110 (never raises)


def safe_name(name: str) -> str:
    """Return a file name that is safe on every system, made from one that came from anywhere.

    Folders, control characters and everything that Windows forbids are dropped; the suffix is kept.
    """
    base = re.split(r"[/\\]", unicodedata.normalize("NFC", name))[-1]
    base = "".join(each for each in base if each.isprintable() and each not in '<>:"|?*\ufffd')
    stem, dot, suffix = base.strip(" .").rpartition(".")
    if not dot or len(suffix.encode()) > 16:
        stem, suffix = base.strip(" ."), ""
    stem = stem.strip(" .").encode()[: LONGEST_NAME - len(suffix.encode()) - 1].decode(errors="ignore").strip(" .")
    if not stem or _RESERVED.match(stem):
        stem = f"song {stem}".strip()
    return f"{stem}.{suffix}" if suffix else stem


def _one_of(places: Collection[str], name: object) -> str:
    return name if isinstance(name, str) and name in places else next(iter(places))


def unused_name(name: str, output: Path, taken: Sequence[str]) -> str:
    """Return `name` if its stem names no folder in `output` and none of `taken`; else with a number, "Song (2).mp3"."""
    path = Path(name)
    used = {fold_name(Path(each).stem) for each in taken}
    number, stem = 1, path.stem
    while fold_name(stem) in used or os.path.lexists(output / stem):
        number += 1
        stem = f"{path.stem} ({number})"
    return stem + path.suffix
