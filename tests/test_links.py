"""Links between the documents of the repository lead to files and headings that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ["runtime", "kernels", "export", "benchmarks", "tests"]
DOCUMENTS = sorted([ROOT / "README.md", *(page for folder in FOLDERS for page in (ROOT / folder).rglob("*.md"))])
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)]*))?\)")

NAMED = re.compile(r"[\w/.-]*\b[A-Z]+\.md\b")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: str(document.relative_to(ROOT)))
def test_links_lead_to_files(document: Path) -> None:
    links = [link for link in LINK.findall(document.read_text("utf-8")) if "://" not in link[0]]
    assert [link for link, _ in links if not (document.parent / link).exists()] == []
    pages = [(document.parent / link if link else document, anchor) for link, anchor in links if anchor]
    assert [anchor for page, anchor in pages if anchor not in anchors(page)] == []


def test_pages_that_code_names_are_there() -> None:
    sources = [
        path for folder in FOLDERS for path in (ROOT / folder).rglob("*.*") if path.suffix in (".py", ".c", ".h")
    ]
    named = {name.lstrip("./") for path in sources for name in NAMED.findall(path.read_text("utf-8"))}
    pages = [page.as_posix() for page in DOCUMENTS]
    assert [name for name in named if not any(page.endswith(f"/{name}") for page in pages)] == []


def anchors(page: Path) -> set[str]:
    """What links name the headings of a page by."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
