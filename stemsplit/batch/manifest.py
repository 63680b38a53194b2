"""Manifests: a small JSON file beside the stems of a song, which records how they were made once they are complete.

It tells a later run which songs are complete, and which files are unchanged since stemsplit wrote them, so that stems
that the user has edited are never replaced.
"""

import json
import os
import posixpath
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from stemsplit.errors import AudioError, ModelError
from stemsplit.files import FileStamp, replacing, sha256_of
from stemsplit.models.registry import ModelSpec
from stemsplit.storage.location import Location
from stemsplit.version import __version__

NAME, SUFFIX = "stemsplit", "json"  # in its file name, in place of the stem and the extension
_SCHEMA = 1
_LARGEST = 2**22  # bytes
REQUESTS = 16  # to a server at a time: each takes about as long as it takes to get there and back
_COARSEST_SECONDS = 2.0  # steps of time on FAT: within one, a file can change and keep its time


@dataclass(frozen=True, slots=True)
class Provenance:
    """The model and settings that stems are made with.

    Attributes:
        model: From `describe_model`.
        settings: Of the separation and of the files, as in JSON, except those that only affect the speed.
    """

    model: Mapping[str, Any]
    settings: Mapping[str, Any]

    def decided(self, precision: str) -> "Provenance":
        """Return the same with the precision that was chosen, if that was left to the machine."""
        if self.settings.get("precision") != "auto":
            return self
        return replace(self, settings={**self.settings, "precision": precision})


@dataclass(frozen=True, slots=True)
class Run:
    """Stems that were made together.

    Attributes:
        provenance: What they were made with.
        song: The label of the song.
        source: Content of its file.
        rate: Hz of each stem.
        channels: Of each stem.
        length: Samples of each stem.
        stems: By name, the path relative to the manifest, with slashes, and the content.
        consistent: Whether they were made to add up to the song; None if an earlier version did not record it.
        incomplete: Whether part of the song could not be decoded.
    """

    provenance: Provenance
    song: str
    source: FileStamp
    rate: int
    channels: int
    length: int
    stems: Mapping[str, tuple[str, FileStamp]] = field(default_factory=dict)
    consistent: bool | None = None
    incomplete: bool = False


@dataclass(frozen=True, slots=True)
class StemStatus:
    """What to do about the stems of a song.

    Attributes:
        to_do: "make" them, "nothing" as they are complete and up to date, or "replace" them.
        why: The reason to replace them, or empty.
        incomplete: Whether part of the song could not be decoded when they were made.
    """

    to_do: Literal["make", "nothing", "replace"]
    why: str = ""
    incomplete: bool = False


def describe_model(spec: ModelSpec) -> dict[str, Any]:
    """Return what identifies a model in a `Provenance`: a commit on the Hub, the hash of its file, or its models.

    Raises:
        ModelError: The file cannot be read.
    """
    if spec.steps:
        steps = [
            {**describe_model(step.model), **({"of": step.of} if step.of else {}), "as": dict(step.rename)}
            for step in spec.steps
        ]
        return {"name": spec.name, "steps": steps}
    if spec.shares:
        mean = [{**describe_model(share.model), "weight": share.weight} for share in spec.shares]
        return {"name": spec.name, "mean": mean}
    if spec.path is None:
        known = {"name": spec.name, "repo": spec.repo, "revision": spec.revision}
        return known | ({"config": dict(spec.config)} if spec.config else {})
    try:
        return {"name": spec.name, "sha256": sha256_of(spec.path)}
    except OSError as error:
        message = f"cannot read the model {str(spec.path)!r}: {error.strerror}"
        raise ModelError(message, "check the path", path=spec.path, model=spec.name) from error


def stamp_source(song: Path) -> FileStamp:
    """Return the stamp of a song that is about to be separated.

    Raises:
        OSError: The song cannot be read.
    """
    now, stamp = time.time(), FileStamp.of(song)
    # A song that was changed just now may change once more without a trace in its time and size.
    return replace(stamp, mtime_ns=0) if stamp.mtime_ns / 1e9 > now - _COARSEST_SECONDS else stamp


def read_manifest(path: Path | Location) -> list[Run]:
    """Return the runs that a manifest records; none if it is missing, damaged or of another version."""
    try:
        with path.open("rb") as file:
            table = json.loads(file.read(_LARGEST))
        return [_run(entry) for entry in table["runs"]] if table["manifest"] == _SCHEMA else []
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return []


def stems_in(folder: Path) -> frozenset[str]:
    """Return the names of the files in a folder that its manifests record as stems."""
    names: set[str] = set()
    for path in folder.glob(f"*{NAME}*.{SUFFIX}"):
        for run in read_manifest(path):
            names |= {file for file, _ in run.stems.values()}
    return frozenset(names)


