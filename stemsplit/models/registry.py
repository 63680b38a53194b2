"""The models by name (models.toml), on the Hugging Face Hub (`hf://`), or in a file. Imports neither torch nor the Hub.

The keys of a table are documented at the top of models.toml.
"""

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from stemsplit import settings
from stemsplit.errors import ModelError, UsageError
from stemsplit.files import parse_toml, read_toml
from stemsplit.models import headers
from stemsplit.networks.families import MASK_FAMILIES, families
from stemsplit.wording import closest, did_you_mean

FALLBACK = "mini"  # runs when nobody named a model and the default one cannot be downloaded
SUFFIX = ".safetensors"
ONNX = ".onnx"
SUFFIXES = (SUFFIX, ONNX)
PICKLES = (".th", ".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle")
HUB = "hf://"
WEIGHTS_NAME = "model.safetensors"  # how weights are published, and what an `hf://` repository is searched for first
UNPINNED = "unpinned"
ONNX_FAMILY = "spleeter"  # the only family whose weights come as ONNX files

COMPLEMENT = "no_"  # prefix of a stem's name: the song without that stem
_USUAL_ORDER = ("vocals", "drums", "bass", "other")
_OTHER_NAMES = {
    **dict.fromkeys("vocal voice voices vox singer singing acapella acappella a_cappella speech".split(), "vocals"),
    **dict.fromkeys("instrumental instrumentals karaoke accompaniment backing minus_one".split(), "no_vocals"),
    **dict.fromkeys("drum percussion beat kick".split(), "drums"),
    **dict.fromkeys("bassline bass_guitar".split(), "bass"),
    **dict.fromkeys("others rest melody".split(), "other"),
}
"""What people call stems, and what they are called here."""

_PACKAGE = Path(__file__).parent.parent
COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9](?:[\w.-]{0,94}[A-Za-z0-9])?")
REPO = re.compile(rf"(?!.*(?:--|\.\.)){_NAME.pattern}/{_NAME.pattern}(?<!\.git)")  # the Hub's own rule
_REVISION = re.compile(r"\w[\w./-]{0,199}")


