"""Downloaded weights: where they are in the Hub's cache, and whether they are still the files that were verified.

The Hub's client compares no hashes over plain HTTP, and any program may write to its cache. So every file is hashed
before its first use, and the result is recorded: one small JSON file each, in the user's own cache folder, as the
Hub's may be shared and read-only. A file that keeps its size and its time of change is not hashed again.

Files are looked up here rather than by the client, whose import takes longer than all of this, and are removed here
because two models may have files in one revision: the client removes whole revisions.

Files converted from ONNX are kept in the user's own cache folder as well. The name of such a file has two keys: one of
the downloads, by which it is found and removed with them, and one of the header that it was made with.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from stemsplit import settings
from stemsplit.errors import ModelError
from stemsplit.files import discard_abandoned, replacing, sha256_of
from stemsplit.models import registry
from stemsplit.models.registry import ONNX, SUFFIX, WEIGHTS_NAME, ModelSpec, WeightFile
from stemsplit.wording import one_line

_KEY_DIGITS = 16  # hexadecimal


class DamagedError(ModelError):
    """A file of weights does not have the expected size or hash."""


@dataclass(frozen=True, slots=True)
class _Record:
    """A file as it was when it was hashed.

    Attributes:
        path: Where it was.
        size: Bytes.
        mtime_ns: Time of its last change.
        sha256: Hexadecimal.
    """

    path: str
    size: int
    mtime_ns: int
    sha256: str


# Files of the Hub


def hub_cache() -> Path:
    """The folder in which the Hub's client keeps downloads (HF_HUB_CACHE, HF_HOME)."""
    settings.temporary_home()  # before the client looks for one
    from huggingface_hub import constants  # quick, as it does not import the client itself

    return Path(constants.HF_HUB_CACHE)


def find_file(spec: ModelSpec, file: WeightFile) -> Path | None:
    """Find a file of a model in the cache, verified or not.

    Returns:
        Its path, or None if it is not there.

    Raises:
        ModelError: The name of the file, or of the revision, leads out of the cache.
    """
    if not (registry.is_inside(file.name) and registry.is_inside(spec.revision)):
        raise ModelError(f"{file.name!r} at {spec.revision!r} leads out of the cache", "is it a model for stemsplit?")
    path = _snapshot(spec, file.name)
    return path if os.path.exists(path) else None  # noqa: PTH110 (never raises)


def find_weights(spec: ModelSpec) -> Path | None:
    """Find the file of weights of a repository that the user named.

    Returns:
        Its path, or None if there is none, or more than one and none with the usual name.
    """
    if path := find_file(spec, WeightFile(WEIGHTS_NAME)):
        return path
    paths = [*_snapshot(spec, WEIGHTS_NAME).parent.glob(f"*{SUFFIX}")]
    return paths[0] if len(paths) == 1 else None


def described(spec: ModelSpec, path: Path | None = None) -> ModelSpec:
    """Complete a repository that the user named with what its downloaded file states, if there is one.

    Args:
        spec: The model; one whose stems are known is returned as it is.
        path: The file; it is searched for if None.

    Raises:
        ModelError: The file is damaged, or has no header.
    """
    if spec.stems or spec.path or spec.components or not (path := path or find_weights(spec)):
        return spec
    header = registry.read_spec(path)
    files = spec.files or (WeightFile(path.name, path.stat().st_size, recorded_hash(spec, WeightFile(path.name))),)
    commit = spec.revision if registry.COMMIT.fullmatch(spec.revision) else path.parent.name
    return replace(spec, family=header.family, stems=header.stems, files=files, revision=commit)


def find_files(spec: ModelSpec) -> list[tuple[WeightFile, Path]]:
    """Find all downloaded files of a model, verified or not."""
    if spec.components:
        return [found for part in spec.parts for found in find_files(part)]
    if spec.path:
        return []
    if not spec.files:  # a repository that the user named
        return [(WeightFile(path.name), path)] if (path := find_weights(spec)) else []
    return [(file, path) for file in spec.files if (path := find_file(spec, file))]


