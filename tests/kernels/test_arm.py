"""The engine on 64-bit ARM, run by QEMU: the bits of x86-64, on a small model and on the real one.

Skipped unless EMBGEMMA_ARM_PROGRAM names tests/kernels/engine/golden.c, compiled for ARM; `make test-arm` compiles it.
"""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

import embgemma
from embgemma.kernels.native import instruction_sets, library_problem
from tests import tiny
from tests.processes import run

if TYPE_CHECKING:
    from collections.abc import Callable

    from embgemma.kernels.model_file import Scheme

PROGRAM = os.environ.get("EMBGEMMA_ARM_PROGRAM")

pytestmark = [
    pytest.mark.skipif(library_problem() is not None, reason=str(library_problem())),
    pytest.mark.skipif(not PROGRAM, reason="the environment variable EMBGEMMA_ARM_PROGRAM is not set"),
]

Vectors = npt.NDArray[np.float32]

# These have a fused multiply-add, and attention in int16 (float32 on a float32 model): all give the same bits.
PORTABLE = ("amx", "avx512vbmi", "avx512vnni", "avxvnni", "avx2", "i8mm", "neondot")

# Instruction sets of ARM, and the oldest CPU that QEMU knows to have each.
ARM = {"neondot": "cortex-a76", "i8mm": "max"}

SCHEMES: tuple[Scheme, ...] = ("int8", "mixed")
TEXTS = [("query", "the cat"), ("", ""), ("document", "été 😀 of and to in is that\n\n\tfor it <h1> " * 3)]
GOLDEN_TOKENS = range(10, 41)  # of a text for the real model: QEMU then takes seconds
GOLDEN_TEXTS = 2


def on_arm(isa: str, model: Path, texts: list[tuple[str, str]], folder: Path) -> Vectors:
    """Vectors (texts, dim) of (prompt name, text)."""
    with (folder / "texts").open("wb") as file:
        for name, text in texts:
            file.write(f"{len(name.encode())} {len(text.encode())}\n{name}\0{text}".encode())
    emulator = [] if platform.machine() == "aarch64" else ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"]
    emulator += ["-cpu", ARM[isa]] if emulator else []
    run(*emulator, PROGRAM, model, folder / "texts", folder / "vectors", env={**os.environ, "EMBGEMMA_ISA": isa})
    return np.fromfile(folder / "vectors", np.float32).reshape(len(texts), -1)


def here(model: Path, texts: list[tuple[str, str]]) -> Vectors:
    """The same on this machine."""
    isa = next((isa.name for isa in instruction_sets() if isa.supported and isa.name in PORTABLE), None)
    if isa is None:
        pytest.skip("this CPU has no fused multiply-add")
    loaded = embgemma.load(model, backend="native", isa=isa)
    return np.stack([loaded.encode(text, prompt_name=name or None) for name, text in texts])


@pytest.mark.parametrize("scheme", ["float32", "int8", "mixed", "int4"])
@pytest.mark.parametrize("isa", ARM)
def test_small_model(isa: str, scheme: Scheme, tmp_path: Path) -> None:
    path = tiny.write_model(tmp_path / "model.safetensors", scheme=scheme)
    np.testing.assert_array_equal(on_arm(isa, path, TEXTS, tmp_path), here(path, TEXTS))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_real_model(scheme: Scheme, converted: Callable[[Scheme], Path], golden: Path, tmp_path: Path) -> None:
    """The golden vectors are as near on ARM as on x86-64, since the vectors are the same."""
    rows: list[dict[str, Any]] = json.loads((golden / "texts.json").read_text("utf-8"))["rows"]
    chosen = [row for row in rows if len(row["ids"]) in GOLDEN_TOKENS][:GOLDEN_TEXTS]
    texts = [(row["prompt"] or "", row["text"]) for row in chosen]
    model = converted(scheme)
    expected = here(model, texts)
    for isa in ARM:
        np.testing.assert_array_equal(on_arm(isa, model, texts, tmp_path), expected)
