"""The program `jand`: finds the verb's module, runs it, and turns whatever happens into an exit status.

`jand list` has to answer at once, so no module of a verb is imported before that verb is asked for (help needs none of them).
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperCommand, TyperGroup
from typing_extensions import override

import jand
from jand.cli import errors
from jand.cli.verbs import VERBS, with_examples
from jand.errors import JandError
from jand.errors.scarcity import MEMORY_HINT, is_out_of_memory, lack_of_memory

if TYPE_CHECKING:
    from collections.abc import Sequence


_FIRST_FREE: Final = 3
"""The descriptor after standard input, output and error."""


class _Program(TyperGroup):
    """The verbs: as sentences for help and completion, whole when one of them is resolved."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: dict[str, Any] = {
            name: TyperCommand(name=name, callback=lambda: None, help=verb.sentence) for name, verb in VERBS.items()
        }

    @override
    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    @override
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name = args[0]
        if name in VERBS:
            module = importlib.import_module(f"jand.cli.{VERBS[name].module}")
            self.commands[name] = typer.main.get_group(module.app).commands[name]
        return super().resolve_command(ctx, args)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"jand {jand.__version__}")
        raise typer.Exit


app = typer.Typer(cls=_Program, context_settings={"help_option_names": ["-h", "--help"]}, rich_markup_mode="rich")


@app.callback(
    help=with_examples(
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
    url: Annotated[
        str | None, typer.Option("--url", metavar="URL", help="Ask the daemon that listens there; else JAND_URL.")
    ] = None,
    token_file: Annotated[
        str | None, typer.Option("--token-file", metavar="FILE", help="Its token; else JAND_TOKEN, JAND_TOKEN_FILE.")
    ] = None,
    certificate: Annotated[
        str | None, typer.Option("--certificate", metavar="FILE", help="Its certificate; else JAND_CERTIFICATE.")
    ] = None,
) -> None:
    """Take the options that stand before a verb; they are variables to the verb, as if they had been set before."""
    given = {"JAND_URL": url, "JAND_TOKEN_FILE": token_file, "JAND_CERTIFICATE": certificate}
    os.environ.update({name: value for name, value in given.items() if value})
    if token_file:
        os.environ.pop("JAND_TOKEN", None)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit status; whatever goes wrong is said on standard error."""
    command = typer.main.get_command(app)
    try:
        status = command.main(list(arguments) or ["--help"], prog_name="jand", standalone_mode=False)
    except (JandError, errors.Failure) as error:
        return errors.report(error)
    except typer.TyperException as error:
        # A group that was named without a verb of its own has shown its help.
        message = error.format_message()
        return errors.report_usage(message, error.exit_code) if message else error.exit_code
    except typer.Abort:
        return errors.INTERRUPTED
    except Exception as error:
        if is_out_of_memory(error):
            return errors.report(
                errors.Failure(f"cannot go on: {lack_of_memory()}", hint=MEMORY_HINT, status=errors.LACK)
            )
        traceback.print_exc()
        return errors.SOFTWARE
    if not arguments:
        return errors.USAGE
    return status if isinstance(status, int) else 0


def _open_standard_streams() -> None:
    """Give a process that was started without some of the descriptors 0 to 2 the null device there: else sockets and pipes would get those numbers."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < _FIRST_FREE:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdin = sys.stdin or os.fdopen(0)
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")


def main() -> None:
    _open_standard_streams()
    sys.exit(run(sys.argv[1:]))
