"""`MultiVectorIndex`: the documents of float64 brute force, all or of a shortlist; an `add` happens wholly or not."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nestvec as nv
import truth
from inputs import KINDS, LARGEST, values
from nestvec import Stage, arrays, multivector, tokens
from nestvec.bags import BagQueries
from test_maxsim import bags_of, joined, rounded, split

TYPES = ("f16", "f32", "bf16", "i8")
LENGTHS = (3, 0, 1, 129, 2, 0, 40, 300, 16, 5, 0)
DIM = 12

Encoder = nv.FixedDimensionalEncoder
Bags = list[np.ndarray]
kinds = st.sampled_from(list(KINDS))
types = pytest.mark.parametrize("kept", TYPES)


def encoder(dim: int = DIM, **options: Any) -> nv.FixedDimensionalEncoder:
    return Encoder(dim, **{"num_repetitions": 5, "num_simhash_projections": 2, **options})


def filled(docs: Any, ids: Any = None, *, like: nv.FixedDimensionalEncoder | None = None, **options: Any) -> Any:
    index = nv.MultiVectorIndex(like or encoder(), **options)
    index.add(docs, ids)
    return index


def truth_of(index: nv.MultiVectorIndex, q: Bags) -> np.ndarray:
    """Scores (nq, n) float64 of all documents as they are stored, by position."""
    names = index._contents.names
    kept = index.reconstruct(range(len(index)) if names is None else names.tolist())
    if index.tokens != "i8":
        return truth.maxsim(q, kept)
    coded = index._contents.store.bags(range(len(index)))
    for one, some in zip(kept, coded, strict=True):
        np.testing.assert_array_equal(one, some.tokens * some.scales[:, None])
    return truth.maxsim(q, [some.tokens for some in coded], [some.scales for some in coded])


def equal(actual: Any, wanted: Any) -> None:
    for some, others in zip(actual, wanted, strict=True):
        np.testing.assert_array_equal(some, others, strict=True)


def check(index: nv.MultiVectorIndex, q: Bags, k: int, ids: Any = None, **search: Any) -> None:
    """Scores and ids to the last bit; by default of exact search."""
    wanted = truth.best(truth_of(index, q), k, ids)
    equal(index.search(q, k, **(search or {"exact": True})), wanted)


def without_encodings(index: nv.MultiVectorIndex, docs: Bags) -> None:
    """Add documents whose encodings would be beyond float32, and that exact search does not need."""
    own = index.encoder
    index.add(docs, fdes=np.zeros((len(docs), own.fde_dim)), fingerprint=own.fingerprint())


@pytest.fixture(scope="module")
def colbert() -> SimpleNamespace:
    """400 documents and 80 queries of a late interaction model, 64 dims in float16; `rel` is the document asked for."""
    with np.load(Path(__file__).parent / "data" / "tiny_mv_colbert.npz") as file:
        docs, queries = ((file[f"{name}_tokens"], file[f"{name}_offsets"]) for name in ("doc", "query"))
        return SimpleNamespace(docs=docs, queries=queries, rel=file["rel"])


@types
@pytest.mark.parametrize("dim", [1, 7, 16, 65, 100])
def test_exact(kept: str, dim: int, backend: Any, rng: np.random.Generator) -> None:
    docs, q = bags_of(rng, "normal", LENGTHS, dim), bags_of(rng, "normal", (1, 17, 33), dim)
    index = filled(docs, tokens=kept, like=encoder(dim))
    for k in (1, 3, 11, 20):
        check(index, q, k)
        check(index, q[:1], k, exact=True, threads=2)


@types
def test_many_documents(kept: str, rng: np.random.Generator) -> None:
    """So many that bounds spare most of them, documents with equal scores among them."""
    docs = bags_of(rng, "normal", rng.integers(0, 9, 1500), DIM)
    docs[700:800] = docs[:100]
    index = filled(docs, tokens=kept)
    q = [np.concatenate([docs[at], docs[at + 1]])[:6] + np.float32(0.1) for at in (10, 60, 900)]
    for k in (1, 10, 200, 1500, 1600):
        check(index, q, k)


@settings(max_examples=120)
@given(st.integers(0, 2**32), kinds, kinds, st.sampled_from(TYPES))
def test_adversarial_values(seed: int, kind: str, query_kind: str, kept: str) -> None:
    """Values of every kind, within the type they are kept as; twice more documents than are scored at once."""
    rng = np.random.default_rng(seed)
    d, n, k = int(rng.integers(1, 40)), int(rng.integers(1, 90)), int(rng.choice([1, 2, 10, 100]))
    lengths = rng.choice([0, 1, 2, 5, 17], n)
    largest = LARGEST.get(kept, 3.4e38)
    docs = split(np.clip(values(rng, kind, int(lengths.sum()), d), -largest, largest), lengths)
    index = nv.MultiVectorIndex(encoder(d, num_repetitions=1), kept)
    without_encodings(index, docs[: n // 2])
    without_encodings(index, docs[n // 2 :])
    check(index, bags_of(rng, query_kind, (3, 18), d), k)


def check_bounds(docs: Bags, q: Bags, kept: str, message: str = "") -> None:
    """No document's bound is below its score."""
    store = tokens.extended(tokens.Store(), arrays.ragged(docs, "docs"), kept, 1)
    x, offsets = joined(q)
    queries = BagQueries(np.float64(x), offsets)
    upper = tokens._upper_bounds(store, queries, 1).astype(np.float64)
    exact = tokens.score_listed(store, queries, np.arange(len(docs)), 1)
    assert (upper >= exact).all(), (message, upper - exact)


