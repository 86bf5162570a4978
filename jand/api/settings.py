"""What the API needs to be told, as plain values."""

from __future__ import annotations

import os
import socket as sockets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from jand.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from jand.settings import Settings

MIB: Final = 1 << 20


@dataclass(slots=True)
class ApiSettings:
    """What is looked up at each request, so that a reload counts from the next one on.

    *token* is asked for over TCP alone. *hosts* are names of this machine, beside its addresses, by which clients may call it over TCP.

    *origins* are the web origins that may use the API (CORS), each as a browser writes it. Sizes are in bytes; an inference body may carry images.
    """

    token: str | None = field(default=None, repr=False)
    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    max_body: int = MIB
    max_inference_body: int = 64 * MIB
    heartbeat_s: float = 15.0
    slow_reader_s: float = 30.0
    stalled_upload_s: float = 60.0

    @classmethod
    def of(cls, settings: Settings) -> ApiSettings:
        """Take the API's part of *settings*; reads the token's file. Raises SettingsError."""
        token = settings.token.get_secret_value() if settings.token is not None else None
        if token is None and settings.token_file is not None:
            token = read_token(settings.token_file)
        return cls(token=token, hosts=frozenset(settings.hosts), origins=frozenset(settings.origins))

    def let_in(self, other: ApiSettings) -> None:
        """Let in from now on whom *other* lets in."""
        self.token, self.hosts, self.origins = other.token, other.hosts, other.origins


@dataclass(frozen=True, slots=True)
class ListenSettings:
    """Where to listen. *inherited* are sockets that systemd or launchd has bound; *socket* is None where one of those stands for it. *held* is a directory whose lock is ours already."""

    socket: Path | None
    socket_mode: int = 0o600
    socket_group: str | None = None
    listen: tuple[str, ...] = ()
    tls_cert: Path | None = None
    tls_key: Path | None = None
    inherited: tuple[sockets.socket, ...] = ()
    held: Path | None = None

    @classmethod
    def of(
        cls,
        settings: Settings,
        *,
        inherited: Sequence[sockets.socket] = (),
        insists: bool = False,
        held: Path | None = None,
    ) -> ListenSettings:
        """Take the listeners' part of *settings*.

        A Unix socket that was handed over stands for the default one; *insists*: somebody named `socket`, so that is bound as well unless it is the one handed over.
        """
        handed_over = {listener.getsockname() for listener in inherited if listener.family == sockets.AF_UNIX}
        own = str(settings.socket) not in handed_over and (insists or not handed_over)
        return cls(
            socket=settings.socket if own else None,
            socket_mode=settings.socket_mode,
            socket_group=settings.socket_group,
            listen=(settings.listen,) if settings.listen else (),
            tls_cert=settings.tls_cert,
            tls_key=settings.tls_key,
            inherited=tuple(inherited),
            held=held,
        )


def read_token(path: Path) -> str:
    """Return the first line of *path*. Raises SettingsError where it is missing, empty, or open to everybody."""
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            token = file.readline(4096).strip()
    except FileNotFoundError as error:
        raise SettingsError(
            f"cannot read token_file {path}: it is not there",
            hint="write the token into its first line, or correct token_file",
            param="token_file",
        ) from error
    except PermissionError as error:
        raise SettingsError(
            f"cannot read token_file {path}: it may not be read",
            hint=f"the daemon runs as uid {os.geteuid()}: give it the file, or let its group read it (chown, chmod)",
            param="token_file",
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise SettingsError(f"cannot read token_file {path}: {cause}", hint="its first line is the token") from error
    if mode & 0o007:
        raise SettingsError(f"cannot use token_file {path}: everybody may read or write it", hint=f"chmod o= {path}")
    if not token:
        raise SettingsError(f"cannot use token_file {path}: its first line is empty", hint="write the token into it")
    return token
