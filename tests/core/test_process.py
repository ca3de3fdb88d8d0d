"""Threads wait asleep and freed memory goes back, whatever starts the program."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from latentrec.core import process

ROOT = Path(__file__).resolve().parents[2]


def run(code, **environment):
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "MALLOC_"))}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=ROOT, env=clean | environment
    ).stdout.strip()


def test_threads_wait_passively_unless_the_user_says_otherwise():
    code = "import latentrec, os; print(os.environ['OMP_WAIT_POLICY'])"
    assert run(code) == "passive"
    assert run(code, OMP_WAIT_POLICY="active") == "active"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_goes_back_to_the_system():
    code = """
from latentrec.core.process import return_freed_memory
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
assert return_freed_memory()
blocks = [bytearray(6 << 20) for _ in range(40)]
held = resident()
last = blocks.pop()
del blocks
print((held - resident()) >> 20)
"""
    assert int(run(code)) > 200


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_holes_in_the_heap_go_back_where_they_are_many():
    code = """
from latentrec.core import process
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
process.return_freed_memory()
blocks = [bytearray(1 << 20) for _ in range(400)]
del blocks[::8], blocks[1::7]
few = resident()
assert not process.trim_heap(least=200 << 20)  # some 100 MB are free
before = resident()
kept = blocks[::2]
del blocks
held = resident()
assert process.trim_heap(least=200 << 20)
print((few - before) >> 20, (held - resident()) >> 20)
"""
    untouched, returned = map(int, run(code).split())
    assert untouched < 20
    assert returned > 200


def test_one_dnn_keeps_few_primitives_unless_the_user_says_otherwise():
    code = "import latentrec, os; print(os.environ['ONEDNN_PRIMITIVE_CACHE_CAPACITY'])"
    assert run(code) == "64"
    assert run(code, ONEDNN_PRIMITIVE_CACHE_CAPACITY="7") == "7"


def test_settings_of_the_environment_win(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "100000")
    assert not process.return_freed_memory()
