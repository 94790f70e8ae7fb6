"""The search page, as one meets it who types, who uses keys alone, who listens, and who means harm."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from embgemma.cli.main import main
from embgemma.find import IN_THE_BOX
from embgemma.search import Index
from tests import tiny
from tests.runtime.server.browser import Page, open_browser
from tests.runtime.server.conftest import Running, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOSTILE = "</script><script>window.harm = 1</script><img src=x onerror='window.harm = 1'>&lt;b&gt; \u202e\x1b[31m"
NOTES = {
    "bread.md": "# Stale bread\nA loaf of old bread becomes soft again in a warm oven, with a little water on it.",
    "garden.md": "# Tomatoes\nWater the tomatoes in the morning.\nTheir leaves stay dry in the sun.",
    "bicycle.md": "# Bicycle\nThe chain of the bicycle needs oil twice a year.",
    "<img src=x onerror=alert(1)>.txt": HOSTILE,
}
COUNT = "document.querySelectorAll('#results > li').length"
DOWN, UP, ESCAPE, ENTER = ("ArrowDown", 40), ("ArrowUp", 38), ("Escape", 27), ("Enter", 13)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server of an index with the model in the box."""
    folder = tmp_path_factory.mktemp("notes")
    (folder / "docs").mkdir()
    for name, text in NOTES.items():
        (folder / "docs" / name).write_text(text, "utf-8")
    with Index.create(folder / "notes.db", threads=1) as index:
        index.update([folder / "docs"])
        index.add(["A text that is no file."], ids=["note <7>"], metadata=[{"tag": "</script>"}])
    with serving("--index", folder / "notes.db") as running:
        yield running


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with open_browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture
def page(browser: Page, site: Running) -> Iterator[Page]:
    browser.requests.clear()
    browser.open(f"{site.url}/")
    browser.wait("document.activeElement.id === 'query'")  # so one may type at once
    yield browser
    assert browser.problems == []
    assert all(address.startswith((f"{site.url}/", "data:")) for address in browser.requests)


def test_it_finds_while_one_types(page: Page, tmp_path: Path) -> None:
    for part in ("how do I make ", "an old loaf ", "soft again"):
        page.type(part)
    page.wait(f"{COUNT} === 5")
    first = page.value("document.querySelector('#results > li').innerText")
    assert first.startswith("bread.md")
    assert "line" in first
    assert "in a warm oven" in first
    assert page.value("document.getElementById('status').textContent") == "5 passages"
    page.picture(tmp_path / "page.png")
    page.open(page.value("location.href"))  # the address has the query
    page.wait(f"{COUNT} === 5")
    assert page.value("document.getElementById('query').value") == "how do I make an old loaf soft again"
    page.value("document.getElementById('query').select()")
    page.type(" ")
    page.wait(f"{COUNT} === 0")


def test_keys_are_enough(page: Page) -> None:
    page.type("tomatoes")
    page.press(*ENTER)
    page.wait(f"{COUNT} === 5")
    place = "[...document.querySelectorAll('#query, #results > li')].indexOf(document.activeElement)"
    for key, expected in [(UP, 0), (DOWN, 1), (DOWN, 2), (UP, 1), *[(DOWN, i) for i in (2, 3, 4, 5, 5)], (ESCAPE, 0)]:
        page.press(*key)
        assert page.value(place) == expected
    assert page.value("document.getElementById('query').value") == "tomatoes"


def test_a_screen_reader_is_told(page: Page) -> None:
    page.type("tomatoes")
    page.wait(f"{COUNT} === 5")
    heard = page.heard()
    assert ("searchbox", "Search by meaning") in heard
    assert ("list", "Passages found") in heard
    assert ("heading", "garden.md – Tomatoes") in heard
    assert ("StaticText", "5 passages") in heard
    assert any(role == "status" for role, _ in heard)
    assert page.value("document.documentElement.lang") == "en"


def test_passages_are_text_whatever_they_hold(page: Page) -> None:
    page.type("script harm img onerror")
    page.wait(f"{COUNT} === 5")
    assert HOSTILE.strip() in page.value("[...document.querySelectorAll('pre')].map((each) => each.textContent).join()")
    assert page.value("[window.harm, document.querySelectorAll('#results :is(script, img, b)').length]") == [None, 0]


def test_what_is_wrong_is_said(page: Page, site: Running) -> None:
    del site
    page.value("window.fetch = () => Promise.reject(new TypeError())")
    page.type("tomatoes")
    page.wait("document.getElementById('status').textContent === 'The server does not answer.'")


