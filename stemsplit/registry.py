"""Which models exist, by name (models.toml) or as a file of the user's own. Nothing here needs torch."""

import difflib
import json
import os
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stemsplit.errors import ModelError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT = "mini"
SUFFIX = ".safetensors"

_PACKAGE = Path(__file__).parent
_HEADER_LIMIT = 2**24  # bytes; the largest real safetensors headers have a few hundred kB


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What is known about a model before its weights are loaded.

    Args:
        name: in models.toml, or the path that the user gave.
        summary, license: for people. family: the network, a module of `stemsplit.networks`.
        stems: what it gives, in the order of the network's output.
        path: the file of weights.
        sdr: published SDR in dB by stem, empty if there is none. sdr_source: where that figure comes from.
    """

    name: str
    summary: str
    family: str
    stems: tuple[str, ...]
    license: str
    path: Path
    sdr: Mapping[str, float] = field(default_factory=dict)
    sdr_source: str = ""


def specs() -> dict[str, ModelSpec]:
    """All models of models.toml by name, in its order. ModelError on a table that is not as it should be."""
    path = _PACKAGE / "models.toml"
    if not path.exists():  # an editable install: the file is where it is edited, beside the package
        path = _PACKAGE.parent / "models.toml"
    return parse(path.read_text(encoding="utf-8"), path.name)


def find(model: str) -> ModelSpec:
    """The model of that name, or the checkpoint at that path.

    Raises ModelError when there is no such name, and when the file is missing or not one of ours.
    """
    known = specs()
    if model in known:
        return known[model]
    path = Path(model)
    if path.suffix == SUFFIX or os.sep in model or path.exists():
        return _read_spec(path)
    close = difflib.get_close_matches(model, known, n=1)
    guess = f"did you mean {close[0]}? " if close else ""
    raise ModelError(
        f"there is no model {model!r}", f"{guess}known models: {', '.join(known)}; or give the path of a {SUFFIX} file"
    )


def parse(text: str, source: str) -> dict[str, ModelSpec]:
    """Models by name from TOML; `source` names it in errors (ModelError)."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ModelError(f"{source} is not valid TOML: {error}") from error
    return {name: _parse_spec(name, table, f"{source}, [{name}]") for name, table in tables.items()}


def _parse_spec(name: str, table: Any, where: str) -> ModelSpec:
    if not isinstance(table, dict):
        raise ModelError(f"{where}: not a table")
    needed = ("summary", "family", "license", "bundled", "stems")
    _check_keys(table, needed, ("sdr",), where)
    for key in needed[:-1]:
        if not isinstance(table[key], str):
            raise ModelError(f"{where}: {key} must be a string")
    stems = table["stems"]
    if not (isinstance(stems, list) and stems and all(isinstance(stem, str) for stem in stems)):
        raise ModelError(f"{where}: stems must be a list of names")
    sdr, source = _parse_sdr(table.get("sdr"), stems, f"{where}: sdr")
    return ModelSpec(
        name=name,
        summary=table["summary"],
        family=table["family"],
        stems=tuple(stems),
        license=table["license"],
        path=_PACKAGE / table["bundled"],
        sdr=sdr,
        sdr_source=source,
    )


def _parse_sdr(table: Any, stems: list[str], where: str) -> tuple[dict[str, float], str]:
    if table is None:
        return {}, ""
    if not isinstance(table, dict):
        raise ModelError(f"{where}: not a table")
    _check_keys(table, (*stems, "source"), (), where)
    sdr = {stem: table[stem] for stem in stems}
    for stem, value in sdr.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ModelError(f"{where}: {stem} must be a number, in dB")
    if not isinstance(table["source"], str):
        raise ModelError(f"{where}: source must be a string")
    return {stem: float(value) for stem, value in sdr.items()}, table["source"]


def _check_keys(table: Mapping[str, Any], needed: tuple[str, ...], optional: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in needed and key not in optional:
            raise ModelError(f"{where}: unknown key {key!r}", f"known keys: {', '.join((*needed, *optional))}")
    for key in needed:
        if key not in table:
            raise ModelError(f"{where}: {key} is missing")


def _read_spec(path: Path) -> ModelSpec:
    """Look into the header of a checkpoint: 8 bytes of length, then JSON (the safetensors format), with ours in it.

    `checkpoint.load` checks the whole file; this is what can be said about it without torch.
    """
    name = str(path)
    if path.is_dir():
        raise ModelError(f"{name!r} is a folder, not a model", f"give the {SUFFIX} file in it")
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _HEADER_LIMIT:
                raise ValueError("its header is too long")
            metadata = json.loads(file.read(length)).get("__metadata__", {})
        header = json.loads(metadata["stemsplit"]) if "stemsplit" in metadata else None
    except FileNotFoundError as error:
        raise ModelError(f"there is no model file {name!r}", f"known models: {', '.join(specs())}") from error
    except OSError as error:
        raise ModelError(f"cannot read the model {name!r}: {error.strerror}", "check the path") from error
    except (ValueError, TypeError, AttributeError, struct.error) as error:
        raise ModelError(f"{name!r} is not a {SUFFIX} file, or it is damaged", "get the file again") from error
    if header is None:
        raise ModelError(f"{name!r} has no stemsplit header", "only models saved by stemsplit can be run from a file")
    try:
        family, stems = str(header["family"]), tuple(header["stems"])
        if not all(stem.isidentifier() for stem in stems):  # they will name files
            raise ValueError(stems)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"the header of {name!r} is damaged", "get the file again") from error
    return ModelSpec(name=name, summary="a file of your own", family=family, stems=stems, license="unknown", path=path)
