"""Every format gives its text with lines, titles and places; what cannot be read is named."""

from __future__ import annotations

import io

import pytest

from embgemma.search.passages import Chunk, passages
from embgemma.search.readers import READ_BYTES, Faults, read_chunks

HTML = """<!doctype html><html><head><title>My &amp; page</title>
<style>p { color: red }</style><script>if (a < b) { alert("<p>no") }</script></head>
<body><h1>Cats
are animals</h1>
<p>Cats &amp; <b>dog</b>s sleep.<br>A lot.</p><h2>Nothing here</h2>
<h2>Water</h2><ul><li>one<li>two</ul><template>no</template></body></html>"""
CATS = "Cats are animals\nCats & dogs sleep.\nA lot."
LONG = 3 * READ_BYTES
IMAGE = [("file", "a\nb\nc", 1, 3)]


def chunks_of(content: bytes | str, suffix: str, faults: Faults | None = None, column: str = "text") -> list[Chunk]:
    stream = io.BytesIO(content.encode() if isinstance(content, str) else content)
    return list(read_chunks(stream, suffix, "file", column, faults or Faults()))


def sections(content: bytes | str, suffix: str) -> list[tuple[str, str, int, int]]:
    """Title, text, and first and last line of each section."""
    found = passages(chunks_of(content, suffix), lambda texts: [0] * len(texts), 10_000, 0)
    return [(each.title, each.text, each.line, each.last_line) for each in found]


@pytest.mark.parametrize(
    ("suffix", "content", "expected"),
    [
        ("", "\ufeffone\n\ntwo\n", [("file", "one\n\ntwo", 1, 3)]),
        (
            ".md",
            "no\n# One\r\na\r\n## *Two* ##\nb\n\n### C#\nc\n",
            [
                ("file", "no", 1, 1),
                ("One", "# One\r\na", 2, 3),
                ("*Two*", "## *Two* ##\nb", 4, 5),
                ("C#", "### C#\nc", 7, 8),
            ],
        ),
        (
            ".md",
            "# Alone\n## Code\n```sh\n# no heading\n~~~\n```\n# End\nx",
            [
                ("Alone", "# Alone", 1, 1),
                ("Code", "## Code\n```sh\n# no heading\n~~~\n```", 2, 6),
                ("End", "# End\nx", 7, 8),
            ],
        ),
        (
            ".html",
            HTML,
            [
                ("My & page", "My & page", 1, 1),
                ("Cats are animals", CATS, 3, 5),
                ("Nothing here", "Nothing here", 5, 5),
                ("Water", "Water\none\ntwo", 6, 6),
            ],
        ),
        (".html", "just text & more", [("file", "just text & more", 1, 1)]),
        (".html", "<script>never ends", []),
        (".html", f"<p>a<img src='data:{'x' * 5 * READ_BYTES}'>b\n<script>{'<p>no' * READ_BYTES}</script>\nc", IMAGE),
        (".jsonl", '{"text": "a\\nb"}\n{"text": ""}\n{"text": "c"}\n', [("", "a\nb", 1, 1), ("", "c", 3, 3)]),
        (".csv", 'id;text\n1;"a ""b"",\nc"\n\n2;d\n', [("", 'a "b",\nc', 2, 2), ("", "d", 5, 5)]),
        (".csv", '"a,b;c;d;e",text\n1,x\n', [("", "x", 2, 2)]),
        (".csv", 'text;"a,b,c"\nx;1\n', [("", "x", 2, 2)]),
        (".csv", "\ufeffsep=|\r\na|text\r\n1|x, y; z\r\n", [("", "x, y; z", 3, 3)]),
        (".csv", 'text,n\n"a\rb",1\n"c\r\nd",2\ne,3\n', [("", "a\rb", 2, 2), ("", "c\r\nd", 3, 3), ("", "e", 5, 5)]),
        (".csv", "text\ra\rb", [("", "a", 1, 1), ("", "b", 1, 1)]),
        (".tsv", "text\tid\na, b\t1\n", [("", "a, b", 2, 2)]),
        *((suffix, "", []) for suffix in ("", ".md", ".html", ".jsonl")),
    ],
)
def test_texts_of_a_format(suffix: str, content: str, expected: list[tuple[str, str, int, int]]) -> None:
    assert sections(content, suffix) == expected


