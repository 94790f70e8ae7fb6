"""Keeps other runtimes to the instruction set that ours was told to use, as far as they let themselves be kept.

oneDNN (OpenVINO, PyTorch) reads a variable. ONNX Runtime and llama.cpp read none; but AMX needs the kernel's
permission, which a small library, loaded before them, refuses in the kernel's stead. They keep AVX-512 in any case.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from typing import TYPE_CHECKING

from ...kernels.errors import EmbgemmaError
from .cache import cached

if TYPE_CHECKING:
    from pathlib import Path

LIMIT_VARIABLE = "ONEDNN_MAX_CPU_ISA"

# Our name -> oneDNN's, for all that are less than everything an x86 CPU can have.
ONEDNN_ISAS = {
    "avx512vbmi": "AVX512_CORE_VNNI",
    "avx512vnni": "AVX512_CORE_VNNI",
    "avxvnni": "AVX2_VNNI",
    "avx2": "AVX2",
}

LIBRARY = "refuse_amx.so"
SOURCE = r"""
/* arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA), made through syscall() as there is no function for it,
 * fails; every other call goes through. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <sys/syscall.h>

enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILEDATA = 18 };

long syscall(long number, ...) {
    static long (*next)(long, ...);
    if (!next) *(void **)&next = dlsym(RTLD_NEXT, "syscall");
    long argument[6];
    va_list arguments;
    va_start(arguments, number);
    for (int i = 0; i < 6; i++) argument[i] = va_arg(arguments, long);
    va_end(arguments);
    if (number == SYS_arch_prctl && argument[0] == ARCH_REQ_XCOMP_PERM && argument[1] == XFEATURE_XTILEDATA) {
        errno = EPERM;
        return -1;
    }
    return next(number, argument[0], argument[1], argument[2], argument[3], argument[4], argument[5]);
}
"""


def limits_for(isa: str | None, folder: Path) -> dict[str, str]:
    """Environment variables that keep a runtime to `isa`; none where ours uses the best one anyway.

    What has to be compiled is kept in `folder`.
    """
    if isa not in ONEDNN_ISAS:
        return {}
    variables = {LIMIT_VARIABLE: ONEDNN_ISAS[isa]}
    if platform.system() == "Linux" and platform.machine() == "x86_64":
        library = cached(folder / "refuse-amx", _compile, ["benchmarks/harness/limit.py"]) / LIBRARY
        preloaded = os.environ.get("LD_PRELOAD")
        variables["LD_PRELOAD"] = f"{library}:{preloaded}" if preloaded else str(library)
    return variables


def _compile(folder: Path) -> None:
    compiler = os.environ.get("CC") or shutil.which("cc")
    if compiler is None:
        raise EmbgemmaError("--isa with --compare needs a C compiler, to keep other runtimes from AMX; none was found")
    source = folder / "refuse_amx.c"
    source.write_text(SOURCE)
    command = [compiler, "-O1", "-shared", "-fPIC", str(source), "-o", str(folder / LIBRARY), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own source
    if done.returncode != 0:
        raise EmbgemmaError(f"{compiler} could not compile the library that refuses AMX: {done.stderr.strip()}")
