"""`jand manual`: the reference pages, drawn on a terminal, as Markdown elsewhere."""

from __future__ import annotations

import difflib
import sys
from typing import Annotated

import typer

from jand import manual as pages
from jand.cli import errors
from jand.cli.output import say
from jand.cli.verbs import described

app = typer.Typer()


def _complete(incomplete: str) -> list[tuple[str, str]]:
    return [(name, about) for name, about in pages.PAGES.items() if name.startswith(incomplete)]


@app.command(
    "manual",
    help=described(
        "manual",
        "jand manual",
        "jand manual errors",
        "jand manual model-json | less",
        more="Without a page: which there are.",
    ),
)
def manual(
    page: Annotated[str | None, typer.Argument(metavar="PAGE", help="Which page.", autocompletion=_complete)] = None,
) -> None:
    if page is None:
        width = max(map(len, pages.PAGES))
        for name, about in pages.PAGES.items():
            say(f"jand manual {name:<{width}}  {about}")
        return
    if page not in pages.PAGES:
        near = difflib.get_close_matches(page, pages.PAGES, n=1)
        hint = f"did you mean {near[0]}?" if near else "jand manual lists the pages"
        raise errors.Failure(f"cannot show {page}: there is no such page", hint=hint, status=errors.NOT_FOUND)
    text = pages.read(page)
    if not sys.stdout.isatty():
        sys.stdout.write(text)
        return
    from rich.console import Console  # noqa: PLC0415 - needed on a terminal alone
    from rich.markdown import Markdown  # noqa: PLC0415 - as above

    console = Console()
    with console.pager(styles=True):
        console.print(Markdown(text))
