"""Weights from the Hugging Face Hub: fetched when they are not here, and checked before they are used."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stemsplit.errors import ModelError, UnreachableError
from stemsplit.files import nearest_folder
from stemsplit.models import cache, hub_client, registry
from stemsplit.models.registry import COMMIT, FILE, SHA256, ModelSpec, WeightFile
from stemsplit.version import __version__

# A download that takes longer than this pace asks for, and this time, is given up.
SLOWEST = 20_000  # bytes a second
_PATIENCE_SECONDS = 60.0

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are here and the bytes that there will be, all files together."""


def obtain(
    spec: ModelSpec,
    *,
    on_download: Callable[[ModelSpec, int | None], None] = lambda spec, size: None,
    on_progress: Progress = lambda done, total: None,
) -> tuple[ModelSpec, tuple[Path, ...]]:
    """The files of a model, from this machine if they are here, else from the Hub, with hashes as they should be.

    Args:
        on_download: called once before anything is fetched, with the size in bytes if it is known.

    Returns what is known of the model now, and the path of every file, in the order of `files`.
    Raises UnreachableError when there is no way to the Hub, ModelError when it has no such model, or files that differ
    from what they should be, or when they cannot be kept.
    """
    if spec.path is not None:
        return spec, (spec.path,)
    if not spec.files:
        spec = _look_up(spec)
    missing = [file for file in spec.files if not _is_here(spec, file)]
    if missing:
        _fetch_all(spec, missing, on_download, on_progress)
    paths = tuple(_here(spec, file) for file in spec.files)
    if not spec.stems:
        known = registry.file_spec(paths[0], ())
        spec = replace(spec, family=known.family, stems=known.stems)
    return spec, paths


def _here(spec: ModelSpec, file: WeightFile) -> Path:
    path = cache.find(spec, file)
    if path is None:
        raise ModelError(f"{file.name!r} of the model {spec.name!r} vanished from the cache", "try again")
    return path


def _is_here(spec: ModelSpec, file: WeightFile) -> bool:
    """Whether a file is in the cache and good."""
    if (path := cache.find(spec, file)) is None:
        return False
    try:
        cache.check(file, path)
    except cache.DamagedError:
        return False
    return True


def _fetch_all(
    spec: ModelSpec,
    files: Sequence[WeightFile],
    on_download: Callable[[ModelSpec, int | None], None],
    on_progress: Progress,
) -> None:
    """Download `files` one after the other, as one task, and check each."""
    files = [_ask(spec, file) for file in files]
    sizes = [file.size for file in files]
    total = None if None in sizes else sum(size or 0 for size in sizes)
    _require_space(spec, total)
    on_download(spec, total)
    cache.sweep(spec)
    before = 0
    for file in files:

        def on_bytes(done: int, before: int = before) -> None:
            on_progress(before + done, total)

        _fetch(spec, file, on_bytes)
        before += file.size or 0


def _fetch(spec: ModelSpec, file: WeightFile, on_bytes: Callable[[int], None]) -> None:
    """Download a file until its hash is right: twice at most."""
    if damaged := cache.find(spec, file):
        cache.discard(damaged)
    for last in (False, True):
        path = _download(spec, file, on_bytes)
        try:
            return cache.check(file, path)
        except cache.DamagedError as error:
            cache.discard(path)
            if last:
                hint = "something on the way changes it: try another network, without a proxy or mirror"
                raise ModelError(f"what the Hub sends for the model {spec.name!r} is refused: {error}", hint) from error


def _look_up(spec: ModelSpec) -> ModelSpec:
    """Which file of weights a repository has that the user named, at which commit; the Hub is asked every time.

    If it cannot be reached, what is here of that repository has to do.
    """
    cached = cache.find_weights(spec)
    if cached and COMMIT.fullmatch(spec.revision):
        return replace(spec, files=(WeightFile(cached.name),))
    try:
        hub_client.require_network(spec)
        client = hub_client.client()
        with hub_client.in_our_words(spec, FILE), hub_client.deadline(_PATIENCE_SECONDS):
            try:
                file, commit = FILE, _ask_about(spec, FILE).commit_hash
            except client.errors.EntryNotFoundError:
                file = _only_weights(spec, client.HfApi().list_repo_files(spec.repo, revision=spec.revision))
                commit = _ask_about(spec, file).commit_hash
    except UnreachableError:
        if cached is None:
            raise
        file, commit = cached.name, cached.parent.name
    if not COMMIT.fullmatch(commit or ""):
        raise ModelError(f"what answers for {spec.name!r} is no Hub: it names no commit", "check HF_ENDPOINT")
    return replace(spec, branch=spec.revision, revision=commit, files=(WeightFile(file),))


