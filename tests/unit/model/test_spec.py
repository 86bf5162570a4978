"""The spec: what each field takes, what follows from what, and that secrets stay inside."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import ValidationError

from jand.errors import BadRequestError
from jand.model import secrets
from jand.model.document import parse
from jand.model.spec import Engine, ImportFormat, Init, Spec, known_names


def make(**fields: Any) -> Spec:
    document = parse(json.dumps({"origin": "a/b", **fields}).encode(), "models/a/a.json")
    assert document.spec is not None, document.problems
    return document.spec


def init(**values: Any) -> Init:
    return make(parameters={"init": values}).parameters.init


def refusal(**fields: Any) -> str:
    document = parse(json.dumps({"origin": "a/b", **fields}).encode(), "models/a/a.json")
    assert document.spec is None, document.spec
    (problem,) = document.problems
    assert problem.code == "bad-spec"
    return problem.message.partition(": ")[2]


def test_origin_alone_is_a_model_with_everything_else_open() -> None:
    spec = make()

    assert spec.masked() == {
        "origin": "a/b",
        "import_format": "default",
        "object": "model",
        "parameters": {"init": {}, "runtime": {}},
        "metadata": {"engine": "llamacpp"},
    }
    assert (spec.id, spec.created, spec.owned_by, spec.download_url) == (None, None, None, ())
    assert spec.parameters.init.ctx_len is None
    assert spec.parameters.runtime.temperature is None


# Coercion


@pytest.mark.parametrize(
    ("name", "written", "read"),
    [
        ("ctx_len", "2048", 2048),
        ("ctx_len", 2048.0, 2048),
        ("ngl", "-1", -1),
        ("embedding", "true", True),
        ("embedding", "False", False),
        ("embedding", 1, True),
        ("flash_attn", "on", True),
        ("flash_attn", "auto", None),
        ("n_parallel", "..", None),
        ("n_parallel", "", None),
        ("n_parallel", None, None),
        ("pre_prompt", "", None),
        ("pre_prompt", " kept as it is \n", " kept as it is \n"),
        ("cache_type_k", "Q8_0", "q8_0"),
        ("tensor_split", "3,1", (3.0, 1.0)),
        ("tensor_split", ["3", 1], (3.0, 1.0)),
        ("lora", "./x.gguf", ("./x.gguf",)),
    ],
)
def test_values_of_init_are_read_kindly(name: str, written: Any, read: Any) -> None:
    value = getattr(init(**{name: written}), name)

    assert value == read
    assert type(value) is type(read)


@pytest.mark.parametrize(
    ("name", "written", "read"),
    [
        ("temperature", "0.7", 0.7),
        ("temperature", 1, 1.0),
        ("token_limit", "2048", 2048),
        ("stream", "true", True),
        ("stop", "END", ("END",)),
        ("stop", ["a", "", "b", "a"], ("a", "b")),
        ("logprobs", True, True),
        ("logprobs", 5, 5),
        ("top_k", "", None),
        ("top_p", "..", None),
    ],
)
def test_values_of_runtime_are_read_kindly(name: str, written: Any, read: Any) -> None:
    value = getattr(make(parameters={"init": {}, "runtime": {name: written}}).parameters.runtime, name)

    assert value == read
    assert type(value) is type(read)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("ctx_len", 0, "expected 1 or more"),
        ("ctx_len", -5, "expected 1 or more"),
        ("ctx_len", 2048.5, "expected a whole number"),
        ("ctx_len", True, "expected a number"),
        ("ctx_len", 2**40, "expected 16777216 or less"),
        ("n_parallel", 0, "expected 1 or more"),
        ("n_parallel", 257, "expected 256 or less"),
        ("ngl", -2, "expected -1 or more"),
        ("n_threads", 0, "expected 1 or more"),
        ("embedding", "maybe", "expected true or false"),
        ("embedding", 2, "expected true or false"),
        ("pre_prompt", 5, "expected text in quotes"),
        ("cache_type_v", "q3_k", 'expected "f32", "f16", "bf16", "q8_0"'),
        ("tensor_split", [], "expected at least 1 of them"),
        ("tensor_split", "a,b", "expected a number"),
        ("tensor_split", [1] * 129, "expected at most 128 of them"),
        ("flash_attn", "maybe", "expected true or false"),
    ],
)  # fmt: skip
def test_values_of_init_out_of_range_are_refused(name: str, value: Any, says: str) -> None:
    message = refusal(parameters={"init": {name: value}})

    assert f"parameters.init.{name}" in message
    assert says in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", "nan"),
        ("temperature", "inf"),
        ("top_p", 1.1),
        ("min_p", -1),
        ("top_k", -2),
        ("presence_penalty", 2.1),
        ("repeat_penalty", 0),
        ("max_tokens", -2),
        ("n", 0),
        ("mirostat", 3),
        ("seed", -2),
        ("stop", 5),
        ("logit_bias", "x"),
        ("logprobs", "x"),
    ],
)
def test_values_of_runtime_out_of_range_are_refused(name: str, value: Any) -> None:
    assert f"parameters.runtime.{name} is " in refusal(parameters={"init": {}, "runtime": {name: value}})


def test_every_parameter_that_the_contract_names_is_known() -> None:
    names = "ctx_len ngl embedding n_parallel pre_prompt user_prompt ai_prompt n_threads n_threads_batch n_batch flash_attn "
    names += "cache_type_k cache_type_v tensor_split API-KEY DEPLOYMENT-NAME api-version"

    assert set(names.split()) <= known_names(Init)


# Top fields


@pytest.mark.parametrize("written", ["thebloke", "TheBloke", " THEBLOKE "])
def test_enumerations_are_read_in_any_case(written: str) -> None:
    assert make(import_format=written).import_format is ImportFormat.THEBLOKE
    assert make(import_format="Azure-OpenAI", object="Model", metadata={"engine": "API"}).metadata.engine is Engine.API


def test_download_url_is_one_or_several_and_comes_back_as_it_was() -> None:
    assert make(download_url="x.gguf").download_url == ("x.gguf",)
    assert make(download_url="x.gguf").masked()["download_url"] == "x.gguf"
    assert make(download_url=["x.gguf", "sub/y.gguf"]).masked()["download_url"] == ["x.gguf", "sub/y.gguf"]
    assert "download_url" not in make(download_url=["", ".."]).masked()


@pytest.mark.parametrize(
    "location",
    [
        *("x.gguf", "sub/x.gguf", "https://host/a/b/resolve/main/x.gguf?download=true", "http://127.0.0.1:80/x.gguf"),
        *("/data/x.gguf", "~/x.gguf", "./x.gguf", "../other/x.gguf", "file:///data/x.gguf"),
    ],
)
def test_locations_of_the_contract_are_accepted(location: str) -> None:
    assert make(download_url=location).download_url == (location,)
    assert make(metadata={"mmproj": location}).metadata.mmproj == location


@pytest.mark.parametrize("location", ["ftp://host/x", "a/../../x", "https://[x", "a//b", "a\\b", "x\n", " "])
def test_locations_that_lead_nowhere_or_out_of_the_repository_are_refused(location: str) -> None:
    refusal_or_spec = parse(json.dumps({"origin": "a/b", "download_url": location}).encode(), "x.json")

    assert (refusal_or_spec.spec is None) == (location != "x\n")  # a line end behind a name is a slip
    if refusal_or_spec.spec:
        assert refusal_or_spec.spec.download_url == ("x",)


def test_digests_are_read_in_the_forms_that_people_copy() -> None:
    digest = "ab" * 32

    assert make(metadata={"sha256": f"SHA256:{digest.upper()}"}).metadata.sha256 == digest
    assert make(metadata={"sha256": {"x.gguf": digest, "y.gguf": ""}}).metadata.sha256 == {"x.gguf": digest}
    assert "64 hexadecimal digits" in refusal(metadata={"sha256": "ab"})
    assert "a SHA-256 digest, or an object" in refusal(metadata={"sha256": [digest]})


def test_specs_are_values() -> None:
    spec = make(metadata={"tags": ["a"]})

    assert spec == make(metadata={"tags": "a"})
    assert spec != make(metadata={"tags": "b"})
    with pytest.raises(ValidationError):
        spec.origin = "other"  # type: ignore[misc]


# The engine


@pytest.mark.parametrize(
    ("fields", "engine"),
    [
        ({}, Engine.LLAMACPP),
        ({"import_format": "janhq"}, Engine.LLAMACPP),
        ({"import_format": "openai"}, Engine.API),
        ({"import_format": "azure_openai", "origin": "https://x.openai.azure.com/"}, Engine.API),
        ({"origin": "api.openai.com"}, Engine.API),
        ({"origin": "https://API.openai.com/v1"}, Engine.API),
        ({"origin": "https://x.openai.azure.com:443/"}, Engine.API),
        ({"origin": "https://openai.example/api.openai.com"}, Engine.LLAMACPP),
        ({"origin": "https://notapi.openai.com.example/"}, Engine.LLAMACPP),
        ({"origin": "https://evil-api.openai.com/"}, Engine.LLAMACPP),
        ({"origin": "http://127.0.0.1:8000/v1", "metadata": {"engine": "api"}}, Engine.API),
        ({"origin": "https://api.openai.com/v1", "metadata": {"engine": "llamacpp"}}, Engine.LLAMACPP),
        ({"metadata": {"engine": ""}}, Engine.LLAMACPP),
        ({"import_format": "openai", "metadata": None}, Engine.API),
    ],
)  # fmt: skip
def test_the_engine_follows_from_import_format_and_origin_where_it_is_missing(fields: Any, engine: Engine) -> None:
    spec = make(**fields)

    assert spec.metadata.engine is engine
    assert spec.is_remote == (engine is Engine.API)
    assert spec.masked()["metadata"]["engine"] == engine.value


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            {"import_format": "openai", "metadata": {"engine": "llamacpp"}},
            'metadata.engine is "llamacpp", expected "api"',
        ),
        ({"import_format": "thebloke", "metadata": {"engine": "api"}}, 'metadata.engine is "api", expected "llamacpp"'),
        ({"import_format": "openai", "origin": "ftp://x"}, 'origin is "ftp://x", expected an https:// address'),
    ],
)
def test_an_engine_that_contradicts_the_rest_is_refused(fields: Any, says: str) -> None:
    assert says in refusal(**fields)


def test_openai_needs_no_origin_and_others_do() -> None:
    """The contract's table gives `openai` a default."""
    document = parse(b'{"import_format": "OpenAI"}', "x.json")

    assert document.spec is not None
    assert document.spec.origin == "https://api.openai.com/v1"
    for import_format in ("default", "thebloke", "janhq", "azure_openai"):
        assert "origin is not set" in refusal(origin="", import_format=import_format)


