"""Vectors for texts: a context of its own on the same weights, which pools whole inputs, several of them in one batch.

Pooling is silently wrong where an input is split over micro-batches, so a batch is one micro-batch and a longer input is refused. Vectors are scaled to length 1,
as llama.cpp's server does.
"""

from __future__ import annotations

import traceback
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from jand.engine.worker.context import Batch, Outcome
from jand.errors import BadRequestError, ContextExceededError, EngineError, JandError, ShuttingDownError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    import numpy.typing as npt

    from jand.engine.worker.context import Context
    from jand.engine.worker.turns import Turns

QUEUE_LIMIT: Final = 256
Vector = "npt.NDArray[np.float32]"


@dataclass(eq=False, slots=True)
class Job:
    """Inputs that belong to one request; *result* is set on the event loop when all have their vectors."""

    inputs: list[list[int]]
    result: asyncio.Future[list[npt.NDArray[np.float32]]]
    vectors: list[npt.NDArray[np.float32]] = field(default_factory=list)
    cancelled: bool = False

    @property
    def rest(self) -> list[list[int]]:
        return self.inputs[len(self.vectors) :]


class Embedder:
    """A part of *turns*; *settle* puts a result or an error into a job's future on the event loop."""

    def __init__(
        self,
        context: Context,
        turns: Turns,
        settle: Callable[[Job, Exception | None], None],
        *,
        queue_limit: int = QUEUE_LIMIT,
    ) -> None:
        self.size = context.weights.facts.n_embd
        self.longest = context.ctx_len
        self._context = context
        self._turns = turns
        self._settle = settle
        self._queue_limit = queue_limit
        self._batch = Batch(context.n_batch)
        self._waiting: deque[Job] = deque()
        turns.join(self)

    @property
    def active(self) -> int:
        return 0

    @property
    def queued(self) -> int:
        return len(self._waiting)

    def submit(self, job: Job) -> None:
        for number, tokens in enumerate(job.inputs):
            self._check(number, tokens)
        with self._turns.changed:
            self._turns.check_open(self._waiting, 1, self._queue_limit)
            self._waiting.append(job)
            self._turns.changed.notify()

    def cancel(self, job: Job) -> None:
        job.cancelled = True

    def _check(self, number: int, tokens: list[int]) -> None:
        if not tokens:
            raise BadRequestError(f"cannot embed input {number}: it is empty", param="input")
        if len(tokens) > self.longest:
            raise ContextExceededError(
                f"cannot embed input {number}: it has {len(tokens)} tokens, and there is room for {self.longest}",
                hint="shorten it, or raise ctx_len",
                param="input",
                n_prompt_tokens=len(tokens),
                n_ctx=self.longest,
            )
        if not 0 <= min(tokens) <= max(tokens) < self._context.weights.facts.n_vocab:
            raise BadRequestError(f"cannot embed input {number}: a token is outside the vocabulary", param="input")

    def step(self) -> None:
        """Make one batch of the first job's inputs; other parts have their turn before the next."""
        with self._turns.changed:
            job = self._waiting.popleft()
        if job.cancelled:
            self._turns.counters.cancelled += 1
            return
        error: Exception | None = None
        try:
            self._embed_some(job)
        except Exception as caught:  # whatever an input brings about is its request's failure
            error = caught
            if not isinstance(error, JandError):
                traceback.print_exception(error)
                error = EngineError("cannot embed: something unexpected went wrong in the engine")
            self._turns.counters.failed += 1
        if error is not None or not job.rest:
            self._turns.counters.requests += 1
            self._settle(job, error)
            return
        with self._turns.changed:
            self._waiting.append(job)

    def _embed_some(self, job: Job) -> None:
        if self._turns.forced:
            raise ShuttingDownError("cannot answer: the model is being stopped")
        self._batch.clear()
        self._context.forget_all()
        count = 0
        for tokens in job.rest[: self._context.sequences]:
            if self._batch.count + len(tokens) > self._batch.capacity:
                break
            self._batch.add(count, tokens, 0, output=True)
            count += 1
        self._batch.want_all_outputs()
        outcome = self._context.decode(self._batch)
        if outcome is not Outcome.DONE:
            raise EngineError(f"cannot embed: llama.cpp failed to decode ({outcome.name.lower()})")
        for sequence in range(count):
            vector = self._context.embedding(sequence)
            if vector is None or not np.isfinite(vector).all():
                raise EngineError("cannot embed: llama.cpp gave no vector")
            job.vectors.append(normalise(vector))
        self._turns.counters.embedded_tokens += self._batch.count


def normalise(vector: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Scale *vector* to length 1; one of length 0 stays as it is."""
    length = float(np.linalg.norm(vector))
    return vector / np.float32(length) if length else vector