def remove_file(path: Path) -> int:
    """Delete a file from the Hub's cache, with its content unless other files there refer to it; or a converted file.

    Returns:
        Bytes that have become free.

    Raises:
        ModelError: The file is not in the cache, or may not be deleted.
    """
    if not {hub_cache(), converted_folder()} & set(path.parents):
        raise ModelError(f"{str(path)!r} is not in the cache of the Hub, and stays", path=path)
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
        raise ModelError(
            f"cannot delete {str(path)!r}: {error.strerror}", "check the folder's permissions", path=path
        ) from error


def remove_partial_downloads(repo: str, older_than_seconds: float = 3600.0) -> None:
    """Delete what interrupted downloads of a repository left behind; recent files may belong to a running one."""
    for partial in _repo_folder(repo).glob("blobs/*.incomplete"):
        with suppress(OSError):
            if time.time() - partial.stat().st_mtime > older_than_seconds:
                partial.unlink()


def _repo_folder(repo: str) -> Path:
    return hub_cache() / f"models--{repo.replace('/', '--')}"


def _snapshot(spec: ModelSpec, name: str) -> Path:
    """The path in the cache of a file of a commit, or of the commit that a branch last pointed to."""
    folder, commit = _repo_folder(spec.repo), spec.revision
    if not registry.COMMIT.fullmatch(commit):
        with suppress(OSError, UnicodeDecodeError):
            last = (folder / "refs" / commit).read_text(encoding="utf-8").strip()
            commit = last if registry.COMMIT.fullmatch(last) else commit
    return folder / "snapshots" / commit / name


def _target(path: Path) -> Path | None:
    """Where a link in a snapshot leads in one step; None for a file that is no link (a cache without links)."""
    return Path(os.path.normpath(path.parent / path.readlink())) if path.is_symlink() else None


def _is_referred_to(blob: Path) -> bool:
    """Whether any snapshot of the same repository still leads to `blob`."""
    return any(_target(link) == blob for link in (blob.parent.parent / "snapshots").rglob("*"))


# Files converted from ONNX


def converted_folder() -> Path:
    """The folder of the files that were converted from downloads."""
    return _own_folder() / "converted"


def converted_path(sources: Sequence[Path], header: str) -> Path:
    """Where the file converted from `sources` with this header is kept, whether it exists or not."""
    return converted_folder() / f"{_key(map(hash_of, sources))}-{_key([header])}{SUFFIX}"


def find_converted(spec: ModelSpec) -> list[tuple[WeightFile, Path]]:
    """Find what has been converted from the downloads of a model, for it or for another model of the same downloads."""
    if spec.components:
        return [converted for part in spec.parts for converted in find_converted(part)]
    if not any(file.name.endswith(ONNX) for file in spec.files):
        return []
    hashes = [file.sha256 or recorded_hash(spec, file) for file in spec.files]
    paths = sorted(converted_folder().glob(f"{_key(hashes)}-*{SUFFIX}"))
    return [(WeightFile(path.name), path) for path in paths]


