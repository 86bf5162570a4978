"""Blocking calls in threads that a hung disk cannot use up."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from jand.library.threads import Threads
from tests.fakes.waiting import until


async def test_results_and_errors_come_back() -> None:
    threads = Threads(2, "test")
    assert await threads.run(lambda: 42) == 42
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)
    await threads.close()


async def test_no_more_threads_than_asked_for_and_none_left_behind() -> None:
    before = threading.active_count()
    threads = Threads(2, "test")

    def work() -> str:
        time.sleep(0.002)
        return threading.current_thread().name

    names = await asyncio.gather(*(threads.run(work) for _ in range(40)))
    assert len(set(names)) <= 2
    await threads.close()
    assert threading.active_count() == before


async def test_a_call_whose_caller_went_away_ends_by_itself() -> None:
    threads = Threads(1, "test")
    released = threading.Event()
    waiting = asyncio.ensure_future(threads.run(released.wait))
    await asyncio.sleep(0)
    waiting.cancel()
    released.set()
    assert await threads.run(lambda: "next") == "next"
    await threads.close()


async def test_a_call_that_hangs_costs_its_thread_and_not_the_next_call() -> None:
    threads = Threads(1, "test", stuck_s=0.05)
    hangs = threading.Event()
    stuck = threads.submit(hangs.wait)
    assert await asyncio.wait_for(threads.run(lambda: "next"), 2) == "next"
    hangs.set()
    assert await stuck
    await threads.close()


async def test_a_thread_that_hangs_does_not_hold_up_the_end() -> None:
    threads = Threads(1, "test", close_s=0.05)
    hangs = threading.Event()
    stuck = threads.submit(hangs.wait)
    began = time.monotonic()
    await threads.close()
    assert time.monotonic() - began < 1.0
    assert all(thread.daemon for thread in threading.enumerate() if thread.name.startswith("test"))
    hangs.set()
    await until(stuck.done)
