"""GGUFs broken on purpose, the same ones for the same seed: as 1,000 files in a models folder, and as a fuzz for the reader alone."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

from tests.fakes.gguf_bytes import Kind, Tensor, Value, What, Written, array, text, u32, write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.fakes.gguf_bytes import Field

LFS_POINTER: Final = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    b"size 4368438944\n"
)
WEB_PAGE: Final = (
    b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Please sign in to go on.</body></html>\n"
)
GGJT_FILE: Final = b"tjgg" + b"\x03\x00\x00\x00\x00\x7d\x00\x00\x00\x10\x00\x00" + bytes(range(256))
"""A file of a format from before GGUF: magic, version 3, and the beginning of what followed."""

_VALUES: Final[Sequence[tuple[str, Value]]] = (
    ("general.architecture", text("llama")),
    ("general.name", text("Mutant")),
    ("general.alignment", u32(32)),
    ("general.file_type", u32(0)),
    ("llama.context_length", u32(2048)),
    ("llama.block_count", Value(Kind.U64, 2)),
    ("llama.attention.head_count_kv", array(Kind.I32, [4, 2])),
    ("tokenizer.ggml.model", text("llama")),
    ("tokenizer.ggml.tokens", array(Kind.TEXT, [f"token {number}" for number in range(40)])),
    ("tokenizer.ggml.scores", array(Kind.F32, [0.5] * 40)),
    ("tokenizer.chat_template", text("{{ messages }}")),
)
_TENSORS: Final[Sequence[Tensor]] = (
    Tensor("token_embd.weight", (64, 40), 0, 64 * 40 * 4),
    Tensor("blk.0.attn_q.weight", (256, 2), 12, 2 * 144),
    Tensor("blk.1.attn_q.weight", (64, 3), 8, 6 * 34),
    Tensor("output_norm.weight", (64,), 0, 256),
)
_GOOD: Final = write(_VALUES, _TENSORS)


def sound() -> Written:
    """Return the good file that `mutations` breaks."""
    return _GOOD


def mutations(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Make *count* files, each with a name that says how it was broken.

    Every one is broken by construction: cut off, or with a field that no GGUF can have, or no GGUF at all; so each must be found out from its header and its size.
    """
    ways = tuple(_WAYS)
    for number in range(count):
        dice = random.Random(f"{seed}:{number}")
        way = ways[number % len(ways)]
        yield f"{number:05d}-{way.__name__.strip('_').replace('_', '-')}", way(dice)


def scrambles(seed: int, count: int) -> Iterator[bytes]:
    """Make *count* files with one to eight changed bytes anywhere in the header; some of them are still good."""
    for number in range(count):
        dice = random.Random(f"scramble {seed}:{number}")
        data = bytearray(_GOOD.whole)
        for _ in range(dice.randint(1, 8)):
            place = dice.randrange(len(_GOOD.header))
            data[place] = dice.choice((data[place] ^ (1 << dice.randrange(8)), dice.randrange(256)))
        yield bytes(data)


def _pick(dice: random.Random, *kinds: What) -> Field:
    return dice.choice([each for each in _GOOD.fields if each.what in kinds])


def _with(field: Field, value: int) -> bytes:
    data = bytearray(_GOOD.whole)
    data[field.offset : field.offset + field.width] = value.to_bytes(field.width, "little")
    return bytes(data)


def _cut_within_the_header(dice: random.Random) -> bytes:
    return _GOOD.whole[: dice.randrange(len(_GOOD.header))]


def _cut_within_the_weights(dice: random.Random) -> bytes:
    return _GOOD.whole[: dice.randrange(len(_GOOD.header), _GOOD.size)]


def _hole_in_the_header(dice: random.Random) -> bytes:
    """Put zeros from some place before the last tensor's name on, as a copy that laid out the file first leaves them."""
    last = max(each.offset for each in _GOOD.fields if each.what is What.NAME_LENGTH)
    return _GOOD.whole[: dice.randint(0, last)].ljust(_GOOD.size, b"\x00")


def _wrong_magic(dice: random.Random) -> bytes:
    return bytes([_GOOD.whole[0] ^ (1 << dice.randrange(8))]) + _GOOD.whole[1:]


def _wrong_version(dice: random.Random) -> bytes:
    return _with(_pick(dice, What.VERSION), dice.choice((0, 1, 4, 77, 1 << 31, 0x03000000, 0xFFFFFFFF)))


def _huge_count(dice: random.Random) -> bytes:
    return _with(_pick(dice, What.TENSOR_COUNT, What.KEY_COUNT), dice.choice((100_001, 1 << dice.randrange(20, 64))))


def _huge_length(dice: random.Random) -> bytes:
    field = _pick(dice, What.KEY_LENGTH, What.TEXT_LENGTH, What.NAME_LENGTH)
    return _with(field, dice.choice(((1 << 64) - 1, (1 << 63) - 8, 1 << dice.randrange(20, 63))))


