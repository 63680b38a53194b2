"""What is written of a song: which rows, how they follow from the stems and the mixture, and in which files they go."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stemsplit.audio.decoding import Block
from stemsplit.audio.formats import Format
from stemsplit.audio.stem_file import NAME as STEM_FILE
from stemsplit.audio.stem_file import StemFile
from stemsplit.audio.tags import Tags
from stemsplit.audio.writing import StemWriter
from stemsplit.errors import UsageError

__all__ = ["MIXTURE", "REST", "STEM_FILE", "Clip", "Delivery", "Rows"]

MIXTURE = "mixture"
REST = "no_"  # before a stem's name: what is left of the mixture without it
Clip = Literal["clamp", "gain"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """How the stems of songs are written.

    Args:
        format: of the files.
        rate: Hz of the files, or "model" for the rate of the model; that of the song if None.
        consistent: spread what the stems lack of the mixture over them, so that they add up to it; None to leave that
            to the model: those whose stems are masked parts of the mixture do it, as it changes next to nothing.
        clip: what happens to a song of which a stem goes beyond full scale: "clamp" cuts off what is beyond it, "gain"
            turns all of its stems down by the same factor.
        tags: whether the files get the tags and the cover of the song.
    """

    format: Format = field(default_factory=Format)
    rate: int | Literal["model"] | None = None
    consistent: bool | None = None
    clip: Clip = "clamp"
    tags: bool = True

    def rate_for(self, song_rate: int, model_rate: int) -> int:
        """Return the rate of the files of a song, in Hz."""
        return model_rate if self.rate == "model" else self.rate or song_rate

    def settings(self) -> dict[str, Any]:
        """Return what decides what is in the files, for a manifest."""
        return {
            "format": str(self.format),
            "clip": self.clip,
            "sample_rate": self.rate,
            "consistent": self.consistent,
        }


class Rows:
    """What is written of a song, each row a weighted sum of the model's stems and of the mixture.

    Args:
        outputs: the file of each stem by its name, in which `mixture` stands for the mixture, `no_vocals` for the
            mixture without the vocals, and `stem_file` for all stems together in one file.
        stems: those that the model gives.
        consistent: whether the stems are made to add up to the mixture.

    Raises UsageError for a name that is none of these, and for a stem file that cannot be.
    """

    def __init__(self, outputs: Mapping[str, Path], stems: Sequence[str], *, consistent: bool = False) -> None:
        self.stem_file = outputs.get(STEM_FILE) if STEM_FILE not in stems else None
        self.paths = {name: path for name, path in outputs.items() if path is not self.stem_file}
        self._together = [name for name in stems if name in self.paths] if self.stem_file else []
        if self.stem_file and len(self._together) != len(stems):
            raise UsageError("a stem file holds all stems of a model", "leave out --stems and --two-stems")
        missing_mixture = self.stem_file is not None and MIXTURE not in self.paths
        self.names = [*self.paths, *([MIXTURE] if missing_mixture else [])]
        weights = np.eye(len(stems), len(stems) + 1, dtype=np.float32)
        if consistent:
            # Each stem gets the same share of the difference, which brings them as near to the truth as it can be told
            # without knowing more: Wisdom et al., "Differentiable Consistency Constraints for Improved Deep Speech
            # Enhancement" (2019), section 3.2.
            weights[:, :-1] -= 1 / len(stems)
            weights[:, -1] = 1 / len(stems)
        found = [self._weights_of(name, stems, weights) for name in self.names]
        self.weights = np.array(found, np.float32).reshape(len(found), len(stems) + 1)
        self.need_mixture = bool(self.weights[:, -1].any())
        self._as_they_are = np.array_equal(self.weights, np.eye(len(stems), len(stems) + 1))

    def mix(self, stems: Block, mixture: Block | None) -> Block:
        """Stems `(S, C, n)` and the mixture `(C, n)`, which may be None if it is not needed -> rows `(R, C, n)`."""
        rows: Block = stems
        if not self._as_they_are:
            # Not as a product of matrices: NumPy's threads for it would wait beside torch's, and halve their speed.
            rows = np.einsum("rs,scn->rcn", self.weights[:, :-1], stems)
            if mixture is not None:
                rows += self.weights[:, -1, None, None] * mixture
        return rows

    def writer(
        self,
        delivery: Delivery,
        *,
        rate: int,
        channels: int,
        expected_length: int | None = None,
        tags: Tags | None = None,
        overwrite: bool = False,
    ) -> StemWriter:
        """What writes these rows, at `rate` Hz. Raises what StemWriter raises."""
        tags = tags or Tags()
        stem_file = None
        if self.stem_file:
            rows = {name: self.names.index(name) for name in self._together}
            format = delivery.format if delivery.format.name in ("m4a", "alac") else Format("m4a")
            stem_file = StemFile(self.stem_file, self.names.index(MIXTURE), rows, format, tags)
        return StemWriter(
            list(self.paths.values()),
            rate=rate,
            channels=channels,
            format=delivery.format,
            tags=[tags if name == MIXTURE else tags.for_stem(name) for name in self.paths],
            stem_file=stem_file,
            overwrite=overwrite,
            expected_length=expected_length,
        )

    @staticmethod
    def _weights_of(name: str, stems: Sequence[str], weights: Block) -> Block:
        mixture: Block = np.eye(1, len(stems) + 1, len(stems), dtype=np.float32)[0]
        if name in stems:
            row: Block = weights[stems.index(name)]
            return row
        if name == MIXTURE:
            return mixture
        if name.startswith(REST) and name.removeprefix(REST) in stems:
            rest: Block = mixture - weights[stems.index(name.removeprefix(REST))]
            return rest
        raise UsageError(f"the model has no stem {name!r}", f"its stems are {', '.join(stems)}")
