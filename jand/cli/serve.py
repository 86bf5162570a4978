"""`jand serve`: the daemon in the foreground, or detached from the terminal. Its flags are settings; everything else about them stands in jand.settings."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jand import log
from jand.cli import errors
from jand.cli.output import say
from jand.cli.verbs import described
from jand.service.logfile import open_log
from jand.service.signals import last_resort
from jand.settings import load

if TYPE_CHECKING:
    from jand.service.notify import Listener
    from jand.settings import Loaded

app = typer.Typer()


def _flag(name: str, metavar: str, text: str) -> Any:
    return typer.Option(name, metavar=metavar, help=text)


RootFlag = Annotated[
    str | None, _flag("--root", "DIR", "The root; else JAND_ROOT, /janroot where it exists, ~/janroot.")
]
SocketFlag = Annotated[str | None, _flag("--socket", "PATH", "The control socket.")]
ListenFlag = Annotated[str | None, _flag("--listen", "HOST:PORT", "Serve HTTP there too.")]
TlsCertFlag = Annotated[str | None, _flag("--tls-cert", "FILE", "Certificate for --listen (PEM).")]
TlsKeyFlag = Annotated[str | None, _flag("--tls-key", "FILE", "Private key for --listen (PEM).")]
TokenFileFlag = Annotated[str | None, _flag("--token-file", "FILE", "File with the token that TCP clients must send.")]
HostsFlag = Annotated[list[str] | None, _flag("--hosts", "NAME", "A name of this machine that TCP clients may use.")]
OriginsFlag = Annotated[list[str] | None, _flag("--origins", "ORIGIN", "A web origin that may use the API.")]
SocketModeFlag = Annotated[str | None, _flag("--socket-mode", "MODE", "Permissions of the socket, octal.")]
SocketGroupFlag = Annotated[str | None, _flag("--socket-group", "GROUP", "Group that owns the socket.")]
SettleFlag = Annotated[str | None, _flag("--settle", "SECONDS", "Quiet time before fetching and adopting.")]
RescanFlag = Annotated[str | None, _flag("--rescan", "SECONDS", "Time between full scans.")]
AdoptFlag = Annotated[bool | None, typer.Option("--adopt/--no-adopt", help="Write a JSON beside bare GGUFs.")]
ReuseFlag = Annotated[bool | None, typer.Option("--reuse/--no-reuse", help="Link binaries that other programs have.")]
ExtraModelsFlag = Annotated[list[str] | None, _flag("--extra-models", "DIR", "Another models folder, only read.")]
StartOnRequestFlag = Annotated[
    bool | None,
    typer.Option("--start-on-request/--no-start-on-request", help="Start a model when it is asked for."),
]
KeepAliveFlag = Annotated[str | None, _flag("--keep-alive", "SECONDS", "How long a model stays without requests.")]
RestoreFlag = Annotated[bool | None, typer.Option("--restore/--no-restore", help="Start what ran before.")]
MemoryBudgetFlag = Annotated[str | None, _flag("--memory-budget", "BYTES", "Memory for all running models.")]
StartTimeoutFlag = Annotated[str | None, _flag("--start-timeout", "SECONDS", "How long a load may take.")]
HangTimeoutFlag = Annotated[
    str | None, _flag("--hang-timeout", "SECONDS", "How long a worker may give no sign of life.")
]
StopTimeoutFlag = Annotated[str | None, _flag("--stop-timeout", "SECONDS", "How long answers may go on after a stop.")]
RemoteImagesFlag = Annotated[
    bool | None, typer.Option("--remote-images/--no-remote-images", help="Fetch images that requests name by address.")
]
SandboxFlag = Annotated[bool | None, typer.Option("--sandbox/--no-sandbox", help="Confine workers.")]
LogLevelFlag = Annotated[str | None, _flag("--log-level", "LEVEL", "debug, info, warning or error.")]
LogFormatFlag = Annotated[str | None, _flag("--log-format", "FORMAT", "auto, text or json.")]
LogFileFlag = Annotated[str | None, _flag("--log-file", "FILE", "Write the log there.")]
LogMaxBytesFlag = Annotated[str | None, _flag("--log-max-bytes", "BYTES", "Size at which the log file rotates.")]
LogKeepFlag = Annotated[str | None, _flag("--log-keep", "NUMBER", "How many rotated log files are kept.")]
PidFileFlag = Annotated[str | None, _flag("--pid-file", "FILE", "Write the pid there too, and lock it.")]
DetachFlag = Annotated[
    bool, typer.Option("--detach", help="Return once the daemon serves, and leave it in the background.")
]


@app.command(
    "serve",
    help=described(
        "serve",
        "jand serve",
        "jand serve --root /srv/janroot --log-format json",
        "jand serve --listen 127.0.0.1:1337",
        "jand serve --detach",
        more="Every flag is a setting; jand config lists them all.",
    ),
)
def serve(
    root: RootFlag = None,
    socket: SocketFlag = None,
    listen: ListenFlag = None,
    tls_cert: TlsCertFlag = None,
    tls_key: TlsKeyFlag = None,
    token_file: TokenFileFlag = None,
    hosts: HostsFlag = None,
    origins: OriginsFlag = None,
    socket_mode: SocketModeFlag = None,
    socket_group: SocketGroupFlag = None,
    settle: SettleFlag = None,
    rescan: RescanFlag = None,
    adopt: AdoptFlag = None,
    reuse: ReuseFlag = None,
    extra_models: ExtraModelsFlag = None,
    start_on_request: StartOnRequestFlag = None,
    keep_alive: KeepAliveFlag = None,
    restore: RestoreFlag = None,
    memory_budget: MemoryBudgetFlag = None,
    start_timeout: StartTimeoutFlag = None,
    hang_timeout: HangTimeoutFlag = None,
    stop_timeout: StopTimeoutFlag = None,
    sandbox: SandboxFlag = None,
    remote_images: RemoteImagesFlag = None,
    log_level: LogLevelFlag = None,
    log_format: LogFormatFlag = None,
    log_file: LogFileFlag = None,
    log_max_bytes: LogMaxBytesFlag = None,
    log_keep: LogKeepFlag = None,
    pid_file: PidFileFlag = None,
    detach: DetachFlag = False,
) -> int:
    flags = dict(locals())
    del flags["detach"]
    loaded = load(flags)
    if loaded.settings.token is not None:
        log.SECRETS.add([loaded.settings.token.get_secret_value()])
    if detach:
        return _serve_detached(loaded)
    if loaded.settings.log_file is None:
        return _serve(loaded, None)
    return _serve(loaded, open_log(loaded.settings.log_file, loaded.settings))


def _serve(loaded: Loaded, log_file: log.LogFile | None, *listeners: Listener) -> int:
    from jand import daemon  # noqa: PLC0415 - all of the daemon, which the help of every verb would wait for

    settings = loaded.settings
    with (
        log.logging_to(
            log_file,
            level=settings.log_level,
            form=settings.log_format,
            journal_stream=os.environ.get("JOURNAL_STREAM", ""),
        ) as logs,
        last_resort(),
    ):
        return asyncio.run(daemon.run(loaded, logs, *listeners))


def _serve_detached(loaded: Loaded) -> int:
    """Serve in a process of its own. Returns at the terminal when that one is ready or has failed, and there when it ends."""
    from jand.service import detach as detaching  # noqa: PLC0415 - python-daemon, which only --detach needs

    detaching.check_allowed(os.environ, pid=os.getpid(), parent=os.getppid())
    outcome = detaching.run_detached(
        lambda report, log_file: _serve(loaded, log_file, report),
        loaded.settings,
        explain=lambda error: (error.message, error.hint, errors.status_of(error)),
    )
    if isinstance(outcome, int):
        return outcome
    if outcome.message:
        raise errors.Failure(outcome.message, hint=outcome.hint, status=outcome.status)
    facts = outcome.facts
    say(f"serving {facts['root']} (pid {facts['pid']}, socket {facts['socket']}, log {facts['log']})")
    return outcome.status
