"""Songs to separate, and the files of their stems, which no two songs share."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stemsplit.audio import stem_file
from stemsplit.audio.reading import AudioInfo
from stemsplit.audio.tags import read_tags
from stemsplit.batch import inputs, manifest, templates
from stemsplit.batch.inputs import Failed, InputFile
from stemsplit.batch.standard_input import StandardInput
from stemsplit.batch.templates import Template
from stemsplit.devices import memory_error
from stemsplit.errors import AudioError, StemsplitError, UsageError
from stemsplit.files import fold_name
from stemsplit.storage.location import Location
from stemsplit.storage.transfer import local_song
from stemsplit.wording import one_line

_log = logging.getLogger(__name__)

_FROM_TAGS = ("title", "artist")


@dataclass(frozen=True, slots=True)
class Track:
    """One song to separate.

    Attributes:
        source: Its file, or where it is at a URL.
        output: The folder of the stems of all songs, which may be at a URL as well.
        template: How the files of its stems are named.
        values: Of the fields of the template, except for the stem.
        label: The song as the user typed it, or its path below a folder that was searched.
        info: Format and length from its header, once it has been read.
        why: What is wrong with its existing stems; empty if it has none that may be replaced.
    """

    source: Path | Location
    output: Path | Location
    template: Template
    values: Mapping[str, str | int]
    label: str
    info: AudioInfo | None = None
    why: str = ""

    @property
    def name(self) -> str:
        """The name of the song in messages."""
        return "standard input" if self.label == "-" else self.label

    @property
    def title(self) -> str:
        """What the song is called: artist and title by its tags, or else the name of its file."""
        tags = _tags(self.source)
        named = " \u2013 ".join(filter(None, (tags["artist"], tags["title"])))
        return named if tags["title"] else str(self.values["track"])

    @property
    def seconds(self) -> float | None:
        """The length of the song, if its header has been read and states it."""
        return self.info.length / self.info.rate if self.info and self.info.length is not None else None

    @property
    def replaces(self) -> bool:
        """Whether it has outdated stems, written by stemsplit and unchanged since, which new ones replace."""
        return bool(self.why)

    @property
    def is_local(self) -> bool:
        """Whether both the song and its stems are files of this machine."""
        return isinstance(self.source, Path) and isinstance(self.output, Path)

    @property
    def folder(self) -> Path | Location:
        """The folder of its stems; a template may put them into folders below it."""
        return self.output.joinpath(*self.template.folder(self.values))

    @property
    def manifest(self) -> Path | Location:
        """The file that records how its stems were made."""
        return self.file(manifest.NAME, manifest.SUFFIX)

    @property
    def player_page(self) -> Path | Location:
        """The page on which to listen to its stems."""
        return self.file("player", "html")

    def file(self, stem: str, extension: str = "") -> Path | Location:
        """Return the file of a stem, or another file beside the stems with the given extension, without a dot."""
        path = self.output.joinpath(*self.template.fill({**self.values, "stem": stem}))
        return path.with_name(f"{path.name.rpartition('.')[0]}.{extension}") if extension else path

    def outputs(self, stems: Sequence[str]) -> dict[str, Path | Location]:
        """Return the file of each of `stems`; the stem file is named after the song."""
        return {stem: self.file(stem) for stem in stems if stem != stem_file.NAME} | (
            {stem_file.NAME: self.file(str(self.values["track"]), stem_file.SUFFIX[1:])}
            if stem_file.NAME in stems
            else {}
        )

    def local_outputs(self, stems: Sequence[str]) -> dict[str, Path]:
        """Return the file of each of `stems`, where these are on this machine."""
        return {stem: path for stem, path in self.outputs(stems).items() if isinstance(path, Path)}

    def with_label(self, text: str) -> str:
        """Return a sentence with the song's label in place of the temporary file that it was stored in."""
        if self.label == str(self.source):
            return text
        return text.replace(repr(str(self.source)), "standard input" if self.label == "-" else repr(self.label))

    def failure(self, error: Exception) -> Failed:
        """Return the failure of this song, with a message that names it, for any error that concerns it alone.

        Raises:
            StemsplitError: `error` itself, if it is one of ours that concerns every song: all but an AudioError.
        """
        if isinstance(error, StemsplitError) and not isinstance(error, AudioError):
            raise error
        if not isinstance(error, AudioError):
            _log.info("%s: %s", self.name, error, exc_info=error)
            return Failed(self.label, _unexpected(self.name, error))
        text = self.with_label(str(error))
        if "'" not in text and '"' not in text and self.label != "-":  # it names no file, but must among many songs
            text = f"{self.label!r} cannot be separated: {text}"
        return Failed(self.label, AudioError(text, error.hint, path=error.path, model=error.model, stem=error.stem))


