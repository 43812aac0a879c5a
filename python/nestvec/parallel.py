"""One small thread pool. Kernels release the interpreter lock and take milliseconds, so Python threads are enough.

Between kernel calls `check` asks whether to go on.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from functools import wraps
from typing import TYPE_CHECKING, Generic, ParamSpec, TypeVar, cast

from . import arrays
from .calls import Call, Cancelled, active
from .calls import check as check

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

T = TypeVar("T")
R = TypeVar("R")
P = ParamSpec("P")

SMALL_WORK = 20_000_000  # multiplications that one thread does sooner than two

_pool: ThreadPoolExecutor | None = None
_owner = (0, 0)


def limited(work: Callable[P, R]) -> Callable[P, R]:
    """A function whose keyword argument `timeout` sets a deadline for all that it does; of several the first counts."""

    @wraps(work)
    def timed(*args: P.args, **kwargs: P.kwargs) -> R:
        timeout = kwargs.get("timeout")
        if timeout is None:
            return work(*args, **kwargs)
        outer = active.call
        active.call = Call(outer, arrays.seconds(timeout, "timeout"))
        try:
            return work(*args, **kwargs)
        finally:
            active.call = outer

    return timed


class Lock:
    """A lock for each process: ``with lock():``. A forked child finds it free, whoever held it in the parent."""

    def __init__(self) -> None:
        self._locks: dict[int, threading.Lock] = {}

    def __call__(self) -> threading.Lock:
        return self._locks.setdefault(os.getpid(), threading.Lock())


_choosing = Lock()  # of the pool


def cores() -> int:
    """Cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def threads_for(threads: int | None, work: int) -> int:
    """Threads for `work` multiplications: as asked, else one if it is little, else every core."""
    if threads is not None:
        return arrays.integer(threads, "threads", 1)
    return cores() if work > SMALL_WORK else 1


def run(work: Callable[[T], R], parts: Sequence[T], threads: int) -> list[R]:
    """Results of ``work(part)`` for every part, in order, by at most `threads` threads, the calling one among them.

    An exception, Ctrl-C included, stops the others at their next `check`, waits for them and is then raised.
    """
    if threads > 1 and len(parts) > 1:
        return _Crew(work, parts).run(threads - 1)
    results = []
    for part in parts:
        check()
        results.append(work(part))
    return results


class _Crew(Generic[T, R]):
    """The threads of one `run`: the calling one, and helpers that come when the pool has time."""

    def __init__(self, work: Callable[[T], R], parts: Sequence[T]) -> None:
        self.work, self.parts = work, parts
        self.results: list[R | None] = [None] * len(parts)
        self.call = Call(active.call)
        self.lock = threading.Lock()  # of what follows
        self.begun = self.helpers = 0
        self.closed = False  # to further helpers
        self.failure: BaseException | None = None
        self.alone = threading.Lock()  # released by the last helper after `closed`
        self.alone.acquire()

    def run(self, workers: int) -> list[R]:
        """All results, or what went wrong first; no helper is left when this returns, whenever Ctrl-C comes."""
        entered = ended = False
        while not ended:
            try:
                if not entered:
                    entered = True
                    self._hire(workers)
                    self._drain()
                self._dismiss()
                ended = True
            except BaseException as error:
                self._fail(error)
        failure, self.failure = self.failure, None
        try:
            if failure is not None:
                raise failure
        finally:
            del failure  # else it would keep this frame, and all arrays, until garbage is collected
        return cast("list[R]", self.results)

    def _hire(self, workers: int) -> None:
        for _ in range(min(workers, len(self.parts) - 1)):
            pool = _executor(workers)
            try:
                pool.submit(_help, weakref.ref(self))
            except BaseException as error:
                _discard(pool)
                if not isinstance(error, (RuntimeError, MemoryError)):
                    raise
                return  # no thread can be started, or the interpreter is shutting down: go on with those there are

    def _drain(self) -> None:
        outer, active.call = active.call, self.call
        try:
            while True:
                with self.lock:
                    at = self.begun
                    self.begun += 1
                if at >= len(self.parts):
                    return
                check()
                self.results[at] = self.work(self.parts[at])
        finally:
            active.call = outer

    def _fail(self, error: BaseException) -> None:
        self.call.stopped = True
        with self.lock:
            if self.failure is None or isinstance(self.failure, Cancelled) or isinstance(error, KeyboardInterrupt):
                self.failure = error

    def help(self) -> None:
        """Do parts in another thread, unless the run has ended."""
        with self.lock:
            if self.closed:
                return
            self.helpers += 1
        try:
            self._drain()
        except BaseException as error:
            self._fail(error)
        finally:
            with self.lock:
                self.helpers -= 1
                if self.closed and self.helpers == 0:
                    self.alone.release()

    def _dismiss(self) -> None:
        with self.lock:
            self.closed = True
        while self.helpers:
            self.alone.acquire()


def _help(crew: weakref.ref[_Crew[T, R]]) -> None:
    """What the pool does: nothing where the run has ended, whose arrays must not be kept until there is time."""
    found = crew()
    if found is not None:
        found.help()


def _executor(workers: int) -> ThreadPoolExecutor:
    """The pool, made anew after a fork (its threads stay behind in the parent) and when more workers are wanted.

    Threads of one that is replaced end when they have nothing left to do.
    """
    global _pool, _owner
    from concurrent.futures import ThreadPoolExecutor  # half of the import time of this package, were it above

    with _choosing():
        if _pool is None or _owner[0] != os.getpid() or _owner[1] < workers:
            _pool = ThreadPoolExecutor(workers, thread_name_prefix="nestvec")
            _owner = (os.getpid(), workers)
        return _pool


def _discard(pool: ThreadPoolExecutor) -> None:
    """Begin with a new pool next time: this one may have a thread that it does not know of."""
    global _pool
    with _choosing():
        if _pool is pool:
            _pool = None
    pool.shutdown(wait=False)
