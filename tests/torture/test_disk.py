"""Saving and loading while calls on files fail: the old file or the new one is there, and nothing else."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from subjects import SUBJECTS
from tools import HANGS, HERE, amount, python

pytestmark = [
    pytest.mark.torture,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the shim replaces functions of Linux's libraries"),
]

ERRORS = {"no space": errno.ENOSPC, "input or output": errno.EIO, "interrupted": errno.EINTR, "less than asked": -1}


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("name", amount(["vectors", "named documents"], SUBJECTS))
def test_failing_calls_on_files(
    name: str, error: str, compiled: Callable[..., Path], tmp_path: Path, note: Callable[[str], None]
) -> None:
    shim = compiled("disk.so", "-O2", "-shared", "-fPIC", "disk.c", "-ldl", language="c")
    command = python(HERE / "disk.py", name, tmp_path, ERRORS[error], preload=shim)
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS)
    assert done.returncode == 0, done.stderr
    for line in done.stdout.splitlines():
        ((what, ends),) = json.loads(line).items()
        assert any("write" in end or "read" in end for end in ends), "the shim saw neither reads nor writes"
        if ERRORS[error] == -1:
            assert all(end.endswith("done") for end in ends), "what was written in parts is whole"
        note(f"{what}: {sum(ends.values())} failures")
