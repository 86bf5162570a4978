"""Patience, backoff, and what servers ask for."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from jand.download.retry import LONGEST_WAIT_S, Patience, RetryPolicy, TemporaryFailureError, exhausted_for, wait_asked
from jand.errors import HubUnavailableError

NOW = 1_700_000_000.0


def failure(after_s: float | None = None) -> TemporaryFailureError:
    return TemporaryFailureError(HubUnavailableError("cannot reach it: it is away"), after_s)


def test_delays_double_up_to_a_limit_and_then_patience_ends() -> None:
    patience = Patience(RetryPolicy(), lambda: 0.5)
    assert [patience.delay_after(failure()) for _ in range(7)] == [1, 2, 4, 8, 16, 32, 60]
    with pytest.raises(HubUnavailableError) as caught:
        patience.delay_after(failure())
    assert caught.value.retry_after_s == 900


def test_progress_starts_the_count_again() -> None:
    patience = Patience(RetryPolicy(), lambda: 0.5)
    for _ in range(100):
        assert patience.delay_after(failure()) == 1
        patience.note_progress()


def test_chance_spreads_delays_from_a_half_to_one_and_a_half() -> None:
    assert Patience(RetryPolicy(), lambda: 0.0).delay_after(failure()) == 0.5
    assert Patience(RetryPolicy(), lambda: 1.0).delay_after(failure()) == 1.5


def test_what_the_server_asks_for_is_waited_at_least() -> None:
    assert Patience(RetryPolicy(), lambda: 0.5).delay_after(failure(30)) == 30


def test_a_long_wait_is_told_rather_than_waited_for_in_silence() -> None:
    with pytest.raises(HubUnavailableError) as caught:
        Patience(RetryPolicy(), lambda: 0.5).delay_after(failure(2000))
    assert caught.value.retry_after_s == 2000


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7),
        ({"Retry-After": " 2.5 "}, 2.5),
        ({"Retry-After": formatdate(NOW + 90, usegmt=True)}, 90),
        ({"Retry-After": formatdate(NOW - 90, usegmt=True)}, 0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "-1"}, None),
        ({"Retry-After": "99999999"}, LONGEST_WAIT_S),
        ({"Retry-After": "Fri, 99 Foo 9999"}, None),
        ({"RateLimit": '"resolvers";r=0;t=55'}, 56),
        ({"RateLimit": '"resolvers";r=12;t=55'}, None),
        ({"RateLimit": "r=0"}, None),
        ({"RateLimit": "garbage"}, None),
        ({"Retry-After": "3", "RateLimit": '"api";r=0;t=55'}, 3),
    ],
)
def test_what_headers_ask_for(headers: dict[str, str], expected: float | None) -> None:
    assert wait_asked(headers, NOW) == expected


def test_a_quota_is_used_up_when_nothing_remains() -> None:
    assert exhausted_for({"RateLimit": '"api";r=0;t=9'}) == 10
    assert exhausted_for({"RateLimit": '"api";r=1;t=9'}) is None
