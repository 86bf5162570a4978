"""`jand events`: what happens, as it happens."""

from __future__ import annotations

import json as json_text
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from jand.cli import errors
from jand.cli.completing import complete_models
from jand.cli.connect import SocketOption, ask
from jand.cli.following import progress_text
from jand.cli.models import state_of
from jand.cli.output import JsonOption  # noqa: TC001 - typer reads annotations
from jand.cli.verbs import described
from jand.paths import printable

if TYPE_CHECKING:
    from jand.client import Client, Event

app = typer.Typer()

PROGRESS_EVERY_S: Final = 2.0
"""How often a person is shown how far one model is; programs get every event."""


@app.command(
    "events",
    help=described(
        "events",
        "jand events",
        "jand events --model zephyr-7b",
        "jand events --json | jq -r .type",
        more="It goes on until Ctrl-C.",
    ),
)
def events(
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="ID", help="Only what happens to this model.", autocompletion=complete_models),
    ] = None,
    socket: SocketOption = None,
    json: JsonOption = False,
) -> int:
    show = _print_json if json else _Feed().show

    async def work(client: Client) -> None:
        if sys.stderr.isatty():
            sys.stderr.write("listening; Ctrl-C ends it\n")
        async for event in client.events(model=model):
            show(event)

    ask(socket, work)
    raise errors.Failure("cannot go on listening: the daemon has ended", status=errors.UNAVAILABLE)


def _print_json(event: Event) -> None:
    _write(json_text.dumps({"id": event.id, "type": event.type, "data": event.data}))


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class _Feed:
    """Lines for people: when, what, about whom."""

    def __init__(self) -> None:
        self._shown_at: dict[str, float] = {}

    def show(self, event: Event) -> None:
        now = time.monotonic()
        if event.type == "model.progress":
            if now - self._shown_at.get(event.data["id"], float("-inf")) < PROGRESS_EVERY_S:
                return
            self._shown_at[event.data["id"]] = now
        kind, _, what = event.type.partition(".")
        if kind == "problem":
            subject, text = event.data["path"], _problem(what, event.data)
        else:
            subject, text = event.data["id"], _model(what, event.data)
        _write(f"{time.strftime('%H:%M:%S')}  {printable(subject)}  {printable(text)}")


def _problem(what: str, problem: dict[str, Any]) -> str:
    text = f"{problem['severity']}: {problem['message']} [{problem['code']}]"
    return text if what == "found" else f"mended: {text}"


def _model(what: str, model: dict[str, Any]) -> str:
    error = f", {model['error']['code']}: {model['error']['message']}" if model["error"] else ""
    match what:
        case "progress" if model["progress"] is not None:
            return progress_text(model["progress"])
        case "removed":
            return "removed"
        case "registered":
            return f"registered, {state_of(model)}{error}"
        case "state":
            return f"{state_of(model)}{error}"
        case _:
            return f"changed, {state_of(model)}{error}"
