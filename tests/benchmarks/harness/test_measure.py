"""The order and number of timed calls, with a clock of its own: no test here depends on how fast the machine is."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from embgemma.benchmarks.harness.measure import MIN_ROUNDS, Budget, Timed, Timing, measure_in_turn

TEN_SECONDS = Budget(seconds=10, longest_call=1)


@dataclass
class FakeMachine:
    """Calls take the seconds they are said to take, and the clock moves by just that."""

    now: float = 0.0
    log: list[str] = field(default_factory=list)

    def cell(self, name: str, seconds: float, work: float, runner: str = "ours") -> Timed:
        def time_calls(calls: int) -> list[float]:
            self.now += calls * seconds
            self.log += [name] * calls
            return [seconds] * calls

        return Timed(time_calls, work, runner)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    fake = FakeMachine()
    monkeypatch.setattr("embgemma.benchmarks.harness.measure.time.perf_counter", lambda: fake.now)
    return fake


def test_timing_of_known_samples() -> None:
    timing = Timing.of([1.0, 2.0, 3.0, 4.0, 5.0])
    assert Timing.of([]) is None
    assert timing == Timing(median=3.0, p95=pytest.approx(4.8), spread=pytest.approx(2 / 3), calls=5)


def test_repeats_gives_exactly_that_many_calls_in_turn(machine: FakeMachine) -> None:
    cells = [machine.cell("a", 0.001, 1), machine.cell("b", 1000.0, 2)]
    samples = measure_in_turn(cells, Budget(seconds=1, longest_call=0.1, repeats=3), {})
    assert machine.log == ["a", "a", "b"] + 3 * ["a", "b"]
    assert [len(calls) for calls in samples] == [3, 3]


def test_budget_is_spent_and_not_much_more(machine: FakeMachine) -> None:
    cells = [machine.cell("a", 0.01, 1), machine.cell("b", 0.2, 20)]
    samples = measure_in_turn(cells, TEN_SECONDS, {})
    assert 10 <= machine.now <= 11
    # A short call is repeated within its turn, so both get a like share of attention.
    short, long = samples
    assert len(short) > len(long) >= MIN_ROUNDS
    assert (set(short), set(long)) == ({0.01}, {0.2})


def test_a_call_too_slow_for_the_budget_is_left_out_without_being_made(machine: FakeMachine) -> None:
    cells = [machine.cell("a", 0.1, 1), machine.cell("b", 100.0, 1000), machine.cell("c", 0.1, 1, runner="peer")]
    samples = measure_in_turn(cells, TEN_SECONDS, {})
    assert [bool(calls) for calls in samples] == [True, False, True]
    assert "b" not in machine.log


def test_a_rate_known_from_before_predicts_the_first_call(machine: FakeMachine) -> None:
    rates: dict[str, float] = {}
    measure_in_turn([machine.cell("a", 0.1, 1)], TEN_SECONDS, rates)
    assert rates == {"ours": 10.0}
    assert measure_in_turn([machine.cell("b", 100.0, 1000)], TEN_SECONDS, rates) == [[]]
    assert "b" not in machine.log
