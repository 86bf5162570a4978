"""`janhq`: Jan's own repositories, which may carry a `model.json` whose values fill what the model's JSON leaves open.

That file comes from outside: only known fields of plain values are taken from it, no secrets, no paths on this machine, and no address but files of the same repository.
It is read in this program's form and in the one that Jan wrote later (`settings`, flat `parameters`, `sources`).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from jand.download.importers.importer import Importer, find_one_model
from jand.download.repository import Repository, find_hub_address
from jand.model.filenames import Source, parse_reference

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

OWN_JSON: Final = "model.json"
LARGEST_JSON: Final = 1 << 20

_INIT: Final = frozenset(
    [
        "ctx_len",
        "ngl",
        "embedding",
        "n_parallel",
        "pre_prompt",
        "user_prompt",
        "ai_prompt",
        "n_threads",
        "n_threads_batch",
        "n_batch",
        "flash_attn",
        "cache_type_k",
        "cache_type_v",
    ]
)
_RUNTIME: Final = frozenset(
    [
        "temperature",
        "token_limit",
        "top_k",
        "top_p",
        "max_tokens",
        "stream",
        "presence_penalty",
        "frequency_penalty",
        "min_p",
        "seed",
        "stop",
        "repeat_penalty",
    ]
)
_METADATA: Final = frozenset({"description", "tags", "quantization"})


def parse_own_json(raw: bytes, repository: Repository) -> Mapping[str, Any]:
    """Return what a repository's `model.json` offers, in the form of a model JSON; empty where it cannot be understood."""
    if len(raw) > LARGEST_JSON:
        return {}
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    parameters = _mapping(content.get("parameters"))
    init = _taken(_mapping(content.get("settings")), _INIT) | _taken(_mapping(parameters.get("init")), _INIT)
    runtime = _taken(parameters, _RUNTIME) | _taken(_mapping(parameters.get("runtime")), _RUNTIME)
    metadata = _taken(_mapping(content.get("metadata")), _METADATA) | _taken(content, frozenset({"description"}))
    offered: dict[str, Any] = {"parameters": {"init": init, "runtime": runtime}, "metadata": metadata}
    if urls := list(_own_files(content, repository)):
        offered["download_url"] = urls
    return offered


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _taken(source: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: source[name] for name in sorted(names) if name in source and _is_plain(source[name])}


def _is_plain(value: object) -> bool:
    if isinstance(value, list):
        return len(value) <= 64 and all(isinstance(item, str) for item in value)
    return isinstance(value, bool | int | float | str) and value != ""


def _own_files(content: Mapping[str, Any], repository: Repository) -> Iterable[str]:
    written = content.get("download_url") or content.get("source_url") or []
    listed = [written] if isinstance(written, str) else written if isinstance(written, list) else []
    sources = content.get("sources")
    listed += [_mapping(source).get("url") for source in sources] if isinstance(sources, list) else []
    for item in listed:
        if not isinstance(item, str):
            continue
        reference = parse_reference(item)
        if reference.source is Source.REPOSITORY and reference.name:
            yield reference.name
        elif (address := find_hub_address(item)) and address.path and address.repository.name == repository.name:
            yield address.path


JANHQ: Final = Importer("janhq", find_one_model, own_json=OWN_JSON)
