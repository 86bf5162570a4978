"""What is in force of a model's `init` parameters once it is loaded, defaults included, and what of them this build or this model does not honour."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jand.engine.worker.llama import lib
from jand.engine.worker.options import usable_processors

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jand.engine.worker.context import Context
    from jand.engine.worker.options import Options
    from jand.engine.worker.weights import Weights


def parameters(options: Options, weights: Weights, *, opened: Context | None) -> dict[str, Any]:
    """Return `init` by the names of the JSON. *opened* is the context for text, None for a model that makes vectors alone."""
    found: dict[str, Any] = {
        "ngl": options.ngl if lib.llama_supports_gpu_offload() else 0,
        "embedding": options.embedding or not weights.facts.causal,
        "n_threads": options.n_threads,
        "n_threads_batch": options.n_threads_batch,
        "flash_attn": {"on": True, "off": False}.get(options.flash_attn, options.flash_attn),
        "cache_type_k": options.cache_type_k,
        "cache_type_v": options.cache_type_v,
    }
    if opened is not None:
        found |= {"ctx_len": opened.ctx_len, "n_parallel": opened.sequences, "n_batch": opened.n_batch}
    return found


def warnings(
    options: Options, weights: Weights, found: Mapping[str, Any], *, given: Mapping[str, Any], projector: str | None
) -> list[str]:
    """Say what of *given*, the JSON's own, has no effect, another one than written, or one that is hardly meant; *found* is in force."""
    facts, said = weights.facts, list(options.warnings)
    if options.ctx_len is not None and options.ctx_len > facts.n_ctx_train > 0:
        said.append(
            f"ctx_len {options.ctx_len} is more than the {facts.n_ctx_train} tokens that the model was trained on"
        )
    if options.ngl > 0 and not lib.llama_supports_gpu_offload():
        said.append("ngl has no effect: llama.cpp was built without support for a GPU")
    devices = int(lib.llama_max_devices())
    if options.tensor_split and (devices < 2 or not lib.llama_supports_gpu_offload()):
        said.append("tensor_split has no effect: llama.cpp was built for one device")
    elif len(options.tensor_split) > devices:
        said.append(f"tensor_split has {len(options.tensor_split)} shares, and only the first {devices} count")
    said += _of_processors(options, given)
    if given.get("n_batch") is not None and found.get("n_batch", given["n_batch"]) != given["n_batch"]:
        said.append(f"n_batch {given['n_batch']} is {found['n_batch']} here: a batch holds no more than a context")
    if not facts.causal:
        said += _of_encoders(given, projector)
    return said


def _of_processors(options: Options, given: Mapping[str, Any]) -> list[str]:
    processors = usable_processors()
    return [
        f"{name} {given[name]} is more than the {processors} processors that may be used: threads will wait for one another"
        for name in ("n_threads", "n_threads_batch")
        if given.get(name) is not None and getattr(options, name) > processors
    ]


def _of_encoders(given: Mapping[str, Any], projector: str | None) -> list[str]:
    """Say what is for text in a model that makes vectors."""
    names = ("n_parallel", "n_batch", "pre_prompt", "user_prompt", "ai_prompt", "lora")
    said = [f"{name} has no effect: the model makes vectors and no text" for name in names if given.get(name)]
    if given.get("embedding") is False:
        said.append("embedding is false, and embeddings are served all the same: the model can do nothing else")
    if projector is not None:
        said.append("the projector has no effect: the model makes vectors and no text")
    return said
