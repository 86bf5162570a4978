"""The one table of statuses, and the one shape."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re

import pytest

import jand
from jand.api.errors import STATUS, answer_error
from jand.client import kinds, rebuild
from jand.errors import BodyTooLargeError, JandError, MethodNotAllowedError, ModelNotFoundError, UnauthorizedError


def all_kinds() -> dict[str, type[JandError]]:
    """Every error of the tree, those of any module of jand included."""
    for module in pkgutil.walk_packages(jand.__path__, "jand."):
        if not module.name.startswith(("jand.engine.worker", "jand.__main__", "jand.cli")):
            importlib.import_module(module.name)
    return kinds()


def test_the_table_has_a_status_for_every_kind_of_error_and_for_nothing_else() -> None:
    assert set(STATUS) == set(all_kinds())


def test_every_kind_has_a_code_of_its_own_in_kebab_case() -> None:
    found: list[type[JandError]] = [JandError]
    for kind in found:
        found.extend(kind.__subclasses__())
    # A worker's own kinds never leave it, and share the code of what they are to the daemon.
    own = [kind for kind in found if kind.__module__.startswith("jand.") and "worker" not in kind.__module__]
    codes = [kind.code for kind in own]

    assert sorted(codes) == sorted(set(codes))
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in codes)


@pytest.mark.parametrize("code", sorted(STATUS))
def test_every_kind_is_answered_in_the_one_shape_and_rebuilt_from_it(code: str) -> None:
    sent = kinds()[code]("cannot do it: no", hint="try", param="x", retry_after_s=2.1)

    response = answer_error(sent)
    assert isinstance(response.body, bytes)
    content = json.loads(response.body)
    back = rebuild(content, response.status, response.headers)

    assert response.status == STATUS[code]
    assert 400 <= response.status < 600
    assert list(content) == ["error"]
    assert list(content["error"]) == ["message", "type", "param", "code"]
    assert content["error"]["message"] == "cannot do it: no; hint: try"
    assert (type(back), back.message, back.hint, back.param) == (type(sent), sent.message, sent.hint, sent.param)


@pytest.mark.parametrize("code", [code for code, status in STATUS.items() if status in {429, 503}])
@pytest.mark.parametrize(("wait", "header"), [(None, "1"), (0.0, "1"), (2.1, "3"), (60.0, "60")])
def test_what_passes_says_when_to_ask_again_in_whole_seconds(code: str, wait: float | None, header: str) -> None:
    assert answer_error(kinds()[code]("cannot", retry_after_s=wait)).headers["Retry-After"] == header


def test_what_a_client_could_only_repeat_is_marked_so_for_openais_clients() -> None:
    assert {
        code for code in STATUS if answer_error(kinds()[code]("cannot")).headers.get("x-should-retry") == "false"
    } == {code for code, status in STATUS.items() if status in {409, 500}}


def test_near_ids_become_the_hint_where_there_is_none() -> None:
    answer = answer_error(ModelNotFoundError('cannot find model "x"', near=["xy", 'x"z']))

    assert isinstance(answer.body, bytes)
    assert json.loads(answer.body)["error"]["message"] == 'cannot find model "x"; hint: did you mean "xy" or "x\\"z"?'


def test_headers_that_belong_to_a_status() -> None:
    assert answer_error(MethodNotAllowedError("cannot", allowed=["PUT", "GET"])).headers["Allow"] == "GET, PUT"
    assert answer_error(UnauthorizedError("cannot")).headers["WWW-Authenticate"] == "Bearer"
    assert answer_error(BodyTooLargeError("cannot")).keep_alive is False


def test_text_that_is_no_unicode_can_be_told() -> None:
    response = answer_error(ModelNotFoundError("cannot find \udce9"))

    assert isinstance(response.body, bytes)
    assert response.body.isascii()
