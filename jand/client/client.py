"""The calls of the API as methods: answers are its JSON as it comes, errors are raised again as what they were in the daemon, by their code.

aiohttp is imported for streams alone: that takes 0.2 s, and `jand list` has to be there sooner.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

from jand.client.place import LocalPlace, Place
from jand.client.wire import (
    CONNECT_S,
    Json,
    Message,
    Reading,
    exchange,
    path_of,
    read_json,
    rebuild,
    target,
    translated,
)
from jand.errors import UpstreamError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
    from types import TracebackType

    import aiohttp

MAX_LINE: Final = 64 << 20
"""Bytes of one line of a stream: an event may carry a whole model, an answer a picture."""


@dataclass(frozen=True, slots=True)
class Event:
    """One of `/v1/events`: *data* is the model or the problem that it is about."""

    id: int
    type: str
    data: Json


class Client:
    """A connection to the daemon at *place*, for which the path of its socket may stand; use it as an async context manager, or `close` it."""

    def __init__(self, place: Place | Path) -> None:
        self.place = LocalPlace(place) if isinstance(place, Path) else place
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
        with translated(self.place, OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            status, headers, raw = await exchange(self.place, method, target(path, query), raw_body)
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

        place = self.place
        url = URL(f"{place.scheme}://{place.host}{place.prefix}{target(path, query)}", encoded=True)
        with translated(place, OSError, aiohttp.ClientError):
            async with self._connected().request(
                method, url, json=body, headers={**place.headers, **(headers or {})}
            ) as answer:
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
            connector: aiohttp.BaseConnector
            if isinstance(self.place, LocalPlace):
                connector = aiohttp.UnixConnector(str(self.place.socket), force_close=True, limit=0)
            else:
                connector = aiohttp.TCPConnector(ssl=self.place.tls() or True, force_close=True, limit=0)
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self._session
