"""The batch for a part of one picture: embeddings in the place of tokens. llama.cpp takes either in one decode, never both."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING, Any

import numpy as np

from jand.engine.worker.llama import lib

if TYPE_CHECKING:
    import numpy.typing as npt

    from jand.engine.worker.media import Picture


class PictureBatch:
    """A part of one picture for one decode, which reads the embeddings where they lie; *capacity* is the most it may have at once."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.count = 0
        self.atomic = False
        self._sequence = np.zeros(1, dtype=np.int32)
        self._counts = np.ones(capacity, dtype=np.int32)
        self._pointers = np.full(capacity, self._sequence.ctypes.data, dtype=np.uintp)
        self._outputs = np.zeros(capacity, dtype=np.int8)
        self._embeddings = np.zeros((0, 0), dtype=np.float32)
        self._places = np.zeros((0, 0), dtype=np.int32)

    def set(self, sequence: int, picture: Picture, offset: int, count: int, *, output: bool) -> int:
        """Take *count* embeddings of *picture* from *offset* on; with *output* the last one's logits are wanted. Return the index of the last."""
        if not 0 < count <= self.capacity or offset + count > picture.count:
            raise ValueError("the batch has no room for that")
        self.count = count
        self.atomic = picture.atomic
        self._sequence[0] = sequence
        self._outputs[:] = 0
        self._outputs[count - 1] = output
        self._embeddings = np.ascontiguousarray(picture.embeddings[offset : offset + count])
        self._places = np.ascontiguousarray(picture.places[:, offset : offset + count])
        return count - 1

    @property
    def raw(self) -> Any:
        """Return the C structure; what it points to lives until the next `set`."""
        kinds = {name: kind for name, kind, *_ in lib.llama_batch._fields_}
        arrays: dict[str, npt.NDArray[Any]] = {
            "embd": self._embeddings,
            "pos": self._places,
            "n_seq_id": self._counts,
            "seq_id": self._pointers,
            "logits": self._outputs,
        }
        pointers = {
            name: ctypes.cast(ctypes.c_void_p(array.ctypes.data), kinds[name]) for name, array in arrays.items()
        }
        return lib.llama_batch(n_tokens=self.count, **pointers)
