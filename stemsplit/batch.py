"""Many songs at once: which files, where their stems go, and one song's failure that does not stop the others."""

import os
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stemsplit.audio import open_reader
from stemsplit.encoding import StemWriter
from stemsplit.errors import AudioError, UsageError

if TYPE_CHECKING:
    from stemsplit.separation import Report

SUFFIXES = frozenset(
    ".3gp .aac .ac3 .aif .aifc .aiff .amr .ape .au .caf .dts .eac3 .flac .m4a .m4b .m4v .mka .mkv .mov .mp2 .mp3 .mp4 "
    ".mpc .oga .ogg .opus .rf64 .snd .spx .tta .w64 .wav .wave .webm .wma .wv".split()
)
"""What is taken for a song in a folder. A file that is named itself may have any name."""


@dataclass(frozen=True, slots=True)
class Track:
    """One song to separate: its file, and the folder its stems go to."""

    source: Path
    folder: Path

    def outputs(self, stems: Sequence[str]) -> dict[str, Path]:
        """The file of every stem."""
        return {stem: self.folder / f"{stem}.wav" for stem in stems}


@dataclass(frozen=True, slots=True)
class Done:
    """A song that was separated, in `seconds` from opening it to closing its stems."""

    track: Track
    report: "Report"
    seconds: float


@dataclass(frozen=True, slots=True)
class Failed:
    """An input of which there are no stems, and why."""

    source: Path
    error: AudioError


def find(inputs: Sequence[str], output: Path) -> tuple[list[Track], list[Failed]]:
    """The songs that `inputs`, files and folders, stand for, and the inputs that stand for none.

    A file's stems go to `output/<its name without the extension>`. Folders are searched recursively, hidden files and
    `output` itself left out, and what is below them is mirrored below `output`. Songs that would share a folder, such
    as song.mp3 and song.wav, keep their extension in its name. A song that is named twice is separated once.

    Raises UsageError when songs of the same full name would still share a folder, before anything was done.
    """
    if os.path.lexists(output) and not _is_folder(output):
        raise UsageError(f"the output {str(output)!r} is a file", "name a folder with --output")
    places: dict[Path, Path] = {}  # every song's file -> its path below the output
    seen: set[Path] = set()
    failed: list[Failed] = []
    for text in inputs:
        given = Path(text)
        if not text:  # as a Path it would be the current folder
            raise UsageError("an empty name was given", "name a file or a folder")
        found = list(_walk(given, output, failed)) if _is_folder(given) else [(given, Path(given.name))]
        if not found and not any(failure.source == given for failure in failed):
            error = AudioError(f"there are no songs in the folder {text!r}", "name the files themselves")
            failed.append(Failed(given, error))
        for source, place in found:
            if (real := _real(source)) not in seen:
                seen.add(real)
                places[source] = place
    folders = _tell_apart(places)
    return [Track(source, output / folder) for source, folder in folders.items()], failed


def check(tracks: Iterable[Track], stems: Sequence[str], *, overwrite: bool) -> tuple[list[Track], list[Failed]]:
    """Sort out, in a moment, the songs that cannot be opened or whose stems exist already."""
    tracks = list(tracks)
    sources = {_real(track.source) for track in tracks}
    ready: list[Track] = []
    failed: list[Failed] = []
    for track in tracks:
        paths = list(track.outputs(stems).values())
        try:
            with open_reader(track.source) as reader:
                # Only made, not entered: this checks, and writes nothing.
                StemWriter(paths, rate=reader.rate, channels=reader.channels, overwrite=overwrite)
            for path in paths:
                if _real(path) in sources:
                    raise AudioError(
                        f"a stem of {str(track.source)!r} would replace the song {str(path)!r}", "use --output"
                    )
        except AudioError as error:
            failed.append(Failed(track.source, error))
        else:
            ready.append(track)
    return ready, failed


def run(track: Track, stems: Sequence[str], separate: Callable[[Path, dict[str, Path]], "Report"]) -> Done | Failed:
    """Separate one song with `separate`, which is given its file and its outputs; an AudioError is a result, too."""
    began = time.monotonic()
    try:
        report = separate(track.source, track.outputs(stems))
    except AudioError as error:
        return Failed(track.source, error)
    return Done(track, report, time.monotonic() - began)


def describe(result: Done | Failed, stems: Sequence[str]) -> dict[str, Any]:
    """What became of a song, for JSON. `length` is in samples at `rate` Hz."""
    if isinstance(result, Failed):
        return {"song": str(result.source), "error": str(result.error), "hint": result.error.hint}
    report = result.report
    return {
        "song": str(result.track.source),
        "stems": {stem: str(path) for stem, path in result.track.outputs(stems).items()},
        "rate": report.rate,
        "channels": report.channels,
        "length": report.length,
        "clipped": report.clipped,
        "warnings": list(report.warnings),
        "elapsed_seconds": round(result.seconds, 3),
    }


def _walk(folder: Path, output: Path, failed: list[Failed]) -> Iterator[tuple[Path, Path]]:
    """Songs below `folder`, sorted, with their paths in it."""

    def note(error: OSError) -> None:
        name = str(error.filename)
        failed.append(
            Failed(Path(name), AudioError(f"cannot look into {name!r}: {error.strerror}", "check its permissions"))
        )

    # Stems of an earlier run are no songs, but a folder that is searched as a whole is not left out.
    left_out: Path | None = _real(output)
    if left_out in (_real(folder), *_real(folder).parents):
        left_out = None
    for parent, folders, files in os.walk(folder, onerror=note):
        here = Path(parent)
        folders[:] = sorted(name for name in folders if name[0] != "." and _real(here / name) != left_out)
        for name in sorted(files):
            if name[0] != "." and Path(name).suffix.lower() in SUFFIXES:
                yield here / name, (here / name).relative_to(folder)


def _tell_apart(places: dict[Path, Path]) -> dict[Path, Path]:
    """A folder of its own for every song: its path without the extension, or with it where two would be the same."""
    folders = {source: _without_suffix(place) for source, place in places.items()}
    while True:
        sharing: dict[str, list[Path]] = {}
        for source, folder in folders.items():
            sharing.setdefault(_key(folder), []).append(source)
        crowded = [sources for sources in sharing.values() if len(sources) > 1]
        if not crowded:
            return folders
        for sources in crowded:
            if all(folders[source] == places[source] for source in sources):
                first, second = (repr(str(source)) for source in sources[:2])
                raise UsageError(
                    f"the stems of {first} and {second} would go to the same folder",
                    "name the folder that holds both, or separate them one at a time, each with an --output of its own",
                )
            folders.update((source, places[source]) for source in sources)


def _without_suffix(place: Path) -> Path:
    stem = place.stem
    return place.with_name(stem) if stem.strip(".") else place  # never "..", as of "...mp3"


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112 (Path.is_dir raises, for names that are too long and others)


def _real(path: Path) -> Path:
    return Path(os.path.realpath(path))  # Path.resolve raises where links go in circles


def _key(folder: Path) -> str:
    """Equal for names that some file systems take for the same: by case, or by how accents are encoded."""
    return unicodedata.normalize("NFC", str(folder)).casefold()
