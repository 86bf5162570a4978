"""Feeds one reader with broken inputs in a process that may have little memory: `python -m tests.fakes.fuzz_child KIND SEED COUNT`, KIND json or gguf.

Prints one JSON object: how many inputs, the CPU seconds of the slowest and its name. A crash, an exception or an input that takes too much memory ends it otherwise.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import random
import re
import resource
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from jand.errors import GgufError
from jand.model.document import parse
from jand.model.gguf import read_header
from tests.fakes import gguf_mutations, json_mutations

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MEMORY_BYTES = 200 << 20
"""What one input may take beyond what the process has before the first."""


def broken_json(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """Yield every second input broken twice: the second break lands in what the first has made."""
    for number, (name, raw) in enumerate(json_mutations.mutations(seed, count)):
        if number % 2 and b"{" in raw:
            yield f"{name} again", scramble(raw, random.Random(f"{seed}:{number} again"))
        else:
            yield name, raw


def broken_gguf(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    named = gguf_mutations.mutations(seed, count)
    scrambled = gguf_mutations.scrambles(seed, count)
    for number in range(count):
        dice = random.Random(f"{seed}:{number} gguf")
        name, raw = next(named)
        if number % 3 == 0:
            yield f"{number} scrambled", next(scrambled)
        elif number % 3 == 1:
            yield f"{name} again", scramble(raw, dice)
        else:
            yield name, raw


def scramble(raw: bytes, dice: random.Random) -> bytes:
    """Change some bytes, cut a piece out, or put one in."""
    data = bytearray(raw)
    for _ in range(dice.randint(1, 6)):
        place = dice.randrange(len(data) + 1) if data else 0
        match dice.randrange(4):
            case 0:
                data[place : place + 1] = bytes([dice.randrange(256)])
            case 1:
                del data[place : place + dice.randint(1, 64)]
            case 2:
                data[place:place] = dice.randbytes(dice.randint(1, 16))
            case _:
                data[place : place + 8] = dice.choice(EDGES)
    return bytes(data)


EDGES = [value.to_bytes(8, "little") for value in (0, 1, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)]


def read_json(raw: bytes) -> None:
    document = parse(raw, "models/a/a.json")
    assert (document.spec is None) == any(problem.severity.value == "error" for problem in document.problems)


def read_gguf(raw: bytes) -> None:
    with contextlib.suppress(GgufError):
        read_header(io.BytesIO(raw), len(raw))


READERS: dict[str, tuple[Callable[[int, int], Iterator[tuple[str, bytes]]], Callable[[bytes], None]]] = {
    "json": (broken_json, read_json),
    "gguf": (broken_gguf, read_gguf),
}


def limit_memory() -> None:
    found = re.search(r"VmData:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    most = (int(found[1]) << 10) + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def main() -> None:
    kind, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    faulthandler.enable()
    make, read = READERS[kind]
    limit_memory()
    slowest, name_of_slowest = 0.0, ""
    for name, raw in make(seed, count):
        began = time.thread_time()
        try:
            read(raw)
        except BaseException:
            sys.stderr.write(f"{name}: {raw[:2000]!r}\n")
            raise
        taken = time.thread_time() - began
        if taken > slowest:
            slowest, name_of_slowest = taken, name
    sys.stdout.write(json.dumps({"inputs": count, "slowest_s": slowest, "name": name_of_slowest}) + "\n")


if __name__ == "__main__":
    main()
