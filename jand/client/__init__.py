"""The daemon from the other side, over its socket or over TCP, for the command line, tests and programs in Python.

Everything that keeps a request from being answered is a DaemonUnavailableError that says why.
"""

from __future__ import annotations

from jand.client.client import Client, Event
from jand.client.place import LocalPlace, Place, RemotePlace, find_remote
from jand.client.wire import Reading, kinds, rebuild

__all__ = ["Client", "Event", "LocalPlace", "Place", "Reading", "RemotePlace", "find_remote", "kinds", "rebuild"]
