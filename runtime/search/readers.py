"""Files to chunks of text, in constant memory: plain text, Markdown, HTML, JSON lines, CSV and TSV."""

from __future__ import annotations

import codecs
import csv
import io
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import chain
from typing import TYPE_CHECKING, BinaryIO

from ..kernels.errors import InputError
from .passages import Chunk
from .records import JSON_LINES, MOST_LINE_BYTES, UTF_16_MARKS, bounded_lines, json_records

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

READ_BYTES = 1 << 16
_CSV = (".csv", ".tsv")
TABLES = (*JSON_LINES, *_CSV)  # files of which a column is read
MOST_TITLE = 100  # characters

# A heading, or what opens or closes a block of code: CommonMark's sections 4.2 and 4.5.
_HEADING = re.compile(r"^ {0,3}(?:#{1,6}[ \t]+(.*)|(`{3,}(?=[^`\n]*$)|~{3,})(.*))$", re.MULTILINE)
_INVISIBLE = {"script", "style", "template"}
_HEADINGS = {"title", "h1", "h2", "h3", "h4", "h5", "h6"}
# Elements inside a line; others end a paragraph.
_INLINE = re.compile(
    "a|abbr|b|bd[io]|cite|code|data|del|dfn|em|font|i|ins|kbd|mark|q|s|samp|small|span|strong|su[bp]|u|var"
)
_DELIMITERS = ",;\t"
_NAMED_DELIMITER = re.compile(r'"?sep=([^\w\s"]|\t)"?\s*', re.IGNORECASE)  # a line that Excel writes and takes


@dataclass
class Faults:
    """What could not be read in a file."""

    first: str = ""
    count: int = 0

    def add(self, line: int, problem: str) -> None:
        """Takes one."""
        self.first = self.first or f"line {line}: {problem}"
        self.count += 1

    def stop(self, problem: str) -> None:
        """Takes the one that ends the reading."""
        self.first = problem if not self.first else f"{self.first}; {problem}"
        self.count += 1

    def __str__(self) -> str:
        return self.first + (f" (and {self.count - 1} more)" if self.count > 1 else "")


def read_chunks(stream: BinaryIO, suffix: str, title: str, column: str, faults: Faults) -> Iterator[Chunk]:
    """The text of a file of this suffix; `title` is for what has none of its own, `column` where tables have the text.

    What cannot be read goes to `faults`, and reading goes on. Raises InputError where it cannot go on.
    """
    if stream.read(2) in UTF_16_MARKS:
        raise InputError("it is UTF-16; expected UTF-8: convert it, as with `iconv -f UTF-16 -t UTF-8`")
    stream.seek(0)
    if suffix in JSON_LINES:
        yield from _json_lines(stream, column, faults)
    elif suffix in _CSV:
        yield from _table(stream, suffix, column, faults)
    elif suffix in (".html", ".htm", ".xhtml"):
        yield from _html(stream, title, faults)
    elif suffix in (".md", ".markdown"):
        yield from _markdown(stream, title, faults)
    else:
        for chunk in _decoded(_blocks(stream), faults):
            yield Chunk(chunk.text, chunk.line, chunk.start, title, fresh=chunk.start == 0)


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
    """A file in blocks of whole lines, unless these are very long."""
    while block := stream.read(READ_BYTES) + stream.readline(READ_BYTES):
        yield block


