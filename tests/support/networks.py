"""Configurations of tiny networks, and what can be said of their files without writing them."""

import json
from collections.abc import Mapping

from torch import Tensor

TINY_UNET = {"n_fft": 512, "hop": 128, "bands": 24, "linear_bands": 8, "widths": [4, 6]}
TINY_ROFORMER = {"n_fft": 256, "hop": 64, "width": 12, "depth": 1, "heads": 2, "head_width": 6}


def names_and_shapes(state: Mapping[str, Tensor]) -> str:
    """Sorted lines, one for each tensor: `name 1x2x3`."""
    return "\n".join(sorted(f"{key} {'x'.join(map(str, tensor.shape))}" for key, tensor in state.items()))


def file_size(state: Mapping[str, Tensor]) -> int:
    """Bytes of a safetensors file of float32 tensors without metadata."""
    header, end = {}, 0
    for key in sorted(state):
        start, end = end, end + 4 * state[key].numel()
        header[key] = {"dtype": "F32", "shape": list(state[key].shape), "data_offsets": [start, end]}
    length = len(json.dumps(header, separators=(",", ":")))
    return 8 + length + -length % 8 + end
