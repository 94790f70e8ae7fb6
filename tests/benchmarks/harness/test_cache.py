"""The cache of files that are made for the benchmark: another maker, another file."""

from __future__ import annotations

from collections.abc import Callable
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


def test_only_what_was_used_last_is_kept(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    (kept / "letters").mkdir(parents=True)
    source = tmp_path / "checkpoint"
    source.mkdir()
    folders = []
    for i in range(4):
        (source / f"weights {i}").touch()  # which makes it another checkpoint
        folders.append(cache.checkpoint_folder(kept, source))
    assert {path.name for path in kept.iterdir()} == {"letters", *(folder.name for folder in folders[-2:])}


def test_the_cache_is_named_and_emptied(tmp_path: Path, bench: Callable[..., str]) -> None:
    (tmp_path / "letters").touch()
    (tmp_path / "vectors").mkdir()
    with (tmp_path / "vectors" / "x.npy").open("wb") as file:
        file.truncate(200_000_000)
    folder = cache.recent_folder(tmp_path / "0123456789abcdef", "*", 9)
    assert f"0.2 GB of models and vectors; `embgemma-bench cache --empty --cache {tmp_path}`" in bench(
        "cache", "--cache", tmp_path
    )
    assert "0.0 GB" in bench("cache", "--cache", tmp_path, "--empty")
    assert not folder.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["letters"]


def test_what_fails_leaves_nothing(package: Path, tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        path.write_text("half")
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        cached(tmp_path / "x" / "file", fail, ["one.py"])
    assert [path.name for path in tmp_path.iterdir()] == [package.name]
