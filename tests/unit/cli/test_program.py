"""The program as a whole, without a daemon: help, usage errors, and what it says where nobody answers."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import jand
from jand.cli.program import run
from jand.cli.verbs import VERBS

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_every_verb_has_examples(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([verb, "--help"]) == 0

    out = capsys.readouterr().out
    assert "Examples:" in out
    assert f"  jand {verb}" in out or f" jand {verb}" in out


def test_help_lists_every_verb_with_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0

    out = capsys.readouterr().out
    assert all(f" {verb} " in out for verb in VERBS)


def test_without_a_verb_the_help_is_shown_and_the_status_says_that_nothing_was_done(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run([]) == 2
    assert "Usage:" in capsys.readouterr().out


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"jand {jand.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lits"], "Did you mean 'list'?"),
        (["list", "--jsno"], "--json"),
        (["show"], "ID"),
        (["start", "m", "--init", "ctx_len"], "NAME=VALUE"),
    ],
)
def test_a_wrong_command_line_is_one_sentence_and_a_hint(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2

    sentence, hint = capsys.readouterr().err.splitlines()
    assert sentence.startswith("jand: ")
    assert said in sentence
    assert hint.startswith("hint: jand ")


@pytest.mark.parametrize(
    "arguments",
    [
        *(["list"], ["status"], ["show", "m"], ["start", "m"], ["stop", "m"], ["delete", "m", "-y"], ["problems"]),
        *(["pull", "user/repo"], ["add", "model.gguf"], ["add", "https://example.com/m.gguf"], ["copy", "m", "n"]),
        *(["pause", "m"], ["resume", "m"], ["search", "m"], ["catalog"], ["events"], ["chat", "m"], ["bench", "m"]),
    ],
)
def test_where_no_daemon_listens_every_verb_says_so_and_how_to_start_one(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*arguments, "--socket", str(tmp_path / "none.sock")]) == 69

    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"jand: cannot reach the daemon: there is no socket at {tmp_path / 'none.sock'}\nhint: start one with: jand serve\n"
    )


def test_a_socket_that_a_dead_daemon_left_is_told_like_no_daemon(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # pytest's paths are too long for a socket
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("jand.sock")
    listener.close()

    ended = subprocess.run(
        [sys.executable, "-m", "jand", "list", "--socket", "jand.sock"], capture_output=True, text=True, check=False
    )

    assert (ended.returncode, ended.stdout) == (69, "")
    assert "cannot reach the daemon" in ended.stderr
    assert ended.stderr.splitlines()[-1] == "hint: start one with: jand serve"


def test_wrong_settings_keep_the_daemon_from_starting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "jand.toml").write_text("setle = 3")

    assert run(["serve", "--root", str(tmp_path)]) == 78

    err = capsys.readouterr().err
    assert err.splitlines() == [
        f"jand: cannot use setle ({tmp_path}/jand.toml, line 1): there is no such setting",
        "hint: the nearest known one is settle",
    ]


def test_output_into_a_pipe_that_nobody_reads_ends_quietly(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        ended = subprocess.run(
            [sys.executable, "-m", "jand", "config", "--root", str(tmp_path)],
            stdout=pipe,
            stderr=subprocess.PIPE,
            check=False,
        )

    assert ended.returncode != 0
    assert b"Traceback" not in ended.stderr
