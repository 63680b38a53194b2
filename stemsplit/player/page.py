"""The player: one HTML page that plays the stems of a song, and needs no network and no other file.

A page opened from a disk may not read other files, and media elements drift apart. So the audio is in the page, in MP3,
the one compact format that every browser decodes from memory, in segments of a few seconds. The page decodes those
around the playhead, all stems of a segment together, and starts them at the same sample of one clock. Neither the page
nor this module ever has the whole song decoded.
"""

import base64
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from stemsplit import pages
from stemsplit.audio.channels import match_channels
from stemsplit.audio.decoding import Block
from stemsplit.audio.reading import Reader, open_reader
from stemsplit.audio.resampling import resample
from stemsplit.errors import AudioError, UsageError
from stemsplit.files import check_free, replacing
from stemsplit.player.mp3_segments import QUALITIES, RATES, SEGMENT, Quality, Stream, probe
from stemsplit.player.overview import BANDS, RANGE_DB, Overview, Picture
from stemsplit.wording import one_line

FOLDER = Path(__file__).parent
SCRIPTS = ("player-audio.js", "player-pictures.js", "player-view.js")
SEGMENTS_MARK = "<!-- the segments come here -->\n"  # in player.html; no value can contain it, as all are escaped
LIMIT = 2**29  # bytes of audio in a page, for stems that are longer than their files say
OnProgress = Callable[[int, int | None], None]


def write_player(
    page: Path,
    title: str,
    stems: Mapping[str, Path],
    *,
    overwrite: bool = False,
    on_progress: OnProgress = lambda done, total: None,
) -> None:
    """Write the page that plays the stems of one song, together or alone.

    Memory does not grow with the song's length. Equal stems give equal pages, byte by byte. Long songs are encoded at a
    lower quality: with four stems, in stereo at 64 kbit/s each from 30 minutes on, and in mono at 32 kbit/s from two
    hours on.

    Args:
        page: The HTML file, in a folder that exists; it appears complete or not at all.
        title: The song's name.
        stems: The audio file of each stem, by name, in the order of the page. They have one sample rate and begin
            together; shorter ones end in silence.
        overwrite: Replace a page that exists.
        on_progress: Called with the samples read so far, and the length that the files state, or None.

    Raises:
        AudioError: A stem cannot be read, the page cannot be written, or the song is too long (five hours with four
            stems).
        UsageError: There are no stems, or they have different sample rates.
    """
    if not stems:
        raise UsageError("there are no stems to write a page for", "name at least one", path=page)
    check_free(page, overwrite=overwrite)
    try:
        with replacing(page) as part, ExitStack() as stack:
            song = _Song(page, [stack.enter_context(open_reader(path)) for path in stems.values()])
            segments = stack.enter_context(tempfile.TemporaryFile(dir=page.parent))
            picture = song.encode(segments, on_progress)
            head, tail = _around_segments(title, song.describe(title, list(stems), picture))
            with part.open("xb") as file:
                file.write(head)
                segments.seek(0)
                shutil.copyfileobj(segments, file)
                file.write(tail)
            check_free(page, overwrite=overwrite)
    except OSError as error:
        hint = "make room, choose another folder, or change its permissions"
        raise AudioError(f"cannot write {str(page)!r}: {one_line(error)}", hint, path=page) from error


