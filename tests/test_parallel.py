"""Threads, processes and interruptions: the same answers, or a clean end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nestvec as nv
import truth
from inputs import METRICS
from nestvec import backends, parallel
from nestvec.kernels import TABLE
from nestvec.parts import Part, split_rows
from nestvec.planes import BLOCK, Segment

LONG = 60  # seconds after which something waited for will not come any more
D, LEVELS = 40, (16,)


def rows(n: int, seed: int = 0) -> np.ndarray:
    """Small whole numbers: many ties, which only ids decide."""
    return np.random.default_rng(seed).integers(-3, 4, (n, D)).astype(np.float32)


def filled(x: np.ndarray, metric: str = "ip") -> nv.NestedIndex:
    """Several segments, the first full, the last not."""
    index = nv.NestedIndex(D, levels=LEVELS, metric=metric)
    for some in np.array_split(x, 3):
        index.add(some)
    return index


def bits(answer: tuple[np.ndarray, np.ndarray]) -> tuple[bytes, bytes]:
    return answer[0].tobytes(), answer[1].tobytes()


# Threads


@pytest.mark.parametrize("nq", [1, 5, 100])
@pytest.mark.parametrize("metric", METRICS)
def test_same_bits_for_any_number_of_threads(metric: str, nq: int) -> None:
    x = rows(9000)
    q, index = rows(nq, 1), filled(x, metric)
    for dims in (16, 23, 40):
        searches: dict[str, Callable[[int], Any]] = {
            "search": lambda n, dims=dims: bits(index.search(q, 20, dims=dims, threads=n)),
            "topk": lambda n, dims=dims: bits(nv.prefix_topk(q, x, 20, dims=dims, metric=metric, threads=n)),
            "scores": lambda n, dims=dims: nv.prefix_scores(q, x, dims=dims, metric=metric, threads=n).tobytes(),
        }
        for name, search in searches.items():
            assert [search(n) == search(1) for n in (1, 2, 3, 7)] == [True] * 4, name


@pytest.mark.parametrize("ids", [False, True], ids=["counted", "given"])
def test_same_index_for_any_number_of_threads(ids: bool) -> None:
    """Rows added by several threads; the first of them go where a block has begun."""
    x = rows(10_000)
    wanted = bits(filled(x, "cosine").search(x[:100], 20))
    for threads in (1, 2, 3, 7):
        index = nv.NestedIndex(D, levels=LEVELS, metric="cosine")
        for some in np.split(np.arange(len(x)), [37, 100, 5000]):
            index.add(x[some], some if ids else None, threads=threads)
        assert bits(index.search(x[:100], 20)) == wanted


def test_rows_are_added_in_whole_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a block share bounds, so no two threads may write to one."""
    cuts: list[int] = []

    def run(work: Callable[[Any], Any], spans: list[tuple[int, int]], threads: int) -> None:
        cuts.extend(first for first, _ in spans[1:])

    index = nv.NestedIndex(D)
    index.add(rows(10))
    monkeypatch.setattr(parallel, "run", run)
    index.add(rows(30_000))
    assert len(cuts) > 5
    assert {cut % BLOCK for cut in cuts} == {0}


