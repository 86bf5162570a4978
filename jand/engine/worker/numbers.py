"""Numbers within the bounds of a JSON schema, as grammar."""

from __future__ import annotations

import json
import math
from typing import Any, Final

from jand.engine.worker import gbnf

_FREE: Final = 15
"""How many digits may follow the point where nothing says so."""


class UnsupportedBoundsError(ValueError):
    """The bounds exclude every number, or every one that a grammar can be made for."""


def number_rule(schema: dict[str, Any], *, whole: bool) -> str:
    """Return the grammar of a number within the bounds of *schema*."""
    low, high = schema.get("minimum"), schema.get("maximum")
    over, under = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    low, over = (
        (over, True)
        if over is not None and not isinstance(over, bool) and (low is None or over >= low)
        else (low, over is True)
    )
    high, under = (
        (under, True)
        if under is not None and not isinstance(under, bool) and (high is None or under <= high)
        else (high, under is True)
    )
    for bound in (low, high):
        if bound is not None and (
            isinstance(bound, bool) or not isinstance(bound, int | float) or not math.isfinite(bound)
        ):
            raise UnsupportedBoundsError(f"{json.dumps(bound)[:80]} is no bound")
    digits = _fraction_digits(schema.get("multipleOf"), whole=whole)
    if low is None and high is None:
        return (
            gbnf.INTEGER
            if not digits
            else gbnf.NUMBER
            if digits == _FREE
            else f'{gbnf.INTEGER} ("." [0-9]{{1,{digits}}})?'
        )
    if not digits:
        return _whole_range(low, high, over=over, under=under)
    return _real_range(low, high, over=over, under=under, digits=digits)


def _fraction_digits(multiple: object, *, whole: bool) -> int:
    """How many digits may follow the point: those of a `multipleOf` that is a power of ten."""
    if multiple is None or (multiple == 1 and whole):
        return 0 if whole else _FREE
    if multiple == 1:
        return 0
    for digits in range(1, 10):
        if not whole and multiple == 10**-digits:
            return digits
    raise UnsupportedBoundsError(f'"multipleOf" {json.dumps(multiple)[:40]} is not supported')


def _whole_range(low: float | None, high: float | None, *, over: bool, under: bool) -> str:
    least = None if low is None else math.floor(low) + 1 if over else math.ceil(low)
    most = None if high is None else math.ceil(high) - 1 if under else math.floor(high)
    if least is not None and most is not None and least > most:
        raise UnsupportedBoundsError("no whole number lies between the bounds")
    return gbnf.whole_numbers(least, most)


def _real_range(low: float | None, high: float | None, *, over: bool, under: bool, digits: int) -> str:
    """Cover the numbers from the first to the last whole number within the bounds."""
    least = None if low is None else math.ceil(low)
    most = None if high is None else math.floor(high)
    if least is not None and most is not None and least > most:
        raise UnsupportedBoundsError("no whole number lies between the bounds, and fractions alone are not supported")
    fraction = f'("." [0-9]{{1,{digits}}})?'
    some = f'"." [0-9]{{0,{digits - 1}}} [1-9]'
    parts = []
    negative_end = None if least is None else -least  # magnitudes below zero, the last one without a fraction
    if least is None or least < 0:
        from_ = 1 if most is None or most >= 0 else -most
        parts += _half(from_, negative_end, fraction, closed=not (over and low == least), sign='"-" ')
        if from_ > 0 and (most is None or most >= 0):
            parts.append(f'"-0" {some}')
    if most is None or most >= 0:
        from_ = max(0, least or 0) if least is not None else 0
        open_low = over and least is not None and low == least and least >= 0
        if open_low:
            parts.append(f"{gbnf.literal(str(from_))} {some}")
            from_ += 1
        if most is None or from_ <= most:
            parts += _half(from_, most, fraction, closed=not (under and high == most), sign="")
    if under and high == most and most is not None and most < 0:
        raise UnsupportedBoundsError("an exclusive negative maximum is not supported")
    if not parts:
        raise UnsupportedBoundsError("no number lies between the bounds")
    return " | ".join(parts)


def _half(low: int, high: int | None, fraction: str, *, closed: bool, sign: str) -> list[str]:
    """Cover magnitudes from *low* to *high*; *high* itself, which may have no fraction, where *closed*."""
    parts = []
    if high is None:
        parts.append(f"{sign}({gbnf.whole_numbers(low, None)}) {fraction}")
        return parts
    if low <= high - 1:
        parts.append(f"{sign}({gbnf.whole_numbers(low, high - 1)}) {fraction}")
    if closed and low <= high:
        parts.append(sign + gbnf.literal(str(high)))
    return parts
