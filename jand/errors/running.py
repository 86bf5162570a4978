"""Errors of starting and using an engine."""

from __future__ import annotations

from jand.errors.asking import BadRequestError
from jand.errors.base import JandError


class StartError(JandError):
    """A model cannot be started; the message carries the cause."""

    code = "start-failed"


class BadRemoteError(StartError):
    """What the JSON of a remote model says of its provider cannot be used: the key, the origin, the name it has there."""

    code = "bad-remote"


class RemoteUnavailableError(StartError):
    """The provider of a remote model cannot be reached, or cannot answer now."""

    code = "remote-unavailable"


class NoRoomError(StartError):
    """The memory that a model needs cannot be had; *facts* hold `needed`, `free`, `budget` (bytes) and `held_by`."""

    code = "no-room"


class CrashLoopError(StartError):
    """It died or failed to start again and again, and waits for a person's start."""

    code = "crash-loop"


class WorkerDiedError(JandError):
    """The worker ended while it was needed; the message names the signal or status."""

    code = "worker-died"


class ContextExceededError(BadRequestError):
    """A prompt does not fit the context of one conversation."""

    code = "context-length-exceeded"


class TemplateError(BadRequestError):
    """The chat template refuses the messages, or cannot be applied at all."""

    code = "template-failed"


class EngineError(JandError):
    """llama.cpp could not finish an answer; the worker goes on."""

    code = "engine-failed"


class QueueFullError(JandError):
    """As many requests wait for this model as may."""

    code = "queue-full"
