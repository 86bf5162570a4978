"""How fast, and at what cost, a large file comes to disk, hashed: jand beside `curl` followed by `openssl dgst`, and beside huggingface_hub, from one server in one run.

All write to one disk, one after the other and each into a new folder that is removed before the next begins, from a server in a process of its own that lets the kernel send the file from its
cache (its CPU time is shown: it must be the least). jand verifies size, digest and header, and syncs the file before it has its name; curl and huggingface_hub sync nothing, and huggingface_hub
(2.4, one plain HTTP stream, without Xet) compares the size and hashes nothing. For jand and huggingface_hub the clock runs from the call to its return, in an interpreter that has imported all;
curl and openssl are started within it. jand works on two processors at once, so a machine with something else to do shows less of it: how busy it was before the beginning is said first.

Run by hand: `python -m tests.bench.bench_download [--size MIB] [--rounds N] [--hf-python PYTHON]`, where PYTHON is an interpreter that has huggingface_hub. Prints one line for each
client and the ratios that issue C bounds; exits with 1 where one is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

from jand.download.downloader import Downloader, DownloadSettings
from jand.model.spec import Spec
from tests.fakes.hub_files import MIB, gguf_header, llama_facts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPO: Final = "bench/noise-GGUF"
NAME: Final = "noise.Q8_0.gguf"
TICK_S: Final = 0.002

HF_CLIENT: Final = """
import json, resource, sys, time
from huggingface_hub import hf_hub_download
endpoint, folder = sys.argv[1:]
cpu = lambda: sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
wall, used = time.perf_counter(), cpu()
hf_hub_download("bench/noise-GGUF", "noise.Q8_0.gguf", local_dir=folder, endpoint=endpoint)
print(json.dumps({"wall_s": time.perf_counter() - wall, "cpu_s": cpu() - used}))
"""


@dataclass(frozen=True)
class Sample:
    wall_s: float
    cpu_s: float
    server_s: float = 0.0
    grown_mb: float = 0.0
    lag_p99_ms: float = 0.0


def cpu_now() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_mb() -> float:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1024 if sys.platform != "darwin" else peak / MIB


async def fetch_as_daemon(endpoint: str, folder: Path) -> Sample:
    """Fetch within a loop whose lag is watched, as the daemon's would be."""
    lags: list[float] = []

    async def tick() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(TICK_S)
            lags.append(time.perf_counter() - before - TICK_S)

    downloader = Downloader(DownloadSettings(endpoint=endpoint, min_free=0))
    spec = Spec.model_validate({"origin": REPO, "download_url": NAME})
    ticking = asyncio.ensure_future(tick())
    plan = await downloader.plan(spec, folder, {})
    before_mb, used, began = peak_mb(), cpu_now(), time.perf_counter()
    await downloader.fetch(plan, folder, owner="bench", on_progress=lambda _: None)
    sample = Sample(
        time.perf_counter() - began,
        cpu_now() - used,
        grown_mb=peak_mb() - before_mb,
        lag_p99_ms=statistics.quantiles(lags, n=100)[98] * 1000,
    )
    ticking.cancel()
    await downloader.close()
    return sample


