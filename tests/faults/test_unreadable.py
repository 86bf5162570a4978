"""Keys, tokens and certificates that the daemon may not read, and such as are not there: each is one error that names the file and what mends it, and the two are told apart."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.fakes.daemon import DaemonProcess
from tests.fakes.rights import AS_OTHERS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.timeout(60), pytest.mark.needs("setpriv")]

KEY: Final = "sk-this-is-a-key-0123456789"
START: Final = (*AS_OTHERS, sys.executable, "-m", "jand")


async def refused(daemon: DaemonProcess, model: str) -> dict[str, Any]:
    answer = await daemon.call("PUT", f"/v1/models/{model}/start", status=409)
    error: dict[str, Any] = answer["error"]
    assert error["code"] == "bad-remote"
    assert KEY not in error["message"]
    return error


async def test_a_key_that_may_not_be_read_is_not_one_that_is_missing(tmp_path: Path) -> None:
    places = {"file": tmp_path / "secrets", "credential": tmp_path / "credentials"}
    models = tmp_path / "models"
    models.mkdir()
    for kind, place in places.items():
        place.mkdir()
        (place / "closed").write_text(KEY)
        (place / "closed").chmod(0)
        for name in ("closed", "missing"):
            init = {"API-KEY": f"{kind}:{name}"}
            spec = {"origin": "http://127.0.0.1:9/v1", "import_format": "openai", "parameters": {"init": init}}
            (models / f"{kind}-{name}.json").write_text(json.dumps(spec))
    environ = {"CREDENTIALS_DIRECTORY": str(places["credential"])}
    async with DaemonProcess(tmp_path, "--no-reuse", environ=environ, start=START) as daemon:
        for kind, place in places.items():
            closed, missing = await refused(daemon, f"{kind}-closed"), await refused(daemon, f"{kind}-missing")
            assert (
                f'"{kind}:closed": {place / "closed"} may not be read; hint: the daemon runs as uid'
                in closed["message"]
            )
            assert f'"{kind}:missing": {place / "missing"} is not there; hint: ' in missing["message"]
            assert ("LoadCredential=" in missing["message"]) is (kind == "credential")
        assert KEY not in daemon.log()
        assert "Traceback" not in daemon.log()


async def test_a_start_with_a_file_that_may_not_be_read_names_it(tmp_path: Path) -> None:
    """Each of the three closed, then each of them missing; six starts at once."""

    async def start(given: str, state: str) -> None:
        folder = tmp_path / f"{given}-{state}"
        folder.mkdir()
        files = {name: folder / name for name in ("token_file", "tls_cert", "tls_key")}
        for path in files.values():
            path.write_text("a token of some length\n")
            path.chmod(0o600)
        if state == "closed":
            files[given].chmod(0)
        else:
            files[given].unlink()
        flags = [word for name, path in files.items() for word in (f"--{name.replace('_', '-')}", str(path))]
        command = [*START, "serve", "--root", str(folder / "root"), "--socket", str(folder / "s" / "j"), *flags]
        ended = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, check=False, timeout=50
        )
        message, hint = [line for line in ended.stderr.splitlines() if line.startswith(("jand: ", "hint: "))]
        assert ended.returncode == 78
        assert str(files[given]) in message
        assert ("not there" in message) is (state == "missing")
        assert ("uid" in hint) is (state == "closed")
        assert "Traceback" not in ended.stderr

    await asyncio.gather(
        *(start(given, state) for given in ("token_file", "tls_cert", "tls_key") for state in ("closed", "missing"))
    )