@settings(max_examples=60)
@given(st.integers(0, 2**32), kinds, kinds, st.sampled_from(TYPES), st.integers(1, 90))
def test_bounds(backend: Any, seed: int, kind: str, query_kind: str, kept: str, d: int) -> None:
    rng = np.random.default_rng(seed)
    largest = LARGEST.get(kept, 3.4e38)
    docs = [np.clip(x, -largest, largest) for x in bags_of(rng, kind, rng.choice([0, 1, 2, 17], 20), d)]
    check_bounds(docs, bags_of(rng, query_kind, (1, 2, 17, 33), d), kept)


@pytest.mark.parametrize("kept", ["f32", "i8"])
def test_bounds_where_float32_ends(kept: str, backend: Any) -> None:
    """Norms beyond it, of products well inside; norms of queries that are denormal."""
    long, signs = np.full((1, 1024), 3.4e38, np.float32), np.tile([100.0, -100.0], 512)
    for size in (1e-43, 1e-40, 1e-38):
        for shift in (0.0, 0.3, 0.49):
            check_bounds([long, -long], [np.float32((signs + shift) * size)[None]], kept, f"{size}, {shift}")
    uneven = np.array([[127, 10.49, 10.49, 0]]) * 1e36
    for query in ([0, 1, 1, 0], [1, 1, 1, 0], [0, 3, 2, 5], [0, 120, 127, 0]):
        check_bounds([np.float32(uneven)], [np.float32([query]) * np.float32(2.0**-149)], kept, f"{query}")


def test_bounds_are_tight(colbert: SimpleNamespace) -> None:
    """Few documents have a bound above the tenth best score; else a search would be exact and slow."""
    store = tokens.extended(tokens.Store(), arrays.ragged(colbert.docs, "docs"), "f16", 1)
    queries = BagQueries(np.float64(colbert.queries[0]), colbert.queries[1])
    tenth = np.sort(tokens.score_listed(store, queries, np.arange(400), 1), axis=1)[:, -10]
    assert (tokens._upper_bounds(store, queries, 1) >= tenth[:, None]).mean() < 0.05


