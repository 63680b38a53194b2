"""Weights from the Hugging Face Hub: downloaded unless they are cached, and verified before they are used."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from stemsplit.errors import ModelError, UnreachableError
from stemsplit.files import nearest_folder
from stemsplit.models import cache, hub_client
from stemsplit.models.registry import (
    COMMIT,
    PICKLES,
    SHA256,
    SUFFIX,
    WEIGHTS_NAME,
    LocalModel,
    ModelSpec,
    WeightFile,
    check_family,
    read_registry,
)
from stemsplit.version import __version__

OnAsk = Callable[[ModelSpec], None]
"""Called before the Hub is asked about a model, which may take seconds; with the model."""
OnDownload = Callable[[ModelSpec, int | None], None]
"""Called once before a download starts, with the model and its size in bytes, if known."""
AcceptLicense = Callable[[ModelSpec], bool]
"""Called before the first download of a model whose licence must be accepted; returns whether it is."""
OnProgress = Callable[[int, int | None], None]
"""Called with the bytes downloaded so far and their total, if known, over all files of a model."""


def download_model(
    name: str | os.PathLike[str] | None = None,
    *,
    stems: Sequence[str] = (),
    registry: Path | None = None,
    accept_license: bool = False,
    on_download: OnDownload = lambda spec, size: None,
    on_progress: OnProgress = lambda done, total: None,
) -> LocalModel:
    """Download a model, unless it is cached, and verify its files.

    Args:
        name: A model's name, `hf://OWNER/NAME[@REVISION]`, or the path of a file; the default model if None.
        stems: Stems that are wanted; all if empty. Files that only others need are not downloaded.
        registry: A models.toml to add to the built-in list and to the one in the user's configuration folder.
        accept_license: Accept the licence of a model that asks for it before its first download, see `ModelSpec`.
        on_download: Called once before a download starts.
        on_progress: Called after each chunk.

    Returns:
        The model and the paths of its files.

    Raises:
        UnreachableError: The files are not cached, and the Hub cannot be reached.
        ModelError: There is no such model, this version cannot run it, its files are not the expected ones, or they
            cannot be stored.
        UsageError: The model has no such stem.
    """
    spec = read_registry(registry).find(os.fspath(name) if name else None, stems)
    return download(
        spec, stems, accept_license=lambda spec: accept_license, on_download=on_download, on_progress=on_progress
    )


def download(
    spec: ModelSpec,
    stems: Sequence[str] = (),
    *,
    accept_license: AcceptLicense = lambda spec: False,
    on_ask: OnAsk = lambda spec: None,
    on_download: OnDownload = lambda spec, size: None,
    on_progress: OnProgress = lambda done, total: None,
) -> LocalModel:
    """Download the files of a model that has been looked up, unless they are cached, and verify them.

    Args:
        spec: The model, from `Registry.find`.
        stems: The requested stems, for a model whose stems are known only after the download; all if empty.
        accept_license: Called before the first download of a model whose licence must be accepted.
        on_ask: Called once before the Hub is asked, unless everything is cached.
        on_download: Called once before a download starts.
        on_progress: Called after each chunk.

    Returns:
        The model, with the stems and family that its file states, and the paths of its files.

    Raises:
        UnreachableError: The files are not cached, and the Hub cannot be reached.
        ModelError: The Hub has no such model, this version cannot run it, its files are not the expected ones, they
            cannot be stored, or its licence was not accepted.
        UsageError: The model has no such stem.
    """
    check_family(spec)
    if spec.components:
        spec = spec.only(stems)
    parts = [_resolve(part, on_ask) if part.repo and not part.files else part for part in spec.parts]
    files = [(part, file) for part in parts for file in part.files]
    problems = [_problem(part, file) for part, file in files]
    if missing := [each for each, problem in zip(files, problems, strict=True) if problem is not None]:
        for part in (part for part, file in missing if part.confirm and cache.find_file(part, file) is None):
            if not accept_license(part):
                message = f"the licence of the model {part.name!r} was not accepted: {part.license}"
                hint = f"if it suits you, call  download_model({part.name!r}, accept_license=True)  once"
                raise ModelError(message, hint, model=part.name)
        if spec.files or spec.components:  # a repository that had to be looked up was announced then
            on_ask(spec)
        _download_files(spec, missing, "; ".join(filter(None, problems)), on_download, on_progress)
    return _local(spec if spec.components else parts[0], stems)


def _local(spec: ModelSpec, stems: Sequence[str] = ()) -> LocalModel:
    """A model whose files are here, narrowed to `stems`."""
    if spec.components:
        components = tuple(_local(part) for part in spec.components)
        return LocalModel(spec, tuple(path for part in components for path in part.paths), components=components)
    paths = (spec.path,) if spec.path else tuple(_path_of(spec, file) for file in spec.files)
    if not spec.stems:
        spec = cache.described(spec, paths[0])
        check_family(spec)
    return LocalModel(spec.only(stems), paths)


def _path_of(spec: ModelSpec, file: WeightFile) -> Path:
    path = cache.find_file(spec, file)
    if path is None:
        raise ModelError(
            f"{file.name!r} of the model {spec.name!r} has vanished from the cache", "try again", model=spec.name
        )
    return path


def _problem(spec: ModelSpec, file: WeightFile) -> str | None:
    """What is wrong with a file in the cache: empty if it is not there, None if it is intact."""
    if (path := cache.find_file(spec, file)) is None:
        return ""
    try:
        cache.check_file(file, path)
    except cache.DamagedError as error:
        return str(error)
    return None


def _download_files(
    spec: ModelSpec,
    missing: Sequence[tuple[ModelSpec, WeightFile]],
    damage: str,
    on_download: OnDownload,
    on_progress: OnProgress,
) -> None:
    """Download files of a model or of its steps one after the other, as one task, and verify each.

    Args:
        spec: The model.
        missing: The files, each with the model or step that it is of.
        damage: What is wrong with those that are in the cache.
        on_download: As for `download`.
        on_progress: As for `download`.
    """
    hub_client.check_reachable(spec, damage=damage)  # before the client is imported, which takes as long
    files = [(part, _fetch_metadata(part, file)) for part, file in missing]
    sizes = [file.size for _, file in files]
    total = None if None in sizes else sum(size or 0 for size in sizes)
    _check_space(spec, total)
    on_download(spec, total)
    for repo in dict.fromkeys(part.repo for part, _ in files):
        cache.remove_partial_downloads(repo)
    before = 0
    for part, file in files:

        def on_bytes(done: int, before: int = before) -> None:
            on_progress(before + done, total)

        _download_file(part, file, on_bytes)
        before += file.size or 0


def _download_file(spec: ModelSpec, file: WeightFile, on_bytes: Callable[[int], None]) -> None:
    """Download a file, at most twice, until its hash is right."""
    if damaged := cache.find_file(spec, file):
        cache.remove_file(damaged)
    for last in (False, True):
        path = _transfer(spec, file, on_bytes)
        try:
            return cache.check_file(file, path)
        except cache.DamagedError as error:
            cache.remove_file(path)
            if last:
                hint = "something on the way changes it: try another network, without a proxy or mirror"
                raise ModelError(
                    f"the Hub sent a wrong file for the model {spec.name!r}: {error}", hint, model=spec.name
                ) from error


def _resolve(spec: ModelSpec, on_ask: OnAsk) -> ModelSpec:
    """Look up the commit and the file of weights of a repository that the user named.

    The Hub is asked every time. If it cannot be reached, the copy in the cache is used.
    """
    cached = cache.find_weights(spec)
    if cached and COMMIT.fullmatch(spec.revision):
        return replace(spec, files=(WeightFile(cached.name),))
    on_ask(spec)
    try:
        hub_client.check_reachable(spec)
        client = hub_client.client()
        with hub_client.translated_errors(spec, WEIGHTS_NAME):
            repo = client.HfApi().model_info(spec.repo, revision=spec.revision, timeout=hub_client.answer_timeout())
        name, commit = _find_weights([file.rfilename for file in repo.siblings or ()], spec), repo.sha
    except UnreachableError:
        if cached is None:
            raise
        name, commit = cached.name, cached.parent.name
    if not COMMIT.fullmatch(commit or ""):
        raise ModelError(f"the server did not state the commit of {spec.name!r}", "check HF_ENDPOINT", model=spec.name)
    return replace(spec, branch=spec.revision, revision=commit, files=(WeightFile(name),))


def _find_weights(names: Sequence[str], spec: ModelSpec) -> str:
    """The one file of weights among the files of a repository."""
    weights = [name for name in names if name.endswith(SUFFIX) and "/" not in name]
    if WEIGHTS_NAME in weights:
        return WEIGHTS_NAME
    if len(weights) == 1:
        return weights[0]
    pickles = [name for name in names if name.endswith(PICKLES)]
    if weights:
        raise ModelError(
            f"{spec.name!r} has {len(weights)} {SUFFIX} files, none called {WEIGHTS_NAME!r}", model=spec.name
        )
    if pickles:
        message = f"{spec.name!r} has its weights in {pickles[0]!r}: a pickle can run any program when opened"
        raise ModelError(message, f"stemsplit never opens one; ask the author for a {SUFFIX} file", model=spec.name)
    raise ModelError(f"{spec.name!r} has no {SUFFIX} file", "is it a model for stemsplit?", model=spec.name)


def _fetch_metadata(spec: ModelSpec, file: WeightFile) -> WeightFile:
    """Complete a file with its size on the Hub, and its hash there if none is known."""
    with hub_client.translated_errors(spec, file.name):
        client = hub_client.client()
        url = client.hf_hub_url(spec.repo, file.name, revision=spec.revision)
        remote = client.get_hf_file_metadata(url, timeout=hub_client.answer_timeout())
    if not remote.commit_hash or not remote.etag:
        raise hub_client.not_the_hub(spec)
    # The ETag of a large file is its SHA-256; that of a small one is something else.
    sha256 = remote.etag if SHA256.fullmatch(remote.etag or "") else ""
    known = file.sha256 or cache.recorded_hash(spec, file)
    differs = None not in (file.size, remote.size) and file.size != remote.size
    difference = f"{remote.size} bytes instead of {file.size}" if differs else ""
    if known and sha256 and known != sha256:
        difference = f"SHA-256 {sha256[:12]}... instead of {known[:12]}..."
    if difference:
        message = f"{file.name!r} of the model {spec.name!r} differs on the Hub: {difference}"
        raise ModelError(message, "it is not the known file: check models.toml, or use another model", model=spec.name)
    return replace(file, size=remote.size or file.size, sha256=known or sha256)


def _transfer(spec: ModelSpec, file: WeightFile, on_bytes: Callable[[int], None]) -> Path:
    client = hub_client.client()
    with hub_client.translated_errors(spec, file.name):
        path = client.hf_hub_download(
            spec.repo,
            file.name,
            revision=spec.branch or spec.revision,
            library_name="stemsplit",
            library_version=__version__,
            tqdm_class=_reporter(on_bytes),
        )
    return Path(path)


def _reporter(on_bytes: Callable[[int], None]) -> type:
    """A progress bar class for the Hub's client that draws nothing and reports the number of bytes to `on_bytes`."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    class Reporter(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **options: Any) -> None:
            options.pop("name", None)  # by which some versions of the client tell their bars apart
            super().__init__(*args, **{**options, "disable": False, "file": _Nowhere(), "mininterval": 1e9})

        def update(self, n: float | None = 1) -> None:
            super().update(n)
            on_bytes(int(self.n))

    return Reporter


class _Nowhere:
    """A file that discards what is written to it."""

    def write(self, text: str) -> None: ...

    def flush(self) -> None: ...


def _check_space(spec: ModelSpec, size: int | None) -> None:
    folder = nearest_folder(cache.hub_cache())
    free = shutil.disk_usage(folder).free
    if size is not None and free < size:
        message = f"the model {spec.name!r} needs {size / 1e6:.0f} MB, and {str(folder)!r} has {free / 1e6:.0f} MB left"
        raise ModelError(message, "make room, or let HF_HOME name a folder on another disk", model=spec.name)
