"""What is printed of a known result."""

from __future__ import annotations

import dataclasses
import json
import re

import pytest

from embgemma.benchmarks.harness.machine import Environment, Limits, read_environment
from embgemma.benchmarks.harness.measure import Timing
from embgemma.benchmarks.harness.memory import Memory, process_memory
from embgemma.benchmarks.harness.page import WIDTH, to_json
from embgemma.benchmarks.harness.workload import Shape, Work
from embgemma.benchmarks.speed.report import page
from embgemma.benchmarks.speed.result import Floor, Result, Row, Stage

LIMITS = Limits(macs_per_second=1e12, bytes_per_second=40e9)
SHORT = Work(linear_macs=800_000_000, attention_macs=0, weight_bytes=72_000_000)
LONG = Work(linear_macs=26_000_000_000, attention_macs=2_000_000_000, weight_bytes=72_000_000)
RESULT = Result(
    model="synthetic weights",
    synthetic=True,
    scheme="mixed",
    table="4.50 bits an element, 4 to 8 by row",
    file_bytes=180_000_000,
    environment=Environment("A CPU", 2, 4, "Linux 6.1", "x86_64", {"Python": "3.11.7", "numpy": "2.0"}, 0.1),
    facts={"backend": "native", "isa": "avx2", "threads": 2},
    limits=LIMITS,
    limits_note="",
    latencies=[
        Row(Shape(1, 8), SHORT, Timing(0.0036, 0.004, 0.02, 50), Floor.of(SHORT, LIMITS)),
        Row(Shape(1, 256), LONG, Timing(0.056, 0.06, 0.02, 50), Floor.of(LONG, LIMITS)),
        Row(Shape(1, 2048), LONG, None, Floor.of(LONG, LIMITS)),
    ],
    batches=[],
    load_seconds=[0.012, 0.013, 0.011],
    first_seconds=0.07,
    memory=[Stage("loaded", Memory(90_000_000, 80_000_000, 20_000_000, None), after_text=True)],
    notes=["A note."],
)


def test_the_floor_is_the_slower_of_reading_and_multiplying() -> None:
    assert Floor.of(SHORT, LIMITS) == Floor(pytest.approx(0.0018), "memory")
    assert Floor.of(LONG, LIMITS) == Floor(pytest.approx(0.028), "multiply")


def test_text_shows_every_number_and_fits_a_terminal() -> None:
    text = page(RESULT).text()
    short, long, left_out = (line.split() for line in text.splitlines() if re.match(r" *\d+ x ", line))
    # texts x tokens, median, p95, spread %, calls, tokens/s, floor, share %, limit
    assert short == ["1", "x", "8", "3.60", "4.00", "2", "%", "50", "2,222", "1.80", "50", "%", "memory"]
    assert long == ["1", "x", "256", "56.0", "60.0", "2", "%", "50", "4,571", "28.0", "50", "%", "multiply"]
    assert left_out[3:] == ["-", "-", "-", "left", "out", "-", "28.0", "-", "multiply"]
    assert "8-bit multiply 1.00 TMAC/s, memory read 40.0 GB/s" in text
    assert re.search(r"^loaded +90 +80 +20 +-$", text, re.MULTILINE)
    assert "12.0 ms (median of 3 fresh processes); the first text takes 70.0 ms" in " ".join(text.split())
    assert "embedding table 4.50 bits an element, 4 to 8 by row" in " ".join(text.split())
    assert "A note." in text
    assert text.endswith("8 tokens: 3.60 ms, 278 texts a second, 90 MB — 50 % of what this CPU can do")
    assert max(map(len, text.splitlines())) <= WIDTH


def test_markdown_tables_have_equal_columns() -> None:
    lines = [line for line in page(RESULT).text(markdown=True).splitlines() if line.startswith("|")]
    header, rule, *rows = lines[:5]
    assert set(rule) <= set("|-: ")
    assert {line.count("|") for line in (header, rule, *rows)} == {10}


def test_json_gives_seconds_bytes_and_derived_numbers() -> None:
    found = json.loads(to_json(RESULT))
    assert found["latencies"][0]["timing"]["median"] == 0.0036
    assert found["latencies"][0]["share_of_limit"] == pytest.approx(0.5)
    assert found["latencies"][2]["timing"] is None
    assert found["limits"] == {"macs_per_second": 1e12, "bytes_per_second": 40e9}
    assert found["facts"]["threads"] == 2


def test_a_result_without_limits_says_why() -> None:
    rows = [dataclasses.replace(row, floor=None) for row in RESULT.latencies]
    text = page(dataclasses.replace(RESULT, limits=None, limits_note="not measured: because", latencies=rows)).text()
    assert "not measured: because" in text
    assert "memory read" not in text


def test_environment_names_neither_host_nor_paths() -> None:
    environment = read_environment(("no-such-package",))
    assert environment.logical_cores >= environment.cores >= 1
    assert environment.cpu
    assert environment.versions["no-such-package"] == "not installed"
    assert "/" not in json.dumps(dataclasses.asdict(environment)).replace(environment.cpu, "")


@pytest.mark.parametrize(("load", "busy"), [(None, False), (0.6, False), (1.9, False), (2.1, True)])
def test_a_machine_is_busy_when_others_take_half_of_it(load: float | None, busy: bool) -> None:
    assert dataclasses.replace(RESULT.environment, load_average=load).busy == busy  # of 4 logical cores


def test_memory_of_this_process_grows_by_what_is_allocated() -> None:
    before = process_memory()
    block = bytearray(b"\1") * 50_000_000
    after = process_memory()
    if before.anonymous is None or after.anonymous is None:
        pytest.skip("this system does not tell how much memory is anonymous")
    assert after.anonymous - before.anonymous == pytest.approx(len(block), rel=0.1)
    assert after.peak is not None
    assert after.peak >= len(block)