def stems_among(files: Iterable[Location]) -> frozenset[str]:
    """Return the addresses of those files that manifests among them record as stems."""
    manifests = [file for file in files if NAME in file.name and file.suffix == f".{SUFFIX}"]
    with ThreadPoolExecutor(REQUESTS) as pool:
        runs = pool.map(read_manifest, manifests)
    return frozenset(
        f"{manifest.url.rstrip('/')}/{posixpath.normpath(posixpath.join(manifest.parent.key, file))}"
        for manifest, each in zip(manifests, runs, strict=True)
        for run in each
        for file, _ in run.stems.values()
    )


@contextmanager
def announced(path: Path | Location, outputs: Iterable[Path | Location]) -> Iterator[None]:
    """Say in a file beside the manifest which stems are about to appear, until the manifest records them.

    A process that is killed meanwhile leaves it behind, so that a later one knows that these files are stems that
    nobody needs. It is for stems that appear one after the other, or by a process that may well be killed.

    Args:
        path: The manifest.
        outputs: The stems that did not exist before.

    Raises:
        OSError: It cannot be written.
        AudioError: It cannot be written to a URL.
    """
    pending = _pending(path)
    content = json.dumps({"manifest": _SCHEMA, "pending": [_relative(output, path) for output in outputs]})
    if isinstance(pending, Path):
        pending.parent.mkdir(parents=True, exist_ok=True)
        pending.write_text(content, encoding="utf-8")
    else:
        pending.write_bytes(content.encode())
    try:
        yield
    finally:
        with suppress(OSError, AudioError):  # nothing is wrong with one that stays
            pending.unlink()
        if isinstance(pending, Path):
            with suppress(OSError):  # unless the stems are there
                pending.parent.rmdir()


def _pending(path: Path | Location) -> Path | Location:
    return path.with_name(f"{path.name.removesuffix(SUFFIX)}pending.{SUFFIX}")


def _read_pending(path: Path | Location) -> frozenset[str]:
    """Return the stems that a process was about to write when it was killed, relative to the manifest."""
    try:
        with _pending(path).open("rb") as file:
            return frozenset(map(str, json.loads(file.read(_LARGEST))["pending"]))
    except (OSError, AudioError, ValueError, TypeError, LookupError, RecursionError):
        return frozenset()


def write_manifest(path: Path | Location, runs: Sequence[Run]) -> None:
    """Write a manifest, complete or not at all.

    Raises:
        OSError: It cannot be written.
        AudioError: It cannot be written to a URL.
    """
    table = {"manifest": _SCHEMA, "stemsplit": __version__, "runs": [_table(run) for run in runs]}
    content = json.dumps(table, indent=2) + "\n"
    if isinstance(path, Location):
        path.write_bytes(content.encode())
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        part.write_text(content, encoding="utf-8")


def record_run(path: Path | Location, run: Run, outputs: Mapping[str, Path]) -> None:
    """Add complete stems to a manifest, which keeps what it records of other files.

    Args:
        path: The manifest.
        run: How the stems were made; `stems` is ignored.
        outputs: Their files, by name.

    Raises:
        OSError: A stem cannot be read, or the manifest cannot be written.
    """
    files = {stem: _relative(output, path) for stem, output in outputs.items()}
    others = []
    for other in read_manifest(path):
        kept = {stem: entry for stem, entry in other.stems.items() if entry[0] not in files.values()}
        others += [replace(other, stems=kept)] if kept else []
    # If it is killed while hashing, the stems are already known by size and time, and need not be made again.
    for hashed in (False, True):
        with ThreadPoolExecutor() as pool:
            stamps = pool.map(partial(FileStamp.of, hashed=hashed), outputs.values())
            stems = {stem: (files[stem], stamp) for stem, stamp in zip(outputs, stamps, strict=True)}
        write_manifest(path, [*others, replace(run, stems=stems)])


def discard_replaced(path: Path | Location, outputs: Mapping[str, Path | Location]) -> None:
    """Delete what a manifest records of these stems in other formats, unless it was changed since.

    Args:
        path: The manifest, which forgets those files.
        outputs: The files of the new stems, by name.

    Raises:
        OSError: A file cannot be deleted, or the manifest cannot be written.
    """
    runs = read_manifest(path)
    kept: list[Run] = []
    for run in runs:
        stems = dict(run.stems)
        for stem, (file, stamp) in run.stems.items():
            old = outputs[stem].with_suffix(Path(file).suffix) if stem in outputs else None
            # The path is made from that of the new file, and not taken from the manifest.
            if old and old != outputs[stem] and _relative(old, path) == file:
                if _exists(old) and stamp.matches(old, quickly=False):
                    old.unlink()
                if not _exists(old):
                    del stems[stem]
        kept += [replace(run, stems=stems)] if stems else []
    if kept != runs:
        write_manifest(path, kept)


