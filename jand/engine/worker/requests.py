"""Request bodies as OpenAI and llama-server name their fields, checked before anything of them reaches C.

A field that is known but cannot be honoured is refused by its name; an unknown one is ignored and logged. Values that a model's JSON gives as `runtime` defaults
are checked by the same models when the worker starts.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar

from pydantic import AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from jand.engine.worker.sampling import DEFAULT_BREAKERS, RANDOM_SEED, Sampling
from jand.engine.worker.schema import schema_to_grammar
from jand.engine.worker.tools import Tool, ToolChoice  # noqa: TC001 - pydantic looks them up
from jand.errors import BadJsonError, BadRequestError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

R = TypeVar("R", bound="SamplingRequest")
MAX_STOPS: Final = 32
MAX_CHOICES: Final = 32
MAX_GRAMMAR_BYTES: Final = 1 << 18
MAX_REPETITIONS: Final = 100_000
MAX_BIAS: Final = 1e38
"""What still is a number in C."""
_TOKEN: Final = re.compile(r"-?[0-9]{1,10}")

_HARMLESS: Final = frozenset(
    {
        *(
            "user",
            "keep_alive",  # meant for the daemon, which has read it
            "metadata",
            "store",
            "service_tier",
            "safety_identifier",
            "prompt_cache_key",
            "prompt_cache_retention",
            "verbosity",
            "reasoning_effort",
        ),
        *(
            "parallel_tool_calls",
            "timings_per_token",
            "return_tokens",
            "return_progress",
            "n_keep",
            "n_discard",
            "id_slot",
            "modalities",
            "prediction",
        ),
    }
)
"""Known fields that change nothing in what is answered, or only where their value is one of `_REFUSED`'s."""

_NEUTRAL: Final[dict[str, tuple[object, ...]]] = {
    "store": (False,),
    "id_slot": (-1,),
    "modalities": (["text"],),
    "audio": (),
    "functions": ([],),
    "function_call": ("none",),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "web_search_options": (),
    "suffix": ("",),
    "echo": (False,),
    "best_of": (1,),
    "samplers": (),
    "lora": ([],),
    "t_max_predict_ms": (0, -1),
    "response_fields": ([],),
    "speculative.n_max": (0,),
    "adaptive_target": (-1,),
    "reasoning_format": ("none", "auto"),
    "input_prefix": ("",),
    "input_suffix": ("",),
    "input_extra": ([],),
    "image_data": ([],),
}
"""Known fields that cannot be honoured, with the values that ask for nothing."""


def _listed(value: object) -> object:
    return [value] if isinstance(value, str) else value


Number = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Penalty = Annotated[float, Field(ge=-10, le=10, allow_inf_nan=False)]
Stops = Annotated[list[str], BeforeValidator(_listed), Field(max_length=MAX_STOPS)]


class StreamOptions(BaseModel):
    include_usage: bool = False


