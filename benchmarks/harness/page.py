"""What a command found, as text for a terminal, as Markdown, or as JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

MILLI = 1e3
MEGA = 1e6
GIGA = 1e9
TERA = 1e12
NOTHING = "-"  # a number that does not exist or was not measured
WIDTH = 100  # columns of a terminal

Item = TypeVar("Item")


@dataclass(frozen=True)
class Table:
    """Rows under a header; all but the first `left` columns are aligned to the right."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    left: int = 0

    @classmethod
    def of(
        cls, title: str, items: Iterable[Item], columns: Mapping[str, Callable[[Item], str]], left: int = 0
    ) -> Table:
        """One row an item, one column a header, with the function that gives its cells."""
        return cls(title, list(columns), [[cell(item) for cell in columns.values()] for item in items], left)

    def text(self, markdown: bool) -> str:
        """The title and the table."""
        widths = [max(len(row[i]) for row in (self.header, *self.rows)) for i in range(len(self.header))]

        def line(cells: Sequence[str]) -> str:
            padded = [
                cell.ljust(width) if i < self.left else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
            ]
            return f"| {' | '.join(padded)} |" if markdown else "  ".join(padded).rstrip()

        rule = ["-" * width if i < self.left else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
        title = f"**{self.title}**\n" if markdown else self.title
        return "\n".join([title, line(self.header), *([line(rule)] if markdown else []), *map(line, self.rows)])


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        facts: by name: what was measured, and where.
        tables: those without rows are left out.
        notes: what a reader must know to judge the numbers.
        summary: the one line to remember; it comes last.
    """

    facts: dict[str, str]
    tables: Sequence[Table]
    notes: Sequence[str]
    summary: str = field(default="", kw_only=True)

    def text(self, markdown: bool = False) -> str:
        """The report; the prose of a terminal is at most WIDTH columns wide."""
        width = max(map(len, self.facts), default=0)
        starts = {name: f"- {name}: " if markdown else f"{name.ljust(width)}  " for name in self.facts}
        parts = [
            "\n".join(_entry(starts[name], fact, markdown) for name, fact in self.facts.items()),
            *(table.text(markdown) for table in self.tables if table.rows),
            "\n".join(_entry("- ", note, markdown) for note in self.notes),
            f"**{self.summary}**" if markdown and self.summary else self.summary,
        ]
        return "\n\n".join(part for part in parts if part)


def _entry(start: str, text: str, markdown: bool) -> str:
    return start + text if markdown else textwrap.fill(start + text, WIDTH, subsequent_indent=" " * len(start))


def to_json(found: Any) -> str:
    """A dataclass with its properties, in seconds and bytes."""
    return json.dumps(found, indent=2, default=_plain)


def _plain(value: Any) -> dict[str, Any]:
    derived = [name for name, member in vars(type(value)).items() if isinstance(member, property)]
    return {name: getattr(value, name) for name in (*(one.name for one in dataclasses.fields(value)), *derived)}


def milliseconds(seconds: float | None) -> str:
    """Three significant digits, at most two of them after the point."""
    if seconds is None:
        return NOTHING
    value = MILLI * seconds
    return f"{value:,.2f}" if value < 10 else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def percent(share: float | None) -> str:
    """A share of 1 as whole percent."""
    return NOTHING if share is None else f"{100 * share:.0f} %"


def megabytes(size: int | None) -> str:
    """Bytes as whole megabytes (10^6)."""
    return NOTHING if size is None else f"{size / MEGA:,.0f}"


def whole(number: float | None) -> str:
    """A whole number with separators of thousands."""
    return NOTHING if number is None else f"{number:,.0f}"
