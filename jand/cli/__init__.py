"""The command line: one module for each family of verbs, loaded when one of them is asked for.

The only package that knows terminals and exit statuses. Verbs talk to the daemon through `jand.client` and hold no rules of their own.
"""

from jand.cli.program import main

__all__ = ["main"]
