"""Log-probabilities of the model's own distribution, before anything is penalised or cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jand.engine.worker.answer import TokenLogprob

if TYPE_CHECKING:
    import numpy.typing as npt

    from jand.engine.worker.context import Context
    from jand.engine.worker.weights import Weights


def normalise(context: Context, index: int) -> npt.NDArray[np.float32]:
    """Return natural log-probabilities over the vocabulary for the batch's token *index*."""
    logits = context.logits(index)
    if logits is None:
        raise RuntimeError(f"token {index} of the batch has no logits")
    highest = logits.max()
    normalised: npt.NDArray[np.float32] = logits - (highest + np.log(np.exp(logits - highest).sum()))
    return normalised


def describe(weights: Weights, normalised: npt.NDArray[np.float32], token: int, top: int) -> TokenLogprob:
    likeliest: list[int] = []
    if top:
        found = np.argpartition(normalised, -top)[-top:]
        likeliest = [int(index) for index in found[np.argsort(normalised[found])[::-1]]]
    return TokenLogprob(
        weights.piece(token, special=True),
        float(normalised[token]),
        tuple((weights.piece(other, special=True), float(normalised[other])) for other in likeliest),
    )
