"""Model JSONs broken on purpose, the same ones for the same seed: as 1,000 files in a models folder, and as a fuzz for the reader alone."""

from __future__ import annotations

import json
import random
import re
from typing import TYPE_CHECKING, Any, Final

from tests.fakes import spec_examples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_STRICT: Final = json.dumps(
    {
        "origin": "tests/strict",
        "import_format": "default",
        "download_url": ["weights.gguf", "sub/mmproj.gguf"],
        "created": 1686935002,
        "parameters": {"init": {"ctx_len": 2048, "n_parallel": 4}, "runtime": {"temperature": 0.7, "stop": ["</s>"]}},
        "metadata": {"engine": "llamacpp", "tags": ["small"]},
    },
    indent=2,
)
_BASES: Final[Sequence[str]] = (*spec_examples.ALL.values(), _STRICT)

_HOSTILE_VALUES: Final[Sequence[str]] = (
    *("NaN", "-Infinity", "1e999", "9" * 5000, "-" + "9" * 30, "0x", "007", "1e", "--1", "True", "None", "undefined"),
    *(
        '"\\ud800"',
        '"\\u0000"',
        '"\\x"',
        '"C:\\models\\x"',
        "'",
        '"',
        "`x`",
        "\u201cx\u201d",
        "<html>",
        "{name}",
        "...",
        "-",
    ),
    *(
        "[" * 100 + "]" * 100,
        '{"a":' * 100 + "1" + "}" * 100,
        "[[1]",
        "{]",
        "/*",
        "//",
        "#",
        "\ufffd",
        "\x00",
        "\x1b[2J",
    ),
)
_WRONG_VALUES: Final[Sequence[Any]] = (
    *(
        -1,
        0,
        1.5,
        10**15,
        True,
        "abc",
        "0,7",
        "many\nlines",
        [],
        [None],
        [[]],
        {},
        {"a": {}},
        "x" * 5000,
        None,
        "",
        "..",
    ),
)


def mutations(seed: int, count: int, *, bases: Sequence[str] = _BASES) -> Iterator[tuple[str, bytes]]:
    """Make *count* contents of a `.json` from *bases*, each with a name (no ending) that says how it was broken; some are good all the same."""
    ways = tuple(_WAYS)
    for number in range(count):
        dice = random.Random(f"{seed}:{number}")
        way = ways[number % len(ways)]
        yield f"{number:05d}-{way.__name__.strip('_').replace('_', '-')}", way(dice, dice.choice(bases))


def _drop_a_mark(dice: random.Random, text: str) -> bytes:
    place = dice.choice([match.start() for match in re.finditer(r"[{}\[\]:,\"']", text)])
    return (text[:place] + text[place + 1 :]).encode()


def _double_a_mark(dice: random.Random, text: str) -> bytes:
    place = dice.choice([match.start() for match in re.finditer(r"[{}\[\]:,\"']", text)])
    return (text[:place] + text[place] + text[place:]).encode()


def _swap_marks(dice: random.Random, text: str) -> bytes:
    marks = "{}[]:,\"'#/"
    data = list(text)
    for _ in range(dice.randint(1, 4)):
        place = dice.choice([place for place, character in enumerate(data) if character in marks])
        data[place] = dice.choice(marks)
    return "".join(data).encode()


def _cut_off(dice: random.Random, text: str) -> bytes:
    raw = text.encode()
    return raw[: dice.randrange(len(raw))]


def _cut_out(dice: random.Random, text: str) -> bytes:
    begin = dice.randrange(len(text))
    return (text[:begin] + text[begin + dice.randint(1, 200) :]).encode()


def _fill_the_rest_with_nul(dice: random.Random, text: str) -> bytes:
    raw = text.encode()
    cut = dice.randrange(len(raw))
    return raw[:cut] + bytes(len(raw) - cut)


def _change_bytes(dice: random.Random, text: str) -> bytes:
    data = bytearray(text.encode())
    for _ in range(dice.randint(1, 8)):
        place = dice.randrange(len(data))
        data[place] = dice.choice((data[place] ^ (1 << dice.randrange(8)), dice.randrange(256)))
    return bytes(data)


def _insert_bytes(dice: random.Random, text: str) -> bytes:
    raw = text.encode()
    place = dice.randrange(len(raw))
    return raw[:place] + dice.randbytes(dice.randint(1, 16)) + raw[place:]


