"""Exit statuses, and what an error looks like."""

from __future__ import annotations

import pytest

from jand.cli import errors
from jand.errors import (
    ContextExceededError,
    HubGatedError,
    JandError,
    ModelNotFoundError,
    SettingsError,
    StartError,
)


def test_every_kind_of_error_has_an_exit_status_of_its_own_choice() -> None:
    """A new kind must be thought about; its children inherit."""
    kinds = {kind for kind in JandError.__subclasses__() if kind.__module__ == "jand.errors"}

    assert kinds - errors.STATUS.keys() == set()


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (SettingsError("x"), 78),
        (ModelNotFoundError("x"), 66),
        (ContextExceededError("x"), 65),
        (HubGatedError("x"), 1),
        (StartError("x"), 1),
        (JandError("x"), 70),
    ],
)
def test_an_error_has_the_status_of_its_nearest_ancestor(error: JandError, status: int) -> None:
    assert errors.status_of(error) == status


def test_an_error_that_came_over_the_socket_with_a_code_alone_has_the_status_of_that_code() -> None:
    class AnsweredError(JandError):
        code = "model-not-found"

    assert errors.status_of(AnsweredError("x")) == errors.NOT_FOUND


def test_an_error_is_one_sentence_and_a_hint_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    status = errors.report(ModelNotFoundError('cannot find "a\x1b[1m"', hint='did you mean "ab"?'))

    out, err = capsys.readouterr()
    assert (out, err) == ("", 'jand: cannot find "a\\x1b[1m"\nhint: did you mean "ab"?\n')
    assert status == errors.NOT_FOUND


def test_a_failure_of_a_verb_carries_its_own_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert errors.report(errors.Failure("cannot go on", status=errors.USAGE)) == 2
    assert capsys.readouterr().err == "jand: cannot go on\n"
