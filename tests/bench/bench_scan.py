"""How long a start with many folders takes, against a bare loop that touches the same bytes.

    python -m tests.bench.bench_scan [FOLDERS]

Cold: nothing known, against walk + stat + read of each JSON and of the first 64 KiB of each binary. Warm: with the header cache of an earlier run, against walk + stat. One folder in a hundred
holds a binary with a vocabulary of 49,152 tokens.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from jand.library.findings import Tree
from jand.library.headers import HeaderCache
from jand.library.scan import list_entries, scan_entry
from tests.fakes import gguf_files
from tests.fakes.gguf_bytes import Kind, array

if TYPE_CHECKING:
    from collections.abc import Callable

JSON = '{"origin": "bench/model-GGUF", "parameters": {"init": {"ctx_len": 2048}, "runtime": {"temperature": 0.7}}}\n'
ROUNDS = 3


def make_tree(models: Path, folders: int) -> None:
    large = vocabulary_file(models.parent / "large.gguf")
    for number in range(folders):
        folder = models / f"model-{number:05d}"
        folder.mkdir(parents=True)
        (folder / "model.json").write_text(JSON)
        if number % 100 == 0:
            shutil.copyfile(large, folder / f"model-{number:05d}.gguf")
        else:
            gguf_files.bare_header(folder / f"model-{number:05d}.gguf", name=f"Model {number}")


def vocabulary_file(path: Path) -> Path:
    """Write a GGUF whose header has a vocabulary of the size of a real one, a little over 1 MB."""
    tokens = array(Kind.TEXT, [f"token{number}" for number in range(49_152)])
    return gguf_files.bare_header(path, keys=[("tokenizer.ggml.tokens", tokens)])


def walk_and_read(models: Path) -> int:
    seen = 0
    for folder, _, names in os.walk(models):
        for name in names:
            path = f"{folder}/{name}"
            os.stat(path)  # noqa: PTH116 - the peer is as lean as it can be
            with open(path, "rb", buffering=0) as stream:  # noqa: PTH123
                seen += len(stream.read(64 << 10))
    return seen


def walk_and_stat(models: Path) -> int:
    return sum(os.stat(f"{folder}/{name}").st_size for folder, _, names in os.walk(models) for name in names)  # noqa: PTH116


def scan(models: Path, headers: HeaderCache) -> None:
    tree = Tree(models, "models")
    now = time.time()
    whole = sum(
        found.whole for entry in list_entries(tree) for found in scan_entry(tree, entry, headers, now=now).models
    )
    assert whole == sum(1 for _ in os.scandir(models)), "every model is whole"


def cold(models: Path) -> None:
    scan(models, HeaderCache(None))


def warm(models: Path, cache: Path) -> None:
    """Scan as a start does that finds a header cache: its reading counts, and every JSON is parsed anew."""
    scan(models, HeaderCache(cache))


def rescan(models: Path, headers: HeaderCache) -> None:
    scan(models, headers)


def measure(work: Callable[[], object]) -> float:
    """Return the least CPU seconds of some rounds: everything is in the page cache, and other processes on the machine count for nothing."""
    times = []
    for _ in range(ROUNDS):
        begin = time.process_time()
        work()
        times.append(time.process_time() - begin)
    return min(times)


def main(folders: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        models, cache = Path(scratch, "models"), Path(scratch, "headers")
        make_tree(models, folders)
        headers = HeaderCache(cache)
        scan(models, headers)
        headers.save()
        rows = [
            ("cold", measure(lambda: cold(models)), measure(lambda: walk_and_read(models))),
            ("warm", measure(lambda: warm(models, cache)), measure(lambda: walk_and_stat(models))),
            ("rescan", measure(lambda: rescan(models, headers)), measure(lambda: walk_and_stat(models))),
        ]
        print(f"{folders} folders, header cache {cache.stat().st_size / 1e6:.1f} MB")
        for name, ours, theirs in rows:
            each = ours / folders * 1e6
            print(f"{name:7} {ours:7.3f} s  {each:6.0f} us/folder  peer {theirs:7.3f} s  ratio {ours / theirs:5.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
