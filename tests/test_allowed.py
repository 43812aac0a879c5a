"""Searches among some rows or documents: what brute force over those alone finds, and nothing of the others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import nestvec as nv
import truth
from inputs import METRICS, values
from nestvec import Stage, arrays, nearest, planes, stages, tokens
from nestvec.bags import BagQueries
from nestvec.bits import merged
from nestvec.nearest import AND, XOR, BitPart, BitTask, query_words
from nestvec.planes import BLOCK
from nestvec.search import as_results
from test_maxsim import bags_of
from test_plans import segments

D, N = 40, 2200  # rows in three segments
CODES = ("b1", "i4", "i8")
SHARES = ("none", "one", "few", "run", "half", "all")
thread_counts = pytest.mark.parametrize("threads", [1, 2])


def chosen(rng: np.random.Generator, share: str, n: int) -> np.ndarray:
    """Which of n rows are allowed."""
    some = np.full(n, share == "all")
    if share == "one":
        some[rng.integers(0, n)] = True
    elif share == "run":  # all rows of a few blocks
        some[n // 3 : n // 3 + n // 10] = True
    elif share in ("few", "half"):
        some = rng.random(n) < (0.01 if share == "few" else 0.5)
    return some


def choices(rng: np.random.Generator, n: int) -> list[np.ndarray]:
    """Sets (m, n) for as many queries as there are shares: one for all of them, for each share, and one for each."""
    sets = np.stack([chosen(rng, share, n) for share in SHARES])
    return [*(own[None] for own in sets), sets]


def packed(allowed: np.ndarray) -> np.ndarray:
    """Words of sets (m, n) bool, with ones behind the last row."""
    ones = np.ones((len(allowed), -allowed.shape[1] % 64 + 64), bool)
    return np.packbits(np.concatenate([allowed, ones], axis=1), axis=1, bitorder="little").view(np.uint64)


def split(allowed: np.ndarray, counts: list[int]) -> list[np.ndarray]:
    """Sets of each segment, as words."""
    return [packed(own) for own in np.split(allowed, np.cumsum(counts)[:-1], axis=1)]


# Plans


@pytest.fixture
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """How the first stage finds its rows."""
    if request.param != "as chosen":
        monkeypatch.setattr(stages, "LISTED", dict.fromkeys(CODES, 65 if request.param == "listed" else 0))
        monkeypatch.setattr(stages, "SAMPLE_FROM", 200)
        monkeypatch.setattr(stages, "SAMPLE_KEEP", 1 if request.param == "sampled" else 2**62)
        monkeypatch.setattr(stages, "ROOM", BLOCK)
    return request.param


ways = pytest.mark.parametrize("way", ["as chosen", "listed", "sampled", "cut"], indirect=True)


def index_of(rng: np.random.Generator, metric: str, kind: str = "normal") -> tuple[nv.NestedIndex, np.ndarray]:
    x = values(rng, kind, N, D)
    return segments(nv.NestedIndex(D, (20,), metric, codes=CODES), x, rng), x


def run(
    index: nv.NestedIndex, q: np.ndarray, k: int, plan: list[Stage], threads: int, allowed: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, Any]:
    contents, task, parts, _ = index._ready(q, k, None, None)
    steps = index._steps(plan, task.k, task.dims, contents.ntotal)
    if allowed is not None:
        sets = split(allowed, [part.last for part in parts])
        parts = [replace(part, allowed=own) for part, own in zip(parts, sets, strict=True)]
    done = stages.run_plan(parts, steps, task, contents.frame, threads)
    return *as_results(done.scores, done.ids, k, task.metric), done.report()


def ids_of(index: nv.NestedIndex) -> np.ndarray:
    """By position."""
    _, _, parts, _ = index._ready(np.zeros(D), 1, None, None)
    stored = [(part.segment, part.last) for part in parts]
    return np.concatenate([some.ids[:n] if some.ids.size else some.base + np.arange(n) for some, n in stored])


def best_estimates(index: nv.NestedIndex, q: np.ndarray, code: str, allowed: np.ndarray, keep: int) -> list[np.ndarray]:
    """Positions of the rows allowed to each query that a stage keeps, by a plan over all rows; ties by position."""
    ids = ids_of(index)
    scores, found, _ = run(index, q, N, [Stage(code)], 1)
    values_of = np.empty(scores.shape)
    np.put_along_axis(values_of, np.argsort(ids)[np.searchsorted(np.sort(ids), found)], scores, axis=1)
    order = np.argsort(values_of if index.metric == "l2" else -values_of, axis=1, kind="stable")
    sets = np.broadcast_to(allowed, (len(q), N))
    return [row[own[row]][:keep] for row, own in zip(order, sets, strict=True)]


@ways
@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("metric", METRICS)
def test_first_stage(metric: str, code: str, way: str, backend: Any, rng: np.random.Generator) -> None:
    """The stage keeps the best estimates of the rows allowed; the next one ranks them as if there were no others."""
    index, x = index_of(rng, metric)
    q, ids = values(rng, "normal", len(SHARES), D), ids_of(index)
    for number, allowed in enumerate(choices(rng, N)):
        for k, keep in ((1, 30), (10, 10), (50, 700)):
            wanted = best_estimates(index, q, code, allowed, keep)
            plan = [Stage(code, keep=keep), Stage("raw")]
            threads = 1 + number % 2
            scores, found, report = run(index, q, k, plan, threads, allowed)
            for i, rows in enumerate(wanted):
                expected = truth.topk(q[i : i + 1], x[rows], k, metric, ids[rows])
                np.testing.assert_array_equal(scores[i], expected[0][0], strict=True)
                np.testing.assert_array_equal(found[i], expected[1][0], strict=True)
            if threads == 1:  # as `explain` runs it
                assert [stage.rows for stage in report.stages] == [
                    np.broadcast_to(allowed, (len(q), N)).sum() / len(q),
                    sum(map(len, wanted)) / len(q),
                ]


@ways
@thread_counts
@pytest.mark.parametrize("code", CODES)
def test_only_stage(code: str, threads: int, way: str, rng: np.random.Generator) -> None:
    """Estimates are those of a search without sets, also with more results asked for than rows allowed."""
    index, _ = index_of(rng, "ip", "duplicates")
    q = values(rng, "normal", len(SHARES), D)
    everything = run(index, q, N, [Stage(code)], 1)
    for allowed in choices(rng, N):
        scores, found, _ = run(index, q, N, [Stage(code)], threads, allowed)
        sets = np.broadcast_to(allowed, (len(q), N))
        for i, own in enumerate(sets):
            kept = np.isin(everything[1][i], ids_of(index)[own])
            count = int(own.sum())
            np.testing.assert_array_equal(found[i, :count], everything[1][i, kept])
            np.testing.assert_array_equal(scores[i, :count], everything[0][i, kept])
            assert (found[i, count:] == -1).all()
            assert (scores[i, count:] == -np.inf).all()


@ways
def test_parts_with_and_without_sets(way: str, rng: np.random.Generator) -> None:
    """A segment without a set has all of its rows."""
    index, x = index_of(rng, "ip")
    q, allowed, ids = values(rng, "normal", 3, D), np.ones((1, N), bool), ids_of(index)
    allowed[0, :700] = chosen(rng, "few", 700)
    contents, task, parts, _ = index._ready(q, 10, None, None)
    parts[0] = replace(parts[0], last=700, allowed=packed(allowed[:, :700]))
    steps = index._steps([Stage("b1", keep=N), Stage("raw")], task.k, task.dims, contents.ntotal)
    done = stages.run_plan(parts, steps, task, contents.frame, 2)
    scores, found = as_results(done.scores, done.ids, 10, "ip")
    expected = truth.topk(q, x[allowed[0]], 10, "ip", ids[allowed[0]])
    np.testing.assert_array_equal(found, expected[1])
    np.testing.assert_array_equal(scores, expected[0])


def test_rows_that_a_sample_misses(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """Rows allowed in the blocks that a sample looks at, and only there, or everywhere else."""
    monkeypatch.setattr(stages, "SAMPLE_FROM", 64)
    monkeypatch.setattr(stages, "SAMPLE_SHARE", 4)
    monkeypatch.setattr(stages, "SAMPLE_KEEP", 1)
    x, q = values(rng, "normal", 64 * 60, D), values(rng, "normal", 1, D)
    index = nv.NestedIndex(D, codes=("b1",))
    index.add(x)
    for every in (2, 4, 8, 16):
        for inside in (True, False):
            allowed = (np.arange(len(x)) // 64 % every == 0) == inside
            found = run(index, q, 10, [Stage("b1", keep=40), Stage("raw")], 1, allowed[None])[1]
            monkeypatch.setattr(stages, "SAMPLE_FROM", 2**40)
            wanted = run(index, q, 10, [Stage("b1", keep=40), Stage("raw")], 1, allowed[None])[1]
            monkeypatch.setattr(stages, "SAMPLE_FROM", 64)
            np.testing.assert_array_equal(found, wanted)
            assert allowed[found].all()


@pytest.mark.parametrize("dims", [D, 20, 33])
@thread_counts
def test_exact_first_stage(threads: int, dims: int, rng: np.random.Generator) -> None:
    """Rows themselves as the first stage: more of them kept than allowed, too."""
    index, x = index_of(rng, "cosine")
    q, ids = values(rng, "normal", len(SHARES), D), ids_of(index)
    for allowed in choices(rng, N):
        for plan in ([Stage("raw", dims=dims)], [Stage("raw", dims=dims, keep=60), Stage("raw", dims=dims)]):
            scores, found, _ = run(index, q, 20, plan, threads, allowed)
            for i, own in enumerate(np.broadcast_to(allowed, (len(q), N))):
                expected = truth.topk(q[i : i + 1, :dims], x[own, :dims], 20, "cosine", ids[own])
                np.testing.assert_array_equal(scores[i], expected[0][0], strict=True)
                np.testing.assert_array_equal(found[i], expected[1][0], strict=True)


# Binary codes


@pytest.mark.parametrize("what", [XOR, AND])
@pytest.mark.parametrize("copied", [None, False, True])
@pytest.mark.parametrize("named", [False, True], ids=["", "ids"])
def test_nearest(
    named: bool, copied: bool | None, what: int, backend: Any, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """Distances and ids of brute force over the rows allowed, copied or where they lie; many of them tie."""
    if copied is not None:
        monkeypatch.setattr(nearest, "COPY", -(10**9) if copied else 10**9)
        monkeypatch.setattr(nearest, "COPIED", 0)
    bits, levels = 150, (64, 100)
    x, q = (rng.random((n, bits)) < 0.1 for n in (N, len(SHARES)))
    index = nv.BinaryIndex(bits, levels)
    ids = rng.permutation(10**6)[:N] if named else np.arange(N)
    for some in np.split(np.arange(N), [700, 1600]):
        index.add(np.packbits(x[some], axis=1), ids[some] if named else None)
    for used in (bits, 70, 64):
        queries, parts = as_scanned(index, np.packbits(q, axis=1), used)
        either = (q[:, None, :used] != x[:, :used]) if what == XOR else ~(q[:, None, :used] & x[:, :used])
        distances = either.sum(axis=2)
        for number, allowed in enumerate(choices(rng, N)):
            sets = split(allowed, [part.last for part in parts])
            own = [part._replace(allowed=some) for part, some in zip(parts, sets, strict=True)]
            for k in (1, 10, N):
                found = merged([nearest.nearest(own, BitTask(queries, k, used, what), 1 + number % 2)], len(q), k)
                check_nearest(found, distances, np.broadcast_to(allowed, distances.shape), ids, k)
        one = [part._replace(allowed=some[-1:]) for part, some in zip(parts, sets, strict=True)]
        found = merged([nearest.nearest(one, BitTask(queries[:1], 10, used, what), 2)], 1, 10)
        check_nearest(found, distances[:1], allowed[-1:], ids, 10)


def as_scanned(index: nv.BinaryIndex, q: np.ndarray, bits: int) -> tuple[np.ndarray, list[BitPart]]:
    """Words of queries and the parts of an index."""
    codes, located, _ = index._ready(q, None)
    return query_words(codes, index._bounds, bits), [part for _, part in located]


def check_nearest(found: Any, distances: np.ndarray, allowed: np.ndarray, ids: np.ndarray, k: int) -> None:
    for i, own in enumerate(allowed):
        rows = np.flatnonzero(own)
        order = rows[np.lexsort((ids[rows], distances[i, rows]))][:k]
        missing = (0, k - len(order))
        wanted = np.pad(distances[i, order], missing, constant_values=np.iinfo(np.int32).max)
        np.testing.assert_array_equal(found[0][i], wanted)
        np.testing.assert_array_equal(found[1][i], np.pad(ids[order], missing, constant_values=-1))


@thread_counts
def test_nearest_in_batches(threads: int, rng: np.random.Generator) -> None:
    """More queries than scan together, each with rows of its own."""
    bits, count = 64, 600
    x, q = (rng.integers(0, 256, (n, bits // 8), dtype=np.uint8) for n in (300, count))
    index = nv.BinaryIndex(bits)
    index.add(x)
    queries, parts = as_scanned(index, q, bits)
    allowed = rng.random((count, 300)) < rng.choice([0.01, 0.5], (count, 1))
    sets = split(allowed, [part.last for part in parts])
    parts = [part._replace(allowed=some) for part, some in zip(parts, sets, strict=True)]
    found = nearest.nearest(parts, BitTask(queries, 5, bits, XOR), threads)
    check_nearest(found, nv.hamming(q, x), allowed, np.arange(300), 5)


def test_nearest_of_nothing(rng: np.random.Generator) -> None:
    words = planes.Words.allocate(64, np.asarray([64]))
    words.words[:] = 0
    part = BitPart(words, 0, 10, np.empty(0, np.int64), 0, packed(np.zeros((1, 10), bool)))
    distances, ids = nearest.nearest([part, part], BitTask(np.zeros((3, 1), np.uint64), 2, 64, XOR), 2)
    assert distances.shape == ids.shape == (3, 0)


# Documents


@thread_counts
@pytest.mark.parametrize("kept", ["f32", "i8"])
def test_documents(
    kept: str, threads: int, backend: Any, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """Scores of brute force over the documents allowed; no token of another is read, nor is one without tokens."""
    for name in ("FEWEST_DOCS", "FEWEST_TOKENS", "GROWTH"):
        monkeypatch.setattr(tokens, name, 0)
    n, d, shares = 300, 12, len(SHARES)
    docs = bags_of(rng, "normal", rng.choice([0, 1, 3, 20], n), d)
    q = bags_of(rng, "normal", [3, 17, 40, 1, 2, 5] * 6, d)
    store = tokens.Store()
    for first, last in ((0, 100), (100, 101), (101, n)):
        store = tokens.extended(store, arrays.ragged(docs[first:last], "docs"), kept, 1)
    assert len(store.segments) > 1
    coded = store.bags(range(n))
    scored = [
        truth.maxsim(q, [some.tokens for some in coded], [some.scales for some in coded] if kept == "i8" else None)
    ]
    offsets = np.cumsum([0, *map(len, q)])
    queries, ids = BagQueries(np.concatenate(q).astype(np.float64), offsets), rng.permutation(n)
    for allowed in choices(rng, n):
        count = shares * (1 if rng.random() < 0.5 else 6)  # a few queries, or groups of them
        own = allowed if len(allowed) == 1 else np.tile(allowed, (count // shares, 1))
        some = np.where(np.broadcast_to(own, (count, n)), scored[0][:count], -np.inf)
        for k in (1, 7, n):
            found = tokens.exact_topk(store, queries.some(0, count), k, threads, ids, own)
            for (scores, named), best_scores, best_ids in zip(found, *truth.best(some, k, ids), strict=True):
                np.testing.assert_array_equal(named, best_ids[best_ids >= 0])
                np.testing.assert_array_equal(scores.astype(np.float32), best_scores[best_ids >= 0])


def test_no_other_document_is_read(rng: np.random.Generator) -> None:
    docs, q = bags_of(rng, "normal", [5] * 50, 8), bags_of(rng, "normal", [3], 8)
    store = tokens.extended(tokens.Store(), arrays.ragged(docs, "docs"), "f32", 1)
    queries, ids = BagQueries(q[0].astype(np.float64), np.asarray([0, 3])), np.arange(50)
    store.segments[0].rows[5:] = np.nan  # reading one of these tokens is an error
    with pytest.raises(ValueError, match="nan"):
        tokens.exact_topk(store, queries, 3, 1, ids)
    [(_, found)] = tokens.exact_topk(store, queries, 3, 1, ids, ids[None] < 1)
    assert found.tolist() == [0]


# Words


@pytest.mark.parametrize("table", [False, True])
@given(st.integers(0, 2**32), st.integers(0, 5), st.integers(1, 300), st.sampled_from(SHARES))
def test_words(table: bool, seed: int, first: int, count: int, share: str) -> None:
    rng = np.random.default_rng(seed)
    first, last = 64 * first, 64 * first + count
    some = chosen(rng, share, last)
    words, wanted = packed(some[None]), first + np.flatnonzero(some[first:])
    with pytest.MonkeyPatch.context() as patch:
        if table:
            patch.delattr(np, "bitwise_count", raising=False)
        assert planes.count_ones(words).tolist() == [some.sum() + 64 + -last % 64]
        assert planes.spread(words, first, last) == (len(wanted), len(np.unique(wanted // 64)))
    np.testing.assert_array_equal(planes.allowed_rows(words, first, last), wanted)
    assert planes.spread(planes.EVERY, first, last) == (count, -(-count // 64))
    np.testing.assert_array_equal(planes.allowed_rows(planes.EVERY, first, last), np.arange(first, last))
