"""`/openapi.json` (OpenAPI 3.1): written from the route table and from the models that validate, so it cannot say anything else than what is done."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from pydantic.json_schema import models_json_schema

import jand
from jand.api.errors import STATUS
from jand.api.schemas import ErrorAnswer, Nothing
from jand.errors import (
    BadJsonError,
    BadRequestError,
    BodyTooLargeError,
    ForbiddenHostError,
    ForbiddenOriginError,
    JandError,
    ShuttingDownError,
    UnauthorizedError,
    UnsupportedMediaTypeError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pydantic import BaseModel
    from pydantic.json_schema import JsonSchemaMode

    from jand.api.route import Route

ANYWHERE: Final = (JandError, ForbiddenHostError, ForbiddenOriginError, ShuttingDownError)
WITH_BODY: Final = (BadJsonError, BadRequestError, BodyTooLargeError, UnsupportedMediaTypeError)
EVENT_STREAM: Final = "text/event-stream"
PARTS: Final = {
    "id": "the id of a model or an alias, percent-encoded",
    "folder": "a folder below models/, percent-encoded; it is made where it is missing",
    "name": "what the file is to be called in that folder, percent-encoded",
    "file": "a file of the page",
}
"""What the named parts of paths are."""

Json = dict[str, Any]


def describe(routes: Sequence[Route[Any, Any]], *, needs_token: Callable[[str], bool]) -> bytes:
    """Return the document. *needs_token* tells it of a path."""
    models, definitions = schemas(routes)
    paths: Json = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = operation(
            route, models, open_to_all=not needs_token(route.path)
        )
    document = {
        "openapi": "3.1.0",
        "info": {
            "title": "jand",
            "version": jand.__version__,
            "summary": "Language models on this machine, for every app on it",
        },
        "servers": [{"url": "/", "description": "the Unix socket, or where `listen` says"}],
        "paths": paths,
        "components": {
            "schemas": definitions,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "over TCP, where a token is set"}
            },
        },
    }
    return json.dumps(document, indent=1).encode()


def schemas(routes: Sequence[Route[Any, Any]]) -> tuple[dict[type[BaseModel], Json], Json]:
    """Return the reference for each model, and the definitions that the references name."""
    wanted: dict[type[BaseModel], JsonSchemaMode] = {ErrorAnswer: "serialization"}
    for route in routes:
        for answered in (route.answer, route.instead):
            if answered is not None:
                wanted[answered] = "serialization"
        for taken in (route.body, route.reads):
            if taken not in {None, Nothing}:
                assert taken is not None
                wanted[taken] = "validation"
    made, shared = models_json_schema(list(wanted.items()), ref_template="#/components/schemas/{model}")
    return {model: made[model, mode] for model, mode in wanted.items()}, shared.get("$defs", {})


def operation(route: Route[Any, Any], models: dict[type[BaseModel], Json], *, open_to_all: bool) -> Json:
    described: Json = {
        "operationId": route.handler.__name__,
        "summary": route.summary,
        "parameters": [*path_parameters(route), *query_parameters(route)],
        "responses": success(route, models) | failures(route, models, open_to_all=open_to_all),
        "security": [] if open_to_all else [{}, {"token": []}],
    }
    taken = body_of(route)
    if taken is not None:
        described["requestBody"] = {
            "required": any(field.is_required() for field in taken.model_fields.values()),
            "content": {"application/json": {"schema": models[taken]}},
        }
    if route.takes is not None:
        content = {route.takes: {"schema": {"type": "string", "format": "binary"}}}
        described["requestBody"] = {"required": True, "content": content}
    return described


def body_of(route: Route[Any, Any]) -> type[BaseModel] | None:
    if route.reads is not None:
        return route.reads
    taken: type[BaseModel] = route.body
    return None if taken is Nothing else taken


def path_parameters(route: Route[Any, Any]) -> list[Json]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1},
            "description": PARTS[name],
        }
        for name in route.parameters
    ]


def query_parameters(route: Route[Any, Any]) -> list[Json]:
    schema = route.query.model_json_schema()
    definitions = schema.get("$defs", {})
    parameters = []
    for name, described in schema.get("properties", {}).items():
        description = described.pop("description", "")
        parameters.append(
            {
                "name": name,
                "in": "query",
                "required": name in schema.get("required", ()),
                "description": description,
                "schema": inlined(described, definitions),
            }
        )
    if EVENT_STREAM in route.media and route.endless:
        parameters.append(
            {
                "name": "Last-Event-ID",
                "in": "header",
                "required": False,
                "description": "resume after this event",
                "schema": {"type": "string", "pattern": "^[0-9]{0,18}$"},
            }
        )
    return parameters


def inlined(schema: Json, definitions: Json) -> Json:
    """Put the definition in place of a reference to it; query models refer no deeper than to an enumeration."""
    reference = schema.pop("$ref", None)
    return schema if reference is None else definitions[reference.rsplit("/", 1)[-1]] | schema


def success(route: Route[Any, Any], models: dict[type[BaseModel], Json]) -> Json:
    json_schema: Json = {"type": "object"} if route.answer is None else models[route.answer]
    # An event has fields, of which data is a text of JSON; tools that know streams hold each event to this.
    kinds: Json = {EVENT_STREAM: {}, "application/json": json_schema}
    content = {media: {"schema": kinds.get(media, {"type": "string"})} for media in route.media}
    found = {str(status): {"description": route.summary, "content": content} for status in route.statuses}
    if route.instead is not None:
        content = {"application/json": {"schema": models[route.instead]}}
        found["200"] = {"description": route.instead.__doc__ or "", "content": content}
    return found


def failures(route: Route[Any, Any], models: dict[type[BaseModel], Json], *, open_to_all: bool) -> Json:
    kinds: set[type[JandError]] = {*ANYWHERE, *route.errors}
    if not open_to_all:
        kinds.add(UnauthorizedError)
    if body_of(route) is not None:
        kinds |= set(WITH_BODY)
    if route.takes is not None:
        kinds.add(UnsupportedMediaTypeError)
    if route.query is not Nothing:
        kinds.add(BadRequestError)
    by_status: dict[int, list[str]] = {}
    for kind in sorted(kinds, key=lambda kind: kind.code):
        by_status.setdefault(STATUS[kind.code], []).append(kind.code)
    content = {"application/json": {"schema": models[ErrorAnswer]}}
    return {
        str(status): {"description": ", ".join(codes), "content": content} | retry_after(status)
        for status, codes in sorted(by_status.items())
    }


def retry_after(status: int) -> Json:
    if status not in {429, 503}:
        return {}
    schema = {"type": "integer", "minimum": 1}
    return {"headers": {"Retry-After": {"description": "seconds", "required": True, "schema": schema}}}
