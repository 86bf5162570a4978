"""Errors that the API has before anything of the daemon is asked."""

from __future__ import annotations

from jand.errors.asking import BadRequestError
from jand.errors.base import JandError


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
