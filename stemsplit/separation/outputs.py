"""The outputs of a separation: how they are mixed from stems and mixture, and which files they are written to.

A row is the signal of one output file: a stem, the mixture, or the mixture without a stem.
"""

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
from stemsplit.models.registry import COMPLEMENT
from stemsplit.separation.options import check_rate

__all__ = ["COMPLEMENT", "MIXTURE", "STEM_FILE", "Clip", "Delivery", "Report", "Rows"]

MIXTURE = "mixture"
Clip = Literal["clamp", "gain"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """How stems are written.

    Attributes:
        format: Of the files.
        rate: Hz of the files, or "model" for the rate of the model; that of the song if None.
        consistent: Make the stems add up to the mixture, by spreading the difference over them in equal parts; None
            does so if all stems of the model are written.
        clip: What to do if a stem exceeds full scale: "clamp" clips it, "gain" turns all stems of the song down by the
            same factor.
        tags: Copy the tags and the cover of the song to the files.
    """

    format: Format = field(default_factory=Format)
    rate: int | Literal["model"] | None = None
    consistent: bool | None = None
    clip: Clip = "clamp"
    tags: bool = True

    def __post_init__(self) -> None:
        """Raise UsageError for a rate that is none."""
        if self.rate not in (None, "model"):
            check_rate(self.rate)

    def rate_for(self, song_rate: int, model_rate: int) -> int:
        """Return the rate of the files of a song, in Hz."""
        return model_rate if self.rate == "model" else self.rate or song_rate

    def settings(self) -> dict[str, Any]:
        """Return the settings that affect the content of the files, for a manifest."""
        return {
            "format": str(self.format),
            "clip": self.clip,
            "sample_rate": self.rate,
            "consistent": self.consistent,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """What `Separator.separate_file` wrote.

    Attributes:
        rate: Of the stems, Hz.
        channels: Of each stem.
        length: Samples of each stem.
        clipped: Samples beyond full scale that were clipped, over all stems.
        warnings: Sentences about what was downmixed, missing or damaged in the song, and about memory.
        peak: The largest magnitude of a sample before clipping and gain, over all stems.
        gain: The factor that all stems were turned down by, so that none clips; 1 for none.
        consistent: Whether the stems were made to add up to the song.
        incomplete: Whether part of the song could not be decoded; `warnings` say which.
        precision: In which the networks computed, "full" or "half".
    """

    rate: int
    channels: int
    length: int
    clipped: int
    warnings: tuple[str, ...]
    peak: float = 0.0
    gain: float = 1.0
    consistent: bool = False
    incomplete: bool = False
    precision: str = "full"


class Rows:
    """The rows that are written of a song, each a weighted sum of the model's stems and the mixture."""

    def __init__(
        self, outputs: Mapping[str, Path], stems: Sequence[str], *, consistent: bool = False, remainder: str = ""
    ) -> None:
        """Choose the rows.

        Args:
            outputs: The file of each row by name: a stem, `mixture`, `no_vocals` and the like for the mixture without a
                stem, or `stem_file` for all stems in one file.
            stems: Of the model.
            consistent: Make the stems add up to the mixture.
            remainder: The stem that is the mixture minus all others; empty if there is none.

        Raises:
            UsageError: A name is none of these, or a stem file lacks stems.
        """
        self.stem_file = outputs.get(STEM_FILE) if STEM_FILE not in stems else None
        self.paths = {name: path for name, path in outputs.items() if path is not self.stem_file}
        self._stem_file_names = [name for name in stems if name in self.paths] if self.stem_file else []
        if self.stem_file and len(self._stem_file_names) != len(stems):
            raise UsageError("a stem file holds all stems of a model", "leave out --stems and --two-stems")
        missing_mixture = self.stem_file is not None and MIXTURE not in self.paths
        self.names = [*self.paths, *([MIXTURE] if missing_mixture else [])]
        weights = np.eye(len(stems), len(stems) + 1, dtype=np.float32)
        if remainder:  # with what the song has above the model's rate, so that the stems always add up
            row = stems.index(remainder)
            weights[row] = [*(0 if stem == remainder else -1 for stem in stems), 1]
        elif consistent:
            # Each stem gets the same share of the difference: the least-squares projection onto consistent stems.
            # Wisdom et al., "Differentiable Consistency Constraints for Improved Deep Speech Enhancement" (2019),
            # section 3.2.
            weights[:, :-1] -= 1 / len(stems)
            weights[:, -1] = 1 / len(stems)
        rows = [self._weights_of(name, stems, weights) for name in self.names]
        self.weights = np.array(rows, np.float32).reshape(len(rows), len(stems) + 1)
        self.needs_mixture = bool(self.weights[:, -1].any())
        self._is_identity = np.array_equal(self.weights, np.eye(len(stems), len(stems) + 1))

    def mix(self, stems: Block, mixture: Block | None) -> Block:
        """Mix the rows.

        Args:
            stems: `(S, C, n)`.
            mixture: `(C, n)`; may be None unless `needs_mixture`.

        Returns:
            `(R, C, n)`.
        """
        rows: Block = stems
        if not self._is_identity:
            # Not a matrix product: NumPy's threads for it would compete with torch's, and halve their speed.
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
        """Return the writer of these rows.

        Args:
            delivery: How they are written.
            rate: Of the rows, Hz.
            channels: Of each row.
            expected_length: Samples of each row, an estimate, or None.
            tags: Of the song.
            overwrite: Replace files that exist.

        Raises:
            AudioError: A file exists, or the format cannot have this rate.
        """
        tags = tags or Tags()
        stem_file = None
        if self.stem_file:
            rows = {name: self.names.index(name) for name in self._stem_file_names}
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
        if name.startswith(COMPLEMENT) and name.removeprefix(COMPLEMENT) in stems:
            complement: Block = mixture - weights[stems.index(name.removeprefix(COMPLEMENT))]
            return complement
        raise UsageError(f"the model has no stem {name!r}", f"its stems are {', '.join(stems)}")
