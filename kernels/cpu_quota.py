"""How many CPUs' time the control groups (cgroups) of this process grant; platform/cpu_quota.c is the same in C."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def cpu_quota(root: Path = Path("/")) -> int | None:
    """The least quota of this process's groups, in CPUs rounded up; None if there is none.

    root is a folder with proc/ and sys/.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return None
    groups = [line.split(":", 2) for line in lines if line.count(":") > 1]
    return min((quota for _, controllers, group in groups for quota in _quotas(root, controllers, group)), default=None)


def _quotas(root: Path, controllers: str, group: str) -> Iterator[int]:
    """The quotas of a group and of those that it lies in."""
    if controllers and "cpu" not in controllers.split(","):
        return
    for place in ("cpu", "cpu,cpuacct") if controllers else ("", "unified"):
        mount = root / "sys/fs/cgroup" / place
        parts = [] if ".." in group.split("/") else [part for part in group.split("/") if part]
        while parts and not mount.joinpath(*parts).exists():
            del parts[0]  # a container may see its own group as the root, while the group's name begins outside
        for depth in range(len(parts) + 1):
            quota = _quota(mount.joinpath(*parts[:depth]), is_version_1=bool(controllers))
            if quota is not None:
                yield quota


def _quota(folder: Path, *, is_version_1: bool) -> int | None:
    """The quota in a group's folder; a quota and its period are in microseconds."""
    names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if is_version_1 else ("cpu.max",)
    try:
        quota, period = map(int, " ".join((folder / name).read_text("ascii") for name in names).split())
    except (OSError, ValueError):  # "max": no limit
        return None
    return -(-quota // period) if quota > 0 and period > 0 else None
