"""`jand config`: every setting, its value, and where it came from. Asks no daemon: it reads what a daemon would read."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - Typer reads the annotations when it runs
from typing import Annotated

import typer

from jand.cli.output import JsonOption, print_json, print_table
from jand.cli.verbs import described
from jand.settings import known_settings, load

app = typer.Typer()


@app.command(
    "config",
    help=described(
        "config",
        "jand config",
        "JAND_SETTLE=5 jand config --root /srv/janroot --json",
        more="A value comes from a flag, a JAND_* variable, a line of jand.toml, or is the default.",
    ),
)
def config(
    root: Annotated[
        Path | None, typer.Option("--root", metavar="DIR", help="The root whose jand.toml is read.")
    ] = None,
    json: JsonOption = False,
) -> None:
    rows = list(load({"root": root}).rows())
    known = {setting.key: setting for setting in known_settings()}
    if not json:
        print_table(("SETTING", "VALUE", "FROM"), [(key, _text(value), source) for key, value, source in rows])
        return
    data = []
    for key, value, source in rows:
        setting = known.get(key) or known[key.rpartition(".")[0]]
        data.append(
            {"key": key, "value": value, "source": source, "unit": setting.unit, "description": setting.description}
        )
    print_json({"object": "list", "data": data})


def _text(value: object) -> str:
    if value is None or value == []:
        return "-"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
