"""The arguments of `encode`, checked. They are those of sentence-transformers 6; what a CPU cannot do is refused."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from .inputs import check_choice, check_integer, check_truth
from .kernels.errors import InputError
from .kernels.safetensors_file import shorten
from .notices import warn

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger("embgemma")

OutputValue = Literal["sentence_embedding", "token_embeddings"]
Precision = Literal["float32", "int8", "uint8", "binary", "ubinary"]

CPU = "cpu"


@dataclass(frozen=True)
class Options:
    """How to embed, and what to return.

    Attributes:
        dim: of the embeddings.
        normalize: whether shortened embeddings get length 1 again.
        tensors: whether torch tensors are wanted instead of arrays.
        stacked: whether embeddings come as one array or tensor, not as a list.
    """

    batch_size: int
    show_progress: bool
    dim: int
    normalize: bool
    output_value: OutputValue | None = "sentence_embedding"
    precision: Precision = "float32"
    tensors: bool = False
    stacked: bool = True


def check_options(
    *,
    batch_size: int,
    normalize_embeddings: bool,
    truncate_dim: int | None,
    full_dim: int,
    show_progress_bar: bool | None = False,
    output_value: OutputValue | None = "sentence_embedding",
    precision: Precision | None = "float32",
    convert_to_numpy: bool = True,
    convert_to_tensor: bool = False,
) -> Options:
    """The arguments of the same names as options; full_dim is the size of the model's embeddings."""
    if output_value is not None:
        check_choice("output_value", output_value, get_args(OutputValue))
    if precision is not None:
        check_choice("precision", precision, get_args(Precision))
    if output_value is None and precision not in (None, "float32"):
        raise InputError(f"precision={precision!r} is for embeddings; output_value=None gives all that the model has")
    if show_progress_bar is None:
        show_progress_bar = logger.getEffectiveLevel() in (logging.INFO, logging.DEBUG)
    tensor = check_truth("convert_to_tensor", convert_to_tensor)
    array = check_truth("convert_to_numpy", convert_to_numpy)
    dim = full_dim if truncate_dim is None else check_integer("truncate_dim", truncate_dim, 1)
    if dim > full_dim:
        warn(f"truncate_dim={dim} is above the {full_dim} dimensions of the model, which are given whole")
    return Options(
        batch_size=check_integer("batch_size", batch_size, 1),
        show_progress=check_truth("show_progress_bar", show_progress_bar),
        dim=min(dim, full_dim),
        normalize=check_truth("normalize_embeddings", normalize_embeddings),
        output_value=output_value,
        precision=precision or "float32",
        tensors=tensor or not array,
        stacked=(tensor or array) and output_value == "sentence_embedding",
    )


def check_devices(device: Any) -> list[str]:
    """The devices of a list, which are for a pool of processes; [] for the CPU or None. Others are refused."""
    devices = device if isinstance(device, list | tuple) else [device]
    if not devices:
        raise InputError("the list of devices is empty; expected one 'cpu' for each process")
    for name in devices:
        shown = shorten(name) if isinstance(name, int) else str(name)  # torch has a class of its own
        if name is not None and shown.partition(":")[0] != CPU:
            raise InputError(f"device={shown!r}: embgemma computes on the CPU; leave device out, or give 'cpu'")
    return [CPU] * len(devices) if isinstance(device, list | tuple) else []


def refuse_unknown(call: str, arguments: Mapping[str, Any], without_effect: tuple[str, ...] = ()) -> None:
    """Raises InputError naming an argument that is not among those without effect."""
    for name in arguments:
        if name not in without_effect:
            raise InputError(f"{call}() has no argument {name!r} here; leave it out")
