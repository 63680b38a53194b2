"""What the user asks for when songs are to be separated, and whether it goes together."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from stemsplit.errors import UsageError
from stemsplit.models.registry import ModelSpec, require_masks
from stemsplit.separation.options import SeparationOptions
from stemsplit.separation.outputs import MIXTURE, REST, STEM_FILE, Delivery


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the user wants.

    model, stems: as named; nothing for the default, and for all. rest: the song without the one stem as well.
    mixture, stem_file, player: as well. rate: of the stems in Hz, "model" for that of the model, or None for that of
    the song. options: how to separate. track: the sound track of a film, from 1 on. jobs: songs at a time.
    keep: whether the stems stay where they are, so that a manifest goes beside them and their paths are told.
    """

    model: str | None
    stems: Sequence[str] = ()
    rest: bool = False
    mixture: bool = False
    stem_file: bool = False
    player: bool = False
    delivery: Delivery = field(default_factory=Delivery)
    rate: int | str | None = None
    device: str = "auto"
    options: SeparationOptions = field(default_factory=SeparationOptions)
    track: int = 1
    jobs: int = 1
    overwrite: bool = False
    skip_existing: bool = False
    dry_run: bool = False
    as_json: bool = False
    keep: bool = True

    def check(self, spec: ModelSpec) -> None:
        """Raise UsageError if its parts do not go together, with this model, as far as it is known."""
        if self.rest and len(self.stems) != 1:
            raise UsageError("--two-stems takes one stem", "such as  --two-stems vocals")
        if self.stem_file and (self.stems or len(spec.stems) not in (0, 4)):
            hint = "leave out --stems and --two-stems, and choose a model of four stems"
            raise UsageError("a stem file holds exactly four stems", hint)
        if self.options.wiener:
            require_masks(spec)
        if self.delivery.consistent and self.stems:
            raise UsageError("only all stems of a model can be made to add up", "leave out --consistent, or --stems")

    def names(self, stems: Sequence[str]) -> tuple[str, ...]:
        """What is written of each song by a model with these stems; nothing as long as they are not known."""
        wanted = {REST + stem: self.rest for stem in stems} | {MIXTURE: self.mixture, STEM_FILE: self.stem_file}
        more = [name for name, is_wanted in wanted.items() if is_wanted and stems]
        return tuple(dict.fromkeys((*stems, *more)))

    @property
    def one_file(self) -> bool:
        """Whether a song becomes a single file."""
        return len(self.stems) == 1 and not (self.rest or self.mixture or self.stem_file or self.player)

    def without_files(self) -> "Request":
        """The same for stems that do not stay where they are."""
        return replace(self, keep=False, skip_existing=False)

    @property
    def settings(self) -> dict[str, Any]:
        """What decides how the stems sound; not the size of batches."""
        delivery = {"format": str(self.delivery.format), "clip": self.delivery.clip, "sample_rate": self.rate}
        return {**self.options.settings(), **delivery, "consistent": self.delivery.consistent, "track": self.track}
