"""The reference pages, as Markdown; `jand manual` shows them. They lie in the package so that whoever has jand has them, of the same version."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

PAGES: Final = {
    "commands": "every verb with its options, and the exit statuses",
    "settings": "every key with default and unit, and where values come from",
    "model-json": "what a model JSON may hold",
    "downloads": "what is fetched, how, and what keeps it from coming",
    "remote-models": "models at OpenAI, Azure and whatever is compatible",
    "running-models": "starting, stopping, memory, turns, deaths, changes on the disk",
    "api": "every call, and the states of a model",
    "clients": "connecting programs: curl, openai, LangChain, llm, Open WebUI",
    "service": "systemd, launchd, reload, logs",
    "operations": "files, memory, watching, metrics, and what to do when something is wrong",
    "errors": "every code, what it means, and what mends it",
    "architecture": "how jand is built",
}
"""In the order in which they are listed."""


def read(page: str) -> str:
    """Return the Markdown of one of `PAGES`."""
    return files(__name__).joinpath(f"{page}.md").read_text(encoding="utf-8")
