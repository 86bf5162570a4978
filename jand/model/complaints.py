"""What pydantic says against a model JSON, as words for people: which field, what was found, what was expected.

Knows nothing of files and lines; a secret's value is never part of the words.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from typing_extensions import override

from jand.model.secrets import MASK, is_secret_name, looks_secret

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pydantic_core import ErrorDetails

_WORDS: Final[Mapping[str, str]] = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number of fewer digits",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text in quotes",
    "model_type": "an object in braces {{ }}",
    "model_attributes_type": "an object in braces {{ }}",
    "dict_type": "an object in braces {{ }}",
    "list_type": "a list in brackets [ ]",
    "tuple_type": "a list in brackets [ ]",
    "greater_than": "more than {gt}",
    "greater_than_equal": "{ge} or more",
    "less_than": "less than {lt}",
    "less_than_equal": "{le} or less",
    "too_short": "at least {min_length} of them",
    "too_long": "at most {max_length} of them",
    "enum": "{expected}",
    "literal_error": "{expected}",
    "expected": "{what}",
}

_MISSING: Final[Mapping[str, str]] = {
    "origin": 'where the model comes from, such as "TheBloke/zephyr-7B-beta-GGUF"',
    "init": "an object of what the model is loaded with, which may be empty: { }",
}

_OTHER_NAMES: Final[Mapping[str, str]] = {
    "n_ctx": "ctx_len",
    "num_ctx": "ctx_len",
    "ctx_size": "ctx_len",
    "context_length": "ctx_len",
    "n_gpu_layers": "ngl",
    "gpu_layers": "ngl",
    "num_gpu": "ngl",
    "embeddings": "embedding",
    "parallel": "n_parallel",
    "n_seq_max": "n_parallel",
    "threads": "n_threads",
    "num_thread": "n_threads",
    "batch_size": "n_batch",
    "flash_attention": "flash_attn",
    "system_prompt": "pre_prompt",
    "temp": "temperature",
    "num_predict": "max_tokens",
    "max_length": "max_tokens",
    "repetition_penalty": "repeat_penalty",
    "url": "download_url",
    "format": "import_format",
    "quant": "quantization",
    "quantisation": "quantization",
    "deployment": "DEPLOYMENT-NAME",
}
"""What llama.cpp, Ollama and others call the same thing."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """*path* leads to the value at fault, or to the object that lacks it; *name* is what to call the field, dotted."""

    path: tuple[str | int, ...]
    name: str
    found: str
    expected: str
    hint: str

    @override
    def __str__(self) -> str:
        return f"{self.name} {self.found}, expected {self.expected}"


def complain(error: ErrorDetails, data: object) -> Complaint:
    """Make the complaint for one of pydantic's errors about *data*."""
    # pydantic keeps the bounds of whole numbers as floats, which are written with an exponent from a million on.
    context = {
        name: int(bound) if isinstance(bound, float) and bound.is_integer() else bound
        for name, bound in error.get("ctx", {}).items()
    }
    wanted: tuple[str | int, ...] = (*error["loc"], *(str(context["at"]).split(".") if context.get("at") else ()))
    path, value = _follow(wanted, data)
    if error["type"] == "missing":
        name = str(error["loc"][-1])
        there = bool(path) and path[-1] == name  # but it says "not set"
        hint = f'add "{name}"; it is required'
        full = name_of(path if there else (*path, name))
        return Complaint(path, full, "is not set" if there else "is missing", _MISSING.get(name, "a value"), hint)
    words = _WORDS.get(error["type"])
    expected = words.format(**context).replace("'", '"') if words else error["msg"].removeprefix("Value error, ")
    name = name_of(path) or "the model"
    return Complaint(
        path,
        name,
        f"is {describe(value, hidden=any(map(is_secret_name, path)))}",
        expected,
        _hint(error["type"], value, context),
    )


def name_of(path: tuple[str | int, ...]) -> str:
    """Name a field, dotted; people count the items of a list from one."""
    if path and isinstance(path[-1], int):
        return f"item {path[-1] + 1} of {name_of(path[:-1])}"
    return ".".join(MASK if looks_secret(str(step)) else str(step) for step in path)


def find_near(name: str, names: Collection[str]) -> str | None:
    """Find the one of *names* that was probably meant."""
    plain = name[:64].lower()
    other = _OTHER_NAMES.get(plain.replace("-", "_"))
    if other in names:
        return other
    by_case = {known.lower(): known for known in names}
    close = difflib.get_close_matches(plain, by_case, n=1, cutoff=0.7)
    return by_case[close[0]] if close else None


def describe(value: object, *, hidden: bool = False) -> str:
    """Name a value as a person would name it, short, in one line, and fit for any encoding."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, (list, tuple)):
        return "a list"
    if hidden or (isinstance(value, str) and looks_secret(value)):
        return "a value that is not shown"
    if isinstance(value, str) and len(value) > 60:
        value = value[:57] + "..."
    text = (
        json.dumps(value, ensure_ascii=True, default=str)
        if not isinstance(value, int) or abs(value) < 10**20
        else "a huge number"
    )
    return text if len(text) <= 400 else text[:397] + "..."


def _follow(wanted: tuple[str | int, ...], data: object) -> tuple[tuple[str | int, ...], object]:
    """As far as *wanted* leads in *data*: pydantic's places also name the branches of a union and items that a text was split into."""
    path: list[str | int] = []
    for step in wanted:
        inside_list = isinstance(data, (list, tuple)) and isinstance(step, int) and 0 <= step < len(data)
        if not inside_list and not (isinstance(data, dict) and step in data):
            break
        data = data[step]  # type: ignore[index]
        path.append(step)
    return tuple(path), data


def _hint(kind: str, value: object, context: Mapping[str, Any]) -> str:
    if context.get("hint"):
        return str(context["hint"])
    if kind in ("float_parsing", "int_parsing") and isinstance(value, str) and "," in value:
        return "write a point, not a comma, before decimals, and nothing between thousands"
    return "correct the value, or remove the field, so that it is not set"
