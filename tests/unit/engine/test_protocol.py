"""Messages between daemon and worker survive the wire; what is no message is told apart."""

from __future__ import annotations

import pytest

from jand.engine import protocol
from jand.engine.protocol import (
    Failed,
    Heartbeat,
    Loading,
    ProtocolError,
    Ready,
    SetRuntime,
    Stop,
    Warming,
    WorkerConfig,
)


@pytest.mark.parametrize(
    "report",
    [
        Loading(0.5),
        Warming(),
        Ready({"slots": 4, "template": "gguf"}),
        Failed("bad-model", "no", "hint"),
        Heartbeat(1, 2, 0.25),
    ],
)
def test_report_survives_the_wire(report: protocol.Report) -> None:
    line = protocol.to_line(report)
    assert line.count(b"\n") == 1
    assert protocol.parse_report(line) == report


@pytest.mark.parametrize("command", [Stop(), Stop(force=True), SetRuntime({"temperature": 0.5})])
def test_command_survives_the_wire(command: protocol.Command) -> None:
    assert protocol.parse_command(protocol.to_line(command)) == command


def test_configuration_survives_the_wire() -> None:
    config = WorkerConfig(
        "a/b",
        ("/m/a-00001-of-00002.gguf", "/m/a-00002-of-00002.gguf"),
        "/run/w.sock",
        None,
        {"ctx_len": 64, "pre_prompt": "é\n"},
        {"top_k": 3},
    )
    assert WorkerConfig.parse(config.to_line()) == config


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"type":"nothing"}',
        b'{"type":"loading"}',
        b'{"type":"loading","progress":1,"more":2}',
    ],
)
def test_what_is_no_report_is_told_apart(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        protocol.parse_report(line)


def test_what_is_no_configuration_is_told_apart() -> None:
    with pytest.raises(ProtocolError):
        WorkerConfig.parse(b'{"model_id": "x"}')
