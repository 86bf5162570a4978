"""`jand start` and `jand stop`."""

from __future__ import annotations

import asyncio
import json as json_text
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from jand.cli.connect import IdArgument, SocketOption, ask
from jand.cli.output import JsonOption, print_json, say, size
from jand.cli.verbs import described
from jand.errors import JandError
from jand.paths import printable

if TYPE_CHECKING:
    from jand.client import Client

app = typer.Typer()

PATIENCE_S: Final = 1.0
"""A start that takes no longer shows no bar."""
POLL_S: Final = 0.2


@app.command(
    "start",
    help=described(
        "start",
        "jand start zephyr-7b",
        "jand start zephyr-7b --init ctx_len=8192 --init n_parallel=2",
        more="Starting a running model does nothing.",
    ),
)
def start(
    model_id: IdArgument,
    init: Annotated[
        list[str] | None,
        typer.Option(
            "--init", metavar="NAME=VALUE", help="Override one of parameters.init for this run; may be repeated."
        ),
    ] = None,
    socket: SocketOption = None,
    json: JsonOption = False,
) -> None:
    overrides = dict(_override(text) for text in init or ())
    began = time.monotonic()

    async def work(client: Client) -> tuple[dict[str, Any], dict[str, Any]]:
        answer = await start_with_bar(client, model_id, overrides, silent=json)
        return answer, await client.get_model(answer["id"])

    answer, model = ask(socket, work)
    if json:
        print_json(answer)
        return
    memory = model["details"].get("memory")
    facts = [f"{time.monotonic() - began:.1f} s", *([size(memory)] if isinstance(memory, int | float) else [])]
    say(f"{printable(answer['id'])} is running ({', '.join(facts)})")


def _override(text: str) -> tuple[str, Any]:
    """Read NAME=VALUE; a value that is JSON is taken as that, anything else as a text."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise typer.BadParameter(f"expected NAME=VALUE, found {text!r}")
    try:
        return name, json_text.loads(value)
    except ValueError:
        return name, value


async def start_with_bar(client: Client, model_id: str, overrides: dict[str, Any], *, silent: bool) -> dict[str, Any]:
    """Start a model; on a terminal draw how far it is, unless that is soon."""

    async def outcome() -> dict[str, Any] | JandError:
        try:
            answer: dict[str, Any] = await client.start(model_id, overrides or None)
        except JandError as error:  # a task group would wrap it
            return error
        return answer

    async with asyncio.TaskGroup() as group:
        starting = group.create_task(outcome())
        done, _ = await asyncio.wait([starting], timeout=PATIENCE_S)
        if not done and not silent and sys.stderr.isatty():
            await _show_loading(client, model_id, starting)
    answer = starting.result()
    if isinstance(answer, JandError):
        raise answer
    return answer


async def _show_loading(client: Client, model_id: str, starting: asyncio.Task[Any]) -> None:
    """Draw how far the load has come until *starting* ends. What cannot be asked meanwhile is the start's own to report."""
    from rich.console import Console  # noqa: PLC0415 - needed for slow starts on a terminal alone
    from rich.progress import Progress  # noqa: PLC0415 - as above

    with Progress(console=Console(stderr=True), transient=True) as bar:
        loading = bar.add_task(f"loading {printable(model_id)}", total=None)
        while not starting.done():
            try:
                fraction = (await client.get_model(model_id))["details"].get("load_progress")
            except JandError:
                fraction = None
            if fraction is not None:
                bar.update(loading, total=1.0, completed=fraction)
            await asyncio.wait([starting], timeout=POLL_S)


@app.command(
    "stop",
    help=described(
        "stop",
        "jand stop zephyr-7b",
        "jand stop zephyr-7b --force",
    ),
)
def stop(
    model_id: IdArgument,
    force: Annotated[bool, typer.Option("--force", help="Cut running answers.")] = False,
    socket: SocketOption = None,
    json: JsonOption = False,
) -> None:
    model = ask(socket, lambda client: client.stop(model_id, force=force))
    if json:
        print_json(model)
    else:
        say(f"{printable(model['id'])} is stopped")