@pytest.mark.parametrize(
    ("suffix", "content", "expected"),
    [
        (".html", "<h1>Zoo</h2><p>Apes</p>", {"Zoo": "Zoo\nApes"}),
        (".html", "<h1>Zoo<p>Apes<p>Bees", {"Zoo": "Zoo\nApes\nBees"}),
        (".html", "<title>Zoo</title><h1></h3>Apes", {"Zoo": "Zoo\nApes"}),
        (
            ".html",
            "<p>a</p><h2>Zoo<p>Apes<p><h2>Sea</h2><p>Fish",
            {"file": "a", "Zoo": "Zoo\nApes", "Sea": "Sea\nFish"},
        ),
        (".html", "<h1>Zoo<br>of all</h1>Apes", {"Zoo": "Zoo\nof all\nApes"}),
        (".html", "<h1>Zoo</h1><h2>Apes<h3>Bees", {"Zoo": "Zoo", "Apes": "Apes", "Bees": "Bees"}),
        (".md", "# Zoo\n\n# Apes", {"Zoo": "# Zoo", "Apes": "# Apes"}),
        (".md", "x" * READ_BYTES + "\n# Zoo\n" + "y" * READ_BYTES, {"Zoo": "# Zoo\n" + "y" * READ_BYTES}),
        (".md", "```a```\n# Zoo", {"file": "```a```", "Zoo": "# Zoo"}),
        (
            ".md",
            "````\n```\n# a\n```` b\n# c\n`````\n# Zoo",
            {"file": "````\n```\n# a\n```` b\n# c\n`````", "Zoo": "# Zoo"},
        ),
        (".md", "~~~ `a`\n```\n# a\n~~~ \r\n# Zoo", {"file": "~~~ `a`\n```\n# a\n~~~", "Zoo": "# Zoo"}),
    ],
)
def test_headings_lose_no_text(suffix: str, content: str, expected: dict[str, str]) -> None:
    assert {title: text for title, text, *_ in sections(content, suffix)}.items() >= expected.items()


@pytest.mark.parametrize("suffix", ["", ".md"])
def test_a_large_file_comes_in_pieces(suffix: str) -> None:
    text = "é你😀 line\n" * 40_000 + "x" * 3 * READ_BYTES + "é" * READ_BYTES
    chunks = chunks_of(text, suffix)
    assert "".join(chunk.text for chunk in chunks) == text
    assert max(len(chunk.text) for chunk in chunks) <= 2 * READ_BYTES
    for chunk in chunks:
        assert text.startswith(chunk.text, chunk.start)
        assert chunk.line == 1 + text[: chunk.start].count("\n")


@pytest.mark.parametrize(
    ("suffix", "content", "texts", "said"),
    [
        ("", b"a\nb\xff\nc", ["a\nb\ufffd\nc"], "line 2: not valid UTF-8: byte 0xff"),
        (".md", b"a\n# \xe4\nb", ["a\n", "# \ufffd\nb"], "line 2: not valid UTF-8: byte 0xe4"),
        (".txt", b"a\xc3", ["a"], "line 1: not valid UTF-8: the last character is cut"),
        (".jsonl", b'{}\n\n{"text": "a"}\n[1]\n', ["a"], "line 1: field 'text' is missing; the fields are none (and 1"),
        (".ndjson", b'\xef\xbb\xbf\r\n{"text": "a"}\n \t\n\n', ["a"], ""),
        (".jsonl", b'{"text": "\\ud800"}\n', [], "line 1: the text has a lone surrogate"),
        (".csv", b"a,text\n1\n2,b\n", ["b"], "line 2: 1 columns; expected 2"),
        (".csv", b'text\na\n"b\nc\n', ["a", "b\nc\n"], "line 3: a quote in this row is never closed"),
        *(
            (".csv", b"a,text\n1,%b\n2,b" % (quote + b"x" * LONG + quote), ["x" * LONG, "b"], "")
            for quote in (b"", b'"')
        ),
    ],
)
def test_faults_are_named_and_the_rest_is_read(suffix: str, content: bytes, texts: list[str], said: str) -> None:
    faults = Faults()
    assert [chunk.text for chunk in chunks_of(content, suffix, faults)] == texts
    assert str(faults).startswith(said)
    assert bool(faults.count) == bool(said)


@pytest.mark.parametrize(
    ("suffix", "content", "said"),
    [
        ("", "a".encode("utf-16"), "UTF-16"),
        (".csv", b"a,b\n1,2\n", "no column 'text', .* it has 'a', 'b'"),
        (".csv", b"", "no column 'text', .* it has none"),
        (".csv", b'text\n"' + (b"a" * READ_BYTES + b"\n") * 256, "line 2: not valid CSV: field larger"),
        (".csv", b"text\n" + b"a" * (17 << 20), "a line has more than"),
        (".csv", b'"\0', "line 1: not valid CSV|no column"),
    ],
)
def test_what_ends_the_reading(suffix: str, content: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        chunks_of(content, suffix)
