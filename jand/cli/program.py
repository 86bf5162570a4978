"""The program `jand`: finds the verb's module, runs it, and turns whatever happens into an exit status.

`jand list` has to answer at once, so no module of a verb is imported before that verb is asked for (help imports them all).
"""

from __future__ import annotations

import importlib
import sys
import traceback
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperGroup
from typing_extensions import override

import jand
from jand.cli import errors
from jand.cli.output import described
from jand.errors import JandError

if TYPE_CHECKING:
    from collections.abc import Sequence

VERBS: Final = {
    "serve": "serve",
    "status": "status",
    "list": "models",
    "show": "models",
    "start": "running",
    "stop": "running",
    "delete": "deleting",
    "problems": "problems",
    "check": "check",
    "config": "config",
    "demo": "demo",
}
"""Each verb with the module that holds it, in the order of `jand --help`."""


class _Program(TyperGroup):
    """The verbs, each made when it is looked up."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: dict[str, Any] = dict.fromkeys(VERBS)

    @override
    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    @override
    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name in VERBS and self.commands[cmd_name] is None:
            module = importlib.import_module(f"jand.cli.{VERBS[cmd_name]}")
            self.commands[cmd_name] = typer.main.get_group(module.app).commands[cmd_name]
        return self.commands.get(cmd_name)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"jand {jand.__version__}")
        raise typer.Exit


app = typer.Typer(cls=_Program, context_settings={"help_option_names": ["-h", "--help"]}, rich_markup_mode="rich")


@app.callback(
    help=described(
        "Drop a model into a folder, use it from every app.",
        "jand serve",
        "cp -r zephyr-7b ~/janroot/models/",
        "jand list",
        "jand start zephyr-7b",
    )
)
def program(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Take the options that stand before a verb."""


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit status; whatever goes wrong is said on standard error."""
    command = typer.main.get_command(app)
    try:
        status = command.main(list(arguments) or ["--help"], prog_name="jand", standalone_mode=False)
    except (JandError, errors.Failure) as error:
        return errors.report(error)
    except typer.TyperException as error:
        return errors.report_usage(error.format_message(), error.exit_code)
    except typer.Abort:
        return errors.INTERRUPTED
    except Exception:
        traceback.print_exc()
        return errors.SOFTWARE
    if not arguments:
        return errors.USAGE
    return status if isinstance(status, int) else 0


def main() -> None:
    sys.exit(run(sys.argv[1:]))
