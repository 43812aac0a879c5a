"""A mixed load that goes on and on: memory is given back, and answers stay right."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nestvec as nv
from subjects import STATELESS, SUBJECTS, Subject, bits
from tools import amount

pytestmark = pytest.mark.torture

STATUS = Path("/proc/self/statm")
PAGE = 4096
WARM = 0.3  # of the time, after which memory should have been asked for


def resident() -> int:
    """Bytes of memory in use."""
    gc.collect()
    return int(STATUS.read_text().split()[1]) * PAGE


def ask(index: Any, subject: Subject) -> list[Any]:
    """All that an index can be asked."""
    return [bits(call(index)) for call in subject.calls.values()]


@pytest.mark.skipif(not STATUS.exists(), reason="memory in use is read from /proc")
def test_memory_does_not_grow(tmp_path: Path, note: Callable[[str], None]) -> None:
    """Indexes are made, filled, asked, saved, loaded and dropped; a line through memory over time is flat."""
    right = {name: ask(subject.filled(), subject) for name, subject in SUBJECTS.items()}
    begun, lasts = time.monotonic(), amount(20, 3600)
    rounds, times, sizes = 0, [], []
    while (now := time.monotonic() - begun) < lasts or len(sizes) < 5:
        for name, subject in SUBJECTS.items():
            index = subject.filled()
            assert ask(index, subject) == right[name]
            index.save(tmp_path / "index.nv")
            index = nv.load(tmp_path / "index.nv", mmap=rounds % 2 == 0)
            subject.more(index)
            index.clear()
            assert len(index) == 0
        for function in STATELESS.values():
            function()
        rounds += 1
        if now > WARM * lasts:
            times.append(time.monotonic() - begun)
            sizes.append(resident())
    slope = float(np.polyfit(times, sizes, 1)[0])
    grown = slope * (times[-1] - times[0])
    note(f"{rounds} rounds in {times[-1]:.0f} s, {sizes[-1] / 2**20:.0f} MiB, {slope / 1024:+.1f} KiB a second")
    assert grown < max(2**24, 0.05 * sizes[-1])
