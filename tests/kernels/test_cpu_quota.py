"""Default numbers of threads keep to the CPU quota of a container: C, Numba and ONNX Runtime alike."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from embgemma.kernels.cpu_quota import cpu_quota
from embgemma.kernels.model_file import ModelFile, Scheme
from embgemma.kernels.native import NativeBackend
from tests.processes import true_in_fork

# tests/kernels/platform/test_posix_cpu_quota.c has more of them.
SETTINGS: list[tuple[str, dict[str, str], int | None]] = [
    ("", {}, None),
    ("0::/a\n", {"a/cpu.max": "max 100000\n"}, None),
    ("0::/a/b\n", {"a/cpu.max": "300000 100000\n", "a/b/cpu.max": "100001 100000\n"}, 2),
    ("0::/a/b\n", {"a/cpu.max": "1000 100000\n", "a/b/cpu.max": "max 100000\n"}, 1),
    ("0::/docker/1f/app\n", {"app/cpu.max": "400000 100000\n"}, 4),
    ("0::/../../x\n", {"cpu.max": "200000 100000\n"}, 2),
    ("4:cpuacct,cpu:/x\n0::/\n", {"cpu/cpu.cfs_quota_us": "150000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
    ("2:cpuset,cpuacct:/\n", {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
    ("x\n:\n0::\n0::nowhere\n", {"cpu.max": "0 0\n"}, None),
]


@pytest.mark.parametrize(("groups", "files", "quota"), SETTINGS)
def test_the_least_quota_counts(groups: str, files: dict[str, str], quota: int | None, tmp_path: Path) -> None:
    for name, text in {"proc/self/cgroup": groups, **{f"sys/fs/cgroup/{name}": files[name] for name in files}}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert cpu_quota(tmp_path) == quota


@pytest.fixture
def group_of_one_cpu() -> Iterator[Path]:
    """A real cgroup with the quota of one CPU; skips where this machine does not let us make one."""
    version_1 = Path("/sys/fs/cgroup/cpu").exists()
    group = Path("/sys/fs/cgroup", "cpu" if version_1 else "", f"embgemma-test-{os.getpid()}")
    try:
        group.mkdir()
        (group / ("cpu.cfs_quota_us" if version_1 else "cpu.max")).write_text(
            "100000" if version_1 else "100000 100000"
        )
    except OSError as error:
        if group.exists():
            group.rmdir()
        pytest.skip(f"no cgroup can be made here: {error}")
    yield group
    group.rmdir()


def test_backends_keep_to_the_quota(small_model: Callable[[Scheme], ModelFile], group_of_one_cpu: Path) -> None:
    model = small_model("int8")

    def one_thread() -> bool:
        (group_of_one_cpu / "cgroup.procs").write_text(str(os.getpid()))
        return NativeBackend(model).threads == 1 and cpu_quota() == 1

    assert true_in_fork(one_thread)


def test_numba_keeps_to_the_quota(small_model: Callable[[Scheme], ModelFile], monkeypatch: pytest.MonkeyPatch) -> None:
    numba_backend = pytest.importorskip("embgemma.kernels.numba_engine.numba_backend")
    monkeypatch.setattr(numba_backend, "cpu_quota", lambda: 1)
    model = small_model("int8")
    assert numba_backend.NumbaBackend(model.config, model.tensors).threads == 1
