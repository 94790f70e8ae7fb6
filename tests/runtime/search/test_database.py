"""The file of an index: killed writers, other writers, full disks, other models, and files that are none."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import pytest

import embgemma
from embgemma.search import Index, IndexFileError, database, store
from embgemma.search.vectors import cosine
from embgemma.search.writer import short_hash
from tests import tiny
from tests.runtime.search.test_index import contents

if TYPE_CHECKING:
    from collections.abc import Callable

# Ends itself, without any cleaning up, at a call of this method of a Writer.
KILLED = """
import os, signal, sys
from embgemma.search import Index, writer
method, calls, database, model, folder = sys.argv[1:]
writer.FIRST_BATCH = writer.MOST_BATCH = 2
left, real = int(calls), getattr(writer.Writer, method)
def counted(*arguments):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)
setattr(writer.Writer, method, counted)
with Index.open(database, model) as index:
    index.update([folder])
"""

# Locks the file until its input ends.
HOLDS = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN EXCLUSIVE")
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture
def many(folder: Path) -> Path:
    """The folder with more in it."""
    for number in range(8):
        (folder / f"{number}.txt").write_text(f"text {number}. " * 9, "utf-8")
    return folder


def change(folder: Path) -> None:
    (folder / "0.txt").rename(folder / "sub" / "0.txt")
    (folder / "1.txt").unlink()
    (folder / "2.txt").write_text("text 2. " * 6 + "other words", "utf-8")
    (folder / "new.txt").write_text("all new", "utf-8")


@pytest.mark.parametrize(
    ("method", "calls"),
    [
        ("flush", 1),
        ("_begin", 0),
        ("_put", 0),
        ("_put", 3),
        ("_end", 1),
        ("_remove", 0),
        ("mark_gone", 1),
        ("_pack", 0),
    ],
)
def test_a_killed_writer_loses_nothing(
    index: Index, many: Path, model_path: Path, tmp_path: Path, method: str, calls: int
) -> None:
    index.update([many])
    before = {result.passage for result in index.search("the", k=1000)}
    index.close()
    change(many)
    arguments = [method, str(calls), str(index.path), str(model_path), str(many)]
    done = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False, timeout=120)
    assert done.returncode in (-signal.SIGKILL, 0 if method == "_pack" else None)  # too little is empty for that
    with Index.open(index.path, model_path) as again:
        assert {result.passage for result in again.search("the", k=1000)} & before
        again.update([many])
        assert again.update([many]).changed == 0
        with Index.create(tmp_path / "fresh.db", model_path, passage_tokens=24, overlap=0) as fresh:
            fresh.update([many])
            assert contents(again) == contents(fresh)
    assert sorted(path.name for path in tmp_path.glob("notes.db*")) == ["notes.db"]


def test_one_writer_at_a_time(index: Index, folder: Path, model: embgemma.EmbeddingModel, tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(index.path)
    with Index.open(tmp_path / "link.db", model) as other:

        def write(*_: object) -> None:
            with pytest.raises(IndexFileError, match="another process is writing to this index; wait"):
                other.add(["text"])
            assert other.search("the") == index.search("the")

        index.update([folder], progress=write)
        other.add(["text"])
    assert len(index) == 6


def test_a_transaction_of_another_process(index: Index) -> None:
    index._store.connection.set_busy_timeout(1)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(index.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        for call in (index.search, lambda text: index.add([text])):
            with pytest.raises(IndexFileError, match="another process is using this index"):
                call("text")
        other.communicate()
    index.add(["text"])
    assert len(index) == 1


@pytest.mark.parametrize("table", ["passages", "sources", "vectors_chunks"])
def test_a_search_sees_one_state(index: Index, monkeypatch: pytest.MonkeyPatch, table: str) -> None:
    index.add(["one", "two", "three"])
    found = index.search("one")

    def delete_meanwhile(*arguments: Any) -> float:
        other = apsw.Connection(str(index.path))
        with contextlib.closing(other), pytest.raises(apsw.BusyError):
            other.execute(f"DELETE FROM {table}")
        return cosine(*arguments)

    monkeypatch.setattr(store, "cosine", delete_meanwhile)
    assert index.search("one") == found
    assert len(found) == 3


@pytest.mark.parametrize("was_there", [False, True])
def test_an_index_that_cannot_be_made_leaves_no_file(
    model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, was_there: bool
) -> None:
    path = tmp_path / "new.db"
    if was_there:
        path.touch()
    monkeypatch.setattr(database, "_TABLES", "CREATE TABLE a(b); no SQL;")
    with pytest.raises(IndexFileError):
        Index.create(path, model_path)
    assert [(each, each.stat().st_size) for each in tmp_path.iterdir()] == [(path, 0)] * was_there


def test_full_disk(index: Index, folder: Path) -> None:
    index.update([folder])
    connection = index._store.connection
    pages = connection.pragma("page_count")
    connection.pragma("max_page_count", pages + 2)
    with pytest.raises(IndexFileError, match=r"notes\.db: the disk is full; nothing that was written is lost"):
        index.add([f"{number} the of" for number in range(3000)])
    assert {result.passage for result in index.search("the", k=1000)} >= {"with by", "is that for it."}
    connection.pragma("max_page_count", 1 << 30)
    index.add(["text"])
    contents(index)


@pytest.mark.parametrize("pages", [1, 2, 3, 4, 6])
def test_a_disk_that_is_full_is_no_damage(index: Index, pages: int) -> None:
    """Files stay below a size: SQLite cannot write, and tells sqlite-vec, which tells it in its own words."""
    index.add([f"{number} the of" for number in range(300)])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (pages * 16384, limits[1]))
    try:
        with pytest.raises(IndexFileError, match=r"the disk is full|cannot read or write the file"):
            index.add([f"{number} to be" for number in range(300)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    index.add(["text"])
    contents(index)


@pytest.mark.parametrize(
    "said",
    [
        "Internal sqlite-vec error: could not write vector blob on main.vectors_vector_chunks00.1",
        "Internal sqlite-vec error: Could not insert a new vector chunk",
        "Error inserting rowid into rowids shadow table: database or disk is full",
    ],
)
def test_what_sqlite_vec_says_of_a_full_disk(tmp_path: Path, said: str) -> None:
    with pytest.raises(IndexFileError, match="the disk is full"), database.errors_of(tmp_path):
        raise apsw.SQLError(said)


def test_two_make_one_index(tmp_path: Path, model: embgemma.EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    path, connection = tmp_path / "new.db", database._connection

    def late(*arguments: Any, **options: Any) -> Any:
        if options["new"]:
            with pytest.raises(IndexFileError, match="another process is writing to this index; wait"):
                Index.create(path, model)
        return connection(*arguments, **options)

    monkeypatch.setattr(database, "_connection", late)
    Index.create(path, model).close()
    monkeypatch.undo()
    with Index.open(path, model) as made:
        assert made.add(["text"])


def test_the_model_in_the_box_is_kept_by_name(tmp_path: Path) -> None:
    with embgemma.load() as model, Index.create(tmp_path / "box.db", model) as index:
        assert index.settings.model == "embgemma-tiny"


def test_a_model_without_prompts(tmp_path: Path, model_path: Path) -> None:
    with embgemma.load(model_path) as model:
        model.prompts = {}
        with Index.create(tmp_path / "p.db", model) as index:
            index.add(["text"])
            assert len(index.search("text")) == 1


def test_another_model(index: Index, tmp_path: Path) -> None:
    index.add(["text"])
    other = tiny.write_model(tmp_path / "other.safetensors")
    with pytest.raises(IndexFileError, match=r"notes\.db: another model made this index .* give that model"):
        Index.open(index.path, other)
    with Index.open(index.path) as again:
        assert len(again.search("text")) == 1


def test_a_model_that_moved(tmp_path: Path) -> None:
    model = tiny.write_model(tmp_path / "here.safetensors")
    with Index.create(tmp_path / "notes.db", model, passage_tokens=8) as index:
        index.add(["text"])
    moved = model.rename(tmp_path / "there.safetensors")
    with pytest.raises(IndexFileError, match=r"the model of this index, .*, is gone: give its path by --model"):
        Index.open(index.path)
    with Index.open(index.path, moved) as index:
        assert len(index.search("text")) == 1


def damage_page(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:16384] + bytes(255 - byte for byte in content[16384:]))


def harm_path(path: Path) -> None:
    """Changes the path of a source, and not that in the index of paths."""
    content, name = path.read_bytes(), short_hash(b"text").hex().encode()
    assert content.count(name) == 2
    path.write_bytes(content.replace(name, b"other" + name[5:], 1))


def execute(sql: str) -> Any:
    def run(path: Path) -> None:
        connection = sqlite3.connect(path)
        connection.executescript(sql)
        connection.close()

    return run


@pytest.mark.parametrize("still_open", [False, True])
@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda path: path.write_bytes(b""), "this is no index"),
        (lambda path: path.write_text("some text " * 100, "utf-8"), "this is no index"),
        (lambda path: path.write_bytes(path.read_bytes()[:4096]), "damaged"),
        (damage_page, "damaged"),
        (execute("PRAGMA application_id=0"), "this is no index; expected a file that `embgemma index` made"),
        (execute("PRAGMA user_version=2"), "a newer release made this index .* upgrade embgemma"),
        (
            execute("DELETE FROM settings WHERE name = 'dim'"),
            "the index is damaged .*'dim'.*; remove it, and index again",
        ),
        (execute("UPDATE settings SET value = 'null' WHERE name = 'dim'"), "the index is damaged .its dim is None"),
        (execute("DELETE FROM passages"), "damaged .a passage is incomplete.; remove it"),
        (execute("UPDATE passages SET source = 999"), "damaged"),
        (execute("UPDATE passages SET text = x'ff'"), "damaged"),
        (execute("UPDATE passages SET title = CAST(x'ff' AS TEXT)"), "damaged"),
        (execute("UPDATE passages SET line = 'x'"), "damaged"),
        (execute("UPDATE passages SET text = 'tezt'"), "damaged .a passage is not what was embedded"),
        (harm_path, "damaged"),
        (execute("UPDATE sources SET metadata = '{bad'"), "damaged"),
        (execute("UPDATE sources SET path = 5"), "damaged"),
        (execute("UPDATE settings SET value = 0 WHERE name = 'passage_tokens'"), "damaged .passage_tokens=0"),
        (execute("UPDATE settings SET value = 1000000 WHERE name = 'passage_tokens'"), "damaged"),
        (execute("UPDATE settings SET value = -3 WHERE name = 'overlap'"), "damaged .overlap=-3"),
        (execute("UPDATE settings SET value = CAST(x'ff' AS TEXT)"), "damaged"),
        (execute("DROP TABLE passages"), "the index is damaged"),
        (lambda path: path.unlink(), "there is no such index; make it with `embgemma index FOLDER -o "),
        (lambda path: (path.unlink(), path.mkdir()), "it is a folder or a device"),
    ],
)
def test_files_that_are_no_index(
    index: Index, model: embgemma.EmbeddingModel, harm: Any, said: str, still_open: bool
) -> None:
    index.add(["text"])
    assert len(index.search("the")) == 1
    if not still_open:
        index.close()
    harm(index.path)
    with pytest.raises(embgemma.EmbgemmaError, match=said):
        (index if still_open else Index.open(index.path, model)).search("the")
    for suffix in ("-lock", "-journal"):
        assert not index.path.with_name(f"notes.db{suffix}").exists()


@pytest.mark.parametrize("put", [os.replace, shutil.copyfile, shutil.copy2])
def test_an_open_index_is_that_which_has_its_place(
    index: Index, model: embgemma.EmbeddingModel, tmp_path: Path, put: Callable[..., object]
) -> None:
    """Both have as many pages and were written to as often, so SQLite may take one for the other."""
    with Index.create(tmp_path / "new.db", model, passage_tokens=20, overlap=0, precision="float32", dim=32) as new:
        for each, text in ((index, "the old"), (new, "the new")):
            each.add([text])
            assert [result.passage for result in each.search("the")] == [text]
    shutil.copyfile(index.path, tmp_path / "old.db")
    put(new.path, index.path)
    assert [result.passage for result in index.search("the")] == ["the new"]
    index.add(["the newest"])
    assert (len(index), index.settings.passage_tokens, index.settings.dim) == (2, 20, 32)
    put(tmp_path / "old.db", index.path)
    index.add(["the newest"])
    assert {result.passage for result in index.search("the")} == {"the old", "the newest"}
    contents(index)


def test_an_open_index_gives_way_to_none_of_another_model(index: Index, tmp_path: Path) -> None:
    index.add(["the old"])
    with Index.create(tmp_path / "new.db", "embgemma-tiny", dim=index.settings.dim) as new:
        new.add(["the new"])
    kept = index.path.rename(tmp_path / "old.db")
    new.path.replace(index.path)
    before = index.path.read_bytes()
    for call in (lambda: index.search("the"), lambda: index.add(["more"]), lambda: len(index)):
        with pytest.raises(IndexFileError, match=r"notes\.db: another model made this index"):
            call()
    assert index.path.read_bytes() == before
    kept.replace(index.path)
    assert [result.passage for result in index.search("the")] == ["the old"]


def replace_by_itself(path: Path) -> None:
    Path(shutil.copyfile(path, f"{path}-new")).replace(path)


@pytest.mark.parametrize("harm", [Path.unlink, replace_by_itself])
def test_a_file_that_goes_while_it_is_written_to(index: Index, many: Path, harm: Callable[[Path], object]) -> None:
    calls = iter([harm])

    def harm_once(*_: object) -> None:
        for call in calls:
            call(index.path)

    with pytest.raises(IndexFileError, match="was removed, moved or replaced while it was written to; run it again"):
        index.update([many], progress=harm_once)


def test_closed(index: Index) -> None:
    index.close()
    index.close()
    with pytest.raises(embgemma.EmbgemmaError, match="the index is closed; open it again"):
        index.search("the")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"dim": 0}, "dim=0"),
        ({"dim": 65}, "dim=65; expected an integer from 1 to 64"),
        ({"precision": "int4"}, "precision='int4'; expected one of 'int8', 'float32'"),
        ({"passage_tokens": 7}, "passage_tokens=7; expected an integer from 8 to"),
        ({"passage_tokens": 64}, "passage_tokens=64"),
        ({"passage_tokens": 8, "overlap": 5}, "overlap=5; expected an integer from 0 to 4"),
    ],
)
def test_wrong_settings(tmp_path: Path, model: embgemma.EmbeddingModel, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(embgemma.InputError, match=said):
        Index.create(tmp_path / "new.db", model, **settings)
    assert not (tmp_path / "new.db").exists()


def test_an_index_is_not_replaced(index: Index, model: embgemma.EmbeddingModel, tmp_path: Path) -> None:
    for path, said in (
        (index.path, "it exists; open it"),
        (tmp_path, "it is a folder"),
        (tmp_path / "no" / "x", "create"),
    ):
        with pytest.raises(embgemma.InputError, match=said):
            Index.create(path, model)
    (tmp_path / "empty.db").touch()
    Index.create(tmp_path / "empty.db", model).close()
