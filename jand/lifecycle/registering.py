"""Writing a model JSON on somebody's behalf: from a body, from the catalogue, from a repository's name, or from another model.

What is written goes the way of any airdrop: nothing here registers anything. A name from a request becomes one path component after a check, never more.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from jand import atomic
from jand.errors import BadRequestError, ModelExistsError, ModelNotFoundError, NotPossibleError
from jand.library.findings import Role
from jand.model.document import parse, to_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from jand.library.findings import Found
    from jand.lifecycle.catalog import Catalog

SAFE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""What a file or folder made from a request may be called; `fullmatch` alone, since `$` also matches before a final newline."""

_UNSAFE_RUN: Final = re.compile(r"[^A-Za-z0-9._-]+")


def compose(body: Mapping[str, Any], catalog: Catalog) -> tuple[str, dict[str, Any]]:
    """Return the name of the new model's folder and file, and the JSON to write, for the body of a `POST /v1/models`.

    Three kinds: `{"catalog": id}`, `{"origin": "user/repo", "quantization": ...}`, and a model JSON with `id` or `folder`. Raises BadRequestError, and ModelNotFoundError for an
    id that the catalogue does not have.
    """
    data = dict(body)
    if "catalog" in data:
        return _from_catalog(data, catalog)
    quantization = data.pop("quantization", None)
    folder = data.pop("folder", None)
    if not isinstance(data.get("origin"), str):
        raise BadRequestError(
            "cannot register the model: it has no origin", param="origin", hint='give "origin": "user/repo"'
        )
    if quantization is not None:
        data["metadata"] = {**(data.get("metadata") or {}), "quantization": quantization}
    if folder is not None:
        return _strict(folder), data
    return _checked(data.get("id") or _name_of_origin(data["origin"], quantization), "id"), data


def _from_catalog(data: dict[str, Any], catalog: Catalog) -> tuple[str, dict[str, Any]]:
    wanted = data["catalog"]
    entry = catalog.find(wanted) if isinstance(wanted, str) else None
    if entry is None:
        message = f'cannot register "{wanted}": the catalogue does not have it'
        raise ModelNotFoundError(message, hint="`GET /v1/catalog` lists what it has", param="catalog")
    return _checked(entry.id, "catalog"), entry.spec.plain()


def _name_of_origin(origin: str, quantization: object) -> str:
    """Make a name from `user/repo@revision` and a quantisation."""
    repository = origin.partition("@")[0].rstrip("/").rpartition("/")[2].removesuffix("-GGUF")
    return f"{repository}-{quantization}" if quantization and quantization != "all" else repository


def _strict(folder: object) -> str:
    """Return *folder* if it is a file name as it stands: who names a folder means that one and no other."""
    if not isinstance(folder, str) or SAFE_NAME.fullmatch(folder) is None:
        message = f"cannot register the model: folder {folder!r:.80} is no file name"
        raise BadRequestError(message, hint="use letters, digits, dots, hyphens", param="folder")
    return folder


def _checked(name: object, param: str) -> str:
    plain = _UNSAFE_RUN.sub("-", name).strip("-.") if isinstance(name, str) else ""
    if SAFE_NAME.fullmatch(plain) is None:
        message = f"cannot register the model: {param} {name!r:.80} makes no file name"
        raise BadRequestError(message, hint="use letters, digits, dots, hyphens", param=param)
    return plain


def write(models: Path, name: str, data: Mapping[str, Any]) -> Path:
    """Write *data* as `models/<name>/<name>.json` (blocks for disk I/O) and return its path.

    Raises BadRequestError where it is no valid model JSON, ModelExistsError where the file is there.
    """
    return _write(models / name / f"{name}.json", f"models/{name}/{name}.json", data)


def _write(path: Path, shown: str, data: Mapping[str, Any]) -> Path:
    try:
        text = to_json(dict(data)).encode()
    except ValueError as error:
        raise BadRequestError(f"cannot register the model: {error}") from error
    document = parse(text, shown)
    if document.spec is None:
        problem = document.problems[0]
        raise BadRequestError(problem.message, hint=problem.hint)
    try:
        path.parent.mkdir(exist_ok=True)
        atomic.write(path, text)
    except FileExistsError as error:
        raise ModelExistsError(
            f"cannot write {shown}: it exists", hint="choose another id, or delete that model"
        ) from error
    except OSError as error:
        raise NotPossibleError(
            f"cannot write {shown}: {error.strerror}", hint="check the disk and its permissions"
        ) from error
    return path


def copy(found: Found, body: Mapping[str, Any]) -> Path:
    """Write beside the JSON of *found* another one, with the `id` and the overrides of *body*, that uses the same binaries; return its path.

    Overrides are merged into the original, objects field by field. Raises as `write` does.
    """
    model_id = body.get("id")
    if not isinstance(model_id, str):
        raise BadRequestError("cannot copy the model: the copy has no id", param="id", hint='give "id": "new-name"')
    name = _checked(model_id, "id")
    data = merge(found.spec.plain(), body)
    weights = [binary.name for binary in found.binaries if binary.role is Role.WEIGHTS]
    if weights and "download_url" not in body:
        data["download_url"] = weights if len(weights) > 1 else weights[0]
    metadata = data.get("metadata")
    if isinstance(metadata, dict):
        metadata.pop("generated", None)
    return _write(found.directory / f"{name}.json", f"{found.folder}/{name}.json", data)


def merge(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return *base* with *overrides*: objects are merged, everything else is replaced, null takes a field away."""
    merged = dict(base)
    for name, value in overrides.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict) and isinstance(merged.get(name), dict):
            merged[name] = merge(merged[name], value)
        else:
            merged[name] = value
    return merged
