"""Checks before any work: which songs of a batch need separating, which can be, and how much room the stems take."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from stemsplit.audio.formats import Format
from stemsplit.audio.reading import AudioInfo, Reader, open_reader
from stemsplit.batch import manifest, templates
from stemsplit.batch.events import Skipped
from stemsplit.batch.inputs import Failed
from stemsplit.batch.manifest import Provenance, StemStatus
from stemsplit.batch.tracks import Track, check_distinct
from stemsplit.errors import AudioError
from stemsplit.files import real_path
from stemsplit.separation.outputs import Delivery, Rows
from stemsplit.storage.location import Location

_FILE_OVERHEAD = 4_096  # bytes of a file besides its samples: the header, and the unused part of the last disk block
_USUAL = AudioInfo(44_100, 2, None)  # what is checked of a song that has not been fetched yet
_T = TypeVar("_T")
_LOSSLESS_RATIO = 0.5  # of FLAC or ALAC to PCM; the stems of the demo song take 0.43, with 16 bits 0.30


def partition_existing(
    tracks: Iterable[Track], stems: Sequence[str], provenance: Provenance, *, overwrite: bool = False
) -> tuple[list[Track], list[Skipped], list[Failed]]:
    """Compare the existing stems of songs with the requested ones.

    Args:
        tracks: The songs.
        stems: The names of all files requested of each.
        provenance: The model and settings that they should be made with.
        overwrite: Replace stems even if they were edited.

    Returns:
        The songs that still need separating, with `why` set if they have stems that may be replaced; those whose stems
        are complete and up to date; and those with edited stems.
    """
    ready: list[Track] = []
    skipped: list[Skipped] = []
    failed: list[Failed] = []
    tracks = list(tracks)

    def check(track: Track) -> StemStatus | Exception:
        try:
            return manifest.check_stems(track.manifest, track.source, track.outputs(stems), provenance)
        except Exception as error:
            return error

    for track, status in zip(tracks, _each(tracks, check), strict=True):
        if isinstance(status, AudioError) and overwrite:
            ready.append(replace(track, why="changed after it was written"))
        elif isinstance(status, AudioError):
            failed.append(Failed(track.label, status))
        elif isinstance(status, Exception):
            failed.append(track.failure(status))
        elif status.to_do == "nothing":
            skipped.append(Skipped(track, track.outputs(stems), status.incomplete))
        else:
            ready.append(replace(track, why=status.why))
    return ready, skipped, failed


def partition_separable(
    tracks: Iterable[Track],
    stems: Sequence[str],
    *,
    overwrite: bool,
    model_stems: Sequence[str] | None = None,
    delivery: Delivery | None = None,
    kept: Iterable[Track] = (),
    open_song: Callable[[Path], Reader] = open_reader,
) -> tuple[list[Track], list[Failed]]:
    """Find the songs that cannot be opened, or whose stems cannot be written, without separating anything.

    Args:
        tracks: The songs; the header of each is read, unless its `info` is known.
        stems: The names of all files that are written of each.
        overwrite: Whether these may exist.
        model_stems: The stems of the model, if they differ from `stems`.
        delivery: How they are written.
        kept: Songs that are not separated now, whose files must not change.
        open_song: Opens the file of a song.

    Returns:
        The songs that can be separated, with their `info` unless they are at URLs, and the failures.

    Raises:
        UsageError: Stems of two songs would be the same file.
    """
    tracks, kept, delivery = list(tracks), list(kept), delivery or Delivery()
    check_distinct((*kept, *tracks), stems)
    links = _LinkResolver()
    songs = [track.source for track in (*tracks, *kept)]
    sources = {song.real if isinstance(song, Location) else real_path(song) for song in songs}
    sources |= {links.resolve(song) for song in songs}

    def check(track: Track) -> Track | Failed:
        try:
            outputs = track.outputs(stems)
            info = track.info
            if isinstance(track.source, Location):
                _check_song_at(track.source)
            elif info is None:
                with open_song(track.source) as reader:
                    info = AudioInfo(reader.rate, reader.channels, reader.length)
            if isinstance(track.output, Location):
                check_free_at(outputs.values(), overwrite=overwrite or track.replaces)
            else:
                files = track.local_outputs(stems)
                _check_name_lengths(track, track.output, files.values())
                # A writer that is not entered only checks, and writes nothing.
                Rows(files, stems if model_stems is None else model_stems).writer(
                    delivery,
                    rate=delivery.rate_for(info.rate, info.rate) if info else _USUAL.rate,
                    channels=(info or _USUAL).channels,
                    overwrite=overwrite or track.replaces,
                )
            for path in outputs.values():
                if links.resolve(path) in sources:
                    message = f"a stem of {track.label!r} would replace the song {str(path)!r}"
                    raise AudioError(message, "use --output", path=path if isinstance(path, Path) else None)
        except Exception as error:  # whatever it is, the other songs go on
            return track.failure(error)
        return replace(track, info=info)

    checked = list(_each(tracks, check))
    ready = [each for each in checked if isinstance(each, Track)]
    return ready, [each for each in checked if isinstance(each, Failed)]


@contextmanager
def outputs_listed(tracks: Sequence[Track]) -> Iterator[None]:
    """Know which stems of many songs exist at a URL from one listing within the block."""
    with ExitStack() as stack:
        if len(tracks) > manifest.REQUESTS and isinstance(output := tracks[0].output, Location):
            with suppress(AudioError):  # who may not list it asks for each
                stack.enter_context(output.listed())
        yield


def _each(tracks: Sequence[Track], check: Callable[[Track], _T]) -> Iterable[_T]:
    """Check each song: in turn if all are on this machine, else several at a time, as each has to wait for a server."""
    if all(track.is_local for track in tracks):
        return map(check, tracks)
    with ThreadPoolExecutor(manifest.REQUESTS) as pool:
        return list(pool.map(check, tracks))


def _check_song_at(song: Location) -> None:
    try:
        stat = song.stat()
    except FileNotFoundError:
        raise AudioError(f"there is no file {str(song)!r}", "check the spelling") from None
    if stat.type == "text/html":
        raise AudioError(f"{str(song)!r} is a web page, not a song", "name the URL of the file itself")


def check_free_at(outputs: Iterable[Path | Location], *, overwrite: bool) -> None:
    """Raise AudioError if one of these files at URLs exists, unless `overwrite`."""
    for path in () if overwrite else outputs:
        if path.exists():
            hint = "choose another folder with --output, or replace it with --overwrite"
            raise AudioError(f"{str(path)!r} exists already", hint)


def estimate_size(infos: Iterable[AudioInfo], files: int, format: Format) -> int:
    """Estimate the size of the stems of songs.

    Args:
        infos: From the headers of the songs; those of unknown length count as empty.
        files: Number of stems of each song.
        format: Of the stems.

    Returns:
        Bytes.
    """
    ratio = _LOSSLESS_RATIO if format.lossless and format.name != "wav" else 1.0
    total = 0
    for info in infos:
        seconds = (info.length or 0) / info.rate
        total += files * (round(seconds * format.bytes_per_second(info.rate, info.channels) * ratio) + _FILE_OVERHEAD)
    return total


def estimate_spool(infos: Iterable[AudioInfo], files: int) -> int:
    """Return the size of the spool of the longest song, in float32, in bytes; `files` is the number of its stems."""
    return max((files * 4 * info.channels * (info.length or 0) for info in infos), default=0)


class _LinkResolver:
    """Resolves symbolic links with a cache of folders, as thousands of files are in a few folders."""

    def __init__(self) -> None:
        self._folders: dict[Path, str] = {}

    def resolve(self, path: Path | Location) -> str:
        """Return a path without links in its folders; the file itself may be a link."""
        if isinstance(path, Location):
            return path.real
        if path.parent not in self._folders:
            self._folders[path.parent] = real_path(path.parent)
        return os.path.join(self._folders[path.parent], path.name)  # noqa: PTH118 (quicker)


def _check_name_lengths(track: Track, output: Path, paths: Iterable[Path]) -> None:
    for path in paths:
        for name in path.relative_to(output).parts:
            if len(os.fsencode(name)) > templates.MAX_NAME_BYTES:
                message = f"the names of the stems of {track.label!r} are too long, as {name!r}"
                raise AudioError(message, "choose a shorter --filename", path=path)