@dataclass(frozen=True, slots=True)
class WeightFile:
    """A file of weights on the Hub.

    Attributes:
        name: Path in the repository.
        size: Bytes, if known.
        sha256: Hexadecimal; empty if no public source states it.
        gives: Stems that the file is needed for; empty for all.
    """

    name: str
    size: int | None = None
    sha256: str = ""
    gives: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a chain of models.

    Attributes:
        model: The model that separates.
        of: The stem of an earlier step that it separates; empty for the mixture.
        rename: Names of its stems in the chain, where they differ. Stems of the same name add up.
    """

    model: "ModelSpec"
    of: str = ""
    rename: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Share:
    """A model in a mean of several.

    Attributes:
        model: The model.
        weight: Its weight in the mean of each stem that it gives, above 0.
    """

    model: "ModelSpec"
    weight: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """What is known about a model before its weights are loaded.

    Attributes:
        name: Name in models.toml, or what the user typed: a path or an `hf://` address.
        summary: One line for people.
        license: License of the weights, as their author stated it.
        family: Network family, a module of `stemsplit.networks`; empty until the file has been read.
        stems: Names of the stems; empty until the file has been read.
        path: File of weights, for models that need no download.
        repo: Repository on the Hub, `owner/name`.
        revision: Commit, or the branch or tag that the user named until it has been resolved.
        files: Files in the repository; empty until the repository has been looked up.
        steps: The steps of a chain of models, for which all fields about files and networks are empty.
        shares: The models of a mean of several, for which all fields about files and networks are empty.
        joint: Whether all files together make one network, so that none can be left out.
        config: Network settings that differ from the defaults, where the files do not state them.
        header: All that the files would state of the network if they had a header, by the fields of
            `checkpoint.Header`; empty if they have one.
        confirm: Whether its licence must be accepted before the first download.
        branch: Branch or tag that `revision` was resolved from.
        sdr: Published SDR in dB by stem; empty if there is none.
        sdr_metric: How the SDR was measured.
        sdr_source: Who published it.
        speed: Measured speed on two cores of a server, in times real time; None if it was not measured.
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
    steps: tuple[Step, ...] = ()
    shares: tuple[Share, ...] = ()
    joint: bool = False
    config: Mapping[str, Any] = field(default_factory=dict)
    header: Mapping[str, Any] = field(default_factory=dict)
    confirm: bool = False
    branch: str = ""
    sdr: Mapping[str, float] = field(default_factory=dict)
    sdr_metric: str = ""
    sdr_source: str = ""
    speed: float | None = None

    @property
    def needed_steps(self) -> tuple[Step, ...]:
        """The steps that the `stems` of a chain need, with each model narrowed to the stems that are needed of it."""
        wanted, needed = set(self.stems), []
        for step in reversed(self.steps):
            if own := [stem for stem in step.model.stems if step.rename.get(stem, stem) in wanted]:
                needed.append(replace(step, model=step.model.only(own)))
                wanted.add(step.of)
        return tuple(reversed(needed))

    @property
    def needed_shares(self) -> tuple[Share, ...]:
        """The models of a mean that give one of its `stems`, narrowed to these."""
        owns = [(share, [stem for stem in share.model.stems if stem in self.stems]) for share in self.shares]
        return tuple(replace(share, model=share.model.only(own)) for share, own in owns if own)

    @property
    def components(self) -> "tuple[ModelSpec, ...]":
        """The models that a chain or a mean is made of, as far as its `stems` need them; none for other models."""
        return (*(step.model for step in self.needed_steps), *(share.model for share in self.needed_shares))

    @property
    def parts(self) -> "tuple[ModelSpec, ...]":
        """The models that have files: those that a chain or a mean is made of in the end, or else this one."""
        return tuple(part for component in self.components for part in component.parts) or (self,)

    def complement_of(self, stem: str) -> str:
        """Return the stem that is the mixture without another one; empty if there is none with a name of its own.

        Where a network estimates one stem, and the other is what that leaves of the mixture, each is the complement.
        """
        pair = list(self.header.get("stems", ()))
        if not self.config.get("remainder") or len(pair) != 2 or stem not in pair:
            return ""
        return str(pair[1 - pair.index(stem)])

    @property
    def is_local(self) -> bool:
        """Whether it never needs a download: it is bundled, or a file of the user."""
        return all(part.path for part in self.parts)

    @property
    def size(self) -> int | None:
        """Bytes to download, if the sizes of all files are known."""
        sizes = [file.size for part in self.parts for file in part.files]
        return None if None in sizes else sum(size or 0 for size in sizes)

    @property
    def size_on_disk(self) -> int | None:
        """Bytes of all its files, downloaded or not, if they are known."""
        sizes = [_size_on_disk(part) for part in self.parts]
        return None if None in sizes else sum(size or 0 for size in sizes)

    def has(self, stems: Iterable[str]) -> bool:
        """Whether it gives all of these stems, or what the song without one of them needs."""
        return all(stem in self.stems or stem.removeprefix(COMPLEMENT) in self.stems for stem in stems)

    def only(self, stems: Collection[str]) -> "ModelSpec":
        """Narrow the model to some of its stems and drop the files that only the others need.

        Args:
            stems: Stems to keep; all if empty. `no_vocals` and the like, the song without a stem, need that stem.

        Raises:
            UsageError: The model has no such stem.
        """
        if not stems:
            return self
        if unknown := [stem for stem in stems if not self.has([stem])]:
            message = f"the model {self.name!r} has no stem {unknown[0]!r}"
            hint = _suggest_stem(unknown[0], self.stems)
            raise UsageError(message, hint, model=self.name, stem=unknown[0])
        stems = {stem if stem in self.stems else stem.removeprefix(COMPLEMENT) for stem in stems}
        files = [file for file in self.files if self.joint or not file.gives or set(file.gives) & set(stems)]
        return replace(self, stems=tuple(stem for stem in self.stems if stem in stems), files=tuple(files))

    def with_paths(self, change: Callable[[Path], Path]) -> "ModelSpec":
        """Return the model with its files at other places, as they may be on another machine.

        Args:
            change: Returns the path of a file there.
        """
        return replace(
            self,
            path=change(self.path) if self.path else None,
            steps=tuple(replace(step, model=step.model.with_paths(change)) for step in self.steps),
            shares=tuple(replace(share, model=share.model.with_paths(change)) for share in self.shares),
        )


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model whose files are on this machine and verified; `ensemble.load_ensemble` brings it into memory.

    Attributes:
        spec: The model; family, stems and files are known.
        paths: Its files of weights, in the order of `spec.files`; of a chain or a mean, those of all its models.
        fallback: Set when it replaces a default model that could not be downloaded: `instead_of` is the name of that
            model, `reason` says why.
        components: The models of `spec.components`.
    """

    spec: ModelSpec
    paths: tuple[Path, ...]
    fallback: Mapping[str, str] | None = None
    components: "tuple[LocalModel, ...]" = ()

    @property
    def gives(self) -> list[tuple[str, ...]]:
        """The stems that each file is for; empty for all."""
        return [file.gives for file in self.spec.files] or [()]


@dataclass(frozen=True, slots=True)
class Registry:
    """All models that have a name.

    Attributes:
        models: Models by name, in the order in which they are listed.
        default: Name of the model that runs when none is named.
    """

    models: Mapping[str, ModelSpec]
    default: str

    def find(self, name: str | None = None, stems: Sequence[str] = ()) -> ModelSpec:
        """Look up a model.

        A file is read as far as its header. A repository is not: its stems and files stay unknown until `hub.download`.

        Args:
            name: A model's name, `hf://OWNER/NAME[@REVISION]`, or the path of a file; the default model if empty.
            stems: The requested stems; all if empty. Ignored while the model's stems are unknown.

        Raises:
            ModelError: The file is not one that can be run.
            UsageError: There is no model of that name, or it has no such stem.
        """
        spec = self._find(name or self.default)
        return spec.only(stems) if spec.stems else spec

    def _find(self, name: str) -> ModelSpec:
        if name in self.models:
            return self.models[name]
        if name.startswith(HUB):
            return _parse_address(name)
        path = Path(name)
        if path.suffix in (*SUFFIXES, *PICKLES) or os.sep in name or os.path.exists(name):  # noqa: PTH110 (never raises)
            return read_spec(path, self.models)
        known = f"known models: {', '.join(self.models)}; or give {HUB}OWNER/NAME or a {SUFFIX} file"
        raise UsageError(f"unknown model {name!r}", did_you_mean(name, self.models, known), model=name)

    def extended(self, path: Path) -> "Registry":
        """Add the models of the user's file `path`, whose `default` takes precedence.

        Raises:
            ModelError: The file cannot be read, or a table is wrong; the message names the table and the key.
        """
        more = _parse_tables(read_toml(path, "models", error=ModelError), str(path), known=self.models)
        return Registry({**self.models, **more.models}, more.default or self.default)


def list_models(registry: Path | None = None) -> list[ModelSpec]:
    """List the models that can be named: those of stemsplit, then the user's own.

    Args:
        registry: A models.toml to add to the built-in list and to the one in the user's configuration folder.

    Returns:
        The models in the order of `stemsplit models`.

    Raises:
        ModelError: A models.toml cannot be read, or has a wrong table.
    """
    return list(read_registry(registry).models.values())


def read_registry(own: Path | None = None) -> Registry:
    """Read the built-in models, those of the user's configuration folder, and those of the file `own`.

    Raises:
        ModelError: A file cannot be read, or has a wrong table.
    """
    known = read_bundled()
    if os.path.isfile(settings.models_file()):  # noqa: PTH113 (never raises)
        known = known.extended(settings.models_file())
    return known.extended(own) if own else known


def read_bundled() -> Registry:
    """Read the models.toml that comes with stemsplit."""
    path = _PACKAGE / "models.toml"
    if not path.exists():  # an editable install: the file is beside the package
        path = _PACKAGE.parent / "models.toml"
    return _parse_tables(read_toml(path, "models", error=ModelError), path.name)


def read_spec(path: Path, known: Collection[str] = ()) -> ModelSpec:
    """Describe a file of weights by its header. `checkpoint.load` checks the rest of the file.

    Args:
        path: A file that the user named.
        known: Names of models to suggest when there is no such file.

    Raises:
        ModelError: It is not one that can be run.
        UsageError: There is no such file.
    """
    name = str(path)
    if os.path.isdir(path):  # noqa: PTH112 (never raises)
        raise ModelError(f"{name!r} is a folder, not a model", f"give the {SUFFIX} file in it", path=path)
    if path.suffix in PICKLES:
        message = f"{name!r} is a pickle, which can run any program when opened: stemsplit never opens one"
        raise ModelError(message, f"get the model as {SUFFIX}, or use one of {', '.join(known)}", path=path)
    if path.suffix == ONNX:
        message = f"{name!r} is one of several files that make up a model, and cannot be run alone"
        raise ModelError(
            message, f"list them in a models.toml of your own, or use one of {', '.join(known)}", path=path
        )
    try:
        header = headers.read_header(path)
    except FileNotFoundError as error:
        raise UsageError(f"there is no model file {name!r}", f"known models: {', '.join(known)}", path=path) from error
    if header is None:
        raise ModelError(
            f"{name!r} has no stemsplit header", "only models saved by stemsplit can be run from a file", path=path
        )
    try:
        family, stems = str(header["family"]), _in_usual_order(header["stems"])
        if not _are_stems(stems):
            raise ValueError(stems)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f"invalid model header in {name!r}", "download the file again", path=path) from error
    return ModelSpec(name=name, summary="a file", family=family, stems=stems, license="see its author", path=path)


def _in_usual_order(stems: Iterable[str]) -> tuple[str, ...]:
    """Stems as models.toml lists them: a file has them in the order of the network's output."""
    return tuple(
        sorted(stems, key=lambda stem: _USUAL_ORDER.index(stem) if stem in _USUAL_ORDER else len(_USUAL_ORDER))
    )


