"""`jand list` and `jand show`: what is registered."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from jand.cli.completing import complete_states
from jand.cli.connect import IdArgument, SocketOption, ask
from jand.cli.following import progress_text
from jand.cli.output import JsonOption, print_json, print_table, say, size
from jand.cli.verbs import described
from jand.cli.watching import watch
from jand.paths import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jand.client import Client

app = typer.Typer()

COLUMNS: Final = ("ID", "STATE", "SIZE", "ERROR")
PLAIN: Final = ("origin", "import_format", "owned_by", "path", "aliases")


@app.command(
    "list",
    help=described(
        "list",
        "jand list",
        "jand list --state running",
        "jand list --watch",
        "jand list --json | jq -r '.data[].id'",
    ),
)
def list_models(
    state: Annotated[
        str | None,
        typer.Option(
            "--state",
            metavar="STATE",
            help="Only those that are running, downloaded or downloading.",
            autocompletion=complete_states,
        ),
    ] = None,
    watched: Annotated[
        bool, typer.Option("--watch", "-w", help="Go on showing how it is at every moment, until Ctrl-C.")
    ] = False,
    socket: SocketOption = None,
    json: JsonOption = False,
) -> None:
    nothing = "no models" if state in {None, "all"} else f"no models are {state}"
    if watched:
        if json:
            raise typer.BadParameter("--watch is for people; programs take: jand events --json")
        ask(socket, lambda client: _watch(client, state, nothing))
    models = ask(socket, lambda client: client.list_models(state))
    if json:
        print_json({"object": "list", "data": models})
    elif models:
        print_table(COLUMNS, [_row(model) for model in models])
    else:
        say(nothing)


async def _watch(client: Client, state: str | None, nothing: str) -> None:
    async def look(client: Client) -> list[tuple[str, ...]]:
        return [(*_row(model)[:3], _now(model), _row(model)[3]) for model in await client.list_models(state)]

    await watch(client, ("ID", "STATE", "SIZE", "NOW", "ERROR"), look, nothing=nothing)


def _now(model: dict[str, Any]) -> str:
    """Say what moves: how a download goes on, or what a running model takes."""
    if model["progress"]:
        return progress_text(model["progress"])
    memory = model["details"].get("memory")
    return f"{size(memory)} of memory" if isinstance(memory, int | float) else ""


def _row(model: dict[str, Any]) -> tuple[str, str, str, str]:
    error = model["error"]
    return model["id"], state_of(model), size_of(model), "" if error is None else f"{error['code']}: {error['message']}"


def state_of(model: dict[str, Any]) -> str:
    """Return the state with what goes on beside it: `downloaded (starting 40 %)`, `downloading (12 %)`."""
    notes = []
    if model["transition"]:
        load = model["details"].get("load_progress")
        notes.append(model["transition"] + (f" {load:.0%}" if load else ""))
    if model["progress"] and model["progress"]["bytes_total"]:
        notes.append(f"{model['progress']['bytes_done'] / model['progress']['bytes_total']:.0%}")
    notes += [
        word for word, holds in (("paused", model["paused"]), ("restart needed", model["restart_needed"])) if holds
    ]
    return f"{model['state']} ({', '.join(notes)})" if notes else str(model["state"])


def size_of(model: dict[str, Any]) -> str:
    if not model["files"]:
        return "-"
    sizes = [file["size"] for file in model["files"]]
    return size(None if None in sizes else sum(sizes))


@app.command(
    "show",
    help=described(
        "show",
        "jand show zephyr-7b",
        "jand show zephyr-7b --json",
    ),
)
def show(model_id: IdArgument, socket: SocketOption = None, json: JsonOption = False) -> None:
    model = ask(socket, lambda client: client.get_model(model_id))
    if json:
        print_json(model)
        return
    say(f"{printable(model['id'])}  {state_of(model)}")
    rows = list(_facts(model))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        say(f"  {printable(name):<{width}}  {printable(value)}")


def _facts(model: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name in PLAIN:
        if model[name]:
            yield name, _text(model[name])
    yield "created", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(model["created"]))
    if model["error"]:
        yield "error", f"{model['error']['code']}: {model['error']['message']}"
        if model["error"]["hint"]:
            yield "hint", model["error"]["hint"]
        for line in model["error"]["log"]:
            yield "log", line
    for file in model["files"]:
        yield "file", f"{file['name']}  {size(file['size'])}" + ("" if file["present"] else "  (missing)")
    for group, values in (*model["parameters"].items(), ("metadata", model["metadata"]), ("details", model["details"])):
        for name, value in (values or {}).items():
            yield f"{group}.{name}", _text(value)


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
