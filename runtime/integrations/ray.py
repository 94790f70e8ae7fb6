"""Ray: `Embed` for `ray.data.Dataset.map_batches`, and `embed_parquet`, which goes on where it was stopped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..find import IN_THE_BOX
from ..inputs import check_integer
from ..kernels.errors import InputError
from .base import needs
from .bulk import ColumnEmbedder, Task

with needs("ray", "ray"):
    import pyarrow as pa
    import ray
    import ray.data

if TYPE_CHECKING:
    import os


class Embed:
    """Adds a column of vectors to batches: `dataset.map_batches(Embed, batch_format="pyarrow", num_cpus=2)`.

    Each actor is a process with one model, and computes with as many threads as it has CPUs. For the arguments, which
    are `fn_constructor_kwargs`, see `ColumnEmbedder`.
    """

    def __init__(self, model: str = IN_THE_BOX, **options: Any) -> None:
        self._embedder = ColumnEmbedder(model, **{"threads": _threads(), **options})

    def __call__(self, batch: Any) -> Any:
        """The batch with its vectors."""
        if not isinstance(batch, pa.Table):
            kind = type(batch).__name__
            raise InputError(f'a batch is of type {kind}; expected a table: map_batches(…, batch_format="pyarrow")')
        return self._embedder.table(batch)


class _EmbedFiles(Embed):
    """Embeds whole files, whose names are in a batch; gives the number of rows of each."""

    def __call__(self, batch: Any) -> Any:
        return pa.table({"rows": [self._embedder.file(Task(**row)) for row in batch.to_pylist()]})


def embed_parquet(
    source: Any,
    destination: Any,
    model: str | os.PathLike[str] = IN_THE_BOX,
    *,
    cpus: int = 1,
    workers: int | None = None,
    **options: Any,
) -> int:
    """Embeds every Parquet file of a folder into another one; gives the number of new rows.

    A file there has the name of its source, appears when it is whole, and is not made again, so a run that was stopped
    goes on. If a worker ends, Ray starts another, which does its file again.

    Args:
        source, destination: folders that every node finds under these names.
        model: see `ColumnEmbedder`.
        cpus: of a worker, and its threads.
        workers: processes; None for as many as the cluster has CPUs for.
        options: the other arguments of `ColumnEmbedder`.

    Raises:
        InputError: what `ColumnEmbedder` and its `tasks` raise, before anything is computed.
    """
    cpus = check_integer("cpus", cpus, 1)
    most = None if workers is None else check_integer("workers", workers, 1)
    embedder = ColumnEmbedder(model, **options)
    tasks = embedder.tasks(source, destination)
    if not tasks:
        return 0
    if not ray.is_initialized():
        ray.init()
    most = most or max(1, int(ray.cluster_resources().get("CPU", 1)) // cpus)
    largest = max(int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"])
    if 0 < largest < cpus:  # Ray would wait for ever; nodes that are yet to start have none
        raise InputError(f"cpus={cpus}; expected an integer from 1 to {largest}, which the largest node has")
    done = ray.data.from_items([task._asdict() for task in tasks], override_num_blocks=len(tasks)).map_batches(
        _EmbedFiles,
        fn_constructor_kwargs=embedder.config(),
        compute=ray.data.ActorPoolStrategy(size=min(most, len(tasks))),
        num_cpus=cpus,
        batch_size=1,
        batch_format="pyarrow",
    )
    return int(done.sum("rows"))


def _threads() -> int | None:
    """The CPUs of this actor; None in another process."""
    context = ray.get_runtime_context()
    if context.get_actor_id() is None:
        return None
    return max(1, int(context.get_assigned_resources().get("CPU", 1)))