def _suggest_stem(name: str, stems: Sequence[str]) -> str:
    """A hint for a stem that a model lacks."""
    others = [COMPLEMENT + stem for stem in stems]
    guess = _OTHER_NAMES.get(name.lower(), name)
    if guess not in (*stems, *others):
        guess = closest(guess.lower(), [*stems, *others]) or ""
    known = f"its stems are {', '.join(stems)}"
    return f"did you mean {guess}? {known}" if guess else known


def is_inside(name: str) -> bool:
    """Whether a path in a repository, or a revision, stays inside the folder that it is joined to."""
    return not (name.startswith("/") or "\\" in name or ":" in name or ".." in PurePosixPath(name).parts)


def is_supported(spec: ModelSpec) -> bool:
    """Whether this version has the model's network family. Does not import torch."""
    return all(part.family in families() for part in spec.parts)


def check_family(spec: ModelSpec) -> None:
    """Refuse a network that this version cannot run, before anything is downloaded for it.

    Raises:
        ModelError: This version lacks the network family.
    """
    for part in spec.parts:
        if part.family and not is_supported(part):
            message = (
                f"this version of stemsplit cannot run the model {part.name!r}: unknown network family {part.family!r}"
            )
            raise ModelError(message, "upgrade stemsplit, or choose another: stemsplit models", model=part.name)


