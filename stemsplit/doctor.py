"""Checks of the installation, the devices, the cache and the Hub, and a separation as a self-test.

No library is imported before it has been checked, as its import may be what fails.
"""

import platform
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stemsplit import devices
from stemsplit.errors import ModelError, StemsplitError, UnreachableError
from stemsplit.files import make_temporary_folder, nearest_folder
from stemsplit.models import registry
from stemsplit.models.registry import FALLBACK, ModelSpec, Registry
from stemsplit.version import DISTRIBUTION, __version__
from stemsplit.wording import one_line

LIBRARIES = ("av", "huggingface_hub", "numpy", "safetensors", "soundfile", "soxr")  # torch is checked later
RATE = 44_100  # Hz, of the self-test
SONG_SECONDS = 240  # for which the time is told
TOLERANCE = 1e-4  # of full scale, by which the sum of the stems may differ from the mixture


@dataclass(frozen=True, slots=True)
class Problem:
    """Something to fix.

    Attributes:
        problem: One sentence.
        hint: What to do about it.
        fatal: Whether nothing can be separated before it is fixed.
    """

    problem: str
    hint: str
    fatal: bool


@dataclass(slots=True)
class Diagnosis:
    """The results of all checks.

    Attributes:
        facts: Values that JSON can hold, by topic; sizes in bytes.
        problems: What is wrong.
    """

    facts: dict[str, Any] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether songs can be separated."""
        return not any(problem.fatal for problem in self.problems)

    def note(self, error: StemsplitError, *, fatal: bool) -> None:
        """Record an error as a problem."""
        self.problems.append(Problem(str(error), error.hint or "fix it, and run  stemsplit doctor  again", fatal))

    @contextmanager
    def noted(self, *, fatal: bool) -> Iterator[None]:
        """Record the error that the block raises, and go on after it."""
        try:
            yield
        except StemsplitError as error:
            self.note(error, fatal=fatal)


def diagnose(diagnosis: Diagnosis, known: Registry, spec: ModelSpec, *, named: bool, device: str) -> None:
    """Run all checks.

    Args:
        diagnosis: Where to record the results.
        known: All models.
        spec: The model that would be used.
        named: Whether the user named it.
        device: "cpu", "cuda", "mps", or "auto".
    """
    modules = _check_software(diagnosis)
    _check_devices(diagnosis)
    _check_temporary_folder(diagnosis)
    diagnosis.facts |= {"cache": None, "hub": None, "model": None}
    if "huggingface_hub" in modules:
        _check_cache(diagnosis, known)
        _check_hub(diagnosis, spec)
        _check_model(diagnosis, spec, named=named)
    _check_separation(diagnosis, device)
    diagnosis.facts["speeds"] = {}
    if diagnosis.good and "huggingface_hub" in modules:
        _measure_speeds(diagnosis, known)


def _check_software(diagnosis: Diagnosis) -> dict[str, Any]:
    """Record versions; return the libraries that can be imported, by name."""
    versions: dict[str, str | None] = {}
    for name in _libraries():
        versions[name] = None
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            diagnosis.note(StemsplitError(f"the library {name} is missing", devices.reinstall(name)), fatal=True)
    modules: dict[str, Any] = {}
    for name in LIBRARIES:
        with diagnosis.noted(fatal=True):
            modules[name] = devices.load(name)
    diagnosis.facts |= {
        "stemsplit": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "libraries": versions,
        "ffmpeg": getattr(modules.get("av"), "ffmpeg_version_info", None),
        "libsndfile": getattr(modules.get("soundfile"), "__libsndfile_version__", None),
    }
    return modules


def _libraries() -> list[str]:
    """The required dependencies of stemsplit; empty in a checkout that was not installed."""
    try:
        needed = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    return [re.split(r"[^\w.-]", each)[0] for each in needed if ";" not in each]


def _check_devices(diagnosis: Diagnosis) -> None:
    diagnosis.facts |= {"cores": devices.count_cores(), "threads": None, "devices": []}
    with diagnosis.noted(fatal=True):
        torch: Any = devices.load("torch")
        diagnosis.facts["threads"] = torch.get_num_threads()
        diagnosis.facts["devices"] = [asdict(device) for device in devices.find_devices(torch)]
        if unused := devices.explain_unused_gpu(torch):
            diagnosis.note(unused, fatal=False)


def _check_temporary_folder(diagnosis: Diagnosis) -> None:
    """Record where temporary files go: songs from standard input, and stems on their way to standard output."""
    diagnosis.facts["temporary"] = None
    with diagnosis.noted(fatal=False), make_temporary_folder("a song from standard input") as folder:
        diagnosis.facts["temporary"] = str(Path(folder).parent)


def _check_cache(diagnosis: Diagnosis, known: Registry) -> None:
    """Record where downloads go, how much is there, and how much space is left."""
    from stemsplit.models import cache

    folder = cache.hub_cache()
    nearest = nearest_folder(folder)
    paths = {cache.find_file(spec, file) for spec in known.models.values() for file in spec.files}
    reason = None
    try:
        tempfile.TemporaryFile(dir=nearest).close()
    except OSError as error:
        reason = f"cannot write to {str(nearest)!r}, where models are stored: {error.strerror}"
    diagnosis.facts["cache"] = {
        "folder": str(folder),
        "writable": reason is None,
        "reason": reason,
        "size": sum(path.stat().st_size for path in paths if path),
        "free": shutil.disk_usage(nearest).free,
    }


def _check_hub(diagnosis: Diagnosis, spec: ModelSpec) -> None:
    """Check within two seconds whether the Hub can be reached. It is no problem in itself if it cannot."""
    from urllib.request import getproxies

    from huggingface_hub import constants

    from stemsplit.models import hub_client

    reason = None
    try:
        hub_client.check_reachable(spec)
    except UnreachableError as error:
        reason = (
            "HF_HUB_OFFLINE is set"
            if constants.HF_HUB_OFFLINE
            else str(error).replace(f" to download the model {spec.name!r}", "")
        )
    except ModelError as error:
        reason = str(error)
        diagnosis.note(error, fatal=False)
    proxies = getproxies()
    proxy = proxies.get(urlsplit(constants.ENDPOINT).scheme) or proxies.get("all")
    diagnosis.facts["hub"] = {
        "endpoint": _without_password(constants.ENDPOINT),
        "proxy": _without_password(proxy) if proxy else None,
        "reachable": reason is None,
        "reason": reason,
    }


def _check_model(diagnosis: Diagnosis, spec: ModelSpec, *, named: bool) -> None:
    """Check whether the model that would be used is downloaded, or can be."""
    from stemsplit.models import cache

    with diagnosis.noted(fatal=True):
        registry.check_family(spec)
    files = [(part, file) for part in spec.parts for file in part.files]
    missing = [file for _, file in files]
    for part, file in files:
        if path := cache.find_file(part, file):
            try:
                cache.check_file(file, path)
                missing.remove(file)
            except ModelError as error:
                hint = f"it is downloaded again when it is used, or by  stemsplit models pull {spec.name}"
                diagnosis.note(ModelError(f"the model {spec.name!r} is damaged: {error}", hint), fatal=False)
    here = spec.is_local or (not missing if files else cache.find_weights(spec) is not None)
    size = spec.size_on_disk
    diagnosis.facts["model"] = {"name": spec.name, "named": named, "here": here, "size": size}
    folder, reachable = diagnosis.facts["cache"], diagnosis.facts["hub"]["reachable"]
    downloads, state = not here and reachable, f"the model {spec.name!r} is not downloaded"
    elsewhere = "let HF_HOME name a folder on another disk"
    if not folder["writable"]:
        diagnosis.note(StemsplitError(folder["reason"], f"change its permissions, or {elsewhere}"), fatal=downloads)
    if not here and not reachable:
        instead = "" if named else f", and {FALLBACK}, which is bundled with stemsplit, replaces it"
        hint = f"connect to the network once and run  stemsplit models pull {spec.name}"
        diagnosis.note(StemsplitError(f"{state} and cannot be downloaded now{instead}", hint), fatal=named)
    needed = sum(file.size or 0 for file in missing)
    if downloads and needed > folder["free"]:
        problem = f"{state}, needs {needed / 1e6:.0f} MB, and there is room for {folder['free'] / 1e6:.0f} MB"
        diagnosis.note(StemsplitError(problem, f"make room, or {elsewhere}"), fatal=True)


def _check_separation(diagnosis: Diagnosis, device: str) -> None:
    """Separate a second of audio with the bundled model, and check whether the stems add up to it."""
    result: dict[str, Any] = {
        "model": FALLBACK,
        "device": None,
        "passed": False,
        "deviation": None,
        "elapsed_seconds": None,
    }
    diagnosis.facts["self_test"] = result
    if not diagnosis.facts["devices"]:
        return  # no torch, which has been recorded

    with diagnosis.noted(fatal=True):
        chosen = devices.choose(device)
        result["device"] = chosen
        try:
            deviation, seconds = _separate_mixture(chosen)
        except (RuntimeError, ImportError, OSError) as error:  # of a driver, or of a library
            hint = devices.reinstall("torch") if chosen == "cpu" else "check whether it works with --device cpu"
            problem = f"the {chosen} device cannot separate a second of audio: {one_line(error)}"
            raise StemsplitError(problem, hint) from error
        passed = deviation <= TOLERANCE
        result |= {"passed": passed, "deviation": deviation, "elapsed_seconds": round(seconds, 3)}
        if not passed:
            problem = f"the stems of a second of audio do not add up to it on the {chosen} device"
            raise StemsplitError(problem, "check whether they do with --device cpu, and report a bug")


def _separate_mixture(device: str) -> tuple[float, float]:
    """Separate a synthetic mixture; return the largest error of the sum of its stems, and the seconds that it took."""
    import numpy as np

    from stemsplit.models import hub
    from stemsplit.models.ensemble import load_model
    from stemsplit.separation.separator import Separator

    local = hub.download(registry.read_bundled().find(FALLBACK))  # it is bundled, so nothing is
    separator = Separator(load_model(local, device=device), device=device)
    seconds = np.arange(RATE) / RATE
    chord = sum(np.sin(2 * np.pi * pitch * seconds) for pitch in (110.0, 440.0, 554.4, 659.3))
    noise = np.random.default_rng(0).standard_normal((2, RATE)) * np.exp(-20 * (seconds * 4 % 1))
    mixture = (0.1 * chord + 0.05 * noise).astype(np.float32)
    began = time.monotonic()
    stems = np.concatenate(list(separator.separate([mixture], RATE)), axis=-1)
    elapsed = time.monotonic() - began
    if stems.shape[-1] != RATE or not np.isfinite(stems).all():
        return float("inf"), elapsed
    return float(np.abs(stems.sum(axis=0) - mixture).max()), elapsed


def _measure_speeds(diagnosis: Diagnosis, known: Registry) -> None:
    """Measure how quickly each model that is here separates on the device of the self-test, in times real time."""
    from stemsplit.models import cache, speeds

    measured: dict[str, float] = {}
    for spec in known.models.values():
        files = [(part, file) for part in spec.parts for file in part.files]
        paths = [cache.find_file(part, file) for part, file in files]
        here = all(path and not cache.is_damaged(file, path) for (_, file), path in zip(files, paths, strict=True))
        if here and registry.is_supported(spec):
            with diagnosis.noted(fatal=False):
                measured[spec.name] = round(_speed_of(spec, diagnosis.facts["self_test"]["device"]), 2)
    speeds.record(measured)
    diagnosis.facts["speeds"] = measured


def _speed_of(spec: ModelSpec, device: str) -> float:
    """Separate two windows twice, and return the speed at which a song of `SONG_SECONDS` would be separated."""
    import numpy as np

    from stemsplit.models import hub
    from stemsplit.models.ensemble import load_model
    from stemsplit.separation.separator import Separator

    try:
        separator = Separator(load_model(hub.download(spec), device=device), device=device)
        header = separator.chain.header
        noise = np.random.default_rng(0).normal(0, 0.1, (header.channels, header.length + header.hop))
        seconds = 0.0
        for _ in range(2):  # the first time is no measure: libraries set up and memory is mapped
            began = time.monotonic()
            for _ in separator.separate([noise.astype(np.float32)], header.rate):
                pass
            seconds = time.monotonic() - began
    except (RuntimeError, OSError) as error:
        problem = f"the model {spec.name!r} cannot separate on the {device} device: {one_line(error)}"
        raise StemsplitError(problem) from error
    windows = (SONG_SECONDS * header.rate - header.length) / header.hop + 1
    return SONG_SECONDS / (seconds / 2 * windows)


def _without_password(address: str) -> str:
    before, at, host = address.rpartition("@")
    return f"{before.partition('//')[0]}//...@{host}" if at else address
