"""What a song's stems were made of, kept beside them: a small JSON file that is there once they are complete.

It tells a later run what is done already, and which files are as stemsplit wrote them, so that nothing that somebody
has edited is replaced.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from stemsplit.errors import AudioError, ModelError
from stemsplit.files import FileStamp, replacing, sha256_of
from stemsplit.models.registry import ModelSpec
from stemsplit.version import __version__

NAME, SUFFIX = "stemsplit", "json"  # what stands for the stem and the extension in its name
_SCHEMA = 1
_LARGEST = 2**22  # bytes
_COARSEST_SECONDS = 2.0  # steps of time on FAT: within one, a file can change and keep its time


@dataclass(frozen=True, slots=True)
class Provenance:
    """What decides how stems sound, but for the song.

    model: from `describe_model`. settings: of the separation and of the files, as JSON has them; not what only changes
    how quickly it is done.
    """

    model: Mapping[str, Any]
    settings: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """Stems that were made together.

    song: what the user called it. source: its content. rate: Hz. channels, length: of each stem, samples.
    stems: by name, the file relative to the manifest, with slashes, and its content.
    """

    provenance: Provenance
    song: str
    source: FileStamp
    rate: int
    channels: int
    length: int
    stems: Mapping[str, tuple[str, FileStamp]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StemStatus:
    """What there is of a song's stems, and what to do: make them, do nothing, or replace what is not up to date."""

    to_do: Literal["make", "nothing", "replace"]
    why: str = ""


def describe_model(spec: ModelSpec) -> dict[str, Any]:
    """What a model is, for a Provenance: a commit on the Hub, or the hash of its file.

    ModelError: the file cannot be read.
    """
    if spec.path is None:
        known = {"name": spec.name, "repo": spec.repo, "revision": spec.revision}
        return known | ({"config": dict(spec.config)} if spec.config else {})
    try:
        return {"name": spec.name, "sha256": sha256_of(spec.path)}
    except OSError as error:
        raise ModelError(f"cannot read the model {str(spec.path)!r}: {error.strerror}", "check the path") from error


def stamp_source(song: Path) -> FileStamp:
    """The content of a song that is about to be separated. OSError: it cannot be read."""
    now, stamp = time.time(), FileStamp.of(song)
    # If it changes once more right now, neither its time nor its size may show it.
    return replace(stamp, mtime_ns=0) if stamp.mtime_ns / 1e9 > now - _COARSEST_SECONDS else stamp


def read_manifest(path: Path) -> list[Run]:
    """What a manifest says; nothing if it is not there, or not one that this version understands."""
    try:
        with path.open("rb") as file:
            table = json.loads(file.read(_LARGEST))
        return [_run(entry) for entry in table["runs"]] if table["manifest"] == _SCHEMA else []
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return []


def stems_in(folder: Path) -> frozenset[str]:
    """The names of the files in a folder of which a manifest in it says that stemsplit has made them."""
    names: set[str] = set()
    for path in folder.glob(f"*{NAME}*.{SUFFIX}"):
        for run in read_manifest(path):
            names |= {file for file, _ in run.stems.values()}
    return frozenset(names)


def write_manifest(path: Path, runs: Sequence[Run]) -> None:
    """Write a manifest, which is there complete or not at all. OSError: that is not possible."""
    table = {"manifest": _SCHEMA, "stemsplit": __version__, "runs": [_table(run) for run in runs]}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")


def record_run(path: Path, run: Run, outputs: Mapping[str, Path]) -> None:
    """Add a run whose stems are complete to a manifest, with their hashes. OSError: that is not possible.

    What is known of other files stays, of whatever model, settings and format they are.
    """
    files = {stem: _relative(output, path) for stem, output in outputs.items()}
    others = []
    for other in read_manifest(path):
        kept = {stem: entry for stem, entry in other.stems.items() if entry[0] not in files.values()}
        others += [replace(other, stems=kept)] if kept else []
    # Who is killed while it hashes has stems that are known by their sizes and times, and need not be made again.
    for hashed in (False, True):
        with ThreadPoolExecutor() as pool:
            stamps = pool.map(partial(FileStamp.of, hashed=hashed), outputs.values())
            stems = {stem: (files[stem], stamp) for stem, stamp in zip(outputs, stamps, strict=True)}
        write_manifest(path, [*others, replace(run, stems=stems)])


