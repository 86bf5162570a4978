"""`PUT /v1/uploads/{folder}/{name}`: a file comes in over HTTP, as it would by any other airdrop, and is streamed to the disk whatever its size."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from jand.api.guard import OCTETS
from jand.api.route import Call, Route, answer_json
from jand.api.schemas import Nothing, UploadAnswer, UploadQuery
from jand.errors import (
    BadFileNameError,
    BadRequestError,
    DiskError,
    DiskFullError,
    FileTakenError,
    FolderGoneError,
    GgufError,
    IncompleteGgufError,
    LegacyGgmlError,
    NotPossibleError,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiohttp import web


async def receive_file(call: Call[UploadQuery, Nothing]) -> web.Response:
    parts = call.request.match_info
    folder, name = parts["folder"], parts["name"]
    pieces = read_pieces(call.request, call.shared.settings.stalled_upload_s)
    received = await call.shared.manager.receive(
        folder, name, pieces, size=call.request.content_length, sha256=call.query.sha256
    )
    answer = UploadAnswer(path=f"models/{folder}/{received.name}", size=received.size, sha256=received.sha256)
    return answer_json(answer, 201)


async def read_pieces(request: web.Request, patience_s: float) -> AsyncIterator[bytes]:
    """Yield the body as it comes. Raises BadRequestError where nothing comes for *patience_s* seconds."""
    while True:
        try:
            async with asyncio.timeout(patience_s):
                piece = await request.content.readany()
        except TimeoutError as error:
            message = f"cannot take the file: nothing came for {patience_s:g} s"
            raise BadRequestError(message, hint="send it again") from error
        if not piece:
            return
        yield piece


ROUTE: Final = Route(
    method="PUT",
    path="/v1/uploads/{folder}/{name}",
    handler=receive_file,
    summary="Send a file into a folder below models/; it gets its name once it is whole and checked, and never replaces one",
    query=UploadQuery,
    body=Nothing,
    takes=OCTETS,
    answer=UploadAnswer,
    statuses=(201,),
    errors=(
        *(FileTakenError, NotPossibleError, BadFileNameError),
        *(GgufError, IncompleteGgufError, LegacyGgmlError),
        *(DiskError, DiskFullError, FolderGoneError),
    ),
)
