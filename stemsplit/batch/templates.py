"""Names of stems: a template, checked before any work, of which no song makes a path that leaves the output folder."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from string import Formatter

from stemsplit.errors import UsageError
from stemsplit.wording import did_you_mean

FIELDS = {
    "track": "the song's file name, without its extension",
    "stem": "vocals, drums and so on",
    "ext": "the extension of the format, such as wav",
    "model": "the model's name",
    "folder": "where the song is below the folder that was searched",
    "index": "the number of the song; {index:03d} for 001",
    "title": "of the song's tags; its file name where there is none",
    "artist": "of the song's tags",
}
"""What can stand in braces, and what it becomes."""
UNKNOWN_ARTIST = "Unknown artist"
MAX_NAME_BYTES = 255  # bytes of a name, on nearly every file system

_ENDING = ".{ext}"
_EXTENSIONS = frozenset("wav wave rf64 flac mp3 ogg oga opus m4a mp4 aac aif aiff".split())
_FROM_DISK = ("track", "folder")  # where they come from, they are names already
# What Windows does not allow in names, and the names that are devices there: learn.microsoft.com, "Naming Files, Paths,
# and Namespaces". Windows 10 and older take "nul.txt" for the device as well.
_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')
_DEVICE = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])", re.IGNORECASE)
_WIDTH = re.compile(r"0?\d?d?")  # format specifications of the index


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    width: str = ""


_Part = tuple["str | _Field", ...]
_FOLDER: _Part = (_Field("folder"),)


@dataclass(frozen=True, slots=True)
class Template:
    """How the files of stems are called, below the output folder; made by `parse`.

    parts: folders and, last, the file's name, each of text and fields.
    """

    text: str
    parts: tuple[_Part, ...]

    @classmethod
    def parse(cls, text: str) -> "Template":
        """A template such as `{track}/{stem}.{ext}`. The extension is added if it is left out.

        A song of a folder that was searched has its stems in the same folder below the output; only a template with
        `{folder}` says itself where that stands.

        UsageError: it has no {stem}, or unknown fields, or leads out of the output folder, or is no name on Windows.
        """
        told = f"the name {text!r}"
        if text[:1] in ("/", "\\") or PureWindowsPath(text).drive:
            raise UsageError(f"{told} is an absolute path", "name the folder with --output")
        try:
            parts = _split(text, told)
        except ValueError as error:  # of Formatter.parse
            raise UsageError(f"{told} makes no sense: {error}", "write {{ for a brace") from error
        for part in parts:
            _check(part, told)
        if not text.endswith(_ENDING):
            _require_no_ending(text)
            parts = (*parts[:-1], (*parts[-1], ".", _Field("ext")))
        if not any(_is_of_stem(part) for part in parts):
            raise UsageError(f"{told} is the same for all stems", "put {stem} into it")
        return cls(text, parts)

    @property
    def fields(self) -> frozenset[str]:
        """The names of its fields."""
        return frozenset(piece.name for part in self.parts for piece in part if isinstance(piece, _Field))

    def fill(self, values: Mapping[str, str | int], *, windows: bool = os.name == "nt") -> tuple[str, ...]:
        """The folders and the file's name of one stem, each of them a name that leads nowhere else.

        values: of the fields. What is no part of a name becomes `_`. Names of devices, and dots and spaces at the end,
        which Windows cannot even delete, are changed everywhere; characters that it forbids are changed in words that
        come from tags and models, and, if `windows`, in the names of songs.
        """
        return self._fill(self.parts, values, windows)

    def folder(self, values: Mapping[str, str | int], *, windows: bool = os.name == "nt") -> tuple[str, ...]:
        """The folder that all stems of a song are in, or in folders below it."""
        count = next(number for number, part in enumerate(self.parts) if _is_of_stem(part))
        return self._fill(self.parts[: min(count, len(self.parts) - 1)], values, windows)

    def _fill(self, parts: Sequence[_Part], values: Mapping[str, str | int], windows: bool) -> tuple[str, ...]:
        names: list[str] = []
        for part in parts if "folder" in self.fields else (_FOLDER, *parts):
            if part == _FOLDER:
                folders = Path(str(values.get("folder", ""))).parts
                names += [_safe(_cleaned(name, strictly=windows)) for name in folders]
                continue
            filled = (piece if isinstance(piece, str) else _value(piece, values, windows) for piece in part)
            names.append(_safe("".join(filled)))
        return tuple(names)


def _split(text: str, told: str) -> tuple[_Part, ...]:
    """Text and fields, by folder. A backslash is a slash, too: in names Windows has none."""
    parts: list[list[str | _Field]] = [[]]
    for literal, name, width, conversion in Formatter().parse(text):
        first, *others = literal.replace("\\", "/").split("/")
        parts[-1] += [first] if first else []
        parts += [[other] if other else [] for other in others]
        if name is None:
            continue
        if name not in FIELDS:
            fields = [f"{{{field}}}" for field in FIELDS]
            hint = did_you_mean(f"{{{name}}}", fields, f"the fields are {', '.join(fields)}")
            raise UsageError(f"{told} has an unknown field {{{name}}}", hint)
        if conversion or (width and not (name == "index" and _WIDTH.fullmatch(width))):
            raise UsageError(f"{told} has a {{{name}}} with more in it", "only the index has a width: {index:03d}")
        parts[-1].append(_Field(name, width or ""))
    return tuple(tuple(part) for part in parts)


def _require_no_ending(text: str) -> None:
    _, dot, ending = text.rpartition(".")
    if dot and ending.lower() in _EXTENSIONS:
        hint = f"write {text[: -len(ending)]}{{ext}}, and choose the format with --format"
        raise UsageError(f"the name {text!r} says itself which format the stems have", hint)


def _check(part: _Part, told: str) -> None:
    """UsageError for what is no name, whatever becomes of the fields."""
    if not part:
        raise UsageError(f"{told} has an empty folder or name in it", "write one / between two names")
    literal = "".join(piece for piece in part if isinstance(piece, str))
    if found := _FORBIDDEN.search(literal):
        raise UsageError(f"{told} has a {found[0]!r} in it, which is not allowed in names on Windows", "leave it out")
    if all(isinstance(piece, str) for piece in part) and literal.strip(". ") == "":
        raise UsageError(f"{told} leads to another folder with {literal!r}", "name a folder with --output")
    last = part[-1]
    if isinstance(last, str) and last[-1] in ". ":
        raise UsageError(f"{told} has a dot or a space at the end of a name, which Windows drops", "leave it out")
    before_dot = ""
    for piece in part:
        if not isinstance(piece, str):
            return  # what stands there decides, and is made safe
        before_dot += piece
        if "." in piece:
            break
    if _DEVICE.fullmatch(before_dot.partition(".")[0].rstrip(" ")):
        raise UsageError(f"{told} has a name in it that is a device on Windows", "choose another one")


def _is_of_stem(part: _Part) -> bool:
    return any(isinstance(piece, _Field) and piece.name == "stem" for piece in part)


def _value(field: _Field, values: Mapping[str, str | int], windows: bool) -> str:
    """What stands for a field, without what is no part of a name."""
    name, value = field.name, values.get(field.name, "")
    if isinstance(value, int):
        return format(value, field.width)
    if name == "title" and not value:
        return _value(_Field("track"), values, windows)
    if name == "artist":
        value = value or UNKNOWN_ARTIST
    elif name == "model":
        value = _short(value)
    return _cleaned(value, strictly=windows or name not in _FROM_DISK)


def _cleaned(text: str, *, strictly: bool) -> str:
    return _FORBIDDEN.sub("_", text) if strictly else text.replace("/", "_").replace("\0", "_")


def _short(model: str) -> str:
    """The name of a model in a name: of a file only what it is called."""
    hub = "hf://"
    return model.removeprefix(hub) if model.startswith(hub) else Path(model.removesuffix(".safetensors")).name


def _safe(text: str) -> str:
    """A name that every system can keep, and that is no way to another folder."""
    text = text.rstrip(". ") or "_"
    base, dot, rest = text.partition(".")
    return f"{base}_{dot}{rest}" if _DEVICE.fullmatch(base.rstrip(" ")) else text


DEFAULT = Template.parse("{track}/{stem}.{ext}")
