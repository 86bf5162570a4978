"""Applying a GGUF's own chat template by a renderer: made when it is first wanted, killed when it takes too long, made again for the next."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass
from typing import Any, Final

from jand.engine.worker.rendering import RenderHost
from jand.errors import TemplateError

RENDER_S: Final = 5.0
LINE_BYTES: Final = 64 << 20
SOURCE_CHARS: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Line:
    """The line to a renderer."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class TemplateProcess:
    """One template; renderings follow one another. *host*, one of its own by default, makes the renderers."""

    def __init__(
        self, source: str, bos: str, eos: str, host: RenderHost | None = None, *, patience_s: float = RENDER_S
    ) -> None:
        self._first = {"template": source, "bos_token": bos, "eos_token": eos}
        self._patience_s = patience_s
        self._host = host or RenderHost()
        self._line: Line | None = None
        self._turn = asyncio.Lock()
        self._source_chars = len(source)

    async def start(self) -> None:
        """Have the renderer made ahead of the first rendering; otherwise that one waits for it."""
        async with self._turn:
            await self._ensure()

    async def render(self, variables: dict[str, Any]) -> str:
        """Return the prompt; TemplateError where the template refuses, breaks or takes too long."""
        if self._source_chars > SOURCE_CHARS:
            raise TemplateError(f"cannot apply the chat template: it has more than {SOURCE_CHARS} characters")
        async with self._turn:
            done = False
            try:
                line = await self._ensure()
                async with asyncio.timeout(self._patience_s):
                    answer = await self._exchange(line, variables)
                done = True
            except TimeoutError:
                raise TemplateError(
                    f"cannot apply the chat template: it did not end within {self._patience_s:g} s",
                    hint="give user_prompt and ai_prompt in the JSON instead",
                ) from None
            except (OSError, ValueError, asyncio.IncompleteReadError):
                raise TemplateError(
                    "cannot apply the chat template: it broke its process",
                    hint="give user_prompt and ai_prompt in the JSON instead",
                ) from None
            finally:
                if not done:  # also when the client has gone: half an answer would be read as the next one
                    self._end()
        if "text" in answer:
            return str(answer["text"])
        if answer.get("refused"):
            raise TemplateError(
                f"cannot apply the chat template to these messages: {answer['error']}", param="messages"
            )
        raise TemplateError(
            f"cannot apply the chat template: {answer['error']}",
            hint="give user_prompt and ai_prompt in the JSON instead",
        )

    async def close(self) -> None:
        self._end()
        await asyncio.to_thread(self._host.close)

    async def _ensure(self) -> Line:
        if self._line is None:
            ours = self._host.start()
            self._line = Line(*await asyncio.open_connection(sock=ours, limit=LINE_BYTES))
            self._line.writer.write(json.dumps(self._first).encode() + b"\n")
        return self._line

    async def _exchange(self, line: Line, variables: dict[str, Any]) -> dict[str, Any]:
        line.writer.write(json.dumps(variables).encode() + b"\n")
        await line.writer.drain()
        read = await line.reader.readline()
        if not read.endswith(b"\n"):
            raise asyncio.IncompleteReadError(read, None)
        answer: dict[str, Any] = json.loads(read)
        return answer

    def _end(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            self._host.end()
            with contextlib.suppress(OSError):
                line.writer.transport.abort()
