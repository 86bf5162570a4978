"""Errors of fetching: of a hub, a network, a disk, a name."""

from __future__ import annotations

from typing import ClassVar

from jand.errors.base import JandError


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
