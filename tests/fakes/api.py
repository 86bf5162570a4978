"""The API on a real socket within the test's process, and a raw way to talk to it."""

from __future__ import annotations

import asyncio
import io
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from jand.api.app import create_app
from jand.api.listen import open_listeners
from jand.api.settings import ApiSettings, ListenSettings
from jand.lifecycle.words import Words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jand.api.listen import Listeners
    from tests.fakes.manager import FakeManager


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error, after checking that it has the one shape."""
        content = self.json
        assert self.headers["Content-Type"].startswith("application/json")
        assert list(content) == ["error"]
        assert set(content["error"]) == {"message", "type", "param", "code"}
        error: dict[str, Any] = content["error"]
        return error


class ServedApi:
    """Use as an async context manager; *listen*, *settings* and *tls*, a certificate and its key, are those of the API, *socket* is in a short directory of its own."""

    def __init__(
        self,
        manager: FakeManager,
        settings: ApiSettings | None = None,
        *listen: str,
        tls: tuple[Path, Path] | None = None,
    ) -> None:
        self.manager = manager
        self._tls = tls
        self._scratch = tempfile.TemporaryDirectory(prefix="jand-test-")
        self.directory = Path(self._scratch.name)
        self.socket = self.directory / "run" / "jand.sock"
        self._settings = settings or ApiSettings()
        self.words = Words()
        self._listen = listen
        self._listeners: Listeners | None = None
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        app = create_app(self.manager, self._settings, version_facts={"python": "3"}, words=self.words)
        certificate, key = self._tls or (None, None)
        settings = ListenSettings(self.socket, listen=self._listen, tls_cert=certificate, tls_key=key)
        self._listeners = await open_listeners(app, settings)
        self._session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.socket), limit=0))
        return self

    async def __aexit__(self, *details: object) -> None:
        await self.session.close()
        await self.listeners.close(grace_s=0)
        await self.manager.close()
        self._scratch.cleanup()

    @property
    def listeners(self) -> Listeners:
        assert self._listeners is not None
        return self._listeners

    @property
    def session(self) -> aiohttp.ClientSession:
        assert self._session is not None
        return self._session

    @property
    def port(self) -> int:
        """The port of the first TCP address."""
        return next(
            int(address.rpartition(":")[2]) for address in self.listeners.addresses if not address.startswith("/")
        )

    async def ask(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Ask over the Unix socket; *path* goes out exactly as written, *body* as JSON (or as it is, where it is bytes)."""
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        data = None if raw is None else io.BytesIO(raw)
        url = URL(f"http://jand{path}", encoded=True)
        async with self.session.request(method, url, data=data, headers=headers) as answer:
            return Answer(answer.status, CIMultiDict(answer.headers), await answer.read())

    async def ask_tcp(
        self, method: str, path: str, body: bytes = b"", *, host: str = "", headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Ask over TCP with a Host of one's own (default: the right one)."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            return await exchange(
                reader, writer, method, path, body, host=host or f"127.0.0.1:{self.port}", headers=headers
            )
        finally:
            writer.close()
            await writer.wait_closed()


async def exchange(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    method: str,
    path: str,
    body: bytes = b"",
    *,
    host: str = "jand",
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send one request as raw bytes and read the answer until the connection ends."""
    lines = [f"{method} {path} HTTP/1.1", "Connection: close", f"Host: {host}"]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    await writer.drain()
    head, _, content = (await reader.read()).partition(b"\r\n\r\n")
    first, *named = head.decode().split("\r\n")
    found = CIMultiDict((name, value.strip()) for name, _, value in (line.partition(":") for line in named))
    return Answer(int(first.split(" ")[1]), found, content)