class JsonSchema(BaseModel):
    name: str = ""
    schema_: dict[str, Any] | bool | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(BaseModel):
    """llama-server's variant with the schema beside `json_object` is understood as well."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    schema_: dict[str, Any] | None = Field(default=None, alias="schema")


class SamplingRequest(BaseModel):
    """What both kinds of completion share."""

    model_config = ConfigDict(extra="allow", populate_by_name=True)

    model: str = ""
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int = Field(default=1, ge=1, le=MAX_CHOICES)
    max_tokens: int | None = Field(
        default=None, ge=-1, validation_alias=AliasChoices("max_completion_tokens", "max_tokens", "n_predict")
    )
    stop: Stops = []
    seed: int = -1
    cache_prompt: bool = True
    response_format: ResponseFormat | None = None
    grammar: str | None = Field(default=None, max_length=MAX_GRAMMAR_BYTES)
    json_schema: dict[str, Any] | None = None
    chat_template_kwargs: dict[str, Any] = {}

    temperature: float = Field(default=0.8, ge=0, le=100, allow_inf_nan=False)
    top_k: int = Field(default=40, ge=-1, le=1 << 30)
    top_p: Share = 0.95
    min_p: Share = 0.05
    typical_p: Share = 1.0
    top_n_sigma: Number = -1.0
    xtc_probability: Share = 0.0
    xtc_threshold: Share = 0.1
    dynatemp_range: float = Field(default=0.0, ge=0, le=100, allow_inf_nan=False)
    dynatemp_exponent: float = Field(default=1.0, ge=0, le=100, allow_inf_nan=False)
    mirostat: Literal[0, 1, 2] = 0
    mirostat_tau: float = Field(default=5.0, ge=0, le=1000, allow_inf_nan=False)
    mirostat_eta: float = Field(default=0.1, ge=0, le=10, allow_inf_nan=False)
    repeat_penalty: float = Field(default=1.0, gt=0, le=100, allow_inf_nan=False)
    repeat_last_n: int = Field(default=64, ge=-1, le=1 << 24)
    presence_penalty: Penalty = 0.0
    frequency_penalty: Penalty = 0.0
    dry_multiplier: float = Field(default=0.0, ge=0, le=100, allow_inf_nan=False)
    dry_base: float = Field(default=1.75, ge=1, le=100, allow_inf_nan=False)
    dry_allowed_length: int = Field(default=2, ge=0, le=1 << 20)
    dry_penalty_last_n: int = Field(default=-1, ge=-1, le=1 << 24)
    dry_sequence_breakers: Annotated[list[str], Field(max_length=64)] = list(DEFAULT_BREAKERS)
    min_keep: int = Field(default=0, ge=0, le=1 << 20)
    ignore_eos: bool = False
    logit_bias: dict[str, Any] | list[tuple[int | str, float | bool]] | None = None

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    @property
    def limit(self) -> int | None:
        """How many tokens the answer may have; None for as many as there is room for."""
        return None if self.max_tokens is None or self.max_tokens < 0 else self.max_tokens

    def sampling(self, bias: tuple[tuple[int, float], ...], choice: int = 0) -> Sampling:
        """Return the checked values for C; the answers of one request differ in their seeds."""
        seed = RANDOM_SEED if self.seed < 0 else (self.seed + choice) % RANDOM_SEED
        given = {name: getattr(self, name) for name in _SAMPLING_NAMES}
        given["top_k"] = max(0, self.top_k)
        return Sampling(**given, dry_sequence_breakers=tuple(self.dry_sequence_breakers), seed=seed, logit_bias=bias)


_SAMPLING_NAMES: Final = tuple(
    name
    for name in Sampling.__dataclass_fields__
    if name in SamplingRequest.model_fields and name not in {"dry_sequence_breakers", "seed", "logit_bias"}
)


class ChatMessage(BaseModel):
    """A message; fields that only a template knows are passed on to it."""

    model_config = ConfigDict(extra="allow")

    role: str = Field(min_length=1, max_length=64)
    content: str | list[dict[str, Any]] | None = None


class ChatRequest(SamplingRequest):
    """*reasoning_format* `none` leaves what the model thinks in its text."""

    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    reasoning_format: Literal["none", "auto", "deepseek"] = "auto"
    messages: list[ChatMessage] = Field(min_length=1)
    logprobs: bool = False
    top_logprobs: int = Field(default=0, ge=0, le=20)
    add_generation_prompt: bool = True

    @property
    def wanted_logprobs(self) -> int | None:
        return self.top_logprobs if self.logprobs or self.top_logprobs else None


class CompletionRequest(SamplingRequest):
    """*prompt* is a text, a list of texts, the tokens of one, or a list of tokens of several."""

    prompt: str | list[int] | list[str] | list[list[int]]
    logprobs: Annotated[int, Field(ge=0, le=20)] | bool | None = None
    n_probs: int = Field(default=0, ge=0, le=20)

    @property
    def wanted_logprobs(self) -> int | None:
        if self.logprobs is None or self.logprobs is False:
            return self.n_probs or None
        return 1 if self.logprobs is True else int(self.logprobs)

    def prompts(self) -> list[str | list[int]]:
        """Return each prompt; BadRequestError where there is none."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if not self.prompt:
            raise BadRequestError("cannot answer: there is no prompt", param="prompt")
        tokens = [item for item in self.prompt if isinstance(item, int)]
        return [tokens] if tokens else [item for item in self.prompt if not isinstance(item, int)]


def grammar_of(request: SamplingRequest) -> str | None:
    """Return the grammar that the answer must follow: a given one, or that of a JSON schema; None where it is free."""
    wanted: list[str] = []
    if request.grammar:
        if sum(int(count) for count in re.findall(r"\{[0-9]*,?([0-9]{1,9})\}", request.grammar)) > MAX_REPETITIONS:
            raise BadRequestError('cannot take "grammar": its repetitions are too many', param="grammar")
        wanted.append(request.grammar)
    if request.json_schema is not None:
        wanted.append(schema_to_grammar(request.json_schema, param="json_schema"))
    if (form := request.response_format) is not None and form.type != "text":
        schema: object = form.schema_ if form.json_schema is None else form.json_schema.schema_
        if form.type == "json_schema" and schema is None:
            raise BadRequestError('cannot take "response_format": it has no schema', param="response_format")
        wanted.append(schema_to_grammar({"type": "object"} if schema is None else schema))
    if len(wanted) > 1:
        raise BadRequestError(
            "cannot follow two grammars at once",
            hint="give one of grammar, json_schema and response_format",
            param="grammar",
        )
    return wanted[0] if wanted else None


