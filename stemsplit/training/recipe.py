"""Everything that decides what a training run gives, in one frozen object."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from stemsplit.errors import UsageError
from stemsplit.files import read_toml
from stemsplit.training.loss import LOSSES
from stemsplit.wording import did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Settings of a training run; a TOML file has the same keys.

    Args:
        family, config: the network and its shape, see `stemsplit.networks`.
        stems: names, in the order of the network's output.
        rate: Hz. channels: of the network's input and output.
        window_seconds: length of a training crop and of a window in use.
        overlap_seconds: how long neighbouring windows cross-fade in use.
        epochs, steps, batch_size: an epoch is `steps` batches; the weights are validated and saved after each.
        learning_rate: the highest. warmup: share of all steps in which it rises to that.
        cooldown: share of all steps, at the end of a trapezoid, in which it falls to zero (Haegele et al., 2024).
        weight_decay: AdamW's. clip: highest norm of the gradient.
        average: decay of the exponential moving average of the weights, which is what is saved.
        schedule: how the learning rate goes after it has risen: "trapezoid" is level until the cooldown, "cosine" falls
            all the time to zero (Loshchilov and Hutter, 2017), "constant" stays.
        patience: end when the validation's mean SDR has not got better for so many validations; 0 for never.
        loss: one of `stemsplit.training.loss.LOSSES`, or a table of several and how much each counts.
        precision: "float32", "bfloat16", or "auto" for bfloat16 on CUDA and float32 elsewhere.
        remix: chance that a crop's stems come from different songs. drop: chance that a stem is silenced.
        gain_db: stems are made louder or softer by up to this. swap: chance that a stem's channels are swapped.
        mono: chance that a crop is folded to mono.
        speed: stems are played up to this many semitones faster or slower, pitch and tempo together.
        pitch: crops are shifted by up to this many semitones, at the same tempo.
        tempo: crops are played up to this share faster or slower, at the same pitch.
        warp: the chance that a crop is shifted and stretched, if `pitch` or `tempo` say so; it takes torchaudio.
        distort: chance that a stem is distorted. reverb: that it gets a reverb. polarity: that it is turned over.
        eq_db: stems pass a random equalizer of up to this in every octave.
        seed: of weights and crops; the same seed, data and machine give the same weights.
    """

    family: str = "unet"
    config: Mapping[str, Any] = field(default_factory=dict)
    stems: tuple[str, ...] = ("vocals", "drums", "bass", "other")
    rate: int = 44_100
    channels: int = 2
    window_seconds: float = 3.0
    overlap_seconds: float = 0.75
    epochs: int = 100
    steps: int = 250
    batch_size: int = 16
    learning_rate: float = 1e-3
    warmup: float = 0.02
    cooldown: float = 0.25
    schedule: str = "trapezoid"
    patience: int = 0
    weight_decay: float = 1e-3
    clip: float = 1.0
    average: float = 0.999
    loss: str | Mapping[str, float] = "magnitude"
    precision: str = "auto"
    remix: float = 0.75
    drop: float = 0.05
    gain_db: float = 8.0
    swap: float = 0.5
    mono: float = 0.05
    speed: float = 0.0
    pitch: float = 0.0
    tempo: float = 0.0
    warp: float = 0.25
    distort: float = 0.0
    reverb: float = 0.0
    polarity: float = 0.0
    eq_db: float = 0.0
    seed: int = 1

    @property
    def length(self) -> int:
        """Samples of a crop."""
        return round(self.window_seconds * self.rate)

    @property
    def hop(self) -> int:
        """Samples from one window to the next, in use."""
        return self.length - round(self.overlap_seconds * self.rate)


SHARE = (0.0, 1.0)
MOST_WEIGHT = 1e6
RANGES: dict[str, tuple[float, float]] = {
    "window_seconds": (0.001, 600.0),
    "overlap_seconds": (0.0, 600.0),
    "epochs": (1, 10**6),
    "steps": (1, 10**6),
    "batch_size": (1, 10**4),
    "learning_rate": (1e-9, 10.0),
    "warmup": SHARE,
    "cooldown": SHARE,
    "patience": (0, 10**6),
    "weight_decay": (0.0, 10.0),
    "clip": (1e-6, 1e6),
    "average": SHARE,
    "remix": SHARE,
    "drop": SHARE,
    "gain_db": (0.0, 60.0),
    "swap": SHARE,
    "mono": SHARE,
    "speed": (0.0, 24.0),
    "pitch": (0.0, 24.0),
    "tempo": (0.0, 0.5),
    "warp": SHARE,
    "distort": SHARE,
    "reverb": SHARE,
    "polarity": SHARE,
    "eq_db": (0.0, 30.0),
    "seed": (0, 2**63 - 1),
}
CHOICES = {
    "loss": tuple(LOSSES),
    "precision": ("auto", "float32", "bfloat16"),
    "schedule": ("trapezoid", "cosine", "constant"),
}


def load_recipe(path: Path, base: Recipe | None = None) -> Recipe:
    """Read a recipe; what it does not say is as in `base`, or the default.

    Raises UsageError on a missing file, bad TOML, an unknown key or an impossible value.
    """
    return make_recipe(read_toml(path, "recipe"), repr(str(path)), base)


def make_recipe(table: Mapping[str, Any], source: str, base: Recipe | None = None) -> Recipe:
    """A recipe from parsed TOML or JSON; `source` names it in errors (UsageError)."""
    defaults = Recipe()
    known = {setting.name: getattr(defaults, setting.name) for setting in fields(Recipe)}
    settings: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            hint = did_you_mean(key, known, f"a recipe has {', '.join(known)}")
            raise UsageError(f"{source}: unknown setting {key!r}", hint)
        if key == "loss" and isinstance(value, Mapping):
            settings[key] = _weights(value, source)
            continue
        settings[key] = _convert(key, value, known[key], source)
        if key in RANGES and not RANGES[key][0] <= settings[key] <= RANGES[key][1]:
            raise UsageError(f"{source}: {key} = {value!r} should be from {RANGES[key][0]:g} to {RANGES[key][1]:g}")
        if key in CHOICES and value not in CHOICES[key]:
            raise UsageError(f"{source}: {key} = {value!r} should be one of {', '.join(CHOICES[key])}")
    return replace(base or defaults, **settings)


def _weights(table: Mapping[str, Any], source: str) -> dict[str, float]:
    """Check a table of losses."""
    if unknown := [name for name in table if name not in LOSSES]:
        raise UsageError(f"{source}: there is no loss {unknown[0]!r}", f"the losses are {', '.join(LOSSES)}")
    weights = [value for value in table.values() if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if not table or len(weights) < len(table) or not all(0 < weight <= MOST_WEIGHT for weight in weights):
        told = f"{source}: loss = {dict(table)!r} should say how much each counts, above 0 and at most {MOST_WEIGHT:g}"
        raise UsageError(told, "for instance  loss = { waveform = 1.0, stft = 0.5 }")
    return {name: float(value) for name, value in table.items()}


def _convert(key: str, value: object, default: object, source: str) -> object:
    """Check a value's kind against the default's."""
    if isinstance(default, tuple) and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    kind = Mapping if isinstance(default, Mapping) else type(default)
    if isinstance(value, kind) and not isinstance(value, bool):
        return value
    raise UsageError(f"{source}: {key} = {value!r} should be like {default!r}")