def _only_weights(spec: ModelSpec, names: Sequence[str]) -> str:
    weights = [name for name in names if name.endswith(registry.SUFFIX) and "/" not in name]
    if len(weights) == 1:
        return weights[0]
    pickles = [name for name in names if name.endswith(registry.PICKLES)]
    if weights:
        raise ModelError(f"{spec.name!r} has {len(weights)} {registry.SUFFIX} files, and none is called {FILE!r}")
    if pickles:
        reason = f"{spec.name!r} has its weights in {pickles[0]!r}: a pickle can run any program when it is opened"
        raise ModelError(reason, f"stemsplit never opens one; ask the author for a {registry.SUFFIX} file")
    raise ModelError(f"{spec.name!r} has no {registry.SUFFIX} file", "is it a model for stemsplit?")


def _ask(spec: ModelSpec, file: WeightFile) -> WeightFile:
    """A file with what the Hub says about it: its size, and a hash to hold it to if none is known."""
    hub_client.require_network(spec)  # before the client is imported, which takes as long
    with hub_client.in_our_words(spec, file.name), hub_client.deadline(_PATIENCE_SECONDS):
        said = _ask_about(spec, file.name)
    known, offered = file.sha256 or cache.first_hash(spec, file), _hash_in(said.etag)
    other = f"{said.size} bytes instead of {file.size}" if file.size not in (None, said.size) else ""
    if known and offered and known != offered:
        other = f"the SHA-256 {offered[:12]}... instead of {known[:12]}..."
    if other:
        reason = f"the Hub has {file.name!r} of the model {spec.name!r} with {other}"
        raise ModelError(reason, "it is not the file that is known: check models.toml, or use another model")
    return replace(file, size=said.size, sha256=known or offered)


def _ask_about(spec: ModelSpec, name: str) -> Any:
    """The Hub's description of a file: `commit_hash`, `etag`, `size`."""
    client = hub_client.client()
    url = client.hf_hub_url(spec.repo, name, revision=spec.revision)
    return client.get_hf_file_metadata(url, timeout=client.constants.HF_HUB_ETAG_TIMEOUT)


def _hash_in(etag: str | None) -> str:
    """The Hub's ETag of a large file is its SHA-256; that of a small one is something else."""
    return etag if etag and SHA256.fullmatch(etag) else ""


def _download(spec: ModelSpec, file: WeightFile, on_bytes: Callable[[int], None]) -> Path:
    client = hub_client.client()
    with (
        hub_client.in_our_words(spec, file.name),
        hub_client.deadline(_PATIENCE_SECONDS + (file.size or 2**32) / SLOWEST),
    ):
        return Path(
            client.hf_hub_download(
                spec.repo,
                file.name,
                revision=spec.branch or spec.revision,
                library_name="stemsplit",
                library_version=__version__,
                tqdm_class=_reporter(on_bytes),
            )
        )


def _reporter(on_bytes: Callable[[int], None]) -> type:
    """A progress bar as the Hub's client wants one, that draws nothing and tells `on_bytes` how many there are."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    class Reporter(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)  # by which some versions of the client tell its bars apart
            super().__init__(*args, **{**options, "disable": False, "file": _Nowhere(), "mininterval": 1e9})

        def update(self, n: float | None = 1) -> None:
            super().update(n)
            on_bytes(int(self.n))

    return Reporter


class _Nowhere:
    """A file to write nothing to."""

    def write(self, text: str) -> None: ...

    def flush(self) -> None: ...


def _require_space(spec: ModelSpec, size: int | None) -> None:
    folder = nearest_folder(cache.hub_cache())
    free = shutil.disk_usage(folder).free
    if size is not None and free < size:
        reason = f"the model {spec.name!r} needs {size / 1e6:.0f} MB, and {str(folder)!r} has {free / 1e6:.0f} MB left"
        raise ModelError(reason, "make room, or let HF_HOME name a folder on another disk")
