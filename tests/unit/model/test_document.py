"""Model JSONs as people write them: what is accepted, and what is said, and where, about the rest."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from jand.model.document import MAX_BYTES, Document, parse, to_json
from jand.model.places import line_and_column
from jand.model.problem import Problem, Severity
from jand.model.spec import Engine, ImportFormat, Spec
from tests.fakes import spec_examples

PATH = "models/a/a.json"


def read(text: str) -> Spec:
    document = parse(text.encode(), PATH)
    assert document.spec is not None, document.problems
    assert document.problems == ()
    return document.spec


def problem_of(raw: bytes | str) -> Problem:
    """Return the one problem of what is refused, which must be whole: file, place, found, expected, hint."""
    document = parse(raw.encode() if isinstance(raw, str) else raw, PATH)
    assert document.spec is None
    (problem,) = document.problems
    assert problem.path == PATH
    assert problem.severity is Severity.ERROR
    assert f"{PATH}, line {problem.line}, column {problem.column}: " in problem.message
    assert problem.message.startswith("cannot ")
    assert "expected " in problem.message
    assert problem.hint
    return problem


def warnings_of(text: str) -> dict[str, Problem]:
    document = parse(text.encode(), PATH)
    assert document.spec is not None, document.problems
    assert {(problem.code, problem.severity) for problem in document.problems} <= {("unknown-field", Severity.WARNING)}
    return {str(re.findall(r'"([^"]*)" is no field', problem.message)[0]): problem for problem in document.problems}


# The examples of model-specs.md


def test_the_zephyr_example_is_accepted_with_its_comments_and_texts_for_numbers() -> None:
    spec = read(spec_examples.ZEPHYR)

    assert spec.origin == "TheBloke/zephyr-7B-beta-GGUF"
    assert spec.import_format is ImportFormat.THEBLOKE
    assert spec.download_url == ("zephyr-7b-beta.Q2_K.gguf",)
    assert (spec.id, spec.object, spec.created, spec.owned_by) == ("model-zephyr-7B", "model", 1686935002, "TheBloke")
    assert spec.parameters.init.given() == {
        "ctx_len": 2048,
        "ngl": 100,
        "embedding": True,
        "n_parallel": 4,
        "pre_prompt": "A chat between a curious user and an artificial intelligence",
        "user_prompt": "USER: ",
        "ai_prompt": "ASSISTANT: ",
    }
    assert spec.parameters.runtime.given() == {"temperature": 0.7, "token_limit": 2048}
    assert spec.metadata.engine is Engine.LLAMACPP


def test_the_llava_example_is_accepted_although_a_comment_swallows_its_object() -> None:
    spec = read(spec_examples.LLAVA)

    assert spec.origin == "mys/ggml_llava-v1.5-13b"
    assert (spec.import_format, spec.object, spec.download_url) == (ImportFormat.DEFAULT, "model", ())
    assert spec.parameters.init.n_parallel == 4
    assert spec.parameters.runtime.given() == {"temperature": 0.7, "token_limit": 2048}


def test_the_azure_example_is_accepted_and_its_empty_key_is_not_set() -> None:
    spec = read(spec_examples.AZURE)

    assert spec.origin == "https://docs-test-001.openai.azure.com/"
    assert spec.id == "/openai.azure.com/docs-test-001/gpt4-turbo"
    assert (spec.import_format, spec.metadata.engine) == (ImportFormat.AZURE_OPENAI, Engine.API)
    assert spec.parameters.init.given() == {"api-version": "2023-05-15"}
    assert spec.parameters.runtime.given() == {
        "temperature": 0.7,
        "max_tokens": 2048,
        "presence_penalty": 0.0,
        "top_p": 1.0,
        "stream": True,
    }


@pytest.mark.parametrize("text", spec_examples.ALL.values(), ids=spec_examples.ALL)
def test_any_comma_that_is_missing_is_a_problem_that_points_to_its_line(text: str) -> None:
    whole, missed = parse(text.encode(), PATH), 0
    for comma in re.finditer(",", text):
        document = parse((text[: comma.start()] + text[comma.end() :]).encode(), PATH)
        if document.spec is not None:  # in a comment, or one that only trails
            assert document == whole
            continue
        missed += 1
        (problem,) = document.problems
        assert problem.code == "bad-json"
        assert (problem.line, problem.column) == line_and_column(text, comma.start())
        assert "expected a comma" in problem.message
        assert problem.hint == f"put a comma after the value on line {problem.line}"
    assert missed >= 13


@pytest.mark.parametrize(
    ("mended", "unmended", "line", "found"),
    [
        ('"id": "model-zephyr-7B"', '"id": {model_file_name}', 17, "found the placeholder {model_file_name}"),
        ('Q2_K.gguf",', 'Q2_K.gguf" - ', 13, 'found "-"'),
        ("{\n# Required", "# Required", 2, 'expected "{" before the first field, found "origin"'),
        ("}\n}\n", "}\n", 43, 'expected "}" for the "{" of line 1, found the end of the file'),
    ],
)
def test_what_else_must_be_mended_in_the_examples_is_named(mended: str, unmended: str, line: int, found: str) -> None:
    assert spec_examples.ZEPHYR.count(mended) == 1
    problem = problem_of(spec_examples.ZEPHYR.replace(mended, unmended))

    assert problem.line == line
    assert found in problem.message


# Kindness


@pytest.mark.parametrize(
    "text",
    [
        '{"origin": "a/b", "created": 5}',
        '\ufeff{"origin": "a/b", "created": 5}',
        "{'origin': 'a/b', 'created': 5}",
        "{origin: 'a/b', created: 5}",
        '{"origin": "a/b", "created": 5,}',
        '{"origin": "a/b", "created": "5",\r\n}\r\n',
        '// one\n{"origin": "a/b", # two "created": 6\n/* three\n,,, */ "created": 5} # four',
        '{"origin": "a/b", "created": 0x5}',
        '{"origin": "a/b", "created": +5}',
        '{"origin": "a\\u002Fb", "created": 5.0}',
        '{"origin": "a\\\n/b", "created": 5, "id": null, "owned_by": "", "download_url": ".."}',
        '\u00a0{"\\u006frigin":"a/b","created":5,"parameters":null,"metadata":""}',
    ],
)
def test_ways_of_writing_the_same_model(text: str) -> None:
    assert read(text) == read('{"origin": "a/b", "created": 5}')


def test_marks_of_comments_inside_texts_are_text() -> None:
    text = 'https://host/#1 // "x" /* y */ # z'

    assert (
        read(f"{{origin: 'a', parameters: {{init: {{pre_prompt: {json.dumps(text)}}}}}, }}").parameters.init.pre_prompt
        == text
    )


def test_names_with_hyphens_may_stand_without_quotes() -> None:
    spec = read(
        "{origin: 'x', import_format: 'azure_openai', parameters: {init: {API-KEY: 'k', api-version: '1', DEPLOYMENT-NAME: 'd'}}}"
    )

    assert spec.parameters.init.given() == {"API-KEY": "k", "api-version": "1", "DEPLOYMENT-NAME": "d"}


# Syntax


@pytest.mark.parametrize(
    ("raw", "code", "line", "column", "says"),
    [
        (b"", "empty-json", 1, 1, "found nothing"),
        (b" \n# only this\n", "empty-json", 1, 1, "found nothing"),
        (b'{"origin": "a",\n "id', "incomplete-json", 2, 2, "closing"),
        (b'{"origin": "a",\n "id": "b"\n', "incomplete-json", 2, 11, 'expected "}" for the "{" of line 1'),
        (b'{"origin": "a", /* and', "incomplete-json", 1, 17, "expected */"),
        (b'{"origin"' + bytes(100), "incomplete-json", 1, 10, "NUL"),
        (b'{"origin": "a\0b"}', "bad-json", 1, 14, "NUL"),
        (b'{\n"origin": "a,\n"id": "b"}', "bad-json", 2, 11, 'expected a closing "'),
        (b'{"origin": "a"}}', "bad-json", 1, 16, "expected the end of the file"),
        (b'{"origin": "a",, "id": "b"}', "bad-json", 1, 16, 'found ","'),
        (b'{"origin" "a"}', "bad-json", 1, 11, 'expected ":" after the name "origin"'),
        (b'{"origin": a/b}', "bad-json", 1, 12, 'found "a"'),
        (b'{"origin": }', "bad-json", 1, 12, 'expected a value for "origin", found "}"'),
        (b'{"x": ["a" "b"]}', "bad-json", 1, 11, "expected a comma"),
        (b'{"x": [1\n 2]}', "bad-json", 1, 9, "expected a comma after the value of \"x\", found \"2\" on line 2"),
        (b'{"x": {"y": 1]}', "bad-json", 1, 14, 'found "]"'),
        (b'{"x": True}', "bad-json", 1, 7, 'found "True"'),
        (b'{"x": NaN}', "bad-json", 1, 7, "found NaN"),
        (b'{"x": -Infinity}', "bad-json", 1, 7, "found -Infinity"),
        (b'{"x": 1e999}', "bad-json", 1, 7, "a number that a computer can hold"),
        (b"{'x': 1e999}", "bad-json", 1, 7, "a number that a computer can hold"),
        (b'{"x": [0, 99999999999999999999]}', "bad-json", 1, 11, "fits 64 bits"),
        (b'{"x": ' + b"9" * 5000 + b"}", "bad-json", 1, 7, "one of 5000 characters"),
        (b'{"x": 007}', "bad-json", 1, 7, 'found "007"'),
        (b'{"x": "\\ud800"}', "bad-json", 1, 7, "half of a surrogate pair"),
        (b"{'x': '\\ud800'}", "bad-json", 1, 7, "escapes"),
        (b'{"\\ud800": 1}', "bad-json", 1, 2, "escapes"),
        (b'{"x": "\\u0000"}', "bad-json", 1, 7, "NUL"),
        (b'{"x": "C:\\models\\x1"}', "bad-json", 1, 7, "escapes"),
        (b'{"x": 1,\n "y": {"x": 2},\n "\\u0078": 3}', "bad-json", 3, 2, "on line 1 already"),
        (b'{"x": ' + b"[" * 40 + b"]" * 40 + b"}", "bad-json", 1, 38, "at most 32"),
        (b'{"x": ' + b"[" * 5000 + b"]" * 5000 + b"}", "bad-json", 1, 38, "at most 32"),
        (b"[]", "bad-json", 1, 1, 'found "["'),
        (b"null", "bad-json", 1, 1, 'found "null"'),
        (b"origin: a/b\n", "bad-json", 1, 1, 'found "origin"'),
        ('{"origin": "a"}'.encode("utf-16"), "bad-json", 1, 1, "UTF-16"),
        ('{"origin": "a"}'.encode("utf-16-le"), "bad-json", 1, 2, "NUL"),
        ('{"x": "é",\n "y": "'.encode() + b'\xe9"}', "bad-json", 2, 8, "the byte 0xe9"),
        ('{"origin": “a”}'.encode(), "bad-json", 1, 12, "found"),
        (b"<!DOCTYPE html><html>", "bad-json", 1, 1, 'found "<!DOCTYPE"'),
        (b"version https://git-lfs.github.com/spec/v1\n", "bad-json", 1, 1, 'found "version"'),
        (b"{}" + b" " * MAX_BYTES, "bad-json", 1, 1, "at most 1048576 bytes"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said_with_its_place(raw: bytes, code: str, line: int, column: int, says: str) -> None:
    problem = problem_of(raw)

    assert (problem.code, problem.line, problem.column) == (code, line, column), problem.message
    assert says in problem.message
    assert problem.message.startswith(f"cannot read {PATH}, ")


@pytest.mark.parametrize(
    ("raw", "hint"),
    [
        ("<html>", "web page"),
        ("version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        ('{"origin": “a”}', "curly quotes"),
        ('{"x": None}', "write null"),
        ('{"x": "C:\\xmodels"}', "backslash twice"),
    ],
)
def test_hints_say_what_happened(raw: str, hint: str) -> None:
    assert hint in problem_of(raw).hint


def test_line_ends_of_every_system_count_as_one() -> None:
    for end in ("\n", "\r\n", "\r"):
        problem = problem_of(end.join(["{", "// x", '"origin": "a"', '"id": "b"', "}"]))
        assert (problem.line, problem.column) == (3, 14), repr(end)


# Values


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("origin", 5, "origin is 5, expected text in quotes"),
        ("origin", "", "origin is not set, expected where the model comes from"),
        ("origin", "a\nb", "expected one line"),
        ("object", "assistant", 'object is "assistant", expected "model"'),
        ("import_format", "bloke", 'expected "default", "thebloke", "janhq", "openai" or "azure_openai"'),
        ("created", "soon", 'created is "soon", expected a whole number'),
        ("created", 1686935002000, "expected a Unix time in seconds"),
        ("created", -1, "expected 0 or more"),
        ("id", ["a"], "id is a list, expected text in quotes"),
        ("download_url", {"a": 1}, "download_url is an object, expected text in quotes, or a list"),
        ("download_url", "ftp://host/x", "expected a path in the repository"),
        ("download_url", "sub/../../x", "stays inside the repository"),
        ("metadata", [], "metadata is a list, expected an object in braces { }"),
        ("parameters", {}, "parameters.init is missing"),
        ("parameters", {"runtime": {}}, "parameters.init is missing"),
        ("parameters", "x", 'parameters is "x", expected an object'),
    ],
)
def test_a_wrong_value_is_said_with_its_place(field: str, value: Any, says: str) -> None:
    text = "{\n// a comment\n" + ",\n".join(
        f"{json.dumps(name)}: {json.dumps(content)}" for name, content in ({"origin": "a/b"} | {field: value}).items()
    ) + "}"  # fmt: skip
    problem = problem_of(text)

    assert problem.code == "bad-spec"
    assert problem.message.startswith(f"cannot use {PATH}, ")
    assert says in problem.message
    if "is missing" in says:
        assert problem.line == 4
    else:
        assert (problem.line, problem.column) == line_and_column(
            text, text.index(json.dumps(value), text.index(f'"{field}"') + len(field) + 2)
        )


def test_an_item_of_a_list_is_pointed_to_and_counted_from_one() -> None:
    problem = problem_of('{"origin": "a",\n"download_url": ["x.gguf",\n  5]}')

    assert (problem.line, problem.column) == (3, 3)
    assert "item 2 of download_url is 5" in problem.message


def test_every_wrong_value_is_reported_in_the_order_of_the_text() -> None:
    init = {"ctx_len": "many", "n_parallel": 0, "ngl": True}
    document = parse(json.dumps({"created": "x", "parameters": {"init": init}}, indent=1).encode(), PATH)

    assert document.spec is None
    assert [(problem.line, problem.code) for problem in document.problems] == [
        (line, "bad-spec") for line in (1, 2, 5, 6, 7)
    ]


def test_a_value_of_a_secret_field_is_in_no_problem() -> None:
    for text in (
        '{"origin": "a", "parameters": {"init": {"API-KEY": 271828}}}',
        '{"origin": "a", "parameters": {"init": {"API-KEY": sk-271828}}}',
        '{"origin": "a", "parameters": {"init": {"API-KEY" "sk-271828"}}}',
        '{"origin": "a", "parameters": {"init": {"API-KEY": "x" "sk-271828"}}}',
        '{"origin": "a", "parameters": {"init": {API-KEY "sk-271828": 1}}}',
        '{"origin": "a", "parameters": {"init": {API-KEY sk-271828}}}',
        '{"origin": "a", "parameters": {"init": {API-KEY: "sk-271828}}}',
        '{"origin": "a", "parameters": {"init": {apikey: "sk-271828" "b": 1}}}',
    ):
        assert "271828" not in problem_of(text).message, text


# Unknown fields


def test_an_unknown_field_is_kept_and_a_warning_that_points_to_its_name() -> None:
    text = (
        '{"origin": "a",\n "colour": "red", "import_formt": "default",\n "parameters": {"init": {"n_ctx": 5}, "x": 1}}'
    )
    spec = parse(text.encode(), PATH).spec
    warnings = warnings_of(text)

    assert spec is not None
    assert spec.model_extra == {"colour": "red", "import_formt": "default"}
    assert spec.masked()["parameters"]["init"] == {"n_ctx": 5}
    assert {name: (found.line, found.column, found.hint) for name, found in warnings.items()} == {
        "colour": (2, 2, ""),
        "import_formt": (2, 19, 'did you mean "import_format"?'),
        "n_ctx": (3, 26, 'did you mean "ctx_len"?'),
        "x": (3, 39, ""),
    }


def test_a_field_in_the_wrong_object_is_told_where_it_belongs() -> None:
    warnings = warnings_of(
        '{"origin": "a", "ctx_len": 5, "parameters": {"init": {"temperature": 1}, "autostart": true}}'
    )

    assert {name: found.hint for name, found in warnings.items()} == {
        "ctx_len": "it belongs to parameters.init",
        "temperature": "it belongs to parameters.runtime",
        "autostart": "it belongs to metadata",
    }


def test_metadata_is_free_for_notes_but_a_slip_of_the_pen_is_warned_of() -> None:
    warnings = warnings_of('{"origin": "a", "metadata": {"author": "me", "size": 5, "autostrat": true}}')

    assert {name: found.hint for name, found in warnings.items()} == {"autostrat": 'did you mean "autostart"?'}


def test_warnings_stand_beside_errors() -> None:
    document = parse(b'{"colour": "red", "origin": 5}', PATH)

    assert [(problem.code, problem.severity) for problem in document.problems] == [
        ("unknown-field", Severity.WARNING),
        ("bad-spec", Severity.ERROR),
    ]


def test_the_number_of_problems_of_one_file_is_bounded() -> None:
    names = {f"field{number}": number for number in range(1000)}

    assert len(parse(json.dumps({"origin": "a"} | names).encode(), PATH).problems) == 20
    assert len(parse(json.dumps({"origin": "a", "download_url": list(range(1, 900))}).encode(), PATH).problems) == 20


# Writing


def test_what_jand_writes_is_readable_text_and_reads_the_same() -> None:
    data = {"origin": "a/b", "metadata": {"description": "größer"}}
    text = to_json(data)

    assert text == '{\n  "origin": "a/b",\n  "metadata": {\n    "description": "größer"\n  }\n}\n'
    assert parse(text.encode(), PATH) == Document(Spec.model_validate(data), ())
