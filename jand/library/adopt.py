"""Giving a bare GGUF its model JSON, from what its header says.

The only place where jand writes among a person's files by itself: never over an existing one, never through a link. `origin` is `local`, since a header does not tell where the file came from:
nothing is ever fetched for such a model, and its `download_url` names the files beside it.
"""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import structlog

from jand import atomic
from jand.library import generated
from jand.library.findings import Found, Role
from jand.model import document, filenames, quantisation
from jand.model.filenames import binary_stem, printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from jand.library.findings import BareBinary, EntryScan
    from jand.model.gguf import Header

log = structlog.get_logger(__name__)

ORIGIN: Final = "local"
CACHE_BYTES: Final = 1 << 30
USUAL_CONTEXT: Final = 4096
"""A model gets the context that it was trained for, as far as its KV cache stays below `CACHE_BYTES`, but not less than the usual one for that."""

MOST_NAME_BYTES: Final = 255


def adopt(bare: BareBinary) -> Path | None:
    """Write the JSON of *bare*, all of whose files must be whole, and return its path.

    None where it has one by now, where it is reached through a link, or where the disk takes no writes (which is logged). Blocks for disk I/O.
    """
    if bare.linked or not bare.whole:
        return None
    path = bare.directory / _json_name(bare)
    text = _compose(bare, path)
    if text is None:
        log.warning("binary not adopted", path=str(path), reason="its name cannot be written into a JSON")
        return None
    try:
        atomic.write(path, text)
    except FileExistsError:
        return None
    except OSError as error:
        log.warning("binary not adopted", path=printable(str(path)), reason=error.strerror)
        return None
    return path


def as_found(bare: BareBinary) -> Found | None:
    """Return the model that *bare* would be with a JSON, without writing one: for trees that are never written to."""
    stamp = bare.binaries[0].stamp
    path = bare.directory / _json_name(bare)
    text = _compose(bare, path)
    if stamp is None or text is None:
        return None
    shown = f"{bare.folder}/{printable(path.name)}"
    spec = document.parse(text, shown).spec
    if spec is None:
        return None
    return Found(
        path=shown,
        folder=bare.folder,
        place=bare.place,
        spec=spec,
        stamp=stamp,
        binaries=tuple(replace(binary, owned=False) for binary in bare.binaries),
        generated=True,
        error=next((binary.error for binary in bare.binaries if binary.error is not None), None),
        name=path.name,
        linked=bare.linked,
    )


def is_unedited(path: Path) -> bool:
    """Whether jand wrote the file at *path* and nobody has changed a byte of it since."""
    try:
        with path.open("rb") as stream:
            return generated.is_unedited(stream.read(document.MAX_BYTES + 1))
    except OSError:
        return False


def find_superseded(scan: EntryScan) -> list[Path]:
    """Find the generated, unedited JSONs of *scan* that have served their time: another JSON of their folder claims the binary, or the binary is gone."""
    if not scan.tree.writable:
        return []
    claimed = {
        (found.directory, binary.path) for found in scan.models if not found.generated for binary in found.binaries
    }
    return [
        found.file
        for found in scan.models
        if found.generated and not found.linked and _has_served(found, claimed) and is_unedited(found.file)
    ]


def _has_served(found: Found, claimed: set[tuple[Path, Path]]) -> bool:
    weights = [binary for binary in found.binaries if binary.role is Role.WEIGHTS]
    # A link that leads nowhere is still there: its disk may come back.
    gone = bool(weights) and not any(os.path.lexists(binary.path) for binary in weights)
    return gone or any((found.directory, binary.path) in claimed for binary in weights)


