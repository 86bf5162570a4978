"""The JSON of what concerns the daemon and its workers as processes: their logs, and the settings read again."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class LogsQuery(BaseModel):
    tail: int = Field(default=200, ge=0, le=2000, description="how many of the last lines")
    follow: bool = Field(default=False, description="go on with what comes, as server-sent events")


class LogLine(BaseModel):
    number: int = Field(description="grows with every line of any model")
    at: float
    level: Literal["debug", "info", "warning", "error"]
    text: str


class LogList(BaseModel):
    """What the model's worker wrote last, oldest first."""

    object: Literal["list"] = "list"
    data: list[LogLine]


class SettingChange(BaseModel):
    key: str
    before: Any = Field(description="the value until now; secrets are masked")
    after: Any


class ReloadAnswer(BaseModel):
    """What was read again: settings that count from now on, and those that count from the next start on."""

    object: Literal["reload"] = "reload"
    applied: list[SettingChange] = Field(default_factory=list)
    restart_needed: list[SettingChange] = Field(default_factory=list)
