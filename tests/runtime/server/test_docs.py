"""What the server's README says to copy."""

from __future__ import annotations

import configparser
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from embgemma.cli.main import make_parser
from tests.processes import run

if TYPE_CHECKING:
    import argparse

README = (Path(__file__).parents[3] / "runtime" / "server" / "README.md").read_text("utf-8")
ELSEWHERE = {"--no-install-recommends", "--no-cache-dir", "--from", "--seconds", "--clients"}
INSTRUCTIONS = {"FROM", "RUN", "COPY", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}


def block(language: str) -> str:
    (text,) = re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return str(text)


def parsed(command: list[str]) -> argparse.Namespace:
    """The arguments of a command, whose program has its whole path."""
    assert command[0].startswith("/")
    assert command[0].endswith("/embgemma")
    return make_parser().parse_args(command[1:])


def test_the_unit_of_systemd(tmp_path: Path) -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.read_string(block("ini"))
    assert unit.sections() == ["Unit", "Service", "Install"]
    arguments = parsed(unit["Service"]["ExecStart"].split())
    assert (arguments.host, arguments.port, Path(arguments.model).suffix) == ("127.0.0.1", 8080, ".safetensors")
    if shutil.which("systemd-analyze"):
        path = tmp_path / "embgemma.service"
        path.write_text(re.sub("ExecStart=.*", "ExecStart=/bin/true", block("ini")), "utf-8")
        run("systemd-analyze", "verify", "--man=no", path)


def test_the_dockerfile() -> None:
    lines = [line.split(" ", 1) for line in block("dockerfile").splitlines() if line]
    assert {name for name, _ in lines} == INSTRUCTIONS
    assert lines[0][0] == "FROM"
    commands = {name: json.loads(value) for name, value in lines if name in ("ENTRYPOINT", "CMD")}
    arguments = parsed(commands["ENTRYPOINT"] + commands["CMD"])
    assert arguments.host == "0.0.0.0"
    health = json.loads(dict(lines)["HEALTHCHECK"].removeprefix("CMD "))
    compile(health[-1], "HEALTHCHECK", "exec")
    assert f":{arguments.port}/health" in health[-1]


@pytest.mark.parametrize("option", sorted({*re.findall(r"--[a-z][a-z-]+", README)} - ELSEWHERE))
def test_options_exist(option: str) -> None:
    commands = make_parser()._subparsers
    assert commands is not None
    choices = commands._group_actions[0].choices
    assert choices is not None
    assert option in choices["serve"]._option_string_actions  # type: ignore[index]


def test_the_example_is_python() -> None:
    compile(block("python"), "README.md", "exec")
