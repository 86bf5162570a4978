"""What comes of answers to whoever streams them, from two threads."""

from __future__ import annotations

import asyncio
import threading

import pytest

from jand.engine.worker.answer import Answer, Delta, Wanted
from jand.engine.worker.sampling import Sampling
from jand.engine.worker.streaming import News
from jand.errors import EngineError


def make_answer() -> Answer:
    return Answer(Wanted([1], Sampling()))


def tell_all(answer: Answer, count: int) -> threading.Thread:
    """Be the engine's thread: tell *count* numbered deltas, of which the loop hears where it must."""
    loop = asyncio.get_running_loop()

    def tell() -> None:
        for number in range(count):
            finish = "stop" if number == count - 1 else None
            if not answer.tell(Delta(text=str(number), finish=finish)):
                loop.call_soon_threadsafe(answer.hear)

    thread = threading.Thread(target=tell)
    thread.start()
    return thread


@pytest.mark.parametrize("straight", [True, False])
async def test_every_delta_comes_once_and_in_order_whichever_thread_it_is_taken_on(*, straight: bool) -> None:
    for _ in range(20):
        answer = make_answer()
        news = News((answer,))
        thread = tell_all(answer, 500)
        taken: list[str] = []

        def take(_: int, delta: Delta, into: list[str] = taken) -> bool:
            into.append(delta.text)
            return delta.finish is not None

        await news.first()
        await news.each(take, straight=straight)
        thread.join()

        assert taken == [str(number) for number in range(500)]


async def test_nothing_is_taken_after_a_failure() -> None:
    answer = make_answer()
    news = News((answer,))
    taken: list[str] = []

    def take(_: int, delta: Delta) -> bool:
        taken.append(delta.text)
        if delta.text == "2":
            raise ValueError("no page")
        return False

    waiting = asyncio.ensure_future(news.each(take, straight=True))
    await asyncio.sleep(0)
    for number in range(5):  # the loop has no turn meanwhile
        assert answer.tell(Delta(text=str(number)))

    with pytest.raises(ValueError, match="no page"):
        await waiting
    assert taken == ["0", "1", "2"]


async def test_an_error_before_the_first_token_is_raised() -> None:
    answer = make_answer()
    news = News((answer,))
    answer.tell(Delta(error=EngineError("cannot finish")))
    answer.hear()

    with pytest.raises(EngineError):
        await news.first()
