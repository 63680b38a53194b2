"""Store the second step of `mini` as it is bundled with stemsplit.

    python recipes/mini/store.py initial.safetensors runs/accompaniment/model.safetensors mini-accompaniment.safetensors

The weights are the mean of those before and after the training, which keeps more of what it began with (Wortsman et
al., "Robust fine-tuning of zero-shot models", CVPR 2022), in half precision. Harmonic/percussive separation of the
lowest bands, which training does without, is turned on.
"""

import sys
from dataclasses import replace
from pathlib import Path

from stemsplit.models import checkpoint

NOTES = """The second step of stemsplit's model mini, MIT license. Its data, with the credits that CC BY asks for, and
its figures: recipes/mini in stemsplit's repository. Rounded to half precision."""
PERCUSSIVE_BANDS = 60  # up to 650 Hz


def store(before: Path, after: Path, target: Path) -> None:
    """Write the mean of two networks of the same shape to `target`."""
    first, model = checkpoint.load(before), checkpoint.load(after)
    config = {**model.header.config, "percussive_bands": PERCUSSIVE_BANDS}
    header = replace(model.header, config=config, notes=" ".join(NOTES.split()))
    start = first.network.state_dict()
    weights = {
        name: ((tensor + start[name]) / 2).half().contiguous() if tensor.is_floating_point() else tensor
        for name, tensor in model.network.state_dict().items()
    }
    checkpoint.write_weights(header, weights, target)


if __name__ == "__main__":
    store(*map(Path, sys.argv[1:]))
