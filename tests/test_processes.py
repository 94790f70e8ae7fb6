"""The helper that starts child processes: no wait without a limit, and signals as a terminal has them."""

from __future__ import annotations

import signal
import subprocess
import threading

import pytest

from tests.processes import PYTHON, run, start, true_in_fork

FOREVER = "import time; time.sleep(1000)"


def test_a_child_that_does_not_end_is_killed() -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        run(PYTHON, "-c", FOREVER, limit=0.1)
    with start(PYTHON, "-c", FOREVER, limit=0.1, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read() == b""
    assert process.returncode == -signal.SIGKILL


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_that_does_not_end_is_killed() -> None:
    assert true_in_fork(lambda: True)
    assert not true_in_fork(lambda: False)
    assert not true_in_fork(lambda: threading.Event().wait(1000), limit=0.1)


def test_children_take_signals_that_a_background_job_ignores() -> None:
    code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert run(PYTHON, "-c", code, capture_output=True).stdout.strip() == b"True"
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
