"""What befell daemons of this kind, tried against a real running jand over its real doors. `INCIDENTS` says which test stands for which; those of single parts are named there too.

One daemon serves most of them, with a token on TCP and a hub that lies; the last test of all is that it lives, has no worker and has logged no fault.
"""

from __future__ import annotations

import ast
import asyncio
import gzip
import json
import os
import re
import socket
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import pytest
import pytest_asyncio

from jand.api.guard import PAGE_FILES, TOKENLESS
from jand.api.routes import ROUTES
from jand.library.stamps import OWN_PREFIX
from tests.fakes import gguf_files
from tests.fakes.api import Answer, exchange
from tests.fakes.daemon import DaemonProcess
from tests.fakes.gguf_bytes import What
from tests.fakes.gguf_mutations import sound
from tests.fakes.hub import FakeHub
from tests.fakes.hub_faults import Fault
from tests.fakes.hub_files import HubFile
from tests.fakes.models_tree import ModelsTree
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(60)]

ROOT = Path(__file__).parents[2]
TOKEN = "correct-horse-battery-staple"
HUB_TOKEN = "hf_secretsecretsecret"

GUARD = "tests/daemon/api/test_guard.py::"
LISTEN = "tests/daemon/api/test_listen.py::"
DOWNLOADS = "tests/faults/test_download_security.py::"
HERE = "tests/faults/test_security.py::"
SANDBOX = "tests/faults/test_security_sandbox.py::"
TEMPLATES = "tests/unit/engine/worker/test_template.py::"

