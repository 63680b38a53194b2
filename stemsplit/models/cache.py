"""Weights on this machine: where the Hub's cache has them, and whether they are still what was checked.

The Hub's client compares no hashes over plain HTTP, and any program may write into its cache. So every file is hashed
before its first use, and what was found is remembered: one small JSON file each, in the user's own cache folder, as
the Hub's may be shared and read-only. While a file keeps its size and its time of change, it is not hashed again.
"""

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from stemsplit.errors import ModelError
from stemsplit.files import replacing, sha256_of
from stemsplit.models import registry
from stemsplit.models.registry import ModelSpec, WeightFile


class DamagedError(ModelError):
    """A file of weights is not the one that it should be."""


@dataclass(frozen=True, slots=True)
class _Record:
    """A file of the cache when it was hashed. size: bytes. mtime_ns: time of its last change."""

    path: str
    size: int
    mtime_ns: int
    sha256: str


def hub_cache() -> Path:
    """The folder in which the Hub's client keeps what it downloads (HF_HUB_CACHE, HF_HOME)."""
    from huggingface_hub import constants  # quick: without the client itself

    return Path(constants.HF_HUB_CACHE)


def made_here() -> Path:
    """The folder of the files that were made of downloads."""
    return _own_folder() / "converted"


def find(spec: ModelSpec, file: WeightFile) -> Path | None:
    """A file of a model in the cache, checked or not; None if it is not there.

    Raises ModelError for names that lead out of the cache.
    """
    if not (registry.is_inside(file.name) and registry.is_inside(spec.revision)):
        raise ModelError(f"{file.name!r} at {spec.revision!r} leads out of the cache", "is it a model for stemsplit?")
    path = _snapshot(spec, file)
    return path if os.path.exists(path) else None  # noqa: PTH110 (never raises)


def find_weights(spec: ModelSpec) -> Path | None:
    """The one file of weights that is here of a repository that the user named, or None."""
    if usual := find(spec, WeightFile(registry.FILE)):
        return usual
    found = [*_snapshot(spec, WeightFile(registry.FILE)).parent.glob(f"*{registry.SUFFIX}")]
    return found[0] if len(found) == 1 else None


def check(file: WeightFile, path: Path, *, again: bool = False) -> None:
    """Compare size and SHA-256 with what `file` says, or if that says nothing, with those of the first download.

    Without `again`, a file that has not changed since it was checked is taken to be good.
    Raises DamagedError when it differs, ModelError when it cannot be read.
    """
    record = _recall(path)
    expected = file.sha256 or (record.sha256 if record else _hash_in_name(path))
    try:
        status = path.stat()
        if not again and record == _Record(os.fspath(path), status.st_size, status.st_mtime_ns, expected):
            return
        if file.size not in (None, status.st_size):
            raise DamagedError(f"{file.name!r} has {status.st_size} bytes instead of {file.size}")
        found = sha256_of(path)
    except OSError as error:
        raise ModelError(f"cannot read the model file {str(path)!r}: {error.strerror}", "check the cache") from error
    if expected and found != expected:
        if record:  # its time of change has not told, so it shall not do so again
            _remember(path, replace(record, mtime_ns=0))
        raise DamagedError(f"{file.name!r} has the SHA-256 {found[:12]}... instead of {expected[:12]}...")
    _remember(path, _Record(os.fspath(path), status.st_size, status.st_mtime_ns, found))


def first_hash(spec: ModelSpec, file: WeightFile) -> str:
    """The SHA-256 that a file of a model had when it was downloaded first, or empty."""
    record = _recall(_snapshot(spec, file))
    return record.sha256 if record else ""


def hash_of(path: Path) -> str:
    """The SHA-256 of a file; one that has not changed since it was checked is not read again. Raises ModelError."""
    record = _recall(path)
    try:
        status = path.stat()
        known = record and record == _Record(os.fspath(path), status.st_size, status.st_mtime_ns, record.sha256)
        return record.sha256 if record and known else sha256_of(path)
    except OSError as error:
        raise ModelError(f"cannot read the model file {str(path)!r}: {error.strerror}", "check the cache") from error


