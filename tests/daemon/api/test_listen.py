"""Where the API is served, and how serving ends."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from jand.api.app import create_app
from jand.api.listen import Listeners, inherited_sockets, open_listeners
from jand.api.settings import ApiSettings, ListenSettings, read_token
from jand.errors import JandError, SettingsError, SocketInUseError, SocketUnusableError
from jand.settings import Settings
from tests.fakes.api import ServedApi, exchange
from tests.fakes.upstream import Exchange, FakeUpstream, answer_events, chat_chunk
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.manager import FakeManager


@pytest.fixture
def directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="jand-") as path:
        yield Path(path)


async def listen(manager: FakeManager, settings: ListenSettings, token: str | None = None) -> Listeners:
    return await open_listeners(create_app(manager, ApiSettings(token=token), version_facts={}), settings)


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"])
async def test_without_a_token_nothing_beyond_the_loopback_is_served(
    manager: FakeManager, directory: Path, address: str
) -> None:
    with pytest.raises(SettingsError, match="without a token"):
        await listen(manager, ListenSettings(directory / "s", listen=(address,)))

    assert not (directory / "s").exists()


async def test_with_a_token_it_is_and_the_token_is_asked_for_there(manager: FakeManager) -> None:
    async with ServedApi(manager, ApiSettings(token="t"), "0.0.0.0:0") as api:
        assert (await api.ask_tcp("GET", "/v1/models")).status == 401
        assert (await api.ask_tcp("GET", "/v1/models", headers={"Authorization": "Bearer t"})).status == 200
        assert (await api.ask_tcp("GET", "/health", host=f"0.0.0.0:{api.port}")).status == 403


async def test_a_port_that_is_taken_is_one_clear_error_and_nothing_is_left_open(
    manager: FakeManager, directory: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SocketInUseError, match=f"cannot listen on {address}: another program does"):
            await listen(manager, ListenSettings(directory / "s", listen=(address,)))

    assert not (directory / "s").exists()


@pytest.mark.parametrize(
    ("address", "kind", "match"),
    [
        ("no.such.host.invalid:1", SocketUnusableError, "not known"),
        ("192.0.2.1:0", SocketUnusableError, "cannot listen on"),
    ],
)
async def test_an_address_that_is_not_ours_is_one_clear_error(
    manager: FakeManager, address: str, kind: type[JandError], match: str
) -> None:
    with pytest.raises(kind, match=match):
        await listen(manager, ListenSettings(None, listen=(address,)), token="t")


async def test_a_certificate_that_cannot_be_used_is_named(manager: FakeManager, directory: Path) -> None:
    (directory / "cert.pem").write_text("no certificate")

    for cert in (directory / "cert.pem", directory / "missing.pem"):
        with pytest.raises(SettingsError, match=f"cannot use the certificate {cert}"):
            await listen(manager, ListenSettings(None, tls_cert=cert, tls_key=cert, listen=("127.0.0.1:0",)))


async def test_a_second_daemon_leaves_the_socket_of_the_first_alone(manager: FakeManager, directory: Path) -> None:
    first = await listen(manager, ListenSettings(directory / "s"))

    with pytest.raises(SocketInUseError, match=f"pid {os.getpid()}"):
        await listen(manager, ListenSettings(directory / "s"))

    reader, writer = await asyncio.open_unix_connection(str(directory / "s"))
    assert (await exchange(reader, writer, "GET", "/health")).status == 200
    writer.close()
    await first.close(grace_s=0)
    assert not (directory / "s").exists()


ACTIVATED = """
import asyncio, os, sys
from jand.api.app import create_app
from jand.api.listen import inherited_sockets, open_listeners
from jand.api.settings import ApiSettings, ListenSettings
from tests.fakes.manager import FakeManager

copies = [os.dup(int(number)) for number in sys.argv[1:]]
for number, copy in enumerate(copies, 3):
    os.dup2(copy, number, inheritable=True)

