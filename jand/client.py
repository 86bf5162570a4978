"""The daemon's socket from the other side, for the command line, tests and programs in Python.

Answers are the API's JSON as it comes; errors are raised again as what they were in the daemon, by their code. Everything that keeps a request from being answered is a
DaemonUnavailableError that says why. aiohttp is imported for streams alone: that takes 0.2 s, and `jand list` has to be there sooner.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import quote, urlencode

from jand.errors import DaemonUnavailableError, JandError, UpstreamError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    import aiohttp

Json = dict[str, Any]

HINT: Final = "; hint: "
"""What stands between message and hint on the wire."""

MAX_LINE: Final = 64 << 20
"""Bytes of one line of a stream: an event may carry a whole model, an answer a picture."""

MAX_HEAD: Final = 64 << 10
"""Bytes of the head of an answer."""

BROKEN_OFF: Final = frozenset({None, errno.ECONNRESET, errno.ECONNABORTED, errno.EPIPE})


@dataclass(slots=True)
class Message:
    """One server-sent event as it is on the wire."""

    id: str = ""
    type: str = "message"
    data: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """One of `/v1/events`: *data* is the model or the problem that it is about."""

    id: int
    type: str
    data: Json


class Client:
    """A connection to the daemon at *socket*; use it as an async context manager, or `close` it."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    # Models.

    async def list_models(self, state: str | None = None) -> list[Json]:
        models: list[Json] = (await self._call("GET", "/v1/models", query={"state": state}))["data"]
        return models

    async def get_model(self, model_id: str) -> Json:
        return await self._call("GET", path_of(model_id))

    async def start(self, model_id: str, init: Mapping[str, Any] | None = None, *, wait: bool = True) -> Json:
        """Start it, *init* overriding `parameters.init` for this run; with *wait* return once it runs."""
        body = {"parameters": {"init": dict(init)}} if init else None
        return await self._call(
            "PUT", f"{path_of(model_id)}/start", query={"wait": None if wait else "false"}, body=body
        )

    async def stop(self, model_id: str, *, force: bool = False) -> Json:
        """Return the model once its process is gone; *force* cuts running answers."""
        return await self._call("PUT", f"{path_of(model_id)}/stop", query={"force": "true" if force else None})

    async def delete(self, model_id: str, *, keep_files: bool = False) -> Json:
        return await self._call("DELETE", path_of(model_id), query={"keep_files": "true" if keep_files else None})

    async def register(self, body: Mapping[str, Any]) -> Json:
        """Let the daemon write a model JSON; return the model, registered."""
        return await self._call("POST", "/v1/models", body=dict(body))

    async def preview(self, body: Mapping[str, Any]) -> Json:
        """Return what `register` would write and fetch; nothing is changed."""
        return await self._call("POST", "/v1/models", query={"dry_run": "true"}, body=dict(body))

    async def copy(self, model_id: str, new_id: str, overrides: Mapping[str, Any] | None = None) -> Json:
        """Return the copy, which shares the binaries of *model_id*; *overrides* are merged into its JSON."""
        return await self._call("POST", f"{path_of(model_id)}/copy", body={**(overrides or {}), "id": new_id})

    async def pause(self, model_id: str) -> Json:
        return await self._call("PUT", f"{path_of(model_id)}/pause")

    async def resume(self, model_id: str) -> Json:
        """Go on with a download, or try one at once that waits to be tried again."""
        return await self._call("PUT", f"{path_of(model_id)}/resume")

    async def catalog(self) -> list[Json]:
        entries: list[Json] = (await self._call("GET", "/v1/catalog"))["data"]
        return entries

    async def search(self, words: str, *, limit: int = 10) -> list[Json]:
        hits: list[Json] = (await self._call("GET", "/v1/search", query={"q": words, "limit": str(limit)}))["data"]
        return hits

    async def logs(self, model_id: str, *, tail: int = 200) -> list[Json]:
        """Return the last lines that the model's worker wrote."""
        answer = await self._call("GET", f"{path_of(model_id)}/logs", query={"tail": str(tail)})
        lines: list[Json] = answer["data"]
        return lines

    async def follow_logs(self, model_id: str, *, tail: int = 200) -> AsyncIterator[Json]:
        """Yield the last lines, then each one as it comes, until the daemon ends."""
        query = {"tail": str(tail), "follow": "true"}
        async with contextlib.aclosing(self._stream("GET", f"{path_of(model_id)}/logs", query=query)) as events:
            async for event in events:
                yield json.loads(event.data)

    async def problems(self) -> list[Json]:
        problems: list[Json] = (await self._call("GET", "/v1/problems"))["data"]
        return problems

    async def rescan(self) -> Json:
        return await self._call("POST", "/v1/rescan")

    # The daemon.

    async def health(self) -> Json:
        return await self._call("GET", "/health")

    async def ready(self) -> Json:
        """Return once the daemon says that it is ready. Raises NotReadyError before that."""
        return await self._call("GET", "/ready")

    async def version(self) -> Json:
        return await self._call("GET", "/version")

    async def reload(self) -> Json:
        """Let the daemon read its settings again; return which were applied and which need a restart."""
        return await self._call("POST", "/v1/reload")

    # Streams.

    async def chat(self, model: str, messages: Sequence[Mapping[str, Any]], **parameters: Any) -> AsyncIterator[Json]:
        """Yield the chunks of a chat completion as they come; leaving the loop ends the generation.

        Raises UpstreamError where the stream ends before its end.
        """
        body = {"model": model, "messages": list(messages), **parameters, "stream": True}
        async with contextlib.aclosing(self._stream("POST", "/v1/chat/completions", body=body)) as events:
            async for event in events:
                if event.data == "[DONE]":
                    return
                chunk = json.loads(event.data)
                if "error" in chunk:
                    raise rebuild(chunk, 500, {})
                yield chunk
        raise UpstreamError(
            f'cannot go on with the answer of "{model}": it broke off', hint=f"see its error: jand show {model}"
        )

    async def events(self, *, after: int | None = None, model: str | None = None) -> AsyncIterator[Event]:
        """Yield what happens from now on, or after the event *after*; ends when the daemon stops."""
        headers = {} if after is None else {"Last-Event-ID": str(after)}
        async with contextlib.aclosing(
            self._stream("GET", "/v1/events", query={"model": model}, headers=headers)
        ) as events:
            async for event in events:
                yield Event(int(event.id or 0), event.type, json.loads(event.data))

    # How.

    async def _call(
        self, method: str, path: str, *, query: Mapping[str, str | None] | None = None, body: Json | None = None
    ) -> Json:
        raw_body = b"" if body is None else json.dumps(body).encode()
        with translated(self.socket, OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            status, headers, raw = await exchange(self.socket, method, target(path, query), raw_body)
        content = read_json(raw)
        if status >= 400:
            raise rebuild(content, status, headers)
        return content

    async def _stream(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str | None] | None = None,
        body: Json | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[Message]:
        import aiohttp  # noqa: PLC0415 - see above
        from yarl import URL  # noqa: PLC0415 - comes with it

        url = URL(f"http://jand{target(path, query)}", encoded=True)
        with translated(self.socket, OSError, aiohttp.ClientError):
            async with self._connected().request(method, url, json=body, headers=headers) as answer:
                if answer.status >= 400:
                    raise rebuild(read_json(await answer.read()), answer.status, answer.headers)
                reading = Reading()
                while line := await answer.content.readline(max_line_length=MAX_LINE):
                    if (event := reading.take(line)) is not None:
                        yield event

    def _connected(self) -> aiohttp.ClientSession:
        import aiohttp  # noqa: PLC0415 - see above

        if self._session is None:
            # A new connection for each request costs 0.1 ms, and one that the daemon has just closed is never used.
            connector = aiohttp.UnixConnector(str(self.socket), force_close=True, limit=0)
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self._session


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


async def exchange(socket: Path, method: str, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send one request over a connection of its own and return status, headers (by their names in title case) and body.

    In HTTP/1.0, to which an answer is never sent in chunks.
    """
    reader, writer = await asyncio.open_unix_connection(socket, limit=MAX_HEAD)
    try:
        kind = "Content-Type: application/json\r\n" if body else ""
        head = f"{method} {path} HTTP/1.0\r\nHost: jand\r\n{kind}Content-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        status, headers = parse_head(await reader.readuntil(b"\r\n\r\n"))
        length = headers.get("Content-Length")
        return status, headers, await (reader.read() if length is None else reader.readexactly(int(length)))
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


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
def translated(socket: Path, *foreign: type[Exception]) -> Iterator[None]:
    """Raise what keeps us from the daemon, one of the *foreign*, as DaemonUnavailableError."""
    try:
        yield
    except foreign as error:
        cause, hint = explain(error)
        raise DaemonUnavailableError(
            f"cannot reach the daemon at {socket}: {cause}", hint=hint, socket=str(socket)
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
