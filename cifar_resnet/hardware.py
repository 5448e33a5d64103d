"""What the machine can do, and the settings that train fastest on it."""

import ctypes
import os
import platform
import re
import shutil
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from cifar_resnet.errors import InputError

PRECISIONS = ("bf16", "fp32")

# Numbers of malloc's settings in glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LOOK = 0.2  # seconds, for which cores are watched

# Torch's threads as others chose them, and what `detect` then made of that.
_given = _taken = torch.get_num_threads()


@dataclass(frozen=True)
class Hardware:
    """Where and how the arithmetic is done; it changes the speed, not the recipe.

    Attributes:
        device: ``"cpu"`` or ``"cuda"`` (or ``"cuda:1"``).
        name: the processor's own name.
        threads: CPU threads that torch uses, at most.
        precision: ``"bf16"`` (autocast) or ``"fp32"``.
        compile: whether the network goes through ``torch.compile``; None leaves it to
            a measurement before the first step (`cifar_resnet.compiling.fastest`).
        processes: how many such processes share the work.
        yielding: whether `spare_busy_cores` may lower the number of threads for a while.
        cuda_graphs: whether compiled code is replayed as CUDA graphs.
        channels_last: that activations are stored as NHWC, for the record; they always are.
    """

    device: str
    name: str
    threads: int
    precision: str
    compile: bool | None
    processes: int = 1
    yielding: bool = False
    cuda_graphs: bool = False
    channels_last: bool = True

    @property
    def kind(self) -> str:
        """``"cpu"`` or ``"cuda"``, whichever GPU it is."""
        return self.device.partition(":")[0]


def detect(
    device: str | torch.device | None = None,
    *,
    precision: str | None = None,
    compile: bool | None = None,
    cuda_graphs: bool = False,
    threads: int | None = None,
) -> Hardware:
    """Choose settings for this machine; whatever is given is kept.

    bf16 is chosen only where the processor multiplies it natively (CUDA from compute
    capability 8.0; CPUs with AMX or AVX512-BF16), because autocast is slower elsewhere.

    For the whole process change torch's number of threads; on a CPU malloc's settings; on a GPU
    those of cuDNN: no TF32 in what is called float32, and its fastest algorithms by trial.

    Args:
        device: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``, as text or a ``torch.device``; default:
            CUDA if there is any.
        precision: ``"bf16"`` or ``"fp32"``.
        compile: use ``torch.compile``; default: whatever a measurement will find faster, where
            a compiler is at hand.
        cuda_graphs: replay the compiled code as CUDA graphs.
        threads: CPU threads; default: as many as torch has had from elsewhere, such as
            ``OMP_NUM_THREADS``; where the CPU trains and that is not set, no more than one for
            each core that nothing else keeps busy (`free_cores`).

    Raises:
        InputError: if the device is not there, if the precision is unknown, for fewer threads
            than one or more than cores, for ``compile`` where there is no compiler, or for CUDA
            graphs without a GPU or without ``compile``.

    Example:
        >>> detect("cpu", precision="fp32", compile=False).precision
        'fp32'
        >>> detect("tpu")
        Traceback (most recent call last):
        cifar_resnet.errors.InputError: device 'tpu' is unknown; use cpu or cuda
    """
    device = find_device(device)
    kind = device.partition(":")[0]
    check_precision(precision or "fp32")
    if cuda_graphs and not (kind == "cuda" and compile):
        raise InputError("CUDA graphs replay compiled code on a GPU; add --device cuda --compile")
    if compile and not _can_compile(device):
        needed = "a C++ compiler" if kind == "cpu" else "a C compiler and Triton"
        raise InputError(f"torch.compile needs {needed}; install it, or leave out --compile")
    cores = os.cpu_count() or 1
    if threads is not None and not 1 <= threads <= cores:
        raise InputError(f"threads must be from 1 to this machine's {cores}, not {threads}")
    yielding = threads is None and kind == "cpu" and "OMP_NUM_THREADS" not in os.environ
    _set_threads(threads, yielding)
    if kind == "cpu":
        _keep_freed_memory()
    else:
        torch.backends.cudnn.allow_tf32 = False  # what is called float32 is float32
        torch.backends.cudnn.benchmark = True  # few shapes, each many times
    return Hardware(
        device=device,
        name=torch.cuda.get_device_name(device) if kind == "cuda" else cpu_name(),
        threads=torch.get_num_threads(),
        precision=precision or ("bf16" if _has_fast_bf16(device) else "fp32"),
        compile=(None if _can_compile(device) else False) if compile is None else compile,
        yielding=yielding,
        cuda_graphs=cuda_graphs,
    )


