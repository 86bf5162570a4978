"""`GET /metrics` for Prometheus: read from the manager at each call, so that nothing here can be out of step with it.

Names begin with `jand_` and go on as llama-server's do where it counts the same thing.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from prometheus_client.metrics_core import Metric

    from jand.api.ports import Manager
    from jand.api.route import Call
    from jand.api.schemas import Nothing
    from jand.lifecycle.tally import Histogram, ModelTally

LATE: Final = "as of its worker's last heartbeat, at most 5 s ago"

WORK: Final = {
    "prompt_tokens": ("prompt_tokens", "Tokens of prompts that were read"),
    "cached_tokens": ("prompt_tokens_cached", "Tokens of prompts that were still in memory and not read again"),
    "reading_s": ("prompt_seconds", "Seconds spent on reading prompts"),
    "generated_tokens": ("tokens_predicted", "Tokens that were generated"),
    "generating_s": ("tokens_predicted_seconds", "Seconds spent on generating"),
    "embedded_tokens": ("tokens_embedded", "Tokens that were turned into vectors"),
    "images": ("images", "Images in prompts that were read"),
    "images_encoded": ("images_encoded", "Images that were encoded; the others were still in memory"),
    "images_s": ("image_seconds", "Seconds spent on reading prompts with images before they were queued"),
    "steps": ("n_decode", "Calls of llama_decode"),
    "slot_steps": ("n_busy_slots", "Conversations that took part in a call of llama_decode, added up over all calls"),
    "cancelled": ("requests_cancelled", "Requests that ended early because their client went away"),
}
"""Name and help by the worker's own name of a counter."""


RATES: Final = (
    ("prompt_tokens_seconds", "Tokens of prompts that were read in a second", "prompt_tokens", "reading_s"),
    ("predicted_tokens_seconds", "Tokens that were generated in a second", "generated_tokens", "generating_s"),
    ("n_busy_slots_per_decode", "Conversations that took part in a call of llama_decode", "slot_steps", "steps"),
)
"""Averages that llama-server gives as well, for dashboards that were made for it: name, help, and the two counters."""


async def metrics(call: Call[Nothing, Nothing]) -> web.Response:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(ManagerCollector(call.shared.manager))
    return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})


