"""Errors of a daemon that cannot start, or of a client that finds none."""

from __future__ import annotations

from jand.errors.base import JandError


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