class _Song:
    """The stems of a song, read in parallel and encoded for a page."""

    def __init__(self, page: Path, readers: list[Reader]) -> None:
        self._page, self._readers = page, readers
        self._old_rate = readers[0].rate
        for reader in readers:
            if reader.rate != self._old_rate:
                message = f"{str(reader.path)!r} has {reader.rate} Hz, and another stem has {self._old_rate} Hz"
                raise UsageError(message, "name stems of one song", path=reader.path)
        lengths = [reader.length for reader in readers if reader.length is not None]
        self._expected = max(lengths) if len(lengths) == len(readers) else None
        self._quality = self._choose(len(readers) * (self._expected or 0) / self._old_rate)
        self._rate = min(next((rate for rate in RATES if rate >= self._old_rate), RATES[-1]), self._quality.rate)
        self._channels = min(max(reader.channels for reader in readers), self._quality.channels)
        self._length = 0

    def encode(self, file: IO[bytes], on_progress: OnProgress) -> Picture:
        """Write all segments, each as an element with a line for every stem, and return the overview of the song."""
        overview = Overview(len(self._readers), self._channels, self._rate)
        streams = [Stream(self._rate, self._channels, self._quality) for _ in self._readers]
        with ThreadPoolExecutor(len(streams)) as pool:  # the encoder releases the GIL
            count = 0
            for block in self._blocks(on_progress):
                self._length += block.shape[-1]
                overview.add(block)
                list(pool.map(Stream.add, streams, block))
                count += _write_ready(file, streams, count)
                if file.tell() > LIMIT:
                    raise self._too_long()
        if not self._length:
            path = self._readers[0].path
            raise AudioError(f"{str(path)!r} has no samples", "separate a song that is not empty", path=path)
        for stream in streams:
            stream.finish(-self._length % SEGMENT)
        count += _write_ready(file, streams, count)
        assert count == -(-self._length // SEGMENT)
        return overview.finish()

    def describe(self, title: str, names: list[str], picture: Picture) -> dict[str, Any]:
        """The data that the page needs, for JSON."""
        return {
            "title": title,
            "rate": self._rate,
            "channels": self._channels,
            "length": self._length,
            "segment": SEGMENT,
            "probe": _base64(probe(self._rate, self._channels, self._quality)),
            "peakSamples": picture.peak_samples,
            "powerSamples": picture.power_samples,
            "bands": BANDS,
            "range": RANGE_DB,
            "stems": [
                {"name": name, "lows": _base64(lows), "highs": _base64(highs), "powers": _base64(powers)}
                for name, lows, highs, powers in zip(names, picture.lows, picture.highs, picture.powers, strict=True)
            ],
        }

    def _blocks(self, on_progress: OnProgress) -> Iterator[npt.NDArray[np.float32]]:
        """All stems, `(S, C, n)`, at the page's rate."""
        side_by_side = self._side_by_side(on_progress)
        count = len(self._readers) * self._channels
        for block in resample(side_by_side, self._old_rate, self._rate, channels=count):
            yield block.reshape(len(self._readers), self._channels, -1)

    def _side_by_side(self, on_progress: OnProgress) -> Iterator[Block]:
        done = 0
        for blocks in zip_longest(*(match_channels(reader.blocks(), self._channels) for reader in self._readers)):
            length = max(block.shape[1] for block in blocks if block is not None)
            stems = np.zeros((len(blocks), self._channels, length), np.float32)
            for stem, block in zip(stems, blocks, strict=True):
                if block is not None:  # it has not ended
                    stem[:, : block.shape[1]] = block
            yield stems.reshape(-1, length)
            done += length
            on_progress(done, self._expected)

    def _choose(self, seconds: float) -> Quality:
        for quality in QUALITIES:
            if seconds <= quality.longest:
                return quality
        raise self._too_long()

    def _too_long(self) -> AudioError:
        hours = QUALITIES[-1].longest / 3600 / len(self._readers)
        count = len(self._readers)
        hint = f"a page holds up to {hours:.1f} hours of {count} stems; play the stems themselves, or cut the song"
        return AudioError(f"the song is too long for the page {str(self._page)!r}", hint, path=self._page)


def _write_ready(file: IO[bytes], streams: list[Stream], first: int) -> int:
    """Write the segments that are complete, numbered from `first`, and return how many."""
    count = 0
    while all(stream.ready for stream in streams):
        lines = "\n".join(_base64(stream.take()) for stream in streams)
        file.write(f'<script type="text/plain" id="segment-{first + count}">\n{lines}\n</script>\n'.encode())
        count += 1
    return count


def _around_segments(title: str, song: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """The page before the segments, and after them."""
    page = pages.render(
        "player/player.html",
        title=title,
        style=(FOLDER / "player.css").read_text(encoding="utf-8"),
        script="".join((FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS),
        song=song,
    )
    head, tail = page.split(SEGMENTS_MARK)
    return head.encode(), tail.encode()


def _base64(data: bytes | npt.NDArray[Any]) -> str:
    return base64.b64encode(data if isinstance(data, bytes) else data.tobytes()).decode()
