"""`GET /metrics` is what Prometheus reads, and says what happened."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from jand.lifecycle.tally import Meter
from jand.model.record import PublicState
from tests.fakes.upstream import DONE, answer_events, answer_json, chat_chunk

if TYPE_CHECKING:
    from tests.fakes.api import ServedApi
    from tests.fakes.manager import FakeManager
    from tests.fakes.upstream import FakeUpstream

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def read(api: ServedApi) -> Samples:
    answer = await api.ask("GET", "/metrics")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = list(text_string_to_metric_families(answer.body.decode()))
    assert all(family.documentation and family.type != "unknown" for family in families)
    assert all(family.name.startswith("jand_") for family in families)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def of(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


async def test_what_the_daemon_has_and_what_runs(api: ServedApi, manager: FakeManager) -> None:
    manager.add("a", state=PublicState.RUNNING)
    manager.add("b")
    manager.complain("models/x.json")

    samples = await read(api)

    assert of(samples, "jand_models", state="running") == 1
    assert of(samples, "jand_models", state="downloading") == 0
    assert of(samples, "jand_problems") == 1
    assert of(samples, "jand_watch_mode", tree="models", mode="events") == 1
    assert of(samples, "jand_memory_budget_bytes") == 1 << 30
    assert of(samples, "jand_memory_reserved_bytes", model="a") == 200
    assert of(samples, "jand_memory_resident_bytes", model="a") == 100
    assert of(samples, "jand_requests_in_flight", model="a") == 0


async def test_a_model_that_never_ran_costs_no_line(api: ServedApi, manager: FakeManager) -> None:
    manager.add("b")

    assert not [labels for _, labels in await read(api) if ("model", "b") in labels]


async def test_what_happened_to_a_model_and_what_its_worker_did(api: ServedApi, manager: FakeManager) -> None:
    name = 'odd "name"\n\\ é'
    tally = manager.tally
    tally.loaded(name, 0.3)
    tally.died(name)
    tally.loaded(name, 400)
    tally.load_failed(name)
    tally.evicted(name)
    work = {
        "prompt_tokens": 7,
        "reading_s": 2,
        "generated_tokens": 11,
        "generating_s": 4,
        "steps": 10,
        "slot_steps": 15,
        "most_tokens": 90,
    }
    Meter(tally, name).heard(processing=0, queued=0, work={"most_tokens": 120})
    Meter(tally, name).heard(processing=2, queued=3, work=work)
    Meter(tally, "new").heard(processing=0, queued=0, work={"prompt_tokens": 0, "reading_s": 0})

    samples = await read(api)

    assert of(samples, "jand_load_seconds_count", model=name) == 2
    assert of(samples, "jand_load_seconds_sum", model=name) == 400.3
    assert of(samples, "jand_load_seconds_bucket", model=name, le="0.5") == 1
    assert of(samples, "jand_load_seconds_bucket", model=name, le="+Inf") == 2
    for counter in ("worker_deaths", "worker_restarts", "failed_loads", "evictions"):
        assert of(samples, f"jand_{counter}_total", model=name) == 1
    assert of(samples, "jand_prompt_tokens_total", model=name) == 7
    assert of(samples, "jand_tokens_predicted_total", model=name) == 11
    assert of(samples, "jand_prompt_tokens_seconds", model=name) == 3.5
    assert of(samples, "jand_predicted_tokens_seconds", model=name) == 2.75
    assert of(samples, "jand_n_busy_slots_per_decode", model=name) == 1.5
    assert of(samples, "jand_n_tokens_max", model=name) == 120
    assert ("jand_prompt_tokens_seconds", frozenset({("model", "new")})) not in samples
    assert of(samples, "jand_requests_processing", model=name) == 2
    assert of(samples, "jand_requests_deferred", model=name) == 3


async def test_answers_are_counted_by_status_and_timed_to_their_first_byte(
    api: ServedApi, manager: FakeManager, upstream: FakeUpstream
) -> None:
    manager.add("a")
    for behave in (
        answer_events([chat_chunk("x"), chat_chunk("y"), DONE]),
        answer_json({"choices": []}),
        answer_json({"error": {"message": "no", "type": "x", "param": None, "code": "bad-request"}}, 400),
    ):
        upstream.behave = behave
        await api.ask("POST", "/v1/chat/completions", {"model": "a"})

    samples = await read(api)

    assert of(samples, "jand_requests_total", model="a", status="200") == 2
    assert of(samples, "jand_requests_total", model="a", status="400") == 1
    assert of(samples, "jand_time_to_first_token_seconds_count", model="a") == 1
    assert of(samples, "jand_time_to_answer_seconds_count", model="a") == 1
    assert 0 < of(samples, "jand_time_to_first_token_seconds_sum", model="a") < 5
