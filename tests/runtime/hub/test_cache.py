"""Where the cache is, what it lists, and what it removes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from embgemma.cli.main import main
from embgemma.hub import cache
from embgemma.hub.pull import pull
from embgemma.kernels.errors import InputError
from tests.runtime.hub.conftest import COMMITS, NAME

pytestmark = pytest.mark.usefixtures("hub")


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {}, "/home/me/.cache/embgemma"),
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/embgemma"),
        ("linux", {"XDG_CACHE_HOME": "x"}, "/home/me/.cache/embgemma"),
        ("darwin", {"XDG_CACHE_HOME": "/x"}, "/home/me/Library/Caches/embgemma"),
        ("win32", {}, "/home/me/AppData/Local/embgemma"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/embgemma"),
        ("linux", {"EMBGEMMA_HOME": "~/models", "XDG_CACHE_HOME": "/x"}, "/home/me/models"),
        ("linux", {"EMBGEMMA_HOME": ""}, "/home/me/.cache/embgemma"),
    ],
)
def test_home(platform: str, variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EMBGEMMA_HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", platform)
    assert cache.home() == Path(expected)


def test_no_home(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", none)
    for name in ("EMBGEMMA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="set EMBGEMMA_HOME to a folder"):
        cache.home()


def test_a_home_that_is_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("EMBGEMMA_HOME", str(tmp_path / "file"))
    for command in (["cache"], ["cache", "remove", NAME], ["pull", NAME], ["info", NAME]):
        assert main(command) == 2
        assert capsys.readouterr().err.endswith("file, which is no folder; set it to a folder for models\n")


@pytest.mark.parametrize("name", ["", "..", ".", "a/../..", "/", "name"])
def test_only_names_are_removed(tmp_path: Path, name: str) -> None:
    kept = tmp_path / "home" / "models" / "file"
    kept.parent.mkdir(parents=True)
    kept.write_text("x")
    with pytest.raises(InputError, match="is no name on the Hugging Face hub"):
        cache.remove(name)
    assert kept.exists()


def test_list_remove_and_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def output(*arguments: str, code: int = 0) -> Any:
        assert main(["cache", *arguments]) == code
        return capsys.readouterr()

    assert output("path").out == f"{tmp_path / 'home'}\n"
    assert output().err == f"embgemma: nothing is in the cache, {tmp_path / 'home'}\n"
    pull(NAME, "int8", calibrated=False)
    pull(NAME, "int4", calibrated=False)
    pull(NAME, "int4", "next", calibrated=False, keep_checkpoint=True)
    heading, *rows = [line.split() for line in output().out.splitlines()]
    assert heading == ["NAME", "REVISION", "COMMIT", "SCHEME", "SIZE", "LAST", "USED"]
    ours = [[NAME, "main", COMMITS[0][:12], "int8"], [NAME, "main", COMMITS[0][:12], "int4"]]
    assert [row[:4] for row in rows[:3]] == [*ours, [NAME, "next", COMMITS[1][:12], "int4"]]
    assert rows[3][:3] == [NAME, COMMITS[1][:12], "checkpoint"]
    assert output("remove", NAME, "--scheme", "int4", "--revision", "main").err.startswith(
        f"embgemma: removed {NAME} ("
    )
    assert [(entry.scheme, entry.commit) for entry in cache.entries()] == [("int8", COMMITS[0]), ("int4", COMMITS[1])]
    assert "nothing of that is in the cache" in output("remove", NAME, "--scheme", "mixed", code=2).err
    output("remove", NAME, "--revision", "next")
    assert not (tmp_path / "home/models/owner--tiny" / COMMITS[1]).exists()
    output("remove", NAME)
    assert list((tmp_path / "home/models").iterdir()) == []


@pytest.mark.parametrize("arguments", [["remove"], ["list", NAME], ["path", "--scheme", "int8"], ["remove", "../home"]])
def test_wrong_use(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    pull(NAME, "float32")
    assert main(["cache", *arguments]) == 2
    assert capsys.readouterr().err.startswith("embgemma: ")
    assert len(cache.entries()) == 1


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"name": 3}', "null", "\x00"])
def test_a_record_that_is_none(content: str) -> None:
    entry = pull(NAME, "float32")
    entry.record.write_text(content)
    assert cache.entries() == []
    assert main(["cache"]) == 0
    assert pull(NAME, "float32").path == entry.path
    assert len(cache.entries()) == 1
