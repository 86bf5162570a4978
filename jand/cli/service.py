"""`jand service install`, `uninstall`, `status` (and `certificate`, from its own module): jand as a service of systemd or launchd."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jand.cli import certificate, errors
from jand.cli.output import JsonOption, print_json, say
from jand.cli.verbs import VERBS, with_examples
from jand.paths import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jand.service.install import Did
    from jand.service.placing import Site

app = typer.Typer()
verbs = typer.Typer(
    help=with_examples(
        VERBS["service"].sentence,
        "sudo jand service install",
        "jand service install --user",
        "jand service status --user",
    ),
    no_args_is_help=True,
    rich_markup_mode="rich",
)
app.add_typer(verbs, name="service")
verbs.command("certificate", help=certificate.HELP)(certificate.certificate)

UserFlag = Annotated[bool, typer.Option("--user", help="For yourself alone; else for the whole machine, as root.")]
RootFlag = Annotated[
    Path | None, typer.Option("--root", metavar="DIR", help="The root that it serves; else the usual one.")
]
IntoFlag = Annotated[
    Path | None, typer.Option("--into", metavar="DIR", help="Put the files below DIR and run nothing: for packages.")
]
PrintFlag = Annotated[bool, typer.Option("--print", help="Show the files and commands, and do nothing.")]
ForceFlag = Annotated[bool, typer.Option("--force", help="Replace or remove files that somebody has edited, too.")]


@verbs.command(
    "install",
    help=with_examples(
        "Put the service in place and start it, now and at every start of the machine. Once more changes nothing.",
        "sudo jand service install",
        "jand service install --user --print",
    ),
)
def install(
    user: UserFlag = False,
    root: RootFlag = None,
    into: IntoFlag = None,
    only_print: PrintFlag = False,
    force: ForceFlag = False,
    start: Annotated[bool, typer.Option("--start/--no-start", help="Start it and enable it.")] = True,
    json: JsonOption = False,
) -> None:
    from jand.service import install as installing  # noqa: PLC0415 - the help needs none of it

    site = site_of(user=user, root=root, into=into)
    if only_print:
        _print_all(site)
        return
    if into is None:
        _check_privileges(user=user)
        if not user and not site.launchd:
            _check_visible(site)
    _report(installing.install(site, force=force, start=start), json=json)


@verbs.command(
    "uninstall",
    help=with_examples(
        "Stop the service and remove its files; models and settings stay.",
        "sudo jand service uninstall",
        "jand service uninstall --user",
    ),
)
def uninstall(
    user: UserFlag = False,
    root: RootFlag = None,
    into: IntoFlag = None,
    force: ForceFlag = False,
    json: JsonOption = False,
) -> None:
    from jand.service import install as installing  # noqa: PLC0415 - as above

    if into is None:
        _check_privileges(user=user)
    _report(installing.uninstall(site_of(user=user, root=root, into=into), force=force), json=json)


@verbs.command(
    "status",
    help=with_examples(
        "Say which files of the service are in place, and what the service manager says of it; exit status 1 where one is missing.",
        "jand service status",
        "jand service status --user --json",
    ),
)
def status(user: UserFlag = False, root: RootFlag = None, into: IntoFlag = None, json: JsonOption = False) -> int:
    from jand.service import install as installing  # noqa: PLC0415 - as above

    found = installing.status(site_of(user=user, root=root, into=into))
    _report(found, json=json)
    return errors.FAILED if any(did.what == installing.Found.MISSING for did in found) else 0


def site_of(*, user: bool, root: Path | None, into: Path | None) -> Site:
    from jand.service import placing  # noqa: PLC0415 - as above

    home = Path.home()
    config = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    return placing.Site(
        program=placing.find_program(),
        home=home,
        config=config if config.is_absolute() else home / ".config",
        uid=os.getuid(),
        user=user,
        root=None if root is None else Path.cwd() / root,
        below=None if into is None else Path.cwd() / into,
    )


def _check_privileges(*, user: bool) -> None:
    if not user and os.geteuid() != 0:
        raise errors.Failure(
            "cannot change the services of the whole machine: that takes root",
            hint="sudo jand service ..., or for yourself alone: --user",
            status=errors.REFUSED,
        )


def _check_visible(site: Site) -> None:
    from jand.service import placing  # noqa: PLC0415 - as above

    hidden = placing.hidden_parts(site.program)
    if hidden:
        raise errors.Failure(
            f"cannot install the system's service: it would not see {', '.join(map(str, hidden))}, where this program lies",
            hint="install jand for everybody, for example into /opt/jand, and run that one; or serve yourself alone: --user",
        )


def _print_all(site: Site) -> None:
    from jand.service import install as installing  # noqa: PLC0415 - as above
    from jand.service import placing  # noqa: PLC0415 - as above

    for placement in placing.placements(site):
        say(f"==> {printable(str(placement.path))}")
        sys.stdout.write(installing.sealed(placement))
        say()
    if site.below is None:
        say("==> then")
        for command in placing.commands(site):
            say(printable(" ".join(command)))


def _report(done: Sequence[Did], *, json: bool) -> None:
    if json:
        print_json({"object": "list", "data": [asdict(did) for did in done]})
        return
    width = max(len(did.what) for did in done)
    for did in done:
        why = f" ({printable(did.why)})" if did.why else ""
        say(f"{did.what:<{width}}  {printable(did.subject)}{why}")
