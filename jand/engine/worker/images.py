"""From the bytes of an image file to pixels, by Pillow: formats, size and pixel count are looked at before anything is unpacked."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps, UnidentifiedImageError

from jand.errors import BadRequestError

if TYPE_CHECKING:
    import numpy.typing as npt

    from jand.engine.worker.content import Image

FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""The others that Pillow knows are hardly ever sent, and each is one more parser for bytes from anywhere."""
MOST_PIXELS: Final = 50_000_000
"""150 MB of memory as RGB."""
MOST_STRETCH: Final = 200
"""The longer side by the shorter: encoders cut an image into tiles by its shape."""


def open_pixels(image: Image) -> npt.NDArray[np.uint8]:
    """Return the first frame of *image* as (height, width, 3) RGB, turned as its EXIF data say; transparent parts are white. Blocks; BadRequestError where it cannot."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of sizes that are refused here, and of damaged metadata
            with Pillow.open(io.BytesIO(image.data), formats=FORMATS) as opened:
                _check_size(opened.size, image.place)
                turned = ImageOps.exif_transpose(opened)
                return np.ascontiguousarray(_as_rgb(turned))
    except UnidentifiedImageError as error:
        raise BadRequestError(
            f'cannot read the image in "{image.place}": it is none of {", ".join(FORMATS)}', param="messages"
        ) from error
    except Pillow.DecompressionBombError as error:
        raise _too_large(image.place) from error
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, TypeError, ArithmeticError) as error:
        raise BadRequestError(
            f'cannot read the image in "{image.place}": it is broken ({str(error)[:100] or type(error).__name__})',
            param="messages",
        ) from error


def _check_size(size: tuple[int, int], place: str) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise BadRequestError(f'cannot read the image in "{place}": it is empty', param="messages")
    if width * height > MOST_PIXELS:
        raise _too_large(place)
    if max(size) > MOST_STRETCH * min(size):
        raise BadRequestError(
            f'cannot read the image in "{place}": {width} x {height} pixels are a line, no image', param="messages"
        )


def _too_large(place: str) -> BadRequestError:
    return BadRequestError(
        f'cannot read the image in "{place}": it has more than {MOST_PIXELS:,} pixels',
        hint="scale it down",
        param="messages",
    )


def _as_rgb(picture: Pillow.Image) -> npt.NDArray[np.uint8]:
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Pillow.new("RGBA", picture.size, "white")
        picture = Pillow.alpha_composite(white, picture)
    return np.asarray(picture.convert("RGB"), dtype=np.uint8)
