"""The keys and values of a GGUF: which are kept, which are stepped over, and what they say.

All numbers are kept (there are at most `MAX_KEYS`), of the texts only the few that somebody asks for, of the arrays only short ones with a value for each layer. The
vocabulary, nearly all of a header, is stepped over, and only its length is kept.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jand.model.gguf_cursor import MAX_STRING

if TYPE_CHECKING:
    from jand.errors import GgufError
    from jand.model.gguf_cursor import Cursor

MAX_KEYS: Final = 4096
MAX_KEY: Final = 1 << 10
"""Bytes of a key; the longest in use have fewer than 100."""
MAX_ELEMENTS: Final = 64 << 20
MAX_TEMPLATE: Final = 1 << 20
"""A longer chat template counts as none: it would be kept for every model, and the longest in use has 30 kB."""
SMALLEST_KEY: Final = 8 + 1 + 4 + 1

_MAX_TEXT: Final = 64 << 10
_MAX_SHOWN: Final = 256
_MAX_LAYERS: Final = 4096
_MAX_NUMBER: Final = 1 << 40

_BOOL: Final = 7
_STRING: Final = 8
_ARRAY: Final = 9
_NUMBERS: Final = {
    0: ("B", 1),
    1: ("b", 1),
    2: ("H", 2),
    3: ("h", 2),
    4: ("I", 4),
    5: ("i", 4),
    6: ("f", 4),
    _BOOL: ("?", 1),
    10: ("Q", 8),
    11: ("q", 8),
    12: ("d", 8),
}
_WHOLE: Final = "BbHhIiQq?"

_TEMPLATE: Final = b"tokenizer.chat_template"
_TOKENS: Final = b"tokenizer.ggml.tokens"
_TEXTS: Final = {
    b"general.architecture": _MAX_TEXT,
    b"general.type": _MAX_TEXT,
    b"general.name": _MAX_TEXT,
    b"general.basename": _MAX_TEXT,
    b"general.size_label": _MAX_TEXT,
    b"general.finetune": _MAX_TEXT,
    b"general.license": _MAX_TEXT,
    b"general.organization": _MAX_TEXT,
    b"tokenizer.ggml.model": _MAX_TEXT,
    _TEMPLATE: MAX_TEMPLATE,
}
"""The texts that are kept, each up to so many bytes."""

_PER_LAYER: Final = (b".attention.head_count", b".attention.head_count_kv", b".attention.sliding_window_pattern")

_Value = int | float | bytes | tuple[int, ...]


def read_values(cursor: Cursor, count: int) -> Values:
    values: dict[bytes, _Value | None] = {}
    for _ in range(count):
        key = cursor.read_name(MAX_KEY, "key")
        if key in values:
            raise cursor.bad(f"it has the key {shown(key)} twice")
        values[key] = _read_value(cursor, key)
    architecture = values.get(b"general.architecture")
    return Values(values, architecture if isinstance(architecture, bytes) else b"")


def _read_value(cursor: Cursor, key: bytes) -> _Value | None:
    """Read one value; None where it was stepped over."""
    kind = cursor.read_u32()
    if kind == _STRING:
        return _read_text(cursor, key)
    if kind == _ARRAY:
        return _read_array(cursor, key)
    if kind not in _NUMBERS:
        raise _unknown(cursor, key, kind)
    code, width = _NUMBERS[kind]
    cursor.need(width)
    value: int | float = struct.unpack_from(cursor.order + code, cursor.data, cursor.pos)[0]
    cursor.pos += width
    return value


def _read_text(cursor: Cursor, key: bytes) -> bytes | None:
    length = cursor.read_u64()
    if length > MAX_STRING:
        raise cursor.bad(f"the text of {shown(key)} has {length:,} bytes")
    if length <= _TEXTS.get(key, -1):
        return cursor.take(length)
    cursor.skip(length)
    return None


def _read_array(cursor: Cursor, key: bytes) -> _Value | None:
    kind, count = cursor.read_u32(), cursor.read_u64()
    if count > MAX_ELEMENTS:
        raise cursor.bad(f"{shown(key)} lists {count:,} elements")
    if kind == _STRING:
        cursor.skip_strings(count)
        return count if key == _TOKENS else None
    if kind not in _NUMBERS:
        raise _unknown(cursor, key, kind)
    code, width = _NUMBERS[kind]
    cursor.expect(count * width)
    if count > _MAX_LAYERS or code not in _WHOLE or not key.endswith(_PER_LAYER):
        cursor.skip(count * width)
        return None
    return struct.unpack(f"{cursor.order}{count}{code}", cursor.take(count * width))


def _unknown(cursor: Cursor, key: bytes, kind: int) -> GgufError:
    """Make the error for a type that has no size; arrays of arrays are in the format's description, and llama.cpp refuses them."""
    return cursor.bad(
        f"{shown(key)} is an array of arrays" if kind == _ARRAY else f"{shown(key)} is of the unknown type {kind:,}"
    )


def shown(key: bytes) -> str:
    """Quote a key or a tensor's name for a message."""
    return '"' + _clean(key[:80]) + '"'


def _clean(raw: bytes) -> str:
    """Decode a short text for people: no control characters, which play tricks on a terminal, and no surprise in length."""
    text = raw.decode(errors="replace")
    if not text.isprintable():
        text = "".join(character if character.isprintable() else " " for character in text)
    return text.strip()[:_MAX_SHOWN]


@dataclass(frozen=True, slots=True)
class Values:
    """The values by meaning: whatever is of another kind than asked for, or cannot be, counts as not said."""

    raw: dict[bytes, _Value | None]
    architecture: bytes

    def text(self, key: bytes) -> str | None:
        value = self.raw.get(key)
        return (_clean(value) or None) if isinstance(value, bytes) else None

    def template(self) -> str | None:
        value = self.raw.get(_TEMPLATE)
        return (value.decode(errors="replace") or None) if isinstance(value, bytes) else None

    def number(self, key: bytes) -> int | None:
        """Look up a whole number that is not negative, of whatever width."""
        value = self.raw.get(key)
        return value if type(value) is int and 0 <= value <= _MAX_NUMBER else None

    def own(self, key: bytes) -> int | None:
        """Look up a number whose key begins with the architecture's name."""
        return self.number(self.architecture + key)

    def own_per_layer(self, key: bytes) -> int | tuple[int, ...] | None:
        value = self.raw.get(self.architecture + key)
        if isinstance(value, tuple) and all(0 <= each <= _MAX_NUMBER for each in value):
            return tuple(map(int, value)) or None
        return self.own(key)

    def flag(self, key: bytes) -> bool:
        return self.raw.get(key) is True

    def vocabulary(self) -> int | None:
        """Return how many tokens there are."""
        return self.own(b".vocab_size") or self.number(_TOKENS)

    def alignment(self) -> int | None:
        """Return what tensors are aligned to, in bytes; None where it is said and cannot be."""
        value = self.raw.get(b"general.alignment", 32)
        return value if type(value) is int and 0 < value < 1 << 32 and not value & (value - 1) else None
