"""An index follows its files, and finds what is in them."""

from __future__ import annotations

import copy
import os
import pickle
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from embgemma.search import Index, Result
from embgemma.search import update as update_module
from embgemma.search import writer as writer_module

if TYPE_CHECKING:
    import embgemma


def contents(index: Index) -> Any:
    """All that is stored, whatever the order in which it came."""
    sql = (
        "SELECT s.path, p.line, p.last_line, p.start, p.title, p.text, p.hash, v.vector, s.hash, s.gone "
        "FROM passages p JOIN sources s ON s.id = p.source JOIN vectors v ON v.rowid = p.id ORDER BY 1, 2, 4"
    )
    connection = index._store.connection
    assert connection.pragma("integrity_check") == "ok"
    counted = [connection.execute(f"SELECT count(*) FROM {name}").get for name in ("vectors", "passages")]
    rows = connection.execute(sql).fetchall()
    assert counted == [len(rows), len(rows)]
    return rows


def texts_of(index: Index) -> list[str]:
    return sorted(result.passage for result in index.search("the", k=1000))


def test_search_gives_the_nearest_passages(index: Index, folder: Path, model: embgemma.EmbeddingModel) -> None:
    changes = index.update([folder])
    assert (changes.files, changes.changed, changes.embedded, changes.problems, len(index)) == (3, 3, 5, 0, 5)
    results = index.search("and the of", k=100)  # more than there are
    documents = {
        "# One\nthe of and.": ("One", "# One the of and."),
        "# Two\nto be it.": ("Two", "# Two to be it."),
        "is that for it.": ("b", "is that for it."),
        "with by": ("none", "with by"),
        "你好 not on": ("none", "你好 not on"),
    }
    assert {result.passage for result in results} == set(documents)
    query = model.encode_query("and the of")
    for result in results:
        title, text = documents[result.passage]
        vector = model.encode(f"title: {title} | text: {text}")
        assert result.score == pytest.approx(float(query @ vector), abs=0.01)
    assert [result.score for result in results] == sorted((result.score for result in results), reverse=True)
    assert index.search("and the of", k=2) == results[:2]
    two = next(result for result in results if result.title == "Two")
    assert two == Result(str(folder / "a.md"), 4, two.score, "# Two\nto be it.", "Two", 5, 19)


def test_float32_vectors_are_those_of_the_model(tmp_path: Path, folder: Path, model: embgemma.EmbeddingModel) -> None:
    with Index.create(tmp_path / "f.db", model, precision="float32", dim=32) as index:
        index.update([folder / "sub"])
        (found,) = index.search("it")
        vectors = model.encode(["title: b | text: is that for it."], truncate_dim=32, normalize_embeddings=True)
        query = model.encode_query("it", truncate_dim=32, normalize_embeddings=True)
        assert np.isclose(found.score, float(query @ vectors[0]), atol=1e-6)


def test_only_changes_are_embedded(index: Index, folder: Path) -> None:
    index.update([folder])
    before = contents(index)
    changes = index.update([folder, folder / "a.md"])
    assert (changes.files, changes.changed, changes.embedded) == (3, 0, 0)
    assert contents(index) == before

    (folder / "a.md").write_text("# Zero\nnew it.\n\n# Two\nto be it.\n", "utf-8")
    changes = index.update([folder])
    assert (changes.changed, changes.embedded, changes.kept, changes.gone) == (1, 1, 1, 0)
    assert "# One\nthe of and." not in texts_of(index)

    (folder / "sub" / "b.txt").rename(folder / "b.txt")  # moved, and so is its vector
    (folder / "copy.txt").write_bytes((folder / "b.txt").read_bytes())  # another title
    changes = index.update([folder])
    assert (changes.changed, changes.embedded, changes.kept, changes.gone) == (2, 1, 1, 1)

    (folder / "a.md").unlink()
    (folder / "rows.jsonl").write_text('{"text": "with by"}\n', "utf-8")
    changes = index.update([folder])
    assert (changes.changed, changes.embedded, changes.gone) == (1, 0, 1)
    assert texts_of(index) == ["is that for it.", "is that for it.", "with by"]
    contents(index)


