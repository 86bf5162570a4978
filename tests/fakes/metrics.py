"""What `/metrics` of a daemon says, for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from tests.fakes.daemon import DaemonProcess

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def read_metrics(daemon: DaemonProcess) -> Samples:
    """Return every sample by its name and labels."""
    async with daemon.session.get("http://jand/metrics") as response:
        assert response.status == 200
        return parse_metrics(await response.text())


def parse_metrics(text: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
