"""Checks on tables that people have written, or may have: what is wrong is told with the place (ModelError)."""

from collections.abc import Collection, Mapping
from typing import Any

from stemsplit.errors import ModelError


def check_keys(table: Mapping[str, Any], needed: Collection[str], optional: Collection[str], where: str) -> None:
    """Whether a table has all it needs and nothing that is not known."""
    for key in table:
        if key not in needed and key not in optional:
            raise ModelError(f"{where}: unknown key {key!r}", f"known keys: {', '.join((*needed, *optional))}")
    for key in needed:
        if key not in table:
            raise ModelError(f"{where}: {key} is missing")


def parse_names(value: Any, where: str) -> tuple[str, ...]:
    """Names of stems."""
    if not isinstance(value, list) or not are_stems(value):
        raise ModelError(f"{where} must be a list of names")
    return tuple(value)


def are_stems(names: Collection[Any]) -> bool:
    """Whether these can be the names of stems, and with that of files."""
    good = all(isinstance(name, str) and name.isidentifier() and len(name) <= 40 for name in names)
    return good and 0 < len(names) == len(set(names))


def parse_sdr(table: Any, stems: Collection[str], where: str) -> tuple[dict[str, float], str, str]:
    """SDR in dB by stem, how it was measured, and who says so; nothing if there is no table."""
    if table is None:
        return {}, "", ""
    if not isinstance(table, dict):
        raise ModelError(f"{where}: not a table")
    check_keys(table, ("metric", "source"), stems, where)
    for key in ("metric", "source"):
        if not isinstance(table[key], str):
            raise ModelError(f"{where}: {key} must be text")
    sdr = {stem: table[stem] for stem in stems if stem in table}
    for stem, value in sdr.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ModelError(f"{where}: {stem} must be a number, in dB")
    return {stem: float(value) for stem, value in sdr.items()}, table["metric"], table["source"]


def parse_config(table: Any, where: str) -> dict[str, Any]:
    """Settings of a network, which checks them itself when it is built: numbers, texts, and lists of them."""
    if not isinstance(table, dict):
        raise ModelError(f"{where}: not a table")
    for key, value in table.items():
        if not all(isinstance(one, (bool, int, float, str)) for one in (value if isinstance(value, list) else [value])):
            raise ModelError(f"{where}: {key} must be a number, a text, or a list of these")
    return dict(table)
