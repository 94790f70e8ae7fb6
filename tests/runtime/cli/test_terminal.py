"""Nothing from a file, an argument or a text reaches the terminal as a command to it, and no message floods it."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from embgemma.cli.main import main
from embgemma.kernels.errors import printable
from tests.kernels.changed_file import as_text, join, split

if TYPE_CHECKING:
    from pathlib import Path

ESCAPES = "\x1b[2J\x1b]0;title\x07\x9b31m\u202eabc\x85"
LONG = "x" * 50_000


def outputs(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """What the command wrote, of which every line is printable."""
    with suppress(SystemExit):
        main(arguments)
    captured = capsys.readouterr()
    for line in (captured.out + captured.err).split("\n"):
        assert line == printable(line)
    return captured


@pytest.mark.parametrize("content", [ESCAPES, LONG, ESCAPES * 1000])
def test_messages(model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    content_file = tmp_path / "lines.jsonl"
    content_file.write_text(f'{{"{content[:5]}": 1}}\n[]\n"{content[:5]}', "utf-8")
    model = str(model_path)
    for arguments in (
        ("embed", model, "--input", content),
        ("embed", model, "--input", str(content_file)),
        ("embed", model, "--isa", content, "a"),
        ("embed", model, "--backend", content, "a"),
        ("embed", model, "--prompt-name", content, "a"),
        ("embed", model, "-o", content, "a"),
        ("embed", model, f"--{content}"),
        ("embed", model, "--threads", content),
        ("embed", content, "a"),
        ("info", content),
        ("convert", content, "-o", str(tmp_path / "m.safetensors")),
        ("convert", str(tmp_path), "-o", content),
        ("convert", str(tmp_path), "--scheme", content, "-o", "m"),
        ("export-onnx", str(tmp_path), "-o", f"{content}.onnx"),
        (content,),
    ):
        lines = outputs(capsys, *arguments).err.splitlines()
        assert lines
        assert all(len(line) < 400 for line in lines if not line.startswith(("usage", " "))), arguments[:3]


def test_info(model_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header, data = split(model_path)
    for key in ("producer", "scheme", "similarity_fn_name"):
        header["__metadata__"][key] = f"Zürich 雨 {ESCAPES}"
    header["__metadata__"]["prompts"] = '{"query": "雨 \x7f\x9b31m\u202e", "\u202e\x85": "x"}'
    path = join(tmp_path / "model.safetensors", as_text(header), data)
    shown = outputs(capsys, "info", str(path)).out
    assert shown.count("Zürich 雨 \\x1b[2J") == 3
    assert '"雨 \\x7f\\x9b31m\\u202e"' in shown


def test_a_line_that_never_ends_is_refused(model_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["embed", str(model_path), "--input", "/dev/zero"]) == 2
    assert "a line has more than" in capsys.readouterr().err
    assert main(["embed", str(model_path), "--input", "/"]) == 1
