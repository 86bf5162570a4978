"""How far a download is, in words."""

from __future__ import annotations

import pytest

from jand.cli.following import duration, progress_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (99, "99 s"),
        (100, "1 min 40 s"),
        (5999, "99 min 59 s"),
        (6000, "1 h 40 min"),
        (90000, "25 h 00 min"),
    ],
)
def test_durations_are_as_exact_as_one_cares(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("done", "total", "speed", "left", "text"),
    [
        (0, None, 0.0, None, "0 B"),
        (5_000_000, None, 1e6, None, "5.0 MB, 1.0 MB/s"),
        (1_000, 4_000, 0.0, None, "25% of 4.0 kB"),
        (42, 100, 10.0, 5.8, "42% of 100 B, 10 B/s, 6 s left"),
    ],
)
def test_progress_says_what_is_known(done: int, total: int | None, speed: float, left: float | None, text: str) -> None:
    progress = {"bytes_done": done, "bytes_total": total, "bytes_per_second": speed, "eta_seconds": left}

    assert progress_text(progress) == text
