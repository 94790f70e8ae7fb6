"""The machine that a measurement was made on: what it is, and its limits as the engine measures them."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

BUSY_LOAD_PER_CORE = 0.5  # above this load average at the start, timings may be too long


@dataclass(frozen=True)
class Limits:
    """The most that this machine can do, over the threads that were measured.

    Attributes:
        macs_per_second: 8-bit multiply-accumulates with operands in registers.
        bytes_per_second: reading a block of memory as large as the model's weights.
    """

    macs_per_second: float
    bytes_per_second: float


@dataclass(frozen=True)
class Environment:
    """The facts that a reader needs to judge a number; none of them names the machine or its owner."""

    cpu: str
    cores: int
    logical_cores: int
    system: str
    machine: str
    versions: dict[str, str]
    load_average: float | None

    @property
    def busy(self) -> bool:
        """Whether other programs took a large share of the machine in the minute before the measurement."""
        return self.load_average is not None and self.load_average > BUSY_LOAD_PER_CORE * self.logical_cores


def read_environment(packages: tuple[str, ...] = ()) -> Environment:
    """Describes the machine, Python and the versions of embgemma, NumPy and `packages`."""
    versions = {package: package_version(package) for package in ("embgemma", "numpy", *packages)}
    return Environment(
        cpu=_cpu_name(),
        cores=_physical_cores(),
        logical_cores=_logical_cores(),
        system=_system(),
        machine=platform.machine(),
        versions={"Python": platform.python_version(), **versions},
        load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    )


def package_version(package: str) -> str:
    """The number of the version, or that it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _cpu_name() -> str:
    names = [cpu["model name"] for cpu in _cpuinfo() if "model name" in cpu]
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            names = [subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()]  # noqa: S603
    return names[0] if names else platform.processor() or platform.machine()


def _cpuinfo() -> list[dict[str, str]]:
    """One dict a logical CPU, of the fields of /proc/cpuinfo; ARM kernels give few of them."""
    try:
        blocks = Path("/proc/cpuinfo").read_text().split("\n\n")
    except OSError:
        return []
    cpus = [dict(re.findall(r"^(.*?)\s*:[ \t]*(.*)$", block, re.MULTILINE)) for block in blocks]
    return [cpu for cpu in cpus if "processor" in cpu]


def _logical_cores() -> int:
    """Logical CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _physical_cores() -> int:
    """Physical cores among them; the logical number where the system hides them."""
    if platform.system() != "Linux":
        return _logical_cores()
    allowed = os.sched_getaffinity(0)
    cores = {
        (cpu["physical id"], cpu["core id"])
        for cpu in _cpuinfo()
        if int(cpu["processor"]) in allowed and "physical id" in cpu and "core id" in cpu
    }
    return len(cores) or _logical_cores()


def _system() -> str:
    """Operating system and the first two numbers of its version; the rest may name the owner of the build."""
    number = re.match(r"\d+(\.\d+)?", platform.release())
    return f"{platform.system()} {number.group()}" if number else platform.system()
