"""What counts as a duration in a request, and what is refused by its name."""

from __future__ import annotations

import pytest

from jand.api.durations import parse_duration
from jand.errors import BadRequestError


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        (0, 0.0),
        (2.5, 2.5),
        (-1, -1.0),
        ("5m", 300.0),
        (" 1h30m ", 5400.0),
        ("1.5H", 5400.0),
        ("250ms", 0.25),
        ("-1m", -60.0),
        ("90", 90.0),
        ("-1", -1.0),
        ("0", 0.0),
        ("1d", 86400.0),
    ],
)
def test_seconds_and_texts_with_units_are_durations(written: object, seconds: float) -> None:
    assert parse_duration(written, param="keep_alive") == seconds


def test_null_is_not_given() -> None:
    assert parse_duration(None, param="keep_alive") is None


@pytest.mark.parametrize(
    "written",
    [
        *("", "soon", "5 m", "5x", "m", "1h-5m", "nan", "inf", "1_000", "٣", "5m" * 30, "1" * 5000),
        *(True, False, [], {}, float("nan"), float("inf"), 10**400),
    ],
    ids=lambda value: str(value)[:12],
)
def test_anything_else_is_refused_with_the_name_of_its_field(written: object) -> None:
    with pytest.raises(BadRequestError) as caught:
        parse_duration(written, param="keep_alive")

    assert caught.value.param == "keep_alive"
    assert len(caught.value.message) < 120
