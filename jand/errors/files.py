"""Errors of what lies on the disk."""

from __future__ import annotations

from jand.errors.base import JandError


class RootOfflineError(JandError):
    """A models folder is not there, or its disk does not answer; nothing is known to be gone because of that."""

    code = "root-offline"


class GgufError(JandError):
    """The bytes are no GGUF that can be trusted."""

    code = "bad-binary"


class LegacyGgmlError(GgufError):
    """The file is of a format from before GGUF (August 2023), which llama.cpp no longer reads."""

    code = "legacy-ggml"


class IncompleteGgufError(GgufError):
    """The bytes are the beginning of a GGUF, which ends too early."""

    code = "incomplete-binary"
