"""Processes made from one that has searched with threads: each searches with threads too, or dies of its watchdog.

python forks.py {quiet,searching,adding} COUNT
python forks.py {fork,spawn,forkserver,executor} COUNT

Prints the longest time that a child took to give all its answers, in seconds.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

from subjects import SUBJECTS, bits

WATCHDOG = 20  # seconds after which a child says where it hangs, and ends

_index: dict[str, Any] = {}
_right: dict[str, Any] = {}


def ask(index: Any, name: str) -> list[Any]:
    return [bits(call(index)) for call in SUBJECTS[name].calls.values()]


def prepare(name: str) -> None:
    """An index and its answers, given with threads, for processes made later."""
    _index[name] = SUBJECTS[name].filled()
    _right[name] = ask(_index[name], name)


def check(name: str, right: Any) -> float:
    """Seconds for all answers of an index that was inherited, or is made here."""
    faulthandler.dump_traceback_later(WATCHDOG, exit=True)
    begun = time.perf_counter()
    index = _index[name] if name in _index else SUBJECTS[name].filled()
    found = ask(index, name)
    took = time.perf_counter() - begun
    faulthandler.cancel_dump_traceback_later()
    if found != right:
        sys.exit(f"{name}: other answers in a new process")
    return took


def check_growing(name: str, right: Any) -> float:
    """The same, and an index to which a thread of the parent was adding can be added to by the child."""
    took, index = check(name, right), _index["growing"]
    faulthandler.dump_traceback_later(WATCHDOG, exit=True)
    before = len(index)
    SUBJECTS[name].more(index)
    if len(index) != before + 1:
        sys.exit(f"{name}: {len(index)} rows after one more than {before}")
    return took


def forked(work: Callable[[], Any]) -> float:
    """What `work` returns in a child made by fork; whatever happens there, the child ends."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(writer, str(work() or 0.0).encode())
            status = 0
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
        finally:
            os._exit(status)
    os.close(writer)
    _, status = os.waitpid(child, 0)
    answer = os.read(reader, 100)
    os.close(reader)
    if status:
        sys.exit(f"a child ended with status {os.waitstatus_to_exitcode(status)}")
    return float(answer)


@contextmanager
def busy(name: str, how: str) -> Iterator[None]:
    """Another thread adds to the index, or asks it, again and again."""
    if how == "quiet":
        yield
        return
    done, subject = threading.Event(), SUBJECTS[name]
    _index["growing"] = subject.filled(1)

    def work() -> None:
        while not done.is_set():
            if how == "adding":  # to an index of its own that children inherit too
                index = _index["growing"] = subject.filled(1)
                for step in subject.steps[1:]:
                    step(index)
            else:
                ask(_index[name], name)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def by_fork(how: str, count: int) -> float:
    longest = 0.0
    for name in SUBJECTS:
        prepare(name)
        with busy(name, how):
            work = check_growing if how == "adding" else check
            for _ in range(count):
                longest = max(longest, forked(partial(work, name, _right[name])))
    return longest


def by_multiprocessing(method: str, count: int) -> float:
    """Every task has a process of its own, except those of an executor."""
    longest = 0.0
    for name in SUBJECTS:
        prepare(name)
        if method == "executor":
            with ProcessPoolExecutor(4, multiprocessing.get_context("fork")) as pool:
                futures = [pool.submit(check, name, _right[name]) for _ in range(count)]
                longest = max([longest, *(future.result(10 * WATCHDOG) for future in futures)])
            continue
        with multiprocessing.get_context(method).Pool(2, maxtasksperchild=1) as pool:
            tasks = [pool.apply_async(check, (name, _right[name])) for _ in range(count)]
            longest = max([longest, *(task.get(10 * WATCHDOG) for task in tasks)])
    return longest


if __name__ == "__main__":
    how, count = sys.argv[1], int(sys.argv[2])
    run = by_fork if how in ("quiet", "searching", "adding") else by_multiprocessing
    print(f"{run(how, count):.3f}")