INCIDENTS: Final[dict[str, tuple[str, ...]]] = {
    "CVE-2024-37032 and its like: a name from a server becomes a path": (
        HERE + "test_a_hub_that_lists_names_outside_the_folder_gets_nothing_written",
        DOWNLOADS + "test_a_name_listed_by_a_hub_cannot_leave_the_folder",
    ),
    "CVE-2024-28224: DNS rebinding, and names that stayed open after its fix": (
        HERE + "test_a_page_that_rebinds_its_name_is_refused",
        GUARD + "test_a_host_that_is_not_exactly_ours_is_refused_on_every_path",
    ),
    "CVE-2026-7482, CVE-2024-12886, CVE-2025-0315: tensors larger than their file, sizes that exhaust": (
        HERE + "test_a_hostile_gguf_is_a_problem_and_never_reaches_an_engine",
        "tests/unit/model/test_gguf_hostile.py::test_a_malicious_file_of_4_kb_costs_nothing",
        "tests/unit/model/test_gguf_hostile.py::test_what_ggml_accepts_is_accepted_and_nothing_else",
    ),
    "CVE-2025-53630, CVE-2026-27940: an overflow in the parser that runs": (
        SANDBOX + "test_a_real_worker_is_confined_and_answers",
        SANDBOX + "test_no_program_can_be_run_and_no_process_made",
        SANDBOX + "test_nothing_can_be_written_anywhere",
        SANDBOX + "test_no_address_can_be_reached",
    ),
    "CVE-2025-51471, GHSA of a redirect that took a key along: credentials of one origin sent to another": (
        DOWNLOADS + "test_the_token_goes_to_the_hub_and_nowhere_else",
        DOWNLOADS + "test_the_token_does_not_come_back_with_a_redirect_that_returns",
        "tests/e2e/test_remote.py::test_a_redirect_is_refused_and_the_key_stays",
        "tests/e2e/test_remote.py::test_a_dropped_json_cannot_send_keys_elsewhere",
    ),
    "CVE-2026-5530 and the realm address: requests into the own network, by address, by name, by redirect": (
        HERE + "test_an_address_in_this_network_is_refused_by_its_number_and_by_its_name",
        HERE + "test_a_dropped_json_cannot_reach_into_this_network",
        HERE + "test_a_hub_that_redirects_into_this_network_is_refused",
        DOWNLOADS + "test_a_hub_may_only_page_on_its_own_origin",
    ),
    "GO-2025-4251: packed bodies and endless headers": (
        HERE + "test_a_body_that_unpacks_to_more_than_is_taken_is_refused",
        HERE + "test_endless_headers_are_refused",
    ),
    "CVE-2026-42248, -42249: an updater": (HERE + "test_there_is_no_call_for_files_updates_arguments_or_the_end",),
    "175,108 hosts open to everybody; an address that was widened without thought": (
        HERE + "test_beyond_this_machine_nothing_is_served_without_a_token",
        LISTEN + "test_an_inherited_tcp_socket_beyond_the_loopback_needs_a_token_too",
    ),
    "CVE-2024-34359, CVE-2026-5760, CVE-2024-56326: a chat template that runs code": (
        HERE + "test_a_template_that_breaks_out_gets_nowhere",
        TEMPLATES + "test_template_that_reaches_for_more_is_refused",
        TEMPLATES + "test_endless_template_is_cut_and_the_next_one_rendered",
    ),
    "CVE-2024-36857, -36858: files read and written by a path in the address": (
        HERE + "test_no_path_in_an_address_reaches_a_file",
        HERE + "test_there_is_no_call_for_files_updates_arguments_or_the_end",
    ),
    "GHSA-x6p8-7cp8-c3p6: a wider address that emptied the list of hosts, origins reflected": (
        HERE + "test_a_wider_address_loosens_nothing",
        GUARD + "test_a_foreign_origin_is_refused_and_gets_no_cors_header",
    ),
    "CVE-2026-28400: an argument of the engine that names a file": (
        HERE + "test_no_parameter_becomes_an_argument_or_a_file",
    ),
    "CVE-2024-5182 and the rmtree of a home: DELETE by a name that climbs": (
        HERE + "test_delete_takes_no_path",
        HERE + "test_delete_leaves_what_lies_elsewhere",
        "tests/unit/lifecycle/test_deletion.py::test_a_folder_behind_a_link_is_not_touched",
    ),
    "A digest that was checked after the rename": (
        "tests/faults/test_download_transfer.py::test_wrong_bytes_twice_are_refused_with_what_was_expected_and_found",
    ),
    "A key in the query": (HERE + "test_the_token_counts_in_its_header_alone",),
    "Calls that needed no key, to end the process among them": (
        HERE + "test_every_call_but_the_probes_asks_for_the_token",
    ),
    "null as an origin": (HERE + "test_null_and_foreign_origins_are_refused",),
    "A key shown in an answer, an event, a log": (
        HERE + "test_no_token_is_in_any_answer_event_or_log_line",
        "tests/e2e/test_remote.py::test_no_key_is_in_any_answer_event_log_line_or_file_of_ours",
        DOWNLOADS + "test_the_token_is_in_no_error_log_or_note",
    ),
    "A socket taken from a living daemon, open for a moment, or put there by somebody else": (
        HERE + "test_nothing_in_the_sockets_place_is_taken_over",
        "tests/e2e/test_service.py::test_a_second_daemon_refuses_and_names_the_first",
        "tests/e2e/test_service.py::test_the_socket_is_private",
    ),
}