def check_stems(
    path: Path | Location, song: Path | Location, outputs: Mapping[str, Path | Location], provenance: Provenance
) -> StemStatus:
    """Compare the existing stems of a song with the requested ones.

    If a stem exists that the manifest does not record, the answer is "make", and writing it will report that it exists;
    unless a process was killed that was about to write it.
    Nothing in a manifest is ever used as a path.

    Args:
        path: The manifest.
        song: The file of the song.
        outputs: The file of each requested stem, by name.
        provenance: What the stems should be made with.

    Raises:
        AudioError: A stem was edited, or it cannot be read.
    """
    known = {file: (run, stamp) for run in read_manifest(path) for file, stamp in run.stems.values()}
    reasons: dict[int, str] = {}  # by run
    existing: list[tuple[Path | Location, FileStamp]] = []
    left: frozenset[str] | None = None  # by a process that was killed
    why, incomplete = "", False
    for stem, output in outputs.items():
        recorded = known.get(_relative(output, path))
        if not _exists(output):
            why = why or f"{stem} is missing"
            continue
        if recorded is None:
            left = _read_pending(path) if left is None else left
            if _relative(output, path) not in left:
                return StemStatus("make")
            why = "left by a run that was stopped"
            continue
        run, stamp = recorded
        if id(run) not in reasons:
            reasons[id(run)] = _outdated(run, song, provenance)
        why = why or reasons[id(run)]
        existing.append((output, stamp))
        incomplete |= run.incomplete
    if not existing and not left:
        return StemStatus("make")
    for output, stamp in existing:
        try:
            if stamp.matches(output, quickly=not why):  # a file that is going to be replaced is looked at closely
                continue
        except OSError as error:
            message = f"cannot read {str(output)!r}: {error.strerror}"
            raise AudioError(message, "check its permissions", path=_local(output)) from error
        message = f"{str(output)!r} was changed after stemsplit wrote it"
        hint = "choose another folder with --output, or replace it with --overwrite"
        raise AudioError(message, hint, path=_local(output))
    return StemStatus("replace", why) if why else StemStatus("nothing", incomplete=incomplete)


def _outdated(run: Run, song: Path | Location, provenance: Provenance) -> str:
    """Return why the stems of a run are outdated, or an empty text."""
    (model, settings), (other_model, others) = _comparable(provenance), _comparable(run.provenance)
    if model != other_model:
        return "made by another model"
    if others.get("consistent") is None and settings.get("consistent") == run.consistent is not None:
        others["consistent"] = run.consistent  # the default then was what is asked for now
    if settings.get("precision") == "auto":
        settings["precision"] = others.get("precision")  # whichever another machine or version chose
    if settings != others:
        names = sorted({*settings, *others})
        differing = [name for name in names if settings.get(name, ...) != others.get(name, ...)]
        return f"made with another {', '.join(differing)}"
    try:
        same = run.source.matches(song)
    except OSError:  # reported when the song is opened
        same = False
    return "" if same else "made of another version of the song"


def _run(table: Mapping[str, Any]) -> Run:
    stems = {str(stem): (str(entry["file"]), _stamp(entry)) for stem, entry in table["stems"].items()}
    provenance = Provenance(dict(table["model"]), dict(table["settings"]))
    rate, channels, length = (int(table[name]) for name in ("rate", "channels", "length"))
    consistent = None if table.get("consistent") is None else bool(table["consistent"])
    song, name = _stamp(table["song"]), str(table["song"]["name"])
    incomplete = table.get("incomplete") is True
    return Run(provenance, name, song, rate, channels, length, stems, consistent, incomplete)


def _table(run: Run) -> dict[str, Any]:
    return {
        "model": dict(run.provenance.model),
        "settings": dict(run.provenance.settings),
        "song": {"name": run.song, **asdict(run.source)},
        "rate": run.rate,
        "channels": run.channels,
        "length": run.length,
        "consistent": run.consistent,
        **({"incomplete": True} if run.incomplete else {}),
        "stems": {stem: {"file": file, **asdict(stamp)} for stem, (file, stamp) in run.stems.items()},
    }


def _comparable(provenance: Provenance) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return model and settings as JSON has them, without the name of the model, which changes nothing."""
    model, settings = json.loads(json.dumps([dict(provenance.model), dict(provenance.settings)]))
    model.pop("name", None)
    return model, settings


def _relative(output: Path | Location, manifest: Path | Location) -> str:
    """Return the path of a stem relative to its manifest, in the same folder or in one beside it."""
    if isinstance(output, Location) and isinstance(manifest, Location):
        return posixpath.relpath(output.key, manifest.parent.key or ".")
    assert isinstance(output, Path)
    assert isinstance(manifest, Path)
    if output.parent == manifest.parent:  # as nearly always, and quicker
        return output.name
    return Path(os.path.relpath(output, manifest.parent)).as_posix()


def _exists(path: Path | Location) -> bool:
    return path.exists() if isinstance(path, Location) else os.path.lexists(path)


def _local(path: Path | Location) -> Path | None:
    return path if isinstance(path, Path) else None


def _stamp(table: Mapping[str, Any]) -> FileStamp:
    return FileStamp(int(table["size"]), int(table["mtime_ns"]), str(table["sha256"]))
