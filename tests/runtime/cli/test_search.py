"""`embgemma index` and `embgemma search` as a user meets them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from embgemma.cli.main import main
from tests import processes

HOSTILE = "\x1b]0;title\x07 \u202eabc \x9b31m"


@pytest.fixture
def run(capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs the command in this process and in an empty folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def command(*arguments: object) -> tuple[int, str, str]:
        code = main([*map(str, arguments), "--threads", "1"])
        captured = capsysbinary.readouterr()
        return code, captured.out.decode(), captured.err.decode()

    return command


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "a.md").write_text("intro\n\n# The of\nand to\n\nbe it", "utf-8")
    (folder / f"hostile{HOSTILE}.txt").write_text(f"{HOSTILE} 你好", "utf-8")
    return folder


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="every name is Unicode")
@pytest.mark.parametrize("command", [("index", "docs", "-o"), ("search",), ("serve", "--port", "0", "--index")])
def test_sqlite_takes_no_name_of_bytes(run: Any, docs: Path, tmp_path: Path, command: tuple[str, ...]) -> None:
    name = Path(os.fsdecode(b"gr\xfc\xdf.db"))
    if command[0] != "index":
        run("index", docs, "-o", "notes.db")
        (tmp_path / "notes.db").rename(name)
    query = ("the",) if command[0] == "search" else ()
    before = sorted(tmp_path.iterdir())
    code, _, err = run(*command, name, *query)
    assert code == 2
    assert err.endswith("SQLite opens no path that is not UTF-8; rename what is not\n")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has names in Unicode")
def test_names_in_an_ascii_locale(tmp_path: Path) -> None:
    (tmp_path / "zwei 你好.md").write_text("the", "utf-8")
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for command in (("index", tmp_path, "-o", tmp_path / "ü.db"), ("search", tmp_path / "ü.db", "the")):
        done = processes.run(processes.PYTHON, "-m", "embgemma", *command, env=plain, stdout=subprocess.PIPE)
    assert done.stdout.endswith(b"\nthe\n")


def test_from_a_folder_to_results(run: Any, docs: Path, model_path: Path) -> None:
    code, out, err = run("index", docs, "-o", "notes.db", "--model", model_path, "--dim", 32, "--passage-tokens", 30)
    assert (code, out) == (0, "")
    done = "3 passages, 2 files of which 2 new or changed, 3 passages embedded"
    assert err.startswith(f"embgemma: wrote notes.db ({done}, ")

    code, out, err = run("search", "notes.db", "and to")
    assert (code, err) == (0, "")
    assert out.count("\n\n") == 2
    results = dict(result.split("\n", 1) for result in out.removesuffix("\n").split("\n\n"))
    places = {place.rpartition("  ")[0]: text for place, text in results.items()}
    assert places["docs/a.md:1"] == "intro"
    assert places["docs/a.md:3"] == "# The of and to be it"
    assert all(character.isprintable() or character == "\n" for character in out)

    code, out, err = run("search", "notes.db", "and to", "-k", 2, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert (code, err, len(rows)) == (0, "", 2)
    assert out.isascii()
    keys = {"path", "line", "score", "passage", "title", "last_line", "start", "metadata"}
    assert all(set(row) == keys and Path(row["path"]).is_file() for row in rows)

    (docs / "a.md").unlink()
    code, _, err = run("index", docs, "-o", "notes.db")
    assert (code, "(1 passage, 1 file of which 0 new or changed, 1 gone, 0 passages embedded" in err) == (0, True)
    assert run("index", docs, "-o", "notes.db", "-q") == (0, "", "")


def test_an_empty_folder(run: Any, model_path: Path) -> None:
    Path("empty").mkdir()
    assert run("index", "empty", "-o", "notes.db", "--model", model_path)[0] == 0
    assert run("search", "notes.db", "the") == (0, "", "")
    assert run("search", "notes.db", "the", "--json") == (0, "", "")


def test_tables(run: Any, model_path: Path) -> None:
    Path("t.csv").write_text("id,body\n1,the of\n2,and to\n", "utf-8")
    Path("t.jsonl").write_text('{"body": "be it"}\nnot json\n', "utf-8")
    code, _, err = run("index", "t.csv", "t.jsonl", "--column", "body", "-o", "t.db", "--model", model_path)
    assert code == 1
    assert f"embgemma: {Path.cwd() / 't.jsonl'}: line 2: not valid JSON: " in err
    out = run("search", "t.db", "the", "--json")[1]
    assert {(Path(row["path"]).name, row["line"], row["passage"]) for row in map(json.loads, out.splitlines())} == {
        ("t.csv", 2, "the of"),
        ("t.csv", 3, "and to"),
        ("t.jsonl", 1, "be it"),
    }


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("index", "docs", "-o", "new.db", "--model", "none.safetensors"), 1, "none.safetensors: cannot open the file"),
        (("index", "nowhere", "-o", "notes.db"), 2, "nowhere: there is no such file or folder"),
        (("index", "nowhere", "-o", "new.db", "--model", "MODEL"), 2, "nowhere: there is no such file or folder"),
        (("index", "docs", "-o", "notes.db", "--dim", "16"), 2, "was made with --dim 64: leave --dim out"),
        (("index", "docs", "-o", "notes.db", "--passage-tokens", "16"), 2, "was made with --passage-tokens "),
        (("index", "docs", "-o", "docs"), 2, "docs"),
        (("index", "docs", "-o", "no/new.db", "--model", "MODEL"), 2, "the folder "),
        (("search", "none.db", "a"), 2, "none.db: there is no such index; make it with `embgemma index FOLDER -o "),
        (("search", "docs/a.md", "a"), 1, "a.md: this is no index"),
        (("search", "notes.db", "a", "-k", "0"), 2, "k=0; expected an integer from 1 to 1000"),
    ],
)
def test_wrong_use(run: Any, docs: Path, model_path: Path, arguments: tuple[str, ...], code: int, said: str) -> None:
    run("index", docs, "-o", "notes.db", "--model", model_path)
    found, out, err = run(*(str(model_path) if each == "MODEL" else each for each in arguments))
    assert (found, out) == (code, "")
    assert said in err
    assert err.startswith("embgemma: ")
    assert err.count("\n") == 1
    assert not Path("new.db").exists()


@pytest.mark.parametrize("package", ["apsw", "sqlite_vec"])
def test_without_the_packages(run: Any, model_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    Path("t.txt").write_text("the", "utf-8")
    code, out, err = run("index", "t.txt", "-o", "t.db", "--model", model_path)
    assert (code, out) == (2, "")
    assert "an index needs two more packages" in err
    assert "run `pip install apsw sqlite-vec`" in err
    assert not Path("t.db").exists()
