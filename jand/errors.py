"""Every error that jand raises on purpose, in one tree.

Imports nothing from jand and knows no HTTP status (`api.errors` maps kinds to those) and no exit status (`cli` does). A message is one sentence,
lower case, begins with "cannot ...", and names the thing and the cause; *hint* says what mends it. *code* is the stable kebab-case word of the contract.
"""

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


# -- starting up ------------------------------------------------------------------------------------------------------


class SettingsError(JandError):
    """A flag, an environment variable or a line of jand.toml cannot be understood."""

    code = "bad-setting"


class RootLockedError(JandError):
    """Another daemon serves this root; its pid is in *facts* as `pid`."""

    code = "root-locked"


class SocketInUseError(JandError):
    """Somebody answers on the socket path already."""

    code = "socket-in-use"


class SocketUnusableError(JandError):
    """The socket cannot be bound: its directory is missing, foreign or its path too long."""

    code = "socket-unusable"


class DaemonUnavailableError(JandError):
    """No daemon answers where the client looked for one."""

    code = "daemon-unavailable"


# -- asking for something ---------------------------------------------------------------------------------------------


class BadRequestError(JandError):
    """A request cannot be understood or honoured; *param* names the field."""

    code = "bad-request"


class ModelNotFoundError(JandError):
    """No model has that id; `near` in *facts* lists similar ones."""

    code = "model-not-found"


class ModelExistsError(JandError):
    code = "model-exists"


class ModelDownloadingError(JandError):
    """A binary of the model is missing or incomplete."""

    code = "model-downloading"


class ModelNotRunningError(JandError):
    """The model is not running and requests may not start it (`start_on_request = false`)."""

    code = "model-not-running"


class ModelRemovedError(JandError):
    """The model went away (its file was deleted or renamed) while it was asked for."""

    code = "model-removed"


class NotPossibleError(JandError):
    """The command does not fit what the model is or does now, for example pausing what is not downloading."""

    code = "not-possible"


class ShuttingDownError(JandError):
    code = "shutting-down"


# -- files ------------------------------------------------------------------------------------------------------------


class GgufError(JandError):
    """The bytes are no GGUF that can be trusted."""

    code = "bad-binary"


class IncompleteGgufError(GgufError):
    """The bytes are the beginning of a GGUF, which ends too early."""

    code = "incomplete-binary"


# -- running ----------------------------------------------------------------------------------------------------------


class StartError(JandError):
    """A model cannot be started; the message carries the cause."""

    code = "start-failed"


class WorkerDiedError(JandError):
    """The worker ended while it was needed; the message names the signal or status."""

    code = "worker-died"


class ContextExceededError(BadRequestError):
    """A prompt does not fit the context of one conversation."""

    code = "context-length-exceeded"
