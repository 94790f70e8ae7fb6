"""The Java API on the JVM of this machine: the vectors of Python, and no fault under load, with JNI's own checks on.

EMBGEMMA_JVM names the folder that `make test-jvm` built it in; skipped without. Checks.java does the work.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from subprocess import PIPE, STDOUT

import numpy as np
import pytest

import embgemma
from embgemma.find import path_in_the_box
from embgemma.kernels.model_file import Scheme
from tests.processes import run

BUILD = os.environ.get("EMBGEMMA_JVM", "")
pytestmark = pytest.mark.skipif(not BUILD, reason="the environment variable EMBGEMMA_JVM is not set")

OFFSET = 68  # of a model file in a package, as in Checks.java
TEXTS = [("query", "the cat"), ("", ""), ("document", "été 😀 of and to\n\n\tfor it <h1> " * 3), ("query", "\0 ∑ end")]
CALLS = 10_000
GOLDEN_TOKENS = 60  # of a text; longer ones take long
PAGE = 16384  # bytes, of the largest pages that Android has


def java(*arguments: object, main: str = "Checks", heap: tuple[str, ...] = ("-Xmx1g",)) -> str:
    """What a program prints."""
    path = f"{BUILD}/embgemma.jar:{BUILD}/tests:{BUILD}/calls.jar"
    opens = "--add-opens=java.base/java.io=ALL-UNNAMED"  # the number of a file descriptor, which Android tells
    options = ("-Xcheck:jni", *heap, opens, f"-Djava.library.path={BUILD}", "-cp", path, main)
    done = run("java", *options, *arguments, check=False, stdout=PIPE, stderr=STDOUT, encoding="utf-8")
    assert done.returncode == 0, done.stdout
    assert "WARNING" not in done.stdout
    return str(done.stdout)


@pytest.fixture(scope="module")
def tiny() -> Path:
    """The model in the box."""
    return path_in_the_box()


def check_vectors(model: Path, texts: list[tuple[str, str]], folder: Path) -> None:
    """Opened by path, descriptor and buffer, the vectors of (prompt name, text) are Python's, to the last bit."""
    package = folder / "package"
    package.write_bytes(bytes(OFFSET) + model.read_bytes() + b"what follows")
    records = [f"{len(name.encode())} {len(text.encode())}\n{name}\0{text}" for name, text in texts]
    (folder / "texts").write_text("".join(records), encoding="utf-8", newline="")
    java("vectors", model, package, folder / "texts", folder / "vectors")
    loaded = embgemma.load(model, backend="native")
    expected = np.stack([loaded.encode(text, prompt_name=name or None) for name, text in texts])
    np.testing.assert_array_equal(np.fromfile(folder / "vectors", np.float32).reshape(expected.shape), expected)


def test_vectors_are_those_of_python(tiny: Path, tmp_path: Path) -> None:
    check_vectors(tiny, TEXTS, tmp_path)


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_golden_texts(scheme: Scheme, converted: Callable[[Scheme], Path], golden: Path, tmp_path: Path) -> None:
    rows = json.loads((golden / "texts.json").read_text("utf-8"))["rows"]
    texts = [(row["prompt"] or "", row["text"]) for row in rows if len(row["ids"]) < GOLDEN_TOKENS]
    check_vectors(converted(scheme), texts, tmp_path)


@pytest.mark.parametrize("check", ["threads", "close", "cancel"])
def test_threads(check: str, tiny: Path) -> None:
    assert "passed" in java(check, tiny)


def test_many_calls(tiny: Path) -> None:
    heap = ("-Xms64m", "-Xmx64m", "-XX:+AlwaysPreTouch")
    assert "passed" in java("calls", tiny, CALLS, heap=heap)


def test_errors(tiny: Path, tmp_path: Path) -> None:
    assert "passed" in java("errors", tiny, tmp_path)


def test_the_library_fits_large_pages_and_exports_what_java_calls() -> None:
    library = Path(BUILD, "libembgemma_jni.so")
    headers = run("readelf", "-lW", library, stdout=PIPE, encoding="utf-8").stdout.splitlines()
    assert {int(line.split()[-1], 16) for line in headers if line.split()[:1] == ["LOAD"]} == {PAGE}
    symbols = run("nm", "-D", "--defined-only", library, stdout=PIPE, encoding="utf-8").stdout.splitlines()
    assert all(line.split()[-1].startswith("Java_org_embgemma_Native_") for line in symbols)


@pytest.mark.skipif(
    not Path(BUILD, "calls.jar").is_file(), reason="npm installs the Kotlin compiler, and there is no npm"
)
def test_kotlin(tiny: Path) -> None:
    texts = ["Venus is Earth's twin.", "Mars is red."]
    query = "Which planet is red?"
    *cosines, error = java(tiny, query, *texts, main="CallsKt").splitlines()
    model = embgemma.load(tiny, backend="native")
    expected = model.encode_document(texts).astype(float) @ model.encode_query(query)
    assert cosines == [f"{cosine:.4f}" for cosine in expected]
    assert error.startswith("nothing: cannot open the file")