def _put_a_hostile_value(dice: random.Random, text: str) -> bytes:
    place = dice.choice(list(re.finditer(r"(?<=: )(\"[^\"\n]*\"|[\w.]+)", text)))
    return (text[: place.start()] + dice.choice(_HOSTILE_VALUES) + text[place.end() :]).encode()


def _put_a_wrong_value(dice: random.Random, text: str) -> bytes:
    place = dice.choice(list(re.finditer(r"(?<=: )(\"[^\"\n]*\"|[\w.]+)", text)))
    return (text[: place.start()] + json.dumps(dice.choice(_WRONG_VALUES)) + text[place.end() :]).encode()


def _rename_a_field(dice: random.Random, text: str) -> bytes:
    place = dice.choice(list(re.finditer(r"\"?[\w-]+\"?(?=: )", text)))
    name = dice.choice(('"orgin"', '"ctx_len"', "API KEY", "-", '""', "'origin'", "1", "__proto__", '"\\u006frigin"'))
    return (text[: place.start()] + name + text[place.end() :]).encode()


def _repeat_a_line(dice: random.Random, text: str) -> bytes:
    lines = text.split("\n")
    line = dice.choice(lines)
    lines.insert(dice.randrange(len(lines)), line)
    return "\n".join(lines).encode()


def _move_a_line(dice: random.Random, text: str) -> bytes:
    lines = text.split("\n")
    line = lines.pop(dice.randrange(len(lines)))
    lines.insert(dice.randrange(len(lines)), line)
    return "\n".join(lines).encode()


def _open_a_comment(dice: random.Random, text: str) -> bytes:
    place = dice.randrange(len(text))
    return (text[:place] + dice.choice(("/*", "//", "#", "/", "*/", "<!--")) + text[place:]).encode()


def _encode_otherwise(dice: random.Random, text: str) -> bytes:
    text = text.replace("models", "modèles").replace("curious", "c\u00fcrious")
    return text.encode(dice.choice(("utf-16", "utf-16-le", "utf-32", "latin-1", "utf-8-sig", "utf-7")))


def _end_lines_otherwise(dice: random.Random, text: str) -> bytes:
    return text.replace("\n", dice.choice(("\r\n", "\r", "\u2028", " ", "\n\n"))).encode()


def _nest_deeply(dice: random.Random, text: str) -> bytes:
    depth = dice.choice((10, 31, 32, 33, 1000, 20_000))
    return text.replace("2048", "[" * depth + "]" * depth, 1).encode()


def _blow_up(dice: random.Random, text: str) -> bytes:
    filling = dice.choice((" ", "\n", "#", "x", "/**/", '"a",', "\\", "\u00e9"))
    place = dice.randrange(len(text))
    return (text[:place] + filling * (dice.choice((10_000, 200_000)) // len(filling)) + text[place:]).encode()


def _something_else(dice: random.Random, _text: str) -> bytes:
    others: Sequence[bytes] = (
        *(
            b"",
            b"\n",
            b"null",
            b"[]",
            b"5",
            b'"text"',
            b"{}",
            b"{",
            b"}",
            b"\xef\xbb\xbf",
            bytes(4096),
            b"GGUF\x03\0\0\0",
        ),
        *(
            b"<!DOCTYPE html><html></html>",
            b"version https://git-lfs.github.com/spec/v1\nsize 5\n",
            b"PK\x03\x04",
            b"# only\n",
        ),
        *(b"origin: tests/yaml\n", b"[model]\norigin = 1\n", b"{'origin': {model_file_name}}", dice.randbytes(500)),
    )
    return dice.choice(others)


_WAYS: Final[Sequence[Callable[[random.Random, str], bytes]]] = (
    _drop_a_mark,
    _double_a_mark,
    _swap_marks,
    _cut_off,
    _cut_out,
    _fill_the_rest_with_nul,
    _change_bytes,
    _insert_bytes,
    _put_a_hostile_value,
    _put_a_wrong_value,
    _rename_a_field,
    _repeat_a_line,
    _move_a_line,
    _open_a_comment,
    _encode_otherwise,
    _end_lines_otherwise,
    _nest_deeply,
    _blow_up,
    _something_else,
)
