"""Keys, tokens and certificates that the daemon may not read, and such as are not there: each is one error that names the file and what mends it, and the two are told apart."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.fakes.daemon import DaemonProcess

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.timeout(60), pytest.mark.needs("setpriv")]

KEY: Final = "sk-this-is-a-key-0123456789"
AS_OTHERS: Final = (
    ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all") if os.geteuid() == 0 else ()
)
"""Takes from root what lets it read everything, and leaves it the owner of the checkout."""

START: Final = (*AS_OTHERS, sys.executable, "-m", "jand")


async def refused(daemon: DaemonProcess, model: str) -> dict[str, Any]:
    answer = await daemon.call("PUT", f"/v1/models/{model}/start", status=500)
    error: dict[str, Any] = answer["error"]
    assert error["code"] == "start-failed"
    assert KEY not in error["message"]
    return error


@pytest.mark.parametrize("kind", ["file", "credential"])
async def test_a_key_that_may_not_be_read_is_not_one_that_is_missing(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "secrets" if kind == "file" else tmp_path / "credentials"
    place.mkdir()
    (place / "closed").write_text(KEY)
    (place / "closed").chmod(0)
    models = tmp_path / "models"
    models.mkdir()
    for name in ("closed", "missing"):
        init = {"API-KEY": f"{kind}:{name}"}
        spec = {"origin": "http://127.0.0.1:9/v1", "import_format": "openai", "parameters": {"init": init}}
        (models / f"{name}.json").write_text(json.dumps(spec))
    environ = {"CREDENTIALS_DIRECTORY": str(place)}
    async with DaemonProcess(tmp_path, "--no-reuse", environ=environ, start=START) as daemon:
        closed, missing = await refused(daemon, "closed"), await refused(daemon, "missing")
        (place / "closed").chmod(0o400)
        again = await daemon.call("PUT", "/v1/models/closed/start", status=None)
        log = daemon.log()

    assert f'"{kind}:closed": {place / "closed"} may not be read; hint: the daemon runs as uid' in closed["message"]
    assert f'"{kind}:missing": {place / "missing"} is not there; hint: ' in missing["message"]
    assert ("LoadCredential=" in missing["message"]) is (kind == "credential")
    assert "may not be read" not in json.dumps(again)
    assert KEY not in log
    assert "Traceback" not in log


@pytest.mark.parametrize("given", ["token_file", "tls_cert", "tls_key"])
@pytest.mark.parametrize("state", ["closed", "missing"])
async def test_a_start_with_a_file_that_may_not_be_read_names_it(tmp_path: Path, given: str, state: str) -> None:
    files = {name: tmp_path / name for name in ("token_file", "tls_cert", "tls_key")}
    for path in files.values():
        path.write_text("a token of some length\n")
        path.chmod(0o600)
    if state == "closed":
        files[given].chmod(0)
    else:
        files[given].unlink()
    flags = [word for name, path in files.items() for word in (f"--{name.replace('_', '-')}", str(path))]
    command = [*START, "serve", "--root", str(tmp_path / "root"), "--socket", str(tmp_path / "s" / "j"), *flags]
    ended = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False, timeout=30)
    message, hint = [line for line in ended.stderr.splitlines() if line.startswith(("jand: ", "hint: "))]

    assert ended.returncode == 78
    assert str(files[given]) in message
    assert ("not there" in message) is (state == "missing")
    assert ("uid" in hint) is (state == "closed")
    assert "Traceback" not in ended.stderr
