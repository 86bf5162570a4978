"""How long a GGUF's header takes, beside the gguf package's reader, in one run: `python -m tests.bench.bench_gguf`.

CPU time of the best of some rounds, and the peak memory of a fresh process for each reader. The files are made by another child: a process inherits the peak of
the one that starts it, so this one stays thin.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.fakes.gguf_files import bare_header, smollm2, tiny_llama

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_LARGE_TOKENS: Final = 262_144
_LARGE_MERGES: Final = 514_906
_SMALL_FILES: Final = 10_000


def _large(path: Path) -> Path:
    """Write a tiny Llama with a vocabulary as large as Gemma 3's."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"token {number}" for number in range(_LARGE_TOKENS)])
    writer.add_token_scores([0.0] * _LARGE_TOKENS)
    writer.add_token_types([1] * _LARGE_TOKENS)
    writer.add_token_merges([f"to ken{number}" for number in range(_LARGE_MERGES)])
    writer.add_tensor("token_embd.weight", np.zeros((8, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _ours(path: Path) -> None:
    from jand.model.gguf import read_header

    with path.open("rb") as stream:
        read_header(stream, path.stat().st_size)


def _theirs(path: Path) -> None:
    import gguf

    gguf.GGUFReader(path)


_READERS: Final[dict[str, Callable[[Path], None]]] = {"ours": _ours, "gguf": _theirs}


def _child(reader: str, rounds: int, path: Path) -> None:
    """Print the best CPU milliseconds and the peak memory in MB."""
    seconds = []
    for _ in range(rounds):
        begun = time.process_time()
        _READERS[reader](path)
        seconds.append(time.process_time() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    megabytes = peak / 1000 if sys.platform == "linux" else peak / 1_000_000
    print(min(seconds) * 1000, megabytes)


def _measure(reader: str, rounds: int, path: Path) -> tuple[float, float]:
    milliseconds, megabytes = _call(reader, rounds, path).split()
    return float(milliseconds), float(megabytes)


def _call(what: str, rounds: int, path: Path) -> str:
    command = [sys.executable, "-m", "tests.bench.bench_gguf", what, str(rounds), str(path)]
    return subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout


def _small(folder: Path) -> float:
    """Return the microseconds that each of many small files costs, opening it included."""
    paths = [bare_header(folder / f"{number}.gguf") for number in range(_SMALL_FILES)]
    begun = time.process_time()
    for path in paths:
        _ours(path)
    return (time.process_time() - begun) / len(paths) * 1e6


def _main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _call("prepare", 0, folder)
        files = {
            "tiny": (folder / "tiny.gguf", 50, 20),
            "SmolLM2 (49,152)": (smollm2(), 20, 2),
            "large (262,144)": (folder / "large.gguf", 5, 1),
        }
        lines = [f"{'header':<20}{'ours ms':>10}{'gguf ms':>10}{'ratio':>8}{'ours MB':>10}{'gguf MB':>10}"]
        for label, (path, our_rounds, their_rounds) in files.items():
            ours, theirs = _measure("ours", our_rounds, path), _measure("gguf", their_rounds, path)
            times = f"{ours[0]:>10.2f}{theirs[0]:>10.1f}{theirs[0] / ours[0]:>8.0f}"
            lines.append(f"{label:<20}{times}{ours[1]:>10.0f}{theirs[1]:>10.0f}")
        lines.append(f"each of {_SMALL_FILES:,} small files, with opening it: {_small(folder):.0f} µs")
    print("\n".join(lines))


def _run(arguments: Sequence[str]) -> None:
    match arguments:
        case ["prepare", _, folder]:
            tiny_llama(Path(folder) / "tiny.gguf")
            _large(Path(folder) / "large.gguf")
        case [reader, rounds, path]:
            _child(reader, int(rounds), Path(path))
        case _:
            _main()


if __name__ == "__main__":
    _run(sys.argv[1:])
