"""Whatever goes wrong in a request, the answer has one shape and tells nothing that it should not."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest
import structlog

from jand.api.routes import ROUTES
from jand.api.settings import ApiSettings
from tests.fakes.api import Answer, ServedApi, exchange

if TYPE_CHECKING:
    from tests.fakes.manager import FakeManager

PATHS = sorted({route.path for route in ROUTES})
SMALL = ApiSettings(max_body=1_000, max_inference_body=2_000)


@pytest.mark.parametrize(
    "path", ["/index.html", "/page", "/v1", "/v1/", "/v1/models/", "/v2/models", "/metricsx", "/v1/models%2Fa", "/%ff"]
)
async def test_an_unknown_path_is_404(api: ServedApi, path: str) -> None:
    answer = await api.ask("GET", path)

    assert answer.status == 404
    assert answer.error["code"] == "unknown-route"


@pytest.mark.parametrize("path", PATHS)
async def test_a_method_that_a_path_does_not_take_is_405_and_names_those_it_does(api: ServedApi, path: str) -> None:
    answer = await api.ask("PATCH", path.replace("{id}", "a"))

    assert answer.status == 405
    assert answer.error["code"] == "method-not-allowed"
    methods = {route.method for route in ROUTES if route.path == path}
    assert methods <= set(answer.headers["Allow"].split(", "))


@pytest.mark.parametrize("path", [path for path in PATHS if "{id}" in path])
async def test_a_model_that_is_not_there_is_404_everywhere(api: ServedApi, path: str) -> None:
    for route in ROUTES:
        if route.path == path:
            body = {"id": "copy"} if path.endswith("/copy") else None
            answer = await api.ask(route.method, path.replace("{id}", "nothing"), body)
            assert (answer.status, answer.error["code"]) == (404, "model-not-found")


@pytest.mark.parametrize(
    ("verb", "method", "path"),
    [
        ("list", "GET", "/v1/models"),
        ("start", "PUT", "/v1/models/a/start"),
        ("stop", "PUT", "/v1/models/a/stop"),
        ("delete", "DELETE", "/v1/models/a"),
        ("problems", "GET", "/v1/problems"),
        ("rescan", "POST", "/v1/rescan"),
        ("use", "POST", "/v1/chat/completions"),
    ],
)
async def test_an_unexpected_fault_is_a_500_with_an_id_that_finds_it_in_the_log(
    api: ServedApi, manager: FakeManager, verb: str, method: str, path: str
) -> None:
    manager.add("a")
    manager.refuse(verb, KeyError("secret detail"))

    with structlog.testing.capture_logs() as logs:
        answer = await api.ask(method, path, {"model": "a"} if method == "POST" else None)

    assert answer.status == 500
    assert answer.error["code"] == "internal-error"
    assert b"secret detail" not in answer.body
    assert b"Traceback" not in answer.body
    (line,) = [line for line in logs if line["log_level"] == "error"]
    assert f"(id {line['id']})" in answer.error["message"]
    assert isinstance(line["exc_info"], KeyError)
    assert (await api.ask("GET", "/health")).status == 200


@pytest.mark.parametrize(
    ("method", "path", "size"),
    [("PUT", "/v1/models/a/start", 1_001), ("POST", "/v1/chat/completions", 2_001), ("POST", "/v1/embeddings", 2_001)],
)
@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_over_the_limit_is_413_whether_announced_or_not(
    manager: FakeManager, method: str, path: str, size: int, announced: bool
) -> None:
    manager.add("a")

    async with ServedApi(manager, SMALL) as api:
        reader, writer = await asyncio.open_unix_connection(str(api.socket))
        if announced:
            answer = await exchange(reader, writer, method, path, b"x" * size)
        else:
            chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (size, b"x" * size)
            writer.write(
                b"%s %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % (method.encode(), path.encode())
            )
            writer.write(chunked)
            head, _, body = (await reader.read()).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 413 ")
            assert json.loads(body)["error"]["code"] == "body-too-large"
            writer.close()
            return
        writer.close()

    assert answer.status == 413
    assert answer.error["code"] == "body-too-large"


async def test_a_huge_announced_body_is_refused_before_it_comes(manager: FakeManager) -> None:
    async with ServedApi(manager, SMALL) as api:
        reader, writer = await asyncio.open_unix_connection(str(api.socket))
        writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        writer.close()

    assert head.startswith(b"HTTP/1.1 413 ")


async def test_a_packed_body_is_limited_by_its_unpacked_size(manager: FakeManager) -> None:
    """A bomb: 200 kB of zeros that come as some 200 bytes."""
    import zlib

    manager.add("a")
    packed = zlib.compress(b'{"model": "' + b"0" * 200_000)
    async with ServedApi(manager, SMALL) as api:
        answer = await api.ask("POST", "/v1/chat/completions", packed, headers={"Content-Encoding": "deflate"})

    assert len(packed) < 1_000
    assert answer.status == 413


@pytest.mark.parametrize("packing", ["br", "zstd", "x-foo", "gzip, br", "compress"])
@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions"])
async def test_a_packing_that_nobody_unpacks_is_415_and_says_which_are(api: ServedApi, packing: str, path: str) -> None:
    answer = await raw(api, path, b"Content-Encoding: %s\r\nContent-Length: 2" % packing.encode(), b"{}")

    assert (answer.status, answer.error["code"]) == (415, "unsupported-media-type")
    assert "gzip or deflate" in answer.error["message"]
    assert "install" not in answer.error["message"]


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"Content-Encoding: gzip\r\nContent-Length: 10", b"no gzip!!!"),
        (b"Content-Encoding: deflate\r\nContent-Length: 10", b"no deflate"),
        (b"Transfer-Encoding: chunked", b"zz\r\nabc\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked", b"-1\r\nabc\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked", b"3\r\nabcdef\r\n0\r\n\r\n"),
        (b"Transfer-Encoding: chunked\r\nContent-Length: 3", b"3\r\nabc\r\n0\r\n\r\n"),
        (b"Content-Length: +3", b"abc"),
        (b"Content-Length: 3\r\nContent-Length: 4", b"abc"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions"])
async def test_a_body_that_breaks_its_own_rules_is_a_400_and_no_traceback(
    api: ServedApi, head: bytes, body: bytes, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await raw(api, path, head, body)

    assert (answer.status, answer.error["code"]) == (400, "bad-request")
    assert answer.error["message"].startswith("cannot read the ")
    assert "\n" not in answer.error["message"]
    assert [record for record in caplog.records if record.exc_info] == []


async def raw(api: ServedApi, path: str, head: bytes, body: bytes) -> Answer:
    """Ask with a head and a body of one's own."""
    reader, writer = await asyncio.open_unix_connection(str(api.socket))
    writer.write(b"POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n\r\n%s" % (path.encode(), head, body))
    first, _, content = (await asyncio.wait_for(reader.read(), 5)).partition(b"\r\n\r\n")
    writer.close()
    lines = [line.decode().partition(": ") for line in first.split(b"\r\n")[1:]]
    return Answer(int(first.split(b" ")[1]), {name: value for name, _, value in lines}, content)


