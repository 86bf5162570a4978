"""What a model JSON says that is written on somebody's behalf, and where it goes: from a body, from the catalogue, from a repository's name, or from another model.

Nothing here registers anything: what is written goes the way of any airdrop. A name from a request becomes one path component after a check, never more, and nothing is written through a link.
"""

from __future__ import annotations

import contextlib
import errno
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from jand import atomic
from jand.download.repository import find_hub_address, parse_reference
from jand.errors import (
    BadOriginError,
    BadRequestError,
    DiskFullError,
    ModelExistsError,
    ModelNotFoundError,
    NotPossibleError,
)
from jand.library import generated
from jand.library.findings import Role
from jand.model import complaints, secrets
from jand.model.document import parse, to_json
from jand.model.filenames import is_repository_json, is_temporary
from jand.model.filenames import parse_reference as parse_location
from jand.model.identity import default_id
from jand.model.quantisation import split_part
from jand.model.spec import Spec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jand.library.findings import Found
    from jand.lifecycle.catalog import Catalog

SAFE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
"""What a file or folder made from a request may be called; `fullmatch` alone, since `$` also matches before a final newline."""

NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

SECRET_MODE: Final = 0o600
OPEN_MODE: Final = 0o644

_UNSAFE_RUN: Final = re.compile(r"[^A-Za-z0-9._-]+")
_GGUF_WORD: Final = re.compile(r"[-_.]gguf$", re.IGNORECASE)
_IMPORT_FORMATS: Final = {"thebloke": "thebloke", "janhq": "janhq"}
"""How the repositories of an owner are best read, where nobody says."""

_HINT: Final = "use letters, digits, dots, hyphens"


@dataclass(frozen=True, slots=True)
class Draft:
    """A JSON that is to be written as *name* into *directory*; *folder* is that directory as it is shown to people."""

    directory: Path
    folder: str
    name: str
    data: Mapping[str, Any]

    @property
    def path(self) -> str:
        """Where it will be, as people are shown it and the registry knows it."""
        return f"{self.folder}/{self.name}"

    @property
    def model_id(self) -> str:
        """The id that it will have where nobody else has it."""
        given = self.data.get("id")
        return given if isinstance(given, str) and given else default_id(self.path)


def compose(body: Mapping[str, Any], models: Path, catalog: Catalog, endpoint: str) -> Draft:
    """Return the JSON for the body of a `POST /v1/models`; *endpoint* is the hub's address. Reads the catalogue from the disk.

    Four kinds: `{"catalog": id}`, `{"origin": "user/repo", "quantization": ...}`, `{"download_url": "https://..."}`, and a model JSON; each with `id` or `folder` as it likes. Raises
    BadRequestError, and ModelNotFoundError for an id that the catalogue does not have.
    """
    data = {name: value for name, value in body.items() if value is not None}
    wanted, folder, quantization = (data.pop(name, None) for name in ("catalog", "folder", "quantization"))
    given_id = data.get("id")
    name: object
    if wanted is not None:
        name, data = _from_catalog(wanted, data, catalog)
    else:
        data, stated = _complete_origin(data, endpoint)
        quantization = quantization or stated
        name = _name_of(data, quantization)
    if quantization is not None:
        data = merge(data, {"metadata": {"quantization": quantization}})
    stem = _checked(given_id, "id") if given_id is not None else None
    place = _strict(folder) if folder is not None else stem or _checked(name, "origin")
    return _placed(models, place, stem or place, data)


def _placed(models: Path, folder: str, stem: str, data: dict[str, Any]) -> Draft:
    name = f"{stem}.json"
    if is_repository_json(name) and stem == folder:
        name = "model.json"
    if is_temporary(folder) or is_temporary(name) or is_repository_json(name):
        message = f"cannot register the model: {folder}/{name} is a name that scans leave out"
        raise BadRequestError(message, hint='choose another "id" or "folder"', param="id")
    return Draft(models / folder, f"models/{folder}", name, data)


