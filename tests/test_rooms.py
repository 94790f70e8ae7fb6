"""The architecture: which folder may import which. No import goes up, so no circle closes, and no folder is crowded."""

from __future__ import annotations

import ast
import itertools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
TOP = ("kernels", "runtime", "export", "benchmarks")

# From the bottom up: a file imports from its own folder and from those before a "<", not from neighbours after a comma.
PYTHON = """kernels < kernels/numba_engine < runtime/onnx < runtime < runtime/hub, runtime/search < runtime/server
    < runtime/cli, runtime/integrations,
    export/settings < export/tokenizer < export/vocabulary < export/checkpoint < export/quantise < export
    < export/tiny, export/onnx
    < benchmarks/harness < benchmarks/peers < benchmarks/speed < benchmarks/compare, benchmarks/roofline
    < benchmarks/quality < benchmarks"""
C = """embgemma.h < embgemma_bench.h < platform < common < isa, tokenizer < isa/vector, model < engine
    < program, example.c"""
INSIDE_FUNCTIONS = {("runtime/cli", "export"), ("runtime/cli", "export/onnx"), ("kernels", "kernels/numba_engine")}
INSIDE_FUNCTIONS |= {("runtime/cli", "export/vocabulary")}
INSIDE_FUNCTIONS |= {("runtime", "runtime/hub"), ("runtime/hub", "export"), ("runtime/hub", "export/checkpoint")}
MOST_FILES, MOST_FILES_IN_KERNELS = 22, 26

Arrow = tuple[str, str, Path]  # from a folder, to a folder, in a file


def files(top: str, pattern: str) -> list[Path]:
    return [path for path in (ROOT / top).rglob(pattern) if path.is_file() and "__pycache__" not in path.parts]


def python_arrows(path: Path) -> Iterator[Arrow]:
    tree = ast.parse(path.read_text("utf-8"))
    folder = path.parent.relative_to(ROOT)
    room = "runtime/cli" if path.name == "__main__.py" else folder.as_posix()  # what starts a program is a command
    package = ["embgemma", *folder.parts[folder.parts[0] == "runtime" :]]
    lazy = {inner for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        modules: list[list[str]] = []
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            modules = [[*base, *(node.module or "").split("."), alias.name] for alias in node.names]
        elif isinstance(node, ast.Import):
            modules = [alias.name.split(".") for alias in node.names]
        for to in (folder_of(module[1:]) for module in modules if module[0] == "embgemma"):
            if not (node in lazy and (room, to) in INSIDE_FUNCTIONS):
                yield room, to, path


def folder_of(module: list[str]) -> str:
    """The folder of a module, or of a name in one, which is given without "embgemma"."""
    place = ROOT if {*module[:1]} & {"kernels", "export", "benchmarks"} else ROOT / "runtime"
    for part in module:
        place = place / part if (place / part).is_dir() else place
    return place.relative_to(ROOT).as_posix()


def c_room(path: str) -> str:
    """The folder of a file in kernels/; a file at the door is a room of its own."""
    return path.rpartition("/")[0] or path


def upward(order: str, arrows: Iterator[Arrow]) -> list[str]:
    """The arrows that do not go down, in words."""
    floor = {folder.strip(): number for number, folders in enumerate(order.split("<")) for folder in folders.split(",")}
    return [f"{path} imports {to}" for room, to, path in arrows if to != room and floor[to] >= floor[room]]


def test_python_imports_from_below() -> None:
    found = (python_arrows(path) for top in TOP for path in files(top, "*.py"))
    assert upward(PYTHON, itertools.chain.from_iterable(found)) == []


def test_c_includes_from_below() -> None:
    sources = [path.relative_to(ROOT / "kernels") for path in files("kernels", "*.[ch]")]
    found = ((path, re.findall(r'#include "(.*)"', (ROOT / "kernels" / path).read_text("utf-8"))) for path in sources)
    arrows = ((c_room(path.as_posix()), c_room(name), path) for path, names in found for name in names)
    assert upward(C, arrows) == []


def test_no_folder_is_crowded() -> None:
    for top in (*TOP, "tests"):
        for folder, count in Counter(path.parent for path in files(top, "*")).items():
            assert count <= (MOST_FILES_IN_KERNELS if folder == ROOT / "kernels" else MOST_FILES), folder
