"""The API in one table: each route with everything that is to be known of it beside its path, and the application made of it."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from jand.api import events, guard, health, inference, metrics, models, openapi, problems, registering
from jand.api.drain import Drain
from jand.api.errors import answer_errors
from jand.api.render import ModelObjects
from jand.api.route import Route, Shared, bind
from jand.api.schemas import (
    CatalogAnswer,
    CopyBody,
    DeleteAnswer,
    DeleteQuery,
    DeployedBody,
    EventsQuery,
    HealthAnswer,
    InferenceBody,
    ListQuery,
    ModelList,
    ModelObject,
    Nothing,
    PreviewAnswer,
    ProblemList,
    ReadyAnswer,
    RegisterBody,
    RegisterQuery,
    RescanAnswer,
    SearchAnswer,
    SearchQuery,
    StartAnswer,
    StartBody,
    StartQuery,
    StopQuery,
    VersionAnswer,
)
from jand.errors import (
    BadRequestError,
    ContextExceededError,
    DownloadError,
    JandError,
    ModelDownloadingError,
    ModelExistsError,
    ModelNotFoundError,
    ModelNotRunningError,
    ModelRemovedError,
    NotPossibleError,
    NotReadyError,
    RootOfflineError,
    StartError,
    UpstreamError,
    WorkerDiedError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jand.api.ports import Manager
    from jand.api.settings import ApiSettings

SHARED: Final = web.AppKey("shared", Shared)

STARTING: Final = (
    ModelNotFoundError,
    ModelDownloadingError,
    ModelRemovedError,
    NotPossibleError,
    StartError,
    WorkerDiedError,
)
INFERRING: Final = (*STARTING, ModelNotRunningError, UpstreamError, ContextExceededError)
WRITING: Final = (ModelExistsError, ModelNotFoundError, NotPossibleError, BadRequestError, RootOfflineError)
FETCHING: Final[tuple[type[JandError], ...]] = (DownloadError, *DownloadError.__subclasses__())
STREAM: Final = ("application/json", "text/event-stream")

ROUTES: Final[tuple[Route[Any, Any], ...]] = (
    Route(
        method="GET",
        path="/v1/models",
        handler=models.list_models,
        summary="List the models, all or those in one state",
        query=ListQuery,
        body=Nothing,
        answer=ModelList,
        errors=(BadRequestError,),
    ),
    Route(
        method="POST",
        path="/v1/models",
        handler=registering.register_model,
        summary="Register a model: write its JSON, which then goes the way of any airdrop; or say what that would do",
        query=RegisterQuery,
        body=RegisterBody,
        answer=ModelObject,
        statuses=(201,),
        instead=PreviewAnswer,
        errors=(*WRITING, *FETCHING),
    ),
    Route(
        method="POST",
        path="/v1/models/{id}/copy",
        handler=registering.copy_model,
        summary="Make a custom model from an existing one, which shares its binaries",
        query=Nothing,
        body=CopyBody,
        answer=ModelObject,
        statuses=(201,),
        errors=WRITING,
    ),
    Route(
        method="PUT",
        path="/v1/models/{id}/pause",
        handler=registering.pause_model,
        summary="Halt a download",
        query=Nothing,
        body=Nothing,
        answer=ModelObject,
        errors=(ModelNotFoundError, NotPossibleError),
    ),
    Route(
        method="PUT",
        path="/v1/models/{id}/resume",
        handler=registering.resume_model,
        summary="Go on with a download, or try one again that waits",
        query=Nothing,
        body=Nothing,
        answer=ModelObject,
        errors=(ModelNotFoundError, NotPossibleError),
    ),
    Route(
        method="GET",
        path="/v1/catalog",
        handler=registering.list_catalog,
        summary="List the catalogue, each entry with what it would download",
        query=Nothing,
        body=Nothing,
        answer=CatalogAnswer,
    ),
    Route(
        method="GET",
        path="/v1/search",
        handler=registering.search_hub,
        summary="Look for repositories on the hub, each with what fits this machine",
        query=SearchQuery,
        body=Nothing,
        answer=SearchAnswer,
        errors=(BadRequestError, *FETCHING),
    ),
    Route(
        method="GET",
        path="/v1/models/{id}",
        handler=models.get_model,
        summary="Show one model",
        query=Nothing,
        body=Nothing,
        answer=ModelObject,
        errors=(ModelNotFoundError,),
    ),
    Route(
        method="DELETE",
        path="/v1/models/{id}",
        handler=models.delete_model,
        summary="Stop a model and remove its JSON and its own binaries",
        query=DeleteQuery,
        body=Nothing,
        answer=DeleteAnswer,
        errors=(ModelNotFoundError, NotPossibleError, BadRequestError),
    ),
    Route(
        method="PUT",
        path="/v1/models/{id}/start",
        handler=models.start_model,
        summary="Start a model and answer once it runs",
        query=StartQuery,
        body=StartBody,
        answer=StartAnswer,
        statuses=(200, 202),
        errors=STARTING,
    ),
    Route(
        method="PUT",
        path="/v1/models/{id}/stop",
        handler=models.stop_model,
        summary="Stop a model and answer once its process is gone",
        query=StopQuery,
        body=Nothing,
        answer=ModelObject,
        errors=(ModelNotFoundError, NotPossibleError),
    ),
    Route(
        method="GET",
        path="/v1/problems",
        handler=problems.list_problems,
        summary="List what is wrong with files and folders",
        query=Nothing,
        body=Nothing,
        answer=ProblemList,
    ),
    Route(
        method="POST",
        path="/v1/rescan",
        handler=problems.rescan,
        summary="Scan everything now",
        query=Nothing,
        body=Nothing,
        answer=RescanAnswer,
    ),
    Route(
        method="GET",
        path="/v1/events",
        handler=events.stream_events,
        summary="Listen to what happens",
        query=EventsQuery,
        body=Nothing,
        answer=None,
        media=("text/event-stream",),
        errors=(BadRequestError,),
        endless=True,
    ),
    Route(
        method="POST",
        path="/v1/chat/completions",
        handler=inference.chat_completions,
        summary="Answer a conversation",
        query=Nothing,
        body=Nothing,
        reads=InferenceBody,
        answer=None,
        media=STREAM,
        errors=INFERRING,
    ),
    Route(
        method="POST",
        path="/v1/completions",
        handler=inference.completions,
        summary="Complete a text",
        query=Nothing,
        body=Nothing,
        reads=InferenceBody,
        answer=None,
        media=STREAM,
        errors=INFERRING,
    ),
    Route(
        method="POST",
        path="/v1/embeddings",
        handler=inference.embeddings,
        summary="Turn texts into vectors",
        query=Nothing,
        body=Nothing,
        reads=InferenceBody,
        answer=None,
        errors=INFERRING,
    ),
    Route(
        method="POST",
        path="/v1/responses",
        handler=inference.responses,
        summary="Answer in the form of OpenAI's responses, without keeping anything",
        query=Nothing,
        body=Nothing,
        reads=InferenceBody,
        answer=None,
        media=STREAM,
        errors=INFERRING,
    ),
    Route(
        method="POST",
        path="/openai/deployments/{id}/chat/completions",
        handler=inference.deployed_chat_completions,
        summary="Answer a conversation, for clients made for Azure: a model is their deployment, api-version is ignored",
        query=Nothing,
        body=Nothing,
        reads=DeployedBody,
        answer=None,
        media=STREAM,
        errors=INFERRING,
    ),
    Route(
        method="POST",
        path="/openai/deployments/{id}/completions",
        handler=inference.deployed_completions,
        summary="Complete a text, for clients made for Azure",
        query=Nothing,
        body=Nothing,
        reads=DeployedBody,
        answer=None,
        media=STREAM,
        errors=INFERRING,
    ),
    Route(
        method="POST",
        path="/openai/deployments/{id}/embeddings",
        handler=inference.deployed_embeddings,
        summary="Turn texts into vectors, for clients made for Azure",
        query=Nothing,
        body=Nothing,
        reads=DeployedBody,
        answer=None,
        errors=INFERRING,
    ),
    Route(
        method="GET",
        path="/health",
        handler=health.health,
        summary="Say that the daemon lives, and how it is",
        query=Nothing,
        body=Nothing,
        answer=HealthAnswer,
        waits=False,
    ),
    Route(
        method="GET",
        path="/ready",
        handler=health.ready,
        summary="Say whether the first scan has ended",
        query=Nothing,
        body=Nothing,
        answer=ReadyAnswer,
        errors=(NotReadyError,),
        waits=False,
    ),
    Route(
        method="GET",
        path="/metrics",
        handler=metrics.metrics,
        summary="Give numbers for Prometheus",
        query=Nothing,
        body=Nothing,
        answer=None,
        media=("text/plain",),
    ),
    Route(
        method="GET",
        path="/version",
        handler=health.version,
        summary="Name the versions in use",
        query=Nothing,
        body=Nothing,
        answer=VersionAnswer,
    ),
    Route(
        method="GET",
        path="/openapi.json",
        handler=health.describe,
        summary="Describe this API",
        query=Nothing,
        body=Nothing,
        answer=None,
    ),
)


def create_app(manager: Manager, settings: ApiSettings, *, version_facts: Mapping[str, str]) -> web.Application:
    """Return the application; `listen.open_listeners` serves it. *version_facts* go into `/version` beside our own."""
    shared = Shared(
        manager=manager,
        settings=settings,
        objects=ModelObjects(),
        drain=Drain(),
        facts=version_facts,
        description=cache(lambda: openapi.describe(ROUTES, tokenless=guard.TOKENLESS)),
    )
    app = web.Application(middlewares=[answer_errors, guard.make_guard(settings)])
    app[SHARED] = shared
    app.on_response_prepare.append(guard.make_cors(settings))
    for route in ROUTES:
        app.router.add_route(route.method, route.pattern, bind(route, shared))
        if route.method == "GET" and not route.endless:
            app.router.add_route("HEAD", route.pattern, bind(route, shared))
    return app