def run_jand(endpoint: str, folder: Path) -> Sample:
    command = [sys.executable, "-m", "tests.bench.bench_download", "--client", endpoint, str(folder)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    return Sample(**json.loads(answer.stdout.splitlines()[-1]))


def run_curl(endpoint: str, folder: Path) -> Sample:
    url = f"{endpoint}/{REPO}/resolve/main/{NAME}"
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(["curl", "-sfL", "-o", folder / NAME, url], check=True, timeout=600)
    subprocess.run(["openssl", "dgst", "-sha256", folder / NAME], check=True, capture_output=True, timeout=600)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Sample(time.perf_counter() - began, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def run_hf(python: str, endpoint: str, folder: Path) -> Sample:
    environment = {**os.environ, "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [python, "-c", HF_CLIENT, endpoint, str(folder)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600, env=environment)
    return Sample(**json.loads(answer.stdout.splitlines()[-1]))


@contextlib.contextmanager
def served(size: int) -> Iterator[tuple[str, Path, psutil.Process]]:
    """Serve one file of *size* bytes from a process of its own; yield its address, a folder to fetch into, and the process."""
    with tempfile.TemporaryDirectory() as made:
        repo = Path(made) / "hub" / REPO
        repo.mkdir(parents=True)
        room = len(gguf_header(size, llama_facts()))
        piece = os.urandom(MIB)
        with (repo / NAME).open("wb") as stream:
            stream.write(gguf_header((size - room) // 32 * 32, llama_facts()))
            while (left := size - stream.tell()) > 0:
                stream.write(piece[:left])
        command = [sys.executable, "-m", "tests.fakes.hub", str(Path(made) / "hub")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                yield server.stdout.readline().strip(), Path(made), psutil.Process(server.pid)
            finally:
                server.kill()


def compare(size: int, rounds: int, hf_python: str | None) -> dict[str, list[Sample]]:
    samples: dict[str, list[Sample]] = {}
    with served(size) as (endpoint, made, server):
        clients: dict[str, Callable[[Path], Sample]] = {
            "curl + openssl": lambda folder: run_curl(endpoint, folder),
            "jand": lambda folder: run_jand(endpoint, folder),
        }
        if hf_python:
            clients["huggingface_hub"] = lambda folder: run_hf(hf_python, endpoint, folder)
        for number in range(rounds + 1):
            for name, run in clients.items():
                folder = made / f"{name}-{number}".replace(" ", "")
                folder.mkdir()
                before = sum(server.cpu_times()[:2])
                sample = replace(run(folder), server_s=sum(server.cpu_times()[:2]) - before)
                for path in sorted(folder.rglob("*"), reverse=True):
                    path.rmdir() if path.is_dir() else path.unlink()
                if number:  # the first round only warms the page cache
                    samples.setdefault(name, []).append(sample)
    return samples


def report(samples: dict[str, list[Sample]], size: int) -> bool:
    """Print what was measured; return whether every bound held."""
    say = sys.stdout.write
    middle: dict[str, Sample] = {}
    for name, taken in samples.items():
        each = {key: statistics.median(asdict(sample)[key] for sample in taken) for key in asdict(taken[0])}
        middle[name] = Sample(**each)
        speed = size / MIB / middle[name].wall_s
        say(f"{name:16} wall {middle[name].wall_s:6.2f} s  {speed:6.0f} MiB/s  cpu {middle[name].cpu_s:5.2f} s  ")
        say(f"server's cpu {middle[name].server_s:5.2f} s  ")
        say(f"grown {middle[name].grown_mb:4.0f} MB  lag p99 {middle[name].lag_p99_ms:5.1f} ms\n")
    ours, curl = middle["jand"], middle["curl + openssl"]
    bounds = {
        "wall / curl+openssl <= 1.3": ours.wall_s / curl.wall_s <= 1.3,
        "cpu / curl+openssl <= 1.5": ours.cpu_s / curl.cpu_s <= 1.5,
        "grown < 80 MB": ours.grown_mb < 80,
        "lag p99 < 20 ms": ours.lag_p99_ms < 20,
    }
    if "huggingface_hub" in middle:
        bounds["wall / huggingface_hub <= 0.5"] = ours.wall_s / middle["huggingface_hub"].wall_s <= 0.5
    for bound, held in bounds.items():
        say(f"{'holds' if held else 'MISSED':6} {bound}\n")
    for name, other in middle.items():
        if other is not ours:
            say(f"ratios: wall {ours.wall_s / other.wall_s:.2f}, cpu {ours.cpu_s / other.cpu_s:.2f} of {name}\n")
    return all(bounds.values())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=2048, help="MiB")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hf-python")
    parser.add_argument("--client", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.client:
        sample = asyncio.run(fetch_as_daemon(chosen.client[0], Path(chosen.client[1])))
        sys.stdout.write(json.dumps(asdict(sample)) + "\n")
        return 0
    size = chosen.size * MIB
    sys.stdout.write(
        f"{os.cpu_count()} processors, {psutil.cpu_percent(2.0):.0f} % busy with other things before the beginning\n"
    )
    return 0 if report(compare(size, chosen.rounds, chosen.hf_python), size) else 1


if __name__ == "__main__":
    sys.exit(main())
