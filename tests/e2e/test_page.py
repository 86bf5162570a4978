"""The page in a real browser, with a real daemon and a real model: what a person does with it, by mouse, by keyboard, on a phone, with a token."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.fakes import gguf_files
from tests.fakes.browser import (
    CONTRAST,
    NAMELESS,
    PHONE,
    Chromium,
    address_of,
    drop,
    focused,
    live,
    overflowing,
    until_focused,
)
from tests.fakes.daemon import DaemonProcess
from tests.fakes.hub import FakeHub
from tests.fakes.hub_files import MIB, gguf_bytes
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from playwright.async_api import Page

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(90),
    pytest.mark.needs("chromium"),
]

expect.set_options(timeout=20_000)

TOKEN = "corréct horse"
REPOSITORY = "TheBloke/tiny-GGUF"
VARIANTS = {
    f"tiny.{name}.gguf": gguf_bytes(MIB * size, size) for name, size in {"Q2_K": 1, "Q4_K_M": 2, "Q8_0": 4}.items()
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Chromium]:
    async with Chromium() as browser:
        yield browser


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hub() -> AsyncIterator[FakeHub]:
    async with FakeHub() as served:
        served.add(REPOSITORY, VARIANTS)
        yield served


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def daemon(hub: FakeHub, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DaemonProcess]:
    """One daemon for the tests that keep to models of their own."""
    environ = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "JAND_DOWNLOAD__MIN_FREE": "0"}
    flags = ("--settle", "0.2", "--no-reuse", "--listen", "127.0.0.1:0")
    async with DaemonProcess(tmp_path_factory.mktemp("page"), *flags, environ=environ) as running:
        yield running


def place_smollm2(models: Path, name: str) -> None:
    """Give *models* the real model by a link; no 98 MB are copied."""
    (models / name).mkdir(parents=True)
    (models / name / f"{name}.gguf").symlink_to(gguf_files.smollm2())
    (models / name / f"{name}.json").write_text(json.dumps({"origin": "HuggingFaceTB/SmolLM2"}))


def row(page: Page, model: str) -> str:
    return f'#models > li[data-model="{model}"]'


async def test_a_drop_shows_by_itself_and_is_started_asked_stopped_and_deleted(
    chromium: Chromium, daemon: DaemonProcess
) -> None:
    async with chromium.page(await address_of(daemon)) as page:
        await live(page)
        place_smollm2(daemon.models, "story")
        story = page.locator(row(page, "story"))
        await expect(story).to_contain_text("Ready")
        await expect(story).to_contain_text("135 M parameters · Q4_1 · 98.4 MB")
        await story.get_by_role("button", name="Start").click()
        await expect(story).to_contain_text("Running")
        await expect(story).to_contain_text(re.compile(r"uses \d+ MB of memory"))

        await story.get_by_role("button", name="Chat").click()
        await page.get_by_text("Instructions and parameters").click()
        await page.get_by_label("Temperature").fill("0")
        await page.get_by_role("textbox", name="Message").fill(
            "What is the capital of France? Answer in one short sentence."
        )
        await page.get_by_role("button", name="Send").click()
        answer = page.get_by_role("article", name="story")
        await expect(answer).to_contain_text("Paris")
        await expect(answer).to_contain_text(re.compile(r"\d+ tokens, \d+ a second"))

        await page.get_by_role("textbox", name="Message").fill("Tell me a very long story about a lighthouse keeper.")
        await page.keyboard.press("Enter")
        second = page.get_by_role("article", name="story").nth(1)
        await expect(second.locator(".said")).to_contain_text(re.compile(r"\w+ \w+ \w+"))
        await page.get_by_role("button", name="Stop").click()
        await expect(second).to_contain_text("stopped")
        await expect(page.get_by_role("button", name="Send")).to_be_visible()

        await page.get_by_role("link", name="Models").click()
        await story.get_by_role("button", name="Stop").click()
        await expect(story).to_contain_text("Ready")
        assert not daemon.workers()
        await story.get_by_role("button", name="Delete").click()
        dialog = page.get_by_role("dialog", name="Delete story?")
        await expect(dialog).to_contain_text("story.gguf, 98.4 MB")
        await dialog.get_by_role("button", name="Cancel").click()
        await expect(story).to_be_visible()
        await story.get_by_role("button", name="Delete").click()
        await dialog.get_by_role("button", name="Delete").click()
        await expect(story).to_have_count(0)
        assert not (daemon.models / "story" / "story.json").exists()
        await expect(page.locator("#notes")).to_contain_text("story.gguf")  # a link stays, and the page says why


async def test_a_problem_shows_with_file_and_line_until_it_is_mended(chromium: Chromium, daemon: DaemonProcess) -> None:
    async with chromium.page(await address_of(daemon), path="/#problems") as page:
        await live(page)
        await expect(page.get_by_role("heading", name="Nothing is wrong")).to_be_visible()
        (daemon.models / "wrong").mkdir()
        file = daemon.models / "wrong" / "wrong.json"
        file.write_text('{\n  "origin": "a/b"\n  "id": "x"\n}')
        problems = page.get_by_role("list", name="Problems")
        await expect(problems).to_contain_text("models/wrong/wrong.json:2:18")
        await expect(problems).to_contain_text("put a comma after the value on line 2")
        await expect(page.get_by_role("link", name=re.compile("Problems"))).to_contain_text("1")
        shutil.rmtree(daemon.models / "wrong")
        await expect(page.get_by_role("heading", name="Nothing is wrong")).to_be_visible()


async def test_files_and_folders_that_are_dropped_arrive(
    chromium: Chromium, daemon: DaemonProcess, tmp_path: Path
) -> None:
    lone = gguf_files.tiny_llama(tmp_path / "lone wolf.gguf")[0]
    folder = tmp_path / "pack"
    (folder / "sub").mkdir(parents=True)
    gguf_files.tiny_llama(folder / "sub" / "weights.gguf")
    (folder / "pack.json").write_text(json.dumps({"origin": "me/pack", "download_url": "sub/weights.gguf"}))
    (folder / "README.md").write_text("# Read me")
    (folder / "config.json").write_text("{}")
    (tmp_path / "page.gguf").write_text("<!doctype html><title>Log in</title>" * 99)
    async with chromium.page(await address_of(daemon), refusals=True) as page:
        await live(page)
        await drop(page, lone, folder)
        await expect(page.locator(row(page, "lone wolf"))).to_contain_text("Ready")
        await expect(page.locator(row(page, "pack"))).to_contain_text("Ready")
        assert (daemon.models / "lone wolf" / "lone wolf.gguf").read_bytes() == lone.read_bytes()
        assert sorted(path.name for path in (daemon.models / "pack").iterdir()) == ["pack.json", "sub"]
        await expect(page.locator("#notes")).to_contain_text("2 files left out")

        await drop(page, tmp_path / "page.gguf", lone)
        uploads = page.locator("#uploads")
        await expect(uploads).to_contain_text("a web page")
        await expect(uploads).to_contain_text("there is a file of that name, and none is ever replaced")
        assert not (daemon.models / "page").exists()

        await page.locator("#folder").set_input_files(folder)
        await expect(uploads.get_by_role("alert").filter(has_text="pack/sub/weights.gguf")).to_be_visible()


async def test_an_upload_that_is_cancelled_leaves_nothing(
    chromium: Chromium, daemon: DaemonProcess, tmp_path: Path
) -> None:
    with (tmp_path / "big.gguf").open("wb") as sparse:
        sparse.truncate(8 << 30)
    async with chromium.page(await address_of(daemon)) as page:
        await live(page)
        await drop(page, tmp_path / "big.gguf")
        await expect(page.locator("#uploads")).to_contain_text("MB/s")
        await page.get_by_role("button", name="Cancel big/big.gguf").click()
        await expect(page.locator("#uploads-box")).to_be_hidden()
    await daemon.until_state("big", None)
    await until(lambda: not (daemon.models / "big").exists(), what="the remains to be gone")


async def test_a_download_shows_its_progress_and_is_paused_and_gone_on_with(
    chromium: Chromium, daemon: DaemonProcess, hub: FakeHub
) -> None:
    hub.rate = 200_000
    async with chromium.page(await address_of(daemon)) as page:
        await live(page)
        await page.get_by_role("textbox", name="From the hub, or an address").fill(f"{REPOSITORY}:Q4_K_M")
        await page.get_by_role("button", name="Look").click()
        await page.get_by_role("button", name="Download 2.1").click()
        tiny = page.locator(row(page, "tiny-Q4_K_M"))
        await expect(tiny).to_contain_text(
            re.compile(r"Downloading.*%, .* of 2\.10 MB · \d+ kB/s · \d+ s left", re.DOTALL)
        )
        await expect(tiny.get_by_role("progressbar")).to_be_visible()
        await tiny.get_by_role("button", name="Pause").click()
        await expect(tiny).to_contain_text("Paused")
        hub.rate = None
        await tiny.get_by_role("button", name="Resume").click()
        await expect(tiny).to_contain_text("Ready")


async def test_the_catalogue_and_the_hub_show_what_fits(
    chromium: Chromium, daemon: DaemonProcess, hub: FakeHub
) -> None:
    (daemon.root / "catalog").mkdir(exist_ok=True)
    entry = {"origin": REPOSITORY, "metadata": {"description": "A very small one", "license": "mit"}}
    (daemon.root / "catalog" / "very-small.json").write_text(json.dumps(entry))
    async with chromium.page(await address_of(daemon), path="/#catalogue") as page:
        offer = page.get_by_role("listitem").filter(has_text="very-small")
        await expect(offer).to_contain_text("A very small one")
        await expect(offer).to_contain_text("fits the memory")
        await offer.get_by_role("button", name="Add very-small").click()
        await expect(page.locator(row(page, "very-small"))).to_contain_text("Ready")
        await page.get_by_role("link", name="Catalogue").click()
        await expect(offer.get_by_role("button")).to_have_text("Added")
        await page.get_by_role("searchbox", name="Search the hub").fill("tiny")
        await page.keyboard.press("Enter")
        hit = page.get_by_role("list", name="On the hub").get_by_role("listitem")
        await expect(hit).to_contain_text(REPOSITORY)
        await expect(hit.get_by_role("row").filter(has_text="suits best")).to_contain_text("fits the memory")


async def test_it_goes_on_when_the_daemon_comes_back(chromium: Chromium, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with DaemonProcess(tmp_path, "--no-adopt", "--listen", f"127.0.0.1:{port}") as daemon:
        (tmp_path / "models" / "before.json").write_text('{"origin": "a/before"}')
        async with chromium.page(await address_of(daemon), refusals=True) as page:
            await expect(page.locator(row(page, "before"))).to_be_visible()
            daemon.signal(signal.SIGKILL)
            await daemon.wait()
            await expect(page.locator("#connection")).to_contain_text("Connection lost")
            (tmp_path / "models" / "before.json").unlink()
            (tmp_path / "models" / "after.json").write_text('{"origin": "a/after"}')
            daemon.spawn()
            await expect(page.locator(row(page, "after"))).to_be_visible()
            await expect(page.locator(row(page, "before"))).to_have_count(0)
            await expect(page.locator("#connection")).to_contain_text("Live")


async def test_the_token_is_asked_for_sent_and_kept_for_the_tab_alone(chromium: Chromium, tmp_path: Path) -> None:
    flags = ("--settle", "0.2", "--listen", "127.0.0.1:0")
    async with DaemonProcess(tmp_path / "root", *flags, environ={"JAND_TOKEN": TOKEN}) as daemon:
        gguf_files.tiny_llama(tmp_path / "sent.gguf")
        address = await address_of(daemon)
        async with chromium.page(address, refusals=True) as page:
            dialog = page.get_by_role("dialog", name="This daemon asks for its token")
            await expect(dialog).to_be_visible()
            await page.keyboard.press("Escape")
            await expect(dialog).to_be_visible()
            await page.keyboard.type("wrong")
            await page.keyboard.press("Enter")
            await expect(dialog.get_by_role("alert")).to_contain_text("not the daemon\u2019s token")
            assert await page.locator("#models > li").count() == 0
            await dialog.get_by_label("Token").fill(TOKEN)
            await page.keyboard.press("Enter")
            await live(page)
            await expect(dialog).to_be_hidden()
            await drop(page, tmp_path / "sent.gguf")
            await expect(page.locator(row(page, "sent"))).to_contain_text("Ready")
            await page.reload()
            await expect(page.locator(row(page, "sent"))).to_contain_text("Ready")
            assert await page.evaluate("() => localStorage.length + document.cookie.length") == 0
        async with chromium.page(address, refusals=True) as page:
            await expect(page.get_by_role("dialog")).to_be_visible()
        assert TOKEN not in daemon.log()


async def test_everything_can_be_done_by_keyboard(chromium: Chromium, daemon: DaemonProcess) -> None:
    gguf_files.tiny_llama(daemon.models / "keys.gguf")
    async with chromium.page(await address_of(daemon)) as page:
        keys = page.locator(row(page, "keys"))
        await expect(keys).to_contain_text("Ready")
        await page.keyboard.press("Tab")
        await until_focused(page, "Skip to content")
        await page.get_by_role("searchbox").or_(page.locator("#main-content")).first.focus()

        async def tab_to(name: str) -> None:
            for _ in range(80):
                await page.keyboard.press("Tab")
                if await focused(page) == name:
                    return
            raise AssertionError(name)

        await tab_to("Start keys")
        await page.keyboard.press("Enter")
        await expect(keys).to_contain_text("Running")
        await until_focused(page, "Stop keys")
        await expect(page.locator("#announcements")).to_have_text("keys: Running")
        await page.keyboard.press("Shift+Tab")
        await until_focused(page, "Chat with keys")
        await page.keyboard.press("Space")
        await expect(page.get_by_role("textbox", name="Message")).to_be_focused()
        await page.keyboard.type("One")
        await page.keyboard.press("Shift+Enter")
        await page.keyboard.type("two")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("article", name="You")).to_have_text(re.compile("One\ntwo"))
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("log")).to_have_attribute("aria-busy", "false")
        await page.get_by_role("link", name="Models").focus()
        await page.keyboard.press("Enter")
        await until_focused(page, "models-title")
        await tab_to("Stop keys")
        await page.keyboard.press("Enter")
        await expect(keys).to_contain_text("Ready")
        await tab_to("Delete keys")
        await page.keyboard.press("Enter")
        await until_focused(page, "delete-cancel")
        await page.keyboard.press("Escape")
        await until_focused(page, "Delete keys")
        await page.keyboard.press("Enter")
        await page.keyboard.press("Tab")
        await until_focused(page, "delete-confirm")
        await page.keyboard.press("Enter")
        await expect(keys).to_have_count(0)
        # Where the row was: on a neighbour's button, or on the title where there is none.
        await page.wait_for_function("document.activeElement.closest('#models button, #models-title') !== null")
    assert not (daemon.models / "keys.gguf").exists()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_every_view_is_legible_named_and_fits_a_phone(
    chromium: Chromium, daemon: DaemonProcess, *, dark: bool
) -> None:
    folder = daemon.models / "a-model-with-quite-a-long-name-that-has-no-place-to-break-Q4_K_M"
    folder.mkdir(exist_ok=True)
    (folder / f"{folder.name}.json").write_text('{"origin": "nobody/nothing-of-that-name-is-there-GGUF", "extra": 1}')
    async with chromium.page(await address_of(daemon), size=PHONE, dark=dark) as page:
        await live(page)
        await expect(page.locator(row(page, folder.name))).to_contain_text("Waiting")
        await page.locator("summary").first.click()
        for view in ("Models", "Chat", "Catalogue", "Problems"):
            await page.get_by_role("link", name=view).first.click()
            await expect(page.get_by_role("heading", level=1)).to_have_text(view)
            assert await page.get_by_role("heading", level=1).count() == 1
            assert not await overflowing(page), view
            assert not await page.evaluate(CONTRAST), view
            assert not await page.evaluate(NAMELESS), view
        ground = await page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(21, 23, 21)" if dark else "rgb(251, 250, 247)")


TAGS = {"a", "blockquote", "br", "button", "code", "del", "div", "em", "h3", "li", "ol", "p", "pre", "strong"} | {
    *("table", "tbody", "td", "th", "thead", "tr", "ul")
}
HOSTILE = """# <img src=x onerror=alert(1)>
<script>alert(1)</script> **<b onclick=alert(1)>bold</b>** [a](javascript:alert(1)) [b](data:text/html,x)
[c](https://example.com/a"onmouseover="alert(1)) <https://example.com/x> `<i>code</i>`
![d](https://example.com/p.png) [e](/v1/models) [f](//example.com) [g](vbscript:x)

```js"><script>
</code></pre><script>alert(1)</script>
```

| <u>a</u> | b |
|---|---|
| <svg onload=alert(1)> | `c` |

1. one
   - two
2. *three* and __four__ and ~~five~~

> quoted <iframe src=x>
"""


async def test_nothing_that_a_model_says_becomes_markup(chromium: Chromium, daemon: DaemonProcess) -> None:
    async with chromium.page(await address_of(daemon)) as page:
        shown = await page.evaluate(
            """async (text) => {
                const { render } = await import("/page/markdown.js");
                const box = document.createElement("div");
                box.append(render(text));
                const all = [...box.querySelectorAll("*")];
                return {
                    tags: [...new Set(all.map((node) => node.tagName.toLowerCase()))].sort(),
                    attributes: [...new Set(all.flatMap((node) => node.getAttributeNames()))].sort(),
                    links: [...box.querySelectorAll("a")].map((node) => [node.href, node.rel]),
                    text: box.textContent,
                };
            }""",
            HOSTILE,
        )
        assert set(shown["tags"]) <= TAGS
        assert set(shown["attributes"]) <= {"href", "rel", "target", "title", "class", "type", "start"} | {
            *("tabindex", "role", "aria-label")
        }
        assert all(re.match(r"https://example\.com/", link) and "noopener" in rel for link, rel in shown["links"])
        assert "<script>alert(1)</script>" in shown["text"]
        assert {"ol", "ul", "table", "blockquote", "pre", "em", "strong", "del"} <= set(shown["tags"])

        slowest = await page.evaluate(
            """async () => {
                const { render } = await import("/page/markdown.js");
                const texts = ["*", "**", "`", "``", "_", "__", "~~", "[", "](", "> ", "- ", "|-", "\\n    - ", "#"].map((piece) => piece.repeat(20000 / piece.length));
                texts.push("[a](" .repeat(5000), "**a ".repeat(5000), "`a``".repeat(5000), "*a **b ".repeat(3000));
                return Math.max(...texts.map((text) => { const began = performance.now(); render(text); return performance.now() - began; }));
            }"""
        )
        assert slowest < 5000  # an answer that is meant to hang the page does not


async def test_an_answer_that_fails_says_why_and_is_tried_again(chromium: Chromium, daemon: DaemonProcess) -> None:
    gguf_files.tiny_llama(daemon.models / "flaky.gguf")
    async with chromium.page(await address_of(daemon), path="/#chat/flaky", refusals=True) as page:
        await expect(page.get_by_role("combobox", name="Model")).to_have_value("flaky")
        await page.get_by_text("Instructions and parameters").click()
        await page.get_by_label("Instructions", exact=True).fill("Be brief.")
        await page.get_by_label("Temperature").fill("-1")
        await page.get_by_label("Longest answer, tokens").fill("5")
        await page.get_by_role("textbox", name="Message").fill("Hello")
        await page.keyboard.press("Enter")
        answer = page.get_by_role("article", name="flaky")
        await expect(answer).to_contain_text("temperature")
        await page.get_by_label("Temperature").fill("0.5")
        await answer.get_by_role("button", name="Try again").click()
        await expect(page.get_by_role("article", name="flaky")).to_contain_text("cut at the longest answer")
        await page.get_by_role("button", name="New chat").click()
        await expect(page.get_by_role("article")).to_have_count(0)
