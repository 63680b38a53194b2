"""Songs and stems at URLs: fetched to a temporary folder, separated there, and uploaded, the manifest last."""

import posixpath
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from stemsplit import signals
from stemsplit.batch import manifest
from stemsplit.batch.checks import check_free_at, partition_existing
from stemsplit.batch.events import Done, Result
from stemsplit.batch.inputs import Failed
from stemsplit.batch.manifest import Provenance
from stemsplit.batch.tracks import Track
from stemsplit.errors import AudioError
from stemsplit.files import FileStamp
from stemsplit.storage.location import Location, Stat
from stemsplit.storage.transfer import fetch, temporary_folder, upload


def separate_at_url(
    track: Track,
    stems: Sequence[str],
    separate: Callable[[Track], Result],
    *,
    provenance: Provenance | None = None,
    overwrite: bool = False,
    check: Callable[[], None] = signals.check,
) -> Result:
    """Separate a song that is at a URL, or the stems of which go to one.

    Args:
        track: The song.
        stems: The names of all files that are written of it.
        separate: Separates a song on this machine.
        provenance: The model and settings, to check first whether other processes have written the stems since; None
            for no check.
        overwrite: Replace stems even if they were edited.
        check: Called during transfers; it raises whatever ends them.
    """
    began = time.monotonic()
    try:
        if provenance:
            ready, skipped, failed = partition_existing([track], stems, provenance, overwrite=overwrite)
            if not ready:
                return skipped[0] if skipped else failed[0]
            track = ready[0]
        with temporary_folder() as folder:
            local = _local(track, folder, check)
            result = separate(local)
            if isinstance(result, Done):
                if isinstance(track.output, Location):
                    _deliver(track, local, result, overwrite=overwrite, check=check)
                seconds = time.monotonic() - began
                return replace(result, track=track, outputs=track.outputs(stems), seconds=seconds)
    except FileNotFoundError as error:
        return track.failure(AudioError(f"there is no file {str(error.filename)!r}", "was it deleted just now?"))
    except Exception as error:
        return track.failure(error)
    if isinstance(result, Failed) and str(folder) in str(result.error):  # the song itself has its label there
        hint = "make room in the folder for temporary files, or set TMPDIR to another one"
        return track.failure(AudioError(f"{track.label!r} cannot be separated: {result.error}", hint))
    return result if isinstance(result, Failed) else replace(result, track=track, outputs=track.outputs(stems))


@contextmanager
def at_hand(stems: Mapping[str, Path | Location], page: Path | Location) -> Iterator[tuple[dict[str, Path], Path]]:
    """Yield the files of stems, of those at URLs copies, and one to write beside them, which is uploaded with the end.

    Raises:
        AudioError: A stem cannot be fetched, or the page cannot be uploaded.
    """
    if isinstance(page, Path):
        yield {stem: path for stem, path in stems.items() if isinstance(path, Path)}, page
        return
    with temporary_folder() as folder:
        files = {}
        for stem, location in stems.items():
            assert isinstance(location, Location)
            files[stem] = folder / location.name
            fetch(location, files[stem])
        yield files, folder / page.name
        upload(folder / page.name, page)


def _local(track: Track, folder: Path, check: Callable[[], None]) -> Track:
    """Return the song with a copy of it in a folder, to which its stems go as well if they are uploaded later."""
    if isinstance(track.source, Location):
        path = folder / f"song{track.source.suffix}"
        fetch(track.source, path, check)
        track = replace(track, source=path)
    if isinstance(track.output, Location):
        runs = manifest.read_manifest(track.manifest)
        track = replace(track, output=folder / "stems", why="")
        if runs:  # what it records of other files is kept
            manifest.write_manifest(track.manifest, runs)
    return track


def _deliver(track: Track, local: Track, result: Done, *, overwrite: bool, check: Callable[[], None]) -> None:
    """Upload the stems, and last the manifest, which makes the song complete."""
    files = dict(zip(result.outputs.values(), track.outputs(list(result.outputs)).values(), strict=True))
    if local.player_page.exists():
        files[local.player_page] = track.player_page
    check_free_at(files.values(), overwrite=overwrite or track.replaces)

    def send(pair: tuple[Path | Location, Path | Location]) -> Stat:
        path, location = pair
        assert isinstance(path, Path)
        assert isinstance(location, Location)
        return upload(path, location, check)

    with manifest.announced(track.manifest, files.values()):
        try:
            with ThreadPoolExecutor(len(files)) as pool:
                stats = dict(zip(files.values(), pool.map(send, files.items()), strict=True))
            if overwrite:
                manifest.discard_replaced(track.manifest, track.outputs(list(result.outputs)))
            if runs := manifest.read_manifest(local.manifest):
                manifest.write_manifest(track.manifest, _stamped(runs, track.manifest, stats))
        except BaseException:
            for location in () if overwrite or track.replaces else files.values():
                with suppress(AudioError):
                    assert isinstance(location, Location)
                    location.unlink()
            raise


def _stamped(
    runs: Sequence[manifest.Run], path: Path | Location, stats: Mapping[Path | Location, Stat]
) -> list[manifest.Run]:
    """Return what a manifest records, with the times that uploaded stems have at the URL."""
    assert isinstance(path, Location)
    times = {
        posixpath.relpath(each.key, path.parent.key or "."): stat.st_mtime_ns
        for each, stat in stats.items()
        if isinstance(each, Location)
    }

    def stamped(file: str, stamp: FileStamp) -> tuple[str, FileStamp]:
        return file, replace(stamp, mtime_ns=times.get(file, stamp.mtime_ns))

    return [replace(run, stems={stem: stamped(*entry) for stem, entry in run.stems.items()}) for run in runs]
