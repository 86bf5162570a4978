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
child = [sys.executable, "-c", "import sys; held = bytearray(50 << 20); held[::4096] = b'x' * len(held[::4096]); print('held', flush=True); sys.stdin.read()"]
done = threading.Event()
def start():
    global process
    process = subprocess.Popen(child, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    print("held", flush=True)
    done.wait()
threading.Thread(target=start).start()
sys.stdin.read()
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


FORKING = """
import os, sys
held = bytearray(50 << 20)
held[::4096] = b"x" * len(held[::4096])
read, write = os.pipe()
if os.fork() == 0:
    os.close(write)
    os.read(read, 1)
    os._exit(0)
os.close(read)
print("forked", flush=True)
sys.stdin.read()
"""


def test_a_child_that_is_still_the_image_of_its_parent_does_not_count() -> None:
    """A worker that starts another process is for a moment there twice, with all its weights."""
    with subprocess.Popen([sys.executable, "-c", FORKING], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        assert len(memory.children(process.pid)) == 1
        alone = psutil.Process(process.pid).memory_info().rss
        assert memory.resident(process.pid) == pytest.approx(alone, rel=0.02)
        process.stdin.close()
