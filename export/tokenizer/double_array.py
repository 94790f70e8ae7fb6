"""A trie in one array of 32-bit units, which the C tokenizer walks with one load a byte.

Every node that has children has an offset of its own; its child by byte `b` is unit `offset ^ b`, if that unit's label
is `b`. Layout of a unit, from the lowest bit:

    label: 9    the byte that leads here; 256 in a unit that no byte leads to
    leaf: 1     the node has a value and no children: `payload` is the value
    valued: 1   the node has a value and children: the value is the payload of unit `offset`
    payload: 21 the value of a leaf, else the node's offset

(J. Aoe, An efficient digital search algorithm by using a double-array structure, 1989; XOR addressing and units without
a parent field after Darts-clone.)
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LABEL_MASK = 0x1FF
NO_LABEL = 0x100
LEAF = 1 << 9
VALUED = 1 << 10
PAYLOAD_SHIFT = 11
MOST_UNITS = 1 << 21  # what the payload can address
BLOCK = 256  # the children of a node are in one block, since labels differ in the lowest byte only

# Blocks searched for room. Room that is left when none has enough is filled by later nodes, or stays empty.
_WINDOW = 8

# Of the 256 bits of a mask, those whose index has bit k clear.
_LOW_RUNS = [sum(1 << index for index in range(BLOCK) if not index >> bit & 1) for bit in range(8)]


class DoubleArray:
    """A trie under construction; nodes are numbers, and the first are close together in the array."""

    def __init__(self) -> None:
        self._edges: dict[int, int] = {}  # node * 256 + byte -> child
        self._values: dict[int, int] = {}
        self._aliases: dict[int, int] = {}  # node -> the node whose children and value it shares
        self._nodes = 0

    def new_node(self) -> int:
        """A node that no byte leads to yet, such as a root."""
        self._nodes += 1
        return self._nodes - 1

    def insert(self, root: int, key: bytes, value: int) -> None:
        """Stores `value` under `key`, which is not empty and has no byte 0."""
        self._values[self._path(root, key)] = value

    def alias(self, target_byte: int, key: bytes) -> None:
        """Makes `key` lead where `target_byte` leads, from every node that has such a child; call it last."""
        for edge, target in list(self._edges.items()):
            if edge % 256 == target_byte:
                self._aliases[self._path(edge // 256, key)] = target

    def pack(self, *roots: int) -> tuple[npt.NDArray[np.uint32], list[int]]:
        """The units, a multiple of 256, and the offset of each root."""
        labels: dict[int, list[int]] = {}
        for edge in self._edges:
            labels.setdefault(edge // 256, []).append(edge % 256)
        for node in self._values.keys() & labels.keys():
            labels[node].append(0)  # the place of its value
        offsets, size = _place(labels)
        if size > MOST_UNITS:
            raise ValueError(f"the trie takes {size} units; expected at most {MOST_UNITS}")
        units = np.full(size, NO_LABEL, np.uint32)
        for edge, child in self._edges.items():
            units[offsets[edge // 256] ^ edge % 256] = edge % 256 | self._content(
                self._aliases.get(child, child), offsets
            )
        for node in self._values.keys() & labels.keys():
            units[offsets[node]] = NO_LABEL | self._values[node] << PAYLOAD_SHIFT
        return units, [offsets[root] for root in roots]

    def _path(self, root: int, key: bytes) -> int:
        """The node that `key` leads to, made if there is none."""
        node = root
        for byte in key:
            edge = node * 256 + byte
            child = self._edges.get(edge)
            if child is None:
                child = self._edges[edge] = self.new_node()
            node = child
        return node

    def _content(self, node: int, offsets: dict[int, int]) -> int:
        """A node's unit without the label."""
        if node not in offsets:
            return LEAF | self._values[node] << PAYLOAD_SHIFT
        return (VALUED if node in self._values else 0) | offsets[node] << PAYLOAD_SHIFT


class _Blocks:
    """Which units and which offsets are free, as one bit mask of 256 bits for each block."""

    def __init__(self) -> None:
        self._units: list[int] = []
        self._offsets: list[int] = []
        self._first = 0  # blocks before it are full, or nearly so

    @property
    def count(self) -> int:
        """How many blocks there are."""
        return len(self._units)

    def place(self, labels: list[int]) -> int:
        """Takes units for children by these labels; gives their offset."""
        while True:
            for block in range(self._first, min(self._first + _WINDOW, self.count)):
                offset = self._place_in(block, labels)
                if offset is not None:
                    return offset
            if self._first + _WINDOW <= self.count:
                self._first += 1
            else:
                self._units.append((1 << BLOCK) - 1)
                self._offsets.append((1 << BLOCK) - 1)

    def rewind(self) -> None:
        """Looks at the first blocks again."""
        self._first = 0

    def _place_in(self, block: int, labels: list[int]) -> int | None:
        units = self._units[block]
        candidates = self._offsets[block]
        for label in labels:
            candidates &= _permuted(units, label)
            if not candidates:
                return None
        chosen = candidates & -candidates
        self._offsets[block] ^= chosen
        for label in labels:
            self._units[block] ^= _permuted(chosen, label)
        return block * BLOCK + chosen.bit_length() - 1


def _place(labels: dict[int, list[int]]) -> tuple[dict[int, int], int]:
    """The offset of every node that has children, and how many units that takes. No two nodes share an offset."""
    blocks = _Blocks()
    several = [node for node in sorted(labels) if len(labels[node]) > 1]
    single = [node for node in sorted(labels) if len(labels[node]) == 1]
    offsets = {node: blocks.place(labels[node]) for node in several}
    blocks.rewind()  # nodes of one child fit into the holes
    offsets.update((node, blocks.place(labels[node])) for node in single)
    return offsets, blocks.count * BLOCK


def _permuted(mask: int, label: int) -> int:
    """The mask whose bit x is bit x ^ label of `mask`: for every bit of label, neighbouring runs of bits swap."""
    for bit, low in enumerate(_LOW_RUNS):
        if label >> bit & 1:
            mask = mask >> (1 << bit) & low | (mask & low) << (1 << bit)
    return mask
