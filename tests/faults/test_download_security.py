"""What a hostile JSON, hub, storage or network may try: reach into this network, collect tokens, weaken the connection, leave the folder."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from jand.errors import BadFileNameError, NoBinaryError, NoNetworkError, PrivateAddressError, UnsafeAddressError
from tests.fakes.certificates import make_certificate
from tests.fakes.downloading import NAME, REPO, contents, digest_of, fetch, noise, spec_of
from tests.fakes.hub import FakeHub
from tests.fakes.hub_faults import Fault
from tests.fakes.hub_files import MIB, HubFile

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SIZE = 2 * MIB
TOKEN = "hf_secretsecretsecret"


@pytest.fixture
async def hub() -> AsyncIterator[FakeHub]:
    async with FakeHub() as made:
        made.add(REPO, {NAME: noise(SIZE)})
        made.tokens.add(TOKEN)
        yield made


def elsewhere(hub: FakeHub, host: str) -> str:
    """Return the storage's address under another name of this machine than the endpoint's, which alone is allowed."""
    return hub.storage.replace("127.0.0.1", host)


PRIVATE = [
    "localhost",
    "127.0.0.2",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "0x7f.1",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "[fe80::1]",
    "[fd00::1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "224.0.0.1",
]


@pytest.mark.parametrize("host", PRIVATE)
async def test_a_private_address_in_a_json_is_refused_before_anything_is_sent(
    hub: FakeHub, tmp_path: Path, host: str
) -> None:
    hub.plain["/m.gguf"] = HubFile(noise(SIZE))
    with pytest.raises(PrivateAddressError) as caught:
        await asyncio.wait_for(fetch(hub, tmp_path, spec_of(download_url=f"{elsewhere(hub, host)}/m.gguf")), 5)
    assert caught.value.permanent
    assert "allow_private" in caught.value.hint
    assert hub.requests == []


@pytest.mark.parametrize("host", ["localhost", "127.0.0.2", "[::1]", "169.254.169.254", "0x7f.1"])
async def test_a_redirect_to_a_private_address_is_refused(hub: FakeHub, tmp_path: Path, host: str) -> None:
    """Also where the hub itself redirects there."""
    hub.plain["/m.gguf"] = HubFile(noise(SIZE))
    hub.faults = [
        Fault(at="hub", redirect=f"{elsewhere(hub, host)}/m.gguf", headers={"X-Repo-Commit": "0" * 40}, times=None)
    ]
    with pytest.raises(PrivateAddressError):
        await asyncio.wait_for(fetch(hub, tmp_path), 5)
    assert hub.seen("cdn") == []
    assert not (tmp_path / NAME).exists()


@pytest.mark.parametrize("allow_private", [True, frozenset({"localhost"})])
async def test_what_is_allowed_is_reached(hub: FakeHub, tmp_path: Path, allow_private: bool | frozenset[str]) -> None:
    hub.plain["/m.gguf"] = HubFile(noise(SIZE))
    spec = spec_of(download_url=f"{elsewhere(hub, 'localhost')}/m.gguf")
    await fetch(hub, tmp_path, spec, allow_private=allow_private)
    assert contents(tmp_path) == {"m.gguf": digest_of(noise(SIZE))}


async def test_what_is_allowed_does_not_allow_its_neighbours(hub: FakeHub, tmp_path: Path) -> None:
    spec = spec_of(download_url=f"{elsewhere(hub, '127.0.0.2')}/m.gguf")
    with pytest.raises(PrivateAddressError):
        await fetch(hub, tmp_path, spec, allow_private=frozenset({"localhost"}))


async def test_the_token_goes_to_the_hub_and_nowhere_else(hub: FakeHub, tmp_path: Path) -> None:
    """The storage is another origin, although on the same host."""
    await fetch(hub, tmp_path, token=TOKEN)
    asked = hub.seen("api") + hub.seen("hub")
    assert {request.headers.get("authorization") for request in asked} == {f"Bearer {TOKEN}"}
    assert hub.seen("cdn")
    assert not any("authorization" in request.headers or "cookie" in request.headers for request in hub.seen("cdn"))


async def test_the_token_does_not_come_back_with_a_redirect_that_returns(hub: FakeHub, tmp_path: Path) -> None:
    hub.faults = [
        Fault(at="cdn", redirect=f"{hub.endpoint}/{REPO}/resolve/main/{NAME}", times=1),
    ]
    await fetch(hub, tmp_path, token=TOKEN)
    sent = ["authorization" in request.headers for request in hub.seen("hub")]
    assert sent == [True, False]
    assert contents(tmp_path) == {NAME: digest_of(noise(SIZE))}


async def test_the_token_does_not_go_to_an_address_in_a_json(hub: FakeHub, tmp_path: Path) -> None:
    hub.plain["/m.gguf"] = HubFile(noise(SIZE))
    await fetch(hub, tmp_path, spec_of(download_url=f"{hub.storage}/m.gguf"), token=TOKEN)
    assert all("authorization" not in request.headers for request in hub.requests)


async def test_the_token_is_in_no_error_log_or_note(
    hub: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.faults = [Fault(cut_after=MIB), Fault(status=500, times=None)]
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it is
        await fetch(hub, tmp_path, token=TOKEN)
    written = b"".join(path.read_bytes() for path in tmp_path.rglob("*.json"))
    captured = capsys.readouterr()
    told = repr(caught.value) + captured.out + captured.err + written.decode()
    assert TOKEN not in told
    assert "Signature" not in told
    assert "interrupted" in told


async def test_the_query_of_a_signed_address_is_not_shown(hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - whatever it is
        await fetch(hub, tmp_path, spec_of(download_url=f"{hub.storage}/missing.gguf?sig=verysecret"))
    assert "verysecret" not in str(caught.value)


NAMES = [
    "../evil.gguf",
    "a/../../evil.gguf",
    "a/%2e%2e/evil.gguf/..",
    ".jand-part/evil.gguf",
    ".hidden.gguf",
    "a//evil.gguf",
    "C:evil.gguf",
    "C:\\evil.gguf",
    "a\\..\\evil.gguf",
    "\\\\server\\share\\evil.gguf",
    "nul.gguf",
    "evil.gguf.",
    "evil\x00.gguf",
    "evil\n.gguf",
    "a/" * 20 + "evil.gguf",
    "x" * 300 + ".gguf",
]


@pytest.mark.parametrize("name", NAMES)
async def test_a_name_listed_by_a_hub_cannot_leave_the_folder(hub: FakeHub, tmp_path: Path, name: str) -> None:
    """A hostile hub lists it as the only weights of the repository."""
    directory = tmp_path / "deep" / "model"
    directory.mkdir(parents=True)
    hub.add(REPO, {name: noise(SIZE)})
    with pytest.raises((BadFileNameError, NoBinaryError)):
        await fetch(hub, directory, spec_of())
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("host", ["2130706433", "127.1", "017700000001", "127.0.0.1.nip.io.."])
async def test_a_number_in_the_place_of_a_host_is_refused(hub: FakeHub, tmp_path: Path, host: str) -> None:
    with pytest.raises((PrivateAddressError, UnsafeAddressError, NoNetworkError)):
        await fetch(hub, tmp_path, spec_of(download_url=f"{elsewhere(hub, host)}/m.gguf"))
    assert hub.requests == []


async def test_a_password_in_an_address_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(UnsafeAddressError) as caught:
        await fetch(hub, tmp_path, spec_of(download_url="https://me:hunter2@example.com/m.gguf"))
    assert "hunter2" not in str(caught.value)


async def test_a_hub_may_only_page_on_its_own_origin(hub: FakeHub, tmp_path: Path) -> None:
    """A Link header to elsewhere would carry the listing, and the token's quota, away."""
    hub.faults = [Fault(at="api", path="/tree/", headers={"Link": f'<{hub.storage}/api/steal>; rel="next"'})]
    await fetch(hub, tmp_path, token=TOKEN)
    assert hub.seen("cdn", "/api/steal") == []


