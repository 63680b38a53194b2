"""The player: one HTML page that plays the stems of a song, and needs no network and no other file.

A page opened from a disk may not read other files, and media elements drift apart. So the audio is in the page, in MP3,
the one compact format that every browser decodes from memory, in segments of a few seconds. The page decodes those
around the playhead, all stems of a segment together, and starts them at the same sample of one clock. Neither the page
nor this module ever has the whole song decoded.

To compare the stems with the song itself, the page needs only what they leave of it, often nothing.
"""

import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
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
from stemsplit.player.beats import BeatTracker
from stemsplit.player.mp3_segments import QUALITIES, RATES, SEGMENT, Quality, Stream, probe
from stemsplit.player.overview import BANDS, RANGE_DB, Overview, Picture
from stemsplit.player.packing import pack
from stemsplit.wording import one_line

FOLDER = Path(__file__).parent
SCRIPTS = ("player-stretch.js", "player-audio.js", "player-pictures.js", "player-view.js")
SEGMENTS_MARK = "<!-- the segments come here -->\n"  # in player.html; no value can contain it, as all are escaped
LIMIT = 2**29  # bytes of audio in a page, for stems that are longer than their files say
EQUAL = 2.0**-12  # of full scale; what differs by less is equal but for dither
POWER_STEP = 6  # spectrograms are stored in steps of 6 / 255 of RANGE_DB, 2.4 dB
OnProgress = Callable[[int, int | None], None]


