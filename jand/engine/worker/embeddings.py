"""`/v1/embeddings` on the event loop: inputs become tokens, vectors become OpenAI's answer."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jand.engine.worker import requests
from jand.engine.worker.embedder import Job, normalise
from jand.engine.worker.notes import log_unknown
from jand.errors import BadRequestError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from jand.engine.worker.embedder import Embedder
    from jand.engine.worker.weights import Weights

MOST_INPUTS: Final = 2048
_KNOWN: Final = frozenset({"user", "embd_normalize", "content"})


class EmbeddingRequest(BaseModel):
    """*input* is a text, the tokens of one, or a list of either."""

    model_config = ConfigDict(extra="allow")

    model: str = ""
    input: str | list[int] | Annotated[list[str | list[int]], Field(max_length=MOST_INPUTS)]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, ge=1)

    def inputs(self) -> list[str | list[int]]:
        if isinstance(self.input, str):
            return [self.input]
        tokens = [item for item in self.input if isinstance(item, int)]
        return [tokens] if tokens else [item for item in self.input if not isinstance(item, int)]


class Embeddings:
    """Knows the model's id; the embedder does the work."""

    def __init__(self, model_id: str, weights: Weights, embedder: Embedder) -> None:
        self._model_id = model_id
        self._weights = weights
        self._embedder = embedder

    async def answer(self, data: bytes) -> dict[str, Any]:
        """Return the whole answer; a caller that is cancelled ends the work for it."""
        request = self._parse(data)
        if not (given := request.inputs()):
            raise BadRequestError('cannot take "input": it is empty', param="input")
        inputs = [self._tokens(each) if isinstance(each, str) else each for each in given]
        job = Job(inputs, asyncio.get_running_loop().create_future())
        self._embedder.submit(job)
        try:
            vectors = await job.result
        finally:
            self._embedder.cancel(job)
        count = sum(len(tokens) for tokens in inputs)
        data_ = [
            {"object": "embedding", "index": index, "embedding": _encode(_cut(vector, request.dimensions), request)}
            for index, vector in enumerate(vectors)
        ]
        usage = {"prompt_tokens": count, "total_tokens": count}
        return {"object": "list", "data": data_, "model": self._model_id, "usage": usage}

    def _parse(self, data: bytes) -> EmbeddingRequest:
        try:
            request = EmbeddingRequest.model_validate(requests.parse_body(data))
        except ValidationError as error:
            raise requests.translate(error) from error
        if request.dimensions is not None and request.dimensions > self._embedder.size:
            raise BadRequestError(
                f'cannot take "dimensions": this model makes vectors of {self._embedder.size}', param="dimensions"
            )
        log_unknown([name for name in request.model_extra or {} if name not in _KNOWN])
        return request

    def _tokens(self, text: str) -> list[int]:
        return self._weights.tokenize(text, special=False, add_special=True)


def _cut(vector: npt.NDArray[np.float32], dimensions: int | None) -> npt.NDArray[np.float32]:
    return vector if dimensions is None else normalise(vector[:dimensions])


def _encode(vector: npt.NDArray[np.float32], request: EmbeddingRequest) -> list[float] | str:
    if request.encoding_format == "base64":
        return base64.b64encode(vector.astype("<f4").tobytes()).decode("ascii")
    values: list[float] = vector.tolist()
    return values
