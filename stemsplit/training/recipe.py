"""All settings of a training run, from defaults, a TOML file, or a saved state."""

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

    Attributes:
        family: The kind of network, see `stemsplit.networks`.
        config: Shape of the network; the keys depend on the family.
        stems: Names, in the order of the network's output.
        rate: Sample rate in Hz.
        channels: Of the network's input and output.
        window_seconds: Length of a training crop, and of a window in separation.
        overlap_seconds: How long neighbouring windows cross-fade in separation.
        epochs: How many. The weights are validated and saved after each.
        steps: Batches in an epoch.
        batch_size: Crops in a batch.
        learning_rate: Its peak.
        warmup: Share of all steps in which the learning rate rises to its peak.
        cooldown: Share of all steps, at the end of a trapezoid, in which it falls to zero (Haegele et al., 2024).
        schedule: How the learning rate continues after the warm-up: "trapezoid" stays level until the cooldown,
            "cosine" falls to zero (Loshchilov and Hutter, 2017), "constant" stays level.
        patience: End after this many validations without a better mean SDR; 0 for never.
        weight_decay: Of AdamW.
        clip: Highest norm of the gradient.
        average: Decay of the exponential moving average of the weights, which are the ones saved.
        loss: A name from `stemsplit.training.loss.LOSSES`, or a table of several with their weights.
        precision: "float32", "bfloat16", or "auto" for bfloat16 on CUDA and float32 elsewhere.
        mixture: Chance that a crop of one song is of its own mixture file, if it has one, instead of the sum of its
            stems. What the mixture has beside the stems, singing for instance, belongs to no stem.
        remix: Chance that a crop's stems come from different songs.
        drop: Chance that a stem is silenced.
        gain_db: Largest random gain or cut of a stem, in dB.
        swap: Chance that a stem's channels are swapped.
        mono: Chance that a crop is downmixed to mono.
        speed: Largest change of a stem's speed in semitones, pitch and tempo together.
        pitch: Largest pitch shift of a crop in semitones, at constant tempo.
        tempo: Largest relative change of a crop's tempo, at constant pitch.
        warp: Chance of such a pitch shift and change of tempo, which need torchaudio.
        distort: Chance that a stem is distorted.
        reverb: Chance that a stem gets a reverb.
        polarity: Chance that a stem's polarity is inverted.
        eq_db: Largest gain or cut of a random equalizer in any octave, in dB.
        seed: Of weights and crops. The same seed, data and machine give the same weights.
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
    mixture: float = 0.0
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
        """Length of a crop in samples."""
        return round(self.window_seconds * self.rate)

    @property
    def hop(self) -> int:
        """Distance from one window to the next in separation, in samples."""
        return self.length - round(self.overlap_seconds * self.rate)


SHARE = (0.0, 1.0)
MAX_WEIGHT = 1e6
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
    "mixture": SHARE,
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


def read_recipe(path: Path, base: Recipe | None = None) -> Recipe:
    """Read a recipe from a TOML file.

    Args:
        path: The file.
        base: Values of settings that the file does not have; the defaults if None.

    Raises:
        UsageError: The file cannot be read or is not TOML, a setting is unknown, or its value impossible.
    """
    return make_recipe(read_toml(path, "recipe"), repr(str(path)), base)


def make_recipe(table: Mapping[str, Any], source: str, base: Recipe | None = None) -> Recipe:
    """Make a recipe from parsed TOML or JSON.

    Args:
        table: Settings by name.
        source: Name of the recipe in messages.
        base: Values of settings that the table does not have; the defaults if None.

    Raises:
        UsageError: A setting is unknown, or its value impossible.
    """
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
    """Check a table of losses and weights."""
    if unknown := [name for name in table if name not in LOSSES]:
        hint = did_you_mean(unknown[0], LOSSES, f"the losses are {', '.join(LOSSES)}")
        raise UsageError(f"{source}: unknown loss {unknown[0]!r}", hint)
    weights = [value for value in table.values() if isinstance(value, (int, float)) and not isinstance(value, bool)]
    if not table or len(weights) < len(table) or not all(0 < weight <= MAX_WEIGHT for weight in weights):
        message = f"{source}: loss = {dict(table)!r} should give each loss a weight above 0, and at most {MAX_WEIGHT:g}"
        raise UsageError(message, "for instance  loss = { waveform = 1.0, stft = 0.5 }")
    return {name: float(value) for name, value in table.items()}


def _convert(key: str, value: object, default: object, source: str) -> object:
    """Convert a value to the type of the default."""
    if isinstance(default, tuple) and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    kind = Mapping if isinstance(default, Mapping) else type(default)
    if isinstance(value, kind) and not isinstance(value, bool):
        return value
    raise UsageError(f"{source}: {key} = {value!r} should be like {default!r}")
