"""What the README and the reference pages say exists, and the other way round: verbs, flags, settings, calls of the API, exit statuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer

from jand import manual
from jand.api.routes import ROUTES
from jand.cli import errors
from jand.cli.program import app
from jand.cli.verbs import VERBS
from jand.model.document import parse
from jand.settings import known_settings
from jand.settings.loading import shown

README = (Path(__file__).parents[2] / "README.md").read_text()
PAGES = {"Command line": "commands", "Settings": "settings", "API": "api"}
OWN_WORDS = frozenset({"root", "socket", "secrets"})
"""Settings whose default the README says in words, since it depends on the machine or is a table."""


def section(title: str) -> str:
    """Return what stands below a heading of the README, or the reference page of that title."""
    page = PAGES.get(title)
    if page is not None:
        return manual.read(page)
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def table(title: str) -> list[list[str]]:
    """Return the cells of the first table in a section, without its heading."""
    text = section(title).partition("\n## States\n")[0]
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows[2:] if "---" not in row]


def test_every_verb_in_the_text_is_a_command_and_every_command_is_in_the_table() -> None:
    named = set(re.findall(r"(?:^|`|\s)jand ([a-z]+)\b(?=[^a-z]|$)", section("Command line"), re.MULTILINE))

    assert named == set(VERBS)


def test_every_flag_in_the_text_is_one_of_its_verb() -> None:
    group: Any = typer.main.get_command(app)
    for command, words in (row[:2] for row in table("Command line") if row[0].startswith("`jand")):
        _, verb, *sub = command.strip("`").split()
        _, found, _ = group.resolve_command(typer.Context(group), [verb])
        if hasattr(found, "commands"):
            found = found.commands[sub[0]]
        options = {name for parameter in found.params for name in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", words)) <= options, verb


def test_the_settings_table_has_every_key_with_its_default_and_unit() -> None:
    written = {row[0].strip("`"): row[1:] for row in table("Settings")}

    assert list(written) == [known.key for known in known_settings()]
    for known in known_settings():
        default, unit, description = written[known.key]
        assert (unit, description) == (known.unit, known.description), known.key
        if known.key not in OWN_WORDS:
            value = shown(known.key, known.default)
            expected = "none" if value is None else f"`{value if isinstance(value, str) else json.dumps(value)}`"
            assert default == expected, known.key


def test_the_api_table_has_every_route_and_no_other() -> None:
    written = set()
    for calls, _ in table("API"):
        method = "GET"
        for call in re.findall(r"`([^`]+)`", calls):
            verb, _, path = call.rpartition(" ")
            method = verb or method
            written.add((method, path.partition("?")[0]))

    assert written == {(route.method, route.path) for route in ROUTES}


def test_the_exit_statuses_are_those_of_the_command_line() -> None:
    rows = [row for row in table("Command line") if row[0].isdigit()]
    numbers = {
        value
        for name, value in vars(errors).items()
        if name.isupper() and isinstance(value, int) and name != "TYPE_CHECKING"
    }

    assert {int(row[0]) for row in rows} == numbers | {0}


def test_the_model_json_of_the_readme_is_accepted_as_it_stands() -> None:
    example = re.search(r"```js\n(.*?)```", section("The model JSON"), re.DOTALL)
    assert example
    document = parse(example[1].encode(), "models/zephyr-7b.json")

    assert document.problems == ()
    assert document.spec is not None
    assert document.spec.parameters.init.ctx_len == 2048


@pytest.mark.parametrize("target", ["demo", "test"])
def test_the_two_commands_are_targets_of_the_makefile(target: str) -> None:
    assert f"make {target}" in section("Two commands")
    assert re.search(rf"^{target}:", (Path(__file__).parents[2] / "Makefile").read_text(), re.MULTILINE)


def test_the_readme_names_every_reference_page() -> None:
    named = {row[0] for row in table("Reference")}

    assert named == {f"[`{page}`](jand/manual/{page}.md)" for page in manual.PAGES}
