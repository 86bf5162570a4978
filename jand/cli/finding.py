"""`jand search` and `jand catalog`: which models there are to be had, and what of them suits this machine."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from jand.cli.connect import SocketOption, ask
from jand.cli.output import JsonOption, print_json, print_table, say, size
from jand.cli.verbs import described
from jand.errors import NothingFitsError

app = typer.Typer()

Json = dict[str, Any]


@app.command(
    "search",
    help=described(
        "search",
        "jand search zephyr 7b",
        "jand search qwen3 coder --limit 20 --json",
    ),
)
def search(
    words: Annotated[list[str], typer.Argument(metavar="WORDS", help="What to look for in the names of repositories.")],
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, max=50, help="How many to show.")] = 10,
    socket: SocketOption = None,
    json: JsonOption = False,
) -> None:
    hits = ask(socket, lambda client: client.search(" ".join(words), limit=limit))
    if json:
        print_json({"object": "list", "data": hits})
    elif hits:
        print_table(("REPOSITORY", "DOWNLOADS", "FITS HERE", "SIZE", "NEEDS", "VARIANTS"), [_row(hit) for hit in hits])
        say("fetch one with: jand pull REPOSITORY")
    else:
        say("nothing found")


def _row(hit: Json) -> tuple[str, ...]:
    chosen = next((row for row in hit["table"] if row["chosen"]), None)
    if chosen is None:
        fits = (hit["note"] or "nothing", "", "")
    else:
        fits = (chosen["name"], size(chosen["size"]), size(chosen["need"]))
    gated = " (gated)" if hit["gated"] else ""
    return (hit["repository"] + gated, f"{hit['downloads']:,}", *fits, str(len(hit["table"]) or ""))


@app.command(
    "catalog",
    help=described(
        "catalog",
        "jand catalog",
        "jand pull model-zephyr-7B",
    ),
)
def catalog(socket: SocketOption = None, json: JsonOption = False) -> None:
    entries = ask(socket, lambda client: client.catalog())
    if json:
        print_json({"object": "list", "data": entries})
    elif entries:
        print_table(("ID", "DOWNLOADS", "ABOUT"), [_entry(entry) for entry in entries])
        say("fetch one with: jand pull ID")
    else:
        say("the catalogue is empty")


def _entry(entry: Json) -> tuple[str, str, str]:
    about = entry["metadata"].get("description") or entry["origin"]
    return entry["id"], _download(entry), about


def _download(entry: Json) -> str:
    download = entry["download"]
    if entry["registered"]:
        return "it is registered"
    if download is None:
        code = entry["unknown"]["code"]
        return "nothing of it fits here" if code == NothingFitsError.code else f"unknown: {code}"
    if download["remote"]:
        return "nothing, it is remote"
    chosen = next((row for row in download["table"] if row["chosen"]), None)
    needs = f"needs {size(chosen['need'])}" if chosen else ""
    return " ".join(filter(None, [size(download["bytes_to_fetch"]), download["quantization"], needs]))
