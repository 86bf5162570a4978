"""`jand pull`, `copy`, `pause`, `resume` and `catalog`: models that are not here yet, and copies of those that are."""

from __future__ import annotations

import asyncio
import json as json_text
import sys
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from jand.cli.connect import IdArgument, SocketOption, ask
from jand.cli.errors import Failure
from jand.cli.models import size_of, state_of
from jand.cli.output import JsonOption, print_json, print_table, say
from jand.cli.verbs import described
from jand.paths import printable

if TYPE_CHECKING:
    from jand.client import Client

app = typer.Typer()

POLL_S: Final = 0.25


@app.command(
    "pull",
    help=described(
        "pull",
        "jand pull zephyr-7b",
        "jand pull TheBloke/zephyr-7B-beta-GGUF:Q4_K_M",
        "jand pull hf.co/TheBloke/zephyr-7B-beta-GGUF --no-wait",
        more="MODEL is an id of the catalogue, or a repository with or without a quantisation.",
    ),
)
def pull(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="CATALOG-ID, USER/REPO or USER/REPO:QUANT.")],
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return when it is there, or at once.")] = True,
    socket: SocketOption = None,
    json: JsonOption = False,
) -> None:
    body = wanted_of(model)

    async def work(client: Client) -> dict[str, Any]:
        registered = await client.register(body)
        return await _follow(client, registered["id"], silent=json) if wait else registered

    answer = ask(socket, work)
    if json:
        print_json(answer)
    else:
        say(f"{printable(answer['id'])} is {state_of(answer)} ({size_of(answer)})")


def wanted_of(model: str) -> dict[str, Any]:
    """Return the body of a `POST /v1/models` for what a person calls a model."""
    plain = model.removeprefix("https://").removeprefix("hf.co/").removeprefix("huggingface.co/").strip("/")
    repository, _, quantization = plain.partition(":")
    if "/" not in repository:
        return {"catalog": model}
    wanted: dict[str, Any] = {"origin": repository}
    if quantization:
        wanted["quantization"] = quantization
    if repository.lower().startswith("thebloke/"):
        wanted["import_format"] = "thebloke"
    return wanted


async def _follow(client: Client, model_id: str, *, silent: bool) -> dict[str, Any]:
    """Wait until everything is there, with a bar for each file on a terminal; raise what keeps it from arriving."""
    from rich.console import Console  # noqa: PLC0415 - needed by this verb alone
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn  # noqa: PLC0415

    shown = not silent and sys.stderr.isatty()
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not shown) as bars:
        tasks: dict[str, Any] = {}
        while True:
            model = await client.get_model(model_id)
            if model["state"] != "downloading":
                return model
            if model["error"]:
                hint = f"{model['error']['hint']}; it is tried again by itself: jand show {model_id}"
                raise Failure(model["error"]["message"], hint=hint.removeprefix("; "))
            for file in (model["progress"] or {"files": []})["files"]:
                task = tasks.setdefault(file["name"], None)
                if task is None:
                    task = tasks[file["name"]] = bars.add_task(printable(file["name"]), total=None)
                bars.update(task, completed=file["bytes_done"], total=file["bytes_total"])
            await asyncio.sleep(POLL_S)


@app.command(
    "copy",
    help=described(
        "copy",
        "jand copy zephyr-7b zephyr-long --set parameters.init.ctx_len=16384",
        more="Both share the binaries; deleting either leaves the other whole.",
    ),
)
def copy(
    model_id: IdArgument,
    new_id: Annotated[str, typer.Argument(metavar="NEW", help="The id of the copy.")],
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="What is to be other in the copy, by its path in the JSON."),
    ] = None,
    socket: SocketOption = None,
    json: JsonOption = False,
) -> None:
    body: dict[str, Any] = {"id": new_id}
    for change in changes or ():
        _put(body, change)
    answer = ask(socket, lambda client: client.copy(model_id, body))
    if json:
        print_json(answer)
    else:
        say(f"{printable(answer['id'])} is registered: {printable(answer['path'])}")


def _put(body: dict[str, Any], change: str) -> None:
    """Put FIELD=VALUE into *body*; a value that is JSON is taken as that, anything else as a text."""
    path, equals, value = change.partition("=")
    if not path or not equals:
        raise typer.BadParameter(f"expected FIELD=VALUE, found {change!r}")
    *parents, name = path.split(".")
    for parent in parents:
        body = body.setdefault(parent, {})
    try:
        body[name] = json_text.loads(value)
    except ValueError:
        body[name] = value


@app.command("pause", help=described("pause", "jand pause zephyr-7b"))
def pause(model_id: IdArgument, socket: SocketOption = None, json: JsonOption = False) -> None:
    _say(ask(socket, lambda client: client.pause(model_id)), json=json)


@app.command("resume", help=described("resume", "jand resume zephyr-7b"))
def resume(model_id: IdArgument, socket: SocketOption = None, json: JsonOption = False) -> None:
    _say(ask(socket, lambda client: client.resume(model_id)), json=json)


def _say(model: dict[str, Any], *, json: bool) -> None:
    if json:
        print_json(model)
    else:
        say(f"{printable(model['id'])} is {state_of(model)}")


@app.command("catalog", help=described("catalog", "jand catalog"))
def catalog(socket: SocketOption = None, json: JsonOption = False) -> None:
    entries = ask(socket, lambda client: client.catalog())
    if json:
        print_json({"object": "list", "data": entries})
        return
    rows = [
        (
            entry["id"],
            entry["engine"],
            entry["origin"],
            "yes" if entry["registered"] else "",
            entry["description"] or "",
        )
        for entry in entries
    ]
    print_table(("ID", "ENGINE", "ORIGIN", "REGISTERED", "WHAT IT IS"), rows)