@pytest.fixture
def often() -> Iterator[None]:
    """Threads take turns very often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize(("nq", "dims", "threads"), [(1, 40, 1), (6, 40, 1), (20, 23, 1), (2, 16, 2)])
@pytest.mark.parametrize("ids", [False, True], ids=["counted", "given"])
def test_searches_while_rows_are_added(ids: bool, nq: int, dims: int, threads: int) -> None:
    """Every answer is that of the index after some number of adds, and that number never falls."""
    x, q = rows(3000), rows(nq, 1)
    ends = [10, 20, 64, 70, 129, 500, 1000, 1030, 1500, 1501, 2100, 3000]
    wanted = [bits(truth.topk(q[:, :dims], x[:end, :dims], 15, "cosine")) for end in ends]
    index, done = nv.NestedIndex(D, levels=LEVELS, metric="cosine"), threading.Event()
    index.add(x[: ends[0]])
    answered = threading.Event()

    def search() -> list[tuple[bytes, bytes]]:
        answers = []
        while not done.is_set():
            answers.append(bits(index.search(q, 15, dims=dims, threads=threads)))
            answered.set()
        return [*answers, bits(index.search(q, 15, dims=dims, threads=threads))]

    with ThreadPoolExecutor(8) as pool:
        searches = [pool.submit(search) for _ in range(8)]
        try:
            for first, last in pairwise(ends):
                answered.clear()
                assert answered.wait(LONG)
                index.add(x[first:last], range(first, last) if ids else None, threads=2)
        finally:
            done.set()
    for one in searches:
        assert set(one.result()) <= set(wanted)
        seen = [wanted.index(answer) for answer in one.result()]
        assert seen == sorted(seen)
        assert seen[-1] == len(ends) - 1


def test_adds_from_many_threads() -> None:
    """Each add is one piece, whatever the order."""
    x = rows(2000)
    index = nv.NestedIndex(D, levels=LEVELS)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda part: index.add(x[part], part), np.array_split(np.arange(2000), 40)))
    assert bits(index.search(x[:20], 30)) == bits(filled(x).search(x[:20], 30))
    np.testing.assert_array_equal(index.reconstruct(range(2000)), x)


# Processes


FORK = """
import os, signal, sys, time
import nestvec as nv, numpy as np

x = np.random.default_rng(0).standard_normal((5000, 40)).astype(np.float32)
index = nv.NestedIndex(40)
index.add(x, threads=3)
wanted = index.search(x[:100], 5, threads=3)[1].tolist()
child = os.fork()
if child == 0:
    index.add(x[:10], threads=3)
    os._exit(0 if index.search(x[:100], 5, threads=3)[1].tolist() != wanted and len(index) == 5010 else 1)
for _ in range(300):
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        break
    time.sleep(0.1)
else:
    os.kill(child, signal.SIGKILL)
    sys.exit("the child hangs")
same = index.search(x[:100], 5, threads=3)[1].tolist() == wanted
sys.exit(None if same and os.waitstatus_to_exitcode(status) == 0 else f"wrong answers: {same}, {status}")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_fork_after_a_threaded_search() -> None:
    """The child has none of its parent's threads, and makes its own."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORK]
    done = subprocess.run(command, timeout=LONG, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


LOCKED = """
import os, signal, sys, threading, time
import nestvec as nv, numpy as np
from nestvec import parallel

x = np.random.default_rng(0).standard_normal((5000, 40)).astype(np.float32)
docs = (x, np.arange(0, 5001, 50))
nested, binary = nv.NestedIndex(40), nv.BinaryIndex(40)
multi = nv.MultiVectorIndex(nv.FixedDimensionalEncoder(40, num_repetitions=2))
nested.add(x, threads=2), binary.add(x, threads=2), multi.add(docs, threads=2)
indexes = (nested, x), (binary, x), (multi, docs)
locks = [parallel._choosing, *(lock for index, _ in indexes for lock in (index._writing, index._naming))]
held, enough = threading.Event(), threading.Event()

def hold():
    for lock in locks:
        lock().acquire()
    held.set()
    enough.wait()
    for lock in locks:
        lock().release()

holder = threading.Thread(target=hold)
holder.start()
held.wait()
child = os.fork()
if child == 0:
    for index, some in indexes:
        before = len(index)
        index.add(some, threads=3)
        if len(index) != 2 * before:
            os._exit(1)
        index.remove([0])
    os._exit(0)
for _ in range(300):
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        break
    time.sleep(0.1)
else:
    os.kill(child, signal.SIGKILL)
    enough.set()
    sys.exit("the child hangs")
enough.set()
holder.join()
for index, some in indexes:
    index.add(some, threads=3)