async def test_offline_means_offline(hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(NoNetworkError, match="offline"):
        await fetch(hub, tmp_path, offline=True)
    assert hub.requests == []


async def test_a_proxy_is_used_and_its_exceptions_are_kept(hub: FakeHub, tmp_path: Path) -> None:
    """The storage acts as the proxy; a hub's name that only the proxy can resolve is reached through it."""
    hub.plain["/m.gguf"] = HubFile(noise(SIZE))
    proxies = {"http": hub.storage, "no": "127.0.0.1"}
    await fetch(hub, tmp_path, spec_of(download_url="http://models.example/m.gguf"), proxies=proxies)
    assert contents(tmp_path) == {"m.gguf": digest_of(noise(SIZE))}
    assert hub.seen("cdn")[0].headers["x-asked-proxy-for"] == "models.example"
    (tmp_path / "m.gguf").unlink()
    await fetch(hub, tmp_path, spec_of(download_url=f"{hub.storage}/m.gguf"), proxies=proxies)
    assert "x-asked-proxy-for" not in hub.seen("cdn")[-1].headers


@pytest.mark.parametrize("host", ["localhost", "10.1.2.3", "[::1]", "169.254.169.254"])
async def test_a_proxy_is_not_asked_for_private_addresses(hub: FakeHub, tmp_path: Path, host: str) -> None:
    with pytest.raises(PrivateAddressError):
        await fetch(hub, tmp_path, spec_of(download_url=f"http://{host}/m.gguf"), proxies={"http": hub.storage})
    assert hub.seen("cdn") == []


@asynccontextmanager
async def tls_server(directory: Path, answer: bytes) -> AsyncIterator[str]:
    """Serve *answer* over TLS with a certificate of our own; yields the address."""
    context = make_certificate(directory)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.needs("openssl")
async def test_https_never_leads_to_http(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.plain["/m.gguf"] = HubFile(noise(SIZE))
    location = f"HTTP/1.1 302 Found\r\nLocation: {hub.storage}/m.gguf\r\nContent-Length: 0\r\n\r\n".encode()
    directory = tmp_path / "model"
    directory.mkdir()
    async with tls_server(tmp_path, location) as origin:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        with pytest.raises(UnsafeAddressError, match="from https to http"):
            await fetch(hub, directory, spec_of(download_url=f"{origin}/m.gguf"))
    assert hub.seen("cdn") == []


@asynccontextmanager
async def tunnelling() -> AsyncIterator[tuple[str, list[str]]]:
    """Run a proxy that only tunnels (CONNECT); yields its address and what it was asked for."""
    asked: list[str] = []

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while block := await reader.read(64 << 10):
                writer.write(block)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()[0]
        asked.append(first)
        host, _, port = first.split()[1].rpartition(":")
        there, back = await asyncio.open_connection(host, int(port))
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        await asyncio.gather(pump(reader, back), pump(there, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


@pytest.mark.needs("openssl")
async def test_https_goes_through_a_proxy_in_a_tunnel(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = noise(SIZE)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content
    directory = tmp_path / "model"
    directory.mkdir()
    async with tls_server(tmp_path, answer) as origin, tunnelling() as (proxy, asked):
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        await fetch(hub, directory, spec_of(download_url=f"{origin}/m.gguf"), proxies={"https": proxy})
    assert contents(directory) == {"m.gguf": digest_of(content)}
    assert asked == [f"CONNECT {origin.removeprefix('https://')} HTTP/1.1"]


@pytest.mark.needs("openssl")
async def test_a_certificate_that_nobody_vouches_for_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    directory.mkdir()
    async with tls_server(tmp_path, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as origin:
        with pytest.raises(NoNetworkError, match="certificate"):
            await fetch(hub, directory, spec_of(download_url=f"{origin}/m.gguf"))
