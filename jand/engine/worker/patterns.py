"""A `pattern` of a JSON schema as grammar. Python's own parser reads the expression; what a grammar cannot say is refused, not ignored."""

from __future__ import annotations

import re
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any, Final

from jand.engine.worker import gbnf

_NEVER: Final = [(0x00, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0x7F, 0x7F)]
"""Characters that a JSON string cannot hold as they are; classes go without them."""
_LAST: Final = 0x10FFFF
_CATEGORIES: Final = {
    "CATEGORY_DIGIT": [(0x30, 0x39)],
    "CATEGORY_WORD": [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)],
    "CATEGORY_SPACE": [(0x20, 0x20)],
}
Ranges = list[tuple[int, int]]


class UnsupportedPatternError(ValueError):
    """The expression uses what a grammar cannot say."""


def pattern_rule(pattern: str) -> str:
    """Return the grammar of the inside of a JSON string that *pattern* matches; as JSON schema has it, it may match anywhere unless it is anchored."""
    try:
        tree = list(parser.parse(pattern, re.ASCII))
    except (re.error, RecursionError, OverflowError) as error:
        raise UnsupportedPatternError(str(error)) from error
    before, after = f"({gbnf.CHARACTER})*", f"({gbnf.CHARACTER})*"
    if tree and tree[0] == (op.AT, op.AT_BEGINNING):
        tree, before = tree[1:], ""
    if tree and tree[-1] in {(op.AT, op.AT_END), (op.AT, op.AT_END_STRING)}:
        tree, after = tree[:-1], ""
    return " ".join(part for part in (before, _sequence(tree), after) if part) or '""'


def _sequence(tree: Any) -> str:
    return " ".join(_item(kind, value) for kind, value in tree) or '""'


def _item(kind: Any, value: Any) -> str:
    match str(kind):
        case "LITERAL":
            return gbnf.literal(_json_char(value))
        case "NOT_LITERAL":
            return _class([(value, value)], negated=True)
        case "ANY":
            return _class([], negated=True)
        case "IN":
            return _in(value)
        case "MAX_REPEAT" | "MIN_REPEAT":
            return _repeated(value)
        case "SUBPATTERN":
            return f"({_sequence(value[3])})"
        case "BRANCH":
            return f"({' | '.join(_sequence(branch) for branch in value[1])})"
        case other:
            raise UnsupportedPatternError(f"{other.lower()} is not supported")


def _repeated(value: Any) -> str:
    least, most, tree = value
    upper = None if most is op.MAXREPEAT else int(most)
    if least > gbnf.MOST_REPEATED:
        raise UnsupportedPatternError(f"a repetition of {least}")
    return gbnf.repeat(f"({_sequence(tree)})", int(least), None if upper is None else min(upper, gbnf.MOST_REPEATED))


def _in(items: Any) -> str:
    negated, ranges = False, Ranges()
    for kind, value in items:
        match str(kind):
            case "NEGATE":
                negated = True
            case "LITERAL":
                ranges.append((value, value))
            case "RANGE":
                ranges.append(value)
            case "CATEGORY":
                ranges += _category(str(value))
            case other:
                raise UnsupportedPatternError(f"{other.lower()} in a class")
    return _class(ranges, negated=negated)


def _category(name: str) -> Ranges:
    if name in _CATEGORIES:
        return _CATEGORIES[name]
    positive = name.replace("_NOT_", "_")
    if positive not in _CATEGORIES:
        raise UnsupportedPatternError(name.lower())
    return _complement(_CATEGORIES[positive])


def _class(ranges: Ranges, *, negated: bool) -> str:
    """Return a class without what JSON would have to escape; an escaped character stands as an alternative where it alone was asked for."""
    if negated:
        return gbnf.class_of(_merged(ranges + _NEVER), negated=True)
    kept = _complement(_merged(_complement(ranges) + _NEVER))
    if kept:
        return gbnf.class_of(kept)
    escaped = [gbnf.literal(_json_char(low)) for low, high in ranges if low == high]
    if not escaped:
        raise UnsupportedPatternError("a class of control characters")
    return f"({' | '.join(escaped)})"


def _complement(ranges: Ranges) -> Ranges:
    found, start = Ranges(), 0
    for low, high in _merged(ranges):
        if start < low:
            found.append((start, low - 1))
        start = high + 1
    if start <= _LAST:
        found.append((start, _LAST))
    return found


def _merged(ranges: Ranges) -> Ranges:
    found = Ranges()
    for low, high in sorted(ranges):
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return found


def _json_char(code: int) -> str:
    char = chr(code)
    if char in '"\\':
        return "\\" + char
    known = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\f": "\\f"}
    return known.get(char) or (char if code >= 0x20 and code != 0x7F else f"\\u{code:04x}")
