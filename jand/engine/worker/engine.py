"""Continuous batching: all answers are made at once, a token each per step, on the thread that owns the context.

A step first takes one token of every answer being generated, then parts of prompts being read, no more than keeps the others flowing; decodes the batch; chooses
the next tokens, and tells each answer of its own. The memory of a whole conversation belongs to each slot, so an answer that has
begun never lacks room. What fails, fails one answer: only an error of the decode itself ends all that were in it.
"""

from __future__ import annotations

import time
import traceback
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jand.engine.worker import logprobs, media
from jand.engine.worker.answer import Delta
from jand.engine.worker.context import Batch, Outcome
from jand.engine.worker.grammar import Grammar
from jand.engine.worker.pictures import PictureBatch
from jand.engine.worker.portions import Portions
from jand.engine.worker.prefixes import Prefixes
from jand.engine.worker.sampling import Sampler
from jand.engine.worker.slots import Slot, Work, are_scattered, choose_exchange, choose_slot
from jand.engine.worker.text import TextStream
from jand.engine.worker.threads import Threads
from jand.errors import BadRequestError, EngineError, JandError, ShuttingDownError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from jand.engine.worker.answer import Answer
    from jand.engine.worker.context import Context
    from jand.engine.worker.delivery import Delivery
    from jand.engine.worker.turns import Turns

QUEUE_LIMIT: Final = 256
SCATTERED_STEPS: Final = 4
"""How long answers may lie scattered before some are moved: what ends or comes in a moment may mend it."""
HOPELESS_STEPS: Final = 256
EXCHANGED_BYTES: Final = 64 << 20
"""What the two conversations that change places may hold together: it passes through memory that nobody has reckoned with."""


@dataclass(frozen=True, slots=True)
class Share:
    """What one slot has in the batch: *tokens* at its end, and where its output lies (-1: none is wanted)."""

    slot: Slot
    tokens: list[int]
    output: int