@pytest.mark.parametrize("named", ["positions", "integers", "strings"])
@types
def test_many_adds(kept: str, named: str, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """Sizes that fill the room of a segment, or do not fit what is left of it."""
    monkeypatch.setattr(tokens, "FEWEST_DOCS", 8)
    monkeypatch.setattr(tokens, "FEWEST_TOKENS", 60)
    monkeypatch.setattr(tokens, "WRITE_VALUES", 16 * DIM)
    index, docs, q = nv.MultiVectorIndex(encoder(), kept), Bags(), bags_of(rng, "normal", (2, 17), DIM)
    for size in (1, 3, 0, 4, 1, 20, 2, 7, 1, 1, 30):
        new = bags_of(rng, "normal", rng.integers(0, 20, size), DIM)
        given = np.arange(len(docs), len(docs) + size)
        ids: Any = {"positions": None, "integers": (200 - given).tolist(), "strings": [f"d{i}" for i in given]}[named]
        index.add(new, ids, threads=2)
        docs += new
        assert len(index) == index.ntotal == len(docs)
        found = truth_of(index, q)
        numbers = 200 - np.arange(len(docs)) if named == "integers" else None
        for search in ({"exact": True}, {"candidates": 90}):
            D, I = index.search(q, 12, **search)
            wanted, wanted_ids = truth.best(found, 12, numbers)
            np.testing.assert_array_equal(D, wanted, strict=True)
            if named == "strings":
                assert I.dtype == object
                assert I.tolist() == [[None if i < 0 else f"d{i}" for i in row] for row in wanted_ids]
            else:
                np.testing.assert_array_equal(I, wanted_ids, strict=True)
    assert len(index._contents.store.segments) > 3
    names = index._contents.names
    whole = index.reconstruct(np.arange(len(docs)) if names is None else names)
    for one, doc in zip(whole, docs, strict=True):
        if kept == "i8":
            assert (abs(one - doc) <= abs(doc).max(axis=1, keepdims=True, initial=0) / 253).all()
        else:
            dtype = {"f16": np.float16, "f32": np.float32, "bf16": ml_dtypes.bfloat16}[kept]
            np.testing.assert_array_equal(one, doc.astype(dtype).astype(np.float32), strict=True)


@pytest.mark.parametrize("search", [{"exact": True}, {"candidates": 300}], ids=str)
def test_ids_order_ties(search: dict[str, Any], rng: np.random.Generator) -> None:
    """Ties go to the smaller id, not to the document added first; of strings to that one."""
    docs, q = bags_of(rng, "ties", rng.integers(0, 4, 300), 4), bags_of(rng, "ties", (1, 3), 4)
    ids = rng.permutation(5000)[:300]
    index = nv.MultiVectorIndex(encoder(4), "i8")
    index.add(docs[:120], ids[:120])
    index.add(docs[120:], ids[120:].tolist())
    for k in (5, 60, 300):
        check(index, q, k, ids, **search)
    named = filled(docs, [str(one) for one in ids], like=encoder(4))
    _, positions = truth.best(truth_of(named, q), 60)
    assert named.search(q, 60, **search)[1].tolist() == [[str(ids[at]) for at in row] for row in positions]


def test_ids_given_later(rng: np.random.Generator) -> None:
    """Positions until ids are given, then from one above the largest."""
    docs = bags_of(rng, "normal", (2, 3, 1, 4, 2), DIM)
    index = filled(docs[:2])
    index.add(docs[2:3], [7])
    index.add(docs[3:])
    check(index, [docs[3]], 6, [0, 1, 7, 8, 9])
    for one, doc in zip(index.reconstruct([9, 0, 7]), (docs[4], docs[0], docs[2]), strict=True):
        np.testing.assert_array_equal(one, doc.astype(np.float16).astype(np.float32))
    for missing in (2, -1, 10, "a"):
        with pytest.raises(KeyError, match="is not in the index"):
            index.reconstruct(missing)


@pytest.mark.parametrize("ids", [None, [5, 3], ["a", "b"]], ids=str)
def test_adding_nothing(ids: Any, rng: np.random.Generator) -> None:
    """Neither no documents nor documents without tokens change what is found, whatever ids are."""
    docs = bags_of(rng, "normal", (2, 3), DIM)
    index, wanted = filled(docs, ids), filled(docs, ids).search(docs, 4)
    for more in ({}, {"ids": []}, {"ids": np.empty(0, np.int64)}):
        for nothing in ([], (np.empty((0, DIM)), [0]), np.empty((0, 3, DIM))):
            index.add(nothing, **more)
            equal(index.search(docs, 4), wanted)
    index.add([np.empty((0, DIM))], ids and ["c" if ids[0] == "a" else 9])
    equal(index.search(docs, 4), wanted)
    early = nv.MultiVectorIndex(encoder())
    early.add([], ids=[])
    early.add(docs, ids)
    equal(early.search(docs, 4), wanted)
    for missing in (2, -1, "d"):
        with pytest.raises(KeyError):
            early.reconstruct(missing)


ENCODERS = {
    "tokens": encoder(),
    "sketch": encoder(projection_dim=5),
    "final": encoder(final_projection_dim=64),
    "one": encoder(num_repetitions=1, num_simhash_projections=0),
}
CODES = [("b1",), ("i4",), ("i8",), ("b1", "i8"), ("b1", "i4", "i8")]
encoders = pytest.mark.parametrize("name", ENCODERS)
codings = pytest.mark.parametrize("codes", CODES, ids="-".join)


@encoders
@codings
def test_all_documents_in_the_shortlist(name: str, codes: Any, rng: np.random.Generator) -> None:
    docs, q = bags_of(rng, "normal", LENGTHS * 9, DIM), bags_of(rng, "normal", (1, 17), DIM)
    index = filled(docs, like=ENCODERS[name], codes=codes)
    plan = [Stage(codes[0], keep=200), Stage(codes[-1])]
    for candidates in (99, 100, 2**33):
        check(index, q, 7, candidates=candidates)
    check(index, q, 120, candidates=150, plan=plan)
    check(index, q, 7, exact=False, threads=2)
    check(index, q, 7)


@encoders
@codings
def test_shortlists(name: str, codes: Any, rng: np.random.Generator) -> None:
    """They are those of the encodings in an index of their own, about as inner products rank them."""
    own = ENCODERS[name]
    docs, q = bags_of(rng, "normal", rng.integers(1, 30, 150), DIM), bags_of(rng, "normal", (4, 9), DIM)
    index = filled(docs, like=own, codes=codes)
    fdes, wanted = own.encode_queries(q), own.encode_documents(docs)
    ends = [own.fde_dim] if own.final_projection_dim else [r * own.repetition_dim for r in (1, 2, 4, 5)]
    ends = [end for end in ends if end <= own.fde_dim]
    alone = nv.NestedIndex(own.fde_dim, ends, "ip", None, codes=codes)
    alone.add(wanted)
    for c, plan in ((20, [Stage(codes[-1])]), (20, [Stage(codes[0], dims=ends[0], keep=60), Stage(codes[-1])])):
        D, I = index.shortlist(q, c, plan=plan)
        equal((D, I), alone.search(fdes, c, plan=plan))
        found = index.search(q, 5, candidates=c, plan=plan)
        scores = truth_of(index, q)
        only = np.full_like(scores, -np.inf)
        np.put_along_axis(only, I, np.take_along_axis(scores, I, 1), 1)
        equal(found, truth.best(only, 5))
    D, I = index.shortlist(q, 160)
    assert (np.sort(I[:, :150], axis=1) == np.arange(150)).all()
    assert (I[:, 150:] == -1).all()
    assert (D[:, 150:] == -np.inf).all()
    exact = np.take_along_axis(np.float64(fdes) @ np.float64(wanted).T, I[:, :150], 1)
    spread = np.linalg.norm(fdes, axis=1)[:, None] * np.linalg.norm(wanted, axis=1).max()
    assert (abs(D[:, :150] - exact) < {"b1": 0.5, "i4": 0.1, "i8": 0.01}[codes[-1]] * spread).all()


@pytest.mark.parametrize(("levels", "ends"), [(None, [1, 2, 4, 5]), ([3], [3, 5]), ([1, 5], [1, 5]), ([], [5])])
def test_levels_are_repetitions(levels: Any, ends: list[int], rng: np.random.Generator) -> None:
    """A stage that stops after r repetitions ranks as an encoder of r repetitions does."""
    docs, q = bags_of(rng, "normal", rng.integers(1, 9, 80), DIM), bags_of(rng, "normal", (4, 9), DIM)
    index = filled(docs, codes=("i8",), levels=levels)
    assert index._contents.encodings.levels == tuple(end * index.encoder.repetition_dim for end in ends)
    for r in ends:
        D, I = index.shortlist(q, 80, plan=[Stage("i8", dims=r * index.encoder.repetition_dim)])
        short = encoder(num_repetitions=r)
        wanted = np.float64(short.encode_queries(q)) @ np.float64(short.encode_documents(docs)).T
        np.testing.assert_allclose(D, np.take_along_axis(wanted, I, 1), atol=0.02 * abs(wanted).max())
        check(index, q, 9, candidates=80, plan=[Stage("i8", dims=r * index.encoder.repetition_dim)])


def test_default_candidates(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """All documents where they are few; else 25 for each result, at least 200."""
    docs, q = bags_of(rng, "normal", rng.integers(1, 5, 900), DIM), bags_of(rng, "normal", (4, 9), DIM)
    index = filled(docs)
    for k in (1, 20):
        equal(index.search(q, k), index.search(q, k, exact=True))
    with monkeypatch.context() as patch:
        patch.setattr(multivector, "EXACT_BYTES", 100)
        for k, c in ((1, 200), (20, 500)):
            equal(index.search(q, k), index.search(q, k, candidates=c))
            equal(index.search(q, k, exact=False), index.search(q, k, candidates=c))
            equal(index.search(q, k, exact=True), truth.best(truth_of(index, q), k))
    assert (index.search(q, 20, candidates=20)[0] != index.search(q, 20)[0]).any()


@types
def test_explain(kept: str, rng: np.random.Generator) -> None:
    """Tokens and documents of exact search; stages over encodings and candidates of a shortlist; filters, removals."""
    lengths = [at % 5 for at in range(600)]
    docs = [rng.standard_normal((n, DIM)).astype(np.float32) for n in lengths]
    index, q = filled(docs[:250], tokens=kept, codes=("b1", "i8")), [docs[3], docs[4], docs[8]] * 4
    index.add(docs[250:])
    size = {"f16": 2 * DIM, "bf16": 2 * DIM, "f32": 4 * DIM, "i8": DIM + 4}[kept]
    bounds, scored = index.explain(q, 5, exact=True).stages
    assert (bounds.code, bounds.dims, bounds.rows, bounds.nbytes) == ("i8", DIM, sum(lengths), sum(lengths) * (DIM + 8))
    assert (scored.code, scored.dims, scored.rows, scored.kept) == ("raw", DIM, bounds.kept, 5)
    assert 32 <= scored.rows < 600
    assert scored.rows * size <= scored.nbytes <= scored.rows * size * 4
    assert bounds.seconds > 0 < scored.seconds
    assert index.explain(q[0], 1000, exact=True).stages[1].rows == sum(n > 0 for n in lengths)
    index.remove(range(0, 600, 2))
    left = [n if at % 2 else 0 for at, n in enumerate(lengths)]
    assert index.explain(q[:2], 5).stages[0].rows == sum(left)
    masks = np.zeros((2, 600), bool)
    masks[0, :100], masks[1, :300] = True, True
    assert index.explain(q[:2], 5, exact=True, filter=masks).stages[0].rows == (sum(left[:100]) + sum(left[:300])) / 2
    first, second, last = index.explain(q, 5, candidates=20).stages
    assert [(s.code, s.rows, s.kept) for s in (first, second, last)] == [
        ("b1", 300, 160),
        ("i8", 160, 20),
        ("raw", 20, 5),
    ]
    assert last.dims == DIM
    assert first.dims == index.encoder.fde_dim
    listed = index.shortlist(q[0], 20)[1][0].tolist()
    assert index.explain(q[0], 5, candidates=20).stages[-1].nbytes == sum(lengths[at] for at in listed) * size
    report = index.explain(q, 5, plan=[Stage("b1", keep=60), Stage("b1", keep=7), Stage("raw")])
    assert [(s.code, s.rows) for s in report.stages] == [("b1", 300), ("b1", 60), ("raw", 7)]
    assert report.certificate is None
    assert [line.split()[0] for line in str(report).splitlines()] == ["stage", "b1", "b1", "raw"]
    few = index.explain(q, 5, candidates=20, filter=range(12)).stages
    assert [s.rows for s in few] == [6, 6, 6]
    for nothing in (index.explain([], 5), index.explain([], 5, candidates=3)):
        assert nothing.stages == ()


def test_plan_without_stages_is_exact(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """However many documents there are."""
    index = filled(split(rng.standard_normal((900, DIM)), [3] * 300))
    q, plan = rng.standard_normal((4, DIM)), index.tune(k=3, recall=0.9, sample=60)
    none = replace(plan, stages=(), exact_from=None)
    monkeypatch.setattr(multivector, "EXACT_BYTES", 0)
    equal(index.search(q, 3, plan=none), index.search(q, 3, exact=True))
    assert index.explain(q, 3, plan=none).stages[0].code == "i8"
    assert index.explain(q, 3).stages[0].code == "b1"


@pytest.mark.parametrize("search", [{"exact": True}, {"candidates": 30}, {}], ids=str)
def test_carving(search: dict[str, Any], colbert: SimpleNamespace) -> None:
    """Ranks as the carved queries do, among the documents that the whole queries' encodings name."""
    index = filled(colbert.docs, like=encoder(64))
    q = split(np.float32(colbert.queries[0]), np.diff(colbert.queries[1]))[:9]
    carved = [nv.carve(one, 0.7) for one in q]
    assert sum(map(len, carved)) < sum(map(len, q))
    found = index.search(q, 5, carve=0.7, **search)
    if "candidates" in search:
        _, listed = index.shortlist(q, 30)
        only = np.full((9, 400), -np.inf)
        np.put_along_axis(only, listed, np.take_along_axis(truth_of(index, carved), listed, 1), 1)
        equal(found, truth.best(only, 5))
    else:
        equal(found, truth.best(truth_of(index, carved), 5))


@types
@pytest.mark.parametrize("search", [{"exact": True}, {"candidates": 40}, {"candidates": 40, "carve": 0.8}], ids=str)
def test_batches_and_threads(kept: str, search: dict[str, Any], colbert: SimpleNamespace) -> None:
    """Many queries give what each gives alone, on any number of threads, in every form."""
    index = filled(colbert.docs, tokens=kept, like=encoder(64, projection_dim=8), codes=("b1", "i8"))
    x, offsets = colbert.queries
    wanted = index.search((x, offsets), 5, threads=1, **search)
    for threads in (2, 3, None):
        equal(index.search((x, offsets), 5, threads=threads, **search), wanted)
    q = split(x, np.diff(offsets))
    equal(index.search([one.astype(">f8") for one in q[:20]], 5, **search), [part[:20] for part in wanted])
    equal([np.concatenate(part) for part in zip(*(index.search(one, 5, **search) for one in q), strict=True)], wanted)
    equal(index.search(np.stack([q[0][:8], q[1][:8]]), 3), index.search([q[0][:8], q[1][:8]], 3))


def test_backends_agree(backend: Any, colbert: SimpleNamespace) -> None:
    index = filled((colbert.docs[0][: colbert.docs[1][60]], colbert.docs[1][:61]), like=encoder(64), codes=CODES[-1])
    q = split(np.float32(colbert.queries[0]), np.diff(colbert.queries[1]))[:6]
    check(index, q, 10)
    check(index, q, 10, candidates=100)


@types
def test_known_recall(kept: str, colbert: SimpleNamespace) -> None:
    """The share of queries whose document is among ten results, as known for this data."""
    index = filled(colbert.docs, tokens=kept, like=encoder(64, num_repetitions=20, num_simhash_projections=4))
    _, found = index.search(colbert.queries, 10, exact=True)
    recall = (found == colbert.rel[:, None]).any(axis=1).mean()
    assert recall == pytest.approx(0.9875, abs=1e-9 if kept == "f16" else 0.013)
    _, found = index.search(colbert.queries, 10, candidates=100)
    assert (found == colbert.rel[:, None]).any(axis=1).mean() >= 0.95


def test_encodings_made_before(rng: np.random.Generator) -> None:
    docs, q = bags_of(rng, "normal", LENGTHS, DIM), bags_of(rng, "normal", (4, 9), DIM)
    own = encoder()
    fdes, wanted = own.encode_documents(docs), filled(docs)
    for dtype in (np.float32, np.float64, ">f4"):
        index = nv.MultiVectorIndex(encoder())
        index.add(docs, fdes=fdes.astype(dtype), fingerprint=own.fingerprint())
        equal(index.shortlist(q, 11), wanted.shortlist(q, 11))
        equal(index.search(q, 5), wanted.search(q, 5))


def test_long_encodings(rng: np.random.Generator) -> None:
    assert nv.MultiVectorIndex(Encoder(64, num_repetitions=32)).encoder.fde_dim == 65_536
    with pytest.raises(ValueError, match="encodings of 67584 values are too long for an index, which takes 65536"):
        nv.MultiVectorIndex(Encoder(64, num_repetitions=33))
    assert len(filled(bags_of(rng, "normal", (4, 2), 64), like=Encoder(64, final_projection_dim=500))) == 2


def test_properties(rng: np.random.Generator) -> None:
    index = nv.MultiVectorIndex(encoder(), "bf16", codes=("i8", "b1"))
    assert (len(index), index.tokens, index.encoder, index.memory_usage()) == (0, "bf16", encoder(), 0)
    index.add(bags_of(rng, "normal", LENGTHS, DIM))
    assert repr(index) == f"MultiVectorIndex({encoder()!r}, tokens='bf16', codes=('b1', 'i8'), ntotal=11)"
    held = []
    for kept, bytes_each in (("i8", DIM + 8), ("f16", 3 * DIM + 8), ("bf16", 3 * DIM + 8), ("f32", 5 * DIM + 8)):
        some = filled(bags_of(rng, "normal", (30,) * 600, DIM), tokens=kept)
        held.append(some.memory_usage() - some._contents.encodings.memory_usage())
        assert 18_000 * bytes_each < held[-1] < 18_000 * bytes_each + 40_000
    small = filled(bags_of(rng, "normal", (1,), DIM)).memory_usage()
    assert 0 < small < filled(bags_of(rng, "normal", (1,), DIM), codes=("b1", "i8")).memory_usage()


def nan_late(docs: Bags) -> dict[str, Any]:
    bad = [x.copy() for x in docs]
    bad[-1][-1, 2] = np.nan
    return {"docs": bad}


def huge_late(docs: Bags) -> dict[str, Any]:
    bad = [x.copy() for x in docs]
    bad[-1][-1, 2] = 1e6
    return {"docs": bad}


def raising(error: type[BaseException], method: str, after: int, owner: Any = nv.FixedDimensionalEncoder) -> Any:
    """A patch that lets a method raise when it is called for the last time of `after`."""

    def patch(monkeypatch: pytest.MonkeyPatch) -> None:
        whole, calls = getattr(owner, method), iter(range(1, 10**6))

        def broken(*args: Any, **options: Any) -> Any:
            if next(calls) == after:
                raise error("broken")
            return whole(*args, **options)

        monkeypatch.setattr(owner, method, broken)

    return patch


def unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """No patch."""


FAILURES: dict[str, tuple[Callable[[Bags], dict[str, Any]], Any, type[BaseException], str]] = {
    "NaN": (nan_late, unchanged, ValueError, "docs holds nan at row 79, column 2"),
    "overflow": (huge_late, unchanged, ValueError, "1000000.0 at row 79, column 2, beyond the range of float16"),
    "repeated ids": (lambda x: {"docs": x, "ids": [*range(100, 119), 100]}, unchanged, ValueError, "id 100 is given"),
    "known id": (lambda x: {"docs": x, "ids": [*range(100, 119), 3]}, unchanged, ValueError, "id 3 is in the index"),
    "strings": (lambda x: {"docs": x, "ids": [str(i) for i in range(20)]}, unchanged, TypeError, "all strings or all"),
    "encoder": (lambda x: {"docs": x}, raising(RuntimeError, "encode_documents", 3), RuntimeError, "broken"),
    "interrupt": (
        lambda x: {"docs": x},
        raising(KeyboardInterrupt, "encode_documents", 3),
        KeyboardInterrupt,
        "broken",
    ),
    "interrupted write": (
        lambda x: {"docs": x, "ids": np.arange(100, 120)},
        raising(KeyboardInterrupt, "write", 2, tokens.TokenSegment),
        KeyboardInterrupt,
        "broken",
    ),
    "interrupted codes": (
        lambda x: {"docs": x, "ids": np.arange(100, 120)},
        raising(KeyboardInterrupt, "_write", 2, nv.NestedIndex),
        KeyboardInterrupt,
        "broken",
    ),
    "interrupted last": (
        lambda x: {"docs": x, "ids": np.arange(100, 120)},
        raising(KeyboardInterrupt, "Contents", 1, multivector),
        KeyboardInterrupt,
        "broken",
    ),
    "encodings": (
        lambda x: {
            "docs": x,
            "fdes": np.where(np.arange(20)[:, None] < 19, 1, np.inf) * np.ones(encoder().fde_dim),
            "fingerprint": encoder().fingerprint(),
        },
        unchanged,
        ValueError,
        "inf at row",
    ),
}


@pytest.mark.parametrize("named", [False, True], ids=["positions", "integers"])
@pytest.mark.parametrize("failure", FAILURES)
def test_failed_adds(failure: str, named: bool, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """The index is as it was, and takes other documents: those that failed to be added leave no trace."""
    monkeypatch.setattr(tokens, "WRITE_VALUES", 16 * DIM)
    monkeypatch.setattr(multivector, "ENCODED_VALUES", 4 * encoder().fde_dim)
    first, q = bags_of(rng, "normal", (3, 0, 2, 4, 1, 9), DIM), bags_of(rng, "normal", (2, 17), DIM)
    bad, later = bags_of(rng, "normal", (4,) * 20, DIM), bags_of(rng, "normal", rng.integers(0, 9, 30), DIM)
    ids = [10, 3, 7, 5, 0, 9] if named else None
    index, other = (filled(first, ids, codes=("b1", "i4", "i8")) for _ in range(2))
    make, patch, error, message = FAILURES[failure]
    before = index.search(q, 10), index.shortlist(q, 10), len(index), index.memory_usage()
    with monkeypatch.context() as patched:
        patch(patched)
        with pytest.raises(error, match=message):
            index.add(**make(bad))
    after = index.search(q, 10), index.shortlist(q, 10), len(index), index.memory_usage()
    for some, others in zip(before[:2], after[:2], strict=True):
        equal(some, others)
    assert before[2:] == after[2:]
    for missing in (100, 119, "0"):
        with pytest.raises(KeyError):
            index.reconstruct(missing)
    for more in ({}, {"ids": np.arange(119, 89, -1)}):
        for some in (index, other):
            some.add(later, **more)
        names = other._contents.names
        check(index, q, 70, names)
        for k in (5, 70):
            equal(index.search(q, k), other.search(q, k))
            equal(index.shortlist(q, k), other.shortlist(q, k))
        listed = [0, *more.get("ids", [])]
        for one, wanted in zip(index.reconstruct(listed), other.reconstruct(listed), strict=True):
            np.testing.assert_array_equal(one, wanted)


def test_failed_adds_of_strings(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """An id of an `add` that was interrupted at its end can be given to another document."""
    docs = bags_of(rng, "normal", (3, 2, 4), DIM)
    index = filled(docs[:1], ["a"])
    with monkeypatch.context() as patched:
        raising(KeyboardInterrupt, "Contents", 1, multivector)(patched)
        with pytest.raises(KeyboardInterrupt):
            index.add(docs[1:], ["b", "c"])
    index.add(docs[2:], ["c"])
    for missing in ("b", 0):
        with pytest.raises(KeyError):
            index.reconstruct(missing)
    index.add(docs[1:2], ["b"])
    assert index.search(docs, 1)[1].tolist() == [["a"], ["b"], ["c"]]
    for one, doc in zip(index.reconstruct(["b", "c", "a"]), (docs[1], docs[2], docs[0]), strict=True):
        np.testing.assert_array_equal(one, doc.astype(np.float16).astype(np.float32))


def test_searches_while_adding(rng: np.random.Generator) -> None:
    """They see the index before an `add`, or after it."""
    docs, q = bags_of(rng, "normal", rng.integers(0, 6, 600), DIM), bags_of(rng, "normal", (3,), DIM)
    sizes = range(20, 601, 20)
    whole = truth_of(filled(docs), q)
    allowed = [truth.best(whole[:, :n], 8) for n in sizes]
    index, done, failed = filled(docs[:20]), threading.Event(), list[BaseException]()

    def add() -> None:
        try:
            for n in sizes[1:]:
                index.add(docs[n - 20 : n])
        except BaseException as error:
            failed.append(error)
        finally:
            done.set()

    thread, seen = threading.Thread(target=add), 0
    thread.start()
    try:
        while not done.is_set():
            for search in ({"exact": True}, {"candidates": 600}):
                D, I = index.search(q, 8, **search)
                place = [at for at, (_, ids) in enumerate(allowed) if (ids == I).all()]
                assert place
                np.testing.assert_array_equal(D, allowed[place[0]][0])
                assert place[-1] >= seen
                seen = place[0]
    finally:
        thread.join()
    assert not failed
    equal(index.search(q, 8), allowed[-1])


def wrong(message: str, error: type[Exception] = ValueError) -> AbstractContextManager[Any]:
    return pytest.raises(error, match=message)


def test_wrong_arguments(rng: np.random.Generator) -> None:
    docs, q = bags_of(rng, "normal", (3, 2), DIM), bags_of(rng, "normal", (4,), DIM)
    index, named = filled(docs), filled(docs, ["a", "b"])
    empty = nv.MultiVectorIndex(encoder())
    for call in (empty.search, empty.shortlist):
        with wrong("the index is empty"):
            call(q, 3)
    for call in (index.search, index.shortlist):
        with wrong("q has 11 dims, 12 are needed"):
            call(q[0][:, :11], 1)
        with wrong("query 1 has no tokens"):
            call([q[0], q[0][:0]], 1)
        with wrong("q holds nan at row 0, column 0"):
            call(q[0] * np.nan, 1)
        with wrong("k must be at least 1, got 0"):
            call(q, 0)
        with wrong("q has dtype complex", TypeError):
            call(q[0] + 1j, 1)
    for more in ({"candidates": 5}, {"plan": [Stage("b1")]}, {"candidates": 1, "plan": [Stage("b1")]}):
        with wrong("exact=True ranks all documents"):
            index.search(q, 1, exact=True, **more)
    with wrong("candidates must be at least 1"):
        index.search(q, 1, candidates=0)
    with wrong("candidates must be an integer", TypeError):
        index.search(q, 1, candidates=1.5)
    with wrong("keeps no i8 codes"):
        index.search(q, 1, plan=[Stage("i8")])
    with wrong("tau must be a finite number"):
        index.search(q, 1, carve=np.nan)
    with wrong("docs has 11 dims, 12 are needed"):
        index.add((docs[0][:, :11], [0, 3]))
    with wrong("offsets of docs must ascend from 0 to 3"):
        index.add((docs[0], [0, 2]))
    with wrong("docs has dtype object", TypeError):
        index.add((docs[0].astype(object), [0, 3]))
    for ids in ([5], [5, 6, 7], ["x"], ["x", "y", "z"]):
        with wrong(r"ids must (be a 1-D array with one id per row|name each document), 2, got"):
            empty.add(docs, ids)
    for ids, message in (([4, -1], "must not be negative"), (["x", "x"], "'x' is given more than once")):
        with wrong(message):
            empty.add(docs, ids)
    for some, ids in ((index, ["x", "y"]), (named, [4, 5]), (empty, ["x", 1]), (empty, [1, "x"]), (empty, [0.0, 1.0])):
        with wrong("ids (of one index are|must be) (all strings|integers)", TypeError):
            some.add(docs, ids)
    with wrong("the ids of this index are strings; give each new document one"):
        named.add(docs)
    with wrong("id 'b' is in the index already"):
        named.add(docs, ["c", "b"])
    with wrong("id 1 is in the index already"):
        index.add(docs, [2, 1])
    assert (len(index), len(named), len(empty)) == (2, 2, 0)
    with wrong("encoder must be a FixedDimensionalEncoder", TypeError):
        nv.MultiVectorIndex(12)  # type: ignore[arg-type]
    with wrong("tokens must be one of"):
        nv.MultiVectorIndex(encoder(), "float16")
    with wrong("a code must be one of"):
        nv.MultiVectorIndex(encoder(), codes=("b2",))
    with wrong("a level must be between 1 and 5, got 6"):
        nv.MultiVectorIndex(encoder(), levels=[6])
    with wrong("levels are numbers of repetitions, which a final projection mixes"):
        nv.MultiVectorIndex(encoder(final_projection_dim=64), levels=[1])


def test_wrong_encodings(rng: np.random.Generator) -> None:
    docs, own, other = bags_of(rng, "normal", (3, 2), DIM), encoder(), encoder(seed=2)
    index, fdes = nv.MultiVectorIndex(own), own.encode_documents(docs)
    for fingerprint in (None, "", other.fingerprint()):
        with wrong(f"have fingerprint {fingerprint!r}, the index has an encoder with {own.fingerprint()!r}"):
            index.add(docs, fdes=fdes, fingerprint=fingerprint)
    for bad, message in ((fdes[:1], "1 encodings, there are 2 documents"), (fdes[:, 1:], "fdes has 239 dims, 240 are")):
        with wrong(message):
            index.add(docs, fdes=bad, fingerprint=own.fingerprint())
    assert len(index) == 0


def test_encodings_beyond_float32() -> None:
    """Documents whose tokens' sums overflow are refused, and so is what looks for a shortlist with such a query."""
    index, huge = filled(np.ones((2, 3, DIM)), tokens="f32"), np.full((1, 3, DIM), 3e38)
    with wrong("inf at row"):
        index.add(huge)
    with wrong("inf at row"):
        index.search(huge, 1, candidates=2)
    with wrong("a sum of tokens holds .* beyond the range of float32"):
        index.search(huge, 1, carve=0.5)
    equal(index.search(huge, 2), (rounded(np.full((1, 2), 3 * DIM * np.float64(np.float32(3e38)))), np.array([[0, 1]])))
    assert len(index) == 2
