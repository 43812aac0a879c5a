"""Calls that end early: by a timeout, or by Ctrl-C anywhere between two kernel calls."""

from __future__ import annotations

import inspect
import signal
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import pytest

import nestvec as nv
from nestvec import parallel

D = 40
SOON = 1e-9  # seconds, over before the first check

rng = np.random.default_rng(0)
X, Q = rng.integers(-3, 4, (3000, D)).astype(np.float32), rng.integers(-3, 4, (40, D)).astype(np.float32)
CODES, QCODES = nv.pack_bits(X), nv.pack_bits(Q)
DOCS = (X, np.arange(0, 3001, 20))
PLAN = [nv.Stage("b1", keep=200), nv.Stage("raw")]
BIT_PLAN = [nv.Stage("b1", dims=20, keep=200), nv.Stage("b1")]
ENCODER = nv.FixedDimensionalEncoder(D, num_repetitions=4, num_simhash_projections=3, projection_dim=8)


def nested() -> nv.NestedIndex:
    index = nv.NestedIndex(D, levels=(16,))
    index.add(X[:2000])
    index.add(X[2000:])
    return index


def binary() -> nv.BinaryIndex:
    index = nv.BinaryIndex(D)
    index.add(CODES)
    return index


def multivector() -> nv.MultiVectorIndex:
    index = nv.MultiVectorIndex(ENCODER)
    index.add(DOCS)
    return index


NESTED, BINARY, MULTI = nested(), binary(), multivector()
SEARCHES: dict[str, Callable[..., Any]] = {
    "exact, one": lambda **how: NESTED.search(Q[:1], 5, **how),
    "exact, many": lambda **how: NESTED.search(Q, 5, **how),
    "exact, within a level": lambda **how: NESTED.search(Q[:3], 5, dims=23, **how),
    "exact, packed": lambda **how: NESTED.search(Q, 5, dims=23, **how),
    "plan": lambda **how: NESTED.search(Q[:4], 5, plan=PLAN, **how),
    "binary": lambda **how: BINARY.search(QCODES, 5, **how),
    "binary plan": lambda **how: BINARY.search(QCODES, 5, plan=BIT_PLAN, **how),
    "range": lambda **how: BINARY.range_search(QCODES, 12, **how),
    "documents, exact": lambda **how: MULTI.search(Q[:8], 5, exact=True, **how),
    "documents": lambda **how: MULTI.search(Q[:8], 5, candidates=30, **how),
    "shortlist": lambda **how: MULTI.shortlist(Q[:8], 30, **how),
    "prefix_topk": lambda **how: nv.prefix_topk(Q[:3], X, 5, **how),
    "hamming_topk": lambda **how: nv.hamming_topk(QCODES, CODES, 5, **how),
    "intersection_topk": lambda **how: nv.intersection_topk(QCODES, CODES, 5, **how),
    "jaccard_topk": lambda **how: nv.jaccard_topk(QCODES, CODES, 5, **how),
    "maxsim_topk": lambda **how: nv.maxsim_topk(Q[:8], DOCS, 5, **how),
}


def same(one: Any, other: Any) -> bool:
    return all(a.tobytes() == b.tobytes() and a.shape == b.shape for a, b in zip(one, other, strict=True))


# Timeouts


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", SEARCHES)
def test_timeout(name: str, threads: int) -> None:
    search = SEARCHES[name]
    wanted = search(threads=threads)
    with pytest.raises(TimeoutError, match="timeout=1e-09 seconds"):
        search(threads=threads, timeout=SOON)
    assert same(search(threads=threads, timeout=1000), wanted)
    assert same(search(threads=threads), wanted)


def test_timeout_of_explain() -> None:
    for plan in (None, PLAN):
        with pytest.raises(TimeoutError):
            NESTED.explain(Q, 5, plan, timeout=SOON)
    for how in ({"exact": True}, {"candidates": 30}):
        with pytest.raises(TimeoutError):
            MULTI.explain(Q[:8], 5, timeout=SOON, **how)
    for plan in (None, BIT_PLAN):
        with pytest.raises(TimeoutError):
            BINARY.explain(QCODES, 5, plan, timeout=SOON)


def test_every_search_has_a_timeout() -> None:
    searches = [nv.prefix_topk, nv.hamming_topk, nv.intersection_topk, nv.jaccard_topk, nv.maxsim_topk]
    for index in (nv.NestedIndex, nv.BinaryIndex, nv.MultiVectorIndex):
        names = ("search", "explain", "range_search", "shortlist")
        searches += [getattr(index, name) for name in names if hasattr(index, name)]
    for search in searches:
        assert inspect.signature(search).parameters["timeout"].kind is inspect.Parameter.KEYWORD_ONLY
        assert "timeout" in search.__doc__ or "as for `hamming_topk`" in search.__doc__