def test_what_is_gone_goes_only_from_where_one_looks(index: Index, folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "docs2"  # whose name begins alike
    other.mkdir()
    (other / "o.txt").write_text("other", "utf-8")
    index.update([folder, other])
    (other / "o.txt").unlink()
    assert index.update([folder]).gone == 0
    assert "other" in texts_of(index)
    other.rmdir()
    assert index.update([other], prune=True).gone == 1  # it is in the index, so this is no wrong name
    assert "other" not in texts_of(index)
    with pytest.raises(ValueError, match="there is no such file or folder"):
        index.update([other])


@pytest.mark.parametrize("again", [False, True])
def test_passages_that_change_places_stay(index: Index, folder: Path, *, again: bool) -> None:
    """A passage leaves one file for another within a transaction, in either order of the files."""
    (folder / "a.txt").write_text("one.\n", "utf-8")
    (folder / "z.txt").write_text("two.\n", "utf-8")
    (folder / "a.md").write_text("# T\none\n", "utf-8")
    (folder / "z.md").write_text("# T\ntwo\n", "utf-8")
    index.update([folder])
    (folder / ("z.md" if again else "a.md")).write_text(f"# T\n{'one' if again else 'two'}\n# T\nx", "utf-8")
    (folder / ("a.md" if again else "z.md")).write_text(f"# T\n{'two' if again else 'one'}\n", "utf-8")
    assert index.update([folder]).embedded == 1
    contents(index)


def test_what_is_left_out(index: Index, folder: Path, tmp_path: Path) -> None:
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "h.txt").write_text("hidden", "utf-8")
    (folder / ".h").write_text("hidden", "utf-8")
    (folder / "loop").symlink_to(folder)
    (folder / "link.txt").symlink_to(folder / "a.md")
    (folder / "gone").symlink_to(folder / "nowhere")
    (folder / "data.bin").write_bytes(b"PK\0\0")
    os.mkfifo(folder / "pipe")
    (folder / "empty").mkdir()
    (folder / "empty.txt").touch()
    (folder / "in.db").symlink_to(tmp_path / "notes.db")
    (folder / "bad.txt").write_bytes(b"good\n\xff\n")
    said: list[str] = []
    changes = index.update([tmp_path], tell=said.append)
    assert changes.skipped == Counter(hidden=2, links=4, special=1, binary=1)
    assert (changes.files, changes.problems) == (5, 1)
    assert said == [f"{folder}/bad.txt: line 2: not valid UTF-8: byte 0xff"]
    assert index.update([folder / "link.txt", folder / "empty"]).changed == 1  # a link that is named is followed
    (tmp_path / "other").symlink_to(tmp_path)  # where its own files have another name
    assert index.update([tmp_path / "other"]).files == 5
    with pytest.raises(ValueError, match="neither a file nor a folder"):
        index.update([folder / "pipe"])


def test_a_file_with_faults_is_told_each_time(index: Index, folder: Path) -> None:
    (folder / "t.csv").write_text("a,b\n1,2\n", "utf-8")
    for column, problems in (("text", 1), ("text", 1), ("b", 0), ("text", 1)):
        said: list[str] = []
        assert index.update([folder / "t.csv"], column=column, tell=said.append).problems == problems == len(said)
        assert len(index) == 1 - problems


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_cannot_be_read_stays(index: Index, folder: Path) -> None:
    index.update([folder])
    (folder / "a.md").chmod(0)
    assert index.update([folder]).problems == 1
    assert len(index) == 5


@pytest.mark.parametrize("unread", ["docs", "docs/sub", "docs/sub/b.txt"])
def test_what_cannot_be_looked_at_stays(
    index: Index, folder: Path, monkeypatch: pytest.MonkeyPatch, unread: str
) -> None:
    index.update([folder])
    (folder / "a.md").unlink()
    scandir, lstat, place = os.scandir, Path.lstat, folder.parent / unread

    def refusing(call: Any) -> Any:
        def refused(path: Any) -> Any:
            if Path(path) == place:
                raise PermissionError(13, "Permission denied", str(path))
            return call(path)

        return refused

    monkeypatch.setattr(os, "scandir", refusing(scandir))
    monkeypatch.setattr(Path, "lstat", refusing(lstat))
    changes = index.update([folder])
    assert (changes.problems, changes.gone, len(index)) == (1, unread != "docs", 5 if unread == "docs" else 3)


@pytest.mark.parametrize("empty", [False, True])
def test_a_folder_that_lost_all_is_kept_until_pruned(
    index: Index, folder: Path, tmp_path: Path, *, empty: bool
) -> None:
    index.update([folder])
    folder.rename(tmp_path / "moved")
    if empty:
        folder.mkdir()
    said: list[str] = []
    changes = index.update([folder], tell=said.append)
    assert (changes.problems, changes.gone, len(index)) == (1, 0, 5)
    kept = "it is missing or empty; the index keeps what it had of it, 3 files, until `prune` (--prune) is given"
    assert said == [f"{folder}: {kept}"]
    changes = index.update([folder], prune=True, tell=said.append)
    assert (changes.problems, changes.gone, len(index), len(said)) == (0, 3, 0, 1)


def test_a_file_with_two_names_is_there_once(index: Index, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "one.md").symlink_to(folder / "a.md")
    names = [folder, tmp_path / "link", tmp_path / "one.md"]
    for paths in (names, names[::-1]):
        assert (index.update(paths).files, len(index)) == (3, 5)