def _flipped_high_bit(dice: random.Random) -> bytes:
    """Flip one bit, in a length or count and so high that no file could be so large."""
    field = _pick(dice, What.KEY_LENGTH, What.TEXT_LENGTH, What.NAME_LENGTH, What.ELEMENT_COUNT, What.KEY_COUNT)
    value = int.from_bytes(_GOOD.whole[field.offset : field.offset + field.width], "little")
    return _with(field, value ^ (1 << dice.randrange(32, 64)))


def _empty_name(dice: random.Random) -> bytes:
    return _with(_pick(dice, What.KEY_LENGTH, What.NAME_LENGTH), 0)


def _unknown_value_type(dice: random.Random) -> bytes:
    return _with(_pick(dice, What.KIND, What.ELEMENT_KIND), dice.choice((13, 99, 1 << 16, 0xFFFFFFFF)))


def _nested_array(dice: random.Random) -> bytes:
    return _with(_pick(dice, What.ELEMENT_KIND), Kind.ARRAY)


def _huge_array(dice: random.Random) -> bytes:
    return _with(_pick(dice, What.ELEMENT_COUNT), dice.choice((1 << 40, (1 << 64) - 1, 50_000_000, 1 << 62)))


def _too_many_dimensions(dice: random.Random) -> bytes:
    return _with(_pick(dice, What.DIMENSIONS), dice.choice((5, 8, 255, 0xFFFFFFFF)))


def _huge_tensor(dice: random.Random) -> bytes:
    return _with(_pick(dice, What.SIZE), dice.choice(((1 << 64) - 256, 1 << 63, 1 << 62, 256 << 30)))


def _unknown_tensor_type(dice: random.Random) -> bytes:
    return _with(_pick(dice, What.TENSOR_KIND), dice.choice((4, 31, 38, 200, 1 << 16, 0xFFFFFFFF)))


def _misplaced_tensor(dice: random.Random) -> bytes:
    field = _pick(dice, What.OFFSET)
    value = int.from_bytes(_GOOD.whole[field.offset : field.offset + field.width], "little")
    return _with(field, value + dice.choice((1, 32, 1 << 20, 1 << 40)))


def _uneven_row(dice: random.Random) -> bytes:
    """Give a quantised tensor a first dimension that is no multiple of its block."""
    sizes = [each for each in _GOOD.fields if each.what is What.SIZE]
    return _with(sizes[2], dice.choice((255, 257, 128)))


def _odd_alignment(dice: random.Random) -> bytes:
    value = u32(dice.choice((0, 3, 33, 48, 0xFFFFFFFF)))
    return write([(key, value if key == "general.alignment" else each) for key, each in _VALUES], _TENSORS).whole


def _key_twice(dice: random.Random) -> bytes:
    return write([*_VALUES, dice.choice(_VALUES)], _TENSORS).whole


def _tensor_twice(dice: random.Random) -> bytes:
    return write(_VALUES, [*_TENSORS, dice.choice(_TENSORS)]).whole


def _no_architecture(_dice: random.Random) -> bytes:
    return write(_VALUES[1:], _TENSORS).whole


def _no_weights(_dice: random.Random) -> bytes:
    return write(_VALUES, []).whole


def _impossible_part(dice: random.Random) -> bytes:
    split = [("split.no", Value(Kind.U16, dice.randint(3, 99))), ("split.count", Value(Kind.U16, 3))]
    return write([*_VALUES, *split], _TENSORS).whole


def _noise(dice: random.Random) -> bytes:
    return b"\x8e" + dice.randbytes(dice.randrange(1, 8192))


def _noise_after_the_magic(dice: random.Random) -> bytes:
    # 0xEE keeps what follows from being a version, whichever way it is read.
    return b"GGUF\xee\xee\xee\xee" + dice.randbytes(dice.randrange(16, 8192))


def _something_else(dice: random.Random) -> bytes:
    archive = b"PK\x03\x04\x14\x00\x00\x00\x08\x00" + dice.randbytes(200)
    return dice.choice(
        (LFS_POINTER, WEB_PAGE, GGJT_FILE, archive, bytes(4096), b"", b'{"error": "Repository not found"}')
    )


_WAYS: Final[Sequence[Callable[[random.Random], bytes]]] = (
    _cut_within_the_header,
    _cut_within_the_weights,
    _hole_in_the_header,
    _wrong_magic,
    _wrong_version,
    _huge_count,
    _huge_length,
    _flipped_high_bit,
    _empty_name,
    _unknown_value_type,
    _nested_array,
    _huge_array,
    _too_many_dimensions,
    _huge_tensor,
    _unknown_tensor_type,
    _misplaced_tensor,
    _uneven_row,
    _odd_alignment,
    _key_twice,
    _tensor_twice,
    _no_architecture,
    _no_weights,
    _impossible_part,
    _noise,
    _noise_after_the_magic,
    _something_else,
)
