"""Headers of weights files, read without torch: our own, and those of Demucs translated into ours.

Our own files have a header in their metadata. Those that the author of Demucs has published have three strings there:
`klass`, `args` and `kwargs`, the last as JSON. Files with a bag of several of his networks, as
github.com/set-soft/AudioSeparation (tool/demucs2safetensors.py) writes them, have a list of `signatures`, which also
prefix the names of the tensors, and a class with its arguments under each. Class names are looked up in a table and
never imported, and every argument must be one that our networks support.
"""

import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from stemsplit.errors import ModelError

KEY = "stemsplit"  # of our own header, in the metadata of a file
MAX_HEADER = 2**24  # bytes; the largest real headers have a few hundred kB
OVERLAP = 0.25  # of a window, as in the author's own program
MAX_NETWORKS = 32  # in a file


@dataclass(frozen=True, slots=True)
class DemucsClass:
    """A class of the demucs package, and how its arguments become our settings.

    Attributes:
        family: Our network family; the module has the same name in both packages.
        limited: Whether a network takes no more than its window, which is then one of our settings.
        segment: Default window, seconds.
        config: Arguments that our networks have too: our name, and the default of the class.
        fixed: Arguments that our networks lack: the only supported value, and the default of the class.
        ignored: Arguments that matter only in training, or not at all given the fixed ones.
    """

    family: str
    limited: bool
    segment: int
    config: Mapping[str, tuple[str, Any]]
    fixed: Mapping[str, tuple[Any, Any]]
    ignored: frozenset[str]


_ALWAYS_IGNORED = frozenset("sources audio_channels samplerate segment dconv_init rescale".split())
_LAYERS: dict[str, tuple[Any, Any]] = {
    "growth": (2, 2),
    "kernel_size": (8, 8),
    "stride": (4, 4),
    "context": (1, 1),
    "norm_groups": (4, 4),
    "dconv_depth": (2, 2),
}
_SPECTRAL: dict[str, tuple[Any, Any]] = {
    **_LAYERS,
    "channels_time": (None, None),
    "wiener_iters": (0, 0),
    "end_iters": (0, 0),
    "rewrite": (True, True),
    "freq_emb": (0.2, 0.2),
    "emb_scale": (10, 10),
    "time_stride": (2, 2),
    "context_enc": (0, 0),
}
CLASSES = {
    "HTDemucs": DemucsClass(
        family="htdemucs",
        limited=True,
        segment=10,
        config={
            "nfft": ("n_fft", 4096),
            "channels": ("width", 48),
            "depth": ("depth", 4),
            "dconv_comp": ("compress", 8),
            "bottom_channels": ("bottom_channels", 0),
            "t_layers": ("layers", 5),
            "t_heads": ("heads", 8),
        },
        fixed={
            **_SPECTRAL,
            "cac": (True, True),
            "multi_freqs": (None, None),
            "norm_starts": (4, 4),
            "dconv_mode": (3, 1),
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
            "t_sin_random_shift": (0, 0),
            "t_cross_first": (False, False),
            "t_sparse_self_attn": (False, False),
            "t_sparse_cross_attn": (False, False),
            "use_train_segment": (True, True),
        },
        ignored=_ALWAYS_IGNORED
        | set(
            "multi_freqs_depth wiener_residual emb_smooth t_dropout t_max_positions t_weight_decay t_lr "
            "t_cape_mean_normalize t_cape_augment t_cape_glob_loc_scale t_mask_type t_mask_random_seed "
            "t_sparse_attn_window t_global_window t_sparsity t_auto_sparsity".split()
        ),
    ),
    "HDemucs": DemucsClass(
        family="hdemucs",
        limited=False,
        segment=40,
        config={
            "nfft": ("n_fft", 4096),
            "channels": ("width", 48),
            "depth": ("depth", 6),
            "dconv_comp": ("compress", 4),
            "norm_starts": ("norm_starts", 4),
            "dconv_lstm": ("memory_starts", 4),
            "dconv_attn": ("memory_starts", 4),
            "cac": ("magnitude", True),
            "multi_freqs": ("bands", None),
            "hybrid_old": ("zero_padding", False),
        },
        fixed={**_SPECTRAL, "hybrid": (True, True), "multi_freqs_depth": (2, 2), "dconv_mode": (1, 1)},
        ignored=_ALWAYS_IGNORED | {"wiener_residual", "emb_smooth"},
    ),
    "Demucs": DemucsClass(
        family="demucs",
        limited=False,
        segment=40,
        config={
            "channels": ("width", 64),
            "depth": ("depth", 6),
            "rewrite": ("rewrite", True),
            "dconv_comp": ("compress", 4),
            "norm_starts": ("norm_starts", 4),
            "dconv_lstm": ("memory_starts", 4),
            "dconv_attn": ("memory_starts", 4),
            "normalize": ("normalize", True),
        },
        fixed={
            **_LAYERS,
            "lstm_layers": (0, 0),
            "gelu": (True, True),
            "glu": (True, True),
            "dconv_mode": (1, 1),
            "resample": (True, True),
        },
        ignored=_ALWAYS_IGNORED,
    ),
}


def read_header(path: Path) -> dict[str, Any] | None:
    """Read the header of a safetensors file: 8 bytes of length, then JSON.

    Returns:
        The keys and values of our own header, or None if the file has neither that nor one of Demucs.

    Raises:
        FileNotFoundError: There is no such file.
        ModelError: The file cannot be read, or is not a valid safetensors file.
    """
    name = str(path)
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > MAX_HEADER:
                raise ValueError("its header is too long")
            metadata = json.loads(file.read(length)).get("__metadata__") or {}
        return parse_metadata(metadata)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ModelError(f"cannot read the model {name!r}: {error.strerror}", "check the path", path=path) from error
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError, struct.error) as error:
        raise ModelError(f"{name!r} is not a valid .safetensors file", "download the file again", path=path) from error


