"""Which models exist: by name (models.toml), on the Hugging Face Hub, or as a file. Nothing here needs torch.

What a table must have is written at the top of models.toml.
"""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from stemsplit.errors import ModelError, UsageError
from stemsplit.files import parse_toml, read_toml
from stemsplit.models import headers, tables
from stemsplit.networks.families import MASK_FAMILIES, families
from stemsplit.wording import did_you_mean

FALLBACK = "mini"  # what runs when nobody named a model and the default one cannot be had
SUFFIX = ".safetensors"
ONNX = ".onnx"
SUFFIXES = (SUFFIX, ONNX)
PICKLES = (".th", ".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle")
HUB = "hf://"
FILE = "model.safetensors"  # what publishing calls the weights, and what a repository named by the user is searched for
UNPINNED = "unpinned"
FAMILY_OF_ONNX = "spleeter"  # the only one whose weights come like that

_PACKAGE = Path(__file__).parent.parent
COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9](?:[\w.-]{0,94}[A-Za-z0-9])?")
REPO = re.compile(rf"(?!.*(?:--|\.\.)){_NAME.pattern}/{_NAME.pattern}(?<!\.git)")  # as the Hub allows them
_REVISION = re.compile(r"\w[\w./-]{0,199}")


@dataclass(frozen=True, slots=True)
class WeightFile:
    """A file of weights on the Hub.

    Args:
        name: path in the repository. size: bytes, if known. sha256: hexadecimal, or empty if nobody has stated it.
        gives: the stems it is needed for; empty for all.
    """

    name: str
    size: int | None = None
    sha256: str = ""
    gives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What is known about a model before its weights are loaded.

    Args:
        name: in models.toml, or what the user gave. summary, license: for people.
        family: the network, a module of `stemsplit.networks`; empty when only its file tells.
        stems: what it gives; empty when only its file tells.
        path: the file of weights, if it needs no download.
        repo, revision, files: where the weights are on the Hub. Without `files`, its one file of weights is looked up.
        joint: all files together make one network, so that none can be left out, whatever they give.
        config: settings of that network, other than its usual ones, where the files do not tell them.
        branch: what the user called `revision`, when that was looked up.
        sdr: published SDR in dB by stem, empty if there is none. sdr_metric, sdr_source: how and where it was measured.
    """

    name: str
    summary: str
    license: str
    family: str = ""
    stems: tuple[str, ...] = ()
    path: Path | None = None
    repo: str = ""
    revision: str = ""
    files: tuple[WeightFile, ...] = ()
    joint: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)
    branch: str = ""
    sdr: Mapping[str, float] = field(default_factory=dict)
    sdr_metric: str = ""
    sdr_source: str = ""

    @property
    def size(self) -> int | None:
        """Bytes to download, if the sizes of all files are known."""
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(size or 0 for size in sizes)

    def only(self, stems: Collection[str]) -> "ModelSpec":
        """The same model for some of its stems, without the files that the others are for; all if none is named.

        Raises UsageError when it has no such stem.
        """
        if not stems:
            return self
        if unknown := [stem for stem in stems if stem not in self.stems]:
            told = f"the model {self.name!r} has no stem {unknown[0]!r}"
            raise UsageError(told, f"its stems are {', '.join(self.stems)}")
        files = [file for file in self.files if self.joint or not file.gives or set(file.gives) & set(stems)]
        return replace(self, stems=tuple(stem for stem in self.stems if stem in stems), files=tuple(files))


@dataclass(frozen=True, slots=True)
class Registry:
    """The models by name, in their order, and the name of the one that runs when none is named."""

    models: Mapping[str, ModelSpec]
    default: str

    def find(self, model: str) -> ModelSpec:
        """The model of that name, `hf://owner/name[@revision]`, or a file of weights.

        Raises ModelError when there is none, and when a file is not one that can be run.
        """
        if model in self.models:
            return self.models[model]
        if model.startswith(HUB):
            return _hub_spec(model)
        path = Path(model)
        if path.suffix in (*SUFFIXES, *PICKLES) or os.sep in model or os.path.exists(model):  # noqa: PTH110 (never raises)
            return file_spec(path, self.models)
        known = f"known models: {', '.join(self.models)}; or give {HUB}OWNER/NAME or a {SUFFIX} file"
        raise ModelError(f"there is no model {model!r}", did_you_mean(model, self.models, known))


def read(*own: Path) -> Registry:
    """All models: ours, and those of the user's `own` files, whose `default` comes before ours.

    Raises ModelError on a file that cannot be read, and on a wrong table by its file, name and key.
    """
    path = _PACKAGE / "models.toml"
    if not path.exists():  # an editable install: the file is where it is edited, beside the package
        path = _PACKAGE.parent / "models.toml"
    ours = _parse(read_toml(path, "models", error=ModelError), path.name)
    models, default = dict(ours.models), ours.default
    for path in own:
        more = _parse(read_toml(path, "models", error=ModelError), str(path), known=models)
        models |= more.models
        default = more.default or default
    return Registry(models, default)


def is_inside(name: str) -> bool:
    """Whether a path in a repository, or a revision, stays in the folder that it is put under."""
    return not (name.startswith("/") or "\\" in name or ":" in name or ".." in PurePosixPath(name).parts)


def runs(spec: ModelSpec) -> bool:
    """Whether this version has the network of a model; found out without importing torch."""
    return spec.family in families()


def require_masks(spec: ModelSpec) -> None:
    """Refuse a network that estimates no masks, for what only masks can do (UsageError). Unknown ones may do."""
    if spec.family and spec.family not in MASK_FAMILIES:
        reason = f"the model {spec.name!r} estimates no masks, and only these can be refined by Wiener filtering"
        raise UsageError(reason, "leave --wiener out, or choose mini, spleeter or spleeter-16k")


def parse(text: str, source: str, *, known: Collection[str] = ()) -> Registry:
    """A registry from TOML; `source` names it in errors (ModelError), `known` are the models that it adds to."""
    return _parse(parse_toml(text, source, error=ModelError), source, known=known)


def _parse(tables: dict[str, Any], source: str, *, known: Collection[str] = ()) -> Registry:
    default = tables.pop("default", "")
    models = {}
    for name, table in tables.items():
        where = f"{source}, [{name}]"
        if name in known:
            raise ModelError(f"{where}: there is a model of that name already", "choose another name")
        models[name] = _parse_spec(name, table, where)
    if default not in ("", *known, *models):
        raise ModelError(f"{source}: default = {default!r} is none of the models", f"known: {', '.join(models)}")
    return Registry(models, default)


def _parse_spec(name: str, table: Any, where: str) -> ModelSpec:
    if not isinstance(table, dict):
        raise ModelError(f"{where}: not a table", f"{name} should be a model; see the top of models.toml")
    if not _NAME.fullmatch(name):
        raise ModelError(f"{where}: the name may have letters, digits, '.', '_' and '-' only")
    texts = ("summary", "family", "license", *(("bundled",) if "bundled" in table else ("repo", "revision")))
    optional = ("sdr",) if "bundled" in table else ("sdr", "joint", "config")
    tables.check_keys(table, (*texts, "stems", *(() if "bundled" in table else ("files",))), optional, where)
    for key in texts:
        if not isinstance(table[key], str) or not table[key]:
            raise ModelError(f"{where}: {key} must be text")
    stems = tables.parse_names(table["stems"], f"{where}: stems")
    sdr, metric, source = tables.parse_sdr(table.get("sdr"), stems, f"{where}: sdr")
    texts_only = {key: table[key] for key in ("summary", "family", "license")}
    spec = ModelSpec(name=name, **texts_only, stems=stems, sdr=sdr, sdr_metric=metric, sdr_source=source)
    if "bundled" in table:
        return replace(spec, path=_PACKAGE / table["bundled"])
    if not REPO.fullmatch(table["repo"]):
        raise ModelError(f"{where}: repo must be 'owner/name'")
    if not COMMIT.fullmatch(table["revision"]):
        raise ModelError(f"{where}: revision must be a commit of 40 hexadecimal digits, not a branch or a tag")
    if not isinstance(table["files"], list) or not table["files"]:
        raise ModelError(f"{where}: files must be a list of tables")
    files = [_parse_file(file, stems, f"{where}: files[{i}]") for i, file in enumerate(table["files"])]
    joint = table.get("joint", False)
    if type(joint) is not bool:
        raise ModelError(f"{where}: joint must be true or false")
    config = tables.parse_config(table.get("config", {}), f"{where}: config")
    if any(file.name.endswith(ONNX) for file in files):
        _check_onnx(spec, files, joint, where)
    elif config:
        raise ModelError(f"{where}: config is for {ONNX} files only", f"a {SUFFIX} file says itself how its network is")
    return replace(spec, repo=table["repo"], revision=table["revision"], files=tuple(files), joint=joint, config=config)


def _check_onnx(spec: ModelSpec, files: Sequence[WeightFile], joint: bool, where: str) -> None:
    """A network has such files for all of its stems, one each."""
    given = [file.gives for file in files]
    if spec.family != FAMILY_OF_ONNX or not joint or not all(file.name.endswith(ONNX) for file in files):
        raise ModelError(f'{where}: {ONNX} files need family = "{FAMILY_OF_ONNX}" and joint = true, and no other files')
    if sorted(given) != sorted((stem,) for stem in spec.stems):
        raise ModelError(f"{where}: there must be one {ONNX} file for each stem", f"its stems: {', '.join(spec.stems)}")


def _parse_file(table: Any, stems: tuple[str, ...], where: str) -> WeightFile:
    if not isinstance(table, dict):
        raise ModelError(f"{where}: not a table")
    pinned = table.get("sha256") != UNPINNED
    tables.check_keys(table, ("name", "sha256", *(("size",) if pinned else ())), ("size", "gives"), where)
    name, size, sha256 = table["name"], table.get("size"), table["sha256"]
    if not isinstance(name, str) or not is_inside(name) or not name.endswith(SUFFIXES):
        raise ModelError(f"{where}: name must be a path in the repository that ends in {' or '.join(SUFFIXES)}")
    if not (size is None or (type(size) is int and size > 0)):
        raise ModelError(f"{where}: size must be a whole number of bytes")
    if pinned and not (isinstance(sha256, str) and SHA256.fullmatch(sha256)):
        raise ModelError(f"{where}: sha256 must be 64 hexadecimal digits, or {UNPINNED!r}")
    gives = tables.parse_names(table["gives"], f"{where}: gives") if "gives" in table else ()
    if not set(gives) <= set(stems):
        raise ModelError(f"{where}: gives names a stem that the model does not have", f"its stems: {', '.join(stems)}")
    return WeightFile(name, size, sha256 if pinned else "", gives)


def _hub_spec(model: str) -> ModelSpec:
    """A repository that the user named: `hf://owner/name[@revision]`."""
    repo, at, revision = model.removeprefix(HUB).partition("@")
    if not REPO.fullmatch(repo) or (at and not (_REVISION.fullmatch(revision) and is_inside(revision))):
        raise ModelError(f"{model!r} is no address on the Hub", f"write {HUB}OWNER/NAME or {HUB}OWNER/NAME@REVISION")
    summary, license = "a repository that you named", "see https://huggingface.co/" + repo
    return ModelSpec(name=model, summary=summary, license=license, repo=repo, revision=revision or "main")


def file_spec(path: Path, known: Collection[str]) -> ModelSpec:
    """What the header of a checkpoint says; `checkpoint.load` checks the whole file."""
    name = str(path)
    if os.path.isdir(path):  # noqa: PTH112 (never raises)
        raise ModelError(f"{name!r} is a folder, not a model", f"give the {SUFFIX} file in it")
    if path.suffix in PICKLES:
        reason = f"{name!r} is a pickle, which can run any program when it is opened: stemsplit never opens one"
        raise ModelError(reason, f"get the model as {SUFFIX}, or use one of {', '.join(known)}")
    if path.suffix == ONNX:
        reason = f"{name!r} is one of several files that make a model together, and none can be run alone"
        raise ModelError(reason, f"list them in a models.toml of your own, or use one of {', '.join(known)}")
    try:
        header = headers.read(path)
    except FileNotFoundError as error:
        raise ModelError(f"there is no model file {name!r}", f"known models: {', '.join(known)}") from error
    if header is None:
        raise ModelError(f"{name!r} has no stemsplit header", "only models saved by stemsplit can be run from a file")
    try:
        family, stems = str(header["family"]), tuple(header["stems"])
        if not tables.are_stems(stems):
            raise ValueError(stems)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"the header of {name!r} is damaged", "get the file again") from error
    return ModelSpec(name=name, summary="a file", family=family, stems=stems, license="see its author", path=path)
