"""Records into JSON, each once: a record is immutable, so the bytes made of it hold as long as it does.

Nothing that one model holds keeps a list from being answered: text that is no Unicode (file names of any bytes) and values without a JSON form are written in their nearest form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from jand.api.schemas import ModelObject, ProblemObject

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jand.lifecycle.events import ProblemRecord
    from jand.model.record import Record

SPARE: Final = 64
"""How many records that are gone the cache may hold before it is tidied."""


class ModelObjects:
    """The JSON of each model as bytes, by the record that it was made of."""

    def __init__(self) -> None:
        self._made: dict[str, tuple[Record, bytes]] = {}

    def encode(self, record: Record) -> bytes:
        made = self._made.get(record.id)
        if made is not None and made[0] is record:
            return made[1]
        encoded = encode_model(record)
        self._made[record.id] = (record, encoded)
        return encoded

    def has(self, record: Record) -> bool:
        made = self._made.get(record.id)
        return made is not None and made[0] is record

    def tidy(self, present: Sequence[Record]) -> None:
        """Forget models that are not among *present* (all there are), once that is worth the while."""
        if len(self._made) > len(present) + SPARE:
            ids = {record.id for record in present}
            self._made = {model_id: made for model_id, made in self._made.items() if model_id in ids}


def encode_model(record: Record) -> bytes:
    return encode(ModelObject, model_fields(record))


def encode(model: type[BaseModel], fields: dict[str, Any]) -> bytes:
    try:
        return dump(model, fields)
    except (ValidationError, PydanticSerializationError, UnicodeEncodeError):
        return dump(model, mended(fields))


def dump(model: type[BaseModel], fields: dict[str, Any]) -> bytes:
    return model.model_validate(fields).model_dump_json(fallback=str).encode()


def mended(value: Any) -> Any:
    """Return *value* with what is no Unicode replaced."""
    if isinstance(value, str):
        return value.encode(errors="surrogatepass").decode(errors="replace")
    if isinstance(value, Mapping):
        return {mended(key): mended(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [mended(item) for item in value]
    if is_dataclass(value) and not isinstance(value, type):
        return mended(asdict(value))
    return value


def model_fields(record: Record) -> dict[str, Any]:
    spec = record.spec.masked()
    return {
        "id": record.id,
        "created": record.created,
        "owned_by": spec.get("owned_by", record.owned_by),
        "state": record.state,
        "transition": record.transition,
        "paused": record.paused,
        "restart_needed": record.restart_needed,
        "origin": spec["origin"],
        "import_format": record.spec.import_format,
        "download_url": single(spec.get("download_url")),
        "parameters": spec.get("parameters") or {},
        "metadata": spec.get("metadata") or {},
        "error": record.error,
        "progress": record.progress,
        "path": record.path,
        "files": record.files,
        "details": dict(record.details),
        "aliases": record.aliases,
    }


def single(urls: object) -> object:
    """None, one, or several, as a person would write it."""
    match urls:
        case [] | () | "":
            return None
        case [only] | (only,):
            return only
        case _:
            return urls


def problem_fields(problem: ProblemRecord) -> dict[str, Any]:
    return asdict(problem.problem) | {"since": problem.since}


def encode_problem(problem: ProblemRecord) -> bytes:
    return encode(ProblemObject, problem_fields(problem))