def describe(bare: BareBinary) -> dict[str, Any]:
    """Return the content of the JSON of *bare*, unsigned."""
    header = bare.binaries[0].header
    assert header is not None
    weights = [f"./{binary.path.name}" for binary in bare.binaries if binary.role is Role.WEIGHTS]
    projector = next((f"./{binary.path.name}" for binary in bare.binaries if binary.role is Role.PROJECTOR), None)
    init: dict[str, Any] = {"ctx_len": _context_length(header), "embedding": header.is_embedding or None}
    metadata: dict[str, Any] = {
        "engine": "llamacpp",
        "description": _description(header),
        "quantization": header.quantization,
        "mmproj": projector,
        "generated": generated.UNSIGNED,
    }
    return {
        "origin": ORIGIN,
        "import_format": "default",
        "download_url": weights[0] if len(weights) == 1 else weights,
        "object": "model",
        "owned_by": header.organization or ORIGIN,
        "parameters": {"init": _given(init), "runtime": {}},
        "metadata": _given(metadata),
    }


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _description(header: Header) -> str:
    """Say in a sentence or two what the header says."""
    facts = [header.name or header.basename or "A model without a name", f"{header.architecture} architecture"]
    if header.parameters:
        facts.append(f"{_short_number(header.parameters)} parameters")
    if header.context_length:
        facts.append(f"trained for {header.context_length:,} tokens of context")
    if header.is_embedding:
        template = "It makes embeddings."
    elif header.has_template:
        template = "It carries its own chat template."
    else:
        template = "It carries no chat template: pre_prompt, user_prompt and ai_prompt can give it one."
    return f"{', '.join(facts)}. {template}"


def _short_number(number: int) -> str:
    for unit, letter in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= unit:
            return f"{number / unit:.3g}{letter}"
    return str(number)


def _context_length(header: Header) -> int | None:
    trained = header.context_length
    if not trained:
        return None
    token = _cache_bytes(header)
    affordable = CACHE_BYTES // token if token else 2 * USUAL_CONTEXT
    if trained <= max(affordable, USUAL_CONTEXT):
        return trained
    return max(USUAL_CONTEXT, 1 << (affordable.bit_length() - 1)) if affordable else USUAL_CONTEXT


def _cache_bytes(header: Header) -> int | None:
    """Return what one token takes in the KV cache, as 16-bit numbers; None where the header does not say enough."""
    heads = header.head_count_kv or header.head_count
    layers = header.block_count or 0
    per_layer = max(header.head_count) if isinstance(header.head_count, tuple) else header.head_count
    width = (header.embedding_length or 0) // per_layer if per_layer else 0
    all_heads = sum(heads) if isinstance(heads, tuple) else (heads or 0) * layers
    return 2 * all_heads * ((header.key_length or width) + (header.value_length or width)) or None


def _json_name(bare: BareBinary) -> str:
    """Return the first name that is free: after the binary, so that the two are seen to belong together."""
    return next(
        name
        for name in _json_names(bare)
        if not filenames.is_temporary(name)
        and not filenames.is_repository_json(name)
        and not os.path.lexists(bare.directory / name)
    )


def _json_names(bare: BareBinary) -> Iterator[str]:
    whole = bare.binaries[0].path.name
    part = quantisation.split_part(whole)
    stem = binary_stem(whole) if part is None else part.prefix
    stem = stem or bare.directory.name
    for base in (stem, whole):
        yield f"{_cut(base)}.json"
    for number in count(2):
        yield f"{_cut(stem)}-{number}.json"


def _cut(stem: str) -> str:
    """Shorten *stem* so that a number and an ending still fit into a file name."""
    raw = os.fsencode(stem)
    return stem if len(raw) <= MOST_NAME_BYTES - len(".json") else os.fsdecode(raw[: MOST_NAME_BYTES - 16])


def _compose(bare: BareBinary, path: Path) -> bytes | None:
    """Return the signed text, which reads back as a spec without complaint; where names of files are no text, one that names none, for its own name says enough."""
    data = describe(bare)
    metadata = {name: value for name, value in data["metadata"].items() if name != "mmproj"}
    unnamed = {name: value for name, value in data.items() if name != "download_url"} | {"metadata": metadata}
    for candidate in (data, unnamed):
        try:
            text = generated.sign(document.to_json(candidate))
        except UnicodeEncodeError:
            continue
        read = document.parse(text, path.name)
        if read.spec is not None and not read.problems:
            return text
    return None
