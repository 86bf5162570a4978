"""Many clients at once, with random lengths, cancellations and bad requests: every answer belongs to its request, nothing is lost, memory stays flat."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

from jand.engine.process import Worker
from jand.engine.protocol import WorkerConfig
from tests.fakes import gguf_files
from tests.fakes.asking import CHAT, TEXT, Asker, said, user
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from pathlib import Path

CLIENTS = 32
BAD: tuple[dict[str, Any], ...] = (
    {"temperature": -1},
    {"prompt": [10**7]},
    {"prompt": [5] * 5000},
    {"grammar": "root ::= ("},
    {"logit_bias": {"99999999": 1}},
    {"n": 0},
    {"json_schema": {"not": {}}},
)


@pytest.mark.timeout(1500)
async def test_every_answer_belongs_to_its_request_and_memory_stays_flat(tmp_path: Path, soak: bool) -> None:
    """An answer is held by a grammar to a word that names its request, so that a mix-up shows."""
    count = 10_000 if soak else 400
    (path,) = gguf_files.tiny_llama(tmp_path / "tiny.gguf")
    init = {"ctx_len": 512, "n_parallel": 8, "n_threads": 1, "embedding": True}
    worker = await Worker.start(WorkerConfig("tiny", (str(path),), str(tmp_path / "w.sock"), init=init))
    numbers = iter(range(count))
    dice = random.Random(11)
    warm = 0

    async def client(asker: Asker) -> None:
        nonlocal warm
        for number in numbers:
            await request(asker, number, dice)
            if number == count // 4:
                warm = worker.memory()

    async with Asker(worker.socket) as asker:
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(client(asker))

        async def idle() -> bool:
            health = await asker.get("/health")
            return not health["active"] and not health["queued"]

        await until(idle, 30, what="all slots to be free")
        grown = worker.memory() - warm
        assert grown < 24 << 20, f"{grown >> 20} MiB more than after the first quarter"
    note = await worker.stop(grace_s=5)
    assert note.code == 0, note


async def request(asker: Asker, number: int, dice: random.Random) -> None:
    kind = dice.random()
    if kind < 0.1:
        status, answer = await asker.post(TEXT, **{"prompt": "x", "max_tokens": 4, **dice.choice(BAD)})
        assert status == 400, answer
    elif kind < 0.2:
        work = asyncio.ensure_future(
            asker.ok(TEXT, prompt="word " * dice.randint(1, 60), max_tokens=200, ignore_eos=True)
        )
        await asyncio.sleep(dice.random() * 0.05)
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
    elif kind < 0.3:
        answer = await asker.ok("/v1/embeddings", input=["hello"] * dice.randint(1, 5))
        assert len({str(entry["embedding"][:4]) for entry in answer["data"]}) == 1
    elif kind < 0.5:
        length = dice.randint(1, 40)
        answer = await asker.ok(
            CHAT,
            messages=user("word " * dice.randint(1, 50)),
            max_tokens=length,
            ignore_eos=True,
            temperature=dice.choice([0, 1]),
        )
        assert answer["usage"]["completion_tokens"] == length
    else:
        answer = await asker.ok(TEXT, prompt=f"{number % 50} " * dice.randint(1, 40), grammar=f'root ::= "n{number}"')
        assert said(answer) == f"n{number}"
