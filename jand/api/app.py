"""The application: the routes behind the guard, with what all of them share."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from jand.api import guard, openapi, request_id
from jand.api.drain import Drain
from jand.api.errors import answer_errors
from jand.api.render import ModelObjects
from jand.api.route import Shared, bind
from jand.api.routes import ROUTES
from jand.errors import NotPossibleError
from jand.lifecycle.words import Words

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from jand.api.ports import Manager
    from jand.api.remote_images import RemoteImages
    from jand.api.settings import ApiSettings

SHARED: Final = web.AppKey("shared", Shared)


async def cannot_reload() -> Mapping[str, Any]:
    raise NotPossibleError("cannot read the settings again: this daemon was given them otherwise")


def create_app(
    manager: Manager,
    settings: ApiSettings,
    *,
    version_facts: Mapping[str, str],
    words: Words | None = None,
    images: RemoteImages | None = None,
    reload: Callable[[], Awaitable[Mapping[str, Any]]] = cannot_reload,
) -> web.Application:
    """Return the application; `listen.open_listeners` serves it.

    *images* fetches what requests name by address, and is closed with the application. *words* is what workers wrote. *version_facts* go into `/version` beside our own; *reload* reads the settings again and returns what that did, as ReloadAnswer has it.
    """
    shared = Shared(
        manager=manager,
        settings=settings,
        objects=ModelObjects(),
        drain=Drain(),
        facts=version_facts,
        description=cache(lambda: openapi.describe(ROUTES, needs_token=guard.needs_token)),
        words=words or Words(),
        images=images,
        reload=reload,
    )
    app = web.Application(middlewares=[request_id.name_request, answer_errors, guard.make_guard(settings)])
    app[SHARED] = shared
    if images is not None:
        app.on_cleanup.append(lambda _: images.close())
    app.on_response_prepare.append(request_id.show_name)
    app.on_response_prepare.append(guard.make_cors(settings))
    for route in ROUTES:
        app.router.add_route(route.method, route.pattern, bind(route, shared))
        if route.method == "GET" and not route.endless:
            app.router.add_route("HEAD", route.pattern, bind(route, shared))
    return app
