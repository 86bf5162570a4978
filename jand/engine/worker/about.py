"""`python -m jand.engine.worker.about`: what the installed build of llama.cpp says of itself, as one JSON object. A process of its own, since nothing else may load it."""

from __future__ import annotations

import json
import sys

from jand.engine.worker.llama import lib


def main() -> None:
    """Print `gpu` (whether layers can go to one), `devices` (how many it counts) and `features` (the instruction sets that it uses)."""
    features = lib.llama_print_system_info().decode(errors="replace")
    facts = {
        "gpu": bool(lib.llama_supports_gpu_offload()),
        "devices": int(lib.llama_max_devices()),
        "features": [part.strip().removesuffix(" = 1") for part in features.split("|") if part.strip().endswith("= 1")],
    }
    sys.stdout.write(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main()
