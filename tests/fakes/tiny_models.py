"""Folders with a model that loads in milliseconds and really generates, for tests with a real daemon."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.fakes import gguf_files

if TYPE_CHECKING:
    from pathlib import Path


def install(
    models: Path, name: str, *, init: dict[str, Any] | None = None, metadata: dict[str, Any] | None = None, **spec: Any
) -> Path:
    """Write model *name* into a folder of its own below *models* and return that folder; *spec* are further fields of its JSON."""
    folder = models / name
    folder.mkdir(parents=True, exist_ok=True)
    gguf_files.tiny_llama(folder / f"{name}.gguf", context_length=2048)
    write_spec(folder / f"{name}.json", init=init, metadata=metadata, **spec)
    return folder


def write_spec(
    path: Path, *, init: dict[str, Any] | None = None, metadata: dict[str, Any] | None = None, **spec: Any
) -> None:
    """Write a model JSON in place, as an editor does that saves under a temporary name."""
    content = {
        "origin": "tests/tiny",
        "parameters": {"init": {"ctx_len": 512, "n_parallel": 2, **(init or {})}, "runtime": spec.pop("runtime", {})},
        "metadata": metadata or {},
        **spec,
    }
    written = path.with_name(f".{path.name}.tmp")
    written.write_text(json.dumps(content))
    written.rename(path)
