"""What ships beside the program: its man page and what shells complete by, made from the program itself when a wheel is built.

A man page is roff (groff_man(7)): a line that begins with a dot or a quote would be a macro, a backslash begins an escape, and a plain hyphen is not the one of options.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import typer
from typer._completion_shared import get_completion_script

import jand
from jand.cli import errors
from jand.cli.program import app

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLE: Final = "_JAND_COMPLETE"
"""By which the program is told to complete: Typer makes it of the program's name."""

STATUSES: Final = (
    (0, "done"),
    (errors.FAILED, "tried and failed; or jand check found something wrong"),
    (errors.USAGE, "the command line is wrong"),
    (errors.DATA, "what was given cannot be used"),
    (errors.NOT_FOUND, "no such model, no such folder"),
    (errors.UNAVAILABLE, "no daemon answers; or, from jand serve, another one has the root or the socket"),
    (errors.SOFTWARE, "a fault of its own, or an end that had to be forced"),
    (errors.LACK, "the system refuses memory"),
    (errors.EXISTS, "it exists already"),
    (errors.TRY_LATER, "not now, try again"),
    (errors.REFUSED, "not allowed"),
    (errors.SETTINGS, "a setting is wrong"),
    (errors.INTERRUPTED, "interrupted"),
)


def files() -> dict[str, str]:
    """Return each file by its place below the prefix that jand is installed under."""
    return {
        "share/man/man1/jand.1": man_page(),
        "share/bash-completion/completions/jand": completion("bash"),
        "share/zsh/site-functions/_jand": completion("zsh"),
        "share/fish/vendor_completions.d/jand.fish": completion("fish"),
    }


def completion(shell: str) -> str:
    script = get_completion_script(prog_name="jand", complete_var=VARIABLE, shell=shell)
    if shell == "zsh":
        # A file of this kind is the body of a function that zsh loads at the first request, which is to be answered too.
        script = script.replace("compdef _jand_completion jand", '_jand_completion "$@"')
    return f"{script.strip()}\n"


def man_page() -> str:
    return "\n".join([*_head(), *_commands(), *_tail()]) + "\n"


def _head() -> Iterator[str]:
    yield f'.TH JAND 1 "" "jand {jand.__version__}" "User Commands"'
    yield ".SH NAME"
    yield rf"jand \- {escaped('drop a model into a folder, use it from every app')}"
    yield ".SH SYNOPSIS"
    yield ".B jand"
    yield ".RI [ options ]"
    yield ".I command"
    yield ".RI [ arguments ]"
    yield ".SH DESCRIPTION"
    yield from paragraph(
        "jand is a daemon that watches a folder of language models. What is dropped into the folder is registered at once "
        "and can be started, used and stopped by every program on the machine, over a Unix socket, in OpenAI's API."
    )
    yield ".PP"
    yield from paragraph(
        "All commands but serve and chat take --json; those that ask the daemon take --socket. Errors are one sentence "
        "and a hint on standard error."
    )


def _commands() -> Iterator[str]:
    group: Any = typer.main.get_command(app)
    context = typer.Context(group, info_name="jand")
    yield ".SH OPTIONS"
    for parameter in group.params:
        yield from _option(parameter, context)
    yield ".SH COMMANDS"
    for name in group.list_commands(context):
        _, command, _ = group.resolve_command(context, [name])
        yield from _command(f"jand {name}", command, context)


def _command(name: str, command: Any, context: Any) -> Iterator[str]:
    below = getattr(command, "commands", {})
    for verb, inner in below.items():
        yield from _command(f"{name} {verb}", inner, context)
    if below:
        return
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    words = " ".join(parameter.make_metavar(context) for parameter in arguments)
    yield f'.SS "{escaped(f"{name} {words}".strip())}"'
    text, _, examples = (command.help or "").partition("\b\nExamples:\n")
    yield from paragraph(text)
    for parameter in command.params:
        yield from _option(parameter, context)
    if examples.strip():
        yield ".PP"
        yield "Examples:"
        yield ".PP"
        yield ".RS 4"
        yield ".nf"
        yield from (guarded(escaped(line.strip())) for line in examples.strip().splitlines())
        yield ".fi"
        yield ".RE"


def _option(parameter: Any, context: Any) -> Iterator[str]:
    if getattr(parameter, "hidden", False) or not getattr(parameter, "help", None):
        return
    if parameter.param_type_name == "argument":
        shown = parameter.make_metavar(context)
    else:
        value = "" if parameter.is_flag else f" {parameter.make_metavar(context)}"
        shown = ", ".join([*parameter.opts, *parameter.secondary_opts]) + value
    yield ".TP"
    yield rf"\fB{escaped(shown)}\fR"
    yield from paragraph(parameter.help)


def _tail() -> Iterator[str]:
    yield '.SH "EXIT STATUS"'
    for status, meaning in STATUSES:
        yield ".TP"
        yield rf"\fB{status}\fR"
        yield from paragraph(meaning)
    yield ".SH ENVIRONMENT"
    for name, meaning in (
        ("JAND_SOCKET", "the daemon's socket"),
        ("JAND_URL, JAND_TOKEN_FILE, JAND_CERTIFICATE", "a daemon that listens on TCP, its token and certificate"),
        ("JAND_ROOT", "the janroot: models/, catalog/ and jand.toml lie in it"),
        ("JAND_*", "every other setting, nested ones with two underscores, such as JAND_DOWNLOAD__CONCURRENCY"),
        ("HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE", "the hub, its token, and whether it is asked at all"),
    ):
        yield ".TP"
        yield rf"\fB{escaped(name)}\fR"
        yield from paragraph(meaning)
    yield ".SH FILES"
    for name, meaning in (
        ("~/janroot/models/", "what is watched, unless --root or JAND_ROOT says otherwise"),
        ("~/janroot/jand.toml", "settings; jand config shows each and where it came from"),
        ("$XDG_RUNTIME_DIR/jand/jand.sock", "the socket; /run/jand/jand.sock is the system's"),
    ):
        yield ".TP"
        yield rf"\fI{escaped(name)}\fR"
        yield from paragraph(meaning)
    yield '.SH "SEE ALSO"'
    yield from paragraph("jand manual shows the reference pages.")


def paragraph(text: str) -> Iterator[str]:
    """Yield *text* as lines of roff; an empty line in it begins a paragraph."""
    for number, part in enumerate(part for part in text.split("\n\n") if part.strip()):
        if number:
            yield ".PP"
        yield guarded(escaped(" ".join(part.split())))


def escaped(text: str) -> str:
    return text.replace("\\", r"\e").replace("-", r"\-").replace('"', r"\(dq").replace("'", r"\(aq")


def guarded(line: str) -> str:
    return rf"\&{line}" if line.startswith(".") else line
