"""`jand chat`: a conversation in the terminal. Ctrl-C ends an answer, Ctrl-D the conversation; lines from a pipe are questions too."""

from __future__ import annotations

import contextlib
import sys
import unicodedata
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from jand.cli import errors
from jand.cli.connect import IdArgument, SocketOption, ask
from jand.cli.output import say
from jand.cli.running import start_with_bar
from jand.cli.verbs import described
from jand.errors import JandError
from jand.paths import printable

if TYPE_CHECKING:
    from pathlib import Path

    from jand.client import Client

app = typer.Typer()

HELP: Final = """\
/clear   forget the conversation so far
/bye     end it, as Ctrl-D does
Ctrl-C   end the answer that is being given"""

OBEYED: Final = frozenset({"Cc", "Cs"})
"""Categories of characters that a terminal obeys, or that are none."""

Message = dict[str, str]


@app.command(
    "chat",
    help=described(
        "chat",
        "jand chat zephyr-7b",
        "jand chat zephyr-7b --system 'Answer in one sentence.'",
        "echo 'What is the capital of France?' | jand chat zephyr-7b",
        more="Ctrl-C ends an answer, Ctrl-D the conversation.",
    ),
)
def chat(
    model_id: IdArgument,
    system: Annotated[
        str | None, typer.Option("--system", metavar="TEXT", help="What the model is told before the conversation.")
    ] = None,
    socket: SocketOption = None,
) -> int:
    model = ask(socket, lambda client: client.get_model(model_id))
    if model["state"] != "running":
        ask(socket, lambda client: start_with_bar(client, model["id"], {}, silent=False))
    # The JSON's own wish for this verb; a program gets a stream where it asks for one.
    streams = (model["parameters"].get("runtime") or {}).get("stream") is not False
    return _Conversation(socket, model["id"], system, streams=streams).run()


class _Conversation:
    def __init__(self, socket: Path | None, model_id: str, system: str | None, *, streams: bool) -> None:
        self._socket = socket
        self._model_id = model_id
        self._beginning: list[Message] = [{"role": "system", "content": system}] if system else []
        self._messages = list(self._beginning)
        self._streams = streams
        self._on_terminal = sys.stdin.isatty()

    def run(self) -> int:
        """Go on until somebody ends it; return the exit status: that of the last answer, where questions come from a pipe."""
        status = 0
        if self._on_terminal:
            say(printable(f"talking to {self._model_id}; /? for help"))
        while (text := self._read()) is not None:
            match text.strip():
                case "":
                    continue
                case "/bye" | "/exit" | "/quit":
                    break
                case "/?" | "/help":
                    say(HELP)
                case "/clear":
                    self._messages = list(self._beginning)
                    say("forgotten")
                case question:
                    status = self._ask(question)
        return 0 if self._on_terminal else status

    def _read(self) -> str | None:
        """Return what somebody writes; None at the end."""
        if self._on_terminal:
            # Gives `input` its line editing and history.
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401, PLC0415 - not everywhere, and of no use for a pipe
        try:
            return input("> " if self._on_terminal else "")
        except EOFError:
            if self._on_terminal:
                say()
            return None
        except KeyboardInterrupt:
            # Ctrl-C at the prompt takes back the line, as in a shell.
            say()
            return ""

    def _ask(self, question: str) -> int:
        self._messages.append({"role": "user", "content": question})
        parts: list[str] = []
        status = 0
        try:
            ask(self._socket, lambda client: self._answer(client, parts))
        except KeyboardInterrupt:
            say()
        except JandError as error:
            if parts:
                say()
            status = errors.report(error)
        answer = "".join(parts)
        if answer:
            self._messages.append({"role": "assistant", "content": answer})
        else:
            # A question without an answer would stand twice when it is asked again.
            self._messages.pop()
        return status

    async def _answer(self, client: Client, parts: list[str]) -> None:
        """Collect the answer in *parts* and show it as it comes, or at its end."""
        async for chunk in client.chat(self._model_id, self._messages):
            text = _text_of(chunk)
            if text:
                parts.append(text)
                if self._streams:
                    _show(text)
        answer = "".join(parts)
        _show(("" if self._streams else answer) + ("" if answer.endswith("\n") else "\n"))


def _text_of(chunk: dict[str, Any]) -> str:
    choices = chunk.get("choices") or []
    return (choices[0]["delta"].get("content") or "") if choices else ""


def _show(text: str) -> None:
    """Write *text* with its lines, but nothing that a terminal would obey."""
    sys.stdout.write(
        "".join(
            printable(char) if unicodedata.category(char) in OBEYED and char not in "\n\t" else char for char in text
        )
    )
    sys.stdout.flush()
