"""The engine's thread: when it begins, and that it ends."""

from __future__ import annotations

import threading

import pytest

from jand.engine.worker.turns import Turns

LONG_S = 600.0


class Part:
    """Has *queued* requests, done in one step."""

    def __init__(self, turns: Turns) -> None:
        self.active = 0
        self.queued = 0
        self.stepped = threading.Event()
        self.seen: list[int] = []
        self._turns = turns
        turns.join(self)

    def step(self) -> None:
        self.seen.append(self.queued)
        self.queued = 0
        self.stepped.set()

    def submit(self) -> None:
        with self._turns.changed:
            self.queued += 1
            self._turns.changed.notify()


def run(turns: Turns) -> threading.Thread:
    thread = threading.Thread(target=turns.run, daemon=True)
    thread.start()
    return thread


def stop(turns: Turns, thread: threading.Thread) -> None:
    turns.close(force=False)
    thread.join(5)
    assert not thread.is_alive()


def test_a_request_alone_begins_at_once() -> None:
    turns = Turns(together_s=LONG_S)
    part, thread = Part(turns), run(turns)

    part.submit()

    assert part.stepped.wait(5)
    stop(turns, thread)


def test_those_that_are_on_their_way_are_waited_for() -> None:
    turns = Turns(together_s=LONG_S)
    part, thread = Part(turns), run(turns)
    with turns.promised():
        with turns.promised():
            part.submit()
            part.submit()
        part.submit()
        assert not part.stepped.wait(0.1)
        part.submit()

    assert part.stepped.wait(5)
    assert part.seen == [4]
    stop(turns, thread)


def test_one_that_takes_long_is_not_waited_for() -> None:
    turns = Turns(together_s=0.01)
    part, thread = Part(turns), run(turns)
    with turns.promised():
        part.submit()
        assert part.stepped.wait(5)
    stop(turns, thread)


@pytest.mark.parametrize("force", [False, True])
def test_a_stop_ends_the_wait(*, force: bool) -> None:
    turns = Turns(together_s=LONG_S)
    part, thread = Part(turns), run(turns)
    with turns.promised():
        part.submit()
        turns.close(force=force)
        assert part.stepped.wait(5)
    thread.join(5)
    assert not thread.is_alive()
