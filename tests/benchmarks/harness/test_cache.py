"""The cache of files that are made for the benchmark: another maker, another file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from embgemma.benchmarks.harness import cache
from embgemma.benchmarks.harness.cache import cached


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of one file and one folder."""
    folder = tmp_path / "package"
    (folder / "inner").mkdir(parents=True)
    (folder / "one.py").write_text("1")
    (folder / "inner" / "two.py").write_text("2")
    monkeypatch.setattr(cache, "PACKAGE", folder)
    return folder


def make(folder: Path, content: str, packages: tuple[str, ...] = ()) -> Path:
    return cached(folder / "x" / "file", lambda path: path.write_text(content), ["one.py", "inner/*.py"], packages)


def test_what_is_made_stays_until_its_makers_change(package: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    (kept / "x-other.0123").mkdir(parents=True)
    assert make(kept, "first").read_text() == "first"
    assert make(kept, "again").read_text() == "first"
    for i, changed in enumerate([package / "one.py", package / "inner" / "two.py", package / "inner" / "new.py"]):
        changed.write_text("changed")
        assert make(kept, f"changed {i}").read_text() == f"changed {i}"
    assert make(kept, "pytest", ("pytest",)).read_text() == "pytest"
    assert sorted(path.name.partition(".")[0] for path in kept.iterdir()) == ["x", "x-other"]


def test_what_a_killed_process_left_is_removed(package: Path, tmp_path: Path) -> None:
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    others = [f".x-{os.getppid()}", f".y-{killed.pid}"]  # of a process that runs, and of another folder
    for name in (f".x-{killed.pid}", *others):
        (tmp_path / name).mkdir()
    made = make(tmp_path, "new").parent
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, package.name, made.name])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing(number: int, package: Path, tmp_path: Path) -> None:
    code = f"""
import os, pathlib
from embgemma.benchmarks.harness import cache, command
command.clean_up_when_ended()
cache.cached(pathlib.Path({str(tmp_path / "x" / "file")!r}), lambda made: os.kill(os.getpid(), {int(number)}), [])
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 128 + number
    assert [path.name for path in tmp_path.iterdir()] == [package.name]


def test_what_fails_leaves_nothing(package: Path, tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        cached(tmp_path / "x" / "file", fail, ["one.py"])
    assert [path.name for path in tmp_path.iterdir()] == [package.name]
