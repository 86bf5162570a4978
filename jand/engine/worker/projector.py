"""The door to mtmd: a projector beside the weights, which splits a prompt at its images and turns each into embeddings.

Encoding is for one thread at a time and needs no llama context, so it may run while another thread decodes; `split` may run on any thread at any time. What C made is
freed by the thread that had it made, in the same call.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from jand.engine.worker import llama
from jand.engine.worker.llama import lib
from jand.errors import BadRequestError, EngineError, StartError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from jand.engine.worker.options import Options
    from jand.engine.worker.weights import Weights

_ROWS: Final = 4
"""Positions of a token under M-RoPE; a model without it reads the first row alone."""
_TEXT: Final = 0


@dataclass(frozen=True, slots=True)
class Blank:
    """An image of which only the size is known, for one whose embeddings are at hand: it takes the same places in the prompt."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a prompt: *tokens* of text, or *count* embeddings of image number *image* at *places*, moving what follows by *span* positions."""

    tokens: list[int]
    image: int = -1
    count: int = 0
    span: int = 0
    places: npt.NDArray[np.int32] | None = None
    chunk: Any = None


class Projector:
    """Owns an `mtmd_context`. *marker* stands for an image in a prompt; it is random, so that no text of a request can be taken for one."""

    def __init__(self, functions: Any, handle: Any, marker: str, width: int) -> None:
        self.marker = marker
        self._mtmd = functions
        self._handle = handle
        self._width = width
        self.atomic = bool(functions.mtmd_decode_use_non_causal(handle, None))
        """Whether the embeddings of an image look at one another both ways and must be decoded in one micro-batch."""

    @contextlib.contextmanager
    def split(
        self, text: str, images: Sequence[npt.NDArray[np.uint8] | Blank], *, add_special: bool
    ) -> Iterator[list[Part]]:
        """Yield the parts of the prompt *text*, in which each of *images* has its marker; their chunks live as long as the context. BadRequestError where it cannot."""
        if text.count(self.marker) != len(images):
            raise BadRequestError(
                "cannot answer: the chat template of this model leaves an image out, or repeats it",
                hint="give user_prompt and ai_prompt in its JSON instead",
                param="messages",
            )
        bitmaps: list[Any] = []
        chunks = self._mtmd.mtmd_input_chunks_init()
        try:
            for number, image in enumerate(images):
                bitmaps.append(self._bitmap(number, image))
            data = text.encode("utf-8", "replace")
            prompt = self._mtmd.mtmd_input_text(data, len(data), add_special, True)
            array = (ctypes.c_void_p * len(bitmaps))(*bitmaps)
            code = self._mtmd.mtmd_tokenize(self._handle, chunks, ctypes.byref(prompt), array, len(bitmaps))
            if code:
                raise BadRequestError(
                    "cannot answer: the projector of this model cannot use an image of that shape", param="messages"
                )
            yield self._parts(chunks)
        finally:
            self._mtmd.mtmd_input_chunks_free(chunks)
            for bitmap in bitmaps:
                self._mtmd.mtmd_bitmap_free(bitmap)

    def encode(self, part: Part) -> npt.NDArray[np.float32]:
        """Return the (count, width) embeddings of an image's *part*. Blocks for as long as that takes, which may be seconds, without the GIL."""
        if self._mtmd.mtmd_encode_chunk(self._handle, part.chunk):
            raise EngineError("cannot encode an image: the projector failed")
        pointer = self._mtmd.mtmd_get_output_embd(self._handle)
        return np.ctypeslib.as_array(pointer, (part.count, self._width)).copy()

    def _bitmap(self, number: int, image: npt.NDArray[np.uint8] | Blank) -> Any:
        if isinstance(image, Blank):
            bitmap = self._mtmd.mtmd_bitmap_init(image.width, image.height, None)
        else:
            height, width, _ = image.shape
            pixels = image.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
            bitmap = self._mtmd.mtmd_bitmap_init(width, height, pixels)
        self._mtmd.mtmd_bitmap_set_id(bitmap, str(number).encode())
        return bitmap

    def _parts(self, chunks: Any) -> list[Part]:
        mtmd, parts, position = self._mtmd, list[Part](), 0
        for index in range(mtmd.mtmd_input_chunks_size(chunks)):
            chunk = mtmd.mtmd_input_chunks_get(chunks, index)
            count = int(mtmd.mtmd_input_chunk_get_n_tokens(chunk))
            span = int(mtmd.mtmd_input_chunk_get_n_pos(chunk))
            if mtmd.mtmd_input_chunk_get_type(chunk) == _TEXT:
                length = ctypes.c_size_t(0)
                tokens = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(length))
                parts.append(Part(tokens[: length.value]))
            else:
                image = int(mtmd.mtmd_input_chunk_get_id(chunk))
                parts.append(Part([], image, count, span, self._places(chunk, count, position), chunk))
            position += span
        return parts

    def _places(self, chunk: Any, count: int, position: int) -> npt.NDArray[np.int32]:
        """Return the positions of an image that begins at *position*, a row for each section of M-RoPE."""
        if not self._mtmd.mtmd_decode_use_mrope(self._handle):
            return np.tile(np.arange(position, position + count, dtype=np.int32), (_ROWS, 1))
        found = (self._mtmd.mtmd_decoder_pos * count)()
        tokens = self._mtmd.mtmd_input_chunk_get_tokens_image(chunk)
        self._mtmd.mtmd_helper_image_get_decoder_pos(tokens, position, found)
        places = np.ctypeslib.as_array(ctypes.cast(found, ctypes.POINTER(ctypes.c_uint32)), (count, 4)).astype(np.int32)
        return np.ascontiguousarray(places.T[[0, 2, 1, 3]])  # t, y, x, z: the order of the sections


def load_projector(path: str, weights: Weights, options: Options) -> Projector:
    """Load the projector that goes with *weights*; StartError where it does not. Blocks."""
    functions = llama.mtmd()
    capabilities = functions.mtmd_get_cap_from_file(os.fsencode(path))
    if not capabilities.inp_vision:
        raise StartError(
            f"the projector {path} is not for images", hint="only images are understood", reason="projector-failed"
        )
    marker = f"<|image {secrets.token_hex(16)}|>"
    parameters = functions.mtmd_context_params_default()
    parameters.media_marker = kept = marker.encode()
    parameters.use_gpu = options.ngl != 0
    parameters.print_timings = False
    parameters.n_threads = options.n_threads_batch
    handle = functions.mtmd_init_from_file(os.fsencode(path), weights.handle, parameters)
    del kept
    if not handle:
        raise StartError(
            f"llama.cpp cannot use the projector {path} with these weights",
            hint="it must be made for this very model; the last lines of the worker's log say more",
            reason="projector-failed",
        )
    return Projector(functions, handle, marker, int(lib.llama_model_n_embd_inp(weights.handle)))