def record(path: Path, place: Path) -> None:
    """Remember a file of our own, which is to be renamed to `place`."""
    status = path.stat()
    _remember(place, _Record(os.fspath(place), status.st_size, status.st_mtime_ns, sha256_of(path)))


def is_unchanged(path: Path) -> bool:
    """Whether a file is here, and what it was when it was recorded."""
    if _recall(path) is None or not os.path.exists(path):  # noqa: PTH110 (never raises)
        return False
    try:
        check(WeightFile(path.name), path)
    except DamagedError:
        return False
    return True


def discard(path: Path) -> int:
    """Delete a file from the cache, and its content if nothing else there refers to it; gives the bytes set free.

    Or one that was made of such files. Raises ModelError when that is not allowed.
    """
    if not {hub_cache(), made_here()} & set(path.parents):
        raise ModelError(f"{str(path)!r} is not in the cache of the Hub, and stays")
    try:
        blob = _target(path) or path
        if blob is not path:
            path.unlink()
        if _is_referred_to(blob):
            return 0
        size = 0 if blob.is_symlink() else blob.stat().st_size  # a link leads to a store that repositories share
        blob.unlink()
        return size
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise ModelError(f"cannot delete {str(path)!r}: {error.strerror}", "check who may write there") from error


def forget(path: Path) -> None:
    """Drop what is remembered of a file, so that the next download is the first one again."""
    with suppress(OSError):
        _record_file(path).unlink()


def sweep(spec: ModelSpec, older_than_seconds: float = 3600.0) -> None:
    """Delete what downloads that were killed have left of a repository; younger files may belong to one that runs."""
    for partial in _repo_folder(spec).glob("blobs/*.incomplete"):
        with suppress(OSError):
            if time.time() - partial.stat().st_mtime > older_than_seconds:
                partial.unlink()


def _repo_folder(spec: ModelSpec) -> Path:
    return hub_cache() / f"models--{spec.repo.replace('/', '--')}"


def _snapshot(spec: ModelSpec, file: WeightFile) -> Path:
    """Where the cache has a file of a commit, or of the commit that a branch was the last time."""
    folder, commit = _repo_folder(spec), spec.revision
    if not registry.COMMIT.fullmatch(commit):
        with suppress(OSError, UnicodeDecodeError):
            last = (folder / "refs" / commit).read_text(encoding="utf-8").strip()
            commit = last if registry.COMMIT.fullmatch(last) else commit
    return folder / "snapshots" / commit / file.name


def _target(path: Path) -> Path | None:
    """What a link in a snapshot leads to in one step; None for a file that is no link (a cache without links)."""
    return Path(os.path.normpath(path.parent / path.readlink())) if path.is_symlink() else None


def _is_referred_to(blob: Path) -> bool:
    """Whether any snapshot of the same repository still leads to `blob`."""
    return any(_target(link) == blob for link in (blob.parent.parent / "snapshots").rglob("*"))


def _hash_in_name(path: Path) -> str:
    """The Hub's client calls the content of a large file by its SHA-256."""
    blob = _target(path)
    return blob.name if blob and registry.SHA256.fullmatch(blob.name) else ""


def _own_folder() -> Path:
    import platformdirs

    return platformdirs.user_cache_path("stemsplit")


def _record_file(path: Path) -> Path:
    # .../models--owner--name/snapshots/<commit>/<file>, the same for every cache folder
    place = path.parts[path.parts.index("snapshots") - 1 :] if "snapshots" in path.parts else path.parts[1:]
    return _own_folder() / "checked" / f"{'--'.join(place)}.json"


def _recall(path: Path) -> _Record | None:
    try:
        table = json.loads(_record_file(path).read_text(encoding="utf-8"))
        record = _Record(**table)
        return record if [type(value) for value in asdict(record).values()] == [str, int, int, str] else None
    except (OSError, ValueError, TypeError):
        return None


def _remember(path: Path, record: _Record) -> None:
    """Where that is not possible, the file is hashed every time."""
    file = _record_file(path)
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as part:
            part.write_text(json.dumps(asdict(record)), encoding="utf-8")
