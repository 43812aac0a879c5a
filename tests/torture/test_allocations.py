"""Every call with every allocation failing: MemoryError or success, and the index is as before."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from subjects import SUBJECTS
from tools import HANGS, HERE, amount, python

pytestmark = [
    pytest.mark.torture,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the shim replaces functions of glibc"),
]

SAMPLE = amount(6, 10**6)
REST = 10**9
OTHERS = {  # what is made of a failure on the way to MemoryError, and by whom
    r"SystemError: .*returned NULL without setting an exception": "numpy, an iterator",
    r"SystemError: error return without exception set": "numpy, an iterator",
    r"SystemError: NULL object passed to Py_BuildValue": "CPython",
    r"RuntimeError: can't allocate lock": "CPython",
    r"(TypeError|FileError): .*Unable to convert function return value": "pybind11, an integer, a checksum for one",
    r"ValueError: \[digital envelope routines\]": "OpenSSL, a fingerprint",
}


@pytest.fixture
def failing(compiled: Callable[..., Path]) -> Callable[..., list[dict[str, Any]]]:
    """Runs `allocations.py`; what it printed."""
    shim = compiled("allocations.so", "-O2", "-shared", "-fPIC", "allocations.c", language="c")

    def run(*arguments: Any, **variables: str) -> list[dict[str, Any]]:
        command = python(HERE / "allocations.py", *arguments, preload=shim, **variables)
        done = subprocess.run(command, capture_output=True, text=True, timeout=amount(1, 100) * HANGS)
        printed = [json.loads(line) for line in done.stdout.splitlines()]
        if done.returncode:
            started = [line for line in printed if "allocations" in line][-1:]
            raise AssertionError(f"status {done.returncode} after {started}, {printed[-1:]}: {done.stderr}")
        return printed

    return run


EVERY = ["functions", *SUBJECTS]
MODES = {  # whose allocations fail, how many in a row, and where small objects come from
    "calling thread": ("calling", REST, "pymalloc", EVERY),
    "all threads": ("all", REST, "pymalloc", amount(["functions", "vectors", "documents"], EVERY)),
    "small objects": ("only", 1, "malloc", amount(["functions", "named vectors", "named documents"], EVERY)),
}


@pytest.mark.parametrize(("mode", "name"), [(mode, name) for mode, chosen in MODES.items() for name in chosen[-1]])
def test_failing_allocations(
    mode: str, name: str, failing: Callable[..., list[dict[str, Any]]], note: Callable[[str], None]
) -> None:
    """Of small objects without threads: where CPython has no memory to leave a lock, it stays locked."""
    threads, row, memory, _ = MODES[mode]
    ends = [line for line in failing(name, 0, threads, SAMPLE, row, PYTHONMALLOC=memory) if "ends" in line]
    assert ends
    for line in ends:
        for end in line["ends"]:
            assert end in ("done", "MemoryError") or any(re.match(other, end) for other in OTHERS), (line["call"], end)
    failures = sum(count for line in ends for end, count in line["ends"].items() if end != "done")
    note(f"{failures} failures in {len(ends)} calls, each index as before")
