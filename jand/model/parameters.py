"""`parameters` of a model JSON: what a model is loaded with (`init`) and what a request is answered with where it leaves things out (`runtime`).

The names are those of model-specs.md, of OpenAI's API and of llama-server; every field is None where it is not set, so that the engine alone knows defaults.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Self

from pydantic import Field, model_validator

from jand.model import limits
from jand.model.fields import Attention, CacheType, Locations, Number, Part, Shares, Texts, Whole, expected


def _within(name: str) -> Any:
    least, most = limits.INIT[name]
    return Field(ge=least, le=most)


_Share = Annotated[Number, Field(ge=0, le=1)]
_Penalty = Annotated[Number, Field(ge=-2, le=2)]


class Init(Part):
    """What a model is loaded with; a change needs a restart."""

    ctx_len: Annotated[Whole, _within("ctx_len")] | None = Field(
        None, description="tokens that each of the n_parallel conversations gets"
    )
    ngl: Annotated[Whole, _within("ngl")] | None = Field(None, description="layers on the GPU; -1 is all")
    embedding: bool | None = Field(None, description="whether embeddings are served")
    n_parallel: Annotated[Whole, _within("n_parallel")] | None = Field(
        None, description="conversations at the same time"
    )
    pre_prompt: str | None = Field(None, description="what a conversation begins with")
    user_prompt: str | None = Field(None, description="what stands before each message of the user")
    ai_prompt: str | None = Field(None, description="what stands before each answer")
    n_threads: Annotated[Whole, _within("n_threads")] | None = Field(None, description="threads for generation")
    n_threads_batch: Annotated[Whole, _within("n_threads_batch")] | None = Field(
        None, description="threads for prompts"
    )
    n_batch: Annotated[Whole, _within("n_batch")] | None = Field(None, description="tokens decoded at once")
    flash_attn: Attention = Field(None, description="flash attention; llama.cpp chooses where it is not set")
    cache_type_k: CacheType | None = Field(None, description="type of the keys in the KV cache")
    cache_type_v: CacheType | None = Field(None, description="type of the values in the KV cache")
    tensor_split: Shares | None = Field(None, description="the share of each GPU", min_length=1)
    lora: Locations | None = Field(None, description="LoRA files, local or in the repository")
    api_key: str | None = Field(
        None, alias="API-KEY", description="a provider's key, or file:, credential: or env: and a name"
    )
    deployment_name: str | None = Field(None, alias="DEPLOYMENT-NAME", description="the provider's name of the model")
    api_version: str | None = Field(None, alias="api-version", description="the version of Azure's API")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.flash_attn is False and self.cache_type_v not in {None, *limits.PLAIN_CACHE_TYPES}:
            raise expected("f16, bf16 or f32 where flash_attn is off", hint="leave flash_attn out", at="cache_type_v")
        return self


class Runtime(Part):
    """What a request that leaves it out gets; a change is in force at once."""

    temperature: Annotated[Number, Field(ge=0)] | None = None
    token_limit: Annotated[Whole, Field(ge=-1)] | None = Field(None, description="the default of max_tokens")
    max_tokens: Annotated[Whole, Field(ge=-1)] | None = None
    max_completion_tokens: Annotated[Whole, Field(ge=-1)] | None = None
    n_predict: Annotated[Whole, Field(ge=-2)] | None = None
    stream: bool | None = Field(None, description="for `jand chat`; a request streams only where it asks for it")
    stop: Texts | None = None
    seed: Annotated[Whole, Field(ge=-1, le=2**63 - 1)] | None = None
    n: Annotated[Whole, Field(ge=1, le=256)] | None = None
    top_k: Annotated[Whole, Field(ge=-1)] | None = None
    top_p: _Share | None = None
    min_p: _Share | None = None
    typical_p: _Share | None = None
    top_n_sigma: Number | None = None
    presence_penalty: _Penalty | None = None
    frequency_penalty: _Penalty | None = None
    repeat_penalty: Annotated[Number, Field(gt=0)] | None = None
    repeat_last_n: Annotated[Whole, Field(ge=-1)] | None = None
    dynatemp_range: Annotated[Number, Field(ge=0)] | None = None
    dynatemp_exponent: Annotated[Number, Field(ge=0)] | None = None
    xtc_probability: _Share | None = None
    xtc_threshold: _Share | None = None
    dry_multiplier: Annotated[Number, Field(ge=0)] | None = None
    dry_base: Annotated[Number, Field(ge=0)] | None = None
    dry_allowed_length: Annotated[Whole, Field(ge=0)] | None = None
    dry_penalty_last_n: Annotated[Whole, Field(ge=-1)] | None = None
    dry_sequence_breakers: Texts | None = None
    mirostat: Annotated[Whole, Field(ge=0, le=2)] | None = None
    mirostat_tau: Annotated[Number, Field(ge=0)] | None = None
    mirostat_eta: Annotated[Number, Field(ge=0)] | None = None
    samplers: Texts | None = None
    ignore_eos: bool | None = None
    logit_bias: dict[str, Any] | list[Any] | None = None
    logprobs: bool | Annotated[int, Field(ge=0, le=100)] | None = None
    top_logprobs: Annotated[Whole, Field(ge=0, le=100)] | None = None
    grammar: str | None = None
    json_schema: dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None
    cache_prompt: bool | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None


_NO_RUNTIME: Final = Runtime()
"""One for all, since pydantic would copy a default for each of them."""


class Parameters(Part):
    """`init` is required where `parameters` is given; both are always there, with nothing set, where it is not."""

    init: Init
    runtime: Runtime = Field(default_factory=lambda: _NO_RUNTIME)
