"""The reference pages, as Markdown; `jand manual` shows them. They lie in the package so that whoever has jand has them, of the same version."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

PAGES: Final = {
    "model-json": "what a model JSON may hold",
    "clients": "connecting programs: curl, openai, LangChain, llm, Open WebUI",
    "operations": "files, memory, watching, metrics, and what to do when something is wrong",
    "errors": "every code, what it means, and what mends it",
    "architecture": "how jand is built",
}
"""In the order in which they are listed."""


def read(page: str) -> str:
    """Return the Markdown of one of `PAGES`."""
    return files(__name__).joinpath(f"{page}.md").read_text(encoding="utf-8")
