"""Puts the man page and the completions of the program that is being built into the wheel."""

import sys
import tempfile
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Shipping(BuildHookInterface):
    """Asks the program for them, so they cannot say anything else than it does."""

    def dependencies(self):
        """What the program needs to describe itself."""
        named = ("pydantic", "pyjson5", "rich", "structlog", "typer", "typing-extensions")
        return [
            needed
            for needed in self.build_config.builder.metadata.core.dependencies
            if needed.split(" ")[0].split(">")[0].split("<")[0].strip() in named
        ]

    def initialize(self, version, build_data):
        if version == "editable":
            return
        sys.path.insert(0, self.root)
        from jand.cli.shipping import files

        self._made = tempfile.TemporaryDirectory()
        for place, content in files().items():
            path = Path(self._made.name) / place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
            build_data["shared_data"][str(path)] = place

    def finalize(self, version, build_data, artifact_path):
        if version != "editable":
            self._made.cleanup()