class Engine:
    """A part of *turns*. *deliver* has every delta on the engine's thread, at once: whoever it is for can be at work while the next is made."""

    def __init__(
        self,
        context: Context,
        turns: Turns,
        deliver: Delivery,
        *,
        threads: int = 1,
        read_threads: int = 1,
        queue_limit: int = QUEUE_LIMIT,
    ) -> None:
        self._context = context
        self._threads = Threads(threads, read_threads)
        self._weights = context.weights
        self._turns = turns
        self._counters = turns.counters
        self._deliver = deliver
        self._queue_limit = queue_limit
        self._slots = [Slot(number) for number in range(context.sequences)]
        self._prefixes = Prefixes(context, self._slots)
        self._scattered_steps = 0
        self._batch = Batch(context.n_batch)
        self._pictures = PictureBatch(context.n_batch)
        self._picture_last = False
        self._waiting: deque[Answer] = deque()
        self._rotation = 0
        self._portions = Portions(context.n_batch)
        turns.join(self)

    # -- from any thread ----------------------------------------------------------------------------------------------

    @property
    def active(self) -> int:
        return sum(slot.work is not None for slot in self._slots)

    @property
    def queued(self) -> int:
        return len(self._waiting)

    @property
    def cached(self) -> list[int]:
        """How many tokens each slot holds."""
        return [len(slot.tokens) for slot in self._slots]

    def submit(self, *answers: Answer, promised: bool = False) -> None:
        """Queue *answers*, all or none; what cannot be answered is refused here, before it costs anything. *promised* as in `Turns`."""
        for answer in answers:
            self._check(answer)
        with self._turns.changed:
            self._turns.check_open(self._waiting, len(answers), self._queue_limit, promised=promised)
            self._waiting.extend(answers)
            self._turns.changed.notify()

    def cancel(self, answer: Answer) -> None:
        """Nobody wants *answer* any more; its slot is free after the step that runs."""
        with self._turns.changed:
            answer.cancelled = True
            self._turns.changed.notify()

    def _check(self, answer: Answer) -> None:
        prompt = answer.wanted.prompt
        media.check_room(len(prompt), self._context.ctx_len)
        if not prompt:
            raise BadRequestError("cannot answer: the prompt is empty", param="prompt")
        if not answer.wanted.pictures and not 0 <= min(prompt) <= max(prompt) < self._weights.facts.n_vocab:
            raise BadRequestError(
                f"cannot answer: a token is outside the vocabulary of {self._weights.facts.n_vocab}", param="prompt"
            )

    # -- the thread ---------------------------------------------------------------------------------------------------

    def step(self) -> None:
        self._advance()
        self._deliver.flush()

    def _advance(self) -> None:
        self._drop_unwanted()
        self._bring_together()
        self._admit()
        batch, parts = self._next()
        if not parts:
            return
        read = sum(len(part.tokens) for part in parts if part.slot.reading)
        self._context.set_threads(*self._threads.counts(read, len(parts)))
        began, processor_began = time.monotonic(), time.process_time()
        outcome = self._context.decode(batch)
        if outcome is not Outcome.DONE:
            self._recover(outcome, parts)
            return
        seconds, processor_s = max(time.monotonic() - began, 1e-9), time.process_time() - processor_began
        generated = sum(part.slot.generating for part in parts)
        for part in parts:
            part.slot.tokens.extend(part.tokens)
            if part.output >= 0:
                self._continue(part.slot, part.output)
        self._account(parts, read, generated, seconds, processor_s)

    def _drop_unwanted(self) -> None:
        for slot in self._slots:
            if slot.work is not None and (slot.work.answer.cancelled or self._turns.forced):
                self._give_up(slot)
        if not self._waiting:
            return
        with self._turns.changed:
            unwanted = [answer for answer in self._waiting if answer.cancelled or self._turns.forced]
            if unwanted:
                self._waiting = deque(answer for answer in self._waiting if answer not in unwanted)
        for answer in unwanted:
            self._tell_end(answer)

    def _bring_together(self) -> None:
        """Exchange places where the answers in work have lain scattered for some steps: each run of neighbours is a pass over the weights of its own."""
        self._scattered_steps = self._scattered_steps + 1 if are_scattered(self._slots) else 0
        if self._scattered_steps < SCATTERED_STEPS:
            return
        self._scattered_steps = 0
        busy, idle = choose_exchange(self._slots)
        if self._context.exchange(busy.number, idle.number, EXCHANGED_BYTES):
            busy.number, idle.number = idle.number, busy.number
            self._slots.sort(key=lambda slot: slot.number)
        else:
            self._scattered_steps = -HOPELESS_STEPS
        if self._context.last_position(idle.number) < 0:
            idle.tokens.clear()

    def _give_up(self, slot: Slot) -> None:
        assert slot.work is not None
        answer = slot.work.answer
        self._release(slot)
        self._tell_end(answer)

    def _tell_end(self, answer: Answer) -> None:
        """Count an answer that is not finished; whoever still listens is told that the model is going."""
        if answer.cancelled:
            self._counters.cancelled += 1
        else:
            stopped = ShuttingDownError("cannot finish the answer: the model is being stopped")
            self._deliver(answer, Delta(error=stopped))

    def _admit(self) -> None:
        while self._waiting:
            with self._turns.changed:
                answer = self._waiting[0]
            slot = choose_slot(self._slots, answer.wanted.prompt)
            if slot is None or self._prefixes.is_being_read(answer.wanted.prompt):
                return
            with self._turns.changed:
                self._waiting.popleft()
            self._counters.requests += 1
            try:
                self._begin(slot, answer)
            except Exception as error:
                self._release(slot)
                self._fail(answer, error)

    def _begin(self, slot: Slot, answer: Answer) -> None:
        wanted, usage = answer.wanted, answer.usage
        usage.queued_at, usage.started_at = answer.queued_at, time.monotonic()
        usage.prompt_tokens = len(wanted.prompt)
        if wanted.cache_prompt:
            self._prefixes.borrow(slot, wanted)
        usage.cached_tokens = self._prefixes.keep(slot, wanted)
        self._counters.cached_tokens += usage.cached_tokens
        grammar = Grammar(self._weights, wanted.grammar) if wanted.grammar is not None else None
        sampler = Sampler(self._weights, wanted.sampling, grammar, wanted.said, self._context.ctx_len)
        room = self._context.ctx_len - len(wanted.prompt)
        limit = room if wanted.max_tokens is None else min(room, wanted.max_tokens)
        slot.work = Work(answer, sampler, TextStream(wanted.stops), limit)

    def _next(self) -> tuple[Batch | PictureBatch, list[Share]]:
        """Return what is decoded next. A picture cannot share a batch with tokens, so the two alternate where both are to be done."""
        waiting = [slot for slot in self._slots if slot.reading and slot.picture is not None]
        parts = [] if waiting and not self._picture_last else self._fill()
        self._picture_last = not parts
        if parts or not waiting:
            return self._batch, parts
        return self._pictures, [self._picture_share(waiting[self._rotation % len(waiting)])]

    def _picture_share(self, slot: Slot) -> Share:
        """Take of a picture what keeps other answers flowing; all of it where they need not, or it cannot be divided."""
        assert slot.work is not None
        prompt, done, picture = slot.work.answer.wanted.prompt, len(slot.tokens), slot.picture
        assert picture is not None
        room = self._portions.chunk if any(other.generating for other in self._slots) else self._pictures.capacity
        end = picture.end if picture.atomic else min(picture.end, done + room)
        output = end == len(prompt)
        index = self._pictures.set(slot.number, picture, done - picture.start, end - done, output=output)
        return Share(slot, prompt[done:end], index if output else -1)

    def _fill(self) -> list[Share]:
        """Fill the batch in the order of the slots, for llama.cpp decodes together only what follows one another."""
        picked: list[tuple[Slot, list[int], bool]] = []
        for slot in self._slots:
            if slot.generating:
                assert slot.work is not None
                assert slot.work.next_token is not None
                picked.append((slot, [slot.work.next_token], True))
        picked += self._read([slot for slot, _, _ in picked])
        picked.sort(key=lambda each: each[0].number)
        self._batch.clear()
        parts = []
        for slot, tokens, output in picked:
            index = self._batch.add(slot.number, tokens, slot.position, output=output)
            parts.append(Share(slot, tokens, index if output else -1))
        return parts

    def _read(self, flowing: list[Slot]) -> Iterator[tuple[Slot, list[int], bool]]:
        """Yield what is read of prompts beside *flowing* answers, and whether it is the last of its prompt. Who is first changes from step to step."""
        reading = [slot for slot in self._slots if slot.reading and slot.picture is None]
        if not reading:
            return
        self._rotation += 1
        turn = self._rotation % len(reading)
        reading = reading[turn:] + reading[:turn]
        young = all(slot.work.answer.usage.completion_tokens <= 1 for slot in flowing if slot.work)
        left = [_left(slot) for slot in reading]
        for slot, share in zip(reading, self._portions.share(left, flowing=len(flowing), young=young), strict=True):
            if share:
                assert slot.work is not None
                prompt, done = slot.work.answer.wanted.prompt, len(slot.tokens)
                yield slot, prompt[done : done + share], done + share == len(prompt)

    def _account(self, parts: list[Share], read: int, generated: int, seconds: float, processor_s: float) -> None:
        counters = self._counters
        counters.note_step([len(part.slot.tokens) for part in parts])
        counters.prompt_tokens += read
        counters.generated_tokens += generated
        self._threads.record(seconds, time.monotonic(), processor_s=processor_s, generated=generated, read=read)
        if not read:
            counters.generating_s += seconds
            return
        counters.reading_s += seconds
        if generated:
            self._portions.record(read, seconds)

    def _continue(self, slot: Slot, index: int) -> None:
        """Choose what follows in *slot*; whatever goes wrong there ends that answer alone."""
        work = slot.work
        assert work is not None
        try:
            delta = self._choose(work, index)
        except Exception as error:
            self._release(slot)
            self._fail(work.answer, error)
            return
        if delta.finish is not None:
            work.answer.usage.ended_at = time.monotonic()
            self._release(slot)
        if delta.text or delta.logprobs or delta.finish is not None:
            self._deliver(work.answer, delta)

    def _choose(self, work: Work, index: int) -> Delta:
        wanted, usage = work.answer.wanted, work.answer.usage
        if not usage.first_token_at:
            usage.first_token_at = time.monotonic()
        if usage.completion_tokens >= work.limit:  # nothing was asked for but reading the prompt
            return Delta(finish="length")
        raw = logprobs.normalise(self._context, index) if wanted.logprobs is not None else None
        token = work.sampler.sample(self._context, index)
        usage.completion_tokens += 1
        work.next_token = token
        ends, piece = self._weights.said_by(token)
        if ends:
            return Delta(text=work.stream.end(), finish="stop")
        if wanted.preserved and token in wanted.preserved:
            piece = self._weights.piece(token, special=True)
        text = work.stream.feed(piece)
        told = (logprobs.describe(self._weights, raw, token, wanted.logprobs or 0),) if raw is not None else ()
        if work.stream.stopped is None and usage.completion_tokens < work.limit:
            return Delta(text=text, logprobs=told)
        text += work.stream.end()
        return Delta(text=text, logprobs=told, finish="length" if work.stream.stopped is None else "stop")

    def _recover(self, outcome: Outcome, parts: list[Share]) -> None:
        """Go on after a decode that failed: make room once, else end what was in the batch and begin with an empty memory."""
        idle = [slot for slot in self._slots if slot.work is None and slot.tokens]
        if outcome is Outcome.NO_ROOM and idle:
            self._empty(idle)  # nothing has changed but that; the next step tries again
            return
        if outcome is Outcome.NO_ROOM and len(parts) > 1:
            longest = max((part.slot for part in parts), key=lambda slot: len(slot.tokens))
            self._fail_slots([longest], outcome)
            return
        self._fail_slots([slot for slot in self._slots if slot.work is not None], outcome)
        self._context.forget_all()
        for slot in self._slots:
            slot.tokens.clear()

    def _empty(self, slots: Iterable[Slot]) -> None:
        for slot in slots:
            self._context.forget(slot.number)
            slot.tokens.clear()

    def _fail_slots(self, slots: list[Slot], outcome: Outcome) -> None:
        for slot in slots:
            assert slot.work is not None
            answer = slot.work.answer
            self._release(slot)
            self._fail(
                answer, EngineError(f"cannot finish the answer: llama.cpp failed to decode ({outcome.name.lower()})")
            )
        self._empty(slots)

    def _fail(self, answer: Answer, error: Exception) -> None:
        self._counters.failed += 1
        if not isinstance(error, JandError):
            traceback.print_exception(error)
            error = EngineError("cannot finish the answer: something unexpected went wrong in the engine")
        self._deliver(answer, Delta(error=error))

    def _release(self, slot: Slot) -> None:
        if slot.work is not None:
            slot.work.sampler.close()
            slot.work = None
        slot.used_at = time.monotonic()


def _left(slot: Slot) -> int:
    """Count the tokens of text that are to be read next in *slot*, up to the end of its prompt or a picture in it."""
    assert slot.work is not None
    wanted, done = slot.work.answer.wanted, len(slot.tokens)
    return media.next_start(wanted.pictures, done, len(wanted.prompt)) - done
