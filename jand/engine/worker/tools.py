"""Tools: what a request offers, how the model is told, and the grammar that makes it keep to the form.

Families write a call in their own way, which their chat template shows. A model whose template knows nothing of tools is told in a system message and held to
the form by a grammar, so that any model can call.
"""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from jand.engine.worker.notes import note
from jand.engine.worker.schema import schema_rules
from jand.errors import BadRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jand.engine.worker.prompts import Message

MOST_TOOLS: Final = 128


class Family(StrEnum):
    """HERMES: `<tool_call>{"name", "arguments"}</tool_call>`, as Qwen too. LLAMA: a bare object with `parameters`. MISTRAL: `[TOOL_CALLS]` and a list."""

    HERMES = "hermes"
    LLAMA = "llama"
    MISTRAL = "mistral"
    GENERIC = "generic"


MARKS: Final = {
    Family.HERMES: ("<tool_call>", "</tool_call>"),
    Family.LLAMA: ("<|python_tag|>", ""),
    Family.MISTRAL: ("[TOOL_CALLS]", ""),
    Family.GENERIC: ("<tool_call>", "</tool_call>"),
}
"""What begins and ends a call; such a token must be shown even where it is a control token."""


class Function(BaseModel):
    model_config = ConfigDict(extra="allow")

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    description: str = ""
    parameters: dict[str, Any] | None = None


class Tool(BaseModel):
    model_config = ConfigDict(extra="allow")

    type: Literal["function"]
    function: Function


class Named(BaseModel):
    name: str


class NamedChoice(BaseModel):
    type: Literal["function"] = "function"
    function: Named


ToolChoice = Literal["none", "auto", "required"] | NamedChoice


@dataclass(frozen=True, slots=True)
class Offer:
    """The tools of a request. *must* where the model has to call one; *parallel* where it may call several at once."""

    tools: tuple[Tool, ...]
    must: bool
    parallel: bool
    family: Family

    def grammar(self) -> str | None:
        """Return the grammar of the answer; None where the model is trusted to use its family's form."""
        if not self.must and self.family is not Family.GENERIC:
            return None
        rules = self._call_rules()
        begin, end = MARKS[self.family]
        if self.family is Family.LLAMA:
            calls = "call"
        elif self.family is Family.MISTRAL:
            calls = '"[TOOL_CALLS]" "[" call' + (' (", " call)*' if self.parallel else "") + ' "]"'
        else:
            one = f'"{begin}" space call space "{end}"'
            calls = one + (f" (space {one}){{0,15}}" if self.parallel else "")
        free = "" if self.must else ' | [^<] .* | ""'
        rules["root"] = calls + free
        return "".join(f"{name} ::= {rule}\n" for name, rule in rules.items())

    def _call_rules(self) -> dict[str, str]:
        """Return rules with `call` for one call of any of the tools."""
        schemas = [self._call_schema(index, tool, tool.function.parameters) for index, tool in enumerate(self.tools)]
        rules = schema_rules(_any_of(schemas, self.tools), param="tools")
        rules["call"] = rules.pop("root")
        return rules

    def _call_schema(self, index: int, tool: Tool, parameters: dict[str, Any] | None) -> dict[str, Any]:
        key = "parameters" if self.family is Family.LLAMA else "arguments"
        wanted: dict[str, Any] = (
            {"type": "object"} if not _keepable(tool) or parameters is None else {"$ref": f"#/$defs/tool{index}"}
        )
        return {
            "type": "object",
            "properties": {"name": {"const": tool.function.name}, key: wanted},
            "required": ["name", key],
            "additionalProperties": False,
        }

    def describe(self) -> list[dict[str, Any]]:
        """Return the tools as a template expects them."""
        return [tool.model_dump(exclude_none=True) for tool in self.tools]


def _any_of(schemas: list[dict[str, Any]], tools: Sequence[Tool]) -> dict[str, Any]:
    definitions = {
        f"tool{index}": _moved(_object_schema(tool), f"#/$defs/tool{index}")
        for index, tool in enumerate(tools)
        if _keepable(tool)
    }
    return {"anyOf": schemas, "$defs": definitions}


def _object_schema(tool: Tool) -> dict[str, Any]:
    return {"type": "object", **(tool.function.parameters or {})}


