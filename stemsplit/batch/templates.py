"""Templates for the names of stems: `{track}/{stem}.{ext}` is checked before any work, and filled in for each song.

No tag or file name can lead out of the output folder.
"""

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
"""The fields, and what they stand for."""
UNKNOWN_ARTIST = "Unknown artist"
MAX_NAME_BYTES = 255  # bytes of a name, on nearly every file system

_ENDING = ".{ext}"
_EXTENSIONS = frozenset("wav wave rf64 flac mp3 ogg oga opus m4a mp4 aac aif aiff".split())
_FROM_DISK = ("track", "folder")  # fields that are names of files already
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
    """How the files of stems are named, below the output folder; from `parse`.

    Attributes:
        text: As typed.
        parts: The folders and, last, the name of the file, each a sequence of text and fields.
        mirrors: Whether folders that are searched are mirrored below the output.
    """

    text: str
    parts: tuple[_Part, ...]
    mirrors: bool = True

    @classmethod
    def of_one_file(cls, name: str) -> "Template":
        """Return the template of the only stem of the only song, with a fixed name."""
        return cls(name, ((name,),), mirrors=False)

    @classmethod
    def parse(cls, text: str) -> "Template":
        """Parse a template such as `{track}/{stem}.{ext}`; the extension may be left out.

        Folders that are searched are mirrored below the output, unless the template has `{folder}` somewhere.

        Raises:
            UsageError: It has no {stem}, has unknown fields, leads out of the output folder, or is invalid on Windows.
        """
        name = f"the name {text!r}"
        if text[:1] in ("/", "\\") or PureWindowsPath(text).drive:
            raise UsageError(f"{name} is an absolute path", "name the folder with --output")
        try:
            parts = _split(text, name)
        except ValueError as error:  # of Formatter.parse
            raise UsageError(f"{name} is not a valid template: {error}", "write {{ for a brace") from error
        for part in parts:
            _check_part(part, name)
        if not text.endswith(_ENDING):
            _check_no_extension(text)
            parts = (*parts[:-1], (*parts[-1], ".", _Field("ext")))
        if not any(_is_of_stem(part) for part in parts):
            raise UsageError(f"{name} is the same for all stems", "put {stem} into it")
        return cls(text, parts)

    @property
    def fields(self) -> frozenset[str]:
        """The names of the fields in it."""
        return frozenset(piece.name for part in self.parts for piece in part if isinstance(piece, _Field))

    def fill(self, values: Mapping[str, str | int], *, windows: bool = os.name == "nt") -> tuple[str, ...]:
        """Return the folders and the name of the file of one stem.

        Characters that cannot be part of a name become `_`. Device names, and dots and spaces at the end, which Windows
        cannot even delete, are changed on all systems, and so are characters that Windows forbids, in tags and in names
        of models.

        Args:
            values: Of the fields.
            windows: Also change the characters that Windows forbids in the names of songs.
        """
        return self._fill(self.parts, values, windows)

    def folder(self, values: Mapping[str, str | int], *, windows: bool = os.name == "nt") -> tuple[str, ...]:
        """Return the folder of a song; its stems may be in folders below it."""
        count = next((number for number, part in enumerate(self.parts) if _is_of_stem(part)), len(self.parts))
        return self._fill(self.parts[: min(count, len(self.parts) - 1)], values, windows)

    def _fill(self, parts: Sequence[_Part], values: Mapping[str, str | int], windows: bool) -> tuple[str, ...]:
        names: list[str] = []
        for part in (_FOLDER, *parts) if self.mirrors and "folder" not in self.fields else parts:
            if part == _FOLDER:
                folders = Path(str(values.get("folder", ""))).parts
                names += [_safe(_cleaned(name, strictly=windows)) for name in folders]
                continue
            filled = (piece if isinstance(piece, str) else _value(piece, values, windows) for piece in part)
            names.append(_safe("".join(filled)))
        return tuple(names)


def _split(text: str, template: str) -> tuple[_Part, ...]:
    """Split a template into text and fields, by folder. Backslashes separate folders, too, as on Windows."""
    parts: list[list[str | _Field]] = [[]]
    for literal, name, width, conversion in Formatter().parse(text):
        first, *following = literal.replace("\\", "/").split("/")
        parts[-1] += [first] if first else []
        parts += [[part] if part else [] for part in following]
        if name is None:
            continue
        if name not in FIELDS:
            fields = [f"{{{field}}}" for field in FIELDS]
            hint = did_you_mean(f"{{{name}}}", fields, f"the fields are {', '.join(fields)}")
            raise UsageError(f"{template} has an unknown field {{{name}}}", hint)
        if conversion or (width and not (name == "index" and _WIDTH.fullmatch(width))):
            raise UsageError(f"{template} has a {{{name}}} with a format", "only the index has a width: {index:03d}")
        parts[-1].append(_Field(name, width or ""))
    return tuple(tuple(part) for part in parts)


def _check_no_extension(text: str) -> None:
    _, dot, ending = text.rpartition(".")
    if dot and ending.lower() in _EXTENSIONS:
        hint = f"write {text[: -len(ending)]}{{ext}}, and choose the format with --format"
        raise UsageError(f"the name {text!r} has a fixed extension", hint)


def _check_part(part: _Part, template: str) -> None:
    """Raise UsageError for a part that cannot be a name, whatever its fields become."""
    if not part:
        raise UsageError(f"{template} has an empty folder or name", "write one / between two names")
    literal = "".join(piece for piece in part if isinstance(piece, str))
    if forbidden := _FORBIDDEN.search(literal):
        raise UsageError(f"{template} has a {forbidden[0]!r}, which Windows forbids in names", "leave it out")
    if all(isinstance(piece, str) for piece in part) and literal.strip(". ") == "":
        raise UsageError(f"{template} leads to another folder with {literal!r}", "name a folder with --output")
    last = part[-1]
    if isinstance(last, str) and last[-1] in ". ":
        raise UsageError(f"{template} has a dot or space at the end of a name, which Windows drops", "leave it out")
    before_dot = ""
    for piece in part:
        if not isinstance(piece, str):
            return  # depends on the value, which is made safe when it is filled in
        before_dot += piece
        if "." in piece:
            break
    if _DEVICE.fullmatch(before_dot.partition(".")[0].rstrip(" ")):
        raise UsageError(f"{template} has a name that is a device on Windows", "choose another one")


def _is_of_stem(part: _Part) -> bool:
    return any(isinstance(piece, _Field) and piece.name == "stem" for piece in part)


def _value(field: _Field, values: Mapping[str, str | int], windows: bool) -> str:
    """Return the value of a field, without characters that cannot be part of a name."""
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
    """Return the name of a model; of a file, without its folder and extension."""
    hub = "hf://"
    return model.removeprefix(hub) if model.startswith(hub) else Path(model.removesuffix(".safetensors")).name


def _safe(text: str) -> str:
    """Return a name that every system can store, and that does not lead to another folder."""
    text = text.rstrip(". ") or "_"
    base, dot, extension = text.partition(".")
    return f"{base}_{dot}{extension}" if _DEVICE.fullmatch(base.rstrip(" ")) else text


DEFAULT = Template.parse("{track}/{stem}.{ext}")
