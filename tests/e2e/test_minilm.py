"""Vectors of a real embedding model: all-MiniLM-L6-v2, converted from the package that carries it, beside a plain forward pass of its original weights."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import pytest

from jand.engine.process import Worker
from jand.engine.protocol import WorkerConfig
from tests.fakes import minilm
from tests.fakes.asking import TEXT, Asker

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(120)

EMBED = "/v1/embeddings"
WANTED_COSINE = 0.999


def sentences(count: int) -> list[str]:
    """Return *count* that differ, of one to two dozen words."""
    dice = random.Random(5)
    words = [word for word in minilm.read_vocabulary() if word.isascii() and word.isalpha() and len(word) > 2]
    return [
        " ".join(dice.choices(words, k=dice.randint(1, 24))).capitalize() + dice.choice(".!?") for _ in range(count)
    ]


async def test_vectors_are_those_of_the_original_weights(tmp_path: Path, soak: bool) -> None:
    """All sentences in one request, and each in one of its own."""
    texts = sentences(200 if soak else 40)
    wanted = minilm.embed_apart(texts)
    path = minilm.convert(tmp_path / "minilm.gguf")
    started = await Worker.start(
        WorkerConfig("minilm", (str(path),), str(tmp_path / "w.sock"), init={"embedding": True})
    )
    async with Asker(started.socket) as ask:
        together = await ask.ok(EMBED, input=texts)
        alone = [(await ask.ok(EMBED, input=text))["data"][0]["embedding"] for text in texts]
        assert together["usage"]["prompt_tokens"] == sum(len(minilm.tokenize(text)) for text in texts)
        refused = await ask.refused(TEXT, prompt="An encoder does not talk")
    await started.stop(grace_s=5)
    assert "makes vectors and no text" in refused["message"]
    for vectors in ([entry["embedding"] for entry in together["data"]], alone):
        cosines = [float(np.dot(vector, other)) for vector, other in zip(vectors, wanted, strict=True)]
        assert min(cosines) >= WANTED_COSINE, min(cosines)