@pytest.mark.parametrize("timeout", [True, np.True_, "1", 1j, [1], np.ones(1)])
def test_timeout_of_a_wrong_type(timeout: Any) -> None:
    with pytest.raises(TypeError, match="timeout must be a number of seconds, got"):
        nv.prefix_topk(Q, X, 5, timeout=timeout)


@pytest.mark.parametrize("timeout", [0, -1, np.nan, np.inf, -np.inf, 10**400])
def test_timeout_out_of_range(timeout: Any) -> None:
    with pytest.raises(ValueError, match="timeout must be a finite number of seconds above 0, got"):
        nv.prefix_topk(Q, X, 5, timeout=timeout)


@pytest.mark.parametrize("timeout", [None, 1000, 1000.0, np.float32(1000), np.int64(1000), Fraction(1000), 1e300])
def test_timeout_of_a_right_type(timeout: Any) -> None:
    nv.prefix_topk(Q[:1], X, 5, timeout=timeout)


def test_earliest_timeout_counts() -> None:
    @parallel.limited
    def call(inner: Callable[[], None], *, timeout: float | None = None) -> None:
        inner()
        parallel.check()

    for first, second in [(SOON, 1000), (1000, SOON), (SOON, None), (None, SOON)]:
        with pytest.raises(TimeoutError, match="timeout=1e-09 "):
            call(lambda second=second: call(lambda: None, timeout=second), timeout=first)
    with pytest.raises(TimeoutError):
        call(lambda: parallel.run(lambda _: parallel.check(), range(10), 3), timeout=SOON)
    parallel.check()


def test_timeout_is_of_its_thread() -> None:
    seen: list[str] = []

    @parallel.limited
    def call(*, timeout: float) -> None:
        other = threading.Thread(target=lambda: seen.append(str(parallel.check())))
        other.start()
        other.join()

    call(timeout=SOON)
    assert seen == ["None"]


# Ctrl-C at every check