def check_masks(spec: ModelSpec) -> None:
    """Refuse a model that does not estimate masks; a family that is not known yet passes.

    Raises:
        UsageError: The network does not estimate masks.
    """
    if any(part.family and part.family not in MASK_FAMILIES for part in spec.parts):
        message = f"the model {spec.name!r} does not estimate masks, which Wiener filtering needs"
        raise UsageError(message, "leave --wiener out, or choose mini, spleeter or spleeter-16k", model=spec.name)


def resolve_complement(
    spec: ModelSpec, stems: Sequence[str], complement: bool
) -> tuple[ModelSpec, tuple[str, ...], bool]:
    """Turn the wish for a stem and the mixture without it into one for two stems, if the model has both by name.

    Args:
        spec: The model, narrowed to `stems`.
        stems: The requested stems; all if empty.
        complement: Whether the mixture without the stem is requested, too.

    Returns:
        The same three, as they apply to this model.
    """
    other = spec.complement_of(stems[0]) if complement and len(stems) == 1 else ""
    if not other:
        return spec, tuple(stems), complement
    pair = (stems[0], other)
    return replace(spec, stems=tuple(stem for stem in spec.header["stems"] if stem in pair)), pair, False


def parse_registry(text: str, source: str, *, known: Mapping[str, ModelSpec] | None = None) -> Registry:
    """Parse a models.toml.

    Args:
        text: Its content.
        source: Its name in errors.
        known: The models that it adds to, by name.

    Raises:
        ModelError: The text is not valid TOML, or a table is wrong.
    """
    return _parse_tables(parse_toml(text, source, error=ModelError), source, known=known or {})


def _parse_tables(tables: dict[str, Any], source: str, *, known: Mapping[str, ModelSpec] | None = None) -> Registry:
    default, known = tables.pop("default", ""), known or {}
    models: dict[str, ModelSpec] = {}
    for name, table in sorted(tables.items(), key=lambda item: _rank(item[1])):
        where = f"{source}, [{name}]"
        if name in known:
            raise ModelError(f"{where}: a model of that name exists already", "choose another name")
        parse = (_parse_spec, _parse_mean, _parse_chain)[_rank(table)]
        models[name] = parse(name, table, {**known, **models}, where)
    if default not in ("", *known, *models):
        raise ModelError(f"{source}: default = {default!r} is none of the models", f"known: {', '.join(models)}")
    return Registry({name: models[name] for name in tables}, default)


