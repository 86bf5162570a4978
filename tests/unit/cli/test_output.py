"""Tables, sizes and JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jand.cli import output
from jand.cli.models import size_of, state_of


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (None, "?"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (98_362_432, "98.4 MB"),
        (999_960, "1.0 MB"),
        (140_000_000_000, "140 GB"),
        (3e15, "3000 TB"),
    ],
)
def test_sizes_are_in_decimal_units(number: float | None, text: str) -> None:
    assert output.size(number) == text


def test_a_table_elsewhere_than_on_a_terminal_is_padded_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table(("ID", "STATE"), [("zephyr-7b", "running"), ("a\nb", "")])

    assert capsys.readouterr().out == "ID         STATE\nzephyr-7b  running\na\\nb\n"


def test_json_is_ascii_so_that_any_file_name_passes(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"name": "é\udcff"})

    out = capsys.readouterr().out
    assert out.isascii()
    assert json.loads(out) == {"name": "é\udcff"}


MODEL: dict[str, Any] = {
    "state": "downloaded",
    "transition": None,
    "details": {},
    "progress": None,
    "paused": False,
    "restart_needed": False,
    "files": [],
}


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({}, "downloaded"),
        ({"transition": "starting", "details": {"load_progress": 0.4}}, "downloaded (starting 40%)"),
        ({"transition": "stopping", "state": "running"}, "running (stopping)"),
        ({"state": "downloading", "progress": {"bytes_done": 1, "bytes_total": 8}}, "downloading (12%)"),
        ({"state": "downloading", "progress": {"bytes_done": 1, "bytes_total": None}}, "downloading"),
        ({"state": "downloading", "paused": True}, "downloading (paused)"),
        ({"state": "running", "restart_needed": True}, "running (restart needed)"),
    ],
)
def test_the_state_says_what_goes_on_beside_it(facts: dict[str, object], text: str) -> None:
    assert state_of(MODEL | facts) == text


def test_the_size_of_a_model_is_that_of_its_binaries() -> None:
    assert size_of(MODEL) == "-"
    assert size_of(MODEL | {"files": [{"size": 1000}, {"size": 2000}]}) == "3.0 kB"
    assert size_of(MODEL | {"files": [{"size": 1000}, {"size": None}]}) == "?"
