"""Remote models between what the disk holds and the session that serves them."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from jand.engine.remote.credentials import Credentials
from jand.errors import StartError
from jand.lifecycle.actor import Actor
from jand.lifecycle.admission import Admission
from jand.lifecycle.notes import Notes
from jand.lifecycle.portrait import owner
from jand.lifecycle.remotes import RemoteModels, by_engine
from jand.lifecycle.tally import Tally
from jand.settings.schema import BUILT_IN_SECRETS
from jand.tasks import TaskSet
from tests.fakes.engine import FakeEngine
from tests.fakes.provider import AZURE_KEY, KEY, FakeProvider
from tests.fakes.records import make_found
from tests.fakes.remote import QUICK, azure_json, openai_json
from tests.fakes.waiting import until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from jand.library.findings import Found
    from jand.lifecycle.remotes import RemoteRunning


@pytest.fixture
async def provider() -> AsyncIterator[FakeProvider]:
    async with FakeProvider() as served:
        yield served


def found_for(fields: Mapping[str, Any], path: str = "models/mine/mine.json") -> Found:
    return dataclasses.replace(make_found(path, **fields), binaries=())


async def launch(
    fields: Mapping[str, Any],
    directory: Path = Path("/nowhere"),
    environ: Mapping[str, str] | None = None,
    bindings: Mapping[str, str] | None = None,
    path: str = "models/mine/mine.json",
) -> RemoteRunning:
    models = RemoteModels(Credentials(directory, environ or {}, bindings or BUILT_IN_SECRETS), patience=QUICK)
    found = found_for(fields, path)
    return await models.launch("mine", found, found.spec, lambda fraction: None)


async def test_a_model_runs_once_its_provider_has_agreed(provider: FakeProvider) -> None:
    running = await launch(openai_json(provider))
    details = running.details()
    waiting = asyncio.create_task(running.wait())
    await running.stop(grace_s=1, force=False)

    assert {name: details[name] for name in ("provider", "dialect", "provider_model")} == {
        "provider": f"127.0.0.1:{provider.port}",
        "dialect": "openai",
        "provider_model": "gpt-4o-mini",
    }
    assert (running.pid, running.memory()) == (None, 0)
    assert await waiting == "it was stopped"
    assert KEY not in f"{details} {running.upstream}"
    await running.close()


async def test_without_a_deployment_name_the_file_says_what_the_provider_calls_it(provider: FakeProvider) -> None:
    fields = openai_json(provider, "")
    by_file = await launch(fields, path="models/openai/gpt-4o-mini.json")
    by_id = await launch(fields | {"id": "org/model"})

    assert by_file.details()["provider_model"] == "gpt-4o-mini"
    assert by_id.details()["provider_model"] == "org/model"
    for running in (by_file, by_id):
        await running.close()


async def test_a_key_in_a_file(provider: FakeProvider, tmp_path: Path) -> None:
    (tmp_path / "azure").write_text(AZURE_KEY)
    (tmp_path / "azure").chmod(0o600)
    running = await launch(azure_json(provider, key="file:azure"), tmp_path)
    await running.close()

    assert provider.requests[0].headers["api-key"] == AZURE_KEY


async def test_a_variable_bound_to_the_origin_is_the_key_of_a_json_without_one(provider: FakeProvider) -> None:
    running = await launch(openai_json(provider, key=""), environ={"MINE": KEY}, bindings={"MINE": provider.origin})
    await running.close()

    assert provider.requests[0].headers["authorization"] == f"Bearer {KEY}"


async def test_a_variable_bound_elsewhere_is_not_sent(provider: FakeProvider) -> None:
    environ = {"OPENAI_API_KEY": KEY}
    with pytest.raises(StartError, match=r"https://api\.openai\.com alone"):
        await launch(openai_json(provider, key="env:OPENAI_API_KEY"), environ=environ)
    with pytest.raises(StartError, match="wants a key, and there is none"):
        await launch(openai_json(provider, key=""), environ=environ)

    assert all("authorization" not in request.headers for request in provider.requests)


async def test_a_start_that_fails_or_is_given_up_leaves_no_connection(provider: FakeProvider) -> None:
    with pytest.raises(StartError):
        await launch(openai_json(provider, "gpt-9"))
    provider.style.hold_pages = asyncio.Event()
    starting = asyncio.create_task(launch(openai_json(provider)))
    await until(lambda: len(provider.requests) == 2, what="the check")
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    provider.style.hold_pages.set()
    await until(lambda: provider.connections == 0, what="the connections to end")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, False),
        ({"metadata": {"tags": ["x"]}}, False),
        ({"origin": "https://elsewhere.example/v1"}, True),
        ({"import_format": "azure_openai"}, True),
        ({"id": "another"}, True),
        ({"parameters": {"init": {"API-KEY": "another"}}}, True),
    ],
)
async def test_what_needs_another_start(provider: FakeProvider, change: dict[str, Any], expected: bool) -> None:
    running = await launch(openai_json(provider))
    changed = found_for(openai_json(provider) | change).spec
    await running.close()

    assert running.init_changed(changed) is expected


async def test_the_engine_of_the_spec_decides_who_starts_it(provider: FakeProvider) -> None:
    local, remote = FakeEngine(immediately=True), FakeEngine(immediately=True)
    launch_either = by_engine(local.launch, remote.launch)
    for found in (found_for(openai_json(provider)), make_found("models/b/b.json")):
        await launch_either(found.path, found, found.spec, lambda fraction: None)

    assert [path for path, _ in remote.launched] == ["models/mine/mine.json"]
    assert [path for path, _ in local.launched] == ["models/b/b.json"]


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("TheBloke/zephyr", "TheBloke"),
        ("api.openai.com", "api.openai.com"),
        ("https://r.openai.azure.com/", "r.openai.azure.com"),
        ("https://me:sk-secret@host:8000/v1", "host:8000"),
        ("http://host?api-key=secret", "host"),
    ],
)
def test_who_owns_a_model_is_told_without_secrets(origin: str, expected: str) -> None:
    assert owner(origin) == expected


class Around:
    """The surroundings of an actor."""

    def __init__(self, engine: FakeEngine) -> None:
        self.tasks = TaskSet()
        self.start_on_request = True
        self.stop_timeout_s = 1.0
        self.keep_alive_s = -1.0
        self.admission = Admission(10**12, Notes(Path("/nowhere/state.json")))
        self.tally = Tally()
        self.launch = engine.launch

    def changed(self, actor: Actor) -> None:
        """Nobody listens."""


async def test_a_provider_that_was_away_is_no_crash_loop(provider: FakeProvider) -> None:
    """A laptop without network for a minute, and an app that goes on asking: when the network is back the next request is answered."""
    engine = FakeEngine()
    actor = Actor("mine", found_for(openai_json(provider)), (), Around(engine))
    failed: list[StartError] = []
    for _ in range(8):
        asking = asyncio.create_task(actor.acquire())
        await until(lambda: len(engine.launched) > len(failed), 0.5, what="an attempt without a wait")
        engine.fail_start(StartError("cannot start it"))
        with pytest.raises(StartError) as caught:
            await asking
        failed.append(caught.value)
    asking = asyncio.create_task(actor.acquire())
    await until(lambda: len(engine.launched) > len(failed))
    engine.let_start()
    await asking
