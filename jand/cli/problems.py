"""`jand problems`: what lies in the models folder and cannot be a model, or not all of one."""

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
    "problems",
    help=described(
        "problems",
        "jand problems",
        "jand problems --json",
    ),
)
def problems(socket: SocketOption = None, json: JsonOption = False) -> None:
    found = ask(socket, lambda client: client.problems())
    if json:
        print_json({"object": "list", "data": found})
        return
    for problem in found:
        print_problem(problem)
    if not found:
        say("no problems")


def print_problem(problem: Mapping[str, Any]) -> None:
    """Print one in the shape that editors jump to: path:line:column: severity: message."""
    place = ":".join(str(part) for part in (problem["path"], problem["line"], problem["column"]) if part is not None)
    say(f"{printable(place)}: {problem['severity']}: {printable(problem['message'])} [{problem['code']}]")
    if problem["hint"]:
        say(f"    hint: {printable(problem['hint'])}")