sys.exit(os.waitstatus_to_exitcode(status))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_fork_while_locks_are_held() -> None:
    """A thread holds every lock; it does not exist in the child, which goes on all the same."""
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", LOCKED]
    done = subprocess.run(command, timeout=LONG, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


AT_EXIT = """
import threading, time
from concurrent.futures import thread
import nestvec as nv, numpy as np

x = np.eye(200, dtype=np.float32)
index = nv.NestedIndex(200)
index.add(x, threads=3)

def work():
    while not thread._shutdown:
        time.sleep(0.01)
    print(index.search(x, 1, threads=3)[1].ravel().tolist() == list(range(200)))

threading.Thread(target=work).start()
"""


def test_search_after_the_main_thread_has_ended() -> None:
    """Other threads live on, but the interpreter starts no more."""
    done = subprocess.run([sys.executable, "-c", AT_EXIT], timeout=LONG, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("True\n", "")


def build_and_search(backend: str, n: int) -> tuple[bytes, bytes]:
    nv.use(backend)  # a new process chooses anew
    x = rows(n)
    return bits(filled(x).search(x[:50], 5, threads=2))


def test_spawned_process() -> None:
    name, _ = backends.describe()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        found = pool.submit(build_and_search, name, 3000).result(LONG)
    assert found == build_and_search(name, 3000)


# The pool


@pytest.fixture
def fresh_pool() -> None:
    """No pool yet."""
    if parallel._pool is not None:
        parallel._discard(parallel._pool)
    wait_for(lambda: not helpers())


def helpers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("nestvec")]


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(100 * LONG):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("waited in vain")


@pytest.mark.usefixtures("fresh_pool")
def test_replaced_pools_leave_no_threads() -> None:
    for threads in (2, 3, 5, 9, 4):
        together = threading.Barrier(threads)
        parallel.run(lambda _, together=together: together.wait(LONG), range(threads), threads)
    wait_for(lambda: len(helpers()) <= 8)


@pytest.mark.usefixtures("fresh_pool", "often")
def test_pools_made_by_many_threads_at_once() -> None:
    begin = threading.Barrier(16)

    def call(threads: int) -> list[int]:
        begin.wait(LONG)
        return parallel.run(abs, range(100), threads)

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(call, range(2, 18))) == [list(range(100))] * 16
    wait_for(lambda: len(helpers()) <= 16)