def check_stems(path: Path, song: Path, outputs: Mapping[str, Path], provenance: Provenance) -> StemStatus:
    """Compare what is there with what is wanted.

    path: of the manifest. outputs: where each stem goes. Where the manifest has no word on a file, "make" is what to
    do: whoever does it finds that the file exists. Nothing that is in a manifest is taken for a path.

    AudioError: a stem is not as stemsplit wrote it, or something cannot be read.
    """
    known = {file: (run, stamp) for run in read_manifest(path) for file, stamp in run.stems.values()}
    reasons: dict[int, str] = {}  # by run
    there: list[tuple[Path, FileStamp]] = []
    why = ""
    for stem, output in outputs.items():
        found = known.get(_relative(output, path))
        if not os.path.lexists(output):
            why = why or f"{stem} is missing"
            continue
        if found is None:
            return StemStatus("make")
        run, stamp = found
        if id(run) not in reasons:
            reasons[id(run)] = _outdated(run, song, provenance)
        why = why or reasons[id(run)]
        there.append((output, stamp))
    if not there:
        return StemStatus("make")
    for output, stamp in there:
        try:
            if stamp.matches(output, quickly=not why):  # a file that is going to be replaced is looked at closely
                continue
        except OSError as error:
            raise AudioError(f"cannot read {str(output)!r}: {error.strerror}", "check its permissions") from error
        told = f"{str(output)!r} was changed after stemsplit wrote it"
        raise AudioError(told, "choose another folder with --output, or replace it with --overwrite")
    return StemStatus("replace", why) if why else StemStatus("nothing")


def _outdated(run: Run, song: Path, provenance: Provenance) -> str:
    """Why the stems of a run are not those that are wanted; empty if they are."""
    (model, settings), (other_model, others) = _comparable(provenance), _comparable(run.provenance)
    if model != other_model:
        return "made by another model"
    if settings != others:
        names = sorted({*settings, *others})
        differing = [name for name in names if settings.get(name, ...) != others.get(name, ...)]
        return f"made with another {', '.join(differing)}"
    try:
        same = run.source.matches(song)
    except OSError:  # whoever reads it next says so
        same = False
    return "" if same else "made of another version of the song"


def _run(table: Mapping[str, Any]) -> Run:
    stems = {str(stem): (str(entry["file"]), _stamp(entry)) for stem, entry in table["stems"].items()}
    provenance = Provenance(dict(table["model"]), dict(table["settings"]))
    rate, channels, length = (int(table[name]) for name in ("rate", "channels", "length"))
    return Run(provenance, str(table["song"]["name"]), _stamp(table["song"]), rate, channels, length, stems)


def _table(run: Run) -> dict[str, Any]:
    return {
        "model": dict(run.provenance.model),
        "settings": dict(run.provenance.settings),
        "song": {"name": run.song, **asdict(run.source)},
        "rate": run.rate,
        "channels": run.channels,
        "length": run.length,
        "stems": {stem: {"file": file, **asdict(stamp)} for stem, (file, stamp) in run.stems.items()},
    }


def _comparable(provenance: Provenance) -> tuple[dict[str, Any], dict[str, Any]]:
    """Model and settings as they come out of a file."""
    model, settings = json.loads(json.dumps([dict(provenance.model), dict(provenance.settings)]))
    model.pop("name", None)
    return model, settings


def _relative(output: Path, manifest: Path) -> str:
    """Where a stem is, for a manifest that is in the same folder or in one beside it."""
    if output.parent == manifest.parent:  # as nearly always, and quicker
        return output.name
    return Path(os.path.relpath(output, manifest.parent)).as_posix()


def _stamp(table: Mapping[str, Any]) -> FileStamp:
    return FileStamp(int(table["size"]), int(table["mtime_ns"]), str(table["sha256"]))
