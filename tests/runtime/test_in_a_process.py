"""A model in the life of a process: threads, the exit of the interpreter."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import embgemma
from tests.processes import PYTHON, run

if TYPE_CHECKING:
    from pathlib import Path

BACKENDS = [name for name in ("native", "numba", "reference") if name in embgemma.available_backends()]
LIMIT = 120.0  # seconds for a child, which imports and perhaps compiles

THREADS = """
import pathlib, sys, threading
import embgemma
model = embgemma.load(sys.argv[1], backend=sys.argv[2], threads=1)
count = lambda: (threading.active_count(), len(list(pathlib.Path("/proc/self/task").glob("*"))))
before = count()
for call in (model.encode, model.encode_query, lambda texts: model.encode(texts, show_progress_bar=shown)):
    shown = sys.argv[3] == "bar"
    call(["the of", "and"] * 300)
if before != count():
    sys.exit(f"{before} threads became {count()}: {threading.enumerate()}")
"""

AT_EXIT = """
import atexit, sys
import embgemma
class Holder:
    def __init__(self):
        self.model = embgemma.load(sys.argv[1], backend=sys.argv[2], threads=1)
        self.show = sys.argv[3] == "bar"
        self.me = self  # a circle: freed as the interpreter goes
    def __del__(self):
        print(self.model.encode(["the of"] * 3, show_progress_bar=self.show).shape, flush=True)
holder = Holder()
holder.model.encode("the", show_progress_bar=holder.show)
if sys.argv[4] == "atexit":
    atexit.register(holder.__del__)
"""


@pytest.mark.parametrize("bar", ["bar", "no bar"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_call_starts_no_thread(model_path: Path, backend: str, bar: str) -> None:
    run(PYTHON, "-c", THREADS, model_path, backend, bar, limit=LIMIT)


@pytest.mark.parametrize("moment", ["del", "atexit"])
@pytest.mark.parametrize("bar", ["bar", "no bar"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_call_as_the_interpreter_ends(model_path: Path, backend: str, bar: str, moment: str) -> None:
    done = run(PYTHON, "-c", AT_EXIT, model_path, backend, bar, moment, limit=LIMIT, capture_output=True, text=True)
    if (backend, moment) != ("numba", "del"):  # Numba imports as it runs, which fails by then, but does not hang
        assert "(3, 64)" in done.stdout, done.stderr