def _decoded(blocks: Iterable[bytes], faults: Faults) -> Iterator[Chunk]:
    """UTF-8 in chunks, one for each block; other bytes become U+FFFD."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")()
    line, start = 1, 0
    for data in blocks:
        try:
            text = decoder.decode(data)
        except UnicodeDecodeError as error:
            byte, before = error.object[error.start], error.object[: error.start]
            faults.add(line + before.count(b"\n"), f"not valid UTF-8: byte {byte:#04x}")
            text = error.object.decode(errors="replace")
            decoder = codecs.getincrementaldecoder("utf-8")()
        yield Chunk(text, line, start)
        line, start = line + text.count("\n"), start + len(text)
    if decoder.getstate()[0]:
        faults.add(line, "not valid UTF-8: the last character is cut")


def _markdown(stream: BinaryIO, title: str, faults: Faults) -> Iterator[Chunk]:
    """A section for each heading, which is its title."""
    fresh, fence = True, ""  # fence: what ends the block of code that we are in
    for chunk in _decoded(_blocks(stream), faults):
        text, line, begin = chunk.text, chunk.line, 0
        for found in chain(_HEADING.finditer(text), [None]):
            if found is not None and found[2]:
                closed = fence and found[2].startswith(fence) and not found[3].strip()
                fence = "" if closed else fence or found[2]
            if found is not None and (found[2] or fence):
                continue
            part = text[begin : len(text) if found is None else found.start()]
            if part.strip():
                yield Chunk(part, line, chunk.start + begin, title, fresh)
                fresh = False
            line, begin = line + part.count("\n"), begin + len(part)
            if found is not None:
                title, fresh = _heading(found[1]) or title, True


def _heading(text: str) -> str:
    """A heading without the marks that may close it."""
    text = text.strip()
    opened = text.rstrip("#")
    return (text if opened and not opened[-1].isspace() else opened.rstrip())[:MOST_TITLE]


def _html(stream: BinaryIO, title: str, faults: Faults) -> Iterator[Chunk]:
    """What a page shows, a chunk for each paragraph and a section for each heading."""
    page, waiting = _Page(title), ""
    for chunk in _decoded(_blocks(stream), faults):
        waiting += chunk.text
        if len(waiting) < len(page.rawdata):  # it reads again what has no end yet, so not too often
            continue
        page.feed(waiting)
        waiting = ""
        if len(page.rawdata) > MOST_LINE_BYTES:
            raise InputError(f"not valid HTML: what begins on line {page.getpos()[0]} has no end")
        yield from page.take()
    page.feed(waiting)
    page.close()
    page.end_paragraph()
    yield from page.take()


class _Page(HTMLParser):
    """Collects the paragraphs of a page."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title, self._fresh = title, True
        self._words: list[str] = []
        self._line, self._start = 1, 0
        self._hidden = ""  # the element that we are in, of those that are not shown
        self._in_heading = False
        self._chunks: list[Chunk] = []

    def take(self) -> list[Chunk]:
        """The paragraphs that have ended."""
        taken, self._chunks = self._chunks, []
        return taken

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002  (HTMLParser's own)
        """See HTMLParser."""
        self._hidden = self._hidden or (tag if tag in _INVISIBLE else "")
        if not _INLINE.fullmatch(tag):
            self.end_paragraph()
        if tag in _HEADINGS:
            self._in_heading = True

    def handle_endtag(self, tag: str) -> None:
        """See HTMLParser."""
        if tag == self._hidden:
            self._hidden = ""
        if not _INLINE.fullmatch(tag):
            self.end_paragraph()
        if tag in _HEADINGS:  # of whatever level, as browsers have it
            self._in_heading = False

    def handle_data(self, data: str) -> None:
        """See HTMLParser."""
        if self._hidden or not data:
            return
        if not self._words and data.strip():
            blank = data[: len(data) - len(data.lstrip())]
            self._line = self.getpos()[0] + blank.count("\n")
        if self._words or data.strip():
            self._words.append(data)
        if len(data) + len(self._words) > READ_BYTES:  # a page without tags
            self.end_paragraph()

    def end_paragraph(self) -> None:
        """Keeps what was collected as a chunk."""
        text = " ".join("".join(self._words).split())
        self._words = []
        if not text:
            return
        if self._in_heading:  # its first paragraph: what follows is text, should it have no end
            self._title, self._fresh, self._in_heading = text[:MOST_TITLE], True, False
        chunk = Chunk(f"{text}\n", self._line, self._start, self._title, self._fresh, has_lines=False)
        self._start, self._fresh = self._start + len(chunk.text), False
        self._chunks.append(chunk)


def _json_lines(stream: BinaryIO, column: str, faults: Faults) -> Iterator[Chunk]:
    for record in json_records(bounded_lines(stream), column, None, skip_blank=True):
        if record.problem is not None:
            faults.add(record.line, record.problem)
        yield from _pieces(record.text, record.line)


def _pieces(text: str, line: int) -> Iterator[Chunk]:
    """A text of its own."""
    if text:
        yield Chunk(text, line, 0, fresh=True, has_lines=False)


class _Lines:
    """The lines of a table, as `csv` wants them: also those that end with a carriage return alone."""

    def __init__(self, stream: BinaryIO, faults: Faults) -> None:
        self._chunks = _decoded(bounded_lines(stream), faults)
        self.next = 1  # number of the line of the file that comes next
        self.ended = False

    def __iter__(self) -> Iterator[str]:
        for chunk in self._chunks:
            for line in io.StringIO(chunk.text, newline=""):
                self.next += line.endswith("\n")
                yield line
        self.ended = True


def _table(stream: BinaryIO, suffix: str, column: str, faults: Faults) -> Iterator[Chunk]:
    """A text for each row, of the column of this name."""
    csv.field_size_limit(max(csv.field_size_limit(), MOST_LINE_BYTES))  # of all of the process: there is no other
    source = _Lines(stream, faults)
    lines = iter(source)
    header = next(lines, "")
    named = _NAMED_DELIMITER.fullmatch(header)
    if named:
        header = next(lines, "")
    rows = csv.reader(chain([header], lines), delimiter=named[1] if named else _delimiter(header, suffix, column))
    line = source.next
    try:
        names = next(rows, [])
        if column not in names:
            found = ", ".join(map(repr, names)) or "none"
            raise InputError(f"it has no column {column!r}, which its texts would be taken from; it has {found}")
        place, line = names.index(column), source.next
        for row in rows:
            if source.ended:  # before the row
                faults.add(line, "a quote in this row is never closed")
            if len(row) > place:
                yield from _pieces(row[place], line)
            elif row:
                faults.add(line, f"{len(row)} columns; expected {len(names)}")
            line = source.next
    except csv.Error as error:
        raise InputError(f"line {line}: not valid CSV: {error}") from error


def _delimiter(header: str, suffix: str, column: str) -> str:
    """What stands between columns: what finds the one of this name, or else the most of them."""
    if suffix == ".tsv":
        return "\t"

    def names(delimiter: str) -> list[str]:
        return next(csv.reader([header], delimiter=delimiter), [])

    return max(_DELIMITERS, key=lambda delimiter: (column in names(delimiter), len(names(delimiter))))
