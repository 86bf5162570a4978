"""`jand reload`: have the daemon read its settings again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from jand.cli.connect import SocketOption, ask
from jand.cli.output import JsonOption, print_json, say
from jand.cli.verbs import described
from jand.paths import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

app = typer.Typer()


@app.command(
    "reload",
    help=described(
        "reload",
        "jand reload",
        "jand reload --json",
        more="A file that cannot be used changes nothing. Flags and variables stay what they were at the start.",
    ),
)
def reload(socket: SocketOption = None, json: JsonOption = False) -> None:
    outcome = ask(socket, lambda client: client.reload())
    if json:
        print_json(outcome)
        return
    for change in outcome["applied"]:
        say(f"applied         {_text(change)}")
    for change in outcome["restart_needed"]:
        say(f"needs a restart {_text(change)}")
    if not outcome["applied"] and not outcome["restart_needed"]:
        say("nothing has changed")


def _text(change: Mapping[str, Any]) -> str:
    before, after = ("none" if value is None else str(value) for value in (change["before"], change["after"]))
    return printable(f"{change['key']}: {before} -> {after}")
