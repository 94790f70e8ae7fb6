"""What keeps other runtimes from AMX, checked by making the call that it is to refuse."""

from __future__ import annotations

import errno
import os
import platform
from typing import TYPE_CHECKING

import pytest

from embgemma.benchmarks.harness.limit import limits_for
from tests.processes import PYTHON, run

if TYPE_CHECKING:
    from pathlib import Path

# arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) and getpid(), both through syscall().
CALLS = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
assert libc.syscall(39) == os.getpid()
print(libc.syscall(158, 0x1023, 18), ctypes.get_errno())
"""


def test_the_best_instruction_set_sets_no_limit(tmp_path: Path) -> None:
    assert limits_for(None, tmp_path) == limits_for("amx", tmp_path) == {}


@pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="AMX is asked for so on x86-64 Linux only"
)
def test_amx_is_refused_and_other_calls_are_not(tmp_path: Path) -> None:
    limits = limits_for("avx512vnni", tmp_path)
    assert limits["ONEDNN_MAX_CPU_ISA"] == "AVX512_CORE_VNNI"
    done = run(PYTHON, "-c", CALLS, env={**os.environ, **limits}, capture_output=True, text=True)
    assert done.stdout.split() == ["-1", str(errno.EPERM)]
    # Without the library the kernel itself answers, and never so.
    done = run(PYTHON, "-c", CALLS, capture_output=True, text=True)
    assert done.stdout.split() != ["-1", str(errno.EPERM)]