def parse_body(data: bytes) -> dict[str, Any]:
    """Return the object of a body, without the fields that are null: those are not given."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadJsonError(f"cannot read the body: it is no JSON ({error})") from error
    if not isinstance(body, dict):
        raise BadJsonError("cannot read the body: it is no JSON object")
    return {name: value for name, value in body.items() if value is not None}


def parse_request(kind: type[R], body: Mapping[str, Any], defaults: Mapping[str, Any]) -> tuple[R, list[str]]:
    """Return the request with *defaults* for what *body* leaves out, and the names of unknown fields."""
    refuse_unhonoured(body, taken=kind.model_fields.keys())
    given = dict(defaults)
    if {"max_tokens", "max_completion_tokens", "n_predict"} & body.keys():
        given.pop("max_tokens", None)
    try:
        request = kind.model_validate({**given, **body})
    except ValidationError as error:
        raise translate(error) from error
    unknown = [name for name in request.model_extra or {} if name not in _HARMLESS and name not in _NEUTRAL]
    return request, unknown


def check_defaults(runtime: Mapping[str, Any]) -> None:
    """Raise BadRequestError where a `runtime` value of the JSON is one that no request could have."""
    try:
        SamplingRequest.model_validate(read_defaults(runtime))
    except ValidationError as error:
        raise translate(error) from error


def read_defaults(runtime: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `parameters.runtime` gives for requests: `token_limit` is their max_tokens; `stream` is for `jand chat` alone."""
    given = {
        name: value for name, value in runtime.items() if value is not None and name in SamplingRequest.model_fields
    }
    for name in ("stream", "model", "n", "stream_options"):
        given.pop(name, None)
    if "max_tokens" not in given and runtime.get("token_limit") is not None:
        given["max_tokens"] = runtime["token_limit"]
    return given


def bias_of(request: SamplingRequest, tokens_of: Any, n_vocab: int) -> tuple[tuple[int, float], ...]:
    """Return OpenAI's map or llama-server's pairs as (token, bias); false means never, a text stands for each of its tokens."""
    given = request.logit_bias
    pairs: Iterable[tuple[object, object]] = given.items() if isinstance(given, dict) else given or ()
    found: list[tuple[int, float]] = []
    for key, value in pairs:
        bias = _bias_value(value)
        for token in _bias_tokens(key, tokens_of):
            if not 0 <= token < n_vocab:
                raise BadRequestError(
                    f"cannot take logit_bias: token {token} is outside the vocabulary of {n_vocab}", param="logit_bias"
                )
            found.append((token, bias))
    return tuple(found)


def _bias_value(value: object) -> float:
    if value is False:
        return -math.inf
    if value == -math.inf:
        return -math.inf
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MAX_BIAS:
        raise BadRequestError(
            f"cannot take logit_bias: {repr(value)[:80]} is no number from -{MAX_BIAS:g} to {MAX_BIAS:g}",
            param="logit_bias",
        )
    return float(value)


def _bias_tokens(key: object, tokens_of: Any) -> list[int]:
    if isinstance(key, int):
        return [key]
    text = str(key)
    return [int(text)] if _TOKEN.fullmatch(text) else list(tokens_of(text))


def refuse_unhonoured(body: Mapping[str, Any], *, taken: Collection[str]) -> None:
    """Raise for a known field that asks for what is not done here; those *taken* belong to the request."""
    for name, neutral in _NEUTRAL.items():
        if name in body and name not in taken and body[name] not in neutral:
            raise BadRequestError(f'cannot honour "{name}" for this model', hint="leave it out", param=name)


def translate(error: ValidationError) -> BadRequestError:
    """Return pydantic's first complaint in our words."""
    first = error.errors(include_url=False, include_context=False)[0]
    place = [
        str(part) for part in first["loc"] if not str(part).startswith(("function-", "list[", "union", "constrained"))
    ]
    name = place[0] if place else "body"
    given = first.get("input")
    shown = f", not {given!r}" if isinstance(given, str | int | float | bool) and len(repr(given)) < 80 else ""
    return BadRequestError(
        f'cannot take "{".".join(place) or name}": {first["msg"][:1].lower()}{first["msg"][1:]}{shown}', param=name
    )