@pytest.mark.usefixtures("fresh_pool")
@pytest.mark.parametrize(
    "error", [RuntimeError("can't start new thread"), MemoryError()], ids=["RuntimeError", "Memory"]
)
@pytest.mark.parametrize("nth", [1, 2])
def test_no_thread_can_be_started(error: Exception, nth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The calling thread does what those that could be started do not."""
    starts, start = iter(range(1, 10**6)), threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if next(starts) >= nth:
            raise error
        start(thread)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        for _ in range(3):
            assert parallel.run(abs, range(50), 4) == list(range(50))
    together = threading.Barrier(4)
    parallel.run(lambda _: together.wait(LONG), range(4), 4)  # now they can be


@pytest.mark.usefixtures("fresh_pool")
def test_ctrl_c_while_a_thread_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool does not know of that thread, which must end all the same."""
    start, begun = threading.Thread.start, threading.Event()

    def interrupt(thread: threading.Thread) -> None:
        start(thread)
        assert begun.wait(LONG)
        raise KeyboardInterrupt

    def work(part: int) -> None:
        begun.set()
        while True:
            parallel.check()

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", interrupt)
        with pytest.raises(KeyboardInterrupt):
            parallel.run(work, range(2), 2)
    wait_for(lambda: not helpers())
    assert parallel.run(abs, range(4), 2) == [0, 1, 2, 3]


@pytest.mark.usefixtures("fresh_pool")
def test_a_busy_pool_keeps_nothing_of_calls_that_have_ended() -> None:
    """Their helpers never came; the arrays are free at once."""

    class Part:
        pass

    busy, enough = threading.Event(), threading.Event()

    def work(part: int) -> None:
        if threading.current_thread() is not caller:
            busy.set()
            assert enough.wait(LONG)
            return
        assert busy.wait(LONG)
        some = [Part(), Part()]
        kept.extend(map(weakref.ref, some))
        parallel.run(lambda part: None, some, 2)

    caller, kept = threading.current_thread(), []
    gone: list[bool] = []

    def watch() -> None:
        wait_for(lambda: len(kept) == 2 and all(part() is None for part in kept))
        gone.append(True)
        enough.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    parallel.run(work, range(2), 2)
    watcher.join()
    assert gone == [True]


# Interruptions


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """A function that makes the n-th call of one kernel end like Ctrl-C."""
    kernels = SimpleNamespace(**{name: getattr(backends.current(), name) for name in TABLE})
    monkeypatch.setattr(backends, "_current", ("broken", kernels, "a test"))

    def break_(name: str, nth: int) -> None:
        calls, kernel = iter(range(1, 10**6)), getattr(kernels, name)

        def call(*arguments: Any) -> Any:
            if next(calls) == nth:
                raise KeyboardInterrupt
            return kernel(*arguments)

        setattr(kernels, name, call)

    return break_


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("kernel", "nth", "nq", "dims"),
    [
        ("first_nonfinite", 1, 1, 40),
        ("pack_queries", 1, 5, 40),
        ("scan", 2, 1, 40),
        ("scan", 2, 5, 40),
        ("rescore_f32", 3, 5, 16),
        ("rescore_f32", 2, 100, 40),
        ("topk_f32", 1, 1, 23),
        ("pack_rows", 2, 20, 23),
    ],
)
def test_interrupted_search(
    kernel: str, nth: int, nq: int, dims: int, threads: int, broken: Callable[[str, int], None]
) -> None:
    """The kernel fails once; the next search is as if nothing had happened."""
    x = rows(9000)
    index = filled(x)
    wanted = bits(index.search(x[:nq], 10, dims=dims, threads=threads))
    broken(kernel, nth)
    with pytest.raises(KeyboardInterrupt):
        index.search(x[:nq], 10, dims=dims, threads=threads)
    assert bits(index.search(x[:nq], 10, dims=dims, threads=threads)) == wanted


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_interrupted_add(nth: int, broken: Callable[[str, int], None]) -> None:
    x = rows(20_000)
    index = filled(x[:3000])
    wanted = bits(index.search(x[:20], 10))
    broken("pack_rows", nth)
    with pytest.raises(KeyboardInterrupt):
        index.add(x[3000:], threads=2)
    assert len(index) == 3000
    assert bits(index.search(x[:20], 10)) == wanted
    index.add(x[3000:], threads=2)
    assert bits(index.search(x[:20], 10)) == bits(filled(x).search(x[:20], 10))


def test_failed_share_reaches_the_caller() -> None:
    """It fails in a helper while the caller works, which stops at its next check and begins no more."""
    begun: list[int] = []
    helping = threading.Event()

    def work(part: int) -> None:
        begun.append(part)
        if threading.current_thread() is not caller:
            helping.set()
            raise OverflowError("a share failed")
        assert helping.wait(LONG)
        while True:
            parallel.check()

    caller = threading.current_thread()
    with pytest.raises(OverflowError, match="a share failed"):
        parallel.run(work, range(100), 2)
    assert 1 <= len(begun) <= 2  # the helper may have failed before the caller took a part


def test_failed_share_of_the_caller() -> None:
    """It waits for what others have begun, and begins no more."""
    begun: list[int] = []
    ended: list[int] = []
    together = threading.Barrier(3)
    failed = threading.Event()

    def work(part: int) -> None:
        begun.append(part)
        together.wait(LONG)
        if threading.current_thread() is caller:
            failed.set()
            raise KeyboardInterrupt
        failed.wait(LONG)
        ended.append(part)
        raise ValueError("less important")

    caller = threading.current_thread()
    with pytest.raises(KeyboardInterrupt):
        parallel.run(work, range(100), 3)
    assert sorted(begun) == [0, 1, 2]
    assert len(ended) == 2


