"""The root of the tree of errors."""

from __future__ import annotations

from typing import ClassVar


class JandError(Exception):
    """The root of the tree; itself only raised for what should not happen.

    *param* names the request field or setting at fault, *retry_after_s* says in how many seconds to ask again; *facts* are
    further values for programs (ids, sizes, paths), never secrets.
    """

    code: ClassVar[str] = "internal-error"

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        param: str | None = None,
        retry_after_s: float | None = None,
        **facts: object,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.param = param
        self.retry_after_s = retry_after_s
        self.facts = facts