@dataclass(frozen=True)
class Site:
    """The daemon of these tests, its hub, and where it may not go."""

    daemon: DaemonProcess
    hub: FakeHub
    port: int
    outside: Path

    @property
    def tree(self) -> ModelsTree:
        return ModelsTree(self.daemon.models)

    async def tcp(
        self, method: str, path: str, body: bytes = b"", *, token: str | None = TOKEN, **named: str
    ) -> Answer:
        """Ask over TCP; *named* are headers with _ for -."""
        headers = {name.replace("_", "-"): value for name, value in named.items() if name != "host"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            host = named.get("host", f"127.0.0.1:{self.port}")
            return await exchange(reader, writer, method, path, body, host=host, headers=headers)
        finally:
            writer.close()

    async def error_of(self, model_id: str) -> dict[str, Any]:
        async def told() -> dict[str, Any] | None:
            found = await self.daemon.find(model_id)
            error: dict[str, Any] | None = None if found is None else found["error"]
            return error

        error: dict[str, Any] | None = await until(told, 15, what=f"an error of {model_id}")
        assert error is not None
        return error


async def port_of(daemon: DaemonProcess) -> int:
    (listening,) = await daemon.told("listening")
    return next(int(where.rpartition(":")[2]) for where in listening["on"] if not where.startswith("/"))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    base = tmp_path_factory.mktemp("site")
    root, outside = base / "root", base / "outside"
    outside.mkdir()
    (outside / "victim.gguf").write_bytes(sound().whole)
    (base / "token").write_text(TOKEN + "\n")
    (base / "token").chmod(0o600)
    async with FakeHub() as hub:
        hub.tokens.add(HUB_TOKEN)
        environ = {
            "HF_ENDPOINT": hub.endpoint,
            "HF_HUB_OFFLINE": "0",
            "HF_TOKEN": HUB_TOKEN,
            "JAND_DOWNLOAD__MIN_FREE": "0",
            "JAND_TOKEN_FILE": str(base / "token"),
            "JAND_LISTEN": "127.0.0.1:0",
            "JAND_ADOPT": "false",
        }
        async with DaemonProcess(root, "--settle", "0.1", "--no-reuse", environ=environ) as daemon:
            yield Site(daemon, hub, await port_of(daemon), outside)
            assert daemon.workers() == []
            assert not [event for event in daemon.log_events() if "unexpected" in event["event"]]


async def test_each_incident_has_tests_that_exist() -> None:
    for incident, tests in INCIDENTS.items():
        for test in tests:
            path, _, name = test.partition("::")
            names = {node.name for node in ast.walk(ast.parse((ROOT / path).read_text())) if hasattr(node, "name")}
            assert name in names, (incident, test)


# -- who may ask ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.local", "box.internal", "localhost.evil.example", "127.0.0.1.nip.io", "10.0.0.1", "[::1]"],
)
async def test_a_page_that_rebinds_its_name_is_refused(site: Site, host: str) -> None:
    """Also with the right port, and the right token, which a page might have got by other means."""
    for token in (None, TOKEN):
        answer = await site.tcp("GET", "/v1/models", token=token, host=f"{host}:{1 if host == '[::1]' else site.port}")
        assert (answer.status, answer.error["code"]) == (403, "forbidden-host")


@pytest.mark.parametrize("origin", ["null", "https://evil.example", "file://", "app://jan", "http://localhost:3000"])
async def test_null_and_foreign_origins_are_refused(site: Site, origin: str) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        answer = await site.tcp(method, "/v1/models", Origin=origin)
        assert (answer.status, answer.error["code"]) == (403, "forbidden-origin")
        assert not any(name.lower().startswith("access-control") for name in answer.headers)


async def test_every_call_but_the_probes_asks_for_the_token(site: Site) -> None:
    asked = 0
    for route in ROUTES:
        if route.path in TOKENLESS or route.path.startswith(PAGE_FILES):
            continue
        for token in (None, "wrong", TOKEN[:-1], TOKEN + "x"):
            answer = await site.tcp(route.method, route.path.replace("{id}", "m"), token=token)
            assert (answer.status, answer.error["code"]) == (401, "unauthorized"), route.path
            asked += 1
    assert asked > 80
    assert (await site.tcp("GET", "/health", token=None)).json == {"status": "ok", "details": {}}


async def test_the_token_counts_in_its_header_alone(site: Site) -> None:
    for path in (f"/v1/models?token={TOKEN}", f"/v1/models?api_key={TOKEN}", f"/v1/models?access_token={TOKEN}"):
        assert (await site.tcp("GET", path, token=None)).status == 401
    assert (await site.tcp("GET", "/v1/models", token=None, Cookie=f"token={TOKEN}", api_key=TOKEN)).status == 401
    assert (await site.tcp("GET", "/v1/models")).status == 200