# Secrets


def test_secrets_are_masked_wherever_they_stand_and_references_are_not() -> None:
    spec = make(
        origin="https://me:pass-word@host/v1",
        import_format="openai",
        download_url=["https://host/x.gguf?token=t-o-k-e-n&download=true"],
        parameters={
            "init": {"API-KEY": "k-e-y", "api-version": "1", "apiKey2": "2nd", "hf_token": "h-f", "token_limit": 5}
        },
        metadata={"note": {"password": "deep"}, "author": "me"},
    )
    masked = spec.masked()

    assert spec.secrets() == {"me:pass-word", "t-o-k-e-n", "k-e-y", "2nd", "h-f", "deep"}
    assert masked["origin"] == "https://***@host/v1"
    assert masked["download_url"] == "https://host/x.gguf?token=***&download=true"
    assert masked["parameters"]["init"] == {
        "API-KEY": "***",
        "api-version": "1",
        "apiKey2": "***",
        "hf_token": "***",
        "token_limit": 5,
    }
    assert masked["metadata"] == {"engine": "api", "note": {"password": "***"}, "author": "me"}
    for secret in spec.secrets():
        assert secret not in json.dumps(masked)
        assert secret not in repr(spec)
        assert secret not in str(spec.parameters)
        assert secret in json.dumps(spec.plain())
    for reference in ("env:OPENAI_API_KEY", "file:openai", "credential:openai"):
        spec = make(import_format="openai", parameters={"init": {"api_key": reference}})
        assert spec.secrets() == set()
        assert spec.masked()["parameters"]["init"]["API-KEY"] == reference


