"""The reference pages say what is: every code with its status, every parameter of a model JSON, every JSON in them as jand reads it, and no page without a name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jand import errors, manual
from jand.api.errors import STATUS
from jand.cli.errors import status_of
from jand.errors import JandError
from jand.model.document import parse
from jand.model.parameters import Init
from jand.model.spec import Metadata, Spec

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(errors.__file__).parents[1]


def codes() -> dict[str, type[JandError]]:
    found, pending = {}, [JandError]
    while pending:
        kind = pending.pop()
        if kind.__module__.startswith("jand.errors") or kind is JandError:
            found[kind.code] = kind
        pending += kind.__subclasses__()
    return found


def rows(page: str) -> Iterator[list[str]]:
    for line in manual.read(page).splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_every_page_has_a_name_and_every_name_a_page() -> None:
    assert {path.stem for path in Path(manual.__file__).parent.glob("*.md")} == set(manual.PAGES)


def test_every_error_is_explained_with_its_status() -> None:
    told = {name: row[1] for row in rows("errors") if len(row) == 4 for name in re.findall(r"`([a-z-]+)`", row[0])}

    assert set(codes()) - set(told) == {"root-offline"}
    for code, kind in codes().items():
        if told.get(code):
            assert int(told[code]) in {STATUS[code], status_of(kind("x"))}, code


def test_every_code_of_a_problem_is_explained() -> None:
    used = set()
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        used |= set(re.findall(r'(?:Problem|ErrorNote|Refusal)\(\s*(?:[\w.\[\]]+,\s*)?"([a-z]+(?:-[a-z]+)+)"', text))
        used |= set(re.findall(r'^    [A-Z]+ = "(watch-[a-z]+)"', text, re.MULTILINE))
    text = manual.read("errors")

    assert len(used) > 10
    assert {code for code in used if f"`{code}`" not in text} == set()


@pytest.mark.parametrize(("model", "section"), [(Init, "init"), (Metadata, "metadata"), (Spec, "fields")])
def test_every_field_of_the_model_json_is_explained(model: type[Init | Metadata | Spec], section: str) -> None:
    text = manual.read("model-json")
    names = {field.alias or name for name, field in model.model_fields.items()}

    assert {name for name in names if f"`{name}`" not in text} == set(), section


def test_every_json_on_the_pages_is_read_without_a_problem() -> None:
    texts = re.findall(r"```json\n(.*?)```", manual.read("model-json"), re.DOTALL)

    assert len(texts) >= 4
    for text in texts:
        assert parse(text.encode(), "models/example.json").problems == (), text
