"""libsndfile as a decoder."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile  # type: ignore[import-untyped]

from stemsplit.audio.decoding import Block, Damage, undecodable
from stemsplit.audio.pcm_headers import PcmHeader
from stemsplit.audio.splice import Splice

_PLAIN = ("PCM_U8", "PCM_S8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")


class SndfileSource:
    """libsndfile: PCM and Ogg Vorbis with one or two channels; for random access, also FLAC and PCM of more channels.

    Args:
        file: The file as it should see it.
        path: Its path, for messages.
        header: What the header says, or None.

    Attributes:
        rate: Hz.
        channels: As in the file.
        downmixed_from: None.
        estimated_length: Samples; exact here.
        exact_length: Samples.
        stated_length: Samples according to the header, even if the file is truncated, or None.
        tolerance: By how much the stated length may be wrong, seconds.
        damage: What could not be decoded so far.

    Raises:
        soundfile.LibsndfileError: The file cannot be read by libsndfile.
    """

    downmixed_from: int | None = None
    tolerance = 0.01

    def __init__(self, file: Splice, path: Path, header: PcmHeader | None = None) -> None:
        self._file = file
        self._path = path
        self._sound = soundfile.SoundFile(file)
        self.rate: int = self._sound.samplerate
        self.channels: int = self._sound.channels
        self.estimated_length: int | None = self._sound.frames
        self.exact_length: int | None = self.estimated_length
        self.stated_length = header.stated_length if header else self.estimated_length or None
        self.damage = Damage()

    def is_suitable(self, *, random_access: bool) -> bool:
        """Whether libsndfile is the better decoder for this file.

        It is not if it finds no samples: FFmpeg can read a recording that was interrupted before its length was
        written.
        """
        if self._sound.subtype == "VORBIS":
            return self.channels <= 2
        is_plain = self._sound.subtype in _PLAIN
        is_first_choice = self.channels <= 2 and self._sound.format != "FLAC"
        has_samples = self.estimated_length or self.stated_length == 0
        return bool(has_samples) and is_plain and (random_access or is_first_choice)

    @property
    def error(self) -> OSError | None:
        """Why the file cannot be read any further, or None."""
        return self._file.error

    def blocks(self) -> Iterator[Block]:
        """Yield blocks `(channels, n)`, `n <= 65536`, as far as the file can be decoded."""
        while True:
            try:
                samples = self._sound.read(65_536, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError:
                self.damage.failures += 1
                return
            if not len(samples):
                return
            self.damage.successes += 1
            yield np.ascontiguousarray(samples.T)

    def excerpt(self, start: int, length: int) -> Block:
        """Return samples `(channels, n)` from `start` on; `n < length` at the end of the song.

        Raises:
            AudioError: The excerpt cannot be decoded.
        """
        try:
            self._sound.seek(min(start, self._sound.frames))
            samples: Block = self._sound.read(length, dtype="float32", always_2d=True).T
        except soundfile.LibsndfileError as error:
            raise undecodable(self._path, error.error_string.removeprefix("Error : ").rstrip(". ")) from error
        return samples

    def close(self) -> None:
        """Close the decoder, not the file; a second call does nothing."""
        self._sound.close()