def _moved(schema: Any, place: str) -> Any:
    """Return *schema* with its references rewritten for where it now lies."""
    if isinstance(schema, dict):
        return {
            key: place + value[1:]
            if key == "$ref" and isinstance(value, str) and value.startswith("#")
            else _moved(value, place)
            for key, value in schema.items()
        }
    return [_moved(value, place) for value in schema] if isinstance(schema, list) else schema


def _keepable(tool: Tool) -> bool:
    """Whether the schema of a tool's arguments can be enforced; an application's tool is not refused for a keyword that cannot."""
    try:
        schema_rules(_object_schema(tool), param="tools")
    except BadRequestError as error:
        note(f"the arguments of tool {tool.function.name} are held to be an object only: {error.message}")
        return False
    return True


def find_family(template: str) -> Family:
    """Tell from a chat template how its model writes calls."""
    if not re.search(r"\btools\b", template):
        return Family.GENERIC
    if "[TOOL_CALLS]" in template:
        return Family.MISTRAL
    if "<tool_call>" in template and "<function=" not in template:
        return Family.HERMES
    if "<|python_tag|>" in template or "ipython" in template:
        return Family.LLAMA
    return Family.GENERIC


def make_offer(
    tools: list[Tool] | None, choice: ToolChoice | None, *, parallel: bool | None, template: str
) -> Offer | None:
    """Return what a request offers; None where no tool may be called."""
    if not tools or choice == "none":
        if isinstance(choice, NamedChoice) or choice == "required":
            raise BadRequestError('cannot take "tool_choice": the request has no tools', param="tool_choice")
        return None
    if len(tools) > MOST_TOOLS:
        raise BadRequestError(f'cannot take "tools": there are more than {MOST_TOOLS}', param="tools")
    family = find_family(template)
    if isinstance(choice, NamedChoice):
        tools = [tool for tool in tools if tool.function.name == choice.function.name]
        if not tools:
            raise BadRequestError(
                f'cannot take "tool_choice": no tool is called "{choice.function.name}"', param="tool_choice"
            )
    must = choice == "required" or isinstance(choice, NamedChoice)
    several = parallel is not False and not isinstance(choice, NamedChoice)
    return Offer(tuple(tools), must, several, family)


def with_objects(messages: Sequence[Message]) -> list[Message]:
    """Return *messages* with the arguments of earlier calls as objects: templates write them as JSON themselves."""
    return [_with_objects(message) for message in messages]


def _with_objects(message: Message) -> Message:
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return message
    changed = []
    for call in calls:
        function = dict(call.get("function") or {}) if isinstance(call, dict) else {}
        with contextlib.suppress(ValueError, TypeError):
            function["arguments"] = json.loads(function.get("arguments") or "{}")
        changed.append({**call, "function": function} if isinstance(call, dict) else call)
    return {**message, "tool_calls": changed}


_INTRODUCTION: Final = """You can call functions. Their signatures, as JSON schemas:
<tools>
{tools}
</tools>
To call one, answer with nothing but its name and arguments as JSON between these tags:
<tool_call>
{{"name": "...", "arguments": {{...}}}}
</tool_call>"""


def tell_generic(messages: Sequence[Message], offer: Offer | None) -> list[Message]:
    """Return *messages* for a template that knows no tools: told in the system message, calls and results written as text."""
    told: list[Message] = []
    if offer is not None:
        tools = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in offer.describe())
        told.append({"role": "system", "content": _INTRODUCTION.format(tools=tools)})
    for message in messages:
        plain = _plain(message)
        if told and told[-1]["role"] == plain["role"] and plain["role"] in {"system", "user"}:
            plain = {**plain, "content": f"{told.pop()['content']}\n\n{plain['content']}"}
        told.append(plain)
    return told


def _plain(message: Message) -> Message:
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}
    calls = message.get("tool_calls")
    if not isinstance(calls, list):
        return message
    texts = [message["content"]] if message["content"] else []
    for call in _with_objects(message)["tool_calls"]:
        function = call["function"] if isinstance(call, dict) else {}
        made = {"name": function.get("name"), "arguments": function.get("arguments")}
        texts.append(f"<tool_call>\n{json.dumps(made, ensure_ascii=False)}\n</tool_call>")
    return {"role": message["role"], "content": "\n".join(texts)}
