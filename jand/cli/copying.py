"""`jand copy`: a custom model from an existing one."""

from __future__ import annotations

import json as json_text
from typing import Annotated, Any, Final

import typer

from jand.cli.connect import IdArgument, SocketOption, ask
from jand.cli.output import JsonOption, print_json, say
from jand.cli.verbs import described
from jand.paths import printable

app = typer.Typer()

SHORT: Final = ("init", "runtime")
"""Parts that may be written without `parameters.` before them."""


@app.command(
    "copy",
    help=described(
        "copy",
        "jand copy zephyr-7b zephyr-long --set init.ctx_len=16384",
        "jand copy zephyr-7b zephyr-strict --set runtime.temperature=0 --set metadata.description='no jokes'",
    ),
)
def copy(
    model_id: IdArgument,
    new_id: Annotated[str, typer.Argument(metavar="NEW", help="The id of the copy.")],
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="What the copy has otherwise, by its dotted name; an empty value takes it away. May be repeated.",
        ),
    ] = None,
    socket: SocketOption = None,
    json: JsonOption = False,
) -> None:
    overrides = overrides_of(changes or [])
    model = ask(socket, lambda client: client.copy(model_id, new_id, overrides))
    if json:
        print_json(model)
    else:
        say(printable(f"{model['id']} is {model['state']}; its JSON is {model['path']}"))


def overrides_of(changes: list[str]) -> dict[str, Any]:
    """Turn `init.ctx_len=8` into the JSON that is merged; a value that is JSON is taken as that, anything else as a text."""
    overrides: dict[str, Any] = {}
    for text in changes:
        name, equals, value = text.partition("=")
        path = name.split(".")
        if not equals or not all(path):
            raise typer.BadParameter(f"expected NAME=VALUE, found {text!r}")
        part = overrides
        for step in ["parameters", *path[:-1]] if path[0] in SHORT else path[:-1]:
            part = part.setdefault(step, {})
            if not isinstance(part, dict):
                raise typer.BadParameter(f"{name} lies in what another --set has given a value")
        part[path[-1]] = value_of(value)
    return overrides


def value_of(text: str) -> Any:
    """Read what stands after an equals sign: JSON as that, nothing as None, anything else as a text."""
    try:
        return json_text.loads(text) if text else None
    except ValueError:
        return text
