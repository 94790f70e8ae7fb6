"""Texts that pieces are counted in: files of lines or of JSON lines, and folders of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from ...inputs import check_path
from ...kernels.errors import InputError, reading
from ...search.records import JSON_LINES, bounded_lines, json_records, line_records

_IN_FOLDERS = (".txt", ".md", *JSON_LINES)


def text_files(names: Iterable[str | Path]) -> list[Path]:
    """The files that are named, and those of texts in the folders that are; raises InputError where there are none."""
    found: list[Path] = []
    for path in (check_path("a file of texts", name) for name in names):
        inside = (
            sorted(file for file in path.rglob("*") if file.suffix.lower() in _IN_FOLDERS and file.is_file())
            if path.is_dir()
            else [path]
        )
        if not inside:
            raise InputError(f"{path}: the folder has no texts; expected files that end in {', '.join(_IN_FOLDERS)}")
        found += inside
    return found


def read_texts(path: Path) -> Iterator[str]:
    """The texts of a file, one a line; raises InputError, which names file and line, for what is no text."""
    with reading(path, InputError), path.open("rb") as stream:
        lines = bounded_lines(stream)
        records = (
            json_records(lines, "text", None, skip_blank=True)
            if path.suffix.lower() in JSON_LINES
            else line_records(lines)
        )
        try:
            for record in records:
                if record.problem is not None:
                    raise InputError(f"line {record.line}: {record.problem}")
                yield record.text
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