def find_tracks(
    names: Sequence[str],
    output: Path | Location,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    stdin: StandardInput | None = None,
    template: Template = templates.DEFAULT,
    extension: str = "wav",
    model: str = "",
) -> tuple[list[Track], list[Failed]]:
    """Find the songs that the user named, and choose the paths of their stems.

    Folders that are searched are mirrored below `output`. Songs whose stems would share a file, such as song.mp3 and
    song.wav, keep their extension in its name.

    Args:
        names: Files, folders, patterns, playlists, as in `inputs.find_input_files`.
        output: The folder of all stems.
        include: Patterns of files and folders to take from folders.
        exclude: Patterns of files and folders to leave out.
        stdin: The song that "-" stands for.
        template: How the files of the stems are named.
        extension: Of the stems, without a dot.
        model: Its name.

    Returns:
        The songs, and a failure for each name without songs.

    Raises:
        UsageError: `output` is a file, or songs would still share a file.
    """
    for folder in () if isinstance(output, Location) else (output, *output.parents):
        if os.path.lexists(folder) and not os.path.isdir(folder):  # noqa: PTH112 (Path.is_dir raises)
            what = "a file" if folder == output else f"below {str(folder)!r}, which is a file"
            raise UsageError(f"the output {str(output)!r} is {what}", "name a folder with --output")
    songs, failed = inputs.find_input_files(names, output, include=include, exclude=exclude, stdin=stdin)
    tracks = []
    for index, song in enumerate(songs, start=1):
        stem, above = song.relative_path.stem, song.relative_path.parent
        values: dict[str, str | int] = {
            "track": stem if stem.strip(".") else song.relative_path.name,  # not "..", as of "...mp3"
            "folder": "" if above == Path() else str(above),
            "index": index,
            "ext": extension,
            "model": model,
        }
        if template.fields.intersection(_FROM_TAGS):
            values |= _tags(song.path)
        tracks.append(Track(song.path, output, template, values, song.label))
    return _with_distinct_files(tracks, songs), failed


def with_model(tracks: Iterable[Track], model: str) -> list[Track]:
    """Return the songs with the name of the model that will run."""
    return [replace(track, values={**track.values, "model": model}) for track in tracks]


def check_distinct(tracks: Iterable[Track], stems: Sequence[str]) -> None:
    """Raise UsageError if two songs share a file, such as `a_no_vocals` of the songs `a` and `a_no`."""
    owners: dict[str, Track] = {}
    for track in tracks:
        for path in track.outputs(stems).values():
            owner = owners.setdefault(_identity(path), track)
            if owner is not track:
                message = f"stems of {owner.label!r} and {track.label!r} would both be written to {str(path)!r}"
                raise UsageError(message, "put a / between {track} and {stem} in --filename")


def _with_distinct_files(tracks: Sequence[Track], songs: Sequence[InputFile]) -> list[Track]:
    """Keep the extension of songs in the names of their stems where two would share them."""
    distinct = list(tracks)
    while True:
        sharing: dict[str, list[int]] = {}
        for number, track in enumerate(distinct):
            sharing.setdefault(_identity(track.file("")), []).append(number)
        conflicts = [numbers for numbers in sharing.values() if len(numbers) > 1]
        if not conflicts:
            return distinct
        for numbers in conflicts:
            if all(distinct[number].values["track"] == songs[number].relative_path.name for number in numbers):
                raise _inseparable(*(distinct[number] for number in numbers[:2]))
            for number in numbers:
                values = {**distinct[number].values, "track": songs[number].relative_path.name}
                distinct[number] = replace(distinct[number], values=values)


def _inseparable(first: Track, second: Track) -> UsageError:
    if not first.template.mirrors:
        return UsageError(f"{first.template.text!r} has room for one song", "name a folder with --output")
    both = f"the stems of {first.label!r} and {second.label!r}"
    if first.template == templates.DEFAULT:
        hint = "name the folder that holds both, or number them:  --filename '{index} {track}/{stem}.{ext}'"
        return UsageError(f"{both} would go to the same folder", hint)
    helpful = [
        f"{{{name}}}"
        for name in ("track", "folder", "index")
        if name not in first.template.fields and first.values[name] != second.values[name]
    ]
    hint = f"put {' or '.join(helpful)} into --filename: {first.template.text!r} does not tell them apart"
    return UsageError(f"{both} would have the same names", hint)


def _identity(path: Path | Location) -> str:
    """Return a text that is equal for names of the same file; only on disks can two names be the same one."""
    return path.real if isinstance(path, Location) else fold_name(str(path))


def _tags(song: Path | Location) -> dict[str, str]:
    """Return the tags that a template may need; a file that cannot be read is reported when it is opened later."""
    try:
        with local_song(song) as path:
            fields = read_tags(path).fields if os.path.isfile(path) else {}  # noqa: PTH113 (never raises)
    except Exception:  # whatever a library makes of a damaged file
        fields = {}
    return {name: fields.get(name, "") for name in _FROM_TAGS}


def _unexpected(name: str, error: Exception) -> AudioError:
    """Return what to say of an error that none of our messages foresees; no song may end a batch."""
    if memory_error(error):
        return AudioError(f"{name!r} cannot be separated: there is too little memory", "close other programs")
    if isinstance(error, OSError):
        return AudioError(f"{name!r} cannot be separated: {one_line(error)}", "check the disk, and try again")
    reason = ": ".join(dict.fromkeys([type(error).__name__, one_line(error)]))
    hint = "the file may be damaged; if it plays, please report this with the output of --verbose"
    return AudioError(f"{name!r} cannot be separated: {reason}", hint)
