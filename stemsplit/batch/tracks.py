"""Songs and what their stems are called: each song gets files of its own."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stemsplit.audio import stem_file
from stemsplit.audio.tags import read_tags
from stemsplit.batch import inputs, manifest, templates
from stemsplit.batch.inputs import Failed, InputFile
from stemsplit.batch.room import Shape
from stemsplit.batch.standard_input import StandardInput
from stemsplit.batch.templates import Template
from stemsplit.errors import UsageError
from stemsplit.files import fold_name

_FROM_TAGS = ("title", "artist")


@dataclass(frozen=True, slots=True)
class Track:
    """One song to separate, and what its stems are called.

    source: its file. output: the folder that all stems go to, or below. values: of the template's fields, but for the
    stem. label: what the user calls it. shape: what its header says, once that is known. why: what is wrong with the
    stems that there are; empty if there are none that may be replaced.
    """

    source: Path
    output: Path
    template: Template
    values: Mapping[str, str | int]
    label: str
    shape: Shape | None = None
    why: str = ""

    @property
    def name(self) -> str:
        """What people are told that it is."""
        return "standard input" if self.label == "-" else self.label

    @property
    def seconds(self) -> float | None:
        """How long the song is, if its header was read and says so."""
        return self.shape.length / self.shape.rate if self.shape and self.shape.length is not None else None

    @property
    def replaces(self) -> bool:
        """Whether stems that exist are ours, unchanged and not up to date, so that new ones take their place."""
        return bool(self.why)

    @property
    def folder(self) -> Path:
        """The folder that its stems are in, or in folders below it."""
        return self.output.joinpath(*self.template.folder(self.values))

    @property
    def manifest(self) -> Path:
        """The file that says how its stems were made."""
        return self.file(manifest.NAME, manifest.SUFFIX)

    def file(self, stem: str, extension: str = "") -> Path:
        """The file of a stem, or of something else that goes beside them, with another extension, without a dot."""
        path = self.output.joinpath(*self.template.fill({**self.values, "stem": stem}))
        return path.with_name(f"{path.name.rpartition('.')[0]}.{extension}") if extension else path

    def outputs(self, stems: Sequence[str]) -> dict[str, Path]:
        """The file of every stem, and of the stem file, which is called as the song is."""
        return {stem: self.file(stem) for stem in stems if stem != stem_file.NAME} | (
            {stem_file.NAME: self.file(str(self.values["track"]), stem_file.SUFFIX[1:])}
            if stem_file.NAME in stems
            else {}
        )


def find(
    names: Sequence[str],
    output: Path,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    stdin: StandardInput | None = None,
    template: Template = templates.DEFAULT,
    extension: str = "wav",
    model: str = "",
) -> tuple[list[Track], list[Failed]]:
    """The songs that the user's words stand for, as in `inputs.search`, and those words that stand for none.

    A song's stems go to `output/<its name without the extension>`, or as the template says. What is in a folder that
    was searched is mirrored below `output`. Songs that would share a file, such as song.mp3 and song.wav, keep their
    extension in its name. extension: of the stems, without a dot. model: its name.

    Raises UsageError when songs would still share a file, before anything was done.
    """
    if os.path.lexists(output) and not os.path.isdir(output):  # noqa: PTH112 (Path.is_dir raises)
        raise UsageError(f"the output {str(output)!r} is a file", "name a folder with --output")
    songs, failed = inputs.search(names, output, include=include, exclude=exclude, stdin=stdin)
    tracks = []
    for index, song in enumerate(songs, start=1):
        stem, above = song.place.stem, song.place.parent
        values: dict[str, str | int] = {
            "track": stem if stem.strip(".") else song.place.name,  # not "..", as of "...mp3"
            "folder": "" if above == Path() else str(above),
            "index": index,
            "ext": extension,
            "model": model,
        }
        if template.fields.intersection(_FROM_TAGS):
            values |= _tags(song.path)
        tracks.append(Track(song.path, output, template, values, song.label))
    return _told_apart(tracks, songs), failed


def rename(tracks: Iterable[Track], model: str) -> list[Track]:
    """The same songs for another model, when another one than expected is going to run."""
    return [replace(track, values={**track.values, "model": model}) for track in tracks]


def require_different(tracks: Iterable[Track], stems: Sequence[str]) -> None:
    """UsageError if a file would get the stems of two songs, as `a_no_vocals` of the songs `a` and `a_no`."""
    owners: dict[str, Track] = {}
    for track in tracks:
        for path in track.outputs(stems).values():
            owner = owners.setdefault(fold_name(str(path)), track)
            if owner is not track:
                told = f"stems of {owner.label!r} and {track.label!r} would both be written to {str(path)!r}"
                raise UsageError(told, "put a / between {track} and {stem} in --filename")


def _told_apart(tracks: Sequence[Track], songs: Sequence[InputFile]) -> list[Track]:
    """Files of its own for every song: with its extension in their names where two would have the same."""
    told = list(tracks)
    while True:
        sharing: dict[str, list[int]] = {}
        for number, track in enumerate(told):
            sharing.setdefault(fold_name(str(track.file(""))), []).append(number)
        crowded = [numbers for numbers in sharing.values() if len(numbers) > 1]
        if not crowded:
            return told
        for numbers in crowded:
            if all(told[number].values["track"] == songs[number].place.name for number in numbers):
                raise _inseparable(*(told[number] for number in numbers[:2]))
            for number in numbers:
                values = {**told[number].values, "track": songs[number].place.name}
                told[number] = replace(told[number], values=values)


def _inseparable(first: Track, second: Track) -> UsageError:
    both = f"the stems of {first.label!r} and {second.label!r}"
    if first.template == templates.DEFAULT:
        hint = "name the folder that holds both, or number them:  --filename '{index} {track}/{stem}.{ext}'"
        return UsageError(f"{both} would go to the same folder", hint)
    hint = f"put {{index}} into --filename, or {{track}}: {first.template.text!r} does not tell them apart"
    return UsageError(f"{both} would have the same names", hint)


def _tags(song: Path) -> dict[str, str]:
    """What a template needs of a song's tags; whoever opens it to separate it says what is wrong with it."""
    try:
        fields = read_tags(song).fields if os.path.isfile(song) else {}  # noqa: PTH113 (never raises)
    except OSError:
        fields = {}
    return {name: fields.get(name, "") for name in _FROM_TAGS}
