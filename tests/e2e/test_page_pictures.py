"""Pictures of the page in each of its states: what must be to be seen in them is compared, and `make screenshots` keeps them to be looked at."""

from __future__ import annotations

import json
import re
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from playwright.async_api import expect

from tests.fakes import gguf_files
from tests.fakes.browser import DESK, PHONE, Chromium, address_of, live, overflowing, picture
from tests.fakes.daemon import DaemonProcess
from tests.fakes.hub import FakeHub
from tests.fakes.hub_files import MIB, gguf_bytes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Locator, Page

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(90),
    pytest.mark.needs("chromium"),
]

expect.set_options(timeout=20_000)

QUESTION = "What is the capital of France? Answer in one short sentence."
BROKEN = '{\n  "origin": "TheBloke/zephyr-7B-beta-GGUF"\n  "import_format": "thebloke"\n}\n'


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Take every look where the pictures are kept, else one of each size and colour."""
    if "look" in metafunc.fixturenames:
        kept = metafunc.config.getoption("--pictures")
        metafunc.parametrize("look", ["desk", "desk-dark", "phone", "phone-dark"] if kept else ["desk", "phone-dark"])


@pytest.fixture(scope="session")
def pictures(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    wanted = pytestconfig.getoption("--pictures")
    folder = Path(wanted) if wanted else tmp_path_factory.mktemp("pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium() -> AsyncIterator[Chromium]:
    async with Chromium() as browser:
        yield browser


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def busy(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Serve a root in which something of everything is: running, arriving, waiting, remote, wrong. Yields the page's address."""
    root = tmp_path_factory.mktemp("busy")
    async with FakeHub() as hub:
        hub.add("TheBloke/zephyr-7B-beta-GGUF", {"zephyr-7b-beta.Q4_K_M.gguf": gguf_bytes(8 * MIB, 1)})
        hub.add("Qwen/Qwen3-0.6B-GGUF", {f"Qwen3-0.6B-{name}.gguf": gguf_bytes(MIB, 2) for name in ("Q4_K_M", "Q8_0")})
        fill(root)
        environ = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0", "JAND_DOWNLOAD__MIN_FREE": "0"}
        environ["JAND_DOWNLOAD__BANDWIDTH_LIMIT"] = "100000"
        flags = ("--settle", "0.1", "--no-reuse", "--listen", "127.0.0.1:0")
        async with DaemonProcess(root, *flags, environ=environ) as daemon:
            await daemon.call("PUT", "/v1/models/smollm2-135m/start")
            yield await address_of(daemon)


def fill(root: Path) -> None:
    def place(name: str, spec: dict[str, object] | str) -> None:
        (root / "models" / name).mkdir(parents=True)
        text = spec if isinstance(spec, str) else json.dumps(spec, indent=2)
        (root / "models" / name / f"{name}.json").write_text(text)

    runtime = {"temperature": 0, "max_tokens": 60}
    init = {"ctx_len": 2048, "n_parallel": 1}
    place("smollm2-135m", {"origin": "HuggingFaceTB/SmolLM2-135M", "parameters": {"init": init, "runtime": runtime}})
    (root / "models" / "smollm2-135m" / "SmolLM2-135M-Instruct.Q4_1.gguf").symlink_to(gguf_files.smollm2())
    place("zephyr-7b", {"origin": "TheBloke/zephyr-7B-beta-GGUF", "import_format": "thebloke"})
    place("gpt-4-turbo", {"origin": "https://api.openai.com/v1", "import_format": "openai"})
    place("nowhere-7b", {"origin": "nobody/nowhere-7B-GGUF"})
    place("broken", BROKEN)
    (root / "catalog").mkdir()
    described = {"description": "A small model that answers quickly, in 119 languages", "license": "apache-2.0"}
    entry = {"origin": "Qwen/Qwen3-0.6B-GGUF", "metadata": described}
    (root / "catalog" / "qwen3-0.6b.json").write_text(json.dumps(entry))


@asynccontextmanager
async def view(chromium: Chromium, address: str, name: str, look: str) -> AsyncIterator[Page]:
    size = PHONE if look.startswith("phone") else DESK
    path = f"/#{name}"
    # Catalogues hold repositories that the stand-in hub does not have, which is no fault of the page.
    async with chromium.page(address, size=size, dark="dark" in look, path=path) as page:
        await live(page)
        yield page
        assert not await overflowing(page)


async def shown_in_window(*things: Locator) -> None:
    """Hold each to being within what the picture shows, and not only somewhere on the page."""
    for thing in things:
        await expect(thing).to_be_in_viewport()


async def test_empty(chromium: Chromium, tmp_path: Path, pictures: Path) -> None:
    async with (
        DaemonProcess(tmp_path, "--listen", "127.0.0.1:0") as daemon,
        view(chromium, await address_of(daemon), "models", "desk") as page,
    ):
        await expect(page.locator("#folder-name")).to_have_text(str(tmp_path / "models"))
        await shown_in_window(
            page.get_by_role("heading", name="No models yet"),
            page.get_by_role("main").get_by_role("link", name="catalogue"),
            page.get_by_role("button", name="Choose files…"),
            page.get_by_text("Live", exact=True),
        )
        await picture(page, pictures / "empty.png")


