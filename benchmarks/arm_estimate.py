"""Estimates what a text takes on 64-bit ARM, where there is no such machine to measure on.

    python -m embgemma.benchmarks.arm_estimate MODEL PROGRAM

PROGRAM is tests/kernels/golden.c for ARM: `make test-arm` leaves it in build/arm/golden. For each core:

- llvm-mca says how many cycles an iteration of each inner loop takes, as GCC compiles it, with all data at hand;
- QEMU counts the instructions of a text of 256 tokens; those outside the inner loops run at an assumed rate.

So these are estimates for one thread that never waits for memory, and no better than LLVM's models of the cores.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from ..kernels.layout import matrices
from ..model_file import ModelFile, read_model_file
from ..native_tokenizer import NativeTokenizer
from .workload import attention_macs

SOURCES = Path(__file__).resolve().parent.parent / "kernels"
PLUGIN = Path(__file__).resolve().with_name("arm_instructions.c")
COMPILER = ("aarch64-linux-gnu-gcc", "-std=c11", "-O3", "-fPIC", "-ffp-contract=off", "-fno-math-errno")
EMULATOR = ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", "-cpu", "max")
FEATURES = "+dotprod,+i8mm,+bf16"
NEWEST_LLVM, OLDEST_LLVM = 30, 14
ITERATIONS = 300  # of a loop in llvm-mca: what surrounds it no longer counts
TOKENS = 256
WORD = "river"  # a token


@dataclass(frozen=True)
class Loop:
    """An inner loop: that of `function` with the most of an instruction (a pattern), each for `macs` products."""

    source: str
    function: str
    instruction: str
    macs: int


ROWS = 64  # a tile's, in matmul_*.c: they share unpacked weights of int4
LOOK_UP = r"tbl\t.* - "  # with a table of 4 registers
UNPACK = {isa: Loop(f"matmul_{isa}", "int4_tile", LOOK_UP, 16 * ROWS) for isa in ("neondot", "i8mm")}
NEONDOT = Loop("matmul_neondot", "multiply_panel", "sdot", 16)
I8MM = {bits: Loop("matmul_i8mm", f"{bits}_tile", "smmla", 32) for bits in ("int8", "int4")}
INT16 = Loop("attention_neondot", "product", "smlal", 4)
BF16 = Loop("attention_armbf16", "product", "bfmmla", 16)
LOOPS = {  # those that each product goes through, of int8, int4, attention
    "neondot": ((NEONDOT,), (UNPACK["neondot"], NEONDOT), (INT16,)),
    "armbf16": ((I8MM["int8"],), (UNPACK["i8mm"], I8MM["int4"]), (BF16,)),
}


@dataclass(frozen=True)
class Core:
    """A core: its name to LLVM, what it runs, its clock in a product, instructions per cycle outside inner loops."""

    name: str
    llvm: str
    isa: str
    gigahertz: float
    other_rate: float


# The clocks are those of a Raspberry Pi 5 (A76), a Pixel 6 (A55, about; X1), a MacBook Air; V2 is near to Cortex-X3.
CORES = (
    Core("Cortex-A55", "cortex-a55", "neondot", 1.8, 1.0),
    Core("Cortex-A76", "cortex-a76", "neondot", 2.4, 2.0),
    Core("Cortex-X1", "cortex-x1", "neondot", 2.8, 3.0),
    Core("Neoverse V2", "neoverse-v2", "armbf16", 2.8, 3.0),
    Core("Apple M1", "apple-m1", "neondot", 3.2, 3.0),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(prog="arm_estimate", description="Estimates milliseconds on ARM.")
    parser.add_argument("model", type=Path, help="a model file with tokenizer.table")
    parser.add_argument("program", type=Path, help="build/arm/golden")
    options = parser.parse_args(arguments)
    if not PLUGIN.is_file():
        parser.error("this needs the C sources: run it on an editable install, as `pip install -e .` makes")
    macs = macs_of(read_model_file(options.model))
    counts = {isa: count_instructions(options.model, options.program, isa) for isa in LOOPS}
    sys.stdout.write("\n".join([*count_lines(counts), "", *estimate_lines(macs, counts)]) + "\n")
    return 0


def macs_of(model: ModelFile) -> tuple[int, int, int]:
    """What a text of TOKENS tokens takes, by loop: (int8, int4, attention) multiply-accumulates."""
    config = model.config
    by_dtype = {np.dtype(np.int8): 0, np.dtype(np.uint8): 0}
    for spec in matrices(config):
        if spec.name != "head":
            by_dtype[model.tensors[f"{spec.name}.weight"].dtype] += spec.out_features * spec.in_features * TOKENS
    return by_dtype[np.dtype(np.int8)], by_dtype[np.dtype(np.uint8)], attention_macs(config, TOKENS)


def run(
    *command: object, text: str = "", environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A program that must succeed, and what it printed."""
    return subprocess.run(  # noqa: S603 - compilers, QEMU and our own program
        [str(word) for word in command],
        check=True,
        capture_output=True,
        text=True,
        input=text,
        env={**os.environ, **(environment or {})},
    )


# ---- instructions, by QEMU ------------------------------------------------------------------------------------------


