"""`jand check DIR`: what a daemon would register there and what it would complain about, without a daemon and without changing anything."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from jand.cli import errors
from jand.cli.output import JsonOption, print_json, print_table, say
from jand.cli.problems import print_problem
from jand.cli.verbs import described
from jand.library.findings import Tree
from jand.library.headers import HeaderCache
from jand.library.scan import list_entries, scan_entry
from jand.model.identity import assign_ids
from jand.model.problem import Problem, Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jand.library.findings import EntryScan, Found

app = typer.Typer()

SETTLED_S: Final = 3600.0
"""How old everything counts as at least: offline nobody comes back to look at what is still being written."""


@app.command(
    "check",
    help=described(
        "check",
        "jand check ~/janroot",
        "jand check ./zephyr-7b --json",
    ),
)
def check(
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="A janroot, a models folder, or the folder of one model.")
    ],
    json: JsonOption = False,
) -> int:
    if not directory.is_dir():
        raise errors.Failure(
            f"cannot check {directory}: it is no directory", hint="name a folder", status=errors.NOT_FOUND
        )
    scans = scan(directory)
    found = [model for scanned in scans for model in scanned.models]
    ids = assign_ids([(model.path, model.spec.id) for model in found])
    problems = [*(problem for scanned in scans for problem in scanned.problems), *ids.problems]
    problems += [_as_problem(model) for model in found if model.error is not None and not _told(model, problems)]
    wrong = [problem for problem in problems if problem.severity is Severity.ERROR]
    rows = [(ids.ids[model.path], _verdict(model), model.path) for model in found]
    if json:
        models = [{"id": model_id, "verdict": verdict, "path": path} for model_id, verdict, path in rows]
        print_json(
            {"ok": not wrong, "models": models, "problems": [dataclasses.asdict(problem) for problem in problems]}
        )
    else:
        _print(rows, problems, wrong)
    return errors.FAILED if wrong else 0


def scan(directory: Path) -> list[EntryScan]:
    """Scan *directory* as what it is: a root holds `models/`, the folder of one model holds files of its own, anything else is a models folder."""
    directory = Path(os.path.abspath(directory))  # noqa: PTH100 - resolve() would follow links, and names are shown as given
    if (directory / "models").is_dir():
        directory /= "models"
    headers = HeaderCache(None)
    now = time.time() + SETTLED_S
    if directory.name != "models" and any(entry.is_file() for entry in directory.iterdir()):
        tree = Tree(directory.parent, label=str(directory.parent), writable=False)
        return [scan_entry(tree, directory.name, headers, now=now)]
    tree = Tree(directory, label=str(directory), writable=False)
    return [scan_entry(tree, entry, headers, now=now) for entry in list_entries(tree)]


def _told(model: Found, problems: Sequence[Problem]) -> bool:
    return model.error is not None and any(
        problem.code == model.error.code for problem in problems if problem.path.startswith(model.folder)
    )


def _as_problem(model: Found) -> Problem:
    assert model.error is not None
    return Problem(path=model.path, code=model.error.code, message=model.error.message, hint=model.error.hint)


def _verdict(model: Found) -> str:
    if model.error is not None:
        return model.error.code
    if model.whole:
        return "complete"
    return f"would fetch {', '.join(model.missing)}" if model.missing else "would fetch what its repository has"


def _print(rows: Sequence[tuple[str, str, str]], problems: Sequence[Problem], wrong: Sequence[Problem]) -> None:
    if rows:
        print_table(("ID", "VERDICT", "PATH"), rows)
    for problem in problems:
        print_problem(_fields(problem))
    models = f"{len(rows)} model{'' if len(rows) == 1 else 's'}"
    say(
        f"{models}, {len(wrong)} wrong, {len(problems) - len(wrong)} warnings"
        if problems
        else f"{models}, nothing wrong"
    )


def _fields(problem: Problem) -> dict[str, Any]:
    return dataclasses.asdict(problem)
