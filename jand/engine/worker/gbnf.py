"""The small parts of llama.cpp's grammar notation: literals, character classes, repetition, ranges of numbers. Pure text in, pure text out."""

from __future__ import annotations

from typing import Final

MOST_REPEATED: Final = 2000
"""llama.cpp unrolls bounded repetitions and refuses more than this."""

_ESCAPES: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "\\": "\\\\", "[": "\\[", "]": "\\]"}

CHARACTER: Final = (
    r'[^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" ([0-9a-cA-Ce-fE-F] [0-9a-fA-F]{3} | [dD] [0-7] [0-9a-fA-F]{2}))'
)
"""A character inside a JSON string; half of a surrogate pair is none."""
SPACE: Final = r'| " " | "\n" [ \t]{0,20}'
"""What may stand between two tokens of JSON; bounded, since a model can go on with it for ever."""
INTEGER: Final = '"-"? ("0" | [1-9] [0-9]{0,15})'
FRACTION: Final = '("." [0-9]{1,15})'
NUMBER: Final = INTEGER + f" {FRACTION}?" + " ([eE] [-+]? [0-9] [0-9]{0,1})?"


def literal(text: str) -> str:
    """Return *text* as a terminal."""
    return '"' + "".join(_ESCAPES[char] if char in '\n\r\t"\\' else _escape(char) for char in text) + '"'


def _escape(char: str) -> str:
    code = ord(char)
    if 0x20 <= code < 0x7F:
        return char
    return f"\\x{code:02X}" if code < 0x100 else f"\\u{code:04X}" if code < 0x10000 else f"\\U{code:08X}"


def class_of(ranges: list[tuple[int, int]], *, negated: bool = False) -> str:
    """Return the class of characters whose codes lie in *ranges*."""
    parts = [_class_char(low) if low == high else f"{_class_char(low)}-{_class_char(high)}" for low, high in ranges]
    return f"[{'^' if negated else ''}{''.join(parts)}]"


def _class_char(code: int) -> str:
    char = chr(code)
    if char in "^-":
        return f"\\x{code:02X}"
    return _ESCAPES.get(char) or _escape(char)


def repeat(item: str, least: int, most: int | None) -> str:
    """Return *item*, an atom, *least* to *most* times."""
    if (least, most) == (0, None):
        return f"{item}*"
    if (least, most) == (1, None):
        return f"{item}+"
    if (least, most) == (0, 1):
        return f"{item}?"
    return f"{item}{{{least},{'' if most is None else most}}}" if least != most else f"{item}{{{least}}}"


def whole_numbers(low: int | None, high: int | None) -> str:
    """Return alternatives for the decimal numbers from *low* to *high*, None for no bound; without leading zeros."""
    parts: list[str] = []
    if low is None or low < 0:
        least = 1 if high is None or high >= 0 else -high
        parts += ['"-" ' + part for part in _magnitudes(least, None if low is None else -low)]
    if high is None or high >= 0:
        parts += _magnitudes(max(0, low or 0), high)
    return " | ".join(parts)


def _magnitudes(low: int, high: int | None) -> list[str]:
    if high is None:
        digits = len(str(low))
        more = f"[1-9] [0-9]{{{digits},{max(digits, 15)}}}"
        return [*_same_length(str(low), "9" * digits), more]
    parts: list[str] = []
    for digits in range(len(str(low)), len(str(high)) + 1):
        first = max(low, 10 ** (digits - 1) if digits > 1 else 0)
        last = min(high, 10**digits - 1)
        parts += _same_length(str(first), str(last))
    return parts


def _same_length(low: str, high: str) -> list[str]:
    """Cover the numbers between two of equally many digits by alternatives of digit classes."""
    if low == high:
        return [literal(low)]
    rest = len(low) - 1
    if low[1:] == "0" * rest and high[1:] == "9" * rest:
        return [_digits(low[0], high[0]) + (f" [0-9]{{{rest}}}" if rest else "")]
    if low[0] == high[0]:
        return [f"{literal(low[0])} ({' | '.join(_same_length(low[1:], high[1:]))})"]
    parts = []
    first, last = int(low[0]), int(high[0])
    if low[1:] != "0" * rest:
        parts.append(f"{literal(low[0])} ({' | '.join(_same_length(low[1:], '9' * rest))})")
        first += 1
    end: list[str] = []
    if high[1:] != "9" * rest:
        end.append(f"{literal(high[0])} ({' | '.join(_same_length('0' * rest, high[1:]))})")
        last -= 1
    if first <= last:
        parts.append(_digits(str(first), str(last)) + f" [0-9]{{{rest}}}")
    return parts + end


def _digits(low: str, high: str) -> str:
    return literal(low) if low == high else f"[{low}-{high}]"
