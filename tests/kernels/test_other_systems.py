"""The engine on 64-bit ARM, run by QEMU, on Windows, run by Wine, and in node: the bits of Linux on x86-64.

EMBGEMMA_ARM_PROGRAM and EMBGEMMA_WINDOWS_PROGRAM name tests/kernels/engine/golden.c, compiled for these by
`make test-arm` and `make test-windows`; EMBGEMMA_NODE is node, for `make test-wasm`. Skipped without.
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

pytestmark = pytest.mark.skipif(library_problem() is not None, reason=str(library_problem()))

Vectors = npt.NDArray[np.float32]

# These have a fused multiply-add, and attention in int16 (float32 on a float32 model): all give the same bits.
PORTABLE = ("amx", "avx512vbmi", "avx512vnni", "avxvnni", "avx2", "i8mm", "neondot")

# Where each runs: the variable that names the program, and what runs it; for QEMU, the oldest CPU that has the set.
ON_ARM = [] if platform.machine() == "aarch64" else ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"]
PLACES = {
    "neondot": ("EMBGEMMA_ARM_PROGRAM", [*ON_ARM, "-cpu", "cortex-a76"] if ON_ARM else []),
    "i8mm": ("EMBGEMMA_ARM_PROGRAM", [*ON_ARM, "-cpu", "max"] if ON_ARM else []),
    **dict.fromkeys(("avx2", "avxvnni", "avx512vnni", "avx512vbmi"), ("EMBGEMMA_WINDOWS_PROGRAM", ["wine"])),
    **dict.fromkeys(("wasm", "wasmrelaxed"), ("EMBGEMMA_NODE", [])),
}
IN_NODE = Path(__file__).parents[1] / "runtime/bindings/wasm/golden.mjs"

SCHEMES: tuple[Scheme, ...] = ("int8", "mixed")
TEXTS = [("query", "the cat"), ("", ""), ("document", "été 😀 of and to in is that\n\n\tfor it <h1> " * 3)]
GOLDEN_TOKENS = range(10, 41)  # of a text for the real model: QEMU then takes seconds
GOLDEN_TEXTS = 2


def there(isa: str, model: Path, texts: list[tuple[str, str]], folder: Path) -> Vectors:
    """Vectors (texts, dim) of (prompt name, text)."""
    variable, emulator = PLACES[isa]
    program = os.environ.get(variable)
    if program is None:
        pytest.skip(f"the environment variable {variable} is not set")
    supported = [each.name for each in instruction_sets() if each.supported]
    if variable == "EMBGEMMA_WINDOWS_PROGRAM" and isa not in supported:
        pytest.skip(f"this CPU does not have {isa}")
    with (folder / "texts").open("wb") as file:
        for name, text in texts:
            file.write(f"{len(name.encode())} {len(text.encode())}\n{name}\0{text}".encode())
    script = [IN_NODE] if variable == "EMBGEMMA_NODE" else []
    environment = {**os.environ, "EMBGEMMA_ISA": isa, "WINEDEBUG": "-all"}
    run(*emulator, program, *script, model, folder / "texts", folder / "vectors", env=environment)
    return np.fromfile(folder / "vectors", np.float32).reshape(len(texts), -1)


def here(model: Path, texts: list[tuple[str, str]]) -> Vectors:
    """The same on this machine."""
    isa = next((isa.name for isa in instruction_sets() if isa.supported and isa.name in PORTABLE), None)
    if isa is None:
        pytest.skip("this CPU has no fused multiply-add")
    loaded = embgemma.load(model, backend="native", isa=isa)
    return np.stack([loaded.encode(text, prompt_name=name or None) for name, text in texts])


@pytest.mark.parametrize("scheme", ["float32", "int8", "mixed", "int4"])
@pytest.mark.parametrize("isa", PLACES)
def test_small_model(isa: str, scheme: Scheme, tmp_path: Path) -> None:
    path = tiny.write_model(tmp_path / "model.safetensors", scheme=scheme)
    np.testing.assert_array_equal(there(isa, path, TEXTS, tmp_path), here(path, TEXTS))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("isa", PLACES)
def test_real_model(
    isa: str, scheme: Scheme, converted: Callable[[Scheme], Path], golden: Path, tmp_path: Path
) -> None:
    """The golden vectors are as near there as here, since the vectors are the same."""
    rows: list[dict[str, Any]] = json.loads((golden / "texts.json").read_text("utf-8"))["rows"]
    chosen = [row for row in rows if len(row["ids"]) in GOLDEN_TOKENS][:GOLDEN_TEXTS]
    texts = [(row["prompt"] or "", row["text"]) for row in chosen]
    model = converted(scheme)
    np.testing.assert_array_equal(there(isa, model, texts, tmp_path), here(model, texts))
