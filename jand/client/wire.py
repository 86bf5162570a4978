"""What goes over the wire to a daemon and comes back: requests, heads, streams of events, errors; and why there may be no answer at all."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from jand.client.place import LocalPlace, Place
from jand.errors import DaemonUnavailableError, JandError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Json = dict[str, Any]

HINT: Final = "; hint: "
"""What stands between message and hint on the wire."""

MAX_HEAD: Final = 64 << 10
"""Bytes of the head of an answer."""

CONNECT_S: Final = 10.0
"""How long another machine may take to take a connection."""

BROKEN_OFF: Final = frozenset({None, errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE})


@dataclass(slots=True)
class Message:
    """One server-sent event as it is on the wire."""

    id: str = ""
    type: str = "message"
    data: str = ""


class Reading:
    """Puts the lines of a stream together to messages, by the rules of the HTML standard as far as JSON streams need them."""

    def __init__(self) -> None:
        self._message = Message()
        self._data: list[str] = []

    def take(self, line: bytes) -> Message | None:
        """Return the message that *line* completes, if it does. Lines that begin with a colon are comments."""
        name, _, value = line.decode(errors="replace").rstrip("\r\n").partition(":")
        value = value.removeprefix(" ")
        match name:
            case "data":
                self._data.append(value)
            case "id":
                self._message.id = value
            case "event":
                self._message.type = value
            case "" if not line.startswith(b":"):
                return self._complete()
        return None

    def _complete(self) -> Message | None:
        message, self._message = self._message, Message()
        data, self._data = self._data, []
        message.data = "\n".join(data)
        return message if data else None


def path_of(model_id: str) -> str:
    return f"/v1/models/{quote(model_id, safe='')}"


def target(path: str, query: Mapping[str, str | None] | None) -> str:
    """Return what stands in the first line of a request."""
    given = urlencode({name: value for name, value in (query or {}).items() if value is not None})
    return f"{path}?{given}" if given else path


async def exchange(place: Place, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send one request over a connection of its own and return status, headers (by their names in title case) and body.

    In HTTP/1.0, to which an answer is never sent in chunks.
    """
    reader, writer = await connect(place)
    try:
        given = {"Host": place.host, **place.headers, "Content-Length": str(len(body))}
        if body:
            given["Content-Type"] = "application/json"
        lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        head = f"{method} {place.prefix}{path} HTTP/1.0\r\n{lines}\r\n"
        writer.write(head.encode() + body)
        status, headers = parse_head(await reader.readuntil(b"\r\n\r\n"))
        length = headers.get("Content-Length")
        return status, headers, await (reader.read() if length is None else reader.readexactly(int(length)))
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def connect(place: Place) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(place, LocalPlace):
        return await asyncio.open_unix_connection(place.socket, limit=MAX_HEAD)
    async with asyncio.timeout(CONNECT_S):
        return await asyncio.open_connection(place.name, place.port, ssl=place.tls(), limit=MAX_HEAD)


def parse_head(raw: bytes) -> tuple[int, dict[str, str]]:
    """Return status and headers. Raises ValueError for what is no HTTP."""
    first, *lines = raw.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    if not version.startswith("HTTP/1."):
        raise ValueError("no HTTP")
    pairs = (line.partition(":") for line in lines if line)
    return int(rest[:3]), {name.strip().title(): value.strip() for name, _, value in pairs}


def read_json(raw: bytes) -> Json:
    """Return *raw* as a JSON object. Raises DaemonUnavailableError where it is none: somebody else answers on the socket."""
    try:
        content = json.loads(raw)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise DaemonUnavailableError(
            "cannot understand the answer: it is no JSON", hint="is it jand that listens on this socket?"
        )
    return content


def rebuild(content: Json, status: int, headers: Mapping[str, str]) -> JandError:
    """Make the error again that the daemon answered with; a code from a newer daemon stays on a plain JandError."""
    told = content.get("error")
    if not isinstance(told, dict):
        return JandError(
            f"cannot understand the answer with status {status}", hint="is it jand that listens on this socket?"
        )
    code = str(told.get("code"))
    message, _, hint = str(told.get("message")).partition(HINT)
    retry_after = headers.get("Retry-After", "")
    kind = kinds().get(code, JandError)
    error = kind(
        message,
        hint=hint,
        param=told.get("param"),
        retry_after_s=float(retry_after) if retry_after.isdigit() else None,
        status=status,
    )
    if error.code != code:
        error.facts["code"] = code
    return error


def kinds() -> dict[str, type[JandError]]:
    """Every kind of error by its code."""
    found: dict[str, type[JandError]] = {}
    pending = [JandError]
    while pending:
        kind = pending.pop()
        found[kind.code] = kind
        pending.extend(kind.__subclasses__())
    return found


@contextlib.contextmanager
def translated(place: Place, *foreign: type[Exception]) -> Iterator[None]:
    """Raise what keeps us from the daemon, one of the *foreign*, as DaemonUnavailableError."""
    try:
        yield
    except foreign as error:
        cause, hint = explain(error) if isinstance(place, LocalPlace) else explain_remote(error, place.scheme)
        raise DaemonUnavailableError(
            f"cannot reach the daemon at {place}: {cause}", hint=hint, place=str(place)
        ) from error


def explain(error: Exception) -> tuple[str, str]:
    """Say in our words why *error* came, and what helps."""
    found = getattr(error, "os_error", error)  # where aiohttp keeps the cause
    match found:
        case FileNotFoundError():
            return "there is no socket", "start one with: jand serve"
        case ConnectionRefusedError():
            return "nobody listens there, the daemon is not running", "start one with: jand serve"
        case PermissionError():
            return "no permission", "it belongs to another user; socket_mode and socket_group let others in"
        case TimeoutError():
            return "it does not answer in time", "see its log"
        case OSError(errno=errno.ENOTSOCK):
            return "it is no socket", "name the right one with --socket"
        case OSError() if type(found) is OSError or found.errno not in BROKEN_OFF:  # a path too long has no number
            return (found.strerror or str(found)).lower(), "name another one with --socket"
        case ValueError() | asyncio.LimitOverrunError():
            return "what answers there is not jand", "name the right socket with --socket"
        case _:
            return "it closed the connection", "see its log; it may have been stopped"


def explain_remote(error: Exception, scheme: str) -> tuple[str, str]:
    """Do as `explain` does, for a daemon that is reached over TCP."""
    found = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
    match found:
        case ssl.SSLCertVerificationError():
            hint = "name the daemon's certificate with --certificate (JAND_CERTIFICATE), if it is a self-made one"
            return f"its certificate is not trusted ({found.verify_message})", hint
        case ssl.SSLError():
            return "it does not speak TLS", "write http:// where the daemon has no tls_cert"
        case ConnectionRefusedError():
            return "nobody listens there", "is the daemon running, with listen in its settings?"
        case TimeoutError():
            return "it does not answer in time", "check the address and the network"
        case OSError() if isinstance(found, socket.gaierror):
            return "the host is not known", "correct --url (JAND_URL)"
        case OSError() if found.errno not in BROKEN_OFF:
            return (found.strerror or str(found)).lower(), "check the address and the network"
        case ValueError() | asyncio.LimitOverrunError():
            return "what answers there is not jand", "correct --url (JAND_URL)"
        case _:
            other = "https" if scheme == "http" else "http"
            return "it closed the connection", f"see its log; where it speaks {other}, write {other}://"
