"""Images for tests, as the data: URIs that clients send."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence


def draw(width: int, height: int, *, seed: int = 0, form: str = "PNG", **how: Any) -> bytes:
    """Return an image file of random colours."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form, **how)
    return stream.getvalue()


def data_uri(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def shown(*parts: str | bytes) -> list[dict[str, Any]]:
    """Return a user's message of texts and images in their order."""
    return [{"role": "user", "content": content(parts)}]


def content(parts: Sequence[str | bytes]) -> list[dict[str, Any]]:
    return [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "image_url", "image_url": {"url": data_uri(part), "detail": "auto"}}
        for part in parts
    ]
