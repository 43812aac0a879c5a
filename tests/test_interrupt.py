"""Calls that end early: by a timeout, or by Ctrl-C anywhere between two kernel calls."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from fractions import Fraction
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
