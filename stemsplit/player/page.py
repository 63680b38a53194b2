"""A page to listen on: one HTML file with the stems of a song in it, which needs no network and no other file.

A page that was opened from a disk may not read the files beside it, and media elements drift apart. So the sound is in
the page, in MP3, the one compact format that every browser decodes from memory, in `segments` of a few seconds. The
page decodes those around the playhead, all stems of a segment together, and starts them in the same sample of one
clock. Neither the page nor this module ever has the whole song decoded.
"""

import base64
import hashlib
import html
import json
import re
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

from stemsplit.audio.decoding import Block
from stemsplit.audio.reading import Reader, match_channels, open_reader
from stemsplit.audio.resampling import resample
from stemsplit.errors import AudioError, UsageError
from stemsplit.files import check_free, replacing
from stemsplit.player.mp3_segments import QUALITIES, RATES, SEGMENT, Quality, Stream, probe
from stemsplit.player.overview import BANDS, RANGE_DB, Overview, Picture

SCRIPTS = ("player-audio.js", "player-pictures.js", "player-view.js")
LIMIT = 2**29  # bytes of sound in a page, for stems that are longer than their files say
OnProgress = Callable[[int, int | None], None]


def write_player(
    page: Path,
    title: str,
    stems: Mapping[str, Path],
    *,
    overwrite: bool = False,
    on_progress: OnProgress = lambda done, total: None,
) -> None:
    """Write the page on which the stems of one song can be heard together and alone.

    Args:
        page: the HTML file, in a folder that exists; it appears complete or not at all.
        title: the song's name. stems: the audio file of each stem, by name, in the order in which they are shown. They
            have one sample rate and begin together; those that are shorter end in silence.
        overwrite: replace a page that exists.
        on_progress: called with the samples read so far, and the files' own estimate of their length, if there is one.

    Memory does not grow with the song's length. The same stems give the same page, byte by byte. Long songs are encoded
    more coarsely: with four stems, in stereo at 64 kbit/s each from 30 minutes on, and in mono at 32 kbit/s from two
    hours on. Raises AudioError when a stem cannot be read, the page not be written, or the song is too long (five hours
    with four stems); UsageError when the stems have different sample rates.
    """
    if not stems:
        raise UsageError("there are no stems to write a page for", "name one at least")
    check_free(page, overwrite=overwrite)
    try:
        with replacing(page) as part, ExitStack() as stack:
            song = _Song(page, [stack.enter_context(open_reader(path)) for path in stems.values()])
            sound = stack.enter_context(tempfile.TemporaryFile(dir=page.parent))
            picture = song.encode(sound, on_progress)
            head, tail = _around(title, song.describe(title, list(stems), picture))
            with part.open("xb") as file:
                file.write(head)
                sound.seek(0)
                shutil.copyfileobj(sound, file)
                file.write(tail)
            check_free(page, overwrite=overwrite)
    except OSError as error:
        hint = "make room, choose another folder, or change its permissions"
        raise AudioError(f"cannot write {str(page)!r}: {error.strerror}", hint) from error


class _Song:
    """All stems of a song, on their way into a page."""

    def __init__(self, page: Path, readers: list[Reader]) -> None:
        self._page, self._readers = page, readers
        self._old_rate = readers[0].rate
        for reader in readers:
            if reader.rate != self._old_rate:
                message = f"{str(reader.path)!r} has {reader.rate} Hz, and another stem has {self._old_rate} Hz"
                raise UsageError(message, "name the stems of one song")
        lengths = [reader.length for reader in readers if reader.length is not None]
        self._expected = max(lengths) if len(lengths) == len(readers) else None
        self._quality = self._choose(len(readers) * (self._expected or 0) / self._old_rate)
        self._rate = min(next((rate for rate in RATES if rate >= self._old_rate), RATES[-1]), self._quality.rate)
        self._channels = min(max(reader.channels for reader in readers), self._quality.channels)
        self._length = 0

    def encode(self, file: IO[bytes], on_progress: OnProgress) -> Picture:
        """Write all segments, each as an element with a line for every stem, and return what the song looks like."""
        overview = Overview(len(self._readers), self._channels, self._rate)
        streams = [Stream(self._rate, self._channels, self._quality) for _ in self._readers]
        with ThreadPoolExecutor(len(streams)) as pool:  # the encoder works without Python's lock
            count = 0
            for block in self._blocks(on_progress):
                self._length += block.shape[-1]
                overview.add(block)
                list(pool.map(Stream.add, streams, block))
                count += _write_ready(file, streams, count)
                if file.tell() > LIMIT:
                    raise self._too_long()
        if not self._length:
            raise AudioError(f"{str(self._readers[0].path)!r} has no samples", "separate a song that is not empty")
        for stream in streams:
            stream.finish(-self._length % SEGMENT)
        count += _write_ready(file, streams, count)
        assert count == -(-self._length // SEGMENT)
        return overview.finish()

    def describe(self, title: str, names: list[str], picture: Picture) -> dict[str, Any]:
        """What the page has to know, for JSON."""
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
                if block is not None:  # one that has ended
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
        hint = f"a page holds {hours:.1f} hours of so many stems; listen to the stems themselves, or cut the song"
        return AudioError(f"the song is too long for the page {str(self._page)!r}", hint)


def _write_ready(file: IO[bytes], streams: list[Stream], first: int) -> int:
    """Write the segments that are complete, numbered from `first`, and return their count."""
    count = 0
    while all(stream.ready for stream in streams):
        lines = "\n".join(_base64(stream.take()) for stream in streams)
        file.write(f'<script type="text/plain" id="segment-{first + count}">\n{lines}\n</script>\n'.encode())
        count += 1
    return count


def _around(title: str, song: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """What comes in the page before the sound, and after it."""
    folder = Path(__file__).parent
    style = (folder / "player.css").read_text(encoding="utf-8")
    script = "".join((folder / name).read_text(encoding="utf-8") for name in SCRIPTS)
    # No name can end the element that it is in: JSON may have any character as \u and its number.
    data = re.sub("[<>&]", lambda match: f"\\u{ord(match[0]):04x}", json.dumps(song, separators=(",", ":")))
    parts = {
        "title": html.escape(title),
        "style": style,
        "style_hash": _hash(style),
        "script": script,
        "script_hash": _hash(script),
        "song": data,
    }
    head, tail = (folder / "player.html").read_text(encoding="utf-8").split("{{sound}}\n")
    # In one go, so that what is filled in is not searched again.
    filled = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], head)
    return filled.encode(errors="replace"), tail.encode()


def _hash(text: str) -> str:
    """By which a content security policy knows the one script, or style, that it allows."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _base64(data: bytes | npt.NDArray[Any]) -> str:
    return base64.b64encode(data if isinstance(data, bytes) else data.tobytes()).decode()
