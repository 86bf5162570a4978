"""The spec: the validated content of one model JSON, by model-specs.md and the contract.

Values are read kindly (see `fields`), unknown names are kept, and nothing here reads a file or knows lines: `document` does. `metadata.engine` is settled
here once, so that nobody else derives it.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, model_validator
from typing_extensions import override

from jand.errors import BadRequestError
from jand.model import complaints, secrets
from jand.model.fields import (
    Digests,
    Line,
    Location,
    Locations,
    Number,
    Part,
    Texts,
    Whole,
    expected,
    is_unset,
)
from jand.model.parameters import Init, Parameters, Runtime

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Engine", "ImportFormat", "Init", "Metadata", "Parameters", "Runtime", "Spec", "known_names"]

OPENAI_ORIGIN: Final = "https://api.openai.com/v1"
"""Where `import_format` openai sends requests when no origin is given (the contract's table)."""

MAX_ID: Final = 512
_MAY_BE_PROVIDER: Final = re.compile(r"openai\.com|azure\.com", re.IGNORECASE)
_PROVIDERS: Final = (".api.openai.com", ".openai.azure.com", ".services.ai.azure.com")


class _AnyCase(StrEnum):
    """Read without regard to case, and with a hyphen for an underscore."""

    @classmethod
    @override
    def _missing_(cls, value: object) -> Self | None:
        plain = str(value).strip().lower().replace("-", "_")
        return next((member for member in cls if member.value == plain), None)


class ImportFormat(_AnyCase):
    DEFAULT = "default"
    THEBLOKE = "thebloke"
    JANHQ = "janhq"
    OPENAI = "openai"
    AZURE_OPENAI = "azure_openai"


class Engine(_AnyCase):
    LLAMACPP = "llamacpp"
    API = "api"


_REMOTE: Final = (ImportFormat.OPENAI, ImportFormat.AZURE_OPENAI)


def _check_object(value: Any) -> Any:
    if isinstance(value, str) and value.strip().lower() == "model":
        return "model"
    raise expected('"model"', hint="assistants, threads and messages are kept elsewhere, by the apps that use them")


def _check_created(value: int) -> int:
    if value >= 10**11:
        raise expected("a Unix time in seconds", hint="it looks like milliseconds: leave out the last three digits")
    return value


class Metadata(Part):
    """Free for whatever else people note about a model; the names here mean something to jand."""

    engine: Engine = Engine.LLAMACPP
    sha256: Digests | None = Field(None, description="the digest of the binary, or an object of file names and digests")
    quantization: Line | None = Field(None, description='which variant to choose, such as "Q4_K_M", or "all"')
    mmproj: Location | None = Field(None, description="the projector, as in download_url")
    autostart: bool | None = Field(None, description="start it when the daemon starts")
    priority: Number | None = Field(
        None, description="of several that start with the daemon, those with more come first"
    )
    keep_alive: Number | None = Field(
        None, description="seconds until it is stopped when idle; 0 at once, negative never"
    )
    pinned: bool | None = Field(None, description="never stopped to make room")
    tags: Texts | None = None
    description: str | None = None
    generated: Line | None = Field(None, description="jand wrote this file by itself; changing anything makes it yours")


_NO_PARAMETERS: Final = Parameters(init=Init())
"""One for all specs without any, since pydantic would copy a default for each of them."""


class Spec(Part):
    """Secrets are in here as the file has them: show `masked` to people, never this."""

    origin: Line
    import_format: ImportFormat = ImportFormat.DEFAULT
    download_url: Locations = ()
    id: Annotated[Line, Field(max_length=MAX_ID)] | None = None
    object: Annotated[Literal["model"], BeforeValidator(_check_object)] = "model"
    created: Annotated[Whole, Field(ge=0), AfterValidator(_check_created)] | None = None
    owned_by: Line | None = None
    parameters: Parameters = Field(default_factory=lambda: _NO_PARAMETERS)
    metadata: Metadata = Field(default_factory=Metadata)

    @model_validator(mode="before")
    @classmethod
    def _settle(cls, data: Any) -> Any:
        """Fill in what follows from other fields: the origin of `openai`, the engine."""
        if not isinstance(data, dict):
            return data
        import_format = _find_format(data.get("import_format"))
        if import_format is ImportFormat.OPENAI and is_unset(data.get("origin")):
            data = {**data, "origin": OPENAI_ORIGIN}
        metadata = {} if is_unset(data.get("metadata")) else data["metadata"]
        if isinstance(metadata, dict) and is_unset(metadata.get("engine")):
            data = {**data, "metadata": {**metadata, "engine": _find_engine(import_format, data.get("origin"))}}
        return data

    @model_validator(mode="after")
    def _agree(self) -> Self:
        remote = self.metadata.engine is Engine.API
        if remote and self.import_format in (ImportFormat.THEBLOKE, ImportFormat.JANHQ):
            raise expected(f'"llamacpp" with import_format "{self.import_format}"', at="metadata.engine")
        if not remote and self.import_format in _REMOTE:
            raise expected(f'"api" with import_format "{self.import_format}"', at="metadata.engine")
        if remote and "://" in self.origin and not self.origin.lower().startswith(("https://", "http://")):
            raise expected("an https:// address of the provider", at="origin")
        return self

    @property
    def is_remote(self) -> bool:
        return self.metadata.engine is Engine.API

    def secrets(self) -> set[str]:
        """Every secret that the JSON holds (references such as `env:NAME` are none)."""
        return set(secrets.find(self.plain()))

    def plain(self) -> dict[str, Any]:
        """Give what is set, by the names of the file and ready for JSON, secrets as they are: for files, never for people."""
        data = self.given()
        locations = data.pop("download_url")
        if locations:
            data["download_url"] = locations[0] if len(locations) == 1 else locations
        return data

    def masked(self) -> dict[str, Any]:
        """As `plain`, but secrets as `***`."""
        masked: dict[str, Any] = secrets.mask(self.plain())
        return masked

    def with_init(self, overrides: Mapping[str, Any]) -> Spec:
        """Make this spec with other `parameters.init` for one run; what is null or "" is not set, however the file has it.

        Raises BadRequestError that names the parameter. A name that is not known is refused, unlike in a file: nobody would see the warning.
        """
        for name in overrides:
            if name not in known_names(Init) and name not in Init.model_fields:
                raise _unknown_parameter(name)
        aliases = {name: field.alias or name for name, field in Init.model_fields.items()}
        merged = self.parameters.init.given() | {aliases.get(name, name): value for name, value in overrides.items()}
        try:
            init = Init.model_validate(merged)
        except ValidationError as error:
            complaint = complaints.complain(error.errors(include_url=False)[0], merged)
            raise BadRequestError(
                f"cannot use parameters.init: {complaint}",
                hint=complaint.hint,
                param=f"parameters.init.{complaint.path[0] if complaint.path else complaint.name}",
            ) from error
        made = self.model_copy(update={"parameters": self.parameters.model_copy(update={"init": init})})
        if replaced := self.secrets() - made.secrets():
            # What is no longer known as a secret may stand elsewhere in the file as well.
            return Spec.model_validate(secrets.blot(made.plain(), replaced))
        return made


def _unknown_parameter(name: str) -> BadRequestError:
    shown = f"parameters.init.{name[:64]}"
    near = complaints.find_near(name, known_names(Init))
    hint = f'did you mean "{near}"?' if near else f"known are {', '.join(sorted(known_names(Init)))}"
    return BadRequestError(f"cannot use {shown}: there is no such parameter", hint=hint, param=shown)


def known_names(part: type[Part]) -> frozenset[str]:
    """Give the names of a part's fields as a file has them."""
    return frozenset(field.alias or name for name, field in part.model_fields.items())


def _find_format(value: object) -> ImportFormat | None:
    if is_unset(value):
        return ImportFormat.DEFAULT
    try:
        return ImportFormat(value) if isinstance(value, str) else None
    except ValueError:
        return None


def may_be_provider(origin: str) -> bool:
    """Whether *origin* is worth a closer look at its host."""
    return _MAY_BE_PROVIDER.search(origin) is not None


def _find_engine(import_format: ImportFormat | None, origin: object) -> Engine:
    if import_format in _REMOTE:
        return Engine.API
    if import_format is ImportFormat.DEFAULT and isinstance(origin, str) and may_be_provider(origin):
        host = origin.strip().lower().split("://", 1)[-1].split("/", 1)[0].rsplit("@", 1)[-1].split(":", 1)[0]
        if f".{host}".endswith(_PROVIDERS):
            return Engine.API
    return Engine.LLAMACPP
