"""What the user named -> songs: files, folders, patterns that no shell has expanded, playlists, and standard input."""

import fnmatch
import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stemsplit.batch import manifest, playlists, standard_input
from stemsplit.batch.standard_input import StandardInput
from stemsplit.errors import AudioError, UsageError
from stemsplit.files import fold_name

SUFFIXES = frozenset(
    ".3g2 .3gp .aa3 .aac .ac3 .adts .aif .aifc .aiff .amr .ape .au .avi .caf .dff .dsf .dts .eac3 .flac .flv .gsm "
    ".m2ts .m4a .m4b .m4r .m4v .mka .mkv .mov .mp1 .mp2 .mp3 .mp4 .mpc .mpeg .mpg .mpga .mts .mxf .oga .ogg .ogv .oma "
    ".opus .ra .rf64 .rm .shn .snd .spx .tak .tta .voc .vob .w64 .wav .wave .webm .wma .wmv .wv".split()
)
"""What is taken for a song in a folder. A file that is named itself may have any name."""

_ANY_DEPTH = "**"


@dataclass(frozen=True, slots=True)
class InputFile:
    """A song that was found.

    path: its file. place: its folders below the one that was searched, and its name. label: what the user calls it.
    """

    path: Path
    place: Path
    label: str


@dataclass(frozen=True, slots=True)
class Failed:
    """An input of which there are no stems, and why. source: as the user calls it."""

    source: str
    error: AudioError


def find_input_files(
    inputs: Sequence[str],
    output: Path,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    stdin: StandardInput | None = None,
) -> tuple[list[InputFile], list[Failed]]:
    """The songs that `inputs` stand for, in their order, each once, and what stands for none.

    A folder is searched with all folders in it, but for hidden ones, links to folders, and `output`. If `output` itself
    is searched, what stemsplit has made is left out. A name with *, ? or [ that is no file is a pattern, as shells have
    them, with ** for folders in folders. A playlist is the songs in it. With `stdin`, "-" is the song that comes from
    there; otherwise it is a file.

    include, exclude: patterns for what is searched. A pattern with a slash is for the path below the folder, others are
    for names; one that is for a folder is for all that is in it. Upper and lower case are the same. A song is left out
    if a pattern excludes it, or if there are patterns to include and none of them does: excluding wins.

    UsageError: an empty name or pattern.
    """
    found = _Search(output, include, exclude)
    for text in inputs:
        if not text:  # as a Path it would be the current folder
            raise UsageError("an empty name was given", "name a file or a folder")
        try:
            if text == "-" and stdin:
                found.add(stdin.spool(), Path(standard_input.NAME), "-")
            else:
                found.add_input(text)
        except AudioError as error:
            found.failed.append(Failed(text, error))
    return list(found.songs.values()), found.failed