def interrupted(call: Callable[[], Any], between: Callable[[], None], monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a call gives after it has ended like Ctrl-C at its first check, at its second, and so on to the last."""
    check, lock = parallel.check, threading.Lock()
    for nth in count(1):
        calls = count(1)

        def stop(nth: int = nth, calls: Iterator[int] = calls) -> None:
            with lock:
                now = next(calls) == nth
            if now:
                raise KeyboardInterrupt
            check()

        with monkeypatch.context() as patched:
            patched.setattr(parallel, "check", stop)
            try:
                result = call()
            except KeyboardInterrupt:
                between()
                continue
        assert nth > 1  # it was interrupted at least once
        return result


STATELESS: dict[str, Callable[..., Any]] = {
    "prefix_scores": lambda threads: nv.prefix_scores(Q, X, threads=threads),
    "hamming": lambda threads: nv.hamming(QCODES, CODES, threads=threads),
    "jaccard": lambda threads: nv.jaccard(QCODES, CODES, threads=threads),
    "maxsim": lambda threads: nv.maxsim(Q[:8], DOCS, threads=threads),
    "encode_documents": lambda threads: ENCODER.encode_documents(*DOCS, threads=threads),
    "encode_queries": lambda threads: ENCODER.encode_queries(Q[:8], threads=threads)[None],
    "partitions": lambda threads: ENCODER.partitions(X, threads=threads),
}
SMALL = {
    "search.SLOW": 10**6, "search.FAST": 10**7, "search.PACK_ROWS": 640, "bags.CALL_WORK": 10**5,
    "stages.CALL_BYTES": 10**4, "stages.LIST_BYTES": 10**5, "search.RESCORE_VALUES": 10**4, "bits.PACK_ROWS": 640,
    "binary.RANGE_ROWS": 640, "container.ADD_ROWS": 320, "tokens.WRITE_VALUES": 10**4, "muvera.CHUNK_TOKENS": 400,
    "container.COPY_ROWS": 320, "ids.CHUNK": 500,
}  # fmt: skip


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of kernels are so short that there are many."""
    for name, value in SMALL.items():
        monkeypatch.setattr(f"nestvec.{name}", value)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", SEARCHES | STATELESS)
def test_interrupted_at_every_check(name: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the calls before is left in the one that comes to its end."""
    call = partial((SEARCHES | STATELESS)[name], threads=threads)
    assert same(interrupted(call, lambda: None, monkeypatch), call())


NAMES = np.random.default_rng(1).permutation(len(X)) + 100


def nested_with_all(count: int = 2000, ids: Any = None) -> nv.NestedIndex:
    index = nv.NestedIndex(D, levels=(16,), metric="cosine", codes=("b1", "i4"), rotate=True)
    index.add(X[:count], ids)
    return index


def documents(first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
    tokens, offsets = DOCS
    return tokens[offsets[first] : offsets[last]], offsets[first : last + 1] - offsets[first]


def multivector_of(count: int, ids: Any = None) -> nv.MultiVectorIndex:
    index = nv.MultiVectorIndex(ENCODER, codes=("b1", "i4"))
    index.add(documents(0, count), ids)
    return index


def binary_of(count: int) -> nv.BinaryIndex:
    index = nv.BinaryIndex(D)
    index.add(CODES[:count])
    return index


CHANGES: dict[str, tuple[Callable[[], Any], Callable[[Any, int], None]]] = {
    "add": (nested_with_all, lambda index, threads: index.add(X[2000:], threads=threads)),
    "add, from the beginning": (lambda: nested_with_all(0), lambda index, threads: index.add(X, threads=threads)),
    "add with ids": (
        lambda: nested_with_all(2000, NAMES[:2000]),
        lambda index, threads: index.add(X[2000:], NAMES[2000:], threads=threads),
    ),
    "add codes": (lambda: binary_of(2000), lambda index, threads: index.add(CODES[2000:], threads=threads)),
    "add vectors": (lambda: binary_of(2000), lambda index, threads: index.add(X[2000:], threads=threads)),
    "add documents": (
        lambda: multivector_of(100),
        lambda index, threads: index.add(documents(100, 150), threads=threads),
    ),
    "add documents with ids": (
        lambda: multivector_of(100, [f"d{i}" for i in range(100)]),
        lambda index, threads: index.add(documents(100, 150), [f"d{i}" for i in range(100, 150)], threads=threads),
    ),
    "update": (
        lambda: nested_with_all(2000, NAMES[:2000]),
        lambda index, threads: index.update(NAMES[:900], X[2000:2900], threads=threads),
    ),
}


def answers(index: Any) -> tuple[Any, ...]:
    queries = Q[:3] if isinstance(index, nv.MultiVectorIndex) else (Q if isinstance(index, nv.NestedIndex) else QCODES)
    if len(index) == 0:
        return (0,)
    ways: list[dict[str, Any]] = [{}]
    if isinstance(index, nv.NestedIndex):
        ways += [{"plan": [nv.Stage("b1", keep=60), nv.Stage("i4", keep=30), nv.Stage("raw")]}]
    found = [index.search(queries, 10, **how) for how in ways]
    return len(index), index.ids.tolist(), [(scores.tobytes(), ids.tolist()) for scores, ids in found]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", CHANGES)
def test_change_interrupted_at_every_check(name: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index is as it was each time, and the change that comes to its end is as if it had been the first."""
    make, change = CHANGES[name]
    index, other = make(), make()
    before = answers(index)

    def unchanged() -> None:
        assert answers(index) == before

    interrupted(lambda: change(index, threads), unchanged, monkeypatch)
    change(other, threads)
    assert answers(index) == answers(other) != before


@pytest.mark.usefixtures("small")
def test_compaction_interrupted_at_every_check(monkeypatch: pytest.MonkeyPatch) -> None:
    for index in (nested_with_all(2000, NAMES[:2000]), binary_of(2000), multivector_of(100)):
        index.remove(index.ids[::3])
        before = answers(index)

        def unchanged(index: Any = index, before: Any = before) -> None:
            assert answers(index) == before

        interrupted(partial(index.compact, threads=2), unchanged, monkeypatch)
        unchanged()


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no pthread_kill")
@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c(threads: int) -> None:
    """A real one, somewhere in a search."""
    index, main = nested_with_all(), threading.main_thread().ident
    assert main is not None
    wanted, queries = answers(index), np.repeat(X, 5, axis=0)
    timer = threading.Timer(0.1, signal.pthread_kill, (main, signal.SIGINT))

    def search_until_then() -> None:
        timer.start()
        while True:
            index.search(queries, 20, threads=threads)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            search_until_then()
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)
    assert answers(index) == wanted
    index.add(X[2000:], threads=threads)
    assert len(index) == 3000
