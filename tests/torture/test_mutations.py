"""Damaged and hostile files, see `mutate.py`: no crash, no hang, no wrong answer, little more memory than the file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tools import HANGS, HERE, amount, python

pytestmark = [
    pytest.mark.torture,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does"),
]

GOLDEN = sorted((HERE.parent / "golden").glob("*.nv"))
NUMBERS = (0, 5000, amount(17, 1))  # of files: from, to, step


@pytest.mark.parametrize("file", GOLDEN, ids=lambda file: file.stem)
def test_mutations(file: Path, tmp_path: Path, note: Callable[[str], None]) -> None:
    command = python(HERE / "mutate.py", file, tmp_path, *NUMBERS)
    done = subprocess.run(command, capture_output=True, text=True, timeout=10 * HANGS)
    last = done.stdout.splitlines()[-1:]
    assert done.returncode == 0, f"status {done.returncode} after {last}: {done.stderr}"
    found = json.loads(last[0])
    assert 0 < found["refused"] < found["loads"]
    note(f"{len(range(*NUMBERS))} files, {found['loads']} loads, {found['refused']} of them refused")
