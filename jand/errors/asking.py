"""Errors of a request for something that cannot be had now, or ever."""

from __future__ import annotations

from jand.errors.base import JandError


class BadRequestError(JandError):
    """A request cannot be understood or honoured; *param* names the field."""

    code = "bad-request"


class ModelNotFoundError(JandError):
    """No model has that id; `near` in *facts* lists similar ones."""

    code = "model-not-found"


class ModelExistsError(JandError):
    code = "model-exists"


class FileTakenError(JandError):
    """A file that is sent has the name of one that is there, which is never replaced."""

    code = "file-exists"


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
