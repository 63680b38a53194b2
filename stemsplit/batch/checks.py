"""Checks before any work: which songs of a batch need separating, which can be, and how much room the stems take."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from stemsplit.audio.formats import Format
from stemsplit.audio.reading import AudioInfo, Reader, open_reader
from stemsplit.batch import manifest, templates
from stemsplit.batch.events import Skipped
from stemsplit.batch.inputs import Failed
from stemsplit.batch.manifest import Provenance
from stemsplit.batch.tracks import Track, check_distinct
from stemsplit.errors import AudioError
from stemsplit.files import real_path
from stemsplit.separation.outputs import Delivery, Rows

_FILE_OVERHEAD = 4_096  # bytes of a file besides its samples: the header, and the unused part of the last disk block
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
    for track in tracks:
        outputs = track.outputs(stems)
        try:
            status = manifest.check_stems(track.manifest, track.source, outputs, provenance)
        except AudioError as error:
            if overwrite:
                ready.append(replace(track, why="changed after it was written"))
            else:
                failed.append(Failed(track.label, error))
            continue
        except Exception as error:
            failed.append(track.failure(error))
            continue
        if status.to_do == "nothing":
            skipped.append(Skipped(track, outputs, status.incomplete))
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
        The songs that can be separated, with their `info`, and the failures.

    Raises:
        UsageError: Stems of two songs would be the same file.
    """
    tracks, kept, delivery = list(tracks), list(kept), delivery or Delivery()
    check_distinct((*kept, *tracks), stems)
    links = _LinkResolver()
    sources = {real_path(track.source) for track in (*tracks, *kept)}
    sources |= {links.resolve(track.source) for track in (*tracks, *kept)}
    ready: list[Track] = []
    failed: list[Failed] = []
    for track in tracks:
        outputs = track.outputs(stems)
        try:
            info = track.info
            if info is None:
                with open_song(track.source) as reader:
                    info = AudioInfo(reader.rate, reader.channels, reader.length)
            _check_name_lengths(track, outputs.values())
            # A writer that is not entered only checks, and writes nothing.
            Rows(outputs, stems if model_stems is None else model_stems).writer(
                delivery,
                rate=delivery.rate_for(info.rate, info.rate),
                channels=info.channels,
                overwrite=overwrite or track.replaces,
            )
            for path in outputs.values():
                if links.resolve(path) in sources:
                    message = f"a stem of {track.label!r} would replace the song {str(path)!r}"
                    raise AudioError(message, "use --output", path=path)
        except Exception as error:  # whatever it is, the other songs go on
            failed.append(track.failure(error))
        else:
            ready.append(replace(track, info=info))
    return ready, failed


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

    def resolve(self, path: Path) -> str:
        """Return a path without links in its folders; the file itself may be a link."""
        if path.parent not in self._folders:
            self._folders[path.parent] = real_path(path.parent)
        return os.path.join(self._folders[path.parent], path.name)  # noqa: PTH118 (quicker)


def _check_name_lengths(track: Track, paths: Iterable[Path]) -> None:
    for path in paths:
        for name in path.relative_to(track.output).parts:
            if len(os.fsencode(name)) > templates.MAX_NAME_BYTES:
                message = f"the names of the stems of {track.label!r} are too long, as {name!r}"
                raise AudioError(message, "choose a shorter --filename", path=path)
