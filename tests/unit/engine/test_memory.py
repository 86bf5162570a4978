"""What a process and its children take, as the kernel counts it."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from jand.engine import memory

PARENT = """
import subprocess, sys, threading
held = bytearray(30 << 20)
held[::4096] = b"x" * len(held[::4096])
child = [sys.executable, "-c", "held = bytearray(50 << 20); held[::4096] = b'x' * len(held[::4096]); print('held', flush=True); input()"]
done = threading.Event()
def start():
    global process
    process = subprocess.Popen(child, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    print("held", flush=True)
    done.wait()
threading.Thread(target=start).start()
input()
process.stdin.close()
process.wait()
done.set()
"""


def test_children_count_too_also_those_of_another_thread_and_what_has_ended_takes_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        (child,) = psutil.Process(process.pid).children()
        assert memory.children(process.pid) == [child.pid]
        expected = psutil.Process(process.pid).memory_info().rss + child.memory_info().rss
        assert memory.resident(process.pid) == pytest.approx(expected, rel=0.02)
        assert memory.resident(process.pid) > 80 << 20
        process.stdin.close()
        process.wait(10)
    assert memory.resident(process.pid) == 0
