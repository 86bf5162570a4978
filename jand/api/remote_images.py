"""Images that a request names by address, fetched here and put into the body as data: URIs: a worker has no network.

The rules are those of downloads: http and https alone, private addresses only where `download.allow_private` says so, looked at again for every redirect. What a request
can make us do is bounded in images, bytes and time. Requests for remote models are not touched: a provider fetches by itself.
"""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any, Final

from jand.download.retry import TemporaryFailureError
from jand.download.web import Web
from jand.errors import BadRequestError, JandError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jand.download.settings import DownloadSettings

MOST_IMAGES: Final = 16
MOST_BYTES: Final = 20 << 20
"""Of one image, as a worker takes it."""
PATIENCE_S: Final = 30.0
"""For all images of a request together."""

Place = tuple[dict[str, Any], str, str]
"""The object that holds an address, its key there, and how to call that in an error."""


class RemoteImages:
    """Close it at the end."""

    def __init__(self, settings: DownloadSettings) -> None:
        self._web = Web(settings)

    async def close(self) -> None:
        await self._web.close()

    async def put_in(self, content: dict[str, Any]) -> bool:
        """Replace the addresses of images in the body *content* by the images; return whether there were any. BadRequestError names what cannot be had."""
        places = list(find_addresses(content))
        if not places:
            return False
        addresses = {holder[key]: name for holder, key, name in reversed(places)}
        if len(addresses) > MOST_IMAGES:
            raise BadRequestError(
                f"cannot fetch the images: there are more than {MOST_IMAGES}",
                hint="send them as data: URIs",
                param=_param(places[0]),
            )
        fetching = {url: asyncio.create_task(self._fetch(url, name)) for url, name in addresses.items()}
        try:
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.gather(*fetching.values())
        except TimeoutError:
            message = f"cannot fetch the images: they did not come within {PATIENCE_S:g} s"
            raise BadRequestError(message, hint="send them as data: URIs", param=_param(places[0])) from None
        finally:
            for task in fetching.values():
                task.cancel()
            await asyncio.gather(*fetching.values(), return_exceptions=True)
        for holder, key, _ in places:
            holder[key] = fetching[holder[key]].result()
        return True

    async def _fetch(self, url: str, name: str) -> str:
        """Return the data: URI of what is at *url*."""
        param = name.partition("[")[0]
        try:
            async with self._web.get(url) as answer:
                if answer.status != 200:
                    raise BadRequestError(
                        f'cannot fetch the image in "{name}": its server answers {answer.status}', param=param
                    )
                data = bytearray()
                async for piece in answer.response.content.iter_any():
                    data += piece
                    if len(data) > MOST_BYTES:
                        raise BadRequestError(
                            f'cannot fetch the image in "{name}": it has more than {MOST_BYTES >> 20} MiB', param=param
                        )
        except (TemporaryFailureError, JandError) as error:
            cause = error.error if isinstance(error, TemporaryFailureError) else error
            if isinstance(cause, BadRequestError):
                raise cause from error
            message = f'cannot fetch the image in "{name}": {cause.message}'
            raise BadRequestError(message, hint=cause.hint, param=param) from error
        encoded = await asyncio.to_thread(base64.b64encode, data)
        return f"data:application/octet-stream;base64,{encoded.decode('ascii')}"


def find_addresses(content: dict[str, Any]) -> Iterator[Place]:
    """Yield where the bodies of chat completions and responses name an image by an http address."""
    for field in ("messages", "input"):
        for number, message in enumerate(_objects(content.get(field))):
            for name in ("content", "output"):
                for index, part in enumerate(_objects(message.get(name))):
                    if part.get("type") in {"image_url", "input_image"}:
                        yield from _of_part(part, f"{field}[{number}].{name}[{index}]")


def _of_part(part: dict[str, Any], name: str) -> Iterator[Place]:
    holder, key = part, "image_url"
    if isinstance(part.get("image_url"), dict):
        holder, key = part["image_url"], "url"
    url = holder.get(key)
    if isinstance(url, str) and url[:8].lower().startswith(("http://", "https://")):
        yield holder, key, name


def _objects(value: object) -> list[dict[str, Any]]:
    """Return *value* as a list whose places stay what they are: what is no object counts as an empty one."""
    return [each if isinstance(each, dict) else {} for each in value] if isinstance(value, list) else []


def _param(place: Place) -> str:
    return place[2].partition("[")[0]
