"""The keys and values of a GGUF: which are kept, which are stepped over, and what they say.

All numbers are kept (there are at most `MAX_KEYS`), of the texts only the few that somebody asks for, of the arrays only short ones with a value for each layer. The
vocabulary, nearly all of a header, is stepped over, and only its length is kept.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from jand.model.gguf_cursor import MAX_STRING
from jand.model.immutable import immutable

if TYPE_CHECKING:
    from collections.abc import Callable

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
_LONGEST_NUMBER: Final = 4 + 8
_READERS: Final = {
    "<": {kind: struct.Struct(f"<{code}") for kind, (code, _) in _NUMBERS.items()},
    ">": {},
}
"""What reads the number of a kind of which the first byte is here; files of the other byte order take the longer way."""

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
    data, start = cursor.data, cursor.pos
    if len(data) - start >= _LONGEST_NUMBER:
        # Most values are numbers, and nearly always they are here already.
        reader = _READERS[cursor.order].get(data[start])
        if reader is not None and data[start + 1 : start + 4] == b"\0\0\0":
            number: int | float = reader.unpack_from(data, start + 4)[0]
            cursor.pos = start + 4 + reader.size
            return number
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


def _text(value: object) -> str | None:
    return (_clean(value) or None) if isinstance(value, bytes) else None


def _template_text(value: object) -> str | None:
    return (value.decode(errors="replace") or None) if isinstance(value, bytes) else None


def _number(value: object) -> int | None:
    """Take a whole number that is not negative, of whatever width."""
    return value if type(value) is int and 0 <= value <= _MAX_NUMBER else None


def _per_layer(value: object) -> int | tuple[int, ...] | None:
    if isinstance(value, tuple) and all(0 <= each <= _MAX_NUMBER for each in value):
        return tuple(map(int, value)) or None
    return _number(value)


def _flag(value: object) -> bool:
    return value is True


_READ: Final[dict[str, Callable[[object], object]]] = {
    "architecture": lambda value: _text(value) or "",
    "type": lambda value: _text(value) or "model",
    **dict.fromkeys(("name", "basename", "size_label", "finetune", "license", "organization", "tokenizer"), _text),
    **dict.fromkeys(("file_type", "bos_token_id", "eos_token_id"), _number),
    "chat_template": _template_text,
    "has_vision": _flag,
    "has_audio": _flag,
    "split_no": lambda value: _number(value) or 0,
    "split_count": lambda value: _number(value) or 1,
}
"""How the value of a field is read; of no value it makes what the field is when nothing is said."""

_FIELDS: Final = {
    b"general.architecture": "architecture",
    b"general.type": "type",
    b"general.name": "name",
    b"general.basename": "basename",
    b"general.size_label": "size_label",
    b"general.finetune": "finetune",
    b"general.license": "license",
    b"general.organization": "organization",
    b"general.file_type": "file_type",
    b"tokenizer.ggml.model": "tokenizer",
    b"tokenizer.ggml.bos_token_id": "bos_token_id",
    b"tokenizer.ggml.eos_token_id": "eos_token_id",
    _TEMPLATE: "chat_template",
    b"clip.has_vision_encoder": "has_vision",
    b"clip.has_audio_encoder": "has_audio",
    b"split.no": "split_no",
    b"split.count": "split_count",
}

_PER_LAYER_FIELDS: Final = {"head_count", "head_count_kv", "sliding_window_pattern"}

_OWN_FIELDS: Final = {
    b".context_length": "context_length",
    b".embedding_length": "embedding_length",
    b".block_count": "block_count",
    b".attention.head_count": "head_count",
    b".attention.head_count_kv": "head_count_kv",
    b".attention.key_length": "key_length",
    b".attention.value_length": "value_length",
    b".attention.sliding_window": "sliding_window",
    b".attention.sliding_window_pattern": "sliding_window_pattern",
    b".expert_count": "expert_count",
    b".expert_used_count": "expert_used_count",
    b".vocab_size": "vocab_size",
    b".pooling_type": "pooling_type",
}
"""The fields whose keys begin with the architecture's name."""

_NOTHING_SAID: Final[dict[str, Any]] = {
    **dict.fromkeys(_OWN_FIELDS.values()),
    **{field: read(None) for field, read in _READ.items()},
}


@immutable()
class Values:
    """The values by meaning: whatever is of another kind than asked for, or cannot be, counts as not said."""

    raw: dict[bytes, _Value | None]
    architecture: bytes

    def by_field(self) -> dict[str, Any]:
        """Return what is said, by the names of the fields of a `Header`: one pass over the keys that are there, for most of those that could be are not."""
        said: dict[str, Any] = _NOTHING_SAID.copy()
        own, tokens = len(self.architecture), None
        for key, value in self.raw.items():
            if (field := _FIELDS.get(key)) is not None:
                said[field] = _READ[field](value)
            elif key.startswith(self.architecture) and (field := _OWN_FIELDS.get(key[own:])) is not None:
                said[field] = _per_layer(value) if field in _PER_LAYER_FIELDS else _number(value)
            elif key == _TOKENS:
                tokens = _number(value)
        said["vocab_size"] = said["vocab_size"] or tokens
        return said

    def alignment(self) -> int | None:
        """Return what tensors are aligned to, in bytes; None where it is said and cannot be."""
        value = self.raw.get(b"general.alignment", 32)
        return value if type(value) is int and 0 < value < 1 << 32 and not value & (value - 1) else None
