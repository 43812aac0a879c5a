"""The `filter` argument: every form, on every index, gives what brute force over the allowed ids gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nestvec as nv
from test_changes import KINDS, Model, score

N = 300


def filled(kind: str, *, named: bool, seed: int = 0) -> Model:
    """An index of some segments, with ids given or not, some of them removed."""
    model = Model(kind, np.random.default_rng(seed))
    ids = np.random.default_rng(seed).permutation(N + 100)[:N]
    data = model.data(N)
    for first, last in ((0, 100), (100, 130), (130, N)):
        model.index.add(data[first:last], ids[first:last] if named else None)
        if first == 0 and not named and kind != "multi":
            model.index.add(data[:1], [10_000])  # a segment of its own, so that another one follows
            model.index.remove([10_000])
            model.index._contents = model.index._contents._replace(next_id=100)
    names = ids.tolist() if named else list(range(N))
    model.rows = dict(zip(names, data, strict=True))
    for one in names[:40:3]:
        model.index.remove(one)
        del model.rows[one]
    return model


def best(model: Model, query: Any, allowed: set[int], k: int) -> list[int]:
    names = [one for one in model.rows if one in allowed]
    found = sorted(names, key=lambda one: (-score(model.kind, query, model.rows[one]), one))[:k]
    return found + [-1] * (k - len(found))


def forms(allowed: set[int], rng: np.random.Generator) -> list[Any]:
    """The same set of ids in every form."""
    mask = np.zeros(N + 120, bool)
    mask[list(allowed)] = True
    listed = rng.permutation(np.array([*allowed, 5000, 5000], np.int64))
    return [
        mask, nv.Bitmap(np.packbits(mask, bitorder="little")), nv.Bitmap(np.packbits(mask), order="big"), listed,
        listed.tolist(), listed.astype(np.uint16), set(listed.tolist()), mask[None].repeat(3, 0), [mask, listed, mask],
        nv.Bitmap(np.packbits(mask, bitorder="little")[None].repeat(3, 0)),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_every_form(kind: str, named: bool, share: float) -> None:
    model = filled(kind, named=named)
    rng = np.random.default_rng(7)
    allowed = {i for i in range(N + 100) if rng.random() < share}
    queries = model.data(3)
    wanted = [best(model, q, allowed, 9) for q in queries]
    for given in forms(allowed, rng):
        for threads in (1, 2):
            scores, found = model.index.search(queries, 9, filter=given, threads=threads)
            np.testing.assert_array_equal(found, wanted)
            missing = {"binary": 2**31 - 1, "l2": np.inf}.get(kind, -np.inf)
            assert (scores[found < 0] == missing).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("named", [False, True])
def test_ranges_of_ids(kind: str, named: bool) -> None:
    model = filled(kind, named=named)
    queries = model.data(2)
    for given in (
        range(50, 120),
        range(119, 49, -1),
        range(3, 400, 7),
        slice(20, 60),
        range(0),
        slice(None),
        range(500),
    ):
        allowed = set(range(*given.indices(1000)) if isinstance(given, slice) else given)
        wanted = [best(model, q, allowed, 5) for q in queries]
        np.testing.assert_array_equal(model.index.search(queries, 5, filter=given)[1], wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_one_for_each_query(kind: str) -> None:
    model = filled(kind, named=True)
    rng = np.random.default_rng(8)
    queries = model.data(20)
    masks = rng.random((20, N + 100)) < rng.random((20, 1))
    sets = [set(np.flatnonzero(mask).tolist()) for mask in masks]
    wanted = [best(model, q, some, 6) for q, some in zip(queries, sets, strict=True)]
    for threads in (1, 2):
        np.testing.assert_array_equal(model.index.search(queries, 6, filter=masks, threads=threads)[1], wanted)
    mixed = [None, range(0), range(10, 60), [3], *masks[4:]]
    sets[:4] = [set(range(N + 100)), set(), set(range(10, 60)), {3}]
    wanted = [best(model, q, some, 6) for q, some in zip(queries, sets, strict=True)]
    np.testing.assert_array_equal(model.index.search(queries, 6, filter=mixed)[1], wanted)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_range_search(kind: str, seed: int) -> None:
    model = filled(kind, named=seed == 1, seed=seed)
    rng = np.random.default_rng(seed)
    queries = model.data(3)
    scores = [{one: score(kind, q, row) for one, row in model.rows.items()} for q in queries]
    for share in (0.0, 0.05, 0.7, 1.0):
        limit = float(np.quantile(list(scores[0].values()), 1 - share)) + (1e-6 if share == 0 else 0)
        for allowed in (None, rng.random(N + 100) < 0.3, rng.random((3, N + 100)) < 0.3):
            masks = np.ones((3, N + 100), bool) if allowed is None else np.broadcast_to(allowed, (3, N + 100))
            if kind == "binary" and limit > 0:
                continue
            radius = {"l2": -limit, "binary": int(-limit)}.get(kind, limit)
            lims, D, I = model.index.range_search(queries, radius, filter=allowed, threads=1 + seed % 2)
            assert (lims.dtype, I.dtype, lims[0], lims[-1]) == (np.int64, np.int64, 0, len(I))
            least = -radius if kind in ("l2", "binary") else radius
            for i in range(3):
                names = [one for one, s in scores[i].items() if s >= least and masks[i, one]]
                wanted = sorted(names, key=lambda one: (-scores[i][one], one))
                np.testing.assert_array_equal(I[lims[i] : lims[i + 1]], wanted)
                exact = np.array([scores[i][one] for one in wanted])
                got = D[lims[i] : lims[i + 1]] * (-1.0 if kind in ("l2", "binary") else 1.0)
                np.testing.assert_allclose(got, exact, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("metric", ["ip", "l2", "cosine"])
@pytest.mark.parametrize("dims", [7, 16, 40])
def test_range_search_in_prefixes(metric: str, dims: int) -> None:
    """All rows that reach a value in the leading dims, by scans of planes or rows, with ties at the value itself."""
    rng = np.random.default_rng(9)
    x = rng.integers(-2, 3, (3000, 40)).astype(np.float32)
    index = nv.NestedIndex(40, levels=(16,), metric=metric, rows="float16")
    index.add(x)
    q = rng.integers(-2, 3, (70, 40)).astype(np.float32)
    a, b = q[:, :dims].astype(np.float64), x[:, :dims].astype(np.float64)
    if metric == "l2":
        exact = -((a[:, None] - b[None]) ** 2).sum(axis=2)
    else:
        exact = a @ b.T
        if metric == "cosine":
            lengths = np.sqrt((a**2).sum(1)[:, None] * (b**2).sum(1)[None])
            exact = np.divide(exact, lengths, out=np.zeros_like(exact), where=lengths > 0)
    for radius in {"l2": [0, dims], "ip": [dims / 2, -1e9], "cosine": [0.5, 0.999]}[metric]:
        least = -radius if metric == "l2" else radius
        lims, _, I = index.range_search(q, radius, dims=dims)
        for i in range(len(q)):
            wanted = np.flatnonzero(exact[i] >= least)
            np.testing.assert_array_equal(np.sort(I[lims[i] : lims[i + 1]]), wanted)


def test_plans_with_filters() -> None:
    model = filled("ip", named=True)
    rng = np.random.default_rng(11)
    queries = model.data(5)
    for share in (0.01, 0.2, 0.9):
        mask = rng.random(N + 100) < share
        allowed = set(np.flatnonzero(mask).tolist())
        wanted = [best(model, q, allowed, 4) for q in queries]
        for plan in (
            [nv.Stage("b1", keep=N), nv.Stage("raw")],
            [nv.Stage("i4", keep=N), nv.Stage("raw")],
            [nv.Stage("i8", keep=N), nv.Stage("raw")],
            [nv.Stage("raw", keep=N), nv.Stage("raw")],
        ):
            for threads in (1, 2):
                _, I = model.index.search(queries, 4, plan=plan, filter=mask, threads=threads)
                np.testing.assert_array_equal(I, wanted)
            assert model.index.explain(queries, 4, plan, filter=mask).stages[0].rows <= N


def test_strings() -> None:
    model = Model("multi", np.random.default_rng(12))
    docs = model.data(6)
    model.index.add(docs, list("abcdef"))
    model.index.remove("c")
    for exact in (True, False):
        _, found = model.index.search(docs[2], 6, filter=["a", "c", "f", "z"], exact=exact)
        assert set(found[0].tolist()) == {"a", "f", None}
        _, found = model.index.search(docs[:2], 6, filter=[["a"], ["f", "b"]], exact=exact)
        assert [set(one) - {None} for one in found.tolist()] == [{"a"}, {"f", "b"}]
    lims, _, ids = model.index.range_search(docs[0], -1e9, filter=["a", "d"])
    assert lims.tolist() == [0, 2]
    assert set(ids.tolist()) == {"a", "d"}
    for given in (range(3), np.ones(6, bool)):
        with pytest.raises(TypeError, match="ids of this index are strings"):
            model.index.search(docs[0], 1, filter=given)


@pytest.mark.parametrize("kind", KINDS)
def test_shortlists_with_filters(kind: str) -> None:
    if kind != "multi":
        return
    model = filled(kind, named=True)
    queries = model.data(4)
    mask = np.random.default_rng(13).random(N + 100) < 0.1
    allowed = set(np.flatnonzero(mask).tolist())
    wanted = [best(model, q, allowed, 5) for q in queries]
    np.testing.assert_array_equal(model.index.search(queries, 5, candidates=N, filter=mask)[1], wanted)
    _, found = model.index.shortlist(queries, 400, filter=mask)
    assert set(found.ravel().tolist()) - {-1} == allowed & set(model.rows)


def test_refused() -> None:
    model = filled("ip", named=False)
    q = model.data(2)
    for given, error, message in (
        (np.ones((3, N), bool), ValueError, "one for each of 3 queries, there are 2"),
        ([range(3)] * 3, ValueError, "one for each of 3 queries, there are 2"),
        (nv.Bitmap(np.zeros((4, 9), np.uint8)), ValueError, "one for each of 4 queries"),
        (np.ones((1, 2, 3), bool), ValueError, r"\(n,\) or \(nq, n\)"),
        (np.ones((2, 3), int), ValueError, "a list of 1-D arrays"),
        (np.ones(3), TypeError, "ids must be integers"),
        (object(), TypeError, "ids must be integers"),
    ):
        with pytest.raises(error, match=message):
            model.index.search(q, 1, filter=given)
    with pytest.raises(TypeError, match="bits must be uint8"):
        nv.Bitmap(np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="shape"):
        nv.Bitmap(np.zeros((1, 1, 1), np.uint8))
    with pytest.raises(ValueError, match="order must be one of"):
        nv.Bitmap(np.zeros(1, np.uint8), order="middle")
    for radius, error in (("1", TypeError), (np.nan, ValueError), (True, TypeError)):
        with pytest.raises(error, match="radius must be a number"):
            model.index.range_search(q, radius)
    assert model.index.search(q[:0], 3, filter=[])[1].shape == (0, 3)


def test_masks_for_each_query_on_whole_words_of_rows() -> None:
    """Ids that are listed, and so many rows that nothing is padded."""
    rng = np.random.default_rng(4)
    x, ids, masks = rng.standard_normal((640, 8), dtype=np.float32), rng.permutation(640), rng.random((7, 640)) < 0.3
    index = nv.NestedIndex(8)
    index.add(x, ids)
    by_id = np.empty_like(x)
    by_id[ids] = x
    scores = np.where(masks, x[:7].astype(float) @ by_id.T.astype(float), -np.inf)
    wanted = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    for given in (masks, np.asfortranarray(masks), nv.Bitmap(np.packbits(masks, axis=1), "big")):
        np.testing.assert_array_equal(index.search(x[:7], 5, filter=given)[1], wanted)
