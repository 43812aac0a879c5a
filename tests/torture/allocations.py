"""Calls whose allocations fail, one after the other; run with `allocations.c` loaded before everything else.

python allocations.py SUBJECT LEAST THREADS SAMPLE ROW

SUBJECT is one of `subjects.SUBJECTS`, or "functions". Allocations of at least LEAST bytes fail: of "all" threads, of
the "calling" one, or of the "only" one, where calls use no others. Each fails alone, at most SAMPLE for each call, and
ROW in a row from some of them on. Prints, for each call, how many allocations it makes and what became of it when some
failed; ends with status 1 if an index was not as before.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from nestvec import parallel
from subjects import STATELESS, SUBJECTS, Subject, bits

STEPS = (0, 2, 5, 8, 9, 11)  # that meet failures: rows in a new index, block, segment; remove, update, compact

_shim = ctypes.CDLL(None)
_shim.arm.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_size_t, ctypes.c_int)
_shim.arm.restype = None
_shim.disarm.restype = ctypes.c_long
NEVER = 2**62


def own_array_memory() -> None:
    """The data of arrays that this thread makes comes from the shim, see `allocations.c`."""
    python = ctypes.pythonapi
    python.PyCapsule_GetPointer.restype = ctypes.c_void_p
    python.PyCapsule_GetPointer.argtypes = (ctypes.py_object, ctypes.c_char_p)
    python.PyCapsule_New.restype = ctypes.py_object
    python.PyCapsule_New.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
    table = python.PyCapsule_GetPointer(np._core._multiarray_umath._ARRAY_API, None)
    set_handler = ctypes.cast(table, ctypes.POINTER(ctypes.c_void_p))[304]  # PyDataMem_SetHandler
    handler = python.PyCapsule_New(ctypes.addressof(ctypes.c_char.in_dll(_shim, "array_memory")), b"mem_handler", None)
    ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(set_handler)(handler)


class Failing:
    """Runs calls with failing allocations."""

    def __init__(self, least: int, every_thread: bool, sample: int, row: int) -> None:
        self.least, self.every_thread, self.sample, self.row = least, every_thread, sample, row

    def run(self, call: Callable[[], Any], first: int, last: int) -> tuple[str, Any, int]:
        """What a call ended with, its answer, and the allocations it made."""
        ended, answer, arm, disarm = "done", None, _shim.arm, _shim.disarm
        arm(first, last, self.least, self.every_thread)
        try:
            answer = call()
        except MemoryError:
            count = disarm()
            ended = "MemoryError"
        except BaseException as error:
            count = disarm()
            ended = f"{type(error).__name__}: {error}"
        else:
            count = disarm()
        return ended, answer, count

    def count(self, call: Callable[[], Any]) -> int:
        """Allocations that a call makes; the first time it runs it may make others."""
        self.run(call, NEVER, NEVER)
        return self.run(call, NEVER, NEVER)[2]

    def numbers(self, count: int) -> Iterable[tuple[int, int]]:
        """The first and the last allocation to fail: one at a time, then several."""
        some = sorted(set(np.linspace(1, count, min(count, self.sample)).astype(int).tolist()))
        yield from ((n, n) for n in some)
        yield from ((n, n + self.row - 1) for n in some[:: max(1, len(some) // 3)])


def say(**what: Any) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


def refuse(what: str) -> None:
    say(wrong=what)
    sys.exit(1)


def ask_all(failing: Failing, calls: dict[str, Callable[[], Any]], size: Callable[[], int]) -> None:
    """Fail what calls that change nothing allocate."""
    for name, call in calls.items():
        right, before = bits(call()), size()
        count, ends = failing.count(call), Counter[str]()
        say(call=name, allocations=count)
        for first, last in failing.numbers(count):
            say(first=first, last=last)
            ended, answer, _ = failing.run(call, first, last)
            ends[ended] += 1
            if ended == "done" and bits(answer) != right:
                refuse(f"{name}: another answer, as allocation {first} failed")
            if size() != before or bits(call()) != right:
                refuse(f"{name}: another answer after allocation {first} had failed")
        say(call=name, ends=ends)


def change_all(failing: Failing, subject: Subject) -> None:
    """Fail what changes of an index allocate."""
    for at in (at for at in STEPS if at < len(subject.steps)):
        step, before = subject.steps[at], subject.filled(at)
        after, size = subject.filled(at + 1), len(before)
        asked = {name: bits(call(before)) for name, call in subject.calls.items()} if at else {}
        right = {name: bits(call(after)) for name, call in subject.calls.items()}
        say(call=f"step {at}")
        fresh = iter([subject.filled(at), subject.filled(at)])
        count, ends = failing.count(lambda step=step, fresh=fresh: step(next(fresh))), Counter[str]()
        say(call=f"step {at}", allocations=count)
        for first, last in failing.numbers(count):
            index = subject.filled(at)
            say(first=first, last=last)
            ended, _, _ = failing.run(lambda index=index, step=step: step(index), first, last)
            ends[ended] += 1
            if ended != "done":
                if len(index) != size:
                    refuse(f"step {at}: {len(index)} rows after allocation {first} had failed, {size} before")
                for name in asked:
                    if bits(subject.calls[name](index)) != asked[name]:
                        refuse(f"step {at}: {name} gives another answer after allocation {first} had failed")
                try:
                    step(index)
                except Exception as error:
                    refuse(f"step {at}, again after allocation {first} had failed: {error!r}")
            for name in right:
                if bits(subject.calls[name](index)) != right[name]:
                    refuse(f"step {at}: {name} gives another answer, as allocation {first} failed")
        say(call=f"step {at}", ends=ends)


def alone(work: Callable[[Any], Any], parts: Iterable[Any], threads: int) -> list[Any]:
    """What `parallel.run` does, without threads."""
    return [work(part) for part in parts]


def main(name: str, least: int, threads: str, sample: int, row: int) -> None:
    failing = Failing(least, threads == "all", sample, row)
    if threads == "only":
        parallel.run = alone
    parallel.run(lambda _: (own_array_memory(), time.sleep(0.1)), range(2), 2)  # in the pool's thread too
    warnings.simplefilter("ignore")  # a warning that cannot be made is not the warning's business
    if name == "functions":
        ask_all(failing, STATELESS, lambda: 0)
        return
    index, subject = SUBJECTS[name].filled(), SUBJECTS[name]
    ask_all(failing, {call: lambda ask=ask: ask(index) for call, ask in subject.calls.items()}, lambda: len(index))
    change_all(failing, subject)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
