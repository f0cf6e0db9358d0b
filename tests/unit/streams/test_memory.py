"""The process keeps memory that a batch has freed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from streams.memory import keep_freed_memory

_PAGES_OF_A_ROUND = """
import resource, sys
import numpy as np
from streams.memory import keep_freed_memory

def a_round():
    return float(np.concatenate([np.ones(1 << 16) for _ in range(8)]).sum())

if sys.argv[1] == "kept" and not keep_freed_memory():
    sys.exit(3)
a_round()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    a_round()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 10)
"""


def pages(mode: str) -> int:
    command = [sys.executable, "-c", _PAGES_OF_A_ROUND, mode]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_a_second_batch_needs_no_new_pages() -> None:
    if not keep_freed_memory():
        pytest.skip("this C library has no mallopt")
    assert pages("as it is") > 100
    assert pages("kept") < 10
