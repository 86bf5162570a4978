"""What verbs share to print: JSON for programs, tables and sizes for people. Colours and boxes on a terminal only."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Final

import typer

from jand.paths import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text for people.")]

UNITS: Final = ("B", "kB", "MB", "GB", "TB")


def print_json(value: object) -> None:
    """Print *value* as JSON, ASCII alone, so that names that are no text survive any pipe."""
    say(json.dumps(value, indent=2, default=str))


def say(text: str = "") -> None:
    sys.stdout.write(text + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows below their column names: a drawn table on a terminal, columns padded with spaces elsewhere."""
    if sys.stdout.isatty():
        from rich.console import Console  # noqa: PLC0415 - 60 ms that only a terminal has to wait for

        Console().print(drawn_table(columns, rows))
        return
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for row in (columns, *cells):
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def drawn_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return the table that a terminal shows; texts are texts, whatever markup stands in them."""
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 - as above
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(text := printable(cell), style=_style(text)) for cell in row))
    return table


def _style(cell: str) -> str:
    word = cell.split(" ", 1)[0]
    return {"running": "green", "downloading": "yellow", "error": "red", "warning": "yellow"}.get(word, "")


def size(number: float | None) -> str:
    """Write a number of bytes in decimal units, as disks and downloads count them."""
    if number is None:
        return "?"
    unit = 0
    while number >= 999.5 and unit < len(UNITS) - 1:
        number /= 1000
        unit += 1
    return f"{number:.0f} {UNITS[unit]}" if unit == 0 or number >= 99.95 else f"{number:.1f} {UNITS[unit]}"
