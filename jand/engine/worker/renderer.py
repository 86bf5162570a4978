"""What a renderer does: apply one model's chat template, which is code from a foreign file, in jinja's immutable sandbox, with little memory; it is killed when slow.

A loop in a template cannot be interrupted from within Python, and a few filters can fill any memory; a process of its own can be bounded in both. It reads one
JSON object a line: first `{"template", "bos_token", "eos_token"}`, then the variables of each rendering; answers each with `{"text"}`, or `{"error"}` and,
where the template itself refused, `{"refused": true}`.
"""

from __future__ import annotations

import contextlib
import json
import resource
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import jinja2
import jinja2.ext
import jinja2.nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from typing_extensions import override

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from jinja2.parser import Parser

MEMORY_BYTES: Final = 512 << 20
OUTPUT_CHARS: Final = 8 << 20


class RefusedError(Exception):
    """The template called raise_exception."""


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %}` marks the assistant's part for training; here it is its content."""

    tags = {"generation"}  # noqa: RUF012 - as the base class has it

    @override
    def parse(self, parser: Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise(message: object) -> None:
    raise RefusedError(str(message)[:1000])


def _now(pattern: str) -> str:
    return datetime.now().astimezone().strftime(pattern)


def _to_json(
    value: object,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    *,
    ensure_ascii: bool = False,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def compile_template(source: str, bos: str, eos: str) -> Callable[[dict[str, Any]], str]:
    """Return the function that applies *source*; jinja2's errors where it cannot be understood."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols, _GenerationTag]
    )
    environment.filters["tojson"] = _to_json
    environment.globals.update(raise_exception=_raise, strftime_now=_now, bos_token=bos, eos_token=eos)
    template = environment.from_string(source)

    def render(variables: dict[str, Any]) -> str:
        parts, length = [], 0
        for part in template.generate(variables):
            length += len(part)
            if length > OUTPUT_CHARS:
                raise jinja2.TemplateRuntimeError(f"it makes more than {OUTPUT_CHARS} characters")
            parts.append(part)
        return "".join(parts)

    return render


def _answer(render: Callable[[dict[str, Any]], str], variables: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"text": render(variables)}
    except RefusedError as error:
        return {"error": str(error), "refused": True}
    except MemoryError:
        return {"error": "it needs too much memory"}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {str(error)[:500]}"}


def serve(served: socket.socket) -> None:
    """Answer on *served* until it is closed."""
    with served.makefile("rw", encoding="utf-8") as lines:
        first = json.loads(lines.readline())
        render: Callable[[dict[str, Any]], str] | None = None
        failure = ""
        try:
            render = compile_template(first["template"], first["bos_token"], first["eos_token"])
        except (jinja2.TemplateError, RecursionError, MemoryError) as error:
            failure = f"{type(error).__name__}: {str(error)[:500]}"
        for line in lines:
            answer = {"error": failure} if render is None else _answer(render, json.loads(line))
            lines.write(json.dumps(answer) + "\n")
            lines.flush()


def limit_memory() -> None:
    with contextlib.suppress(ValueError, OSError):  # macOS refuses this limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
