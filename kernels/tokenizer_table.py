"""Checks the header of a tokenizer's table as the C engine does. kernels/tokenizer/tokenizer_table.h states its layout.

The exporter makes the table; no Python code reads more of it.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import ModelFileError

MAGIC = b"EGTOKENS"
VERSION = 2
MOST_RUN = 63  # spaces in one piece
MOST_PROBES = 48  # slots looked at for a pair
SLOT_BYTES, PAIR_BYTES = 3, 5
PADDING = 4  # bytes after the last slot and the last pair
INDEX_BITS, ID_BITS = 18, 20  # of a slot, and of half of a pair
ALIGNMENT = 64  # bytes, of the table and of each of its parts

CHECKED_FROM = 16  # bytes: magic, version and checksum come before what the checksum covers
_MOST_IDS = 1 << 21  # also of units: what a unit's payload can hold
_BLOCK = 256  # units come in blocks, since a child's place differs from the offset in the lowest byte
JOIN_BYTES = 256 * 32
_UNIT_BYTES = 4

_FIELDS = ["table_bytes", "vocab", "unit_count", "text_root", "special_root", "first_merged", "merged_count"]
_FIELDS += ["slot_count", "longest_run"]
_ARRAYS = {"reserved": 3, "run_ids": MOST_RUN + 1, "byte_ids": 256}
HEADER = np.dtype(
    [
        ("magic", "S8"),
        *((name, "<u4") for name in ("version", "crc32", *_FIELDS)),
        *((name, "<u4", size) for name, size in _ARRAYS.items()),
    ]
)


def check_tokenizer_table(table: npt.NDArray[np.uint8], vocab: int, bos_id: int, eos_id: int) -> None:
    """Raises ModelFileError unless this is a table (bytes,) for an embedding table of `vocab` rows."""
    if table.nbytes < HEADER.itemsize or bytes(table[: len(MAGIC)]) != MAGIC:
        raise ModelFileError(f"the {table.nbytes} bytes are no tokenizer table; convert the checkpoint again")
    raw = table[: HEADER.itemsize]
    h = raw.view(HEADER)[0]
    if h["version"] != VERSION:
        raise ModelFileError(
            f"the tokenizer table has version {h['version']}, this release reads {VERSION}; update embgemma or "
            "convert the checkpoint again"
        )
    wrong = "its header has another checksum" if zlib.crc32(raw[CHECKED_FROM:].tobytes()) != h["crc32"] else _defect(h)
    if wrong is not None:
        raise ModelFileError(f"the tokenizer table is corrupt: {wrong}; convert the checkpoint again")
    if int(h["table_bytes"]) != _table_bytes(h) or table.nbytes != _table_bytes(h):
        raise ModelFileError(
            f"the tokenizer table has {table.nbytes} bytes, its header says {h['table_bytes']} and its parts take "
            f"{_table_bytes(h)}; convert the checkpoint again"
        )
    if max(bos_id, eos_id) >= h["vocab"]:
        raise ModelFileError(f"bos_id {bos_id} and eos_id {eos_id}: expected below {h['vocab']}, the number of pieces")
    if h["vocab"] > vocab:
        raise ModelFileError(
            f"the tokenizer has {h['vocab']} pieces and the embedding table {vocab} rows, so they do not belong "
            "together; convert the checkpoint again"
        )


def _defect(h: Any) -> str | None:
    """What is wrong with the numbers in a header that has the right checksum; None if nothing."""
    n = {name: int(h[name]) for name in _FIELDS}
    if n["vocab"] > _MOST_IDS:
        return "its vocabulary is out of range"
    units = n["unit_count"]
    if units % _BLOCK or units > _MOST_IDS or max(n["text_root"], n["special_root"]) >= units:
        return "its tries are out of range"
    merged = n["merged_count"]
    if n["first_merged"] + merged > n["vocab"] or n["slot_count"] > 2 * _MOST_IDS:
        return "its merges are out of range"
    if n["vocab"] >= 1 << ID_BITS or merged >= 1 << INDEX_BITS:
        return "its merges are out of range"
    run = n["longest_run"]
    if not 1 <= run <= MOST_RUN or max(*h["byte_ids"], *h["run_ids"][2 : run + 1]) >= n["vocab"]:
        return "an id in its header is out of range"
    return None


def _table_bytes(h: Any) -> int:
    """Bytes of header, joins, units, slots and parts."""
    slots = SLOT_BYTES * (int(h["slot_count"]) + MOST_PROBES) + PADDING
    parts = PAIR_BYTES * int(h["merged_count"]) + PADDING
    fixed = HEADER.itemsize + JOIN_BYTES + _UNIT_BYTES * int(h["unit_count"])
    return fixed + aligned(slots) + aligned(parts)


def aligned(size: int) -> int:
    """The next multiple of ALIGNMENT."""
    return -(-size // ALIGNMENT) * ALIGNMENT
