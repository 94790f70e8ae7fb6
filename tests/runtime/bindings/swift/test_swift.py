"""The C target of the Swift package: all of the engine, with the flags of Package.swift, compiled by zig for Apple.

The same files give the vectors of this machine where they run: on Linux for ARM, by QEMU. EMBGEMMA_ZIG names zig, as
`make test-swift` sets it; skipped without. No Swift compiler is at hand, so the Swift code is never compiled.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest

import embgemma
from embgemma.find import path_in_the_box
from tests.processes import run

ROOT = Path(__file__).parents[4]
PACKAGE = ROOT / "runtime/bindings/swift"
FILES = sorted((PACKAGE / "Sources/CEmbgemma").glob("*.c"))
MANIFEST = (PACKAGE / "Package.swift").read_text("utf-8")
ZIG = os.environ.get("EMBGEMMA_ZIG", "")
needs_zig = pytest.mark.skipif(not ZIG, reason="the environment variable EMBGEMMA_ZIG is not set")

NOT_OF_APPLE = r"platform/(windows|wasm|wasm_enter)\.c|.*(amx|avx512|avxvnni|wasm).*"
GOLDEN = "tests/kernels/engine/golden.c"


def test_every_source_is_included_once() -> None:
    included = re.findall(r'^#include "(.*\.c)"', "\n".join(file.read_text("utf-8") for file in FILES), re.MULTILINE)
    kernels = ROOT / "kernels"
    parts = ("common", "engine", "isa", "model", "platform", "tokenizer")
    sources = {path.relative_to(kernels).as_posix() for part in parts for path in (kernels / part).rglob("*.c")}
    assert sorted(included) == sorted(name for name in sources if not re.fullmatch(NOT_OF_APPLE, name))


def test_version_is_that_of_the_project() -> None:
    project = re.search(r'^version = "(.*?)"', (ROOT / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    assert project is not None
    assert f'.define("EG_VERSION", to: "\\"{project[1]}\\"")' in MANIFEST


def compile_for(target: str, *arguments: object) -> None:
    listed = re.search(r"unsafeFlags\(\[(.*)\]\)", MANIFEST)
    assert listed is not None
    flags = [flag for flag in re.findall(r'"(.*?)"', listed[1]) if flag != "-I"]
    run(ZIG, "cc", "-target", target, "-std=c11", "-Ikernels", '-DEG_VERSION="0"', *flags, *arguments, cwd=ROOT)


@needs_zig
@pytest.mark.parametrize("target", ["aarch64-macos.11.0", "x86_64-macos.11.0"])
def test_a_program_for_macos_links(target: str, tmp_path: Path) -> None:
    compile_for(target, "-Wall", "-Wextra", "-Werror", *FILES, GOLDEN, "-o", tmp_path / "golden")


@needs_zig
def test_files_compile_for_ios(tmp_path: Path) -> None:
    """With the headers of macOS, since zig has none of iOS."""
    headers = run(ZIG, "env", capture_output=True, encoding="utf-8", cwd=ROOT).stdout
    library = re.search(r'lib_dir"?\s*[=:]\s*"(.*?)"', headers)
    assert library is not None
    for file in FILES:
        compile_for(
            "aarch64-ios", "-isystem", f"{library[1]}/libc/include/any-darwin-any", "-c", file, "-o", tmp_path / "o"
        )


@needs_zig
@pytest.mark.parametrize("isa", ["i8mm", "neondot"])
def test_vectors_on_arm(isa: str, tmp_path: Path) -> None:
    program, texts = tmp_path / "golden", ["the cat", "été 😀 of and to in is that"]
    compile_for("aarch64-linux-musl", "-D_GNU_SOURCE=", *FILES, GOLDEN, "-o", program)
    (tmp_path / "texts").write_text("".join(f"0 {len(text.encode())}\n\0{text}" for text in texts), encoding="utf-8")
    environment = {**os.environ, "EMBGEMMA_ISA": isa}
    files = (path_in_the_box(), tmp_path / "texts", tmp_path / "vectors")
    run("qemu-aarch64", "-cpu", "max", program, *files, env=environment)
    expected = embgemma.load(backend="native").encode(texts)
    np.testing.assert_array_equal(np.fromfile(tmp_path / "vectors", np.float32).reshape(expected.shape), expected)