def _rank(table: Any) -> int:
    """0 for a model with files, 1 for a mean of such models, 2 for a chain, which is made of both."""
    return 0 if not isinstance(table, dict) else 2 if "steps" in table else int("mean" in table)


def _parse_spec(name: str, table: Any, models: Mapping[str, ModelSpec], where: str) -> ModelSpec:
    if not isinstance(table, dict):
        raise ModelError(f"{where}: not a table", f"{name} should be a model; see the top of models.toml")
    if "bundled" in table:
        spec = _parse_description(name, table, ("summary", "family", "license", "bundled"), (), (), where)
        return replace(spec, path=_PACKAGE / table["bundled"])
    texts = ("summary", "family", "license", "repo", "revision")
    optional = ("joint", "config", "windows", "confirm")
    spec = _parse_description(name, table, texts, ("files",), optional, where)
    if not REPO.fullmatch(table["repo"]):
        raise ModelError(f"{where}: repo must be 'owner/name'")
    if not COMMIT.fullmatch(table["revision"]):
        raise ModelError(f"{where}: revision must be a commit of 40 hexadecimal digits, not a branch or a tag")
    if not isinstance(table["files"], list) or not table["files"]:
        raise ModelError(f"{where}: files must be a list of tables")
    files = [_parse_file(file, spec.stems, f"{where}: files[{i}]") for i, file in enumerate(table["files"])]
    flags = {key: table.get(key, False) for key in ("joint", "confirm")}
    for key, flag in flags.items():
        if type(flag) is not bool:
            raise ModelError(f"{where}: {key} must be true or false")
    config = _parse_config(table.get("config", {}), f"{where}: config")
    spec = replace(spec, repo=table["repo"], revision=table["revision"], files=tuple(files), config=config, **flags)
    if any(file.name.endswith(ONNX) for file in files):
        _check_onnx(spec, files, spec.joint, where)
    elif config and "windows" not in table:
        hint = f"a {SUFFIX} file states its settings itself; one that does not needs windows as well"
        raise ModelError(f"{where}: config is for {ONNX} files, and for files without settings of their own", hint)
    if "windows" not in table:
        return spec
    windows = _parse_windows(table["windows"], f"{where}: windows")
    return replace(spec, header={"family": spec.family, "config": config, "stems": list(spec.stems), **windows})


def _parse_windows(table: Any, where: str) -> dict[str, int]:
    """Rate (Hz), channels, and length and hop (samples) of the windows that networks were trained for."""
    if not isinstance(table, dict):
        raise ModelError(f"{where}: not a table")
    keys = ("rate", "channels", "length", "hop")
    _check_keys(table, keys, (), where)
    if not all(type(table[key]) is int and table[key] > 0 for key in keys) or table["hop"] > table["length"]:
        raise ModelError(f"{where}: {', '.join(keys)} must be whole numbers above 0, and hop not above length")
    return dict(table)


def _size_on_disk(spec: ModelSpec) -> int | None:
    if spec.path:
        return spec.path.stat().st_size if spec.path.exists() else None
    return spec.size if spec.files else None


def _parse_mean(name: str, table: Mapping[str, Any], models: Mapping[str, ModelSpec], where: str) -> ModelSpec:
    """A mean of other models, which are given."""
    spec = _parse_description(name, table, ("summary", "license"), ("mean",), (), where)
    if not isinstance(table["mean"], list) or len(table["mean"]) < 2:
        raise ModelError(f"{where}: mean must be a list of two tables or more")
    shares = [_parse_share(entry, models, f"{where}: mean[{i}]") for i, entry in enumerate(table["mean"])]
    known = [stem for share in shares for stem in share.model.stems]
    if missing := [stem for stem in spec.stems if stem not in known]:
        raise ModelError(f"{where}: none of the models gives {missing[0]}")
    return replace(spec, shares=tuple(shares))