KEY = "sk-proj-0123456789abcdef"
NOTED: dict[str, Any] = {
    "origin": f"https://provider.test/v1?for={KEY}",
    "import_format": "openai",
    "owned_by": f"who has {KEY}",
    "parameters": {"init": {"API-KEY": KEY}, "runtime": {"stop": [f"a {KEY} b"]}},
    "metadata": {"note": f"the key is {KEY}, do not lose it", KEY: 1, "tags": [KEY], "deep": [{"more": KEY * 2}]},
}


def test_a_key_that_is_noted_elsewhere_in_the_file_is_masked_there_too() -> None:
    spec = Spec.model_validate(NOTED)
    masked = spec.masked()

    assert KEY not in json.dumps(masked)
    assert masked["metadata"]["note"] == "the key is ***, do not lose it"
    assert masked["metadata"]["deep"] == [{"more": "******"}]
    assert KEY in json.dumps(spec.plain())


def test_a_key_that_is_noted_is_masked_also_while_another_one_is_in_its_place() -> None:
    other = Spec.model_validate(NOTED).with_init({"API-KEY": "sk-proj-another-0123456789"})

    assert other.parameters.init.api_key == "sk-proj-another-0123456789"
    assert KEY not in json.dumps(other.masked())
    assert "another" not in json.dumps(other.masked())


