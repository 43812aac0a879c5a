"""Searches give the same answers as brute force, whatever the values, shapes and paths through the code."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import nestvec as nv
import truth
from inputs import KINDS, LARGEST, METRICS, values

ROW_TYPES = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}

kinds = st.sampled_from(list(KINDS))
metrics = pytest.mark.parametrize("metric", METRICS)


def filled(x: np.ndarray, **options: Any) -> nv.NestedIndex:
    index = nv.NestedIndex(x.shape[1], **options)
    index.add(x)
    return index


def check(
    index: nv.NestedIndex, q: np.ndarray, k: int, dims: int | None = None, ids: Any = None, threads: int = 1
) -> None:
    """Scores and ids of a search, to the last bit, for the rows as they are stored."""
    ids = np.arange(index.ntotal) if ids is None else np.asarray(ids)
    distances, found = index.search(q, k, dims=dims, threads=threads)
    wanted, wanted_ids = truth.topk(q[:, :dims], index.reconstruct(ids)[:, :dims], k, index.metric, ids)
    np.testing.assert_array_equal(found, wanted_ids)
    np.testing.assert_array_equal(distances, wanted, strict=True)


@pytest.fixture(scope="module", params=[(m, r) for m in METRICS for r in ROW_TYPES], ids="-".join)
def index(request: pytest.FixtureRequest, wordnet: SimpleNamespace) -> nv.NestedIndex:
    return filled(wordnet.docs, metric=request.param[0], rows=request.param[1])


@metrics
def test_truth(metric: str, wordnet: SimpleNamespace) -> None:
    """The answers that searches are compared with are those of brute force in plain float64."""
    q, x = np.float64(wordnet.queries[:50]), np.float64(wordnet.docs)
    wanted = q @ x.T
    if metric == "l2":
        wanted = -np.square(np.linalg.norm(q, axis=1)[:, None]) + 2 * wanted - np.square(np.linalg.norm(x, axis=1))
    if metric == "cosine":
        wanted /= np.linalg.norm(q, axis=1)[:, None] * np.linalg.norm(x, axis=1)
    np.testing.assert_allclose(truth.scores(q, x, metric), wanted, rtol=0, atol=1e-12)
    _, found = truth.topk(q, x, 10, metric)
    order = np.argsort(-wanted, axis=1)
    assert (abs(np.take_along_axis(wanted, order[:, :10], 1) - np.take_along_axis(wanted, found, 1)) < 1e-12).all()


@pytest.mark.parametrize("dims", [1, 7, 63, 64, 65, 100, 128, 256])
def test_exact(index: nv.NestedIndex, dims: int, wordnet: SimpleNamespace) -> None:
    """Every number of queries takes another path: alone level by level, in batches over planes kept or made."""
    for nq in (1, 2, 5, 20, 40):
        check(index, np.float32(wordnet.queries[:nq]), 10, dims)


@pytest.mark.parametrize("k", [1, 3, 1999, 2000, 2005])
def test_exact_k(index: nv.NestedIndex, k: int, wordnet: SimpleNamespace) -> None:
    for nq, dims, threads in ((1, 128, 1), (5, 128, 2), (20, 100, 2)):
        check(index, np.float32(wordnet.queries[:nq]), k, dims, threads=threads)


@metrics
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_stateless(metric: str, dtype: Any, wordnet: SimpleNamespace) -> None:
    """`prefix_topk` and `prefix_scores` on rows of every type, contiguous or a view of some of their dims."""
    docs = wordnet.docs.astype(dtype)
    for nq, dims, k, rows in ((1, 256, 10, docs), (3, 100, 2001, docs), (20, 64, 10, docs), (17, 33, 5, docs[:, :70])):
        q = np.float32(wordnet.queries[:nq, : rows.shape[1]])
        wanted = truth.topk(q[:, :dims], np.float32(rows[:, :dims]), k, metric)
        for threads in (1, 2):
            for actual, expected in zip(
                nv.prefix_topk(q, rows, k, dims=dims, metric=metric, threads=threads), wanted, strict=True
            ):
                np.testing.assert_array_equal(actual, expected, strict=True)
        scores = truth.scores(q[:, :dims], np.float32(rows[:, :dims]), metric).astype(np.float32)
        actual = nv.prefix_scores(q, rows, dims=dims, metric=metric, threads=2)
        np.testing.assert_array_equal(actual, -scores if metric == "l2" else scores)


def test_backends_agree(backend: Any, wordnet: SimpleNamespace) -> None:
    for metric in METRICS:
        index = filled(wordnet.docs[:700], metric=metric, levels=(20, 64))
        for nq, dims in ((1, 256), (1, 64), (9, 256), (20, 50)):
            check(index, np.float32(wordnet.queries[:nq]), 10, dims)


@metrics
def test_levels_checked(metric: str, backend: Any, rng: np.random.Generator) -> None:
    """One query at a time over enough rows that levels drop some of them, with vectors that all lean one way."""
    x = values(rng, "normal", 20_000, 96) + np.float32(0.5)
    index = filled(x, levels=(16, 48), metric=metric)
    q = x[:8] + values(rng, "normal", 8, 96) / 4
    _, wanted = truth.topk(q, x, 10, metric)
    np.testing.assert_array_equal(np.concatenate([index.search(one, 10)[1] for one in q]), wanted)


@metrics
@settings(max_examples=150)
@given(st.integers(0, 2**32), kinds, kinds, st.sampled_from(list(ROW_TYPES)))
def test_adversarial_rows(metric: str, seed: int, kind: str, query_kind: str, rows: str) -> None:
    rng = np.random.default_rng(seed)
    n, d, nq = int(rng.integers(1, 300)), int(rng.integers(1, 80)), int(rng.choice([1, 2, 5, 20]))
    x = np.clip(values(rng, kind, n, d), -LARGEST[ROW_TYPES[rows]], LARGEST[ROW_TYPES[rows]])
    index = filled(x, metric=metric, rows=rows, levels=sorted(set(rng.integers(1, d + 1, 2).tolist())))
    q, k = values(rng, query_kind, nq, d), int(rng.choice([1, 10, n + 1]))
    for dims in {*index.levels, int(rng.integers(1, d + 1))}:
        check(index, q, k, dims)


@metrics
@settings(max_examples=100)
@given(st.data())
def test_adversarial_values(metric: str, data: st.DataObject) -> None:
    finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
    d = data.draw(st.integers(1, 12))
    x = data.draw(hnp.arrays(np.float32, (data.draw(st.integers(2, 12)), d), elements=finite))
    q = data.draw(hnp.arrays(np.float32, (data.draw(st.integers(1, 2)), d), elements=finite))
    index = filled(x, levels=[(d + 1) // 2], metric=metric)
    check(index, q, data.draw(st.integers(1, 4)), data.draw(st.integers(1, d)))


@metrics
@pytest.mark.parametrize("nq", [1, 40])
@pytest.mark.parametrize("dims", [20, 24])
def test_identical_rows(metric: str, nq: int, dims: int, rng: np.random.Generator) -> None:
    """3,000 equal rows: none can be dropped, candidate buffers fill up, and the smallest ids win."""
    x = np.repeat(values(rng, "normal", 1, 24), 3000, axis=0)
    index = filled(x, levels=[8], metric=metric)
    _, found = index.search(values(rng, "normal", nq, 24), 10, dims=dims)
    np.testing.assert_array_equal(found, np.tile(np.arange(10), (nq, 1)))


@metrics
@pytest.mark.parametrize("nq", [1, 5])
def test_best_last(metric: str, nq: int, rng: np.random.Generator) -> None:
    """Rows in order of ascending score, so that every row is a new best one."""
    direction = values(rng, "normal", 1, 32)
    rising = np.linspace(0.1, 1, 5000, dtype=np.float32)[:, None]
    x = direction * rising + (metric == "cosine") * (1 - rising)
    check(filled(x, levels=[16], metric=metric), np.repeat(direction, nq, axis=0), 10)


@metrics
def test_zeros(metric: str, rng: np.random.Generator) -> None:
    """Zero rows, zero prefixes and zero queries have scores too: cosine 0 by definition."""
    x = values(rng, "normal", 300, 40)
    x[::3] = 0
    x[1::3, :20] = 0
    q = values(rng, "normal", 20, 40)
    q[::2] = 0
    q[1::4, :20] = 0
    index = filled(x, levels=[10, 20], metric=metric)
    for dims in (10, 15, 20, 40):
        check(index, q[:1], 7, dims)
        check(index, q[1:2], 250, dims)
        check(index, q, 7, dims)


@metrics
def test_many_adds(metric: str, rng: np.random.Generator) -> None:
    """Odd sizes, ids given now and then: segments of all kinds, one answer."""
    x, index, ids = values(rng, "normal", 6000, 20), nv.NestedIndex(20, levels=[8], metric=metric), np.empty(0, int)
    for at, size in enumerate((1, 63, 64, 65, 0, 1000, 7, 1200, 129, 31, 2500)):
        given = None if at % 3 else rng.permutation(10 * size + 1)[:size] + (ids.max(initial=-1) + 1)
        index.add(x[len(ids) : len(ids) + size], given)
        ids = np.concatenate([ids, np.arange(size) + ids.max(initial=-1) + 1 if given is None else given])
        assert index.ntotal == len(index) == len(ids)
    np.testing.assert_array_equal(index.reconstruct(ids), x[: len(ids)])
    for nq in (1, 5, 40):
        for dims in (8, 13, 20):
            check(index, values(rng, "normal", nq, 20), 10, dims, ids)


def test_ids_order_ties(rng: np.random.Generator) -> None:
    """Ties go to the smaller id, not to the row added first."""
    x, ids = values(rng, "ties", 500, 6), rng.permutation(500)
    index = nv.NestedIndex(6, levels=[3], metric="l2")
    index.add(x[:200], ids[:200])
    index.add(x[200:], ids[200:])
    for nq in (1, 4, 20):
        for dims in (2, 3, 6):
            check(index, values(rng, "ties", nq, 6), 60, dims, ids)


@pytest.mark.parametrize(("dims", "recall"), [(256, 0.790), (128, 0.730), (64, 0.610)])
def test_known_recall(dims: int, recall: float, wordnet: SimpleNamespace) -> None:
    """The share of queries whose own row is among ten results, as known for this data."""
    _, found = filled(wordnet.docs, metric="cosine").search(wordnet.queries, 10, dims=dims)
    assert (found == wordnet.rel[:, None]).any(axis=1).mean() == pytest.approx(recall, abs=1e-9)
