"""The player page as a browser reads it: its elements, its data, its audio."""

import base64
import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from stemsplit.player.packing import ALPHABET

Samples = npt.NDArray[np.float32]


HOSTILE = (
    "</script><script>alert(1)</script><!-- {{ song }} {% endblock %} <!-- the segments come here -->\n"
    " & \"quoted\" 'too' \u2028 \u202e \x00 \x1b \udce9"
)


class Content(HTMLParser):
    """The elements of a page, with their attributes and text."""

    EMPTY = ("meta", "link", "input", "path", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.open: list[int] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))
        if tag not in self.EMPTY:
            self.open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self.open.pop()][0] == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if self.open:
            self.elements[self.open[-1]][2].append(data)

    def texts(self, tag: str, **attributes: str) -> list[str]:
        """Return the texts of all elements with a tag and attributes."""
        wanted = attributes.items()
        return ["".join(text) for name, has, text in self.elements if name == tag and wanted <= has.items()]

    def song(self) -> dict[str, Any]:
        """Return the song's description in the page."""
        (text,) = self.texts("script", id="song")
        song: dict[str, Any] = json.loads(text)
        return song

    def segments(self) -> list[list[bytes]]:
        """Return the MP3 of each segment and stem."""
        texts = self.texts("script", type="text/plain")
        return [[unpack(line) for line in text.strip().split("\n")] for text in texts]


def read_page(path: Path) -> Content:
    return Content(path.read_text(encoding="utf-8"))


def unpack(text: str) -> bytes:
    """Read what the page has as text, by the definition of Ascii85 but for its characters."""
    ours = dict(zip(ALPHABET, (chr(33 + digit) for digit in range(85)), strict=True))
    return base64.a85decode("".join(ours[letter] for letter in text))


def decode(mp3: bytes) -> Samples:
    """Decode MP3 to `(C, n)`, without compensating any delay."""
    with av.open(io.BytesIO(mp3), "r", format="mp3") as container:
        container.streams.audio[0].codec_context.flags2 |= 1 << 29  # AV_CODEC_FLAG2_SKIP_MANUAL
        return np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)


def heard(content: Content, stem: int) -> Samples:
    """Assemble a stem from its segments as a browser does, `(C, N)`."""
    song = content.song()
    delay = int(np.abs(decode(unpack(song["probe"]))[0]).argmax())
    parts = [decode(segment[stem])[:, delay : delay + song["segment"]] for segment in content.segments()]
    assert {part.shape[1] for part in parts} == {song["segment"]}
    return np.concatenate(parts, axis=1)[:, : song["length"]]


def lag(one: Samples, other: Samples) -> int:
    """Return by how many samples `other` is late."""
    size = 2 * len(one)
    likeness = np.fft.irfft(np.fft.rfft(other, size) * np.fft.rfft(one, size).conj())
    best = int(likeness.argmax())
    return best if best < size // 2 else best - size
