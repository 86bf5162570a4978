"""`jand serve`: the daemon in the foreground. Its flags are settings; everything else about them stands in jand.settings."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import typer

from jand.cli.verbs import described
from jand.settings import load

app = typer.Typer()


def _flag(name: str, metavar: str, text: str) -> Any:
    return typer.Option(name, metavar=metavar, help=text)


@app.command(
    "serve",
    help=described(
        "serve",
        "jand serve",
        "jand serve --root /srv/janroot --log-format json",
        "jand serve --listen 127.0.0.1:1337",
        more="Every flag is a setting; jand config lists them all.",
    ),
)
def serve(
    root: Annotated[
        str | None, _flag("--root", "DIR", "The root; else JAND_ROOT, /janroot where it exists, ~/janroot.")
    ] = None,
    socket: Annotated[str | None, _flag("--socket", "PATH", "The control socket.")] = None,
    listen: Annotated[str | None, _flag("--listen", "HOST:PORT", "Serve HTTP there too.")] = None,
    tls_cert: Annotated[str | None, _flag("--tls-cert", "FILE", "Certificate for --listen (PEM).")] = None,
    tls_key: Annotated[str | None, _flag("--tls-key", "FILE", "Private key for --listen (PEM).")] = None,
    token_file: Annotated[
        str | None, _flag("--token-file", "FILE", "File with the token that TCP clients must send.")
    ] = None,
    hosts: Annotated[
        list[str] | None, _flag("--hosts", "NAME", "A name of this machine that TCP clients may use.")
    ] = None,
    origins: Annotated[list[str] | None, _flag("--origins", "ORIGIN", "A web origin that may use the API.")] = None,
    socket_mode: Annotated[str | None, _flag("--socket-mode", "MODE", "Permissions of the socket, octal.")] = None,
    socket_group: Annotated[str | None, _flag("--socket-group", "GROUP", "Group that owns the socket.")] = None,
    settle: Annotated[str | None, _flag("--settle", "SECONDS", "Quiet time before fetching and adopting.")] = None,
    rescan: Annotated[str | None, _flag("--rescan", "SECONDS", "Time between full scans.")] = None,
    adopt: Annotated[bool | None, typer.Option("--adopt/--no-adopt", help="Write a JSON beside bare GGUFs.")] = None,
    reuse: Annotated[
        bool | None, typer.Option("--reuse/--no-reuse", help="Link binaries that other programs have.")
    ] = None,
    extra_models: Annotated[
        list[str] | None, _flag("--extra-models", "DIR", "Another models folder, only read.")
    ] = None,
    start_on_request: Annotated[
        bool | None,
        typer.Option("--start-on-request/--no-start-on-request", help="Start a model when it is asked for."),
    ] = None,
    keep_alive: Annotated[
        str | None, _flag("--keep-alive", "SECONDS", "How long a model stays without requests.")
    ] = None,
    restore: Annotated[bool | None, typer.Option("--restore/--no-restore", help="Start what ran before.")] = None,
    memory_budget: Annotated[str | None, _flag("--memory-budget", "BYTES", "Memory for all running models.")] = None,
    start_timeout: Annotated[str | None, _flag("--start-timeout", "SECONDS", "How long a load may take.")] = None,
    stop_timeout: Annotated[
        str | None, _flag("--stop-timeout", "SECONDS", "How long answers may go on after a stop.")
    ] = None,
    log_level: Annotated[str | None, _flag("--log-level", "LEVEL", "debug, info, warning or error.")] = None,
    log_format: Annotated[str | None, _flag("--log-format", "FORMAT", "auto, text or json.")] = None,
) -> int:
    loaded = load(dict(locals()))

    from jand import daemon, log  # noqa: PLC0415 - all of the daemon, which the help of every verb would wait for

    settings = loaded.settings
    if settings.token is not None:
        log.SECRETS.add([settings.token.get_secret_value()])
    with log.logging_to(level=settings.log_level, form=settings.log_format):
        return asyncio.run(daemon.run(loaded))