def _from_catalog(wanted: object, overrides: dict[str, Any], catalog: Catalog) -> tuple[str, dict[str, Any]]:
    entry = catalog.find(wanted) if isinstance(wanted, str) else None
    if entry is None:
        near = complaints.find_near(str(wanted), [each.id for each in catalog.entries()])
        hint = f"did you mean {near}?" if near else "see what it has: jand catalog; a repository is written user/repo"
        raise ModelNotFoundError(
            f'cannot register "{str(wanted)[:200]}": the catalogue does not have it', hint=hint, param="catalog"
        )
    return entry.id, merge(entry.spec.plain(), overrides)


def _complete_origin(data: dict[str, Any], endpoint: str) -> tuple[dict[str, Any], str | None]:
    """Take apart what people copy into `origin` and `download_url`: `hf.co/user/repo:Q4_K_M`, the page of a repository or of a file in it.

    Returns the data, and the quantisation that the origin states.
    """
    origin, url = data.get("origin"), data.get("download_url")
    if origin is None and isinstance(url, str) and "://" in url:
        address = find_hub_address(url, endpoint)
        if address is None:
            return {**data, "origin": url.partition("?")[0].rpartition("/")[0]}, None
        return {**data, "origin": str(address.repository), "download_url": address.path or None}, None
    if not isinstance(origin, str) or _is_provider(data):
        return data, None
    address = find_hub_address(origin if "://" in origin else f"https://{origin}", endpoint)
    if address is not None and address.path and url is None:
        return {**data, "origin": str(address.repository), "download_url": address.path}, None
    try:
        reference = parse_reference(origin, endpoint)
    except BadOriginError:
        # It may not need one: its binary may lie in the folder already.
        return data, None
    completed = {**data, "origin": str(reference.repository)}
    best = _IMPORT_FORMATS.get(reference.repository.owner.lower())
    if best is not None and data.keys() <= {"origin", "id"}:
        completed["import_format"] = best
    return completed, reference.quantization


def _is_provider(data: Mapping[str, Any]) -> bool:
    """Whether requests for the model go to its origin, which is then no repository."""
    try:
        return Spec.model_validate(dict(data)).is_remote
    except ValidationError:
        return True  # which says more about it later


def _name_of(data: Mapping[str, Any], quantization: object) -> str:
    """Make a name for a model that has none: from its one binary, else from its origin and quantisation."""
    url = data.get("download_url")
    if isinstance(url, str) and (location := parse_location(url).name):
        name = location.rpartition("/")[2]
        part = split_part(name)
        return part.prefix.rpartition("/")[2] if part else Path(name).stem
    origin = str(data.get("origin", ""))
    if "://" in origin:
        return origin.partition("://")[2].partition("/")[0]
    repository = _GGUF_WORD.sub("", origin.partition("@")[0].rpartition("/")[2])
    return f"{repository}-{quantization}" if quantization and quantization != "all" else repository


def _strict(folder: object) -> str:
    """Return *folder* if it is a file name as it stands: who names a folder means that one and no other."""
    if not isinstance(folder, str) or SAFE_NAME.fullmatch(folder) is None:
        shown = repr(folder)[:80]
        raise BadRequestError(f"cannot register the model: folder {shown} is no file name", hint=_HINT, param="folder")
    return folder


def _checked(name: object, param: str) -> str:
    plain = _UNSAFE_RUN.sub("-", name).strip("-.") if isinstance(name, str) else ""
    if SAFE_NAME.fullmatch(plain) is None:
        shown = repr(name)[:80]
        raise BadRequestError(f"cannot register the model: {param} {shown} makes no file name", hint=_HINT, param=param)
    return plain


