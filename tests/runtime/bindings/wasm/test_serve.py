"""Wrong calls of the script that makes and serves the page: one sentence, and nothing made or removed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.processes import PYTHON, run

SERVE = Path(__file__).parents[4] / "runtime/bindings/wasm/demo/serve.py"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["site", "--package", "nowhere"], "nowhere holds no package: make it by `make wasm`, and name its folder"),
        (["site"], "site is no folder; give --package as well to make the demo there"),
        (["mine", "--package", "nowhere"], "mine is no demo that was made here: name another folder, or remove it"),
        (["mine", "--port", "99999"], "there is no port 99999; give one from 0 to 65535 with --port"),
    ],
)
def test_wrong_calls(tmp_path: Path, arguments: list[str], said: str) -> None:
    (tmp_path / "mine").mkdir()
    done = run(PYTHON, SERVE, *arguments, check=False, cwd=tmp_path, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr.decode()) == (1, f"{said}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
