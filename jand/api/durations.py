"""Durations as clients write them: a number of seconds, or a text such as "5m", "1h30m" or "-1"."""

from __future__ import annotations

import math
import re
from typing import Final

from jand.errors import BadRequestError

UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
PART: Final = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(ms|s|m|h|d)")
WHOLE: Final = re.compile(rf"([+-]?)((?:{PART.pattern})+)")
LONGEST_TEXT: Final = 40


def parse_duration(value: object, *, param: str) -> float | None:
    """Return the seconds, below zero for a negative duration, and None where *value* is None. Raises BadRequestError that names *param*."""
    if value is None:
        return None
    seconds = _of_text(value) if isinstance(value, str) else _of_number(value)
    if seconds is None:
        raise BadRequestError(
            f"cannot use {param}: {str(value)[:LONGEST_TEXT]!r} is no duration",
            hint='give seconds as a number, or a text such as "5m"; 0 is at once, -1 is never',
            param=param,
        )
    return seconds


def _of_number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) else None


def _of_text(text: str) -> float | None:
    written = text.strip().lower()
    if len(written) > LONGEST_TEXT:
        return None
    if found := WHOLE.fullmatch(written):
        seconds = sum(float(number) * UNITS_S[unit] for number, unit in PART.findall(found[2]))
        return -seconds if found[1] == "-" else seconds
    # What float() takes beyond this (nan, 1_000, digits of other scripts) is no duration.
    return float(written) if re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)", written, re.ASCII) else None
