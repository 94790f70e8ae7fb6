"""What `encode` returns: embeddings as arrays, lists or torch tensors, in the precision that was asked for."""

from __future__ import annotations

import sys
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from .kernels.errors import InputError
from .notices import warn

if TYPE_CHECKING:
    import numpy.typing as npt

    from .arguments import Options, Precision

FEW_EMBEDDINGS = 100  # fewer say little about the range of values

LEVELS = 255  # steps between the least and the greatest value of a dimension
SIGN_BIT = 0x80


def deliver(rows: Any, options: Options, *, single: bool) -> Any:
    """Embeddings (texts, dim), or a list of what there is for each text, as the options want them."""
    if options.precision != "float32" and (len(rows) or isinstance(rows, np.ndarray)):
        rows = quantize_all(rows, options.precision)
    if options.tensors:
        rows = to_tensors(rows)
    if single:
        return rows[0]
    return rows if options.stacked else list(rows)


def features(ids: Any, states: Any, vector: Any, facts: dict[str, Any]) -> dict[str, Any]:
    """All that there is for one text, under the names of sentence-transformers."""
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), **facts}
    return {**inputs, "token_embeddings": states, "sentence_embedding": vector}


def quantize_all(rows: Any, precision: Precision) -> Any:
    """Quantises an array, or a list of arrays with the same ranges for all."""
    if isinstance(rows, np.ndarray):
        return quantize(rows, precision)
    ends = list(accumulate(map(len, rows)))
    return np.split(quantize(np.concatenate(rows), precision), ends[:-1])


def quantize(embeddings: npt.NDArray[np.float32], precision: Precision, ranges: Any = None) -> npt.NDArray[Any]:
    """Embeddings (n, dim) in fewer bits, as `sentence_transformers.quantize_embeddings` makes them.

    "int8" and "uint8" are (n, dim) steps between the least and the greatest value of each dimension: ranges (2, dim),
    or those of these embeddings, so that vectors of different calls cannot be compared. "binary" (int8) and "ubinary"
    (uint8) are (n, dim / 8) signs, eight to a byte.

    Raises InputError for a single embedding without ranges, as it has none; warns if there are few.
    """
    if precision in ("binary", "ubinary"):
        bits = np.packbits(embeddings > 0, axis=-1)
        return bits if precision == "ubinary" else _signed(bits)
    if ranges is None and len(embeddings) == 1:
        raise InputError(
            f"precision={precision!r} takes its range from the embeddings of the call, and one has none; "
            "embed many texts at once, or take 'binary'"
        )
    if ranges is None and 0 < len(embeddings) < FEW_EMBEDDINGS:
        warn(f"precision={precision!r} takes its range from {len(embeddings)} embeddings; more make it more stable")
    if ranges is None:
        ranges = (embeddings.min(axis=0), embeddings.max(axis=0)) if len(embeddings) else (0, 0)
    least, greatest = (np.asarray(each, np.float32) for each in ranges)
    steps = (greatest - least) / LEVELS
    codes = np.floor((embeddings - least) / np.where(steps == 0, 1, steps)).clip(0, LEVELS).astype(np.uint8)
    return codes if precision == "uint8" else _signed(codes)


def _signed(codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.int8]:
    """128 less, which fits int8."""
    return np.asarray(codes ^ np.uint8(SIGN_BIT)).view(np.int8)


def to_tensors(value: Any) -> Any:
    """Arrays as torch tensors that share their memory, inside lists and dicts as well; all else as it is."""
    if isinstance(value, list):
        return [to_tensors(item) for item in value]
    if isinstance(value, dict):
        return {name: to_tensors(item) for name, item in value.items()}
    if not isinstance(value, np.ndarray):
        return value
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"torch tensors were asked for, and torch cannot be imported ({error}); run `pip install torch`, or take "
            "arrays: convert_to_numpy=True without convert_to_tensor"
        ) from error
    return torch.from_numpy(value)


def to_arrays(value: Any) -> Any:
    """Torch tensors as float32 arrays, alone or in a list; all else as it is."""
    if isinstance(value, list | tuple) and any(map(is_tensor, value)):
        return [to_arrays(item) for item in value]
    return value.detach().cpu().float().numpy() if is_tensor(value) else value


def has_tensors(value: Any) -> bool:
    """Whether this is a torch tensor, or a list that begins with one."""
    return is_tensor(value) or (isinstance(value, list | tuple) and len(value) > 0 and is_tensor(value[0]))


def is_tensor(value: Any) -> bool:
    """Whether this is a torch tensor; nothing is if torch was never imported."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)
