"""What a file of weights says of itself, read without torch.

Our own files have a header in their metadata. Those that the author of Demucs has published have three strings there:
`klass`, `args` and `kwargs`, the last as JSON. The class is compared with those that are known and never imported, and
every argument has to be one that our networks can honour.
"""

import json
import struct
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from stemsplit.errors import ModelError

LIMIT = 2**24  # bytes; the largest real headers have a few hundred kB
CLASSES = {"demucs.htdemucs.HTDemucs": "htdemucs"}
OVERLAP = 0.25  # of a window, as the author's own program has it

# Arguments that decide the network's shape, and what ours calls them; their defaults are those of the class.
_SHAPE: dict[str, tuple[str, Any]] = {
    "nfft": ("n_fft", 4096),
    "channels": ("width", 48),
    "depth": ("depth", 4),
    "dconv_comp": ("compress", 8),
    "bottom_channels": ("bottom_channels", 0),
    "t_layers": ("layers", 5),
    "t_heads": ("heads", 8),
}
# Arguments that have to be as they are in all published checkpoints, and the defaults of the class.
_FIXED: dict[str, tuple[Any, Any]] = {
    "channels_time": (None, None),
    "growth": (2, 2),
    "wiener_iters": (0, 0),
    "cac": (True, True),
    "rewrite": (True, True),
    "freq_emb": (0.2, 0.2),
    "emb_scale": (10, 10),
    "kernel_size": (8, 8),
    "time_stride": (2, 2),
    "stride": (4, 4),
    "context": (1, 1),
    "context_enc": (0, 0),
    "norm_starts": (4, 4),
    "dconv_mode": (3, 1),
    "dconv_depth": (2, 2),
    "t_emb": ("sin", "sin"),
    "t_hidden_scale": (4.0, 4.0),
    "t_norm_in": (True, True),
    "t_norm_in_group": (False, False),
    "t_group_norm": (False, False),
    "t_norm_first": (True, True),
    "t_norm_out": (True, True),
    "t_max_period": (10000.0, 10000.0),
    "t_layer_scale": (True, True),
    "t_gelu": (True, True),
    "t_weight_pos_embed": (1.0, 1.0),
    "t_cross_first": (False, False),
    "t_sparse_self_attn": (False, False),
    "t_sparse_cross_attn": (False, False),
}
# Arguments that matter in training only, or not at all when the others are as they have to be.
_IDLE = set(
    "sources audio_channels samplerate segment multi_freqs multi_freqs_depth end_iters wiener_residual emb_smooth "
    "norm_groups dconv_init rescale use_train_segment t_dropout t_max_positions t_weight_decay t_lr t_sin_random_shift "
    "t_cape_mean_normalize t_cape_augment t_cape_glob_loc_scale t_mask_type t_mask_random_seed t_sparse_attn_window "
    "t_global_window t_sparsity t_auto_sparsity".split()
)


def read(path: Path) -> dict[str, Any] | None:
    """The header of a safetensors file (8 bytes of length, then JSON) in the terms of ours, None if there is none.

    Raises FileNotFoundError, and ModelError when the file cannot be read or is no safetensors file.
    """
    name = str(path)
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > LIMIT:
                raise ValueError("its header is too long")
            metadata = json.loads(file.read(length)).get("__metadata__", {})
        header = parse(metadata)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ModelError(f"cannot read the model {name!r}: {error.strerror}", "check the path") from error
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError, struct.error) as error:
        raise ModelError(f"{name!r} is not a .safetensors file, or it is damaged", "get the file again") from error
    return header


def parse(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """The header in a file's metadata, ours or translated into ours; None if it says nothing of itself.

    Raises ValueError, TypeError, LookupError or ArithmeticError when it makes no sense.
    """
    if "stemsplit" not in metadata:
        return translate(metadata) if "klass" in metadata else None
    header = json.loads(metadata["stemsplit"])
    if not isinstance(header, dict):
        raise TypeError("it is no table")
    return header


def translate(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The metadata of a published checkpoint -> what our header has: family, config, stems, rate, channels, windows.

    Raises ValueError, which says what our networks do not know.
    """
    family = CLASSES.get(metadata["klass"])
    if family is None:
        raise ValueError(f"a network of the class {metadata['klass'][:80]!r} is not known")
    if "structure" in metadata:
        raise ValueError("its weights are packed with DiffQ, which is not supported")
    if json.loads(metadata.get("args", "[]")):
        raise ValueError("its arguments have no names")
    given = json.loads(metadata["kwargs"])
    if not isinstance(given, dict):
        raise TypeError("kwargs is no table")
    for name, (needed, default) in _FIXED.items():
        if given.get(name, default) != needed:
            raise ValueError(f"{name} = {given.get(name, default)!r} is not supported, only {needed!r}")
    if given.get("multi_freqs"):
        raise ValueError("multi_freqs is not supported")
    if unknown := sorted(set(given) - set(_FIXED) - set(_SHAPE) - _IDLE):
        raise ValueError(f"{unknown[0]!r} is not known")
    rate = given.get("samplerate", 44_100)
    length = int(_number(given.get("segment", 10)) * rate)  # of a window
    config = {ours: given.get(name, default) for name, (ours, default) in _SHAPE.items()}
    return {
        "family": family,
        "config": {**config, "length": length},
        "stems": list(given["sources"]),
        "rate": rate,
        "channels": given.get("audio_channels", 2),
        "length": length,
        "hop": int((1 - OVERLAP) * length),
    }


def _number(value: Any) -> float | Fraction:
    """A number, or a fraction as the author writes it into JSON."""
    return Fraction(value["numerator"], value["denominator"]) if isinstance(value, dict) else float(value)