@pytest.mark.parametrize(
    "media", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
async def test_a_body_that_a_form_could_send_is_refused(site: Site, media: str) -> None:
    answer = await site.tcp("POST", "/v1/models", b'{"origin": "user/repo"}', Content_Type=media)
    assert (answer.status, answer.error["code"]) == (415, "unsupported-media-type")


def refused_start(root: Path, place: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a daemon that must refuse to start, and return how it did."""
    return subprocess.run(
        [sys.executable, "-m", "jand", "serve", "--root", root, "--socket", place],
        env={**os.environ, **environ},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


async def test_beyond_this_machine_nothing_is_served_without_a_token(tmp_path: Path) -> None:
    ended = await asyncio.to_thread(refused_start, tmp_path, tmp_path / "run" / "s", JAND_LISTEN="0.0.0.0:0")

    assert ended.returncode == 78
    assert "without a token everybody who reaches this machine could use it" in ended.stderr
    assert "token_file" in ended.stderr
    assert not (tmp_path / "run" / "s").exists()


async def test_a_wider_address_loosens_nothing(tmp_path: Path) -> None:
    """With a token jand may listen everywhere; Host, Origin and token are asked for as before."""
    environ = {"JAND_LISTEN": "0.0.0.0:0", "JAND_TOKEN": TOKEN}
    async with DaemonProcess(tmp_path, environ=environ) as daemon, FakeHub() as hub:
        wide = Site(daemon, hub, await port_of(daemon), tmp_path)
        assert (await wide.tcp("GET", "/v1/models")).status == 200
        assert (await wide.tcp("GET", "/v1/models", token=None)).status == 401
        for host in ("0.0.0.0", "evil.example", ""):
            answer = await wide.tcp("GET", "/v1/models", host=f"{host}:{wide.port}")
            assert answer.error["code"] == "forbidden-host"
        for origin in ("null", "https://evil.example"):
            answer = await wide.tcp("GET", "/v1/models", Origin=origin)
            assert answer.error["code"] == "forbidden-origin"


async def test_nothing_in_the_sockets_place_is_taken_over(tmp_path: Path) -> None:
    """A file, a folder, a link to a file, a socket that somebody answers on, a directory that all may write to: each stays, and the daemon says what is in its way."""
    own = tmp_path / "own"
    own.mkdir(mode=0o700)
    (own / "file").write_text("mine")
    (own / "folder").mkdir()
    (own / "link").symlink_to(own / "file")
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(own / "socket"))
        other.listen()
        places = {
            own / "folder": "something that is no socket is there",
            own / "link": "something that is no socket is there",
            own / "socket": f"another daemon (pid {os.getpid()}",
            shared / "s": "others may write to the directory",
        }
        ends = await asyncio.gather(
            *(
                asyncio.to_thread(refused_start, tmp_path / f"root{number}", place)
                for number, place in enumerate(places)
            )
        )
        for ended, cause in zip(ends, places.values(), strict=True):
            assert ended.returncode == 69
            assert cause in ended.stderr
    assert (own / "file").read_text() == "mine"
    assert (own / "link").is_symlink()
    assert stat.S_ISSOCK((own / "socket").stat().st_mode)
    assert not (shared / "s").exists()


# -- names and paths ------------------------------------------------------------------------------------------------------

CLIMBING = [
    "..",
    ".",
    "../..",
    "../../outside/victim.gguf",
    "..%2F..%2Foutside%2Fvictim.gguf",
    "%2e%2e%2f%2e%2e%2foutside",
    "..%5c..%5coutside",
    "/etc/passwd",
    "%2Fetc%2Fpasswd",
    "....//....//etc/passwd",
    "..%252f..%252fetc%252fpasswd",
    "a%00/../../etc/passwd",
    "m%0a",
    "%C0%AE%C0%AE/",
    "x" * 4000,
]


def standing(site: Site) -> dict[Path, int]:
    """Return what lies outside and in the models folder, with times of change; the folder's own time is left out, for the watch puts its cookie there every few seconds."""
    outside = (site.outside, site.outside / "victim.gguf")
    models = (path for path in site.daemon.models.rglob("*") if not path.name.startswith(OWN_PREFIX))
    return {path: path.stat().st_mtime_ns for path in (*outside, *models)}


async def test_delete_takes_no_path(site: Site) -> None:
    """An id is looked up and never joined: what climbs is not found, and nothing goes."""
    kept = standing(site)
    for name in CLIMBING:
        for query in ("", "?keep_files=true"):
            answer = await site.tcp("DELETE", f"/v1/models/{name}{query}")
            assert answer.error["code"] in {"model-not-found", "unknown-route", "method-not-allowed", "bad-request"}, (
                name
            )
    assert standing(site) == kept


async def test_no_path_in_an_address_reaches_a_file(site: Site) -> None:
    secret = (Path("/etc/passwd").read_bytes().splitlines()[0], TOKEN.encode(), b"GGUF")
    for name in CLIMBING:
        for path in (f"/{name}", f"/v1/models/{name}", f"/v1/{name}", f"/v1/models/m/{name}", f"/openapi.json/{name}"):
            answer = await site.tcp("GET", path)
            assert answer.status in {400, 404, 200}
            if answer.status == 200:  # it led back to the list, as ".." does
                assert answer.json["object"] == "list"
            assert not any(words in answer.body for words in secret)


async def test_there_is_no_call_for_files_updates_arguments_or_the_end() -> None:
    """The whole table: nothing reads or writes a file by a path, takes arguments for an engine, ends the daemon, or replaces it."""
    words = {word for route in ROUTES for word in re.findall(r"[a-z_]+", re.sub(r"\{\w+\}", "", route.path))}
    assert not words & {
        "file",
        "files",
        "upload",
        "download",
        "update",
        "configure",
        "_configure",
        "shutdown",
        "destroy",
        "exec",
        "log",
    }


CLIMBING_BODIES: list[dict[str, Any]] = [
    {"origin": "user/repo", "id": "../evil"},
    {"origin": "user/repo", "id": "/tmp/jand-evil"},
    {"origin": "user/repo", "id": "x/../../../evil"},
    {"origin": "user/repo", "id": "a", "folder": "../evil"},
    {"origin": "user/repo", "id": "a", "folder": "/tmp/jand-evil"},
    {"origin": "user/repo", "id": "a", "folder": "x/../../evil"},
    {"origin": "user/repo", "id": "a", "folder": ".jand-part"},
    {"origin": "user/repo", "id": "evil\x00b"},
    {"catalog": "../../../etc/passwd"},
]


@pytest.mark.parametrize("body", CLIMBING_BODIES)
async def test_nothing_is_registered_outside_the_models_folder(site: Site, body: dict[str, Any]) -> None:
    """An id may be any text, but the names of folder and file are made from what is harmless in it; a folder that climbs is refused."""
    answer = await site.tcp("POST", "/v1/models", json.dumps(body).encode(), Content_Type="application/json")

    if answer.status == 201:
        assert "folder" not in body
        written = (site.daemon.root / answer.json["path"]).resolve()
        assert written.is_relative_to(site.daemon.models.resolve())
        assert (await site.tcp("DELETE", f"/v1/models/{quote(body['id'], safe='')}")).status == 200
        assert not written.exists()
    else:
        assert answer.error["code"] in {"bad-request", "bad-file-name", "model-not-found"}
    assert [
        path for path in site.daemon.root.parent.rglob("*evil*") if not path.is_relative_to(site.daemon.models)
    ] == []
    assert not Path("/tmp/jand-evil").exists()


async def test_a_hub_that_lists_names_outside_the_folder_gets_nothing_written(site: Site) -> None:
    names = ["../evil.gguf", "a/../../evil.gguf", "/tmp/jand-evil.gguf", "..\\evil.gguf", ".jand-part/evil.gguf"]
    for number, name in enumerate(names):
        site.hub.add(f"evil/repo{number}", {name: sound().whole})
        site.tree.spec(f"hub{number}/hub{number}.json", origin=f"evil/repo{number}")
    for number in range(len(names)):
        assert (await site.error_of(f"hub{number}"))["code"] in {"bad-file-name", "no-binary"}
    assert list(site.daemon.root.parent.rglob("*evil*.gguf")) == []
    assert not Path("/tmp/jand-evil.gguf").exists()


@pytest.mark.parametrize("name", ["sub/../../../evil.gguf", "a/../../evil.gguf", ".jand-part/evil.gguf", "x\x00.gguf"])
async def test_a_download_name_in_a_json_cannot_leave_its_folder(site: Site, name: str) -> None:
    number = abs(hash(name)) % 10**8
    site.tree.spec(f"j{number}/j{number}.json", download_url=name)

    async def refused() -> bool:
        problems = (await site.daemon.call("GET", "/v1/problems"))["data"]
        found = await site.daemon.find(f"j{number}")
        return any(f"j{number}" in problem["path"] for problem in problems) or bool(found and found["error"])

    await until(refused, 10, what=f"{name!r} to be refused")
    assert list(site.daemon.root.parent.rglob("*evil*.gguf")) == []


async def test_delete_leaves_what_lies_elsewhere(site: Site) -> None:
    """A binary outside by path, by link, by a linked folder; a hard link goes, its other name stays."""
    victim = site.outside / "victim.gguf"
    site.tree.spec("path/path.json", download_url=str(victim))
    site.tree.spec("link/link.json", download_url="link.gguf")
    site.tree.at("link/link.gguf").symlink_to(victim)
    folder = site.outside / "folder"
    ModelsTree(folder).spec("linked.json", download_url="linked.gguf")
    (folder / "linked.gguf").write_bytes(sound().whole)
    (site.daemon.models / "linked").symlink_to(folder)
    for name in ("path", "link", "linked"):
        await site.daemon.until_state(name, "downloaded")
        await site.daemon.call("DELETE", f"/v1/models/{name}", status=None)
    assert victim.read_bytes() == sound().whole
    assert (folder / "linked.gguf").read_bytes() == sound().whole
    (site.daemon.models / "linked").unlink()


# -- addresses ------------------------------------------------------------------------------------------------------------

INWARD = [
    "127.0.0.2",
    "localhost",
    "[::1]",
    "169.254.169.254",
    "10.0.0.1",
    "[::ffff:10.0.0.1]",
    "2130706433",
    "0x7f.1",
    "0.0.0.0",
]


@pytest.mark.parametrize("host", INWARD)
async def test_an_address_in_this_network_is_refused_by_its_number_and_by_its_name(site: Site, host: str) -> None:
    name = f"inward{INWARD.index(host)}"
    body = json.dumps({"download_url": f"http://{host}:{site.port}/m.gguf", "id": name}).encode()
    answer = await site.tcp("POST", "/v1/models", body, Content_Type="application/json")
    if answer.status == 201:
        assert (await site.error_of(name))["code"] in {"private-address", "unsafe-address"}
        await site.daemon.call("DELETE", f"/v1/models/{name}")
    else:
        assert answer.error["code"] in {"private-address", "unsafe-address"}


async def test_a_dropped_json_cannot_reach_into_this_network(site: Site) -> None:
    for number, address in enumerate(
        [
            f"http://127.0.0.2:{site.port}/x.gguf",
            "http://169.254.169.254/x.gguf",
            "ftp://127.0.0.1/x.gguf",
            "gopher://x/x.gguf",
        ]
    ):
        site.tree.spec(f"in{number}/in{number}.json", download_url=address)
    for number in range(2):
        assert (await site.error_of(f"in{number}"))["code"] == "private-address"
    for number in range(2, 4):

        async def told(name: str = f"in{number}") -> bool:
            found = await site.daemon.find(name)
            listed = (await site.daemon.call("GET", "/v1/problems"))["data"]
            return bool(found and found["error"]) or any(name in problem["path"] for problem in listed)

        await until(told, 10, what="an address of another kind to be refused")


async def test_a_hub_that_redirects_into_this_network_is_refused(site: Site) -> None:
    site.hub.add("redirecting/repo", {"r.gguf": sound().whole})
    site.hub.plain["/inside.gguf"] = HubFile(sound().whole)
    target = site.hub.storage.replace("127.0.0.1", "127.0.0.2") + "/inside.gguf"
    site.hub.faults.append(
        Fault(at="hub", path="/redirecting/", redirect=target, headers={"X-Repo-Commit": "0" * 40}, times=None)
    )
    site.tree.spec("redirected/redirected.json", origin="redirecting/repo", download_url="r.gguf")

    assert (await site.error_of("redirected"))["code"] == "private-address"
    assert site.hub.seen("cdn", "/inside.gguf") == []
    assert not (site.daemon.models / "redirected" / "r.gguf").exists()


# -- files ----------------------------------------------------------------------------------------------------------------


def broken(what: What, value: int) -> bytes:
    field = next(each for each in sound().fields if each.what is what)
    data = bytearray(sound().whole)
    data[field.offset : field.offset + field.width] = value.to_bytes(field.width, "little")
    return bytes(data)


HOSTILE = {
    "tensor-beyond-the-file": broken(What.SIZE, 1 << 40),
    "size-that-overflows": broken(What.SIZE, 1 << 62),
    "offset-at-the-end-of-numbers": broken(What.OFFSET, (1 << 64) - 32),
    "billions-of-tensors": broken(What.TENSOR_COUNT, (1 << 64) - 1),
    "billions-of-keys": broken(What.KEY_COUNT, (1 << 63) - 1),
    "text-longer-than-memory": broken(What.TEXT_LENGTH, (1 << 64) - 1),
    "array-longer-than-memory": broken(What.ELEMENT_COUNT, (1 << 61) + 1),
    "many-dimensions": broken(What.DIMENSIONS, 0xFFFFFFFF),
    "nothing-behind-the-header": sound().header,
    "a-web-page": b"<!DOCTYPE html><html>" * 200,
}


async def test_a_hostile_gguf_is_a_problem_and_never_reaches_an_engine(site: Site) -> None:
    """None of them can be started, so llama.cpp sees none."""
    before = site.daemon.process
    for name, data in HOSTILE.items():
        site.tree.at(f"{name}/{name}.gguf").write_bytes(data)
        site.tree.spec(f"{name}/{name}.json", origin="local", download_url=f"./{name}.gguf")
    for name in HOSTILE:
        error = await site.error_of(name)
        assert error["code"] in {"bad-binary", "incomplete-binary"}, (name, error)
        answer = await site.daemon.call("PUT", f"/v1/models/{name}/start", status=None)
        assert answer["error"]["code"] in {"model-downloading", "bad-binary", "incomplete-binary"}, (name, answer)
    assert site.daemon.workers() == []
    assert site.daemon.process is before


async def test_a_template_that_breaks_out_gets_nowhere(site: Site) -> None:
    mark = site.outside / "mark"
    code = (
        "{% set f = '{0.__class__.__init__.__globals__}'.format %}{{ f(self) }}"
        f"{{{{ cycler.__init__.__globals__.os.system('touch {mark}') }}}}{{{{ lipsum.__globals__.os.popen('touch {mark}') }}}}"
    )
    gguf_files.tiny_llama(site.tree.at("ssti/ssti.gguf"), chat_template=code)
    site.tree.spec("ssti/ssti.json", download_url="ssti.gguf", parameters={"init": {"ctx_len": 64}})
    await site.daemon.until_state("ssti", "downloaded")
    body = {"model": "ssti", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    answer = await site.daemon.call("POST", "/v1/chat/completions", body, status=400)
    assert answer["error"]["code"] == "template-failed"
    await site.daemon.call("PUT", "/v1/models/ssti/stop")
    assert not mark.exists()


async def test_no_parameter_becomes_an_argument_or_a_file(site: Site) -> None:
    """What an init has beyond what is known reaches nobody, in a JSON or in a request; the one parameter that names files is for reading and stays in the folder."""
    target = site.outside / "written"
    foreign = {
        "log_file": str(target),
        "--log-file": str(target),
        "path_session": str(target),
        "rpc_servers": "127.0.0.1:1",
    }
    gguf_files.tiny_llama(site.tree.at("args/args.gguf"))
    site.tree.spec("args/args.json", download_url="args.gguf", parameters={"init": {"ctx_len": 64, **foreign}})
    await site.daemon.until_state("args", "downloaded")
    started = await site.daemon.call("PUT", "/v1/models/args/start")
    assert started["state"] == "running"
    (worker, *_) = site.daemon.workers()
    assert not any(str(target) in part for part in worker.cmdline())
    await site.daemon.call("PUT", "/v1/models/args/stop")
    for init in (foreign, {"lora": "../../outside/victim.gguf"}):
        refused = await site.daemon.call("PUT", "/v1/models/args/start", {"parameters": {"init": init}}, status=None)
        if "error" in refused:
            assert refused["error"]["code"] in {"bad-request", "start-failed"}
        else:
            await site.daemon.call("PUT", "/v1/models/args/stop")
    assert not target.exists()


# -- bodies and headers ---------------------------------------------------------------------------------------------------


async def test_a_body_that_unpacks_to_more_than_is_taken_is_refused(site: Site) -> None:
    """100 MB in 100 KB; the daemon keeps its memory."""
    packed = gzip.compress(b'{"origin": "' + b"x" * (100 << 20) + b'"}')
    before = resident(site.daemon)
    for path in ("/v1/models", "/v1/chat/completions"):
        answer = await site.tcp("POST", path, packed, Content_Type="application/json", Content_Encoding="gzip")
        assert (answer.status, answer.error["code"]) in {(413, "body-too-large"), (400, "bad-request")}
    assert resident(site.daemon) - before < 100 << 20


async def test_endless_headers_are_refused(site: Site) -> None:
    for headers in ({"X-Long": "x" * 100_000}, {f"X-{number}": "x" for number in range(10_000)}):
        reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
        answer = await exchange(reader, writer, "GET", "/health", host=f"127.0.0.1:{site.port}", headers=headers)
        writer.close()
        assert (answer.status, answer.error["code"]) == (400, "bad-request")


def resident(daemon: DaemonProcess) -> int:
    status = Path(f"/proc/{daemon.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found
    return int(found[1]) << 10


# -- secrets --------------------------------------------------------------------------------------------------------------


async def test_no_token_is_in_any_answer_event_or_log_line(site: Site) -> None:
    """The token of TCP and that of the hub, right and nearly right, in every place where a client can put them."""
    events = await site.daemon.session.get("http://jand/v1/events")
    near = TOKEN + "-nearly"
    seen: list[str] = []
    for path in (
        f"/v1/models/{near}",
        f"/{near}",
        f"/v1/models?state={near}",
        "/v1/models",
        "/health",
        "/version",
        "/metrics",
    ):
        for token in (TOKEN, near):
            answer = await site.tcp("GET", path.replace(near, quote("elsewhere")), token=token)
            seen.append(f"{answer.headers} {answer.body!r}")
    site.hub.add("gated/repo", {"g.gguf": sound().whole})
    site.hub.faults.append(Fault(at="hub", path="/gated/", status=401, times=None))
    site.tree.spec("gated/gated.json", origin="gated/repo", download_url="g.gguf")
    await site.error_of("gated")
    seen.append(json.dumps(await site.daemon.call("GET", "/v1/models")))
    seen.append(json.dumps(await site.daemon.call("GET", "/v1/problems")))
    told = b""
    while b'"gated"' not in told:
        told += await asyncio.wait_for(events.content.readany(), 5)
    events.close()
    seen += [told.decode(), site.daemon.log()]
    seen += [
        path.read_bytes().decode(errors="replace") for path in site.daemon.root.rglob(".jand*/**/*") if path.is_file()
    ]

    assert any(request.headers.get("authorization") == f"Bearer {HUB_TOKEN}" for request in site.hub.requests)
    for secret in (TOKEN, HUB_TOKEN):
        assert [text[:200] for text in seen if secret in text] == []
