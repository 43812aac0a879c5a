"""Processes made by fork and otherwise, and a server that forks after loading: a child searches at once, none hangs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from subjects import SUBJECTS
from tools import FULL, HANGS, HERE, amount, python

pytestmark = [pytest.mark.torture, pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")]

COUNTS = {  # of children for each kind of index
    "quiet": amount(10, 100),
    "searching": amount(10, 100),
    "adding": amount(10, 100),
    "fork": amount(10, 100),
    "executor": amount(10, 100),
    "spawn": amount(1, 20),
    "forkserver": amount(1, 20),
}


@pytest.mark.parametrize("how", COUNTS)
def test_children_search_with_threads(how: str, note: Callable[[str], None]) -> None:
    """Of a process that has threads; with `searching` and `adding`, while another of its threads does that."""
    command = python(HERE / "forks.py", how, COUNTS[how], PYTHONWARNINGS="ignore::DeprecationWarning")
    done = subprocess.run(command, capture_output=True, text=True, timeout=10 * HANGS)
    assert (done.returncode, done.stderr) == (0, "")
    note(f"{COUNTS[how] * len(SUBJECTS)} children, all answers within {float(done.stdout):.3f} s")


@pytest.mark.skipif(not FULL, reason="installs a server; runs with NESTVEC_TORTURE=full")
def test_server_that_preloads(tmp_path: Path, note: Callable[[str], None]) -> None:
    """gunicorn --preload: the index is made and searched with threads before workers are forked."""
    install = [sys.executable, "-m", "pip", "install", "-q", "--target", str(tmp_path), "gunicorn"]
    if subprocess.run(install, capture_output=True, timeout=HANGS).returncode:
        pytest.skip("gunicorn cannot be installed")
    options = ["--preload", "--workers", "4", "--bind", "127.0.0.1:0"]
    command, log = python("-m", "gunicorn", *options, "server:app", path=(tmp_path,)), tmp_path / "log"
    with log.open("w") as stderr, subprocess.Popen(command, stderr=stderr) as process:
        try:
            address = listening(log)
            took = [ask(address) for _ in range(100)]
        finally:
            process.send_signal(signal.SIGTERM)
    workers = {worker for worker, _ in took}
    assert len(workers) > 1
    note(f"100 requests to {len(workers)} workers, at most {max(seconds for _, seconds in took):.3f} s each")


def listening(log: Path) -> str:
    """The address that a server says it listens at."""
    for _ in range(HANGS):
        words = log.read_text().split()
        if "at:" in words:
            return words[words.index("at:") + 1]
        time.sleep(0.1)
    raise AssertionError(log.read_text())


def ask(address: str) -> tuple[int, float]:
    """The process that answered, and in how many seconds."""
    begun = time.perf_counter()
    with urllib.request.urlopen(address, timeout=HANGS) as answer:
        worker = int(answer.read())
    return worker, time.perf_counter() - begun
