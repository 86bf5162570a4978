"""From messages to a prompt: the JSON's own prompts where it gives them, else the GGUF's template, else ChatML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from jand.engine.worker.template import TemplateProcess

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jand.engine.worker.options import Options
    from jand.engine.worker.rendering import RenderHost
    from jand.engine.worker.weights import Weights

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Prompt:
    """*stops* are strings at which the answer ends, since the model may not know a token that ends it."""

    text: str
    stops: tuple[str, ...] = ()


class Prompter(Protocol):
    """*kind* says in the model's details where its prompts come from; *source* is the template, where there is one."""

    kind: str
    source: str

    async def render(self, messages: Sequence[Message], variables: Mapping[str, Any]) -> Prompt:
        """Put *messages*, whose contents are text, into the form the model was trained on; *variables* are a template's further ones."""

    async def start(self) -> None: ...


class JsonPrompter:
    """`pre_prompt`, `user_prompt` and `ai_prompt` of the model's JSON, one after the other with the messages between them.

    A part that brings no space, line end or bracketed tag of its own at a seam gets a line end there: `USER: hello` and `ASSISTANT:` must not run together.
    """

    kind = "json"
    source = ""

    def __init__(self, pre_prompt: str, user_prompt: str, ai_prompt: str) -> None:
        self._pre, self._user, self._ai = pre_prompt, user_prompt, ai_prompt

    async def start(self) -> None:
        pass

    async def render(self, messages: Sequence[Message], variables: Mapping[str, Any]) -> Prompt:
        systems = [message["content"] for message in messages if message["role"] in {"system", "developer"}]
        parts = systems or ([self._pre] if self._pre else [])
        for message in messages:
            if message["role"] == "assistant":
                parts.append(self._ai + message["content"])
            elif message["role"] not in {"system", "developer"}:
                parts.append(self._user + message["content"])
        if variables.get("add_generation_prompt", True):
            parts.append(
                self._ai.rstrip(" ")
            )  # a token of its own for that space would keep the model from beginning a word with it
        text = ""
        for part in parts:
            text += part if _meets(text, part) else "\n" + part
        stop = self._user.strip()
        return Prompt(text, (stop,) if stop else ())


def _meets(left: str, right: str) -> bool:
    """Whether two parts are apart already."""
    return not left or not right or left[-1].isspace() or right[0].isspace() or left[-1] in ">]" or right[0] in "<["


class TemplatePrompter:
    """The template of the GGUF; *system* is said first where the messages have no system message."""

    kind = "gguf"

    def __init__(self, source: str, process: TemplateProcess, system: str) -> None:
        self.source = source
        self._process = process
        self._system = system

    async def start(self) -> None:
        await self._process.start()

    async def render(self, messages: Sequence[Message], variables: Mapping[str, Any]) -> Prompt:
        said = _with_system(messages, self._system)
        return Prompt(await self._process.render({"add_generation_prompt": True, **variables, "messages": said}))


class ChatMLPrompter:
    """What most models understand when nothing is known."""

    kind = "chatml"
    source = ""

    def __init__(self, system: str) -> None:
        self._system = system

    async def start(self) -> None:
        pass

    async def render(self, messages: Sequence[Message], variables: Mapping[str, Any]) -> Prompt:
        said = _with_system(messages, self._system)
        text = "".join(f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n" for message in said)
        if variables.get("add_generation_prompt", True):
            text += "<|im_start|>assistant\n"
        return Prompt(text, ("<|im_end|>", "<|im_start|>"))


def _with_system(messages: Sequence[Message], system: str) -> list[Message]:
    if not system or any(message["role"] in {"system", "developer"} for message in messages):
        return list(messages)
    return [{"role": "system", "content": system}, *messages]


def choose_prompter(options: Options, weights: Weights, host: RenderHost) -> Prompter:
    """Return what makes prompts for a model, with renderers of *host* where there is a template; the JSON's own prompts stand above the template that came with the binary."""
    if options.user_prompt or options.ai_prompt:
        return JsonPrompter(options.pre_prompt, options.user_prompt, options.ai_prompt)
    if template := weights.facts.chat_template:
        bos = weights.text([weights.bos], special=True) if weights.bos >= 0 else ""
        eos = weights.text([weights.eos], special=True) if weights.eos >= 0 else ""
        return TemplatePrompter(template, TemplateProcess(template, bos, eos, host), options.pre_prompt)
    return ChatMLPrompter(options.pre_prompt)