def test_helpers_stop_at_their_next_check() -> None:
    """The caller is interrupted; helpers do not finish their shares, and what they then raise is not seen."""
    together = threading.Barrier(3)

    def work(part: int) -> None:
        together.wait(LONG)
        if threading.current_thread() is caller:
            raise KeyboardInterrupt
        while True:
            parallel.check()

    caller = threading.current_thread()
    with pytest.raises(KeyboardInterrupt):
        parallel.run(work, range(3), 3)
    assert parallel.run(abs, range(3), 3) == [0, 1, 2]
    parallel.check()  # nothing is left behind


def test_a_stop_reaches_the_shares_of_a_share() -> None:
    """A helper is itself waiting for helpers when the caller is interrupted."""
    inside = threading.Event()

    def inner(part: int) -> None:
        inside.set()
        while True:
            parallel.check()

    def outer(part: int) -> None:
        if threading.current_thread() is caller:
            assert inside.wait(LONG)
            raise KeyboardInterrupt
        parallel.run(inner, range(4), 2)

    caller = threading.current_thread()
    with pytest.raises(KeyboardInterrupt):
        parallel.run(outer, range(2), 2)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C is KeyboardInterrupt, also where a shell runs this in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_while_waiting_for_others() -> None:
    """The caller has done its share: it still waits, since the others write to memory that is used afterwards."""
    helping = threading.Event()
    ended: list[int] = []

    def work(part: int) -> None:
        if threading.current_thread() is caller:
            assert helping.wait(LONG)
            return
        helping.set()
        threading.Event().wait(0.1)  # the caller begins to wait
        signal.pthread_kill(caller.ident, signal.SIGINT)
        threading.Event().wait(0.3)
        ended.append(part)

    caller = threading.main_thread()
    with pytest.raises(KeyboardInterrupt):
        parallel.run(work, range(2), 2)
    assert len(ended) == 1


@pytest.mark.parametrize("threads", [1, 2, 5, 50])
def test_results_come_in_order(threads: int) -> None:
    assert parallel.run(lambda part: part * part, range(20), threads) == [part * part for part in range(20)]
    assert parallel.run(str, [], threads) == []


def test_searches_inside_a_share() -> None:
    """A share may itself use threads: the caller works too, so a pool without a free thread is no deadlock."""
    x = rows(3000)
    wanted = bits(filled(x).search(x[:5], 5))
    found = parallel.run(lambda _: bits(filled(x).search(x[:5], 5, threads=4)), range(8), 4)
    assert found == [wanted] * 8


# Shares


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 700)), min_size=1, max_size=6), st.integers(1, 12))
def test_split_rows(spans: list[tuple[int, int]], threads: int) -> None:
    """Every row of every part once and in order, cut at blocks; no share is much larger than another."""
    none = np.empty(0, np.int64)
    parts = [
        Part(Segment.unpacked(np.empty((0, 0)), none), BLOCK * first, BLOCK * first + count) for first, count in spans
    ]
    shares = split_rows(parts, threads)
    flat = [part for share in shares for part in share]
    assert all(part.first % BLOCK == 0 and part.first < part.last for part in flat)
    found = [(id(part.segment), row) for part in flat for row in range(part.first, part.last)]
    assert found == [(id(part.segment), row) for part in parts for row in range(part.first, part.last)]
    assert all(part.last % BLOCK == 0 or part.last in {p.last for p in parts} for part in flat)
    sizes = [sum(part.last - part.first for part in share) for share in shares]
    assert max(sizes) <= -(-sum(sizes) // threads) + BLOCK
    assert len(shares) <= threads + len(parts)
