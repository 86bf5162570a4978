"""The page and its files: there, closed to everything foreign by their headers, and to be had without the token that the API asks for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jand.api import page
from jand.api.settings import ApiSettings
from tests.fakes.api import ServedApi

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.fakes.manager import FakeManager

FILES = sorted(path.name for path in page.FOLDER.iterdir())


@pytest.fixture
async def guarded(manager: FakeManager) -> AsyncIterator[ServedApi]:
    async with ServedApi(manager, ApiSettings(token="correct horse"), "127.0.0.1:0") as served:
        yield served


@pytest.mark.parametrize("path", ["/", *(f"/page/{name}" for name in FILES)])
async def test_it_needs_no_token_and_its_headers_let_nothing_else_in(guarded: ServedApi, path: str) -> None:
    answer = await guarded.ask_tcp("GET", path)

    assert answer.status == 200
    policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    expected = {"": "text/html", **page.MEDIA}.get(Path(path).suffix, "text/html")
    assert answer.headers["Content-Type"] == f"{expected}; charset=utf-8"


async def test_a_foreign_host_or_origin_does_not_get_it(guarded: ServedApi) -> None:
    assert (await guarded.ask_tcp("GET", "/", host="evil.example:80")).status == 403
    assert (await guarded.ask_tcp("GET", "/page/main.js", headers={"Origin": "https://evil.example"})).status == 403


async def test_it_answers_on_the_socket_too_and_before_the_first_scan(api: ServedApi, manager: FakeManager) -> None:
    manager.ready.clear()

    answer = await api.ask("GET", "/")
    assert b"<main" in answer.body


async def test_a_browser_that_has_it_is_told_so(api: ServedApi) -> None:
    tag = (await api.ask("GET", "/page/main.js")).headers["ETag"]

    again = await api.ask("GET", "/page/main.js", headers={"If-None-Match": tag})
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize("path", ["x.js", "..%2Fapi%2Fpage.py", "%2e%2e/guard.py", "/etc/passwd", "index.html/"])
async def test_nothing_but_its_files_is_there(guarded: ServedApi, path: str) -> None:
    answer = await guarded.ask_tcp("GET", f"/page/{path}")

    assert answer.status == 404
    assert answer.error["code"] == "unknown-route"


async def test_below_its_path_the_api_is_not_open(guarded: ServedApi, manager: FakeManager) -> None:
    for path in ("/page/../v1/models", "/page/..%2Fv1%2Fmodels", "/page//../v1/models", "//v1/models"):
        assert (await guarded.ask_tcp("GET", path)).status in {400, 401, 404}, path
    assert manager.asked == []


def test_it_names_no_foreign_host_and_makes_no_markup_of_text() -> None:
    for path in page.FOLDER.iterdir():
        text = path.read_text()
        addresses = set(re.findall(r"https?://[\w.]+", text)) - {"http://www.w3.org"}
        assert not addresses, (path.name, addresses)
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "setHTML"):
            assert word not in text, (path.name, word)
        assert not re.search(r"<script(?![^>]*\ssrc=)|\son\w+=|<style|style=\"", text) or path.suffix == ".js"


def test_every_part_that_a_script_asks_for_by_its_id_is_in_the_page() -> None:
    index = (page.FOLDER / page.INDEX).read_text()
    ids = re.findall(r'\bid="([^"]+)"', index)
    asked = {name for path in page.FOLDER.glob("*.js") for name in re.findall(r'\$\("([^"]+)"\)', path.read_text())}

    assert len(ids) == len(set(ids))
    assert asked <= set(ids)
    for attribute in ("for", "aria-labelledby", "aria-describedby"):
        for named in re.findall(rf'\b{attribute}="([^"]+)"', index):
            assert set(named.split()) <= set(ids), named
