"""The stems that the test songs have, and songs packed as MUSDB18 has them."""

from pathlib import Path

import av
import numpy as np

STEMS = ("vocals", "drums", "bass", "other")


RATE = 44_100


def write_packed(path: Path, length: int, *, tracks: int = 5, rate: int = RATE) -> None:
    """A song as MUSDB18 has them: AAC tracks in one MP4, the mixture first. Its stems are told apart by their pitch."""
    rng = np.random.default_rng(1)
    times = np.arange(length) / rate
    stems = [
        0.1 * np.sin(2 * np.pi * pitch * times) + 0.02 * rng.standard_normal((2, length))
        for pitch in (110, 440, 990, 3000)
    ]
    sounds = [np.stack(stems).sum(0), *stems][:tracks]
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="mp4") as container:
        # Without the noise substitution of AAC, which is as good as random, and decoded differently each time.
        streams = [container.add_stream("aac", rate=rate, layout="stereo", options={"aac_pns": "0"}) for _ in sounds]
        for start in range(0, length, 1024):
            for stream, sound in zip(streams, sounds, strict=True):
                piece = np.ascontiguousarray(sound[:, start : start + 1024], np.float32)
                frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="stereo")
                frame.sample_rate, frame.pts = rate, start
                container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