def test_a_word_that_stands_for_no_key_is_left_in_other_texts() -> None:
    spec = Spec.model_validate(
        {
            "origin": "http://ollama.localhost/v1",
            "import_format": "openai",
            "parameters": {"init": {"API-KEY": "ollama"}},
        }
    )

    assert spec.masked()["origin"] == "http://ollama.localhost/v1"
    assert spec.masked()["parameters"]["init"]["API-KEY"] == "***"


@pytest.mark.parametrize(
    "name", ["API-KEY", "api_key", "ApiKey", "key", "secret", "hf_token", "Authorization", "x-api-key", "password"]
)
def test_names_of_secrets(name: str) -> None:
    assert secrets.is_secret_name(name)


@pytest.mark.parametrize(
    "name", ["token_limit", "max_tokens", "eos_token", "keep_alive", "monkeys", "author", "api-version", 5, None]
)
def test_names_of_no_secrets(name: object) -> None:
    assert not secrets.is_secret_name(name)


# Overrides for one run


def test_overrides_replace_what_the_file_says_for_one_run() -> None:
    spec = make(parameters={"init": {"ctx_len": 2048, "ngl": 5, "own": 1}, "runtime": {"top_k": 5}})
    other = spec.with_init({"ctx_len": "4096", "ngl": None, "api-version": "x"})

    assert other.parameters.init.given() == {"ctx_len": 4096, "own": 1, "api-version": "x"}
    assert other.parameters.runtime == spec.parameters.runtime
    assert spec.parameters.init.given() == {"ctx_len": 2048, "ngl": 5, "own": 1}
    assert spec.with_init({}) == spec


@pytest.mark.parametrize(
    ("overrides", "param", "says"),
    [
        ({"ctx_len": 0}, "parameters.init.ctx_len", "ctx_len is 0, expected 1 or more"),
        ({"API-KEY": 5}, "parameters.init.API-KEY", "a value that is not shown"),
        ({"n_ctx": 5}, "parameters.init.n_ctx", "there is no such parameter"),
        ({"x" * 10_000: 5}, "parameters.init." + "x" * 64, "there is no such parameter"),
    ],
)
def test_an_override_that_cannot_be_is_refused_by_name(overrides: dict[str, Any], param: str, says: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        make().with_init(overrides)

    assert caught.value.param == param
    assert says in caught.value.message
    assert caught.value.message.startswith("cannot use parameters.init")
    assert caught.value.hint