def parse_metadata(metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """Parse the header in a file's metadata, ours or that of Demucs.

    Returns:
        The keys and values of our own header, or None if there is none. For a bag of networks, those of the first one,
        whose stems are the stems of all.

    Raises:
        ValueError, TypeError, LookupError, ArithmeticError: The header is invalid.
    """
    if "signatures" in metadata:
        return next(iter(translate_bag(metadata).values()))
    if KEY not in metadata:
        return translate_network(metadata) if "klass" in metadata else None
    header = json.loads(metadata[KEY])
    if not isinstance(header, dict):
        raise TypeError("not a table")
    return header


def translate_network(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Translate the metadata of a network that the author of Demucs has published into our header.

    Raises:
        ValueError: Our networks do not support it; the message says what.
        TypeError, LookupError, ArithmeticError: The metadata is invalid.
    """
    names = {f"demucs.{known.family}.{name}": name for name, known in CLASSES.items()}
    if metadata["klass"] not in names:
        raise ValueError(f"unknown network class {metadata['klass'][:80]!r}")
    if "structure" in metadata:
        raise ValueError("its weights are packed with DiffQ, which is not supported")
    args, kwargs = json.loads(metadata.get("args", "[]")), json.loads(metadata["kwargs"])
    return translate_class(names[metadata["klass"]], args, kwargs)


def translate_bag(metadata: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Translate the metadata of a file with a bag of networks into our headers.

    Returns:
        The header of each network, by its signature.

    Raises:
        ValueError: Our networks do not support one of them, or there are none or too many; the message says what.
        TypeError, LookupError, ArithmeticError: The metadata is invalid.
    """
    signatures = json.loads(metadata["signatures"])
    if not isinstance(signatures, list) or not 1 <= len(set(signatures)) == len(signatures) <= MAX_NETWORKS:
        raise ValueError(f"it has no list of 1 to {MAX_NETWORKS} networks")
    segment = float(metadata["segment"]) if "segment" in metadata else None
    tables = {signature: json.loads(metadata[signature]) for signature in signatures}
    return {s: translate_class(t["class_name"], t["args"], t["kwargs"], segment=segment) for s, t in tables.items()}


def translate_class(name: str, args: Any, kwargs: Any, *, segment: Any = None) -> dict[str, Any]:
    """Translate a class of the demucs package and its arguments into our header.

    Args:
        name: Name of the class.
        args: Its positional arguments, from JSON; there must be none.
        kwargs: Its keyword arguments, from JSON.
        segment: Window of the bag that the network is in, seconds. A network that takes no more than its own window
            keeps that if it is shorter.

    Returns:
        Family, config, stems, rate (Hz), channels, and length and hop of the windows (samples).

    Raises:
        ValueError: Our networks do not support it; the message says what.
        TypeError, LookupError, ArithmeticError: The arguments are invalid.
    """
    known = CLASSES.get(name)
    if known is None:
        raise ValueError(f"unknown network class {name[:80]!r}")
    if args:
        raise ValueError("its arguments have no names")
    if not isinstance(kwargs, dict) or not isinstance(kwargs["sources"], list):
        raise TypeError("kwargs must be a table, with a list of sources")
    if unknown := sorted(set(kwargs) - set(known.config) - set(known.fixed) - known.ignored):
        raise ValueError(f"unknown argument {unknown[0][:80]!r}")
    given = {argument: None if value == [] else value for argument, value in kwargs.items()}
    for argument, (needed, default) in known.fixed.items():
        value = given.get(argument, default)
        if value != needed and not (argument == "multi_freqs_depth" and given.get("multi_freqs") is None):
            raise ValueError(f"{argument} = {str(value)[:80]} is not supported, only {needed}")
    config: dict[str, Any] = {}
    for argument, (ours, default) in known.config.items():
        value = _convert(argument, given.get(argument, default))
        if config.setdefault(ours, value) != value:
            raise ValueError(f"{argument} = {str(value)[:80]} is not supported beside {str(config[ours])[:80]}")
    rate = kwargs.get("samplerate", 44_100)
    seconds = _parse_number(kwargs.get("segment", known.segment))
    if segment is not None and not (known.limited and seconds < _parse_number(segment)):
        seconds = _parse_number(segment)
    length = int(seconds * rate)  # of a window
    return {
        "family": known.family,
        "config": {**config, "length": length} if known.limited else config,
        "stems": list(kwargs["sources"]),
        "rate": rate,
        "channels": kwargs.get("audio_channels", 2),
        "length": length,
        "hop": int((1 - OVERLAP) * length),
    }


def _convert(argument: str, value: Any) -> Any:
    """The value of an argument as a value of our setting."""
    if argument == "cac":  # complex as channels
        if type(value) is not bool:
            raise TypeError("cac must be true or false")
        return not value
    return [] if argument == "multi_freqs" and value is None else value


def _parse_number(value: Any) -> float | Fraction:
    """A number, or a fraction in one of the ways in which it has been written into JSON."""
    if isinstance(value, str) and (match := re.fullmatch(r"(\d{1,9})/(\d{1,9})", value)):
        return Fraction(int(match[1]), int(match[2]))
    return Fraction(value["numerator"], value["denominator"]) if isinstance(value, dict) else float(value)
