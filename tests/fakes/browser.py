"""A headless Chromium of the system, as people have it, on the daemon's page; what it complains of fails the test that opened it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Self

from playwright.async_api import async_playwright

from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from playwright.async_api import Browser, Page, Playwright

    from tests.fakes.daemon import DaemonProcess

FLAGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PHONE: Final = (360, 740)
DESK: Final = (1100, 820)
PATIENCE_MS: Final = 20_000


class Chromium:
    """Use as an async context manager; the profile is a fresh one each time, and each page has a session of its own."""

    async def __aenter__(self) -> Self:
        self._driver: Playwright = await async_playwright().start()
        self._browser: Browser = await self._driver.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._browser.close()
        await self._driver.stop()

    @asynccontextmanager
    async def page(
        self,
        address: str,
        *,
        size: tuple[int, int] = DESK,
        dark: bool = False,
        refusals: bool = False,
        path: str = "/",
        token: str = "",
    ) -> AsyncIterator[Page]:
        """Open the page at *address*. Without *refusals* no request may be answered with an error; scripts may never fail, nor anything be asked of another host.

        *token*: what is in the session already.
        """
        width, height = size
        context = await self._browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            reduced_motion="reduce",
        )
        complaints: list[str] = []
        foreign: list[str] = []
        page = await context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda line: complaints.append(line.text) if line.type in {"error", "warning"} else None)
        page.on("request", lambda asked: None if asked.url.startswith(address) else foreign.append(asked.url))
        if token:
            await page.add_init_script(f"sessionStorage.setItem('jand-token', {token!r})")
        try:
            await page.goto(address + path)
            yield page
        finally:
            await context.close()
        assert not foreign
        assert not [told for told in complaints if not (refusals and told.startswith("Failed to load resource"))]


async def address_of(daemon: DaemonProcess) -> str:
    """Return where *daemon*, started with `--listen 127.0.0.1:0` or the like, is served for browsers."""
    heard = await until(
        lambda: [event for event in daemon.log_events() if event["event"] == "listening"], what="the daemon to listen"
    )
    tcp = next(str(on) for on in heard[-1]["on"] if not str(on).startswith("/"))
    return f"http://{tcp}"


async def live(page: Page) -> None:
    await page.locator("#connection[data-state=live]").wait_for()


async def drop(page: Page, *paths: Path) -> None:
    """Drop files and folders of this machine on the page, as the system does it."""
    session = await page.context.new_cdp_session(page)
    data: dict[str, Any] = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        await session.send("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 300, "data": data})
    await session.detach()


async def picture(page: Page, path: Path, *, whole: bool = False) -> None:
    """Save what the page shows as a PNG, once fonts and frames have settled."""
    await page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    await page.screenshot(path=path, full_page=whole, animations="disabled")


async def focused(page: Page) -> str:
    """Return the accessible name, or the text, of what has the focus."""
    return str(
        await page.evaluate(
            "() => { const at = document.activeElement; return at.ariaLabel ?? (at.id || at.textContent.trim()); }"
        )
    )


async def until_focused(page: Page, name: str) -> None:
    """Wait until what is called *name* has the focus: the page gives it when it has drawn what a key asked for."""

    async def has_it() -> bool:
        return await focused(page) == name

    await until(has_it, what=f"the focus on {name}")


async def overflowing(page: Page) -> Sequence[str]:
    """Name what is wider than the window and cannot be scrolled by itself."""
    found: Sequence[str] = await page.evaluate(
        """() => {
            const wide = document.documentElement.scrollWidth > innerWidth;
            if (!wide) return [];
            return [...document.querySelectorAll("main *")]
                .filter((node) => node.getBoundingClientRect().right > innerWidth + 1)
                .map((node) => `${node.tagName} ${node.className} ${node.textContent.slice(0, 40)}`);
        }"""
    )
    return found


CONTRAST: Final = """() => {
    const parse = (text) => {
        const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
        return text.startsWith("color(") ? [r * 255, g * 255, b * 255, a] : [r, g, b, a];
    };
    const light = ([r, g, b]) => {
        const [x, y, z] = [r, g, b].map((c) => (c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
        return 0.2126 * x + 0.7152 * y + 0.0722 * z;
    };
    const ground = (node) => {
        for (let at = node; at; at = at.parentElement) {
            const colour = parse(getComputedStyle(at).backgroundColor);
            if (colour[3] > 0.99) return colour;
        }
        return [255, 255, 255, 1];
    };
    const faint = [];
    for (const node of document.querySelectorAll("body *")) {
        const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
        if (!own || !node.checkVisibility() || node.closest(".sr, .skip, :disabled, [aria-disabled=true]")) continue;
        const [one, other] = [light(parse(getComputedStyle(node).color)), light(ground(node))];
        const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
        if (ratio < 4.5) faint.push(`${ratio.toFixed(2)} ${node.tagName} ${node.className} ${node.textContent.trim().slice(0, 40)}`);
    }
    return faint;
}"""
"""Names texts whose contrast with what is behind them is below what WCAG 2.2 asks at level AA."""

NAMELESS: Final = """() => [...document.querySelectorAll("button, input, select, textarea, a, summary, dialog, [role=region], progress")]
    .filter((node) => node.checkVisibility())
    .filter((node) => {
        const by = (node.getAttribute("aria-labelledby") ?? "").split(" ").map((id) => document.getElementById(id)?.textContent ?? "").join("");
        const labels = [...(node.labels ?? [])].map((label) => label.textContent).join("");
        return !(by || node.ariaLabel || labels || node.textContent).trim();
    })
    .map((node) => node.outerHTML.slice(0, 120))"""
"""Names controls that a screen reader could only call by their kind."""
