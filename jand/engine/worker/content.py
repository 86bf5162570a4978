"""The content of messages for a template: texts joined in their order, a marker where an image stands, and the bytes of each image."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from jand.errors import BadRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jand.engine.worker.prompts import Message
    from jand.engine.worker.requests import ChatMessage

MOST_IMAGES: Final = 64
"""In one request."""
MOST_BYTES: Final = 20 << 20
"""Of one image as a file."""
_DATA_URI: Final = re.compile(r"data:[^,;]{0,128}(?:;[^,;]{1,128})*?(;base64)?,", re.IGNORECASE)
_SHOWN: Final = 40


@dataclass(frozen=True, slots=True)
class Image:
    """An image file as it came; *digest* is the sha256 of its bytes, *place* says in errors where it stands."""

    data: bytes
    digest: str
    place: str


def read_messages(messages: Sequence[ChatMessage], marker: str | None) -> tuple[list[Message], list[Image]]:
    """Return *messages* with text for content, and their images in order, for each of which *marker* stands in the text.

    *marker* is None where the model cannot see. Raises BadRequestError for what is neither text nor an image, or an image that is none.
    """
    images: list[Image] = []
    read: list[Message] = []
    for number, message in enumerate(messages):
        given = {**(message.model_extra or {}), "role": message.role}
        content = message.content
        if isinstance(content, list):
            content = _join(content, f"messages[{number}].content", marker, images)
        elif marker and content and marker in content:
            raise _forged()
        read.append({**given, "content": content or ""})
    return read, images


def _join(parts: list[dict[str, Any]], place: str, marker: str | None, images: list[Image]) -> str:
    """Join the texts of *parts* by line ends; an image stands in its text without one, as llama.cpp's server has it."""
    joined = ""
    after_text = False
    for number, part in enumerate(parts):
        match part:
            case {"type": "text" | "input_text" | "output_text", "text": str(text)}:
                if marker and marker in text:
                    raise _forged()
                joined += ("\n" if after_text else "") + text
                after_text = True
            case {"type": "image_url" | "input_image"}:
                if marker is None:
                    raise BadRequestError(
                        f'cannot take an image in "{place}[{number}]": this model reads text only',
                        hint="a model that sees has a projector (mmproj-*.gguf) beside its weights",
                        param="messages",
                    )
                if len(images) == MOST_IMAGES:
                    raise BadRequestError(
                        f'cannot take "messages": they have more than {MOST_IMAGES} images', param="messages"
                    )
                images.append(_read_image(part, f"{place}[{number}]"))
                joined += marker
                after_text = False
            case _:
                raise BadRequestError(
                    f'cannot take a part of type {str(part.get("type"))[:_SHOWN]!r} in "{place}[{number}]"',
                    hint="text and image_url are read" if marker else "this model reads text only",
                    param="messages",
                )
    return joined


def _read_image(part: dict[str, Any], place: str) -> Image:
    """Take OpenAI's part of a chat message, `{"image_url": {"url"}}` or the text itself, and that of its responses, `{"image_url": text}`."""
    given = part.get("image_url")
    url = given.get("url") if isinstance(given, dict) else given
    if not isinstance(url, str) or not url:
        raise BadRequestError(f'cannot read the image in "{place}": it has no url', param="messages")
    if url[:8].lower().startswith(("http://", "https://")):
        raise BadRequestError(
            f'cannot read the image in "{place}": remote images are not fetched here',
            hint="send it as a data: URI, or set remote_images = true in jand.toml",
            param="messages",
        )
    head = _DATA_URI.match(url)
    if head is None:
        raise BadRequestError(
            f'cannot read the image in "{place}": its url is no data: URI',
            hint="data:image/png;base64,...",
            param="messages",
        )
    if not head[1]:
        raise BadRequestError(
            f'cannot read the image in "{place}": its data: URI is not marked ";base64"', param="messages"
        )
    # Four characters hold three bytes; looked at before a copy is made.
    if (len(url) - head.end()) // 4 * 3 > MOST_BYTES + 3:
        raise BadRequestError(
            f'cannot read the image in "{place}": it has more than {MOST_BYTES >> 20} MiB',
            hint="scale it down",
            param="messages",
        )
    try:
        data = base64.b64decode("".join(url[head.end() :].split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequestError(
            f'cannot read the image in "{place}": it is no valid base64 ({error})', param="messages"
        ) from error
    return Image(data, hashlib.sha256(data).hexdigest(), place)


def _forged() -> BadRequestError:
    return BadRequestError('cannot take "messages": a text has the marker of an image in it', param="messages")
