"""When a provider is asked again: the rules of OpenAI's own client."""

from __future__ import annotations

import email.utils

import pytest

from jand.engine.remote import retry

NOW = 1_700_000_000.0


def delay(status: int, failures: int = 1, chance: float = 0.0, **headers: str) -> float | None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return retry.find_delay(status, named, failures=failures, now=NOW, chance=chance)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 529])
def test_what_passes_is_asked_again(status: int) -> None:
    assert delay(status) == 0.5


@pytest.mark.parametrize("status", [200, 204, 301, 400, 401, 403, 404, 413, 422])
def test_what_lasts_is_not(status: int) -> None:
    assert delay(status) is None


def test_twice_and_no_more() -> None:
    assert [delay(500, failures) for failures in (1, 2, 3)] == [0.5, 1.0, None]


def test_chance_takes_off_a_quarter_at_most() -> None:
    assert delay(500, chance=1.0) == 0.375


def test_the_wait_that_is_asked_for_is_kept() -> None:
    date = email.utils.formatdate(NOW + 30, usegmt=True)
    assert delay(429, retry_after="20") == 20.0
    assert delay(429, retry_after="1.5") == 1.5
    assert delay(429, retry_after_ms="40") == 0.04
    assert delay(429, retry_after_ms="40", retry_after="20") == 0.04
    assert delay(429, retry_after=date) == 30.0
    assert delay(429, retry_after="120") == 120.0


@pytest.mark.parametrize("asked", ["0", "-5", "soon", "nan", "inf", "", email.utils.formatdate(NOW - 30, usegmt=True)])
def test_a_wait_that_makes_no_sense_gives_way_to_our_own(asked: str) -> None:
    assert delay(429, retry_after=asked) == 0.5


@pytest.mark.parametrize("asked", ["121", "3600", email.utils.formatdate(NOW + 3600, usegmt=True)])
def test_a_wait_that_is_too_long_makes_the_answer_final(asked: str) -> None:
    assert delay(429, retry_after=asked) is None
    assert delay(429, retry_after=asked, x_should_retry="true") is None


def test_the_provider_has_the_last_word() -> None:
    assert delay(429, x_should_retry="false") is None
    assert delay(400, x_should_retry="true") == 0.5
    assert delay(500, 3, x_should_retry="true") is None
