"""Structured logs: one line an event, readable on a terminal, fields in systemd's journal, JSON elsewhere.

Every line, structlog's and the standard library's alike, takes one path: secrets masked, rendered, then written by a thread of its own, so that a reader that
has stopped reading never stops the event loop. Prompts and answers are not logged by anybody.
"""

from __future__ import annotations

from typing import Final

from jand.log.files import LogFile
from jand.log.masking import MASK, Secrets
from jand.log.setup import SECRETS, Logs, logging_to
from jand.log.sink import Sink

__all__: Final = ["MASK", "SECRETS", "LogFile", "Logs", "Secrets", "Sink", "logging_to"]