def write_player(
    page: Path,
    title: str,
    stems: Mapping[str, Path],
    *,
    song: Path | None = None,
    overwrite: bool = False,
    on_progress: OnProgress = lambda done, total: None,
) -> None:
    """Write the page that plays the stems of one song, together or alone.

    Memory does not grow with the song's length. Equal stems give equal pages, byte by byte. Long songs are encoded at a
    lower quality: with four stems, in stereo at 64 kbit/s each from 30 minutes on, and in mono at 32 kbit/s from two
    hours on. Stems whose channels are equal are encoded in mono.

    Args:
        page: The HTML file, in a folder that exists; it appears complete or not at all.
        title: The song's name.
        stems: The audio file of each stem, by name, in the order of the page. They have one sample rate and begin
            together; shorter ones end in silence.
        song: The song itself, to compare the stems with; it may have another sample rate.
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
            encoder = _Encoder(page, list(stems.values()), song)
            segments = stack.enter_context(tempfile.TemporaryFile(dir=page.parent))
            picture = encoder.encode(segments, on_progress)
            head, tail = _around_segments(title, encoder.describe(title, list(stems), picture))
            with part.open("xb") as file:
                file.write(head)
                segments.seek(0)
                shutil.copyfileobj(segments, file)
                file.write(tail)
            check_free(page, overwrite=overwrite)
    except OSError as error:
        hint = "make room, choose another folder, or change its permissions"
        raise AudioError(f"cannot write {str(page)!r}: {one_line(error)}", hint, path=page) from error


class _Encoder:
    """Encodes the stems of a song, and what they leave of it, for a page."""

    def __init__(self, page: Path, stems: list[Path], song: Path | None) -> None:
        self._page, self._stems, self._song = page, stems, song
        with _opened(stems) as readers:
            self._old_rate = readers[0].rate
            for reader in readers:
                if reader.rate != self._old_rate:
                    message = f"{str(reader.path)!r} has {reader.rate} Hz, and another stem has {self._old_rate} Hz"
                    raise UsageError(message, "name stems of one song", path=reader.path)
            lengths = [reader.length for reader in readers if reader.length is not None]
            channels = max(reader.channels for reader in readers)
        self._expected = max(lengths) if len(lengths) == len(stems) else None
        self._quality = self._choose(len(stems) * (self._expected or 0) / self._old_rate)
        self._rate = min(next((rate for rate in RATES if rate >= self._old_rate), RATES[-1]), self._quality.rate)
        self._channels = min(channels, self._quality.channels)
        self._length = 0
        self._beats: list[int] = []
        self._mono, self._has_rest = self._survey()

    def encode(self, file: IO[bytes], on_progress: OnProgress) -> Picture:
        """Write all segments, each as an element with a line for every stem, and return the overview of the song."""
        count = len(self._stems)
        overview, beats = Overview(count, self._channels, self._rate), BeatTracker(self._rate)
        streams = [Stream(self._rate, 1 if mono else self._channels, self._quality) for mono in self._mono]
        if self._has_rest:
            streams.append(Stream(self._rate, self._channels, self._quality))
        with ThreadPoolExecutor(len(streams)) as pool:  # the encoder releases the GIL
            segments = 0
            for block in self._blocks(on_progress):
                self._length += block.shape[-1]
                encoding = pool.map(lambda stream, row: stream.add(row[: stream.channels]), streams, block)
                overview.add(block[:count])
                beats.add(block[:count].sum(axis=0).mean(axis=0))
                list(encoding)
                segments += _write_ready(file, streams, segments)
                if file.tell() > LIMIT:
                    raise self._too_long()
        if not self._length:
            path = self._stems[0]
            raise AudioError(f"{str(path)!r} has no samples", "separate a song that is not empty", path=path)
        for stream in streams:
            stream.finish(-self._length % SEGMENT)
        segments += _write_ready(file, streams, segments)
        assert segments == -(-self._length // SEGMENT)
        self._beats = beats.finish()
        return overview.finish()

    def describe(self, title: str, names: list[str], picture: Picture) -> dict[str, Any]:
        """The data that the page needs, for JSON."""
        return {
            "title": title,
            "rate": self._rate,
            "channels": self._channels,
            "length": self._length,
            "segment": SEGMENT,
            "probe": pack(probe(self._rate, self._channels, self._quality)),
            "peakSamples": picture.peak_samples,
            "powerSamples": picture.power_samples,
            "bands": BANDS,
            "range": RANGE_DB,
            "beats": self._beats,
            "comparable": self._song is not None,
            "stems": [
                {
                    "name": name,
                    "lows": pack(lows.tobytes()),
                    "highs": pack(highs.tobytes()),
                    "powers": pack(zlib.compress((powers - powers % POWER_STEP).tobytes(), 9)),
                }
                for name, lows, highs, powers in zip(names, picture.lows, picture.highs, picture.powers, strict=True)
            ],
        }

    def _survey(self) -> tuple[list[bool], bool]:
        """Return of each stem whether its channels are equal, and whether the stems leave anything of the song."""
        mono, left = np.ones(len(self._stems), bool), 0.0
        if self._channels == 2 or self._song:
            for rows in self._rows(with_rest=self._song is not None):
                stems = rows[: len(self._stems)]
                mono &= np.abs(stems[:, 0] - stems[:, -1]).max(axis=-1, initial=0) < EQUAL
                left = max(left, float(np.abs(rows[len(self._stems) :]).max(initial=0)))
                if self._song is None and not mono.any():
                    break
        return mono.tolist(), left >= EQUAL

    def _blocks(self, on_progress: OnProgress) -> Iterator[npt.NDArray[np.float32]]:
        """All stems, and what they leave of the song if that is needed, `(S, C, n)`, at the page's rate."""

        def side_by_side() -> Iterator[Block]:
            done = 0
            for rows in self._rows(with_rest=self._has_rest):
                yield rows.reshape(-1, rows.shape[-1])
                done += rows.shape[-1]
                on_progress(done, self._expected)

        count = len(self._stems) + self._has_rest
        for block in resample(side_by_side(), self._old_rate, self._rate, channels=count * self._channels):
            yield block.reshape(count, self._channels, -1)

    def _rows(self, *, with_rest: bool) -> Iterator[npt.NDArray[np.float32]]:
        """The stems, and what they leave of the song, `(S, C, n)`, at their own rate."""
        song = [self._song] if self._song and with_rest else []
        with _opened(self._stems) as readers, _opened(song) as songs:
            feeds = [_Feed(self._at_stems_rate(reader)) for reader in songs]
            for blocks in zip_longest(*(match_channels(reader.blocks(), self._channels) for reader in readers)):
                length = max(block.shape[1] for block in blocks if block is not None)
                rows = np.zeros((len(blocks) + len(feeds), self._channels, length), np.float32)
                for row, block in zip(rows, blocks, strict=False):
                    if block is not None:  # it has not ended
                        row[:, : block.shape[1]] = block
                for feed in feeds:
                    whole = feed.take(length)
                    rows[-1, :, : whole.shape[1]] = whole
                    rows[-1] -= rows[:-1].sum(axis=0)
                yield rows

    def _at_stems_rate(self, song: Reader) -> Iterator[Block]:
        blocks = match_channels(song.blocks(), self._channels)
        return resample(blocks, song.rate, self._old_rate, channels=self._channels)

    def _choose(self, seconds: float) -> Quality:
        for quality in QUALITIES:
            if seconds <= quality.longest:
                return quality
        raise self._too_long()

    def _too_long(self) -> AudioError:
        count = len(self._stems)
        hours = QUALITIES[-1].longest / 3600 / count
        hint = f"a page holds up to {hours:.1f} hours of {count} stems; play the stems themselves, or cut the song"
        return AudioError(f"the song is too long for the page {str(self._page)!r}", hint, path=self._page)


class _Feed:
    """Blocks `(C, n)` that are taken in other lengths."""

    def __init__(self, blocks: Iterator[Block]) -> None:
        self._blocks = blocks
        self._kept: list[Block] = []
        self._count = 0

    def take(self, length: int) -> Block:
        """Return the next `length` samples; fewer at the end."""
        while self._count < length and (block := next(self._blocks, None)) is not None:
            self._kept.append(block)
            self._count += block.shape[1]
        if not self._kept:
            return np.zeros((1, 0), np.float32)
        joined = np.concatenate(self._kept, axis=1)
        self._kept, self._count = [joined[:, length:]], max(0, self._count - length)
        return joined[:, :length]


@contextmanager
def _opened(paths: Sequence[Path]) -> Iterator[list[Reader]]:
    with ExitStack() as stack:
        yield [stack.enter_context(open_reader(path)) for path in paths]


def _write_ready(file: IO[bytes], streams: list[Stream], first: int) -> int:
    """Write the segments that are complete, numbered from `first`, and return how many."""
    count = 0
    while all(stream.ready for stream in streams):
        lines = "\n".join(pack(stream.take()) for stream in streams)
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
