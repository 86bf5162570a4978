"""The JSON that goes in and out, as pydantic models: what validates a request is also what `/openapi.json` is made from.

These are not the internal objects; `render` and the handlers make them. Times are Unix seconds, sizes bytes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from jand.model.problem import Severity  # noqa: TC001 - pydantic reads annotations at run time
from jand.model.record import PublicState, Transition  # noqa: TC001 - as above

KEEP_ALIVE: Final = (
    'how long the model stays when it is idle after this: seconds, or a text such as "5m"; 0 at once, negative never'
)


class Nothing(BaseModel):
    """No query, or no body."""


class StateFilter(StrEnum):
    ALL = "all"
    RUNNING = "running"
    DOWNLOADED = "downloaded"
    DOWNLOADING = "downloading"


# -- queries and bodies -----------------------------------------------------------------------------------------------


class ListQuery(BaseModel):
    state: StateFilter = StateFilter.ALL


class StartQuery(BaseModel):
    wait: bool = Field(default=True, description="false answers 202 at once")


class StopQuery(BaseModel):
    force: bool = Field(default=False, description="cut the answers that are being given")


class DeleteQuery(BaseModel):
    keep_files: bool = Field(default=False, description="remove the JSON alone")


class EventsQuery(BaseModel):
    model: str | None = Field(default=None, description="only events of this model")


class StartParameters(BaseModel):
    model_config = ConfigDict(extra="forbid")

    init: dict[str, Any] = Field(default_factory=dict)


class StartBody(BaseModel):
    """Overrides for this run. An unknown field is refused: it would be lost without a word."""

    model_config = ConfigDict(extra="forbid")

    parameters: StartParameters = StartParameters()


class InferenceBody(BaseModel):
    """As OpenAI defines it. The worker or provider validates the rest."""

    model_config = ConfigDict(extra="allow")

    model: str = Field(description="the id of a model, or an alias")
    stream: bool | None = None
    keep_alive: float | str | None = Field(default=None, description=KEEP_ALIVE)


class DeployedBody(BaseModel):
    """As `InferenceBody`, but its path names the model."""

    model_config = ConfigDict(extra="allow")

    stream: bool | None = None
    keep_alive: float | str | None = Field(default=None, description=KEEP_ALIVE)


# -- the model object -------------------------------------------------------------------------------------------------


class FromOurs(BaseModel):
    """Made from the attributes of an object of ours."""

    model_config = ConfigDict(from_attributes=True)


class ErrorNoteObject(FromOurs):
    code: str
    message: str
    hint: str
    at: float
    retry_at: float | None


class FileObject(FromOurs):
    name: str
    size: int | None
    present: bool
    sha256: str | None


class FileProgressObject(FromOurs):
    name: str
    bytes_done: int
    bytes_total: int | None


class ProgressObject(FromOurs):
    bytes_done: int
    bytes_total: int | None
    bytes_per_second: float
    eta_seconds: float | None
    files: list[FileProgressObject]


class ParametersObject(BaseModel):
    init: dict[str, Any] = Field(default_factory=dict)
    runtime: dict[str, Any] = Field(default_factory=dict)


class ModelObject(BaseModel):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    state: PublicState
    transition: Transition | None
    paused: bool
    restart_needed: bool
    origin: str
    import_format: str
    download_url: str | list[str] | None
    parameters: ParametersObject
    metadata: dict[str, Any]
    error: ErrorNoteObject | None
    progress: ProgressObject | None
    path: str
    files: list[FileObject]
    details: dict[str, Any]
    aliases: list[str]


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelObject]


# -- other answers ----------------------------------------------------------------------------------------------------


class StartAnswer(BaseModel):
    id: str
    object: Literal["model"] = "model"
    state: PublicState
    transition: Transition | None
    model_parameters: ParametersObject
    engine: Literal["llamacpp", "openai"]


class KeptObject(FromOurs):
    name: str
    why: str


class RegisterBody(BaseModel):
    """A model JSON with `id` or `folder`, or `{"catalog": id}`, or `{"origin": "user/repo", "quantization": ...}`; the reader of model JSONs judges the rest."""

    model_config = ConfigDict(extra="allow")

    catalog: str | None = None
    origin: str | None = None
    quantization: str | None = None
    id: str | None = None
    folder: str | None = None


class CopyBody(BaseModel):
    """The id of the copy, and whatever of the model JSON is to be other than in the original."""

    model_config = ConfigDict(extra="allow")

    id: str | None = None


class CatalogObject(BaseModel):
    """*registered*: a model of this id is there already. *download_url* and *quantization* say what would be downloaded; null: what is recommended for this machine."""

    id: str
    origin: str
    import_format: str
    engine: str
    description: str | None
    tags: list[str]
    download_url: str | list[str] | None
    quantization: str | None
    registered: bool


class CatalogList(BaseModel):
    object: Literal["list"] = "list"
    data: list[CatalogObject]


class DeleteAnswer(BaseModel):
    id: str
    object: Literal["model"] = "model"
    deleted: Literal[True] = True
    kept: list[KeptObject]


class ProblemObject(BaseModel):
    path: str
    code: str
    message: str
    hint: str
    line: int | None
    column: int | None
    severity: Severity
    since: float


class ProblemList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ProblemObject]


class RescanAnswer(BaseModel):
    """What a full scan changed; the lifecycle says which facts."""

    model_config = ConfigDict(extra="allow")

    object: Literal["rescan"] = "rescan"


class HealthAnswer(BaseModel):
    status: Literal["ok"] = "ok"
    details: dict[str, Any] = Field(
        default_factory=dict, description="how the daemon is; empty for a caller without the token"
    )


class ReadyAnswer(BaseModel):
    status: Literal["ready"] = "ready"


class VersionAnswer(BaseModel):
    model_config = ConfigDict(extra="allow")

    version: str


class ErrorObject(BaseModel):
    message: str
    type: str
    param: str | None
    code: str


class ErrorAnswer(BaseModel):
    """The one shape of every error."""

    error: ErrorObject
