"""Where a daemon is: behind a socket of this machine, or at an address, with the token and the certificate that it takes to be let in and to know whom one talks to."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from typing_extensions import override

from jand.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping

PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class LocalPlace:
    """The socket at a path. What the other kind has is constant here."""

    socket: Path
    scheme: str = field(default="http", init=False)
    host: str = field(default="jand", init=False)
    prefix: str = field(default="", init=False)

    @property
    def headers(self) -> Mapping[str, str]:
        return {}

    @override
    def __str__(self) -> str:
        return str(self.socket)


@dataclass(frozen=True, slots=True)
class RemotePlace:
    """The API at an address: *host* as it stands there, with the port where it names one, *name* and *port* to connect to, *prefix* what a proxy puts before all paths."""

    scheme: str
    host: str
    name: str
    port: int
    prefix: str = ""
    token: str | None = field(default=None, repr=False)
    certificate: Path | None = None

    @property
    def headers(self) -> Mapping[str, str]:
        return {} if self.token is None else {"Authorization": f"Bearer {self.token}"}

    @property
    def is_this_machine(self) -> bool:
        try:
            return ipaddress.ip_address(self.name).is_loopback
        except ValueError:
            return self.name == "localhost"

    def tls(self) -> ssl.SSLContext | None:
        """Return what checks the daemon's certificate, by *certificate* alone where there is one; None for http. Raises SettingsError for a file that is none."""
        if self.scheme != "https":
            return None
        try:
            return ssl.create_default_context(cafile=self.certificate)
        except OSError as error:
            cause = "it is no PEM file" if isinstance(error, ssl.SSLError) else (error.strerror or "").lower()
            raise SettingsError(
                f"cannot use the certificate {self.certificate}: {cause}", hint="name the daemon's cert.pem"
            ) from error

    @override
    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}{self.prefix}"


Place = LocalPlace | RemotePlace


def find_remote(environ: Mapping[str, str]) -> RemotePlace | None:
    """Return what `JAND_URL` names, with the token of `JAND_TOKEN` or `JAND_TOKEN_FILE` and the certificate of `JAND_CERTIFICATE`; None where it is not set.

    Raises SettingsError for what is no such address, and for a file that cannot be read.
    """
    written = environ.get("JAND_URL", "").strip()
    if not written:
        return None
    parts = urlsplit(written)
    try:
        port = parts.port
    except ValueError:
        port = -1
    if parts.scheme not in PORTS or not parts.hostname or port == -1 or parts.query or parts.fragment or parts.username:
        raise SettingsError(
            f"cannot use JAND_URL {written.rpartition('@')[2]!r}: it is no address of a daemon",
            hint="write http://HOST:PORT or https://HOST:PORT; the token goes into JAND_TOKEN_FILE",
        )
    certificate = environ.get("JAND_CERTIFICATE")
    return RemotePlace(
        parts.scheme,
        parts.netloc,
        parts.hostname,
        PORTS[parts.scheme] if port is None else port,
        parts.path.rstrip("/").removesuffix("/v1"),
        token=_token(environ),
        certificate=Path(certificate).expanduser() if certificate else None,
    )


def _token(environ: Mapping[str, str]) -> str | None:
    if token := environ.get("JAND_TOKEN"):
        return token
    if not (named := environ.get("JAND_TOKEN_FILE")):
        return None
    path = Path(named).expanduser()
    try:
        token = path.read_text(encoding="utf-8").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        cause = (error.strerror or "").lower() if isinstance(error, OSError) else "it is no UTF-8"
        raise SettingsError(f"cannot read the token in {path}: {cause}", hint="its first line is the token") from error
    if not token.isascii() or not token.isprintable():
        raise SettingsError(f"cannot use the token in {path}: it is no plain text", hint="its first line is the token")
    return token or None