class ManagerCollector(Collector):
    """Turns what *manager* knows into metrics."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    @override
    def collect(self) -> Iterator[Metric]:
        yield from self._daemon()
        yield from self._running()
        tallies = sorted(self._manager.tally.models.items())
        yield from happenings(tallies)
        yield from work(tallies)

    def _daemon(self) -> Iterator[Metric]:
        """Yield what concerns no single model."""
        overview = self._manager.overview()
        models = GaugeMetricFamily("jand_models", "Models by state", labels=["state"])
        for state, count in overview["models"].items():
            models.add_metric([state], count)
        yield models
        yield GaugeMetricFamily("jand_problems", "Files and folders that something is wrong with", overview["problems"])
        modes = GaugeMetricFamily(
            "jand_watch_mode", "1 for the way in which a tree is watched now", labels=["tree", "mode"]
        )
        for tree, mode in overview["watch"].items():
            modes.add_metric([tree, mode], 1)
        yield modes
        memory = overview["memory"]
        yield GaugeMetricFamily("jand_memory_budget_bytes", "Memory that all models may take", memory["budget"])

    def _running(self) -> Iterator[Metric]:
        """Yield what a model takes now that runs, starts or is waited for."""
        labels = ["model"]
        flight = GaugeMetricFamily(
            "jand_requests_in_flight", "Requests that are being answered or relayed", labels=labels
        )
        waiting = GaugeMetricFamily(
            "jand_requests_waiting", "Requests that wait for their model to start", labels=labels
        )
        reserved = GaugeMetricFamily("jand_memory_reserved_bytes", "Memory kept for a model", labels=labels)
        resident = GaugeMetricFamily("jand_memory_resident_bytes", "Memory that its worker takes", labels=labels)
        for load in self._manager.loads():
            name = [load.model_id]
            flight.add_metric(name, load.in_flight)
            waiting.add_metric(name, load.waiting)
            reserved.add_metric(name, load.reserved)
            resident.add_metric(name, load.resident)
        yield from (flight, waiting, reserved, resident)


def happenings(tallies: Sequence[tuple[str, ModelTally]]) -> Iterator[Metric]:
    loads = HistogramMetricFamily("jand_load_seconds", "How long starts took that ended well", labels=["model"])
    failed = CounterMetricFamily("jand_failed_loads", "Starts that failed", labels=["model"])
    deaths = CounterMetricFamily("jand_worker_deaths", "Workers that died while they served", labels=["model"])
    restarts = CounterMetricFamily("jand_worker_restarts", "Starts after such a death", labels=["model"])
    evictions = CounterMetricFamily("jand_evictions", "Stops to make room for another model", labels=["model"])
    answers = CounterMetricFamily("jand_requests", "Answers that were begun, by status", labels=["model", "status"])
    first_token = HistogramMetricFamily(
        "jand_time_to_first_token_seconds",
        "From the request to the first token of a streamed answer, a start included",
        labels=["model"],
    )
    whole = HistogramMetricFamily(
        "jand_time_to_answer_seconds",
        "From the request to an answer that is no stream, a start included",
        labels=["model"],
    )
    for model, tally in tallies:
        add_histogram(loads, [model], tally.loads)
        failed.add_metric([model], tally.failed_loads)
        deaths.add_metric([model], tally.deaths)
        restarts.add_metric([model], tally.restarts)
        evictions.add_metric([model], tally.evictions)
        for status, count in sorted(tally.answers.items()):
            answers.add_metric([model, str(status)], count)
        # A worker sends nothing of a stream, its headers included, before there is a token.
        for stream, histogram in tally.first_byte.items():
            add_histogram(first_token if stream else whole, [model], histogram)
    yield from (loads, failed, deaths, restarts, evictions, answers, first_token, whole)


def work(tallies: Sequence[tuple[str, ModelTally]]) -> Iterator[Metric]:
    """Yield what workers told of themselves; a remote model tells nothing."""
    told = [(model, tally) for model, tally in tallies if tally.work]
    processing = GaugeMetricFamily("jand_requests_processing", f"Requests in work, {LATE}", labels=["model"])
    deferred = GaugeMetricFamily("jand_requests_deferred", f"Requests in its worker's queue, {LATE}", labels=["model"])
    for model, tally in told:
        processing.add_metric([model], tally.processing)
        deferred.add_metric([model], tally.queued)
    yield from (processing, deferred)
    for counter, (name, words) in WORK.items():
        family = CounterMetricFamily(f"jand_{name}", f"{words}, {LATE}", labels=["model"])
        for model, tally in told:
            family.add_metric([model], tally.work.get(counter, 0.0))
        yield family
    most = GaugeMetricFamily(
        "jand_n_tokens_max", f"Most tokens that one conversation has held, {LATE}", labels=["model"]
    )
    for model, tally in told:
        most.add_metric([model], tally.work.get("most_tokens", 0.0))
    yield most
    for name, words, counted, by in RATES:
        gauge = GaugeMetricFamily(f"jand_{name}", f"{words}, over all its workers' lives, {LATE}", labels=["model"])
        for model, tally in told:
            if divisor := tally.work.get(by, 0.0):
                gauge.add_metric([model], tally.work.get(counted, 0.0) / divisor)
        yield gauge


def add_histogram(family: HistogramMetricFamily, labels: Sequence[str], histogram: Histogram) -> None:
    bounds = [f"{bound:g}" for bound in histogram.bounds] + ["+Inf"]
    family.add_metric(
        labels, list(zip(bounds, itertools.accumulate(histogram.counts), strict=True)), sum_value=histogram.sum
    )
