"""Processes that embed texts side by side, by the calls of sentence-transformers.

One process with as many threads is as fast as a rule: the engine computes with all cores. Several help where much else
is done for each text.
"""

from __future__ import annotations

import itertools
import math
import queue
import threading
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .arguments import check_devices
from .kernels.errors import EmbgemmaError, InputError
from .notices import progress_bar
from .running import texts_from

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .arguments import Options
    from .model import EmbeddingModel

Pool = dict[str, Any]

DEFAULT_PROCESSES = 4  # as in sentence-transformers
CHUNKS_PER_PROCESS, LARGEST_CHUNK = 10, 5000  # as there
SECONDS_BETWEEN_LOOKS = 1.0  # whether the other side still lives

_call_numbers = itertools.count()


def start_pool(model: EmbeddingModel, devices: list[str] | None) -> Pool:
    """Starts one process for each device; they share the model's threads among them."""
    listed = devices if isinstance(devices, list | tuple) else [devices]
    count = DEFAULT_PROCESSES if devices is None else len(check_devices(listed))
    import multiprocessing  # few need it, and it takes some milliseconds

    context = multiprocessing.get_context("spawn")
    tasks, results = context.Queue(), context.Queue()
    state = model.__getstate__()
    state["_source"] = replace(state["_source"], threads=max(1, model.threads // count))
    arguments = type(model), state, tasks, results
    processes = [context.Process(target=_work, args=arguments, daemon=True) for _ in range(count)]
    for process in processes:
        process.start()
    return {
        "input": tasks,
        "output": results,
        "processes": processes,
        "lock": threading.Lock(),
        "model": model._file_state,
    }


def stop_pool(pool: Pool) -> None:
    """Ends the processes, once; a pool that was stopped stays so."""
    check_pool(pool)
    for process in pool["processes"]:
        process.terminate()
    for process in pool["processes"]:
        process.join()
        process.close()
    pool["processes"].clear()
    for name in ("input", "output"):
        pool[name].cancel_join_thread()
        pool[name].close()


def check_pool(pool: Any) -> None:
    """Raises InputError for what is no pool."""
    if not isinstance(pool, dict) or not {"input", "output", "processes", "lock", "model"} <= pool.keys():
        raise InputError(f"pool is of type {type(pool).__name__}; expected what start_multi_process_pool() returned")


@contextmanager
def temporary_pool(model: EmbeddingModel, devices: list[str], pool: Pool | None) -> Iterator[Pool | None]:
    """The pool as given, or one of these devices for the block, or None if there are none."""
    if pool is not None or not devices:
        yield pool
        return
    pool = start_pool(model, devices)
    try:
        yield pool
    finally:
        stop_pool(pool)


def share(
    model: EmbeddingModel, pool: Pool, texts: list[str], prompt: str, options: Options, chunk_size: int | None
) -> tuple[Any, list[int]]:
    """What the model's `_compute` gives for these texts, computed by the processes of the pool."""
    check_pool(pool)
    if not pool["processes"]:
        raise EmbgemmaError("the pool was stopped; start another with start_multi_process_pool()")
    if pool["model"] != model._file_state:
        raise InputError("the pool was started by a model of another file; start one with this model")
    if chunk_size is None:
        each = math.ceil(len(texts) / len(pool["processes"]) / CHUNKS_PER_PROCESS)
        chunk_size = max(1, min(each, LARGEST_CHUNK))
    starts = range(0, len(texts), chunk_size)
    found: dict[int, Any] = {}
    call = next(_call_numbers)  # an earlier call may have been interrupted, and its results are still to come
    with pool["lock"], progress_bar(len(texts), shown=options.show_progress) as advance:
        for start in starts:
            pool["input"].put((call, start, texts[start : start + chunk_size], prompt, options, model.max_seq_length))
        while len(found) < len(starts):
            number, start, result = _next_result(pool)
            if number == call:
                found[start] = result
                advance(min(chunk_size, len(texts) - start))
    for start in starts:
        if isinstance(found[start], Exception):
            with texts_from(start, model.path):
                raise found[start]
    parts = [found[start][0] for start in starts]
    rows = np.concatenate(parts) if isinstance(parts[0], np.ndarray) else list(itertools.chain.from_iterable(parts))
    return rows, [start + i for start in starts for i in found[start][1]]


def _next_result(pool: Pool) -> Any:
    """Waits for a result; raises EmbgemmaError if a process has ended."""
    while True:
        with suppress(queue.Empty):
            return pool["output"].get(timeout=SECONDS_BETWEEN_LOOKS)
        codes = [process.exitcode for process in pool["processes"] if not process.is_alive()]
        if codes:
            raise EmbgemmaError(
                f"{len(codes)} processes of the pool have ended, exit codes {codes}; stop it and start another; "
                'a script must start it below `if __name__ == "__main__":`, as processes import the script'
            )


def _work(model_class: type[EmbeddingModel], state: dict[str, Any], tasks: Any, results: Any) -> None:
    """Runs in each process: opens the model, and embeds chunks of texts until the process is ended."""
    import multiprocessing

    model: EmbeddingModel | None = None
    parent = multiprocessing.parent_process()
    while parent is None or parent.is_alive():
        try:
            call, start, texts, prompt, options, max_seq_length = tasks.get(timeout=SECONDS_BETWEEN_LOOKS)
        except queue.Empty:
            continue
        result: Any
        try:
            if model is None:
                opened = model_class.__new__(model_class)
                opened.__setstate__(dict(state))
                model = opened
            model.max_seq_length = max_seq_length  # of now, not of when the pool was started
            result = model._compute(texts, prompt, replace(options, show_progress=False))
        except EmbgemmaError as error:
            result = error
        except Exception as error:  # it may not be one that pickles
            result = EmbgemmaError(f"a process of the pool failed: {type(error).__name__}: {error}")
        results.put((call, start, result))