def _parse_share(table: Any, models: Mapping[str, ModelSpec], where: str) -> Share:
    if not isinstance(table, dict):
        raise ModelError(f"{where}: not a table")
    _check_keys(table, ("model",), ("weight",), where)
    name, weight = table["model"], table.get("weight", 1)
    if not isinstance(name, str) or name not in models:
        raise ModelError(f"{where}: unknown model {name!r}", did_you_mean(str(name), models))
    if models[name].components:
        raise ModelError(f"{where}: {name!r} is made of several models itself", "list these instead")
    if type(weight) not in (int, float) or not 0 < weight < float("inf"):
        raise ModelError(f"{where}: weight must be a number above 0")
    return Share(models[name], float(weight))


def _parse_chain(name: str, table: Mapping[str, Any], models: Mapping[str, ModelSpec], where: str) -> ModelSpec:
    """A chain of other models, which are given."""
    spec = _parse_description(name, table, ("summary", "license"), ("steps",), (), where)
    if not isinstance(table["steps"], list) or len(table["steps"]) < 2:
        raise ModelError(f"{where}: steps must be a list of two tables or more")
    steps: list[Step] = []
    available: list[str] = []  # stems of the steps so far that no other has separated; a name may occur twice
    for number, entry in enumerate(table["steps"]):
        step = _parse_step(entry, name, models, available, f"{where}: steps[{number}]")
        renamed = [step.rename.get(stem, stem) for stem in step.model.stems]
        available = [stem for stem in available if stem != step.of] + renamed
        steps.append(step)
    if set(available) != set(spec.stems):
        raise ModelError(f"{where}: the steps give {', '.join(dict.fromkeys(available))}, not {', '.join(spec.stems)}")
    return replace(spec, steps=tuple(steps))


def _parse_description(
    name: str,
    table: Mapping[str, Any],
    texts: Sequence[str],
    others: Sequence[str],
    optional: Sequence[str],
    where: str,
) -> ModelSpec:
    """What every kind of model has; `texts`, `others` and `optional` are its keys besides stems and sdr."""
    if not _NAME.fullmatch(name):
        raise ModelError(f"{where}: the name may contain letters, digits, '.', '_' and '-' only")
    _check_keys(table, (*texts, "stems", *others), ("sdr", "speed", *optional), where)
    for key in texts:
        if not isinstance(table[key], str) or not table[key]:
            raise ModelError(f"{where}: {key} must be text")
    stems = _parse_stems(table["stems"], f"{where}: stems")
    sdr, metric, source = _parse_sdr(table.get("sdr"), stems, f"{where}: sdr")
    speed = table.get("speed")
    if isinstance(speed, bool) or not (speed is None or (isinstance(speed, (int, float)) and speed > 0)):
        raise ModelError(f"{where}: speed must be a positive number, in times real time")
    return ModelSpec(
        name=name,
        summary=table["summary"],
        license=table["license"],
        family=table.get("family", ""),
        stems=stems,
        sdr=sdr,
        sdr_metric=metric,
        sdr_source=source,
        speed=speed,
    )


def _parse_step(table: Any, chain: str, models: Mapping[str, ModelSpec], available: Sequence[str], where: str) -> Step:
    """A step of a chain; `available` are the stems of earlier steps that no other has separated."""
    if not isinstance(table, dict):
        raise ModelError(f"{where}: not a table")
    _check_keys(table, ("model", *(("of",) if available else ())), ("as",), where)
    name, of, rename = table["model"], table.get("of", ""), table.get("as", {})
    if name == chain:
        raise ModelError(f"{where}: a chain cannot be a step of itself")
    if not isinstance(name, str) or name not in models:
        raise ModelError(f"{where}: unknown model {name!r}", did_you_mean(str(name), models), model=chain)
    if models[name].steps:
        raise ModelError(f"{where}: {name!r} is a chain itself", "list its steps instead")
    if available and available.count(of) != 1:
        raise ModelError(
            f"{where}: of = {of!r} is not a stem that one step before gives", f"these are {', '.join(available)}"
        )
    model = models[name]
    if not isinstance(rename, dict) or not set(rename) <= set(model.stems):
        raise ModelError(f"{where}: as must name stems of {name!r}", f"its stems are {', '.join(model.stems)}")
    if rename and not all(isinstance(stem, str) and _are_stems([stem]) for stem in rename.values()):
        raise ModelError(f"{where}: as must give names of stems")
    return Step(model, of, rename)


