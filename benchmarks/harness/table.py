"""Tables and numbers as the reports print them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

MILLI = 1e3
MEGA = 1e6
GIGA = 1e9
TERA = 1e12
NOTHING = "-"  # a number that does not exist or was not measured


def table(header: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool, left: int = 0) -> str:
    """Rows under a header, right-aligned but for the first `left` columns."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |" if markdown else "  ".join(padded).rstrip()

    rule = ["-" * width if i < left else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return "\n".join([line(header), *([line(rule)] if markdown else []), *(line(row) for row in rows)])


def milliseconds(seconds: float) -> str:
    """Three significant digits, at most two of them behind the point."""
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