async def test_models_running_and_arriving(chromium: Chromium, busy: str, pictures: Path, look: str) -> None:
    async with view(chromium, busy, "models", look) as page:
        running = page.locator('li[data-model="smollm2-135m"]')
        arriving = page.locator('li[data-model="zephyr-7b"]')
        waiting = page.locator('li[data-model="nowhere-7b"]')
        await expect(running).to_contain_text(re.compile(r"Running.*uses \d+ MB of memory, since", re.DOTALL))
        await expect(arriving).to_contain_text(re.compile(r"Downloading.*% *, .* of 8\.39 MB · .*/s", re.DOTALL))
        await expect(arriving).to_contain_text("left")
        await expect(waiting).to_contain_text("nobody/nowhere-7B-GGUF")
        await expect(page.locator("#summary")).to_contain_text(re.compile(r"4 models · 1 running · \d.* memory taken"))
        await shown_in_window(page.get_by_role("heading", name="Models", level=1))
        if not look.startswith("phone"):
            await shown_in_window(running, arriving, waiting, page.locator('li[data-model="gpt-4-turbo"]'))
        await picture(page, pictures / f"models-{look}.png", whole=look.startswith("phone"))


async def test_problem(chromium: Chromium, busy: str, pictures: Path, look: str) -> None:
    async with view(chromium, busy, "problems", look) as page:
        problems = page.get_by_role("list", name="Problems")
        await shown_in_window(
            problems.get_by_text(re.compile(r"^models/broken/broken\.json:2:\d+$")),
            problems.get_by_text("put a comma after the value on line 2"),
            problems.get_by_text("Error", exact=True),
            page.get_by_role("button", name="Scan again"),
        )
        await picture(page, pictures / f"problem-{look}.png")


async def test_chat(chromium: Chromium, busy: str, pictures: Path, look: str) -> None:
    async with view(chromium, busy, "chat/smollm2-135m", look) as page:
        await page.get_by_role("textbox", name="Message").fill(QUESTION)
        await page.keyboard.press("Enter")
        answer = page.get_by_role("article", name="smollm2-135m")
        await expect(answer).to_contain_text("a second")
        await expect(answer.locator(".said")).to_have_text("The capital of France is Paris.")
        await shown_in_window(
            page.get_by_text(QUESTION),
            answer.locator(".said"),
            page.get_by_role("textbox", name="Message"),
            page.get_by_role("button", name="Send"),
        )
        await picture(page, pictures / f"chat-{look}.png")


async def test_catalogue(chromium: Chromium, busy: str, pictures: Path, look: str) -> None:
    async with view(chromium, busy, "catalogue", look) as page:
        offer = page.get_by_role("listitem").filter(has_text="qwen3-0.6b")
        await expect(offer).to_contain_text(
            re.compile(r"fits the memory.*119 languages.*1\.05 MB · apache-2\.0", re.DOTALL)
        )
        await expect(offer.get_by_role("button", name="Add qwen3-0.6b")).to_be_visible()
        await shown_in_window(page.get_by_role("searchbox", name="Search the hub"))
        await picture(page, pictures / f"catalogue-{look}.png", whole=True)


async def test_asking_before_deleting_and_before_downloading(chromium: Chromium, busy: str, pictures: Path) -> None:
    async with view(chromium, busy, "models", "desk") as page:
        await page.get_by_role("button", name="Delete smollm2-135m").click()
        dialog = page.get_by_role("dialog", name="Delete smollm2-135m?")
        await shown_in_window(
            dialog.get_by_text("It is stopped first."),
            dialog.get_by_text("SmolLM2-135M-Instruct.Q4_1.gguf, 98.4 MB"),
            dialog.get_by_role("button", name="Delete"),
        )
        await picture(page, pictures / "delete.png")
        await dialog.get_by_role("button", name="Cancel").click()
        await page.get_by_role("textbox", name="From the hub, or an address").fill("Qwen/Qwen3-0.6B-GGUF")
        await page.get_by_role("button", name="Look").click()
        table = page.get_by_role("table")
        await expect(table.get_by_role("row").filter(has_text="suits best")).to_contain_text("Q4_K_M")
        await expect(page.get_by_role("button", name="Download 1.05 MB")).to_be_visible()
        await picture(page, pictures / "preview.png", whole=True)


async def test_token(chromium: Chromium, tmp_path: Path, pictures: Path) -> None:
    environ = {"JAND_TOKEN": "correct horse"}
    async with (
        DaemonProcess(tmp_path, "--listen", "127.0.0.1:0", environ=environ) as daemon,
        chromium.page(await address_of(daemon), refusals=True) as page,
    ):
        dialog = page.get_by_role("dialog", name="This daemon asks for its token")
        await shown_in_window(dialog.get_by_label("Token"), dialog.get_by_role("button", name="Go on"))
        await picture(page, pictures / "token.png")