def store_converted(path: Path, write: Callable[[Path], None]) -> None:
    """Store a converted file, and record its hash.

    Two processes may do so at once: each writes a file of its own and renames it.

    Args:
        path: From `converted_path`.
        write: Writes the file under the name that it is given.

    Raises:
        ModelError: The file cannot be written.
    """
    discard_abandoned(converted_folder().glob(f"*{SUFFIX}.*"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            write(part)
            status = part.stat()
            _write_record(path, _Record(os.fspath(path), status.st_size, status.st_mtime_ns, sha256_of(part)))
    except OSError as error:
        if not is_unchanged(path):  # on Windows a file that another process has open cannot be replaced
            message = f"cannot write {str(path)!r}: {one_line(error)}"
            raise ModelError(message, "check the folder and the disk", path=path) from error


def _key(texts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:_KEY_DIGITS]


# Hashes


def check_file(file: WeightFile, path: Path, *, again: bool = False) -> None:
    """Compare size and SHA-256 with those of `file`, or if it states none, with those of the first download.

    Args:
        file: What is known about the file.
        path: Where it is.
        again: Hash it even if it has not changed since it was verified.

    Raises:
        DamagedError: The file differs.
        ModelError: The file cannot be read.
    """
    record = _read_record(path)
    expected = file.sha256 or (record.sha256 if record else _hash_in_name(path))
    try:
        status = path.stat()
        if not again and record == _Record(os.fspath(path), status.st_size, status.st_mtime_ns, expected):
            return
        if file.size not in (None, status.st_size):
            raise DamagedError(f"{file.name!r} has {status.st_size} bytes instead of {file.size}")
        sha256 = sha256_of(path)
    except OSError as error:
        raise ModelError(
            f"cannot read the model file {str(path)!r}: {error.strerror}", "check the cache", path=path
        ) from error
    if expected and sha256 != expected:
        # Its time of change may not reveal the damage, so it must not be trusted again.
        _write_record(path, _Record(os.fspath(path), status.st_size, 0, record.sha256 if record else expected))
        raise DamagedError(f"{file.name!r} has the SHA-256 {sha256[:12]}... instead of {expected[:12]}...")
    _write_record(path, _Record(os.fspath(path), status.st_size, status.st_mtime_ns, sha256))


def is_damaged(file: WeightFile, path: Path) -> bool:
    """Whether a file is damaged, as far as that is known: one that was never verified is not hashed for this."""
    try:
        if _read_record(path) is None and file.size in (None, path.stat().st_size):
            return False
        check_file(file, path)
    except (OSError, ModelError):
        return True
    return False


def is_unchanged(path: Path) -> bool:
    """Whether a file exists and is what it was when its hash was recorded."""
    if _read_record(path) is None or not os.path.exists(path):  # noqa: PTH110 (never raises)
        return False
    try:
        check_file(WeightFile(path.name), path)
    except DamagedError:
        return False
    return True


def recorded_hash(spec: ModelSpec, file: WeightFile) -> str:
    """The SHA-256 that a file of a model had when it was first downloaded; empty if it never was."""
    record = _read_record(_snapshot(spec, file.name))
    return record.sha256 if record else ""


def hash_of(path: Path) -> str:
    """The SHA-256 of a file; one that has not changed since it was verified is not read again.

    Raises:
        ModelError: The file cannot be read.
    """
    record = _read_record(path)
    try:
        status = path.stat()
        if record and record == _Record(os.fspath(path), status.st_size, status.st_mtime_ns, record.sha256):
            return record.sha256
        return sha256_of(path)
    except OSError as error:
        raise ModelError(
            f"cannot read the model file {str(path)!r}: {error.strerror}", "check the cache", path=path
        ) from error


def forget(path: Path) -> None:
    """Delete the record of a file, so that the next download counts as the first one."""
    with suppress(OSError):
        _record_file(path).unlink()


def _hash_in_name(path: Path) -> str:
    """The Hub's client names the content of a large file by its SHA-256."""
    blob = _target(path)
    return blob.name if blob and registry.SHA256.fullmatch(blob.name) else ""


def _own_folder() -> Path:
    return settings.cache_folder()


def _record_file(path: Path) -> Path:
    # .../models--owner--name/snapshots/<commit>/<file>: the same for every cache folder
    parts = path.parts[path.parts.index("snapshots") - 1 :] if "snapshots" in path.parts else path.parts[1:]
    return _own_folder() / "checked" / f"{'--'.join(parts)}.json"


def _read_record(path: Path) -> _Record | None:
    try:
        table = json.loads(_record_file(path).read_text(encoding="utf-8"))
        record = _Record(**table)
        return record if [type(value) for value in asdict(record).values()] == [str, int, int, str] else None
    except (OSError, ValueError, TypeError):
        return None


def _write_record(path: Path, record: _Record) -> None:
    """Write a record; if that fails, the file is hashed every time."""
    file = _record_file(path)
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as part:
            part.write_text(json.dumps(asdict(record)), encoding="utf-8")