def compose_copy(found: Found, body: Mapping[str, Any], coming: Sequence[str]) -> Draft:
    """Return the JSON of a copy: that of *found* with the `id` and the overrides of *body* merged in, and bound to the same binaries.

    *coming* are the names of the files that a download for the original is to bring.
    """
    model_id = body.get("id")
    if not isinstance(model_id, str):
        raise BadRequestError("cannot copy the model: the copy has no id", param="id", hint='give "id": "new-name"')
    data = merge(found.spec.plain(), body)
    if not found.spec.download_url and "download_url" not in body and not found.spec.is_remote:
        weights = [binary.name for binary in found.binaries if binary.role is Role.WEIGHTS]
        names = list(dict.fromkeys([*weights, *found.missing, *coming]))
        if names:
            data["download_url"] = names if len(names) > 1 else names[0]
    metadata = data.get("metadata")
    if isinstance(metadata, dict):
        metadata.pop("generated", None)
    stem = _checked(model_id, "id")
    name = f"{stem}.json"
    if is_temporary(name) or is_repository_json(name):
        message = f"cannot copy the model: {name} is a name that scans leave out"
        raise BadRequestError(message, hint='choose another "id"', param="id")
    return Draft(found.directory, found.folder, name, data)


def validate(draft: Draft) -> Spec:
    """Return the spec of *draft*. Raises BadRequestError that names the field at fault."""
    try:
        Spec.model_validate(dict(draft.data))
    except ValidationError as error:
        complaint = complaints.complain(error.errors(include_url=False)[0], dict(draft.data))
        raise BadRequestError(
            f"cannot register the model: {complaint}", hint=complaint.hint, param=complaint.name
        ) from error
    document = parse(_text_of(draft), draft.path)
    if document.spec is None:
        raise BadRequestError(document.problems[0].message, hint=document.problems[0].hint)
    return document.spec


def _text_of(draft: Draft) -> bytes:
    try:
        return to_json(dict(draft.data)).encode()
    except ValueError as error:
        raise BadRequestError(f"cannot register the model: {error}") from error


def write(draft: Draft) -> None:
    """Write the JSON (blocks for disk I/O), for its owner alone where there is a key in it.

    Raises ModelExistsError where the file is there, DiskFullError where there is no room, NotPossibleError where the disk refuses otherwise or the folder is a link.
    """
    made = False
    try:
        with contextlib.suppress(FileExistsError):
            draft.directory.mkdir()
            made = True
        if draft.directory.is_symlink():
            message = f"cannot write {draft.path}: its folder is a link"
            raise NotPossibleError(message, hint='choose another "folder"; nothing is written through a link')
        mode = SECRET_MODE if any(secrets.find(dict(draft.data))) else OPEN_MODE
        atomic.write(draft.directory / draft.name, _text_of(draft), mode=mode)
    except FileExistsError as error:
        raise exists(draft) from error
    except OSError as error:
        if made:
            with contextlib.suppress(OSError):
                draft.directory.rmdir()
        message = f"cannot write {draft.path}: {(error.strerror or str(error)).lower()}"
        if error.errno in NO_ROOM:
            raise DiskFullError(message, hint="make room on the disk, then register it again") from error
        raise NotPossibleError(message, hint="check the disk and its permissions") from error


def exists(draft: Draft) -> ModelExistsError:
    message = f'cannot register "{draft.model_id}": there is one already'
    return ModelExistsError(message, hint=f"choose another id, or see it: jand show {draft.model_id}", param="id")


def make_a_persons(file: Path) -> None:
    """Take the mark of a JSON that jand has generated, where it is unedited: somebody builds on it now, so it stays when another JSON claims its binary.

    Blocks for disk I/O; one that cannot be written stays as it is.
    """
    with contextlib.suppress(OSError):
        raw = file.read_bytes()
        spec = parse(raw, file.name).spec
        if spec is None or not generated.is_unedited(raw):
            return
        data = spec.plain()
        data["metadata"].pop("generated", None)
        atomic.write(file, to_json(data).encode(), replace=True, mode=file.stat().st_mode & 0o777)


def merge(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return *base* with *overrides*: objects are merged, everything else is replaced, null takes a field away."""
    merged = dict(base)
    for name, value in overrides.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict) and isinstance(merged.get(name), dict):
            merged[name] = merge(merged[name], value)
        elif isinstance(value, dict):
            merged[name] = merge({}, value)
        else:
            merged[name] = value
    return merged
