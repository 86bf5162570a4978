"""`jand delete`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from jand.cli import errors
from jand.cli.connect import IdArgument, SocketOption, ask
from jand.cli.models import size_of
from jand.cli.output import JsonOption, print_json, say
from jand.cli.verbs import described
from jand.paths import printable

app = typer.Typer()


@app.command(
    "delete",
    help=described(
        "delete",
        "jand delete zephyr-7b",
        "jand delete zephyr-7b --keep-files --yes",
    ),
)
def delete(
    model_id: IdArgument,
    keep_files: Annotated[bool, typer.Option("--keep-files", help="Remove the JSON alone.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    socket: SocketOption = None,
    json: JsonOption = False,
) -> None:
    if not yes:
        _make_sure(ask(socket, lambda client: client.get_model(model_id)), keep_files=keep_files)
    deletion = ask(socket, lambda client: client.delete(model_id, keep_files=keep_files))
    if json:
        print_json(deletion)
        return
    say(f"{printable(deletion['id'])} is deleted")
    for kept in deletion["kept"]:
        say(f"kept {printable(kept['name'])}: {printable(kept['why'])}")


def _make_sure(model: dict[str, object], *, keep_files: bool) -> None:
    """Ask the person at the terminal; without one the answer cannot be guessed."""
    model_id = printable(str(model["id"]))
    if not sys.stdin.isatty():
        message = f'cannot delete "{model_id}" without being sure'
        raise errors.Failure(message, hint="repeat it with --yes", status=errors.USAGE)
    what = "its JSON" if keep_files else f"its JSON and its binaries ({size_of(model)})"
    typer.confirm(f"delete {model_id}: {what}?", abort=True, err=True)
