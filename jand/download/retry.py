"""When to try again: what a status means, how long a server asks us to wait, and when patience ends. Pure; clocks and chance are handed in."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from jand.errors import DownloadError

LONGEST_WAIT_S: Final = 3600.0
"""No server makes us wait longer than this before we ask again."""

TEMPORARY: Final = frozenset({408, 425, 429, 500, 502, 503, 504, 507, 509, 520, 521, 522, 523, 524})

EXPIRED: Final = frozenset({401, 403, 404, 410})
"""What storage answers once a signed address has expired; asking the hub again gives a new one."""

_RATE_LIMIT = re.compile(r"(?:^|;)\s*(r|t)\s*=\s*(\d+)")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Delays double from *first_s* to *longest_s*; after *attempts* failures in a row without a new byte a transfer rests for *rest_s*.

    What a server asks for is waited up to *longest_asked_s*; beyond that the failure is told, with the time, rather than waited for in silence.
    """

    first_s: float = 1.0
    longest_s: float = 60.0
    attempts: int = 8
    rest_s: float = 900.0
    longest_asked_s: float = 120.0
    permanent_s: float = 3600.0
    disk_full_s: float = 60.0


class TemporaryFailureError(Exception):
    """One attempt failed in a way that another may not. *after_s*: what the server asked for; *error*: what is raised when patience ends."""

    def __init__(self, error: DownloadError, after_s: float | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.after_s = after_s


class Patience:
    """Counts failures in a row. Progress, a new byte beyond all that were ever had, starts the count again."""

    def __init__(self, policy: RetryPolicy, chance: Callable[[], float]) -> None:
        self._policy = policy
        self._chance = chance
        self._failures = 0

    def note_progress(self) -> None:
        self._failures = 0

    def delay_after(self, failure: TemporaryFailureError) -> float:
        """Return how many seconds to wait; raise the error of *failure* once there were too many."""
        self._failures += 1
        policy = self._policy
        if (failure.after_s or 0.0) > policy.longest_asked_s:
            failure.error.retry_after_s = failure.after_s
            raise failure.error
        if self._failures >= policy.attempts:
            failure.error.retry_after_s = max(policy.rest_s, failure.after_s or 0.0)
            raise failure.error
        backoff: float = min(policy.longest_s, policy.first_s * 2 ** (self._failures - 1))
        return max(backoff * (0.5 + self._chance()), failure.after_s or 0.0)


def wait_asked(headers: Mapping[str, str], now: float) -> float | None:
    """Return the seconds that an answer asks to wait, by `Retry-After` or an exhausted `RateLimit`; *now* is the Unix time for the form with a date."""
    asked = _retry_after(headers.get("Retry-After", ""), now)
    if asked is None:
        asked = exhausted_for(headers)
    return None if asked is None else min(max(asked, 0.0), LONGEST_WAIT_S)


def exhausted_for(headers: Mapping[str, str]) -> float | None:
    """Return the seconds until a used-up quota is renewed; None where something is left of it."""
    facts = {key: int(value) for key, value in _RATE_LIMIT.findall(headers.get("RateLimit", ""))}
    if facts.get("r", 1) > 0 or "t" not in facts:
        return None
    # One more, since the server counts whole seconds.
    return min(facts["t"] + 1.0, LONGEST_WAIT_S)


def _retry_after(value: str, now: float) -> float | None:
    plain = value.strip()
    if re.fullmatch(r"\d{1,9}(?:\.\d+)?", plain):
        return float(plain)
    try:
        return parsedate_to_datetime(plain).timestamp() - now
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
