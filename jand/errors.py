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


# -- downloading ------------------------------------------------------------------------------------------------------


class DownloadError(JandError):
    """A binary cannot be fetched.

    *retry_after_s* says when it is worth another try; *permanent* that only a change (of the JSON, the token, the settings, the repository) will help, so that
    trying again is rare.
    """

    code = "download-failed"
    permanent: ClassVar[bool] = False


class NoNetworkError(DownloadError):
    """No connection: the name is not known, nobody listens, TLS fails, or the daemon is set to be offline."""

    code = "no-network"


class HubUnavailableError(DownloadError):
    """A server fails again and again: 5xx, broken or stalled connections."""

    code = "hub-unavailable"


class RateLimitedError(DownloadError):
    code = "rate-limited"


class NotAHubError(DownloadError):
    """Somebody else answers in the hub's place: the login page of a network, a proxy."""

    code = "not-a-hub"


class HubNotFoundError(DownloadError):
    """No such repository, revision or file, or none without a token."""

    code = "hub-not-found"
    permanent = True


class HubGatedError(DownloadError):
    """The owner of the repository gives it to those who accept the terms."""

    code = "hub-gated"
    permanent = True


class HubUnauthorizedError(DownloadError):
    """The hub does not accept the token."""

    code = "hub-unauthorized"
    permanent = True


class DownloadRefusedError(DownloadError):
    """A server refuses for good, with a status that no retry mends."""

    code = "download-refused"
    permanent = True


class PrivateAddressError(DownloadError):
    """A download leads to a private, loopback or link-local address."""

    code = "private-address"
    permanent = True


class UnsafeAddressError(DownloadError):
    """An address that is never fetched: another scheme than http and https, https that leads to http, credentials in it, endless redirects."""

    code = "unsafe-address"
    permanent = True


class BadFileNameError(DownloadError):
    """A name from a JSON or a hub would leave the model's folder, or is none that every system accepts."""

    code = "bad-file-name"
    permanent = True


class BadOriginError(DownloadError):
    """The `origin` names no repository."""

    code = "bad-origin"
    permanent = True


class BadDigestError(DownloadError):
    """What came is not what was announced, twice."""

    code = "bad-digest"
    permanent = True


class DiskFullError(DownloadError):
    code = "disk-full"


class DiskError(DownloadError):
    """The disk refuses to be written: read-only, failing, a file too large for it, no permission."""

    code = "disk-error"


class FolderGoneError(DownloadError):
    """The model's folder went away, or is a link, while a binary was to be written into it."""

    code = "folder-gone"


class PartialInUseError(DownloadError):
    """Another process writes the same partial download."""

    code = "partial-in-use"


class NothingFitsError(DownloadError):
    """This machine cannot hold even the smallest variant; `smallest` and `budget` in *facts* are bytes."""

    code = "nothing-fits"
    permanent = True


class NoBinaryError(DownloadError):
    """The repository holds no model that can run here."""

    code = "no-binary"
    permanent = True


class AmbiguousBinaryError(DownloadError):
    """The repository holds several models; `choices` in *facts* lists them."""

    code = "ambiguous-binary"
    permanent = True


class QuantizationNotFoundError(DownloadError):
    """The repository has no such quantisation; `choices` in *facts* lists what it has."""

    code = "quantization-not-found"
    permanent = True


# -- running ----------------------------------------------------------------------------------------------------------


class StartError(JandError):
    """A model cannot be started; the message carries the cause."""

    code = "start-failed"


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


# -- at the door of the API ---------------------------------------------------------------------------------------------


class UnknownRouteError(JandError):
    """Nothing answers under that path."""

    code = "unknown-route"


class MethodNotAllowedError(JandError):
    """The path exists, not with that method; `allowed` in *facts* lists those that do."""

    code = "method-not-allowed"


class BadJsonError(BadRequestError):
    """A request body is no JSON, or not the object that it should be."""

    code = "bad-json"


class BodyTooLargeError(JandError):
    code = "body-too-large"


class UnsupportedMediaTypeError(JandError):
    """A body came over TCP that does not call itself application/json: a form of a web page could have sent it."""

    code = "unsupported-media-type"


class UnauthorizedError(JandError):
    """The token is missing or wrong."""

    code = "unauthorized"


class ForbiddenHostError(JandError):
    """The Host header names none of our addresses, as after DNS rebinding."""

    code = "forbidden-host"


class ForbiddenOriginError(JandError):
    """A web page of another origin sent the request."""

    code = "forbidden-origin"


class NotReadyError(JandError):
    """The first scan has not ended."""

    code = "not-ready"


class UpstreamError(JandError):
    """A worker or provider cannot be reached, or broke off in the middle of an answer."""

    code = "upstream-failed"
