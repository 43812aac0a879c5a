"""Processes killed while they save: their file holds the generation saved last, or the one being saved."""

from __future__ import annotations

import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import nestvec as nv
from killed import KINDS, generation_of, ids_of, rows_of
from tools import HANGS, HERE, amount, python

pytestmark = pytest.mark.torture

KILLS = amount(10, 250)
LONGEST = 0.2  # seconds between the first generation saved and the kill


def killed(kind: str, path: Path, random: random.Random) -> tuple[int, int]:
    """The generation that a killed process had saved, and the one that it had begun to save."""
    with subprocess.Popen(python(HERE / "killed.py", kind, path), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline(), process.stdout.readline()]  # one generation is saved
        time.sleep(random.uniform(0, LONGEST))
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
        process.wait(HANGS)
    said = [line.split() for line in lines if line.endswith("\n")]
    return tuple(max(int(number) for what, number in said if what == word) for word in ("saved", "begun"))


@pytest.mark.parametrize("kind", KINDS)
def test_killed_while_saving(kind: str, tmp_path: Path, note: Callable[[str], None]) -> None:
    path, choice = tmp_path / "index.nv", random.Random(kind)
    between = stray = 0
    for _ in range(KILLS):
        saved, begun = killed(kind, path, choice)
        index = nv.load(path)
        generation = generation_of(index)
        assert saved <= generation <= begun <= saved + 1
        assert index.ids.tolist() == ids_of(generation)
        found, right = index.reconstruct(index.ids), rows_of(kind, index.ids)
        for one, wanted in zip(found, right, strict=True):
            np.testing.assert_array_equal(one, wanted.astype(np.float16) if kind == "documents" else wanted)
        between += begun > saved
        left = [one for one in tmp_path.iterdir() if one != path]
        assert len(left) <= 1
        for one in left:  # nobody else can know that it is of no use any more
            assert one.name.startswith(".nestvec-")
            one.unlink()
        stray += len(left)
    note(f"{KILLS} kills, {between} of them while saving, {stray} temporary files left; generation {generation}")