@pytest.mark.parametrize("length", ["3", "chunked"])
async def test_a_body_that_breaks_off_hurts_nobody(api: ServedApi, manager: FakeManager, length: str) -> None:
    manager.add("a")
    framing = b"Transfer-Encoding: chunked" if length == "chunked" else b"Content-Length: 50"
    _, writer = await asyncio.open_unix_connection(str(api.socket))
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n5\r\n{" % framing)
    await writer.drain()
    writer.close()

    assert (await api.ask("GET", "/health")).status == 200
    assert manager.asked == []


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", "bad-json", None),
        (b"{", "bad-json", None),
        (b"\xff\xfe", "bad-json", None),
        (b"[" * 500_000, "bad-json", None),
        (b'{"a": 1' + b"0" * 5_000 + b"}", "bad-json", None),
        (b'["model"]', "bad-json", None),
        (b"{}", "bad-request", "model"),
        (b'{"model": null}', "bad-request", "model"),
        (b'{"model": 3}', "bad-request", "model"),
        (b'{"model": ""}', "bad-request", "model"),
        (b'{"model": "a", "model": 3}', "bad-request", "model"),
    ],
)
async def test_an_inference_body_must_name_a_model(
    api: ServedApi, manager: FakeManager, body: bytes, code: str, param: str | None
) -> None:
    manager.add("a")

    answer = await api.ask("POST", "/v1/chat/completions", body)

    assert answer.status == 400
    assert (answer.error["code"], answer.error["param"]) == (code, param)
    assert manager.asked == []


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"])
async def test_an_unknown_model_is_openais_404(api: ServedApi, manager: FakeManager, path: str) -> None:
    manager.add("zephyr")

    answer = await api.ask("POST", path, {"model": "zephir"})

    assert answer.status == 404
    assert answer.error["param"] == "model"
    assert answer.error["code"] == "model-not-found"
    assert '"zephyr"' in answer.error["message"]


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /health HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/9.9\r\nHost: x\r\n\r\n",
        b"no http at all\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nBad Header: 1\r\n\r\n",
        b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 10_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_what_is_no_http_is_answered_in_the_same_shape(api: ServedApi, request_bytes: bytes) -> None:
    reader, writer = await asyncio.open_unix_connection(str(api.socket))
    writer.write(request_bytes)
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()

    assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert json.loads(body)["error"]["code"] == "bad-request"
    assert b"Traceback" not in body


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/m/copy", "/nothing"])
@pytest.mark.parametrize("expected", [b"200-ok", b"200-\x80\xff"])
async def test_an_expectation_that_nobody_knows_is_refused(api: ServedApi, path: str, expected: bytes) -> None:
    """Whatever bytes it is made of: RFC 9110, 10.1.1, allows 417."""
    reader, writer = await asyncio.open_unix_connection(str(api.socket))
    writer.write(
        f"GET {path} HTTP/1.1\r\nHost: jand\r\nConnection: close\r\nExpect: ".encode() + expected + b"\r\n\r\n"
    )
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()

    assert head.split()[1] in {b"400", b"417"}
    assert json.loads(body)["error"]["code"] == "bad-request"