async def main():
    os.environ["LISTEN_PID"] = str(os.getpid())
    sockets = inherited_sockets(os.environ, pid=os.getpid())
    app = create_app(FakeManager(), ApiSettings(), version_facts={})
    listeners = await open_listeners(app, ListenSettings(None, inherited=sockets))
    print(*listeners.addresses, *[os.get_inheritable(s.fileno()) for s in sockets], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await listeners.close(grace_s=0)

asyncio.run(main())
"""


@pytest.mark.timeout(20)
async def test_sockets_handed_over_at_activation_are_served_and_never_removed(directory: Path) -> None:
    """Descriptors 3 and 4, as systemd passes them: one Unix, one TCP; the child does not pass them on."""
    path = directory / "handed"
    with socket.socket(socket.AF_UNIX) as unix, socket.create_server(("127.0.0.1", 0)) as tcp:
        unix.bind(str(path))
        unix.listen()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", ACTIVATED, str(unix.fileno()), str(tcp.fileno())),
            env={**os.environ, "LISTEN_FDS": "2", "PYTHONPATH": str(Path(__file__).parents[3])},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(unix.fileno(), tcp.fileno()),
        )
        assert process.stdout is not None
        said = (await process.stdout.readline()).decode().split()
        port = tcp.getsockname()[1]
        reader, writer = await asyncio.open_unix_connection(str(path))
        answer = await exchange(reader, writer, "GET", "/health")
        writer.close()
        await process.communicate(b"")

    assert said == [str(path), f"127.0.0.1:{port}", "False", "False"]
    assert answer.status == 200
    assert process.returncode == 0
    assert path.is_socket()


@pytest.mark.parametrize(
    "environ", [{}, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}, {"LISTEN_PID": "7", "LISTEN_FDS": "x"}, {"LISTEN_PID": "7"}]
)
def test_descriptors_meant_for_another_process_are_left_alone(environ: dict[str, str]) -> None:
    assert inherited_sockets(environ, pid=7) == ()


def test_a_descriptor_that_is_no_listening_socket_is_refused(directory: Path) -> None:
    with (directory / "file").open("w") as file, socket.socket() as quiet:
        for descriptor in (file.fileno(), quiet.fileno()):
            with pytest.raises(SettingsError, match=f"inherited descriptor {descriptor}"):
                inherited_sockets({"LISTEN_PID": "7", "LISTEN_FDS": "1"}, pid=7, first=descriptor)
        assert quiet.fileno() >= 0


async def test_an_inherited_tcp_socket_beyond_the_loopback_needs_a_token_too(manager: FakeManager) -> None:
    with socket.create_server(("0.0.0.0", 0)) as wide, pytest.raises(SettingsError, match="without a token"):
        await listen(manager, ListenSettings(None, inherited=(wide,)))


@pytest.mark.parametrize(
    ("content", "mode", "match"),
    [("", 0o600, "empty"), ("\nx\n", 0o600, "empty"), ("secret\n", 0o604, "everybody"), (None, 0o600, "cannot read")],
)
def test_a_token_file_that_cannot_be_trusted_is_refused(
    tmp_path: Path, content: str | None, mode: int, match: str
) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)

    with pytest.raises(SettingsError, match=match) as refused:
        read_token(path)

    assert "secret" not in refused.value.message


def test_a_token_is_the_first_line_and_hidden_from_prints(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(" abc \nsecond\n")
    path.chmod(0o640)

    assert read_token(path) == "abc"
    assert "abc" not in repr(ApiSettings(token="abc"))


@pytest.mark.parametrize(
    ("handed", "insists", "bound"),
    [
        ([], False, True),
        ([], True, True),
        (["other"], False, False),
        (["other"], True, True),
        (["own"], False, False),
        (["own"], True, False),
        (["tcp"], False, True),
    ],
)
def test_a_unix_socket_that_is_handed_over_stands_for_the_default_one(
    directory: Path, handed: list[str], insists: bool, bound: bool
) -> None:
    settings = Settings.model_construct(
        root=directory,
        socket=directory / "own",
        socket_mode=0o600,
        socket_group=None,
        listen=None,
        tls_cert=None,
        tls_key=None,
    )
    inherited = []
    for name in handed:
        listener = socket.socket(socket.AF_INET if name == "tcp" else socket.AF_UNIX)
        listener.bind(("127.0.0.1", 0) if name == "tcp" else str(directory / name))
        inherited.append(listener)

    found = ListenSettings.of(settings, inherited=inherited, insists=insists)

    assert (found.socket is not None) is bound
    assert found.inherited == tuple(inherited)
    for listener in inherited:
        listener.close()


# Stopping.


async def open_stream(
    api: ServedApi, path: str, body: object = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_unix_connection(str(api.socket))
    data = json.dumps(body).encode() if body else b""
    method = "POST" if body else "GET"
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    return reader, writer


async def wait_for_more(exchange: Exchange) -> None:
    await exchange.wait_left()


async def test_a_stop_lets_an_answer_end_in_its_time(
    api: ServedApi, manager: FakeManager, upstream: FakeUpstream
) -> None:
    manager.add("a")
    go_on = asyncio.Event()

    async def then(exchange: Exchange) -> None:
        await go_on.wait()
        await exchange.send(chat_chunk("last"))
        await exchange.end()

    upstream.behave = answer_events([chat_chunk("first")], then)
    reader, writer = await open_stream(api, "/v1/chat/completions", {"model": "a"})
    stopping = asyncio.create_task(api.listeners.close(grace_s=5))
    await until(lambda: not api.socket.exists())
    go_on.set()
    rest = await reader.read()
    writer.close()
    await stopping

    assert b"last" in rest
    assert b"error" not in rest
    assert rest.endswith(b"0\r\n\r\n")


async def test_an_answer_that_does_not_end_in_time_is_cut_with_an_error_event(
    api: ServedApi, manager: FakeManager, upstream: FakeUpstream
) -> None:
    manager.add("a")
    upstream.behave = answer_events([chat_chunk("first"), b'data: {"half'], wait_for_more)
    reader, writer = await open_stream(api, "/v1/chat/completions", {"model": "a"})
    await until(lambda: upstream.exchanges)
    began = time.monotonic()

    await api.listeners.close(grace_s=0.2)
    rest = await reader.read()
    writer.close()

    assert time.monotonic() - began < 2
    assert b"first" in rest
    assert b"half" not in rest
    error = json.loads(rest.partition(b'data: {"error"')[2].join([b'{"error"', b""]).split(b"\n\n")[0])
    assert error["error"]["code"] == "shutting-down"
    assert rest.endswith(b"0\r\n\r\n")
    await asyncio.wait_for(upstream.exchanges[0].left.wait(), 2)
    assert manager.in_flight == 0


async def test_a_request_that_is_not_answered_in_time_is_told_to_come_back(
    api: ServedApi, manager: FakeManager
) -> None:
    manager.add("a")
    manager.hold.clear()
    starting = asyncio.create_task(api.ask("PUT", "/v1/models/a/start"))
    await until(lambda: manager.asked)

    await api.listeners.close(grace_s=0.1)
    answer = await starting

    assert answer.status == 503
    assert answer.error["code"] == "shutting-down"
    assert "Retry-After" in answer.headers


async def test_event_streams_end_at_once_however_long_the_grace(api: ServedApi) -> None:
    reader, writer = await open_stream(api, "/v1/events")
    began = time.monotonic()

    await api.listeners.close(grace_s=30)

    assert time.monotonic() - began < 2
    assert (await reader.read()).endswith(b"0\r\n\r\n")
    writer.close()


async def test_while_it_stops_an_open_connection_gets_no_new_answers(
    api: ServedApi, manager: FakeManager, upstream: FakeUpstream
) -> None:
    manager.add("a")
    upstream.behave = answer_events([chat_chunk("first")], wait_for_more)
    stream, stream_writer = await open_stream(api, "/v1/chat/completions", {"model": "a"})
    reader, writer = await asyncio.open_unix_connection(str(api.socket))
    writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    stopping = asyncio.create_task(api.listeners.close(grace_s=1))
    await until(lambda: not api.socket.exists())

    writer.write(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
    rest = await reader.read()
    await stopping
    writer.close()
    stream_writer.close()

    assert b"HTTP/1.1 503 " in rest
    assert b"shutting-down" in rest
    assert await stream.read()
    with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
        await asyncio.open_unix_connection(str(api.socket))


async def test_to_stop_twice_is_to_stop_once(api: ServedApi) -> None:
    await api.listeners.close(grace_s=0)
    await api.listeners.close(grace_s=0)


async def test_an_impatient_stop_overtakes_a_patient_one(
    api: ServedApi, manager: FakeManager, upstream: FakeUpstream
) -> None:
    manager.add("a")
    upstream.behave = answer_events([chat_chunk("first")], wait_for_more)
    reader, writer = await open_stream(api, "/v1/chat/completions", {"model": "a"})
    patient = asyncio.create_task(api.listeners.close(grace_s=60))
    await until(lambda: not api.socket.exists())
    began = time.monotonic()

    await api.listeners.close(grace_s=0)
    await patient

    assert time.monotonic() - began < 2
    assert b"shutting-down" in await reader.read()
    writer.close()
