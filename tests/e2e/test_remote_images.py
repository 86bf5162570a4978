"""Images that requests name by address: fetched by the daemon where a setting allows it, by the rules of downloads, and never by a worker."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from aiohttp import web

from tests.fakes import gguf_files
from tests.fakes.asking import CHAT
from tests.fakes.daemon import DaemonProcess
from tests.fakes.drawing import data_uri, draw

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

PICTURE = draw(40, 60)


class Gallery:
    """A web server on loopback; *asked* has the paths of all requests."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.base = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        match request.path:
            case "/picture.png":
                return web.Response(body=PICTURE)
            case "/moved":
                raise web.HTTPFound("/picture.png")
            case "/page":
                return web.Response(text="<html></html>")
            case "/endless":
                response = web.StreamResponse()
                await response.prepare(request)
                while True:
                    await response.write(bytes(1 << 20))
            case _:
                raise web.HTTPNotFound


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def gallery() -> AsyncIterator[Gallery]:
    made = Gallery()
    app = web.Application()
    app.router.add_get("/{path:.*}", made.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


def install(root: Path) -> None:
    folder = root / "models" / "seeing"
    folder.mkdir(parents=True)
    gguf_files.tiny_llama(folder / "weights.gguf")
    gguf_files.projector(folder / "mmproj.gguf")
    (folder / "seeing.json").write_text(json.dumps({"origin": "tests/x", "parameters": {"init": {"ctx_len": 512}}}))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def daemon(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DaemonProcess]:
    root = tmp_path_factory.mktemp("janroot")
    install(root)
    environ = {"JAND_REMOTE_IMAGES": "true", "JAND_DOWNLOAD__ALLOW_PRIVATE": "127.0.0.1"}
    async with DaemonProcess(root, environ=environ) as running:
        await running.until_state("seeing", "downloaded")
        yield running


def asking(*urls: str) -> dict[str, Any]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    content = [{"type": "text", "text": "hello"}, *parts, {"type": "text", "text": "a"}]
    return {"model": "seeing", "max_tokens": 4, "temperature": 0, "messages": [{"role": "user", "content": content}]}


async def test_fetched_image_is_the_one_that_could_have_been_sent(daemon: DaemonProcess, gallery: Gallery) -> None:
    sent = await daemon.call("POST", CHAT, asking(data_uri(PICTURE)))
    for path in ("/picture.png", "/moved"):
        fetched = await daemon.call("POST", CHAT, asking(gallery.base + path))
        assert fetched["choices"][0]["message"] == sent["choices"][0]["message"]
        assert fetched["timings"]["image_encoded_n"] == 0, "it is known by its content"
    gallery.asked.clear()
    await daemon.call("POST", CHAT, asking(*[gallery.base + "/picture.png"] * 3))
    assert gallery.asked == ["/picture.png"], "one address is fetched once"


async def test_responses_name_images_too(daemon: DaemonProcess, gallery: Gallery) -> None:
    content = [{"type": "input_image", "image_url": gallery.base + "/picture.png"}]
    body = {"model": "seeing", "max_output_tokens": 2, "input": [{"role": "user", "content": content}]}
    answer = await daemon.call("POST", "/v1/responses", body)
    assert answer["timings"]["image_n"] == 1


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/nothing", "its server answers 404"),
        ("/page", "it is none of PNG"),
        ("/endless", "more than 20 MiB"),
        (":1/", "cannot reach"),
    ],
)
async def test_what_cannot_be_had_is_refused_with_its_place(
    daemon: DaemonProcess, gallery: Gallery, path: str, said: str
) -> None:
    url = gallery.base + path if path.startswith("/") else f"http://127.0.0.1{path}"
    answer = await daemon.call("POST", CHAT, asking(data_uri(PICTURE), url), status=400)
    assert said in answer["error"]["message"]
    assert answer["error"]["param"] == "messages"
    assert "messages[0].content[2]" in answer["error"]["message"]


async def test_private_addresses_are_for_those_who_allow_them(daemon: DaemonProcess) -> None:
    for url in ("http://127.0.0.2/a.png", "http://[::1]/a.png", "http://169.254.169.254/latest/meta-data"):
        answer = await daemon.call("POST", CHAT, asking(url), status=400)
        assert "private address" in answer["error"]["message"]


async def test_too_many_addresses_are_not_fetched_at_all(daemon: DaemonProcess, gallery: Gallery) -> None:
    gallery.asked.clear()
    answer = await daemon.call("POST", CHAT, asking(*(f"{gallery.base}/{n}" for n in range(17))), status=400)
    assert "more than 16" in answer["error"]["message"]
    assert gallery.asked == []


async def test_nothing_is_fetched_by_default(tmp_path: Path, gallery: Gallery) -> None:
    install(tmp_path)
    gallery.asked.clear()
    async with DaemonProcess(tmp_path, environ={"JAND_DOWNLOAD__ALLOW_PRIVATE": "true"}) as daemon:
        await daemon.until_state("seeing", "downloaded")
        answer = await daemon.call("POST", CHAT, asking(gallery.base + "/picture.png"), status=400)
    assert "remote_images" in answer["error"]["message"]
    assert gallery.asked == []
