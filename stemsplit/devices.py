"""What networks run on: CPU, GPUs, threads, memory. torch is imported only by the functions that need it."""

import ctypes
import errno
import math
import os
import platform
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from stemsplit.errors import DeviceError, StemsplitError
from stemsplit.wording import did_you_mean, one_line

NAMES = ("auto", "cpu", "cuda", "mps")

# How libraries whose exceptions have no class for it say that there is no memory left.
_OUT_OF_MEMORY = (
    "allocate memory",
    "could not create a primitive",
    "failed to map segment",
    "not enough memory",
    "out of memory",
    "start new thread",
)
_FIRST_TENSOR_CORES = (7, 0)  # compute capability of the first NVIDIA cards with units for products in 16 bits
_TRIALS, _TRIAL_SIZE = 3, 512
_WORTHWHILE = 0.8  # of the time: there are conversions as well

_SPINS = "10000"  # tens of microseconds
_CGROUP = Path("/sys/fs/cgroup")
_LEAST_ADDRESS_SPACE = 10**9  # bytes; below it, glibc aborts when PyTorch's libraries are loaded

# M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_THRESHOLD of mallopt(3), in bytes; the last one is the highest allowed.
_MALLOPT = ((-1, 2**28), (-2, 2**26), (-3, 2**25))


@dataclass(frozen=True, slots=True)
class Device:
    """A device that networks can run on.

    Attributes:
        device: Its name for PyTorch: "cpu", "mps", "cuda:0".
        name: What its maker calls it.
        memory: Bytes in all, or None if unknown.
        free: Bytes that are free, or None if unknown.
    """

    device: str
    name: str
    memory: int | None = None
    free: int | None = None

    def __str__(self) -> str:
        memory = f", {self.memory / 1e9:.1f} GB of memory" if self.memory else ""
        free = f", {self.free / 1e9:.1f} GB of it free" if self.memory and self.free is not None else ""
        return f"{self.device}: {self.name}{memory}{free}"


def choose(name: str) -> str:
    """Return the device to run on: "auto" is the first available of cuda, mps and cpu.

    Raises:
        DeviceError: The device is unknown or not available.
    """
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(device for device, usable in available.items() if usable)
    if name not in available:
        raise DeviceError(f"unknown device {name!r}", did_you_mean(name, NAMES, f"one of {', '.join(NAMES)}"))
    if not available[name]:
        raise DeviceError(f"PyTorch finds no {name} device on this machine", "use --device cpu, or leave it out")
    return name


def choose_precision(device: str) -> Literal["full", "half"]:
    """Return the precision that pays on a device: "half" where products in 16 bits are faster.

    What they cost in quality was measured: with real weights of HTDemucs, Spleeter and our U-Net, the SDR of real songs
    changes by less than 0.01 dB in the mean, and with random weights the error of every family is at least 41 dB below
    its output.

    Args:
        device: "cpu", "cuda" or "mps".
    """
    import torch

    if device == "cuda":
        fast = torch.cuda.get_device_capability() >= _FIRST_TENSOR_CORES
    else:
        fast = device == "cpu" and computes_bfloat16_faster()
    return "half" if fast else "full"


@cache
def computes_bfloat16_faster() -> bool:
    """Time products of matrices on the processor.

    That it has instructions for bfloat16 says little: with AVX512_BF16, htdemucs takes 0.6 of the time on processors
    by AMD, and products of matrices 1.7 times as long on some by Intel.
    """
    import torch

    seconds = dict.fromkeys((torch.float32, torch.bfloat16), math.inf)
    with torch.inference_mode():
        for _ in range(_TRIALS):
            for dtype in seconds:
                matrix = torch.ones(_TRIAL_SIZE, _TRIAL_SIZE, dtype=dtype)
                began = time.perf_counter()
                torch.nn.functional.linear(matrix, matrix)
                seconds[dtype] = min(seconds[dtype], time.perf_counter() - began)
    return seconds[torch.bfloat16] < _WORTHWHILE * seconds[torch.float32]


