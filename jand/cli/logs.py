"""`jand logs`: what llama.cpp has written about a model."""

from __future__ import annotations

import json as json_text
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jand.cli import errors
from jand.cli.connect import IdArgument, SocketOption, ask
from jand.cli.output import JsonOption, print_json
from jand.cli.verbs import described
from jand.paths import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jand.client import Client

app = typer.Typer()


@app.command(
    "logs",
    help=described(
        "logs",
        "jand logs zephyr-7b",
        "jand logs zephyr-7b --follow",
        "jand logs zephyr-7b --tail 20 --json",
        more="Prompts and answers are not in it.",
    ),
)
def logs(
    model_id: IdArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    tail: Annotated[
        int, typer.Option("--tail", "-n", metavar="LINES", min=0, max=2000, help="How many of the last lines.")
    ] = 200,
    socket: SocketOption = None,
    json: JsonOption = False,
) -> None:
    if not follow:
        lines = ask(socket, lambda client: client.logs(model_id, tail=tail))
        if json:
            print_json({"object": "list", "data": lines})
        else:
            for line in lines:
                _show(line)
        return

    async def work(client: Client) -> None:
        async for line in client.follow_logs(model_id, tail=tail):
            if json:
                _write(json_text.dumps(line))
            else:
                _show(line)

    ask(socket, work)
    raise errors.Failure("cannot go on listening: the daemon has ended", status=errors.UNAVAILABLE)


def _show(line: Mapping[str, Any]) -> None:
    level = "" if line["level"] == "info" else f"{line['level']}: "
    _write(f"{time.strftime('%H:%M:%S', time.localtime(line['at']))}  {level}{printable(line['text'])}")


def _write(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
