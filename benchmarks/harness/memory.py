"""How much memory this process holds, as the operating system counts it."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from pathlib import Path

KIB = 1024


@dataclass(frozen=True)
class Memory:
    """Bytes; None where the operating system does not report it.

    Attributes:
        resident: pages in memory, those that are shared with other processes included.
        private: pages that only this process holds, mapped files that nobody else maps included.
        anonymous: the part of `private` that belongs to no file. The rest are pages of mapped files, such as the
            weights, which the system may drop at any time and read again.
        peak: the largest resident size so far.
    """

    resident: int | None
    private: int | None
    anonymous: int | None
    peak: int | None


def process_memory() -> Memory:
    """The memory of the calling process now."""
    if platform.system() == "Linux":
        # Not getrusage: its peak starts at that of the process that started this one.
        rollup = kib_fields(_shown(Path("/proc/self/smaps_rollup")))
        status = kib_fields(_shown(Path("/proc/self/status")))
        private = rollup["Private_Clean"] + rollup["Private_Dirty"] if rollup else None
        return Memory(rollup.get("Rss"), private, rollup.get("Anonymous"), status.get("VmHWM"))
    if platform.system() == "Darwin":
        import resource

        return Memory(None, None, None, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return Memory(None, None, None, None)


def kib_fields(text: str) -> dict[str, int]:
    """The `Name:  123 kB` lines of a file in /proc, in bytes."""
    lines = re.findall(r"^(\w+):\s*(\d+) kB$", text, re.MULTILINE)
    return {name: int(number) * KIB for name, number in lines}


def _shown(path: Path) -> str:
    """What is in a file; nothing where the kernel hides it."""
    try:
        return path.read_text()
    except OSError:
        return ""
