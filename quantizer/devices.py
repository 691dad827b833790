"""The devices that `quantizer serve` runs jobs on."""

import multiprocessing
import os
import platform
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from quantizer.errors import SpecError, Violation


@dataclass(frozen=True, slots=True)
class Device:
    """`name`: "cpu" or "cuda:N"; memory_bytes 0 where not known."""

    name: str
    description: str
    memory_bytes: int


def find_devices(wanted: str) -> tuple[Device, ...]:
    """The devices that a user names, or all GPUs, or else the CPU.

    Args:
        wanted: "auto", or names separated by commas.

    Raises:
        SpecError: one is not there, or named twice.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted.strip() == "auto":
        names = [f"cuda:{index}" for index in range(gpus)] or ["cpu"]
    else:
        names = [name.strip() for name in wanted.split(",") if name.strip()]
    known = {"cpu", *(f"cuda:{index}" for index in range(gpus))}
    if not names or len(set(names)) < len(names) or not set(names) <= known:
        raise SpecError(
            (Violation("devices", f"--devices {wanted}: name some of {', '.join(sorted(known))}, each once, or auto"),)
        )
    return _described(tuple(names))


def _described(names: tuple[str, ...]) -> tuple[Device, ...]:
    if names == ("cpu",):
        return (_describe("cpu"),)
    # In a process of its own: asking a GPU for its name takes hundreds of megabytes of it, for as long as one lives.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        return tuple(executor.map(_describe, names))


def serves(asked: str, device: str) -> bool:
    """Whether a device may run a job that asked for "auto", "cpu", "cuda" or "cuda:N"."""
    return asked in ("auto", device) or (asked == "cuda" and device.startswith("cuda:"))


def _describe(name: str) -> Device:
    import torch

    if name == "cpu":
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return Device(name, f"{_cpu_model()}, {os.cpu_count()} cores", memory)
    properties = torch.cuda.get_device_properties(name)
    return Device(name, properties.name, properties.total_memory)


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        return platform.machine()
    return platform.machine()


__all__ = ["Device", "find_devices", "serves"]