def _set_threads(asked: int | None, yielding: bool) -> None:
    """Torch's number of threads, which an earlier call may have lowered: begin anew."""
    global _given, _taken
    if torch.get_num_threads() != _taken:  # the program has chosen another since
        _given = torch.get_num_threads()
    if asked is None:
        asked = min(_given, free_cores()) if yielding else _given
    torch.set_num_threads(asked)
    _taken = torch.get_num_threads()


def check_precision(precision: str) -> None:
    """Refuse what is none, which would pass for float32.

    Raises:
        InputError: if it is unknown.

    Example:
        >>> check_precision("fp16")
        Traceback (most recent call last):
        cifar_resnet.errors.InputError: precision 'fp16' is unknown; use bf16 or fp32
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r} is unknown; use {' or '.join(PRECISIONS)}")


def find_device(asked: str | torch.device | None) -> str:
    """The device to use: the one that was asked for; else CUDA if there is any.

    Args:
        asked: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``, as text or a ``torch.device``.

    Raises:
        InputError: if it is unknown or not there.

    Example:
        >>> find_device("cpu")
        'cpu'
    """
    if not isinstance(asked, str | torch.device | None):
        raise InputError(f"device {asked!r} is unknown; use cpu or cuda")
    device = str(asked or ("cuda" if torch.cuda.is_available() else "cpu"))
    kind, _, index = device.partition(":")
    if not re.fullmatch(r"cpu(:0)?|cuda(:\d+)?", device):
        raise InputError(f"device {device!r} is unknown; use cpu or cuda")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {device!r}: torch {torch.__version__} sees no GPU; use cpu")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {device!r}: this machine has {torch.cuda.device_count()} GPU(s)")
    return "cpu" if kind == "cpu" else device


def spare_busy_cores(hardware: Hardware) -> None:
    """Where nobody asked for a number of threads, use only cores that are free just now.

    Meant for the moment between two epochs, when this process itself keeps no core busy.
    Compiled code keeps its number of threads: with another one it would be compiled anew.

    Args:
        hardware: as `detect` chose it.

    Example:
        >>> spare_busy_cores(detect("cpu", threads=1, compile=False))  # asked for: nothing changes
    """
    if hardware.yielding and hardware.threads > 1 and not hardware.compile:
        torch.set_num_threads(min(hardware.threads, free_cores()))


def _keep_freed_memory() -> None:
    """Have glibc keep freed memory, where the next step's tensors find its pages mapped."""
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        for setting in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
            mallopt(setting, 1 << 30)


def cpu_name() -> str:
    """The processor's own name, as the operating system reports it.

    >>> bool(cpu_name())
    True
    """
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def free_cores() -> int:
    """Cores of this process's share of the machine that nothing else keeps busy, at least 1.

    Threads wait for each other many times a step, so that a single one on a busy core holds
    up all the rest: one thread alone is faster then. Where the system does not tell, all
    cores count as free.

    Example:
        >>> free_cores() >= 1
        True
    """
    if not Path("/proc/stat").exists():
        return os.cpu_count() or 1
    mine = os.sched_getaffinity(0)
    before = _idle_seconds()
    time.sleep(_LOOK)
    after = _idle_seconds()
    idle = [after[core] - before[core] for core in mine if core in after]
    if not idle:  # a container's own idea of which cores there are
        return len(mine)
    return max(1, sum(share > _LOOK / 2 for share in idle))


def _idle_seconds() -> dict[int, float]:
    """Seconds that each core has been idle since the machine started."""
    ticks = os.sysconf("SC_CLK_TCK")
    rows = (line.split() for line in Path("/proc/stat").read_text().splitlines())
    return {
        int(name[3:]): (int(values[3]) + int(values[4])) / ticks
        for name, *values in rows
        if re.fullmatch(r"cpu\d+", name)
    }


def _has_fast_bf16(device: str) -> bool:
    if device != "cpu":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, check, bool)() for check in checks)


def _can_compile(device: str) -> bool:
    if device != "cpu":  # Triton needs a C compiler for its launchers
        compiler = any(shutil.which(name) for name in ("gcc", "clang", "cc"))
        new = torch.cuda.get_device_capability(device) >= (7, 0)
        return new and compiler and find_spec("triton") is not None
    return os.name == "posix" and any(shutil.which(name) for name in ("g++", "clang++"))
