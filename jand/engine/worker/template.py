"""Applying a GGUF's own chat template by the renderer process: started when it is first wanted, killed when it takes too long, started again for the next."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from typing import Any, Final

from jand.errors import TemplateError

RENDER_S: Final = 5.0
LINE_BYTES: Final = 64 << 20
SOURCE_CHARS: Final = 1 << 20


class TemplateProcess:
    """One template; renderings follow one another."""

    def __init__(self, source: str, bos: str, eos: str, *, patience_s: float = RENDER_S) -> None:
        self._first = {"template": source, "bos_token": bos, "eos_token": eos}
        self._patience_s = patience_s
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._lifeline, self._hold = os.pipe()
        self._source_chars = len(source)

    async def start(self) -> None:
        """Start the process ahead of the first rendering; otherwise that one waits for it."""
        async with self._turn:
            await self._ensure()

    async def render(self, variables: dict[str, Any]) -> str:
        """Return the prompt; TemplateError where the template refuses, breaks or takes too long."""
        if self._source_chars > SOURCE_CHARS:
            raise TemplateError(f"cannot apply the chat template: it has more than {SOURCE_CHARS} characters")
        async with self._turn:
            done = False
            try:
                process = await self._ensure()
                async with asyncio.timeout(self._patience_s):
                    answer = await self._exchange(process, variables)
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
                    await asyncio.shield(self._end())
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
        await self._end()
        os.close(self._hold)
        os.close(self._lifeline)

    async def _ensure(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "jand.engine.worker.renderer", str(self._lifeline), str(os.getpid())),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                pass_fds=(self._lifeline,),
                limit=LINE_BYTES,
            )
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(self._first).encode() + b"\n")
        return self._process

    async def _exchange(self, process: asyncio.subprocess.Process, variables: dict[str, Any]) -> dict[str, Any]:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(variables).encode() + b"\n")
        await process.stdin.drain()
        line = await process.stdout.readline()
        if not line.endswith(b"\n"):
            raise asyncio.IncompleteReadError(line, None)
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()  # closes its pipes and reaps it
