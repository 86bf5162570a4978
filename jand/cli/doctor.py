"""`jand doctor`: everything on which jand depends, looked at one by one, each with what mends it. Changes nothing, and needs no daemon."""

from __future__ import annotations

import os
from pathlib import Path  # noqa: TC003 - Typer reads the annotations when it runs
from typing import TYPE_CHECKING, Annotated, Final

import typer

from jand.cli import errors
from jand.cli.connect import SocketOption  # noqa: TC001 - as above
from jand.cli.examining import Patient, Verdict, examine
from jand.cli.output import JsonOption, print_json, say
from jand.cli.verbs import described
from jand.paths import printable

if TYPE_CHECKING:
    from jand.cli.examining import Finding

app = typer.Typer()

MARKS: Final = {Verdict.GOOD: "ok", Verdict.WARNING: "note", Verdict.WRONG: "WRONG"}
COLOURS: Final = {Verdict.GOOD: "green", Verdict.WARNING: "yellow", Verdict.WRONG: "red"}


@app.command(
    "doctor",
    help=described(
        "doctor",
        "jand doctor",
        "jand doctor --root /srv/janroot --json",
        more="The exit status is 1 where something is wrong.",
    ),
)
def doctor(
    root: Annotated[Path | None, typer.Option("--root", metavar="DIR", help="The root to look at.")] = None,
    socket: SocketOption = None,
    json: JsonOption = False,
) -> int:
    findings = []
    for finding in examine(Patient(root, socket, os.environ)):
        findings.append(finding)
        if not json:
            _show(finding)
    wrong = sum(finding.verdict is Verdict.WRONG for finding in findings)
    notes = sum(finding.verdict is Verdict.WARNING for finding in findings)
    if json:
        data = [
            {"name": one.name, "verdict": one.verdict.value, "message": one.message, "hint": one.hint}
            for one in findings
        ]
        print_json({"ok": not wrong, "findings": data})
    else:
        say()
        say("nothing is wrong" if not wrong else f"{wrong} of {len(findings)} are wrong")
        if notes:
            say(f"{notes} worth to know")
    return errors.FAILED if wrong else 0


def _show(finding: Finding) -> None:
    mark = typer.style(f"{MARKS[finding.verdict]:<5}", fg=COLOURS[finding.verdict])
    typer.echo(f"{mark}  {finding.name:<9}  {printable(finding.message)}")
    if finding.hint:
        typer.echo(f"{'':<18}{printable(finding.hint)}")