def count_instructions(model: Path, program: Path, isa: str) -> int:
    """Instructions of a text of TOKENS tokens: those of two texts less those of one, loading and all."""
    text = text_of(read_model_file(model))
    record = f"0 {len(text)}\n\0{text}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plugin = folder / "plugin.so"
        run("cc", "-O2", "-shared", "-fPIC", PLUGIN, "-o", plugin)
        counts = []
        for texts in (1, 2):
            (folder / "texts").write_text(record * texts)
            alone = ("taskset", "-c", min(os.sched_getaffinity(0)))  # on one core, it has one thread, and none waits
            counting = (*EMULATOR, "-plugin", plugin, "-d", "plugin")
            ran = run(
                *alone, *counting, program, model, folder / "texts", os.devnull, environment={"EMBGEMMA_ISA": isa}
            )
            counts.append(int(ran.stderr.rpartition("instructions: ")[2]))
    return counts[1] - counts[0]


def text_of(model: ModelFile) -> str:
    """A text of TOKENS tokens."""
    text = " ".join([WORD] * (TOKENS - 2))
    if model.tokenizer_table is None:
        raise SystemExit("the model file lacks tokenizer.table; convert the checkpoint again")
    tokenizer = NativeTokenizer(model.tokenizer_table, model.config.bos_id, model.config.eos_id)
    found = len(tokenizer.encode(text, 2 * TOKENS).ids)
    if found != TOKENS:
        raise SystemExit(f"the text has {found} tokens with this tokenizer; expected {TOKENS}")
    return text


# ---- cycles of inner loops, by llvm-mca -----------------------------------------------------------------------------


@cache
def body_of(loop: Loop) -> tuple[str, ...]:
    """The instructions of an inner loop."""
    march = "armv8.2-a+dotprod" if loop.source.endswith("neondot") else "armv8.2-a+dotprod+i8mm+bf16"
    assembly = run(*COMPILER, f"-march={march}", "-S", "-o", "-", SOURCES / f"{loop.source}.c").stdout
    function = re.search(rf"^{loop.function}:\n(.*?)^\t\.size\t{loop.function}", assembly, re.MULTILINE | re.DOTALL)
    best: tuple[str, ...] = ()
    loops = re.finditer(r"^(\.L\w+):\n((?:(?!\.L\w+:).*\n)*?\tb\.?\w*\t\1\n)", function[1] if function else "", re.M)
    for block in loops:
        body = tuple(line for line in block[2].splitlines() if re.match(r"\t[a-z]", line))
        if macs_in(loop, body) > macs_in(loop, best):
            best = body
    if not best:
        raise SystemExit(f"found no loop with {loop.instruction!r} in {loop.source}.c")
    return best


def macs_in(loop: Loop, body: Sequence[str]) -> int:
    """How many multiply-accumulates an iteration serves."""
    return loop.macs * sum(re.match(rf"\t{loop.instruction}", line) is not None for line in body)


@cache
def cycles_of(loop: Loop, cpu: str) -> float:
    """Cycles of an iteration."""
    names = [f"llvm-mca-{version}" for version in range(NEWEST_LLVM, OLDEST_LLVM - 1, -1)]
    tool = next(filter(shutil.which, [*names, "llvm-mca"]), "llvm-mca")
    options = ("-mtriple=aarch64", f"-mcpu={cpu}", f"-mattr={FEATURES}", f"-iterations={ITERATIONS}")
    report = run(tool, *options, text="\n".join(body_of(loop)) + "\n")
    cycles = re.search(r"^Total Cycles: +(\d+)", report.stdout, re.MULTILINE)
    if cycles is None:
        raise SystemExit(f"{tool} does not know {cpu}: {report.stderr.strip()}")
    return int(cycles[1]) / ITERATIONS


# ---- the tables -----------------------------------------------------------------------------------------------------


def cycles_a_mac(loops: Sequence[Loop], cpu: str) -> float:
    """Cycles of a multiply-accumulate that goes through these loops."""
    return sum(cycles_of(loop, cpu) / macs_in(loop, body_of(loop)) for loop in loops)


def instructions_a_mac(loops: Sequence[Loop]) -> float:
    """Its instructions."""
    return sum(len(body_of(loop)) / macs_in(loop, body_of(loop)) for loop in loops)


def count_lines(counts: dict[str, int]) -> list[str]:
    """Instructions per token."""
    return [f"{isa}: {count / TOKENS / 1e6:.2f} million instructions a token" for isa, count in counts.items()]


def estimate_lines(macs: tuple[int, int, int], counts: dict[str, int]) -> list[str]:
    """The table."""
    lines = [
        f"| core | GHz | runs | int8 loops | int4 loops | attention | estimate for {TOKENS} tokens |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: |",
    ]
    for core in CORES:
        parts = LOOPS[core.isa]
        inside = sum(count * instructions_a_mac(loops) for count, loops in zip(macs, parts, strict=True))
        cycles = sum(count * cycles_a_mac(loops, core.llvm) for count, loops in zip(macs, parts, strict=True))
        cycles += max(0.0, counts[core.isa] - inside) / core.other_rate
        rates = [f"{1 / cycles_a_mac(loops, core.llvm):.0f}" for loops in parts]
        lines.append(
            f"| {core.name} | {core.gigahertz} | `{core.isa}` | {' | '.join(rates)} "
            f"| {cycles / core.gigahertz / 1e6:.0f} ms |"
        )
    return [*lines, "", "Loops: multiply-accumulates a cycle."]


if __name__ == "__main__":
    sys.exit(main())
