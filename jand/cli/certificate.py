"""`jand service certificate`: a certificate that this machine makes for itself, for TLS on `listen`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jand.cli.output import JsonOption, print_json, say
from jand.cli.verbs import with_examples
from jand.paths import printable
from jand.settings import load

HELP = with_examples(
    "Make a certificate and its key for TLS on this machine: good for localhost and the names given, trusted by whom is told to.",
    "jand service certificate",
    "jand service certificate --into ~/janroot/tls --name box.lan --days 90",
)


def certificate(
    into: Annotated[
        Path | None, typer.Option("--into", metavar="DIR", help="Where to; else `tls` in the root.")
    ] = None,
    root: Annotated[Path | None, typer.Option("--root", metavar="DIR", help="The root; else the usual one.")] = None,
    names: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="NAME", help="A host name or address beside localhost. May be repeated."),
    ] = None,
    days: Annotated[int, typer.Option("--days", min=1, max=825, help="How long it is good for.")] = 825,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the ones that are there.")] = False,
    json: JsonOption = False,
) -> None:
    from jand.service import certificate as making  # noqa: PLC0415 - the help needs none of it

    directory = Path.cwd() / into if into is not None else load({"root": root}).settings.root / "tls"
    made = making.make(directory, names or [], days=days, replace=replace)
    if json:
        print_json(
            {
                "cert": str(made.cert),
                "key": str(made.key),
                "names": list(made.names),
                "until": made.until.isoformat(),
                "sha256": made.fingerprint,
            }
        )
        return
    for line in (
        f"certificate  {made.cert} (good until {made.until:%Y-%m-%d} for {', '.join(made.names)})",
        f"key          {made.key}",
        f"sha256       {made.fingerprint}",
        'jand.toml    listen = "127.0.0.1:1337"',
        f'             tls_cert = "{made.cert}"',
        f'             tls_key = "{made.key}"',
        f"a client     curl --cacert {made.cert} https://localhost:1337/v1/models",
    ):
        say(printable(line))