def test_the_call_behind_it(site: Running) -> None:
    answer = site.ask("GET", "/search?q=old%20bread&k=2")
    assert (answer.status, len(answer.json["results"]), answer.json["query"]) == (200, 2, "old bread")
    assert "warm oven" in answer.json["results"][0]["passage"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    everything = site.ask("GET", "/search?q=text&k=100")
    assert everything.body.isascii()
    assert {"tag": "</script>"} in [each["metadata"] for each in everything.json["results"]]
    vectors = site.embed(input="old bread", input_type="query")  # its model answers as well
    assert vectors.status == 200
    assert site.ask("GET", f"/search?q={'%E4%BD%A0' * 4000}").status == 200


@pytest.mark.parametrize("query", ["", "q=", "q=%20", "q=a&k=0", "q=a&k=101", "q=a&k=x", "q=a&k=²", "q=" + "a" * 4001])
def test_searches_that_are_refused(site: Running, query: str) -> None:
    answer = site.ask("GET", f"/search?{query.replace('²', '%C2%B2')}")
    assert answer.status == 400
    assert answer.message


def test_the_page_may_do_nothing_but_ask(site: Running) -> None:
    answer = site.ask("GET", "/")
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert policy["script-src"].startswith("'sha256-")
    assert b"http" not in answer.body
    for path in ("/", "/search?q=a"):
        assert site.ask("GET", path, None, Host="evil.example").status == 403
        assert site.ask("GET", path, None, Origin="https://evil.example").status == 403


def test_a_key_is_in_the_address(browser: Page, tmp_path: Path) -> None:
    with Index.create(tmp_path / "notes.db", threads=1) as index:
        index.add(["The chain of the bicycle needs oil."])
    with serving("--index", tmp_path / "notes.db", "--api-key", "secret") as locked:
        assert locked.ask("GET", "/search?q=a").status == 401
        for address, condition in [
            ("/?q=oil", "document.body.innerText.includes('#key=KEY')"),
            ("/?q=oil#key=secret", f"{COUNT} === 1"),
        ]:
            browser.open("about:blank")
            browser.open(locked.url + address)
            browser.wait(condition)
    browser.problems.clear()  # the browser notes the status 401


def test_an_index_is_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "notes.db"
    Index.create(path, threads=1).close()
    assert main(["serve", str(path)]) == 2
    assert capsys.readouterr().err == f"embgemma: {path} is no model; if it is an index, give it by --index {path}\n"


def test_an_index_that_is_damaged_later(tmp_path: Path) -> None:
    with Index.create(tmp_path / "notes.db", threads=1) as index:
        index.add(["The chain of the bicycle needs oil."])
    with serving("--index", tmp_path / "notes.db") as running:
        with Index.open(tmp_path / "notes.db", threads=1) as index:
            index._store.connection.execute("UPDATE passages SET text = 'another'")
        for _ in range(3):
            answer = running.ask("GET", "/search?q=oil")
            assert answer.status == 503
            assert str(tmp_path) not in json.dumps(answer.json)
        running.process.terminate()
        assert running.process.stderr is not None
        assert running.process.stderr.read().count(b"the index is damaged") == 1


def test_an_index_in_the_place_of_another(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    other = tiny.write_model(tmp_path / "other.safetensors")
    for name, model, dim in (("notes.db", IN_THE_BOX, 64), ("new.db", IN_THE_BOX, 32), ("other.db", other, 64)):
        with Index.create(tmp_path / name, model, dim=dim, threads=1) as index:
            index.add([f"Oil of {name}."])

    def found() -> tuple[int, list[str]]:
        answer = running.ask("GET", "/search?q=oil")
        return answer.status, [each["passage"] for each in answer.json.get("results", [])]

    with serving("--index", path) as running:
        assert found() == (200, ["Oil of notes.db."])
        (tmp_path / "new.db").replace(path)
        assert found() == (200, ["Oil of new.db."])
        kept = path.rename(tmp_path / "kept.db")
        assert found() == (503, [])
        (tmp_path / "other.db").replace(path)
        assert found() == (503, [])
        assert running.embed(input="oil").status == 200
        kept.replace(path)
        assert found() == (200, ["Oil of new.db."])
        running.process.terminate()
        assert running.process.stderr is not None
        first, second = running.process.stderr.read().decode().splitlines()
        assert "there is no such index" in first
        assert "another model made this index" in second
