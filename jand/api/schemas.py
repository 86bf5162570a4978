"""The JSON that goes in and out, as pydantic models: what validates a request is also what `/openapi.json` is made from.

These are not the internal objects; `render` and the handlers make them. Times are Unix seconds, sizes bytes.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from jand.download.recommend import Place  # noqa: TC001 - pydantic reads annotations at run time
from jand.model import secrets
from jand.model.problem import Severity  # noqa: TC001 - as above
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


class RegisterQuery(BaseModel):
    dry_run: bool = Field(default=False, description="write nothing, and answer what would be written and fetched")


class SearchQuery(BaseModel):
    q: str = Field(min_length=1, max_length=200, description="words to look for, or user/repo")
    limit: int = Field(default=10, ge=1, le=50)


class UploadQuery(BaseModel):
    sha256: str | None = Field(
        default=None, pattern="^[0-9a-f]{64}$", description="what the file must hash to; else it is not taken"
    )


class RegisterBody(BaseModel):
    """A model JSON, or one of three short forms: a catalogue id, an origin, the address of a binary. What is not named here is a field of the model JSON."""

    model_config = ConfigDict(extra="allow")

    catalog: str | None = Field(default=None, description="an id of GET /v1/catalog; other fields go over its own")
    origin: str | None = Field(default=None, description="a repository, as people write it: hf.co/user/repo@rev:Q4_K_M")
    quantization: str | None = Field(default=None, description="which variant to fetch, or all")
    id: str | None = Field(default=None, description="the id; else it follows from the rest")
    folder: str | None = Field(default=None, description="the folder below models/; else it is called as the id")


class CopyBody(BaseModel):
    """What the copy is to have in place of the original's; objects are merged, null takes a field away."""

    model_config = ConfigDict(extra="allow")

    id: str = Field(description="the id of the copy")


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
    log: list[str]


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


def _mask(address: str) -> str:
    return str(secrets.mask(address))


class PlannedFileObject(FromOurs):
    name: str
    url: Annotated[str, AfterValidator(_mask)]
    size: int | None
    sha256: str | None


class VariantObject(FromOurs):
    """A quantisation, what it needs here in bytes with everything beside its weights, and where that fits."""

    name: str
    quantization: str | None
    files: list[str]
    size: int
    need: int
    place: Place
    chosen: bool


class PlanObject(FromOurs):
    """What would be fetched, and why just that; *table* has the variants where the machine decided between them."""

    repository: str | None
    commit: str | None
    quantization: str | None
    reason: str
    remote: bool
    bytes_to_fetch: int | None
    files: list[PlannedFileObject]
    present: dict[str, int]
    table: list[VariantObject]


class PreviewAnswer(BaseModel):
    """What a registration would do; *json_* is what would be written to *path*, secrets masked."""

    object: Literal["preview"] = "preview"
    id: str
    path: str
    exists: bool
    json_: dict[str, Any] = Field(alias="json")
    download: PlanObject


class ReasonObject(FromOurs):
    code: str
    message: str
    hint: str


class CatalogEntryObject(BaseModel):
    """One JSON of the catalogue; *registered*: a model of this id is there already; *unknown* says why *download* is null."""

    id: str
    object: Literal["catalog.entry"] = "catalog.entry"
    origin: str
    import_format: str
    download_url: str | list[str] | None
    parameters: ParametersObject
    metadata: dict[str, Any]
    shipped: bool
    registered: bool
    download: PlanObject | None
    unknown: ReasonObject | None


class CatalogAnswer(BaseModel):
    object: Literal["list"] = "list"
    data: list[CatalogEntryObject]


class SearchHitObject(FromOurs):
    """One repository; *note* says why its table is empty."""

    repository: str
    downloads: int
    likes: int
    gated: bool
    note: str
    table: list[VariantObject]


class SearchAnswer(BaseModel):
    object: Literal["list"] = "list"
    data: list[SearchHitObject]


class UploadAnswer(BaseModel):
    """A file that was sent and is there now; the next scan, which has been asked for, says what became of it."""

    object: Literal["upload"] = "upload"
    path: str
    size: int
    sha256: str


class KeptObject(FromOurs):
    name: str
    why: str


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