def count_cores(cgroup: Path = _CGROUP) -> int:
    """Return how many cores this process may use, at least 1: a container may have a share of the machine's time."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):  # version 2, version 1
        with suppress(OSError, ValueError):  # also without a limit: "max"
            quota, period = map(int, " ".join((cgroup / name).read_text(encoding="ascii") for name in names).split())
            if quota > 0 and period > 0:
                cores = min(cores, -(-quota // period))
    return cores


def settle_threads() -> None:
    """Make the threads of libraries that are imported later, PyTorch above all, share the processor with others.

    There are no more of them than cores to use: libraries count the cores of the machine, whatever share of their time
    a container has. And where the threads of a computation wait for one another, they do so at work for microseconds
    only, not for the milliseconds that GNU's OpenMP has by default: a thread that waits at work on a busy machine takes
    the core from the one that it waits for. See "A busy machine" in benchmarks/README.md.

    The settings hold for the whole process, so they are for programs, not for libraries. What the user has set takes
    precedence.
    """
    if count_cores() < (os.cpu_count() or 1):
        os.environ.setdefault("OMP_NUM_THREADS", str(count_cores()))
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)


def count_threads(jobs: int) -> int:
    """Return how many of PyTorch's threads each of `jobs` parallel jobs should use on the processor."""
    import torch

    return max(1, torch.get_num_threads() // jobs)


def use_threads(count: int) -> None:
    """Let PyTorch use `count` threads for what the calling thread computes on the processor."""
    import torch

    torch.set_num_threads(count)


@contextmanager
def memory_checked(device: str) -> Iterator[None]:
    """Raise a DeviceError when the device runs out of memory."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        hint = "close other programs that use it, or use --device cpu"
        raise DeviceError(f"the {device} device has too little free memory", hint) from error


def memory_error(error: BaseException) -> DeviceError | None:
    """Return our error if the cause of another one, of whatever library, is that the machine has no memory left."""
    cause: BaseException | None = error
    while cause is not None:
        said = str(cause).lower()
        if isinstance(cause, MemoryError) or getattr(cause, "errno", None) == errno.ENOMEM:
            break
        if isinstance(cause, (RuntimeError, ImportError, OSError)) and any(sign in said for sign in _OUT_OF_MEMORY):
            break
        cause = cause.__cause__ or cause.__context__
    if cause is None or isinstance(error, DeviceError):
        return None
    return DeviceError("there is too little free memory", "close other programs, or give this one more memory")


def keep_freed_memory() -> None:
    """Make the C library of Linux reuse freed memory instead of returning it to the system.

    Networks allocate the same tens of megabytes for every window, and fresh memory is mapped page by page, which took a
    tenth of the time of a song. The setting holds for the whole process, so it is for programs, not for libraries.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        for parameter, value in _MALLOPT:
            mallopt(parameter, value)


def reinstall(library: str) -> str:
    """Return a hint for a library that is missing or broken."""
    return f"reinstall it:  {sys.executable} -m pip install --force-reinstall {library}"


def check_limit() -> None:
    """Refuse to start below a limit of memory in which importing PyTorch would abort the process.

    Raises:
        DeviceError: The limit (`ulimit -v`) is too low.
    """
    if sys.platform == "win32":
        return
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < _LEAST_ADDRESS_SPACE:
        needed = f"{limit / 1e9:.1f} GB of memory is the limit of this process, and PyTorch alone needs about 1 GB"
        raise DeviceError(needed, "raise it:  ulimit -v unlimited")


def load(library: str) -> ModuleType:
    """Import a library with compiled parts, which a bad installation may have broken.

    Raises:
        StemsplitError: It cannot be imported; the message has the reason.
    """
    try:
        return import_module(library)
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        message = f"the library {library} cannot be loaded: {one_line(error)}"
        raise StemsplitError(message, reinstall(library)) from error


def find_devices(torch: Any) -> list[Device]:
    """Return all devices that networks can run on, the processor first.

    Args:
        torch: The module.
    """
    devices = [Device("cpu", _processor(), *_memory())]
    if has_gpus(torch):
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            free = None
            with suppress(RuntimeError):  # it exists, but is busy or broken; using it will raise the reason
                free = torch.cuda.mem_get_info(index)[0]
            devices.append(Device(f"cuda:{index}", properties.name, properties.total_memory, free))
    if torch.backends.mps.is_available():
        devices.append(Device("mps", "the GPU of the processor", torch.mps.recommended_max_memory()))
    return devices


def has_gpus(torch: Any) -> bool:
    """Return whether PyTorch can run on GPUs by NVIDIA or AMD; without its warning about drivers that are too old."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return bool(torch.cuda.is_available())


def explain_unused_gpu(torch: Any, driver: Path = Path("/proc/driver/nvidia/version")) -> StemsplitError | None:
    """Return why PyTorch does not use an NVIDIA card that has a driver; None if it does, or there is none."""
    if not driver.exists() or has_gpus(torch):
        return None
    version = torch.version.cuda
    built = f"for CUDA {version}, which may be too new for the driver" if version else "without CUDA"
    hint = "install the build of PyTorch for your driver (see pytorch.org), or update the driver"
    return StemsplitError(f"there is an NVIDIA driver, but PyTorch {torch.__version__} is built {built}", hint)


def describe_versions() -> Iterator[str]:
    """Yield lines about Python, PyTorch and the devices, as a bug report needs them."""
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
    """Total and free memory in bytes, or None where the system does not say."""
    total, free = None, None
    with suppress(OSError, ValueError, AttributeError):  # not on Windows
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError, IndexError):  # on Linux only
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    with suppress(OSError, ValueError):  # a container may have less
        limit = int((_CGROUP / "memory.max").read_text(encoding="ascii"))
        used = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
        total, free = min(total or limit, limit), min(free or limit, limit - used)
    return total, free
