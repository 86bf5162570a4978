"""The flags of `jand serve` are settings, no more and no fewer."""

from __future__ import annotations

from typing import Any

import typer

from jand.cli.program import app
from jand.settings import known_settings

WITHOUT_FLAG = {"token", "secrets"}
"""A token would show in the process table; bindings of secrets and nested settings have jand.toml and the environment."""


def test_every_flat_setting_has_a_flag_of_its_name_and_every_flag_is_a_setting() -> None:
    group: Any = typer.main.get_command(app)
    _, serve, _ = group.resolve_command(typer.Context(group), ["serve"])
    flags = {parameter.name: parameter for parameter in serve.params if parameter.name != "detach"}
    settings = {known.key for known in known_settings() if "." not in known.key} - WITHOUT_FLAG

    assert flags.keys() == settings
    for name, flag in flags.items():
        assert f"--{name.replace('_', '-')}" in flag.opts
        assert flag.help
        assert flag.default is None, "a default here would go over jand.toml"
