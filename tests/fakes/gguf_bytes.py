"""Writes GGUFs byte by byte with struct, without the gguf package: fast, of any shape, and with a note of where each field lies, so that it can be broken on purpose."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Kind(IntEnum):
    """The types of values."""

    U8 = 0
    I8 = 1
    U16 = 2
    I16 = 3
    U32 = 4
    I32 = 5
    F32 = 6
    BOOL = 7
    TEXT = 8
    ARRAY = 9
    U64 = 10
    I64 = 11
    F64 = 12


_CODES: Final = {
    Kind.U8: "B",
    Kind.I8: "b",
    Kind.U16: "H",
    Kind.I16: "h",
    Kind.U32: "I",
    Kind.I32: "i",
    Kind.F32: "f",
    Kind.BOOL: "?",
    Kind.U64: "Q",
    Kind.I64: "q",
    Kind.F64: "d",
}


class What(StrEnum):
    """What a field of the header is."""

    MAGIC = "magic"
    VERSION = "version"
    TENSOR_COUNT = "tensor-count"
    KEY_COUNT = "key-count"
    KEY_LENGTH = "key-length"
    KIND = "value-type"
    TEXT_LENGTH = "text-length"
    ELEMENT_KIND = "element-type"
    ELEMENT_COUNT = "element-count"
    NAME_LENGTH = "name-length"
    DIMENSIONS = "dimensions"
    SIZE = "tensor-size"
    TENSOR_KIND = "tensor-type"
    OFFSET = "tensor-offset"


@dataclass(frozen=True, slots=True)
class Value:
    kind: Kind
    value: object
    element: Kind | None = None


def u32(value: int) -> Value:
    return Value(Kind.U32, value)


def text(value: str | bytes) -> Value:
    return Value(Kind.TEXT, value)


def array(element: Kind, values: Iterable[object]) -> Value:
    return Value(Kind.ARRAY, list(values), element)


@dataclass(frozen=True, slots=True)
class Tensor:
    """*kind* is the number of a ggml type, in which the whole tensor has *nbytes* bytes."""

    name: str
    sizes: tuple[int, ...]
    kind: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Field:
    what: What
    offset: int
    width: int


@dataclass
class Writer:
    """Collects the bytes of one header; *big* writes it for big-endian machines."""

    big: bool = False
    data: bytearray = field(default_factory=bytearray)
    fields: list[Field] = field(default_factory=list)

    def number(self, code: str, value: object, what: What | None = None) -> None:
        packed = struct.pack((">" if self.big else "<") + code, value)
        if what is not None:
            self.fields.append(Field(what, len(self.data), len(packed)))
        self.data += packed

    def string(self, value: object, what: What) -> None:
        raw = value if isinstance(value, bytes) else str(value).encode()
        self.number("Q", len(raw), what)
        self.data += raw

    def value(self, value: Value) -> None:
        self.number("I", value.kind, What.KIND)
        if value.element is None:
            self._one(value.kind, value.value)
            return
        assert isinstance(value.value, list)
        self.number("I", value.element, What.ELEMENT_KIND)
        self.number("Q", len(value.value), What.ELEMENT_COUNT)
        for each in value.value:
            self._one(value.element, each)

    def _one(self, kind: Kind, value: object) -> None:
        if kind is Kind.TEXT:
            self.string(value, What.TEXT_LENGTH)
        else:
            self.number(_CODES[kind], value)


@dataclass(frozen=True, slots=True)
class Written:
    """A header as it was written, padded to where its tensors begin, and the size of the whole file."""

    header: bytes
    fields: tuple[Field, ...]
    size: int

    @property
    def whole(self) -> bytes:
        """The file with its weights: ones, so that a tensor is not mistaken for a hole."""
        return self.header + b"\x01" * (self.size - len(self.header))


def write(
    values: Sequence[tuple[str | bytes, Value]],
    tensors: Sequence[Tensor],
    *,
    version: int = 3,
    big: bool = False,
    alignment: int = 32,
) -> Written:
    """Write a header; keys and tensors come as they are, also twice or against the rules."""
    writer = Writer(big)
    writer.fields.append(Field(What.MAGIC, 0, 4))
    writer.data += b"GGUF"
    writer.number("I", version, What.VERSION)
    writer.number("Q", len(tensors), What.TENSOR_COUNT)
    writer.number("Q", len(values), What.KEY_COUNT)
    for key, value in values:
        writer.string(key, What.KEY_LENGTH)
        writer.value(value)
    offset = end = 0
    for tensor in tensors:
        writer.string(tensor.name, What.NAME_LENGTH)
        writer.number("I", len(tensor.sizes), What.DIMENSIONS)
        for size in tensor.sizes:
            writer.number("Q", size, What.SIZE)
        writer.number("I", tensor.kind, What.TENSOR_KIND)
        writer.number("Q", offset, What.OFFSET)
        end = offset + tensor.nbytes
        offset = -(-end // alignment) * alignment
    if tensors:
        writer.data += bytes(-len(writer.data) % alignment)
    return Written(bytes(writer.data), tuple(writer.fields), len(writer.data) + end)
