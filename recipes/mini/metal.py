"""Make songs with drums and bass of two metal songs whose guitar is known, and whose rest is drums and bass together.

    python recipes/mini/metal.py SOURCES runs/mini-last/model.safetensors DATA/train

An earlier network of ours, given the rest alone, divides it between drums and bass: the guitar is known exactly, and
what is wrong in the other two stems is only what the earlier network takes for each other.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile

from stemsplit.models import checkpoint
from stemsplit.models.checkpoint import Model, new_model
from stemsplit.separation.separator import Separator

SONGS = ("metal_madness", "war_of_freedom")  # the other two have a second guitar in their rest
LAST = "exit.5."  # the layer that gives a mask for each stem and channel


def restrict(model: Model, stems: tuple[str, ...]) -> Model:
    """A U-Net for some of its stems: the softmax divides the mixture between these alone."""
    header = replace(model.header, stems=stems)
    network = new_model(header).network
    channels = header.channels
    rows = [
        row
        for stem in stems
        for row in range(model.header.stems.index(stem) * channels, (model.header.stems.index(stem) + 1) * channels)
    ]
    weights = model.network.state_dict()
    network.load_state_dict(
        {name: tensor[rows] if name.startswith(LAST) else tensor for name, tensor in weights.items()}
    )
    return Model(header, network.eval())


def main(sources: Path, model: Path, train: Path) -> None:
    separator = Separator(restrict(checkpoint.load(model), ("drums", "bass")))
    for song in SONGS:
        folder = sources / "more" / "fof_sectoid" / song
        rest, rate = soundfile.read(folder / "rest.ogg", dtype="float32")
        guitar, _ = soundfile.read(folder / "other.ogg", dtype="float32")
        stems = separator.separate_array(np.ascontiguousarray(rest.T), rate) | {"other": guitar.T}
        (train / f"metal-{song}").mkdir(parents=True, exist_ok=True)
        for stem, audio in stems.items():
            soundfile.write(train / f"metal-{song}" / f"{stem}.wav", audio.T, rate)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
