"""When a provider is asked again before anything was passed on, and after how long: the rules of OpenAI's own client (3.54). Pure.

One difference: what was sent and then met nothing but silence is not asked again, because the provider may well be working on it, and charge for it.
"""

from __future__ import annotations

import math
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

RETRIES: Final = 2
FIRST_S: Final = 0.5
LONGEST_S: Final = 8.0
JITTER: Final = 0.25
"""The share of a delay that chance may take off."""

MOST_ASKED_S: Final = 120.0
"""A provider that asks for a longer wait is not asked again; its answer, which says so, is passed on."""


def find_delay(
    status: int,
    headers: Mapping[str, str],
    *,
    failures: int,
    now: float,
    chance: float,
    most_asked_s: float = MOST_ASKED_S,
) -> float | None:
    """Return the seconds until the next attempt after an answer, None where it is final.

    *failures* counts the attempts that went wrong with this one, *now* is the Unix time, *chance* lies between 0 and 1.
    """
    asked = read_wait(headers, now)
    if failures > RETRIES or (asked is not None and asked > most_asked_s):
        return None
    told = headers.get("x-should-retry", "").strip().lower()
    wanted = told == "true" or (told != "false" and (status in {408, 409, 429} or status >= 500))
    if not wanted:
        return None
    return asked if asked is not None and asked > 0 else backoff(failures, chance)


def backoff(failures: int, chance: float) -> float:
    return min(FIRST_S * 2.0 ** (failures - 1), LONGEST_S) * (1 - JITTER * chance)


def read_wait(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds that an answer asks to wait, by `retry-after-ms` (Azure), else by `Retry-After` in either form."""
    for name, in_a_second in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            value = float(headers.get(name, ""))
        except ValueError:
            continue
        if math.isfinite(value):
            return value / in_a_second
    try:
        return parsedate_to_datetime(headers.get("retry-after", "")).timestamp() - now
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
