"""What is beside the package for those who package it: the container file names what is there, and what it sets are settings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import jand
from jand.cli import errors, shipping
from jand.settings import known_settings

ROOT = Path(__file__).parents[2]
CONTAINER = (ROOT / ".container" / "Containerfile").read_text()


def test_the_container_file_copies_what_is_there_and_all_that_the_wheel_is_made_of() -> None:
    copied = [words.split()[:-1] for words in re.findall(r"^COPY (?!--)(.*)$", CONTAINER, re.MULTILINE)]
    names = {name for names in copied for name in names}

    assert all((ROOT / name).exists() for name in names), names
    assert {"jand", "janroot.example", "systemd", "launchd", ".ci", "pyproject.toml", "README.md", "LICENSE"} <= names


def test_the_container_file_sets_settings() -> None:
    known = {f"JAND_{setting.key.upper().replace('.', '__')}" for setting in known_settings()}
    named = set(re.findall(r"\bJAND_[A-Z_]+", CONTAINER))

    assert named
    assert named <= known


def test_the_container_file_builds_for_the_processors_that_make_install_builds_for() -> None:
    flags = re.compile(r'CMAKE_ARGS="(-DGGML_NATIVE=OFF[^"]*)"')

    assert flags.findall(CONTAINER) == flags.findall((ROOT / ".ci" / "install").read_text())


def test_the_versions_that_the_container_file_takes_are_all_of_the_constraints() -> None:
    text = (ROOT / ".ci" / "constraints.txt").read_text()
    wanted = re.search(r"sed -n 's/(.*?)/\\1/p'", CONTAINER)
    assert wanted
    pattern = wanted[1].replace(r"\(", "(").replace(r"\)", ")")

    taken = [match[1] for line in text.splitlines() if (match := re.search(pattern, line))]
    assert len(taken) == len(re.findall(r"^[a-z0-9].*==", text, re.MULTILINE)) > 50


def test_the_changelog_keeps_to_its_form() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    titles = re.findall(r"^## (.*)$", text, re.MULTILINE)

    assert titles[0] == "[Unreleased]"
    for title in titles[1:]:
        assert re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}", title), title
    kinds = re.findall(r"^### (.*)$", text, re.MULTILINE)
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert jand.__version__ == re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]  # type: ignore[index]


def test_the_man_page_has_every_exit_status() -> None:
    numbers = {value for name, value in vars(errors).items() if name.isupper() and type(value) is int}

    assert {status for status, _ in shipping.STATUSES} == numbers | {0}


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (".dotted", [r"\&.dotted"]),
        (r"a\b --c 'd' \"e\"", [r"a\eb \-\-c \(aqd\(aq \e\(dqe\e\(dq"]),
        ("one\ntwo\n\nthree", ["one two", ".PP", "three"]),
        ("", []),
    ],
)
def test_text_becomes_roff_that_says_the_same(text: str, lines: list[str]) -> None:
    assert list(shipping.paragraph(text)) == lines