def test_a_file_that_vanishes_is_gone(index: Index, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index.update([folder])
    first, count = folder / "a.md", update_module._size

    def size(path: str | Path) -> int:
        first.unlink(missing_ok=True)
        return count(path)

    monkeypatch.setattr(update_module, "_size", size)
    assert index.update([folder]).gone == 1
    assert len(index) == 3


def test_names_of_all_kinds(index: Index, folder: Path) -> None:
    names = [b"\xff\xfe.txt", "zwei 你好.md".encode(), b"esc\x1b[31m\n.txt"]
    paths = [folder / os.fsdecode(name) for name in names]
    for path in paths:
        path.write_bytes(b"the")
    index.update([folder])
    found = {result.path for result in index.search("the", k=100)}
    assert {*map(str, paths)} < found
    assert len(found) == 6
    assert index.update([folder]).changed == 0


def test_texts_that_are_no_files(index: Index, folder: Path) -> None:
    index.update([folder])
    ids = index.add(["the of", "long text. " * 40], metadata=[{"n": 1}, None])
    found = index.search("the", k=100)
    assert {result.path: result.metadata for result in found if result.path in ids} == {ids[0]: {"n": 1}, ids[1]: None}
    assert sum(result.path == ids[1] for result in found) > 3
    assert index.add(["to be"], ids=[str(folder / "a.md")]) == [str(folder / "a.md")]  # not that file
    assert index.add(["now"], ids=[ids[0]]) == [ids[0]]
    assert [(each.passage, each.metadata) for each in index.search("a", k=100) if each.path == ids[0]] == [
        ("now", None)
    ]
    assert index.remove([*ids, "unknown"]) == 2
    index.update([folder])
    assert len(index) == 6
    contents(index)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda index: index.search(3), "query is of type int"),
        (lambda index: index.search(" \n"), "query is empty"),
        (lambda index: index.search("a\ud800"), "lone surrogate"),
        (lambda index: index.search("a", 0), "k=0"),
        (lambda index: index.search("a", 1001), "k=1001"),
        (lambda index: index.add(["a", "b"], ids=["1"]), "2 texts, 1 ids"),
        (lambda index: index.add(["a", "b"], ids=["1", "1"]), "an id is there twice"),
        (lambda index: index.add(["a"], metadata=[{1, 2}]), "metadata has no form in JSON"),
        (lambda index: index.add(["a"], metadata=[{"n": [float("nan")]}]), "metadata has no form in JSON"),
        (lambda index: index.add(["a"], metadata=[float("-inf")]), "metadata has no form in JSON"),
        (pickle.dumps, "an index cannot be copied or pickled; open its file again"),
        (copy.deepcopy, "an index cannot be copied or pickled; open its file again"),
        (lambda index: index.add("a", ids=[b"1"]), r"inputs\[0\] is of type bytes"),
        (lambda index: index.update([b"a"]), "path is of type bytes"),
        (lambda index: index.update(["a\0b"]), "zero character"),
    ],
)
def test_wrong_calls(index: Index, call: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call(index)
    assert len(index) == 0


def test_vectors_fill_their_blocks(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "MOST_EMPTY_ROWS", 100)
    texts = [f"the {number}" for number in range(1500)]
    ids = index.add(texts)
    kept = {key: text for number, (key, text) in enumerate(zip(ids, texts, strict=True)) if number % 100 == 0}
    index.remove([key for key in ids if key not in kept])
    assert index._store.connection.execute("SELECT count(*) FROM vectors_chunks").get == 1
    found = index.search("the 100", k=1000)
    assert {result.path: result.passage for result in found} == kept
    contents(index)


def test_a_text_that_is_there_often_takes_few_steps(index: Index, folder: Path) -> None:
    """The work grows as the rows do, in new files and in old ones."""
    steps, counts = [0], []

    def step() -> bool:
        steps[0] += 1
        return False

    index._store.connection.set_progress_handler(step, 100)
    for rows in (500, 2000):
        for more in ("other", "another"):
            (folder / f"{rows}.csv").write_text("text\n" + "ok\n" * rows + more, "utf-8")
            steps[0] = 0
            index.update([folder])
            counts.append(steps[0])
    assert counts[2] < 8 * counts[0]
    assert counts[3] < 8 * counts[1]
    contents(index)


def test_threads_take_turns_to_write(index: Index) -> None:
    def add(thread: int) -> int:
        return sum(len(index.add([f"{thread} the {number}"])) for number in range(10))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(add, range(4))) == [10] * 4
    assert len(index) == 40


def test_threads_search_while_one_writes(index: Index) -> None:
    stop, errors = threading.Event(), []

    def search() -> None:
        try:
            while not stop.is_set():
                index.search("the", k=5)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=search) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        index.add([f"text {number}" for number in range(300)])
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert len(index) == 300