def _parse_file(table: Any, stems: tuple[str, ...], where: str) -> WeightFile:
    if not isinstance(table, dict):
        raise ModelError(f"{where}: not a table")
    pinned = table.get("sha256") != UNPINNED
    _check_keys(table, ("name", "sha256", *(("size",) if pinned else ())), ("size", "gives"), where)
    name, size, sha256 = table["name"], table.get("size"), table["sha256"]
    if not isinstance(name, str) or not is_inside(name) or not name.endswith(SUFFIXES):
        raise ModelError(f"{where}: name must be a path in the repository that ends in {' or '.join(SUFFIXES)}")
    if not (size is None or (type(size) is int and size > 0)):
        raise ModelError(f"{where}: size must be a whole number of bytes")
    if pinned and not (isinstance(sha256, str) and SHA256.fullmatch(sha256)):
        raise ModelError(f"{where}: sha256 must be 64 hexadecimal digits, or {UNPINNED!r}")
    gives = _parse_stems(table["gives"], f"{where}: gives") if "gives" in table else ()
    if not set(gives) <= set(stems):
        raise ModelError(f"{where}: gives names a stem that the model does not have", f"its stems: {', '.join(stems)}")
    return WeightFile(name, size, sha256 if pinned else "", gives)


def _check_onnx(spec: ModelSpec, files: Sequence[WeightFile], joint: bool, where: str) -> None:
    """A network made of ONNX files has one file for each stem."""
    gives = [file.gives for file in files]
    if spec.family != ONNX_FAMILY or not joint or not all(file.name.endswith(ONNX) for file in files):
        raise ModelError(f'{where}: {ONNX} files need family = "{ONNX_FAMILY}" and joint = true, and no other files')
    if sorted(gives) != sorted((stem,) for stem in spec.stems):
        raise ModelError(f"{where}: there must be one {ONNX} file for each stem", f"its stems: {', '.join(spec.stems)}")


def _parse_stems(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not _are_stems(value):
        raise ModelError(f"{where} must be a list of names")
    return tuple(value)


def _are_stems(names: Collection[Any]) -> bool:
    """Whether these can be names of stems, and so of files."""
    valid = all(isinstance(name, str) and name.isidentifier() and len(name) <= 40 for name in names)
    return valid and 0 < len(names) == len(set(names))


def _parse_sdr(table: Any, stems: Collection[str], where: str) -> tuple[dict[str, float], str, str]:
    """SDR in dB by stem, its metric and its source; empty if there is no table."""
    if table is None:
        return {}, "", ""
    if not isinstance(table, dict):
        raise ModelError(f"{where}: not a table")
    _check_keys(table, ("metric", "source"), stems, where)
    for key in ("metric", "source"):
        if not isinstance(table[key], str):
            raise ModelError(f"{where}: {key} must be text")
    sdr = {stem: table[stem] for stem in stems if stem in table}
    for stem, value in sdr.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ModelError(f"{where}: {stem} must be a number, in dB")
    return {stem: float(value) for stem, value in sdr.items()}, table["metric"], table["source"]


def _parse_config(table: Any, where: str) -> dict[str, Any]:
    """Settings of a network: numbers, text, and lists of these. The network checks their values when it is built."""
    if not isinstance(table, dict):
        raise ModelError(f"{where}: not a table")
    for key, value in table.items():
        if not all(isinstance(one, (bool, int, float, str)) for one in (value if isinstance(value, list) else [value])):
            raise ModelError(f"{where}: {key} must be a number, text, or a list of these")
    return dict(table)


def _check_keys(table: Mapping[str, Any], required: Collection[str], optional: Collection[str], where: str) -> None:
    for key in table:
        if key not in required and key not in optional:
            raise ModelError(f"{where}: unknown key {key!r}", f"known keys: {', '.join((*required, *optional))}")
    for key in required:
        if key not in table:
            raise ModelError(f"{where}: {key} is missing")


def _parse_address(address: str) -> ModelSpec:
    """A repository that the user named: `hf://owner/name[@revision]`."""
    repo, at, revision = address.removeprefix(HUB).partition("@")
    if not REPO.fullmatch(repo) or (at and not (_REVISION.fullmatch(revision) and is_inside(revision))):
        raise UsageError(f"invalid Hub address {address!r}", f"write {HUB}OWNER/NAME or {HUB}OWNER/NAME@REVISION")
    summary, license = "a repository that you named", "see https://huggingface.co/" + repo
    return ModelSpec(name=address, summary=summary, license=license, repo=repo, revision=revision or "main")
