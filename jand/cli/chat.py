"""`jand chat`: a conversation in the terminal. Ctrl-C ends an answer, Ctrl-D the conversation; lines from a pipe are questions too."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from jand.cli import errors
from jand.cli.connect import IdArgument, SocketOption, ask
from jand.cli.copying import value_of
from jand.cli.output import say
from jand.cli.pictures import picture_part
from jand.cli.running import start_with_bar
from jand.cli.speaking import speaking
from jand.cli.verbs import described
from jand.errors import JandError
from jand.paths import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jand.cli.speaking import Voice
    from jand.client import Client

app = typer.Typer()

HELP: Final = """\
/system TEXT         tell the model something before the conversation; without TEXT show it
/params NAME=VALUE   set a parameter, such as temperature=0.2; without a value take it back; alone show them
/image PATH          put a picture to the next question
/retry               have the last question answered anew
/clear               forget the conversation so far
/bye                 end it, as Ctrl-D does
Ctrl-C               end the answer that is being given"""

LONGEST_HISTORY: Final = 1000
"""Lines that are kept from one conversation to the next."""

GOODBYES: Final = frozenset({"/bye", "/exit", "/quit"})
OURS: Final = frozenset({"model", "messages", "stream"})
"""Parameters of a request that belong to the conversation itself."""

Message = dict[str, Any]


@app.command(
    "chat",
    help=described(
        "chat",
        "jand chat zephyr-7b",
        "jand chat zephyr-7b --system 'Answer in one sentence.' --param temperature=0",
        "jand chat llava --image cat.png",
        "echo 'What is the capital of France?' | jand chat zephyr-7b",
        more="Ctrl-C ends an answer, Ctrl-D the conversation; /? lists what else can be typed.",
    ),
)
def chat(
    model_id: IdArgument,
    system: Annotated[
        str | None, typer.Option("--system", metavar="TEXT", help="What the model is told before the conversation.")
    ] = None,
    params: Annotated[
        list[str] | None,
        typer.Option("--param", metavar="NAME=VALUE", help="A parameter of all requests; may be repeated."),
    ] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option("--image", metavar="PATH", help="A picture for the first question; may be repeated."),
    ] = None,
    history: Annotated[
        bool, typer.Option("--history/--no-history", help="Keep what was typed for the next conversation.")
    ] = True,
    socket: SocketOption = None,
) -> int:
    model = ask(socket, lambda client: client.get_model(model_id))
    wanted = dict(_parameter(text) for text in params or ())
    pictures = [picture_part(path) for path in images or ()]
    if model["state"] != "running":
        ask(socket, lambda client: start_with_bar(client, model["id"], {}, silent=False))
    # The JSON's own wish for this verb; a program gets a stream where it asks for one.
    streams = (model["parameters"].get("runtime") or {}).get("stream") is not False
    conversation = Conversation(model["id"], system=system, parameters=wanted, pictures=pictures, streams=streams)
    keeps = history and sys.stdin.isatty()
    with _history(_history_file(os.environ)) if keeps else contextlib.nullcontext():
        return _run(conversation, lambda work: ask(socket, work))


def _parameter(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name or name in OURS:
        raise typer.BadParameter(f"expected NAME=VALUE, found {text!r}")
    return name, value_of(value)


class Conversation:
    """What was said, and with what the next question is asked. Knows no terminal."""

    def __init__(
        self,
        model_id: str,
        *,
        system: str | None = None,
        parameters: dict[str, Any] | None = None,
        pictures: Sequence[Message] = (),
        streams: bool = True,
    ) -> None:
        self.model_id = model_id
        self.system = system
        self.parameters = dict(parameters or {})
        self.pictures = list(pictures)
        self.streams = streams
        self._turns: list[Message] = []

    @property
    def messages(self) -> list[Message]:
        return [*([{"role": "system", "content": self.system}] if self.system else []), *self._turns]

    def ask(self, question: str) -> None:
        """Add a question, with the pictures that wait for it."""
        parts = [*self.pictures, {"type": "text", "text": question}]
        self._turns.append({"role": "user", "content": parts if self.pictures else question})
        self.pictures = []

    def answered(self, answer: str) -> None:
        """Add the answer; a question without one would stand twice when it is asked again, and goes."""
        if answer:
            self._turns.append({"role": "assistant", "content": answer})
        elif self._turns and self._turns[-1]["role"] == "user":
            self._turns.pop()

    def take_back(self) -> bool:
        """Forget the last answer, so that its question is the last thing said; say whether there was one."""
        if self._turns and self._turns[-1]["role"] == "assistant":
            self._turns.pop()
            return True
        return False

    def clear(self) -> None:
        self._turns.clear()
        self.pictures = []


def _run(conversation: Conversation, asking: Callable[[Any], Any]) -> int:
    """Go on until somebody ends it; return the exit status: that of the last answer, where questions come from a pipe."""
    status = 0
    on_terminal = sys.stdin.isatty()
    if on_terminal:
        say(printable(f"talking to {conversation.model_id}; /? for help"))
    while (text := _read(on_terminal=on_terminal)) is not None:
        word, _, rest = text.strip().partition(" ")
        if not word:
            continue
        if on_terminal and word in GOODBYES:
            break
        if on_terminal and word.startswith("/"):
            if not _command(conversation, word, rest.strip()):
                continue
        else:
            conversation.ask(text.strip())
        status = _answer(conversation, asking)
    return 0 if on_terminal else status


def _command(conversation: Conversation, word: str, rest: str) -> bool:
    """Do what somebody typed after a slash, and say what there is to say of it; return whether a question waits for its answer now."""
    if word == "/retry" and conversation.take_back():
        return True
    try:
        say(_obey(conversation, word, rest))
    except (errors.Failure, typer.BadParameter) as error:
        errors.report(error if isinstance(error, errors.Failure) else errors.Failure(error.format_message()))
    return False


def _obey(conversation: Conversation, word: str, rest: str) -> str:
    match word:
        case "/?" | "/help":
            return HELP
        case "/clear":
            conversation.clear()
            return "forgotten"
        case "/retry":
            return "there is no answer yet"
        case "/system":
            conversation.system = rest or conversation.system
            return printable(f"system: {conversation.system}") if conversation.system else "there is none"
        case "/image" if rest:
            conversation.pictures.append(picture_part(Path(rest.strip("'\""))))
            return "it goes with your next question"
        case "/params":
            if rest:
                name, value = _parameter(rest)
                conversation.parameters[name] = value
            conversation.parameters = {
                name: value for name, value in conversation.parameters.items() if value is not None
            }
            shown = "  ".join(f"{name}={value}" for name, value in conversation.parameters.items())
            return printable(shown) or "the model's own"
        case _:
            raise errors.Failure(f"cannot understand {word}", hint="/? lists what can be typed")


def _read(*, on_terminal: bool) -> str | None:
    """Return what somebody writes; None at the end."""
    if on_terminal:
        # Gives `input` its line editing and history.
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401, PLC0415 - not everywhere, and of no use for a pipe
    try:
        return input("> " if on_terminal else "")
    except EOFError:
        if on_terminal:
            say()
        return None
    except KeyboardInterrupt:
        # Ctrl-C at the prompt takes back the line, as in a shell.
        say()
        return ""


def _answer(conversation: Conversation, asking: Callable[[Any], Any]) -> int:
    """Have the last question answered, and show it; return the exit status that this would be."""
    parts: list[str] = []

    async def listen(client: Client, voice: Voice) -> None:
        async for chunk in client.chat(conversation.model_id, conversation.messages, **conversation.parameters):
            delta = (chunk.get("choices") or [{}])[0].get("delta") or {}
            if thought := delta.get("reasoning_content"):
                voice.think(thought)
            if text := delta.get("content"):
                parts.append(text)
                voice.say(text)

    try:
        with speaking(streams=conversation.streams) as voice:
            asking(lambda client: listen(client, voice))
    except KeyboardInterrupt:
        if not parts:
            say()
        return 0
    except JandError as error:
        return errors.report(error)
    finally:
        conversation.answered("".join(parts))
    return 0


def _history_file(environ: os._Environ[str]) -> Path:
    state = environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "jand" / "chat-history"


@contextlib.contextmanager
def _history(path: Path) -> Any:
    """Give the lines of earlier conversations to the prompt, and keep this one's, for its owner's eyes alone. Works without where that cannot be."""
    try:
        import readline  # noqa: PLC0415 - as above
    except ImportError:
        yield
        return
    with contextlib.suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(LONGEST_HISTORY)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
            readline.write_history_file(path)
