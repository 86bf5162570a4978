"""TLS on TCP with the certificate that `jand service certificate` makes: who trusts it is served, who does not is not, and its key is its owner's alone."""

from __future__ import annotations

import ssl
import stat
from typing import TYPE_CHECKING

import aiohttp
import pytest

from jand.errors import FileTakenError, SettingsError
from jand.service import certificate
from tests.fakes.daemon import DaemonProcess
from tests.fakes.shell import Shell

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(60)


async def test_a_program_that_trusts_the_certificate_is_served_over_tls_alone(tmp_path: Path) -> None:
    shell = Shell(tmp_path / "none")
    made = await shell.json("service", "certificate", "--root", str(tmp_path), "--name", "box.lan")
    environ = {"JAND_LISTEN": "127.0.0.1:0", "JAND_TLS_CERT": made["cert"], "JAND_TLS_KEY": made["key"]}
    async with DaemonProcess(tmp_path, environ=environ) as daemon:
        (listening,) = await daemon.told("listening")
        port = listening["on"][-1].rpartition(":")[2]
        trusting = ssl.create_default_context(cafile=made["cert"])
        async with aiohttp.ClientSession() as session:
            for host in ("localhost", "127.0.0.1"):
                async with session.get(f"https://{host}:{port}/v1/models", ssl=trusting) as answer:
                    assert answer.status == 200
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await session.get(f"https://localhost:{port}/v1/models")
            with pytest.raises(aiohttp.ClientError):
                await session.get(f"http://localhost:{port}/v1/models")


def test_the_key_is_private_and_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    made = certificate.make(tmp_path / "tls", ["box.lan", "192.168.1.7"], days=30)
    key = made.key.read_bytes()

    assert stat.S_IMODE(made.key.stat().st_mode) == 0o600
    assert made.names == ("localhost", "127.0.0.1", "::1", "box.lan", "192.168.1.7")
    with pytest.raises(FileTakenError, match="exists"):
        certificate.make(tmp_path / "tls")
    assert made.key.read_bytes() == key
    again = certificate.make(tmp_path / "tls", replace=True)
    assert again.key.read_bytes() != key
    assert sorted(path.name for path in (tmp_path / "tls").iterdir()) == ["tls.crt", "tls.key"]


def test_a_link_in_its_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "tls.key").symlink_to(tmp_path / "mine")
    with pytest.raises(FileTakenError):
        certificate.make(tmp_path)
    certificate.make(tmp_path, replace=True)
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (tmp_path / "tls.key").is_symlink()


@pytest.mark.parametrize("name", ["", "a b", "x" * 70 + ".lan", "*..lan", "\n"])
def test_what_is_no_host_name_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="it is no host name"):
        certificate.make(tmp_path, [name])


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="cannot write"):
        certificate.make(tmp_path / "file" / "tls")