class _Patterns:
    """What to include, or to exclude."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._names: list[str] = []
        self._paths: list[Sequence[str]] = []
        for text in texts:
            pattern = fold_name(text.replace(os.sep, "/").removeprefix("./").rstrip("/"))
            if not pattern.strip("/"):
                raise UsageError(f"the pattern {text!r} is for nothing", "write for instance '*.flac' or 'live/*'")
            if "/" in pattern:
                self._paths.append(pattern.removeprefix("/").split("/"))
            else:
                self._names.append(pattern)

    def __bool__(self) -> bool:
        return bool(self._names or self._paths)

    def match(self, parts: Sequence[str]) -> bool:
        """Whether one of them is for this path, given by its parts."""
        parts = [fold_name(part) for part in parts] if self else []
        return any(fnmatch.fnmatchcase(parts[-1], name) for name in self._names) or any(
            _matches(parts, path) for path in self._paths
        )


class _Search:
    """What has been found so far; songs by the files that they really are."""

    def __init__(self, output: Path, include: Sequence[str], exclude: Sequence[str]) -> None:
        self.songs: dict[str, InputFile] = {}
        self.failed: list[Failed] = []
        self._output = os.path.realpath(output)
        self._include, self._exclude = _Patterns(include), _Patterns(exclude)

    def add_input(self, text: str) -> None:
        """Anything that was named. AudioError: it stands for nothing."""
        if playlists.ADDRESS.match(text) and not os.path.lexists(text):
            raise AudioError(f"{text!r} is an address on the net", "download the song, and name its file")
        if not any(sign in text for sign in "*?[") or os.path.lexists(text):
            self._add_path(Path(text), text)
            return
        paths = list(self._expand(text))
        if not paths:
            raise AudioError(f"no song has a name like {text!r}", "check the spelling, and the folder")
        for path in paths:
            try:
                self._add_path(path, str(path))
            except AudioError as error:
                self.failed.append(Failed(str(path), error))

    def add(self, path: Path, place: Path, label: str, real: str = "") -> None:
        """One song, unless it is there already."""
        real = real or os.path.realpath(path)
        if real not in self.songs:
            self.songs[real] = InputFile(path, place, label)

    def _add_path(self, path: Path, told: str) -> None:
        if _is_folder(path):
            self._add_folder(path, told)
        elif path.suffix.lower() in playlists.SUFFIXES:
            self._add_playlist(path)
        else:
            self.add(path, Path(path.name), str(path))

    def _add_folder(self, folder: Path, told: str) -> None:
        failures, count = len(self.failed), 0
        for parts, real in self._walk(folder):
            if Path(parts[-1]).suffix.lower() in SUFFIXES:
                path = folder.joinpath(*parts)
                self.add(path, Path(*parts), str(path), real)
                count += 1
        if not count and len(self.failed) == failures:
            if self._include or self._exclude:
                reason = f"--include and --exclude leave no songs in the folder {told!r}"
                raise AudioError(reason, "check the patterns: quotes keep the shell from expanding them")
            raise AudioError(f"there are no songs in the folder {told!r}", "name the files themselves")

    def _add_playlist(self, playlist: Path) -> None:
        here = os.path.abspath(playlist.parent)  # noqa: PTH100 (Path.absolute keeps "..")
        for line in playlists.read_playlist(playlist):
            try:
                path = playlists.find_song(line, playlist)
            except AudioError as error:
                self.failed.append(Failed(os.fsdecode(line.strip()), error))
                continue
            full = Path(os.path.abspath(path))  # noqa: PTH100
            # As if the playlist's folder had been searched; what is elsewhere is as if it had been named itself.
            self.add(path, full.relative_to(here) if Path(here) in full.parents else Path(full.name), str(path))

    def _expand(self, text: str) -> Iterator[Path]:
        """The files and folders that a pattern is for, sorted."""
        whole = Path(text)
        any_kind = whole.suffix and not any(sign in whole.suffix for sign in "*?[")
        if _ANY_DEPTH not in whole.parts:
            for name in sorted(glob.glob(text)):  # noqa: PTH207 (Path.glob matches hidden files, too)
                path = Path(name)
                if _is_folder(path):
                    if os.path.realpath(path) != self._output:
                        yield path
                elif any_kind or path.suffix.lower() in SUFFIXES | playlists.SUFFIXES:
                    yield path
            return
        # The library follows links here, of which two that lead back are enough to keep it busy forever.
        depth = next(number for number, part in enumerate(whole.parts) if any(sign in part for sign in "*?["))
        base, pattern = Path(*whole.parts[:depth]), [os.path.normcase(part) for part in whole.parts[depth:]]
        for parts, _ in self._walk(base):
            if not any_kind and Path(parts[-1]).suffix.lower() not in SUFFIXES:
                continue
            if _matches([os.path.normcase(part) for part in parts], pattern):
                yield base.joinpath(*parts)

    def _walk(self, folder: Path) -> Iterator[tuple[tuple[str, ...], str]]:
        """Files below a folder that the patterns leave, sorted: the parts of their paths in it, and their real ones.

        Not recursive, as there may be more folders in each other than Python can call functions.
        """
        top = os.path.realpath(folder)
        # Stems of an earlier run are no songs. A folder that is searched as a whole is not left out, but what manifests
        # in it tell is.
        inside = top == self._output or top.startswith(self._output.rstrip(os.sep) + os.sep)
        waiting: list[tuple[tuple[str, ...], str, bool]] = [((), top, not self._include)]
        while waiting:
            above, real, included = waiting.pop()
            folders = []
            try:
                with os.scandir(folder.joinpath(*above)) as scan:
                    entries = sorted(scan, key=lambda entry: entry.name)
            except OSError as error:
                name = str(folder.joinpath(*above))
                refusal = AudioError(f"cannot look into {name!r}: {error.strerror}", "check its permissions")
                self.failed.append(Failed(name, refusal))
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
                        yield parts, os.path.realpath(target) if entry.is_symlink() else target
                elif not _is_link(entry) and (inside or target != self._output):
                    folders.append((parts, target, chosen))
            waiting += reversed(folders)


def _matches(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Whether a path has a pattern's parts; ** is for any number of folders."""
    if not pattern:
        return not parts
    if pattern[0] == _ANY_DEPTH:
        return any(_matches(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])


def _leads_to_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in circles
        return False


def _is_link(entry: "os.DirEntry[str]") -> bool:
    is_junction = getattr(entry, "is_junction", bool)  # what Windows has besides, known from Python 3.12 on
    return entry.is_symlink() or bool(is_junction())


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 (Path.is_dir raises, for names that are too long and others)
