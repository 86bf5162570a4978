"""The places of a GGUF's tensors: how many weights of which type it has, and where the file must end. The weights themselves are never read."""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Final

from jand.errors import GgufError
from jand.model.gguf_values import shown
from jand.model.immutable import immutable
from jand.model.quantisation import REMOVED_TENSOR_TYPES, TENSOR_TYPES

if TYPE_CHECKING:
    from jand.model.gguf_cursor import Cursor

MAX_TENSORS: Final = 100_000
MAX_NAME: Final = 256
"""Bytes of a tensor's name; llama.cpp itself allows 63."""
MAX_DIMENSIONS: Final = 4
SMALLEST_TENSOR: Final = 8 + 1 + 4 + 4 + 8

_MAX_SIZE: Final = 1 << 63
_SHAPES: Final = {
    order: [struct.Struct(f"{order}I{dimensions}QIQ") for dimensions in range(MAX_DIMENSIONS + 1)] for order in "<>"
}
_LONGEST_PLACE: Final = 4 + 8 * MAX_DIMENSIONS + 4 + 8
_NEWEST_TYPE: Final = max(TENSOR_TYPES) + 64
"""ggml gives out the numbers of its types one after the other, two or three a year."""


@immutable()
class Tensors:
    """*elements* counts the weights by tensor type; *data_offset* and *end* are offsets in the file."""

    count: int
    elements: dict[int, int]
    data_offset: int
    end: int

    @property
    def unknown_types(self) -> tuple[int, ...]:
        if self.elements.keys() <= TENSOR_TYPES.keys():
            return ()
        return tuple(sorted(self.elements.keys() - TENSOR_TYPES.keys()))

    @property
    def main_type(self) -> str | None:
        """The name of the known type that most weights are of."""
        known = [kind for kind in self.elements if kind in TENSOR_TYPES]
        return TENSOR_TYPES[max(known, key=self.elements.__getitem__)].name if known else None


def read_tensors(cursor: Cursor, count: int, alignment: int) -> Tensors:
    """Read the places of *count* tensors, which must lie one after the other without gaps, as llama.cpp demands.

    The size of a tensor of an unknown type follows from where the next one begins; of the last one only the beginning is known then.
    """
    names: set[bytes] = set()
    elements: dict[int, int] = {}
    next_offset: int | None = 0
    end = 0
    for _ in range(count):
        sizes, kind, offset = _read_place(cursor, names)
        total, nbytes = _measure(cursor, sizes, kind)
        if offset % alignment or offset >= _MAX_SIZE or (next_offset is not None and offset != next_offset):
            cursor.pos -= 8 * len(sizes) + 4 + 8  # whether zeros follow is told from where its sizes begin
            raise cursor.blank(f"a tensor is said to begin at {offset:,}, where none can begin")
        elements[kind] = elements.get(kind, 0) + total
        if nbytes is None:
            end, next_offset = max(end, offset), None
        else:
            end = max(end, offset + nbytes)
            next_offset = -(-(offset + nbytes) // alignment) * alignment
    data_offset = _align(cursor.position, alignment) if count else cursor.position
    return Tensors(count, elements, data_offset, data_offset + end)


def _read_place(cursor: Cursor, names: set[bytes]) -> tuple[list[int], int, int]:
    """Read the next tensor, whose name must be a new one: its sizes, its type, and where it begins."""
    name = cursor.read_name(MAX_NAME, "tensor")
    if name in names:
        raise cursor.bad(f"it has the tensor {shown(name)} twice")
    names.add(name)
    if len(cursor.data) - cursor.pos < _LONGEST_PLACE:
        cursor.need(4)
    dimensions: int = cursor.u32(cursor.data, cursor.pos)[0]
    if dimensions > MAX_DIMENSIONS:
        cursor.pos += 4
        raise cursor.bad(f"the tensor {shown(name)} has {dimensions:,} dimensions")
    shape = _SHAPES[cursor.order][dimensions]
    if len(cursor.data) - cursor.pos < _LONGEST_PLACE:
        cursor.need(shape.size)
    _, *sizes, kind, offset = shape.unpack_from(cursor.data, cursor.pos)
    cursor.pos += shape.size
    return sizes, kind, offset


def _measure(cursor: Cursor, sizes: list[int], kind: int) -> tuple[int, int | None]:
    """Return the number of elements and of bytes, the latter None for a type that is newer than the table."""
    total = math.prod(sizes)
    if total >= _MAX_SIZE or (0 in sizes and max(sizes) >= _MAX_SIZE):
        raise cursor.bad("a tensor is larger than any can be")
    known = TENSOR_TYPES.get(kind)
    if known is None:
        _refuse_type(cursor, kind)
        return total, None
    row = sizes[0] if sizes else 1
    if row % known.block:
        raise cursor.bad(
            f"a tensor of the type {known.name} has rows of {row:,} elements, no multiple of {known.block}"
        )
    return total, total // known.block * known.nbytes


def _refuse_type(cursor: Cursor, kind: int) -> None:
    """Let only those unknown types pass that a newer llama.cpp may have."""
    if kind in REMOVED_TENSOR_TYPES:
        raise GgufError(
            f"cannot use {cursor.label}: its tensors are of the type {REMOVED_TENSOR_TYPES[kind]}, which llama.cpp has removed",
            hint="get the Q4_0 or IQ4_NL file of this model, which llama.cpp rearranges by itself",
        )
    if kind > _NEWEST_TYPE:
        raise cursor.bad(f"a tensor is of the unknown type {kind:,}")


def _align(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment
