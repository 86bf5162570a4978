"""`jand pull`, `jand pause` and `jand resume`: models from the hub or the catalogue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from jand.cli import errors
from jand.cli.completing import complete_catalog
from jand.cli.connect import IdArgument, SocketOption, ask
from jand.cli.following import follow, progress_text
from jand.cli.models import size_of
from jand.cli.output import JsonOption, print_json, print_table, say, size
from jand.cli.verbs import described
from jand.paths import printable

if TYPE_CHECKING:
    from jand.client import Client

app = typer.Typer()

Json = dict[str, Any]


@app.command(
    "pull",
    help=described(
        "pull",
        "jand pull TheBloke/zephyr-7B-beta-GGUF",
        "jand pull hf.co/TheBloke/zephyr-7B-beta-GGUF:Q5_K_M --dry-run",
        "jand pull model-zephyr-7B",
        more="Ctrl-C ends the watching and not the download.",
    ),
)
def pull(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="user/repo[@REVISION][:QUANT], a page of the hub, or a catalogue id.",
            autocompletion=complete_catalog,
        ),
    ],
    model_id: Annotated[str | None, typer.Option("--id", metavar="ID", help="What the model is to be called.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be downloaded and why, and do nothing.")
    ] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Return at once, not when all of it is there.")] = False,
    socket: SocketOption = None,
    json: JsonOption = False,
) -> None:
    body = body_of(what) | ({"id": model_id} if model_id else {})
    if dry_run:
        preview = ask(socket, lambda client: client.preview(body))
        print_json(preview) if json else print_preview(preview)
        return
    try:
        model = ask(socket, lambda client: _pull(client, body, wait=not no_wait, silent=json))
    except KeyboardInterrupt as error:
        message = "cannot say when it is there: the watching was ended, and the download goes on"
        hint = "see how far it is: jand list; halt it: jand pause ID; end it: jand delete ID"
        raise errors.Failure(message, hint=hint, status=errors.INTERRUPTED) from error
    if json:
        print_json(model)
    else:
        say(outcome(model))


def body_of(what: str) -> Json:
    """Return the short form of a registration that *what* is: an address, a repository, else an id of the catalogue."""
    if what.startswith(("https://", "http://")):
        return {"download_url": what}
    return {"origin": what} if "/" in what else {"catalog": what}


async def _pull(client: Client, body: Json, *, wait: bool, silent: bool) -> Json:
    preview = await client.preview(body)
    if preview["exists"]:
        # An interrupted pull that is repeated goes on watching.
        model = await client.get_model(preview["id"])
        if model["origin"] != preview["json"]["origin"]:
            message = f'cannot pull it as "{model["id"]}": that is another model, of {model["origin"]}'
            raise errors.Failure(message, hint="give it another name with --id", status=errors.EXISTS)
        if not silent and wait and model["state"] == "downloading":
            say(printable(f"{model['id']} is registered already; watching its download"))
    else:
        if not silent:
            say(_intention(preview))
        model = await client.register(body)
    return await follow(client, model["id"], silent=silent) if wait else model


def _intention(preview: Json) -> str:
    download = preview["download"]
    if download["remote"]:
        return f"{printable(preview['id'])} runs at its provider; nothing is downloaded"
    names = ", ".join(file["name"] for file in download["files"])
    where = f" from {download['repository']}" if download["repository"] else ""
    return printable(f"fetching {names or 'nothing'} ({size(download['bytes_to_fetch'])}){where}: {download['reason']}")


def outcome(model: Json) -> str:
    """Say where a model is that was asked for."""
    model_id = printable(model["id"])
    if model["state"] != "downloading":
        of_size = f" ({size_of(model)})" if model["files"] else ""
        return f"{model_id} is {model['state']}{of_size}; start it with: jand start {model_id}"
    return f"{model_id} is registered and being downloaded; see how far it is with: jand list"


def print_preview(preview: Json) -> None:
    download = preview["download"]
    say(printable(f"{preview['id']}  ->  {preview['path']}" + ("  (it is there already)" if preview["exists"] else "")))
    if download["repository"]:
        say(printable(f"of {download['repository']} at commit {download['commit'][:12]}"))
    if download["table"]:
        say()
        print_table(("", "VARIANT", "SIZE", "NEEDS", "FITS IN"), [_variant(row) for row in download["table"]])
    say()
    if download["files"]:
        print_table(("FILE", "SIZE"), [(file["name"], size(file["size"])) for file in download["files"]])
        say()
    for name in download["present"]:
        say(printable(f"{name} is there already"))
    say(printable(download["reason"] if download["files"] or download["remote"] else "nothing is missing"))


def _variant(row: Json) -> tuple[str, str, str, str, str]:
    mark = "->" if row["chosen"] else ""
    return mark, row["name"], size(row["size"]), size(row["need"]), row["place"]


@app.command("pause", help=described("pause", "jand pause zephyr-7b"))
def pause(model_id: IdArgument, socket: SocketOption = None, json: JsonOption = False) -> None:
    model = ask(socket, lambda client: client.pause(model_id))
    if json:
        print_json(model)
        return
    far = f" at {progress_text(model['progress'])}" if model["progress"] else ""
    say(printable(f"the download of {model['id']} is halted{far}"))


@app.command("resume", help=described("resume", "jand resume zephyr-7b"))
def resume(model_id: IdArgument, socket: SocketOption = None, json: JsonOption = False) -> None:
    model = ask(socket, lambda client: client.resume(model_id))
    if json:
        print_json(model)
        return
    say(printable(f"the download of {model['id']} goes on"))
