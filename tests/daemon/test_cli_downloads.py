"""`jand pull`, `search`, `catalog`, `copy`, `pause`, `resume` and `events` against the API with an in-memory manager."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from jand.download.plan import Plan, WantedFile
from jand.download.planner import SearchHit
from jand.download.recommend import Place, Row
from jand.errors import HubNotFoundError, NotPossibleError
from jand.lifecycle.catalog import CatalogEntry
from jand.lifecycle.offers import Offer
from jand.model.problem import ErrorNote
from jand.model.record import FileProgress, FileRecord, Progress, PublicState
from tests.fakes.api import ServedApi
from tests.fakes.manager import CountingLog, FakeManager
from tests.fakes.records import make_spec
from tests.fakes.shell import JAND, Shell
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.timeout(60)

ROWS = (
    Row("Q4_K_M", "Q4_K_M", ("a.Q4_K_M.gguf",), 4_000_000_000, 5_000_000_000, Place.MEMORY, chosen=True),
    Row("F16", "F16", ("a.F16.gguf",), 16_000_000_000, 17_000_000_000, Place.NOWHERE),
)
PLAN = Plan(
    files=(WantedFile("a.Q4_K_M.gguf", "https://hub/a", "https://hub/a", 4_000_000_000, "00"),),
    present={"mmproj.gguf": 10},
    repository="user/repo",
    commit="c0ffee00c0ffee00",
    quantization="Q4_K_M",
    reason="it needs 5 GB of the 20 GB",
    table=ROWS,
)
FILE = FileRecord("a.Q4_K_M.gguf", 4_000_000_000, present=True)


@pytest.fixture
async def manager() -> FakeManager:
    manager = FakeManager()
    manager.plan = PLAN
    return manager


@pytest.fixture
async def shell(manager: FakeManager) -> AsyncIterator[Shell]:
    async with ServedApi(manager) as api:
        yield Shell(api.socket)


def coming(done: int, total: int = 4_000_000_000) -> dict[str, Any]:
    return {
        "state": PublicState.DOWNLOADING,
        "progress": Progress(done, total, 80e6, 50.0, (FileProgress("a.Q4_K_M.gguf", done, total),)),
    }


async def begin(shell: Shell, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *JAND, *arguments, env=shell.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def have(manager: FakeManager, model_id: str = "new") -> bool:
    return any(asked.verb == "register" for asked in manager.asked) or any(r.id == model_id for r in manager.list())


async def test_a_dry_run_shows_the_table_the_files_and_the_reason_and_registers_nothing(
    manager: FakeManager, shell: Shell
) -> None:
    text = (await shell("pull", "user/repo:Q4_K_M", "--dry-run")).stdout

    assert text == (
        "new  ->  models/new/new.json\n"
        "of user/repo at commit c0ffee00c0ff\n"
        "\n"
        "    VARIANT  SIZE     NEEDS    FITS IN\n"
        "->  Q4_K_M   4.0 GB   5.0 GB   memory\n"
        "    F16      16.0 GB  17.0 GB  nowhere\n"
        "\n"
        "FILE           SIZE\n"
        "a.Q4_K_M.gguf  4.0 GB\n"
        "\n"
        "mmproj.gguf is there already\n"
        "it needs 5 GB of the 20 GB\n"
    )
    assert [asked.verb for asked in manager.asked] == ["preview"]
    preview = json.loads((await shell("pull", "user/repo", "--dry-run", "--json")).stdout)
    assert (preview["object"], preview["download"]["quantization"]) == ("preview", "Q4_K_M")


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("user/repo", {"origin": "user/repo"}),
        ("hf.co/user/repo@v1:Q5_0", {"origin": "hf.co/user/repo@v1:Q5_0"}),
        ("https://huggingface.co/user/repo", {"download_url": "https://huggingface.co/user/repo"}),
        ("zephyr-7b", {"catalog": "zephyr-7b"}),
    ],
)
async def test_an_address_a_repository_and_an_id_of_the_catalogue_are_told_apart(
    manager: FakeManager, shell: Shell, what: str, body: dict[str, str]
) -> None:
    await shell("pull", what, "--id", "mine", "--no-wait")

    assert [(asked.verb, asked.arguments) for asked in manager.asked] == [
        ("preview", {**body, "id": "mine"}),
        ("register", {**body, "id": "mine"}),
    ]


async def test_on_a_terminal_a_pull_draws_a_bar_for_each_file_and_the_whole(manager: FakeManager, shell: Shell) -> None:
    seen = bytearray()
    pulling = asyncio.create_task(asyncio.to_thread(shell.on_terminal, "pull", "user/repo", shown=seen))
    await until(lambda: have(manager), 20)
    files = (FileProgress("a.gguf", 1_000_000, 4_000_000), FileProgress("b.gguf", 2_000_000, 2_000_000))
    manager.change("new", progress=Progress(3_000_000, 6_000_000, 1e6, 3.0, files))
    await until(lambda: b"all of it" in seen, 10, what="the bars")
    manager.change("new", state=PublicState.DOWNLOADED, progress=None, files=(FILE,))
    status, shown = await pulling

    assert status == 0
    assert "a.gguf" in shown
    assert "b.gguf" in shown
    assert "1.0/4.0 MB" in shown
    assert "6.0/6.0 MB" in shown
    assert shown.splitlines()[-1].endswith("new is downloaded (4.0 GB); start it with: jand start new")


async def test_elsewhere_a_pull_writes_plain_lines(manager: FakeManager, shell: Shell) -> None:
    pulling = await begin(shell, "pull", "user/repo")
    await until(lambda: have(manager), 20)
    manager.change("new", **coming(1_000_000_000))
    assert pulling.stderr is not None
    line = await pulling.stderr.readline()
    manager.change("new", state=PublicState.DOWNLOADED, progress=None, files=(FILE,))
    out, err = await pulling.communicate()

    assert out.decode().splitlines() == [
        "fetching a.Q4_K_M.gguf (4.0 GB) from user/repo: it needs 5 GB of the 20 GB",
        "new is downloaded (4.0 GB); start it with: jand start new",
    ]
    assert (line + err).decode() == "new: 25% of 4.0 GB, 80.0 MB/s, 50 s left\n"


async def test_a_pull_as_json_prints_the_model_alone(manager: FakeManager, shell: Shell) -> None:
    pulling = asyncio.create_task(shell("pull", "user/repo", "--json"))
    await until(lambda: have(manager), 20)
    manager.change("new", **coming(1))
    manager.change("new", state=PublicState.DOWNLOADED, progress=None)
    ended = await pulling

    assert json.loads(ended.stdout)["state"] == "downloaded"
    assert ended.stderr == ""


async def test_a_repeated_pull_goes_on_watching_and_another_model_of_that_name_is_refused(
    manager: FakeManager, shell: Shell
) -> None:
    manager.add("new", spec=make_spec(origin="user/repo"), **coming(1))
    pulling = asyncio.create_task(shell("pull", "user/repo"))
    await until(lambda: manager.asked, 20)
    manager.change("new", state=PublicState.DOWNLOADED, progress=None)
    ended = await pulling
    refused = await shell("pull", "user/other", status=73)

    assert ended.stdout.splitlines()[-1] == "new is downloaded; start it with: jand start new"
    assert [asked.verb for asked in manager.asked] == ["preview", "preview"]
    assert refused.stderr == (
        'jand: cannot pull it as "new": that is another model, of user/repo\nhint: give it another name with --id\n'
    )


async def test_what_the_hub_refuses_leaves_nothing_registered(manager: FakeManager, shell: Shell) -> None:
    manager.refuse("preview", HubNotFoundError("cannot download from no/such: it does not exist", hint="correct it"))

    ended = await shell("pull", "no/such", status=1)

    assert ended.stderr == "jand: cannot download from no/such: it does not exist\nhint: correct it\n"
    assert [asked.verb for asked in manager.asked] == ["preview"]


async def test_an_error_that_is_tried_again_soon_is_told_and_waited_for(manager: FakeManager, shell: Shell) -> None:
    pulling = await begin(shell, "pull", "user/repo")
    await until(lambda: have(manager), 20)
    now = time.time()
    manager.change("new", error=ErrorNote("no-network", "cannot reach the hub", "plug it in", now, now + 30))
    assert pulling.stderr is not None
    line = await pulling.stderr.readline()
    manager.change("new", error=None, state=PublicState.DOWNLOADED)
    _, err = await pulling.communicate()

    assert re.fullmatch(rb"cannot reach the hub; trying again in (29|30) s\n", line)
    assert (err, pulling.returncode) == (b"", 0)


@pytest.mark.parametrize(
    ("changes", "status", "sentence", "hint"),
    [
        (
            {"error": ErrorNote("bad-digest", "cannot use it", "look", at=1.0, retry_at=time.time() + 5000)},
            1,
            "jand: cannot use it",
            "hint: look; the daemon tries again at",
        ),
        (
            {"error": ErrorNote("bad-binary", "cannot use your file", "put another there")},
            65,
            "jand: cannot use your file",
            "hint: put another there",
        ),
        ({"paused": True}, 75, 'jand: cannot wait for "new": its download is paused', "hint: go on with: jand resume"),
    ],
)
async def test_what_will_not_be_there_soon_ends_the_waiting_with_its_own_status(
    manager: FakeManager, shell: Shell, changes: dict[str, Any], status: int, sentence: str, hint: str
) -> None:
    manager.add("new", spec=make_spec(origin="user/repo"), state=PublicState.DOWNLOADING, **changes)

    ended = await shell("pull", "user/repo", status=status)

    assert ended.stderr.splitlines()[0] == sentence
    assert ended.stderr.splitlines()[1].startswith(hint)


async def test_a_model_that_is_deleted_meanwhile_is_not_waited_for(manager: FakeManager, shell: Shell) -> None:
    pulling = asyncio.create_task(shell("pull", "user/repo", status=66))
    await until(lambda: have(manager), 20)
    manager.remove("new")

    assert (await pulling).stderr.splitlines()[-1] == 'jand: cannot wait for "new": it was deleted meanwhile'


async def test_ctrl_c_ends_the_watching_and_says_that_the_download_goes_on(manager: FakeManager, shell: Shell) -> None:
    pulling = await begin(shell, "pull", "user/repo")
    await until(lambda: have(manager), 20)
    pulling.send_signal(signal.SIGINT)
    _, err = await pulling.communicate()

    assert pulling.returncode == 130
    assert b"the download goes on" in err
    assert b"jand pause" in err
    assert b"Traceback" not in err


async def test_a_search_shows_what_fits_and_why_something_does_not(manager: FakeManager, shell: Shell) -> None:
    manager.hits = [
        SearchHit("user/repo", 12_345, 7, gated=False, table=ROWS),
        SearchHit("user/gated", 10, 0, gated=True, note="the smallest needs 40 GB"),
    ]

    lines = (await shell("search", "two", "words", "--limit", "5")).stdout.splitlines()

    assert lines[0].split("  ")[0] == "REPOSITORY"
    assert lines[1].split() == ["user/repo", "12,345", "Q4_K_M", "4.0", "GB", "5.0", "GB", "2"]
    assert lines[2].startswith("user/gated (gated)  10")
    assert "the smallest needs 40 GB" in lines[2]
    assert lines[-1] == "fetch one with: jand pull REPOSITORY"
    assert manager.asked[0].arguments == {"words": "two words", "limit": 5}
    assert (await shell.json("search", "x"))["data"][0]["repository"] == "user/repo"
    manager.hits = []
    assert (await shell("search", "x")).stdout == "nothing found\n"


async def test_the_catalogue_says_what_each_would_download(manager: FakeManager, shell: Shell) -> None:
    manager.add("there")
    manager.catalog = [
        Offer(CatalogEntry("local", make_spec(metadata={"description": "A model"})), PLAN),
        Offer(CatalogEntry("remote", make_spec(origin="a/b")), Plan(remote=True)),
        Offer(CatalogEntry("there", make_spec(origin="c/d")), PLAN),
        Offer(CatalogEntry("unknown", make_spec(origin="e/f")), unknown=ErrorNote("no-network", "cannot reach it")),
        Offer(CatalogEntry("vast", make_spec(origin="g/h")), unknown=ErrorNote("nothing-fits", "needs 90 GB")),
    ]

    lines = (await shell("catalog")).stdout.splitlines()

    assert [line.split(maxsplit=1)[0] for line in lines[:6]] == ["ID", "local", "remote", "there", "unknown", "vast"]
    assert "4.0 GB Q4_K_M needs 5.0 GB" in lines[1]
    assert lines[1].endswith("A model")
    assert "nothing, it is remote" in lines[2]
    assert "it is registered" in lines[3]
    assert "unknown: no-network" in lines[4]
    assert "nothing of it fits here" in lines[5]
    assert (await shell.json("catalog"))["data"][0]["id"] == "local"
    manager.catalog = []
    assert (await shell("catalog")).stdout == "the catalogue is empty\n"


async def test_a_copy_is_made_with_changes_by_dotted_names(manager: FakeManager, shell: Shell) -> None:
    manager.add("a")
    changes = ("init.ctx_len=16", "runtime.stop=END", "metadata.pinned=true", "owned_by=", "parameters.init.ngl=1")
    sets = [word for change in changes for word in ("--set", change)]

    ended = await shell("copy", "a", "b", *sets)

    assert ended.stdout == "b is downloaded; its JSON is models/b/b.json\n"
    assert manager.asked[0].arguments == {
        "id": "b",
        "parameters": {"init": {"ctx_len": 16, "ngl": 1}, "runtime": {"stop": "END"}},
        "metadata": {"pinned": True},
        "owned_by": None,
    }
    assert (await shell.json("copy", "a", "c"))["id"] == "c"
    for wrong in ("init", "=1", "init..x=1", ".x=1"):
        assert "expected NAME=VALUE" in (await shell("copy", "a", "d", "--set", wrong, status=2)).stderr


async def test_a_download_is_halted_and_gone_on_with(manager: FakeManager, shell: Shell) -> None:
    manager.add("a", **coming(1_000_000_000))

    assert (await shell("pause", "a")).stdout == "the download of a is halted at 25% of 4.0 GB, 80.0 MB/s, 50 s left\n"
    assert (await shell("resume", "a")).stdout == "the download of a goes on\n"
    assert (await shell.json("pause", "a"))["paused"] is True
    manager.refuse("pause", NotPossibleError('cannot pause "a": nothing is being downloaded for it'))
    assert (await shell("pause", "a", status=1)).stderr.startswith('jand: cannot pause "a"')


async def test_events_are_a_readable_feed_and_as_json_a_line_each(manager: FakeManager, shell: Shell) -> None:
    feeds = [await begin(shell, "events", *options) for options in ((), ("--json",), ("--model", "b"))]
    log = manager.events
    assert isinstance(log, CountingLog)
    await until(lambda: log.listeners == 3, 20, what="the listeners")
    manager.add("a", state=PublicState.DOWNLOADING)
    for done in (1_000_000_000, 1_100_000_000, 1_200_000_000):
        manager.change("a", "model.progress", **coming(done))
    manager.change("a", "model.updated", error=ErrorNote("no-network", "cannot reach the hub"))
    manager.change("a", "model.state", state=PublicState.DOWNLOADED, progress=None, error=None)
    manager.add("b")
    manager.complain("models/x\x1b.json", line=1)
    manager.remove("a")
    manager.events.close()
    told = [(await feed.communicate(), feed.returncode) for feed in feeds]

    lines = [line.split("  ", 2)[1:] for line in told[0][0][0].decode().splitlines()]
    assert lines == [
        ["a", "registered, downloading"],
        ["a", "25% of 4.0 GB, 80.0 MB/s, 50 s left"],
        ["a", "changed, downloading (30%), no-network: cannot reach the hub"],
        ["a", "downloaded"],
        ["b", "registered, downloaded"],
        ["models/x\\x1b.json", "error: expected a comma [bad-json]"],
        ["a", "removed"],
    ]
    events = [json.loads(line) for line in told[1][0][0].splitlines()]
    assert [event["type"] for event in events].count("model.progress") == 3
    assert events[0].keys() == {"id", "type", "data"}
    assert [line.split()[1] for line in told[2][0][0].decode().splitlines()] == ["b"]
    assert [status for _, status in told] == [69] * 3
    assert told[0][0][1].decode() == "jand: cannot go on listening: the daemon has ended\n"
