"""One small thread pool. Kernels release the interpreter lock and take milliseconds, so Python threads are enough."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, TypeVar

from .arrays import integer

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

T = TypeVar("T")
R = TypeVar("R")

SMALL_WORK = 20_000_000  # multiplications that one thread does sooner than two

_pool: ThreadPoolExecutor | None = None
_owner = (0, 0)


def cores() -> int:
    """Cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def threads_for(threads: int | None, work: int) -> int:
    """Threads for `work` multiplications: as asked, else one if it is little, else every core."""
    if threads is not None:
        return integer(threads, "threads", 1)
    return cores() if work > SMALL_WORK else 1


def check() -> None:
    """Raise what ends the call that this thread works for, if anything does."""


def run(work: Callable[[T], R], parts: Sequence[T], threads: int) -> list[R]:
    """Results of ``work(part)`` for every part, in order, by at most `threads` threads, the calling one among them.

    An exception, Ctrl-C included, cancels the parts not begun, waits for the others and is then raised.
    """
    if threads == 1 or len(parts) == 1:
        return [work(part) for part in parts]
    queue: SimpleQueue[int] = SimpleQueue()
    for at in range(len(parts)):
        queue.put(at)
    results: dict[int, R] = {}

    def drain() -> None:
        while True:
            try:
                at = queue.get_nowait()
            except Empty:
                return
            try:
                results[at] = work(parts[at])
            except BaseException:
                _discard(queue)
                raise

    futures: list[Future[None]] = []
    try:
        for _ in range(min(threads, len(parts)) - 1):
            futures.append(_executor(threads - 1).submit(drain))
    except RuntimeError:  # the interpreter is shutting down: whoever still computes does so alone
        pass
    try:
        drain()
    finally:
        errors = _wait(futures, queue)
    for error in filter(None, errors):
        raise error
    return [results[at] for at in range(len(parts))]


def _wait(futures: list[Future[None]], queue: SimpleQueue[int]) -> list[BaseException | None]:
    """What the helpers raised. Ctrl-C meanwhile is raised only when none of them runs any more."""
    running = [future for future in futures if not future.cancel()]
    interrupt: BaseException | None = None
    while True:
        try:
            errors = [future.exception() for future in running]
            break
        except KeyboardInterrupt as error:
            interrupt = error
            _discard(queue)
    return errors if interrupt is None else [interrupt]


def _discard(queue: SimpleQueue[int]) -> None:
    while True:
        try:
            queue.get_nowait()
        except Empty:
            return


def _executor(workers: int) -> ThreadPoolExecutor:
    """The pool, made anew after a fork (its threads stay behind in the parent) and when more workers are wanted."""
    global _pool, _owner
    from concurrent.futures import ThreadPoolExecutor  # half of the import time of this package, were it above

    if _pool is None or _owner[0] != os.getpid() or _owner[1] < workers:
        _pool = ThreadPoolExecutor(workers, thread_name_prefix="nestvec")
        _owner = (os.getpid(), workers)
    return _pool
