"""Checks values against the part of JSON Schema that our OpenAPI document uses; a keyword that it does not know is an error, never ignored."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

NOTES = {"title", "description", "default", "$defs", "examples"}
TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


ONLY_FOR = {
    "minimum": "number",
    "pattern": "string",
    "items": "array",
    "required": "object",
    "properties": "object",
    "additionalProperties": "object",
}
"""Keywords that say nothing of values of other types."""

INNER = {"items", "properties", "additionalProperties"}


def find_faults(value: Any, schema: dict[str, Any], document: dict[str, Any], at: str = "$") -> list[str]:
    """Return what in *value* does not fit *schema*; references are looked up in *document*."""
    faults: list[str] = []
    for keyword, demand in schema.items():
        if keyword in NOTES or not isinstance(value, TYPES.get(ONLY_FOR.get(keyword, ""), (object,))):
            continue
        if keyword in INNER:
            for name, item, part in inner(keyword, demand, value, schema):
                faults += find_faults(item, part, document, at + name)
        elif keyword == "$ref":
            faults += find_faults(value, resolve(demand, document), document, at)
        elif keyword == "anyOf":
            tried = [find_faults(value, choice, document, at) for choice in demand]
            faults += [] if [] in tried else [f"{at}: fits none of {demand}: {tried}"]
        else:
            faults += [f"{at}: {fault}" for fault in judge(keyword, demand, value)]
    return faults


def inner(keyword: str, demand: Any, value: Any, schema: dict[str, Any]) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yield the parts of *value* with the schema of each."""
    if keyword == "items":
        yield from ((f"[{number}]", item, demand) for number, item in enumerate(value))
    elif keyword == "properties":
        yield from ((f".{name}", value[name], part) for name, part in demand.items() if name in value)
    else:
        rest = {True: {}, False: {"enum": []}}.get(demand, demand) if isinstance(demand, bool) else demand
        yield from (
            (f".{name}", item, rest) for name, item in value.items() if name not in schema.get("properties", {})
        )


def judge(keyword: str, demand: Any, value: Any) -> list[str]:
    """Return what *value* itself lacks."""
    match keyword:
        case "type":
            right = isinstance(value, TYPES[demand]) and (demand == "boolean" or not isinstance(value, bool))
            return [] if right else [f"{value!r} is no {demand}"]
        case "const":
            return [] if value == demand else [f"{value!r} is not {demand!r}"]
        case "enum":
            return [] if value in demand else [f"{value!r} is none of {demand}"]
        case "minimum":
            return [] if value >= demand else [f"{value!r} is less than {demand}"]
        case "pattern":
            return [] if re.search(demand, value) else [f"{value!r} does not match {demand}"]
        case "required":
            return [f"{name} is missing" for name in demand if name not in value]
        case _:
            return [f"the keyword {keyword} is not known to this check"]


def resolve(reference: str, document: dict[str, Any]) -> dict[str, Any]:
    assert reference.startswith("#/"), reference
    found: Any = document
    for part in reference[2:].split("/"):
        found = found[part]
    assert isinstance(found, dict)
    return found
