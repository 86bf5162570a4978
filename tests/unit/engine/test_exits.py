"""Exit statuses in words."""

from __future__ import annotations

import pytest

from jand.engine.exits import describe_exit


@pytest.mark.parametrize(
    ("returncode", "log", "message"),
    [
        (-9, (), "the worker was killed by SIGKILL, probably for lack of memory"),
        (-7, (), "the worker was killed by SIGBUS, a binary was changed or cut while it was in use"),
        (
            -6,
            ("x", "ggml.c:12: GGML_ASSERT(n > 0) failed", "y"),
            "the worker was killed by SIGABRT, llama.cpp gave up (ggml.c:12: GGML_ASSERT(n > 0) failed)",
        ),
        (-64, (), "the worker was killed by SIGRTMAX"),
        (-63, (), "the worker was killed by signal 63"),
        (1, ("nothing to say",), "the worker ended with status 1"),
        (0, ("error: x",), "the worker ended with status 0"),
        (143, ("error: x",), "the worker was ended by SIGTERM"),
        (
            1,
            ("error loading model: no key", "failed to load"),
            "the worker ended with status 1 (error loading model: no key)",
        ),
    ],
)
def test_exit_in_words(returncode: int, log: tuple[str, ...], message: str) -> None:
    note = describe_exit(returncode, log, expected=False)
    assert note.message == message
    assert note.log == log


def test_kill_that_we_sent_is_not_called_lack_of_memory() -> None:
    assert describe_exit(-9, (), expected=True).message == "the worker was killed by SIGKILL"


@pytest.mark.parametrize(("returncode", "crashed"), [(-11, True), (-6, True), (-9, False), (-15, False), (1, False)])
def test_crash_is_what_a_process_brings_upon_itself(returncode: int, crashed: bool) -> None:
    assert describe_exit(returncode, (), expected=False).crashed is crashed
