"""`jand status`: the daemon at a glance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import typer

from jand.cli.connect import SocketOption, ask
from jand.cli.output import JsonOption, print_json, say, size
from jand.cli.verbs import described
from jand.client import Client, LocalPlace
from jand.paths import printable

if TYPE_CHECKING:
    from collections.abc import Iterator


app = typer.Typer()

IN_BYTES: Final = {"memory", "disk"}


@app.command(
    "status",
    help=described(
        "status",
        "jand status",
        "jand status --json",
    ),
)
def status(socket: SocketOption = None, json: JsonOption = False) -> None:
    async def work(client: Client) -> dict[str, Any]:
        kind = "socket" if isinstance(client.place, LocalPlace) else "url"
        return {kind: str(client.place), **await client.version(), **await client.health()}

    facts = ask(socket, work)
    if json:
        print_json(facts)
        return
    rows = list(_rows(facts))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        say(f"{printable(name):<{width}}  {printable(value)}")


def _rows(facts: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in facts.items():
        if isinstance(value, dict):
            if all(not isinstance(part, dict) for part in value.values()) and value:
                words = size if name in IN_BYTES else str
                yield prefix + name, ", ".join(f"{key} {words(part)}" for key, part in value.items())
            else:
                yield from _rows(value, prefix)
        else:
            yield prefix + name, str(value)
