"""The verbs: where each one's module is, and its sentence. A table of its own, so that help and completion need none of the modules."""

from __future__ import annotations

from typing import Final, NamedTuple


class Verb(NamedTuple):
    module: str
    sentence: str


VERBS: Final = {
    "serve": Verb("serve", "Serve the models below a root until SIGTERM or Ctrl-C."),
    "status": Verb("status", "Say how the daemon is: version, models by state, what it watches, problems."),
    "list": Verb("models", "List the models: id, state, size of the binaries, and what is wrong."),
    "show": Verb("models", "Show one model: its JSON's fields, its files, what its header says."),
    "start": Verb("running", "Load a model; return when it answers requests."),
    "stop": Verb("running", "Stop a model and give its memory back; running answers end first."),
    "delete": Verb("deleting", "Delete a model: its JSON, and those binaries in its folder that no other model uses."),
    "pull": Verb(
        "fetching", "Download a model from the hub or the catalogue, in the quantisation that suits this machine."
    ),
    "add": Verb("adding", "Add a file, a folder or an address to the models folder; the original stays."),
    "copy": Verb("copying", "Make a custom model from an existing one, with other parameters and the same binaries."),
    "pause": Verb("fetching", "Halt a download, also through a restart of the daemon."),
    "resume": Verb("fetching", "Go on with a download, or try one again at once that waits."),
    "search": Verb("finding", "Look for models on the hub, with what fits this machine."),
    "catalog": Verb("finding", "List the catalogue, with what each model would download."),
    "chat": Verb("chat", "Talk to a model in the terminal."),
    "bench": Verb("bench", "Measure a model on this machine: load time, speed for 1 to n_parallel streams, memory."),
    "events": Verb("events", "Show what happens, as it happens."),
    "logs": Verb("logs", "Show what llama.cpp has written about a model, also of one that has died."),
    "problems": Verb("problems", "List what is wrong in the models folder, with file, line and what mends it."),
    "check": Verb(
        "check", "Validate a models folder, or the folder of one model, offline; exit status 1 where anything is wrong."
    ),
    "doctor": Verb("doctor", "Look at everything that jand depends on, and say what is wrong and what mends it."),
    "manual": Verb("manual", "Show the reference pages: model JSON, clients, operations, errors, architecture."),
    "service": Verb("service", "Put jand in place as a service of systemd or launchd, take it away, say how it is."),
    "reload": Verb("reload", "Have the daemon read jand.toml again; say what was applied and what needs a restart."),
    "config": Verb("config", "Print every setting, its value, and where it came from."),
    "demo": Verb(
        "demo", "Show the whole story in a scratch folder: start a daemon, drop a real model, start it, ask it, stop."
    ),
}
"""In the order of `jand --help`."""


def described(verb: str, *examples: str, more: str = "") -> str:
    """Return the help text of *verb*: its sentence, *more* of them, and examples line by line."""
    return with_examples(f"{VERBS[verb].sentence} {more}".strip(), *examples)


def with_examples(text: str, *examples: str) -> str:
    """Add examples, each on its own line (the backspace keeps Typer from filling them into a paragraph)."""
    return f"{text}\n\n\b\nExamples:\n" + "\n".join(f"  {example}" for example in examples)
