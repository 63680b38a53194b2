"""Finding songs: files, folders, patterns that the shell did not expand, URLs, playlists, and standard input."""

import fnmatch
import glob
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stemsplit.batch import manifest, playlists, standard_input
from stemsplit.batch.standard_input import StandardInput
from stemsplit.errors import AudioError, UsageError
from stemsplit.files import fold_name, real_path
from stemsplit.storage.location import Location, is_url
from stemsplit.storage.redaction import redact

SUFFIXES = frozenset(
    ".3g2 .3gp .aa3 .aac .ac3 .adts .aif .aifc .aiff .amr .ape .au .avi .caf .dff .dsf .dts .eac3 .flac .flv .gsm "
    ".m2ts .m4a .m4b .m4r .m4v .mka .mkv .mov .mp1 .mp2 .mp3 .mp4 .mpc .mpeg .mpg .mpga .mts .mxf .oga .ogg .ogv .oma "
    ".opus .ra .rf64 .rm .shn .snd .spx .tak .tta .voc .vob .w64 .wav .wave .webm .wma .wmv .wv".split()
)
"""Extensions of the files that are taken for songs in folders. A file that is named itself may have any name."""

_ANY_DEPTH = "**"
_ARCHIVE = ("an archive", "unpack it, and name the songs in it")
_NOTES = ("a MIDI file, which holds notes", "let a synthesizer or a DAW turn it into audio first")
_NOT_AUDIO = {
    b"PK\3\4": _ARCHIVE,
    b"Rar!\x1a\7": _ARCHIVE,
    b"7z\xbc\xaf\x27\x1c": _ARCHIVE,
    b"\x1f\x8b": _ARCHIVE,
    b"MThd": _NOTES,
    b"%PDF": ("a PDF document", "name the recording itself"),
}
"""By their first bytes: what files are that are not audio, and a hint."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """The file of a song.

    Attributes:
        path: The file, or where it is at a URL.
        relative_path: Its path below the folder that was searched, which is mirrored in the output.
        label: Its name in messages.
    """

    path: Path | Location
    relative_path: Path
    label: str


@dataclass(frozen=True, slots=True)
class Failed:
    """An input without stems.

    Attributes:
        source: Its name, as the user typed it, or its path below a folder that was searched; URLs without secrets.
        error: The reason.
    """

    source: str
    error: AudioError


def find_input_files(
    inputs: Sequence[str],
    output: Path | Location,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    stdin: StandardInput | None = None,
) -> tuple[list[InputFile], list[Failed]]:
    """Find all songs that the inputs name, each once.

    Folders are searched recursively, except hidden ones and `output`. Links to folders are followed, after everything
    that is really there; each folder is searched once, however many lead to it, and none that the search began in. If
    `output` itself is searched, stems that stemsplit wrote are left out.

    A name with *, ? or [ that is not a file is a pattern, as in shells, with ** for any number of folders. A playlist
    stands for the songs in it. At URLs all of this holds as well, except that web servers have no folders.

    Patterns in `include` and `exclude` ignore case. They match the path below the folder if they contain a slash, else
    names. One that matches a folder applies to everything in it. `exclude` takes precedence over `include`.

    Args:
        inputs: Files, folders, patterns, playlists, and URLs of these.
        output: The folder of all stems.
        include: Patterns of files and folders to take from folders; everything if empty.
        exclude: Patterns of files and folders to leave out.
        stdin: The song that "-" stands for; without it, "-" is a file.

    Returns:
        The songs in the order of the inputs, and the inputs that name none.

    Raises:
        UsageError: A name or a pattern is empty.
    """
    search = _Search(output, include, exclude)
    for text in inputs:
        if not text:  # as a Path it would be the current folder
            raise UsageError("an empty name was given", "name a file or a folder")
        try:
            if text == "-" and stdin:
                search.add(stdin.spool(), Path(standard_input.NAME), "-")
            else:
                search.add_input(text)
        except AudioError as error:
            search.failed.append(Failed(redact(text), error))
    return list(search.songs.values()), search.failed


class _Patterns:
    """Patterns of names and paths."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._names: list[str] = []
        self._paths: list[Sequence[str]] = []
        for text in texts:
            pattern = fold_name(text.replace(os.sep, "/").removeprefix("./").rstrip("/"))
            if not pattern.strip("/"):
                raise UsageError(f"the pattern {text!r} matches nothing", "write for instance '*.flac' or 'live/*'")
            if "/" in pattern:
                self._paths.append(pattern.removeprefix("/").split("/"))
            else:
                self._names.append(pattern)

    def __bool__(self) -> bool:
        return bool(self._names or self._paths)

    def match(self, parts: Sequence[str]) -> bool:
        """Return whether one of them matches a path, given by its parts."""
        parts = [fold_name(part) for part in parts] if self else []
        return any(fnmatch.fnmatchcase(parts[-1], name) for name in self._names) or any(
            _matches(parts, path) for path in self._paths
        )


class _Search:
    """The songs that were found so far, by their real paths."""

    def __init__(self, output: Path | Location, include: Sequence[str], exclude: Sequence[str]) -> None:
        self.songs: dict[str, InputFile] = {}
        self.failed: list[Failed] = []
        self._output = output.real.rstrip("/") if isinstance(output, Location) else real_path(output)
        self._labels: set[str] = set()  # of songs at URLs, which may differ in what is not shown
        self._include, self._exclude = _Patterns(include), _Patterns(exclude)

    def add_input(self, text: str) -> None:
        """Add the songs that an input names; raise AudioError if there are none."""
        if not os.path.lexists(text):
            text = playlists.path_of(text)
            if is_url(text):
                self._add_url(Location.parse(text))
                return
        if not any(sign in text for sign in "*?[") or os.path.lexists(text):
            self._add_path(Path(text), text)
            return
        paths = list(self._expand(text))
        if not paths:
            raise AudioError(f"no songs match {text!r}", "check the spelling, and the folder")
        for path in paths:
            try:
                self._add_path(path, str(path))
            except AudioError as error:
                self.failed.append(Failed(str(path), error))

    def add(self, path: Path, relative_path: Path, label: str, real: str = "") -> None:
        """Add a song, unless it was found already."""
        real = real or real_path(path)
        if real not in self.songs:
            self.songs[real] = InputFile(path, relative_path, label)

    def _add_path(self, path: Path, name: str) -> None:
        if _is_folder(path):
            self._add_folder(path, name)
        elif path.suffix.lower() in playlists.SUFFIXES:
            self._add_playlist(path)
        else:
            if what := _without_sound(path):
                raise AudioError(f"{name!r} is {what[0]}, not audio", what[1], path=path)
            self.add(path, Path(path.name), str(path))

    def _add_url(self, location: Location) -> None:
        if location.is_web and location.url.endswith("/"):
            raise AudioError(f"{str(location)!r} is no file, and web servers have no folders", "name the song itself")
        if location.suffix.lower() in playlists.SUFFIXES:
            self._add_playlist_at(location)
            return
        try:
            is_folder = location.is_folder()
        except FileNotFoundError:
            if not any(sign in location.url for sign in "*?["):
                message = f"there is no file or folder {str(location)!r}"
                raise AudioError(message, "check the spelling") from None
            self._add_pattern_at(location)
            return
        if is_folder:
            self._add_folder_at(location)
        else:
            self._add_location(location, location.name)

    def _add_location(self, location: Location, path: str) -> None:
        """Add a song at a URL, unless it was found already; `path` is that below a folder that was searched."""
        if location.real in self.songs:
            return
        label, number = str(location), 1
        while label in self._labels:
            number += 1
            label = f"{location} ({number})"
        self._labels.add(label)
        # Names of objects may have parts that no path has; the template makes safe names of the others.
        relative_path = Path(*(part or "_" for part in path.split("/")))
        self.songs[location.real] = InputFile(location, relative_path, label)

    def _add_playlist_at(self, playlist: Location) -> None:
        for line in playlists.read_playlist(playlist):
            try:
                song = playlists.find_song(line, playlist)
                assert isinstance(song, Location)
                self._add_location(song, song.key or song.name)
            except AudioError as error:
                self.failed.append(Failed(redact(os.fsdecode(line.strip())), error))

    def _add_folder_at(self, folder: Location) -> None:
        count = 0
        for song in self._walk_at(folder):
            self._add_location(song, song.key)
            count += 1
        if not count and (self._include or self._exclude):
            reason = f"--include and --exclude leave no songs in the folder {str(folder)!r}"
            raise AudioError(reason, "check the patterns: quotes keep the shell from expanding them")
        if not count:
            raise AudioError(f"no songs in the folder {str(folder)!r}", "name the files themselves")

    def _add_pattern_at(self, location: Location) -> None:
        above, *pattern = _split_pattern(location.url)
        songs = [song for song in self._walk_at(Location(above)) if _matches(song.parts, pattern)]
        if not songs:
            raise AudioError(f"no songs match {str(location)!r}", "check the spelling, and the folder")
        for song in songs:
            self._add_location(song, song.name)

    def _walk_at(self, folder: Location) -> Iterator[Location]:
        """Yield the songs below a folder at a URL that pass `include` and `exclude`, and are no stems."""
        files = list(folder.walk())
        above = folder.real.rstrip("/") + "/"
        inside = above.startswith(f"{self._output}/")
        stems = manifest.stems_among(files) if inside else frozenset()
        for file in files:
            parents = [file.parts[: count + 1] for count in range(len(file.parts))]
            if any(part.startswith(".") and part.strip(".") for part in file.parts) or file.real in stems:
                continue
            if not inside and file.real.startswith(f"{self._output}/"):
                continue
            if any(self._exclude.match(parts) for parts in parents):
                continue
            if self._include and not any(self._include.match(parts) for parts in parents):
                continue
            if file.suffix.lower() in SUFFIXES:
                yield file

    def _add_folder(self, folder: Path, name: str) -> None:
        failures, count = len(self.failed), 0
        for parts, real in self._walk(folder):
            if Path(parts[-1]).suffix.lower() in SUFFIXES:
                path = folder.joinpath(*parts)
                self.add(path, Path(*parts), str(path), real)
                count += 1
        if not count and len(self.failed) == failures:
            if self._include or self._exclude:
                reason = f"--include and --exclude leave no songs in the folder {name!r}"
                hint = "check the patterns: quotes keep the shell from expanding them"
                raise AudioError(reason, hint, path=folder)
            raise AudioError(f"no songs in the folder {name!r}", "name the files themselves", path=folder)

    def _add_playlist(self, playlist: Path) -> None:
        folder = os.path.abspath(playlist.parent)  # noqa: PTH100 (Path.absolute keeps "..")
        for line in playlists.read_playlist(playlist):
            try:
                path = playlists.find_song(line, playlist)
            except AudioError as error:
                self.failed.append(Failed(redact(os.fsdecode(line.strip())), error))
                continue
            if isinstance(path, Location):
                self._add_location(path, path.name)
                continue
            full = Path(os.path.abspath(path))  # noqa: PTH100
            # As if the playlist's folder had been searched; songs elsewhere are treated as if they had been named.
            self.add(path, full.relative_to(folder) if Path(folder) in full.parents else Path(full.name), str(path))

    def _expand(self, text: str) -> Iterator[Path]:
        """Yield the files and folders that match a pattern, sorted."""
        path_pattern = Path(text)
        has_suffix = path_pattern.suffix and not any(sign in path_pattern.suffix for sign in "*?[")
        if _ANY_DEPTH not in path_pattern.parts:
            for name in sorted(glob.glob(text)):  # noqa: PTH207 (Path.glob matches hidden files, too)
                path = Path(name)
                if _is_folder(path):
                    if real_path(path) != self._output:
                        yield path
                elif has_suffix or path.suffix.lower() in SUFFIXES | playlists.SUFFIXES:
                    yield path
            return
        # Not by glob.glob, which follows links to folders: two that lead back would keep it busy forever.
        parts = path_pattern.parts
        depth = next(number for number, part in enumerate(parts) if any(sign in part for sign in "*?["))
        base, pattern = Path(*parts[:depth]), [os.path.normcase(part) for part in parts[depth:]]
        for parts, _ in self._walk(base):
            if not has_suffix and Path(parts[-1]).suffix.lower() not in SUFFIXES:
                continue
            if _matches([os.path.normcase(part) for part in parts], pattern):
                yield base.joinpath(*parts)

    def _walk(self, folder: Path) -> Iterator[tuple[tuple[str, ...], str]]:
        """Yield the files below a folder that pass `include` and `exclude`, sorted: path in parts, and real path.

        Iterative, as folders can be nested deeper than Python can recurse.
        """
        top = real_path(folder)
        searched: set[tuple[str, bool]] = set()  # with whether everything in it was taken
        # Stems of an earlier run are not songs. If the output folder itself is searched, only the files in its
        # manifests are left out.
        inside = _is_within(top, self._output)
        pending: list[tuple[tuple[str, ...], str, bool]] = [((), top, not self._include)]
        linked: deque[tuple[tuple[str, ...], str, bool]] = deque()  # so that songs are found where they really are
        while pending or linked:
            above, real, included = pending.pop() if pending else linked.popleft()
            if not searched.isdisjoint({(real, included), (real, True)}):
                continue
            searched.add((real, included))
            folders = []
            try:
                with os.scandir(folder.joinpath(*above)) as scan:
                    entries = sorted(scan, key=lambda entry: entry.name)
            except OSError as error:
                name = str(folder.joinpath(*above))
                message = f"cannot read the folder {name!r}: {error.strerror}"
                failure = AudioError(message, "check its permissions", path=Path(name))
                self.failed.append(Failed(name, failure))
                continue
            stems = manifest.stems_in(folder.joinpath(*above)) if inside else frozenset()
            for entry in entries:
                parts = (*above, entry.name)
                if entry.name[0] == "." or entry.name in stems or self._exclude.match(parts):
                    continue
                chosen = included or self._include.match(parts)
                target = os.path.join(real, entry.name)  # noqa: PTH118 (quicker, for thousands of files)
                if not _leads_to_folder(entry):
                    if chosen:
                        yield parts, real_path(target) if entry.is_symlink() else target
                elif _is_link(entry):
                    target = real_path(target)
                    # One that contains the searched folder would lead to everything around it, and back.
                    if not _is_within(top, target) and (inside or not _is_within(target, self._output)):
                        linked.append((parts, target, chosen))
                elif inside or target != self._output:
                    folders.append((parts, target, chosen))
            pending += reversed(folders)


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether a path matches a pattern, part by part; ** stands for any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == _ANY_DEPTH:
        return any(_matches(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _split_pattern(url: str) -> list[str]:
    """Return the URL of the folder above a pattern, and the parts of the pattern."""
    parts = url.split("/")
    depth = next(number for number, part in enumerate(parts) if any(sign in part for sign in "*?["))
    return ["/".join(parts[:depth]), *parts[depth:]]


def _leads_to_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a circular link
        return False


def _is_within(path: str, folder: str) -> bool:
    """Return whether a real path is that of a folder, or below it."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _is_link(entry: "os.DirEntry[str]") -> bool:
    is_junction = getattr(entry, "is_junction", bool)  # on Windows, from Python 3.12 on
    return entry.is_symlink() or bool(is_junction())


def _without_sound(path: Path) -> tuple[str, str] | None:
    """Tell by its first bytes what a file is that people take for a song, and what to do with it; None for others."""
    if path.suffix.lower() in SUFFIXES or not os.path.isfile(path):  # noqa: PTH113 (never raises)
        return None
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError:  # which is reported when it is opened as a song
        return None
    return next((what for magic, what in _NOT_AUDIO.items() if start.startswith(magic)), None)


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 (Path.is_dir raises for names that are too long)
