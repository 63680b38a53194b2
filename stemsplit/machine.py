"""This machine, in words and figures: versions, and what networks can run on. torch is imported only when asked."""

import ctypes
import os
import platform
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from stemsplit.errors import StemsplitError

# What mallopt(3) calls M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_THRESHOLD, the latter as high as it may be; bytes.
_MALLOPT = ((-1, 2**28), (-2, 2**26), (-3, 2**25))

REINSTALL = "install it anew:  pip install --force-reinstall stemsplit"


@dataclass(frozen=True, slots=True)
class Device:
    """Where networks can run.

    Args:
        device: "cpu", "mps", or "cuda:0" and so on. memory, free: bytes, if they are known.
    """

    device: str
    name: str
    memory: int | None = None
    free: int | None = None

    def __str__(self) -> str:
        memory = f", {self.memory / 1e9:.1f} GB of memory" if self.memory else ""
        free = f", {self.free / 1e9:.1f} GB of it free" if self.memory and self.free is not None else ""
        return f"{self.device}: {self.name}{memory}{free}"


def load(library: str) -> ModuleType:
    """A library that is not all Python, and may have been installed badly. Raises StemsplitError with the reason."""
    try:
        return import_module(library)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        raise StemsplitError(f"the library {library} cannot be loaded: {reason_of(error)}", REINSTALL) from error


def reason_of(error: Exception) -> str:
    """What an error of a library says, on one line."""
    return (" ".join(str(error).split()) or type(error).__name__)[:300]


def find_devices(torch: Any) -> list[Device]:
    """All that networks can run on, the processor first."""
    found = [Device("cpu", _processor(), *_memory())]
    if gpus_can_be_used(torch):
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            free = None
            with suppress(RuntimeError):  # it is there, but busy or broken; to use it tells more
                free = torch.cuda.mem_get_info(index)[0]
            found.append(Device(f"cuda:{index}", properties.name, properties.total_memory, free))
    if torch.backends.mps.is_available():
        found.append(Device("mps", "the GPU of the processor", torch.mps.recommended_max_memory()))
    return found


def gpus_can_be_used(torch: Any) -> bool:
    """Whether PyTorch can run on GPUs of NVIDIA or AMD; without its warning that a driver is too old."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bool(torch.cuda.is_available())


def explain_unused_gpu(torch: Any, driver: Path = Path("/proc/driver/nvidia/version")) -> StemsplitError | None:
    """Why PyTorch does not use a card of NVIDIA for which there is a driver; None if it does, or there is none."""
    if not driver.exists() or gpus_can_be_used(torch):
        return None
    version = torch.version.cuda
    built = f"for CUDA {version}, which the driver may be too old for" if version else "without CUDA"
    hint = "get the build of PyTorch for your driver, as its installation page tells, or update the driver"
    return StemsplitError(f"there is an NVIDIA driver, but PyTorch {torch.__version__} is built {built}", hint)


def keep_freed_memory() -> None:
    """Let the C library of Linux keep what is freed for what is asked for next, instead of returning it to the system.

    Networks ask for the same tens of megabytes for every window, and new memory comes page by page: that took a tenth
    of the time of a song. It is a setting of the whole process, so it is for programs, not for libraries.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for parameter, value in _MALLOPT:
            mallopt(parameter, value)


def count_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_versions() -> Iterator[str]:
    """Lines about Python, PyTorch and the devices, as a report of a bug needs them."""
    yield f"Python {platform.python_version()}, {platform.platform()}"
    try:
        torch = load("torch")
    except StemsplitError as error:
        yield f"PyTorch: {error}"
        return
    yield f"PyTorch {torch.__version__}"
    yield from map(str, find_devices(torch))


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory() -> tuple[int | None, int | None]:
    """Bytes of memory, and how many of them are free, as far as the system tells."""
    total, free = None, None
    with suppress(OSError, ValueError, AttributeError):  # not on Windows
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError, IndexError):  # on Linux only
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    with suppress(OSError, ValueError):  # a container may have less
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
        total, free = min(total or limit, limit), min(free or limit, limit - used)
    return total, free
