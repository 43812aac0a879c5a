"""Plans: each stage keeps the best of its documented estimates, and what reaches a stage of rows is ranked exactly."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from itertools import permutations, product
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import nestvec as nv
import truth
from inputs import KINDS, METRICS, values
from nestvec import Stage, stages
from nestvec.planes import BLOCK
from nestvec.rotation import BlockRotation
from test_search import ROW_TYPES, filled

D, LEVELS = 120, (16, 50)
BOUNDS = np.asarray([*LEVELS, D])
CODES, COARSE = ("b1", "i4", "i8", "raw"), ("b1", "i4")
ORDERS = [order for length in (1, 2, 3) for order in product(CODES, repeat=length)] + list(permutations(CODES))
RAW = Stage("raw")

Call = Callable[..., Any]
Answer = tuple[np.ndarray, np.ndarray]
metrics = pytest.mark.parametrize("metric", METRICS)
rotated = pytest.mark.parametrize("rotate", [False, True], ids=["", "rotated"])
floats = pytest.mark.parametrize("dtype", [np.float32, np.float64])
np.random.default_rng(0).shuffle(ORDERS)  # so that each share of them has all kinds


def equal(actual: Answer, wanted: Answer, message: str = "") -> None:
    for some, others in zip(actual, wanted, strict=True):
        np.testing.assert_array_equal(some, others, message, strict=True)


def segments(index: nv.NestedIndex, x: np.ndarray, rng: np.random.Generator) -> nv.NestedIndex:
    """Rows in three adds, some of them with ids in any order."""
    ids, given = rng.permutation(len(x)), rng.random(3) < 0.5
    for part, named in zip(np.split(np.arange(len(x)), [700, 1600]), given, strict=True):
        index.add(x[part], ids[part] + 10**6 * (1 + part[0]) if named else None)
    return index


@pytest.mark.parametrize("center", [False, True], ids=["", "centered"])
@rotated
@metrics
def test_keeping_all_rows_is_exact(metric: str, rotate: bool, center: bool, backend: Any) -> None:
    """Stages of any codes, dims and order that keep every row give the exact search, whatever its path."""
    case = METRICS.index(metric) * 4 + rotate * 2 + center
    rng = np.random.default_rng(case)
    for number, (rows, suffix) in enumerate(ROW_TYPES.items()):
        kind = str(rng.choice(["normal", "ties", "duplicates"]))
        x = values(rng, kind, 4600, D, suffix) + (kind == "normal")
        some = nv.NestedIndex(D, LEVELS, metric, rows, codes=COARSE, center=center, rotate=rotate)
        index = segments(some, x, rng)
        for order in ORDERS[3 * case + number :: 36]:
            dims, plan = int(rng.choice([16, 30, 50, 77, D])), list[Stage]()
            for code in order:
                cuts = [end for end in BOUNDS.tolist() if end <= dims]
                cuts += [] if rotate and code == "b1" else [dims, int(rng.integers(1, dims + 1))]
                plan.append(Stage(code, dims=int(rng.choice(cuts)), keep=len(x) if plan else len(x) + 7))
            plan.append(Stage(suffix) if rng.random() < 0.5 else RAW)
            k = int(rng.choice([1, 10, 10, len(x), len(x) + 3]))
            q = values(rng, kind, 40 if k == 10 and len(order) < 3 else int(rng.choice([0, 1, 2, 5])), D)
            wanted, threads = index.search(q, k, dims=dims), int(rng.integers(1, 4))
            equal(index.search(q, k, dims=dims, plan=plan, threads=threads), wanted, f"{plan}, {dims}, {k}, {threads}")


@pytest.mark.parametrize(("first", "second"), [(5000, 5000), (5000, 3000), (400, 300)])
def test_keeping_more_than_all_rows(first: int, second: int, rng: np.random.Generator) -> None:
    """A plan made for a large index serves a small one."""
    x = values(rng, "normal", 300, D)
    index, plan = filled(x, levels=LEVELS), [Stage("b1", keep=first), Stage("i8", keep=second), RAW]
    equal(index.search(x[:3], 10, plan=plan), index.search(x[:3], 10))
    plan = [Stage("b1", times=first / 100), Stage("i8", times=second / 100), RAW]
    equal(index.search(x[:3], 100, plan=plan), index.search(x[:3], 100))


def estimates(
    q: np.ndarray,
    x: np.ndarray,
    mean: np.ndarray,
    metric: str,
    code: str,
    dims: int,
    widest: int,
    turn: Call,
    bounds: np.ndarray = BOUNDS,
) -> np.ndarray:
    """Scores (nq, n), higher is better, in the words of `nestvec.kernels.codes`."""
    end, center = int(bounds[np.searchsorted(bounds, dims)]), np.zeros(x.shape[1])
    scale = abs(x).max(axis=1) / np.float32(127)
    q, wide = q.astype(np.float64), x.astype(np.float64)
    if code == "b1":
        q, wide, center = turn(q), turn(x).astype(np.float64), turn(mean[None])[0]
        wide = wide / np.linalg.norm(wide, axis=1, keepdims=True) if metric == "cosine" else wide
        v = np.where(wide > center, 1.0, -1.0)[:, :end]
    else:
        v = np.rint(x * (1 / scale[:, None])).astype(np.float64)[:, :end]
        v = 2 * ((v + 128) // 16) - 15.0625 if code == "i4" else v
    r = (wide - center)[:, :end]
    square = (r * r).sum(axis=1)
    f = scale.astype(np.float64) if code == "i8" else square / (r * v).sum(axis=1)
    g = square / 2 if metric == "l2" else 1 / np.linalg.norm(wide[:, :end], axis=1)
    f = f * g if metric == "cosine" else f
    if code != "i8":
        f, g = (part.astype(np.float32).astype(ml_dtypes.bfloat16).astype(np.float64) for part in (f, g))
    used = q - center if metric == "l2" else q
    step = np.maximum(abs(used[:, :widest]).max(axis=1, keepdims=True), 1e-30) / (15 if code == "b1" else 127)
    coded = np.rint(used / step)[:, :dims]
    products = coded.dot(v[:, :dims].T)
    dots = f * step * (np.rint(products) if code == "i4" else products)  # the shift of `i4` is rounded
    if metric == "l2":
        return np.asarray(2 * (dots - g) - (used * used)[:, :dims].sum(axis=1)[:, None])
    known = q[:, :dims].dot(center[:dims])[:, None]
    norms = np.maximum(np.linalg.norm(q[:, :dims], axis=1)[:, None], 1e-30)
    return np.asarray(known + dots if metric == "ip" else (known * g + dots) / norms)


def keeps_best(found: np.ndarray, scores: np.ndarray, count: int) -> bool:
    """Whether the ids found are those of the best scores, but for some as good as the last one."""
    least, slack = -np.sort(-scores, axis=1)[:, count - 1], 5e-5 * abs(scores).max(axis=1)
    return all(
        len(set(ids.tolist())) == count
        and (some[ids] >= low).all()
        and set(np.flatnonzero(some > high).tolist()) <= set(ids.tolist())
        for ids, some, low, high in zip(found, scores, least - slack, least + slack, strict=True)
    )


@pytest.mark.parametrize("code", ["b1", "i4", "i8"])
@rotated
@metrics
def test_best_estimates(metric: str, rotate: bool, code: str, backend: Any, rng: np.random.Generator) -> None:
    """All estimates of a code over each prefix, those kept, and those kept in the units of a wider stage."""
    x, q = values(rng, "normal", 900, D) * 2 + np.float32(0.5), values(rng, "normal", 3, D) + np.float32(0.5)
    index = nv.NestedIndex(D, LEVELS, metric, codes=COARSE, rotate=rotate)
    index.add(x[:600])
    index.add(x[600:])
    wide = x[:600].astype(np.float64)
    mean = (wide / np.linalg.norm(wide, axis=1, keepdims=True) if metric == "cosine" else wide).mean(axis=0)
    turn = BlockRotation(BOUNDS).apply if rotate else np.asarray
    for dims in BOUNDS.tolist() if rotate and code == "b1" else (1, 16, 30, 50, 100, D):
        wanted = estimates(q, x, mean, metric, code, dims, dims, turn)
        scores, ids = index.search(q, 900, plan=[Stage(code, dims=dims)])
        actual = np.take_along_axis(scores, np.argsort(ids, axis=1), 1) * (-1 if metric == "l2" else 1)
        np.testing.assert_allclose(actual, wanted, rtol=0, atol=5e-5 * abs(wanted).max())
        assert keeps_best(index.search(q, 60, plan=[Stage(code, dims=dims, keep=60), RAW])[1], wanted, 60)
        if dims in LEVELS:
            plan = [Stage(code, dims=dims, keep=60), Stage(code, keep=60), RAW]
            wanted = estimates(q, x, mean, metric, code, dims, D, turn)
            assert keeps_best(index.search(q, 60, plan=plan)[1], wanted, 60)


@pytest.mark.parametrize("levels", [(), (100, 333)], ids=["", "levels"])
@pytest.mark.parametrize("code", ["b1", "i4", "i8"])
@metrics
def test_sparse_queries(
    metric: str, code: str, levels: tuple[int, ...], backend: Any, rng: np.random.Generator
) -> None:
    """What is skipped adds nothing: queries of no dim, one, the last, blocks of any width, all but the first dims."""
    d, x = 1400, values(rng, "normal", 200, 1400) + np.float32(0.2)
    index, bounds = nv.NestedIndex(d, levels, metric, codes=COARSE), np.asarray([*levels, d])
    index.add(x)
    wide = x.astype(np.float64)
    mean = (wide / np.linalg.norm(wide, axis=1, keepdims=True) if metric == "cosine" else wide).mean(axis=0)
    used = np.zeros((10, d), bool)
    used[1, 64], used[2, -1], used[3, -70:], used[9, 200:] = True, True, True, True
    for row, width in enumerate((4, 8, 16, 64, 128), 4):
        used[row] = np.repeat(rng.random(-(-d // width)) < 0.3, width)[:d]
    q = values(rng, "normal", 10, d) * used
    for dims in sorted({*bounds.tolist(), 500}):
        wanted = estimates(q, x, mean, metric, code, dims, dims, np.asarray, bounds)
        for before in ([], [Stage("i8" if code == "i4" else "i4", keep=200)], [Stage(code, dims=90, keep=200)]):
            scores, ids = index.search(q, 200, dims=dims, plan=[*before, Stage(code)])
            actual = np.take_along_axis(scores, np.argsort(ids, axis=1), 1) * (-1 if metric == "l2" else 1)
            np.testing.assert_allclose(actual, wanted, rtol=0, atol=5e-5 * abs(wanted).max())


@pytest.mark.parametrize("code", ["b1", "i4", "i8"])
@metrics
def test_sums_carried(metric: str, code: str, backend: Any, rng: np.random.Generator) -> None:
    """A stage that adds to the sums of the one before keeps the rows that one which starts anew does."""
    x, q = values(rng, "normal", 4600, D), values(rng, "normal", 5, D)
    index, other = segments(nv.NestedIndex(D, LEVELS, metric, codes=COARSE), x, rng), "i8" if code == "i4" else "i4"
    for cuts in ((16, D), (16, 50, D), (50, 50, 100), (30, 50, D), (50, 16)):
        carried, anew, keep = [], [], 1200
        for cut in cuts:
            keep //= 2
            carried.append(Stage(code, dims=cut, keep=keep))
            anew += [carried[-1], Stage(other, keep=keep)]
        equal(index.search(q, keep, plan=[*carried, RAW]), index.search(q, keep, plan=[*anew, RAW]))
        last = Stage(code, dims=cuts[-1])
        equal(index.search(q, 20, plan=[*carried[:-1], last]), index.search(q, 20, plan=[*anew[:-2], last]))


@metrics
def test_last_stage_estimates(metric: str, backend: Any, rng: np.random.Generator) -> None:
    """Without rows in the end, scores are what `estimate` says of the ids, best first, equal ones by id."""
    index = segments(nv.NestedIndex(D, LEVELS, metric, codes=COARSE), values(rng, "duplicates", 4600, D), rng)
    q = values(rng, "duplicates", 3, D)
    for code, dims, before in product(COARSE, (16, 30, D), ([], [Stage("i8", keep=90)], [Stage("raw", keep=90)])):
        scores, ids = index.search(q, 90, dims=dims, plan=[*before, Stage(code)])
        for one, some, row in zip(q, scores, ids, strict=True):
            np.testing.assert_allclose(some[None], index.estimate(one, row, code=code, dims=dims)[0], rtol=1e-6)
            np.testing.assert_array_equal(np.lexsort((row, some if metric == "l2" else -some)), np.arange(90))


@pytest.mark.parametrize("kept", [("b1",), ("i4",), ("i8",), ("b1", "i4"), ("i8", "i4", "b1")], ids="-".join)
@rotated
@metrics
def test_codes_without_rows(metric: str, rotate: bool, kept: tuple[str, ...], backend: Any) -> None:
    """Codes kept alone are those kept beside rows, whatever the sizes of adds, also after one that failed."""
    rng = np.random.default_rng(len(kept))
    x, q = values(rng, "normal", 4600, D), values(rng, "normal", 3, D)
    options: dict[str, Any] = {"levels": LEVELS, "metric": metric, "rotate": rotate}
    whole = segments(nv.NestedIndex(D, codes=COARSE, **options), x, np.random.default_rng(1))
    index = nv.NestedIndex(D, rows=None, codes=kept, **options)
    wrong = np.full((300, D), 9, np.float32)
    wrong[-1, 3] = np.nan
    for at in (0, 4600):
        with pytest.raises(ValueError, match="row 299, column 3; only finite values"):
            index.add(wrong, threads=2)
        if at == 0:
            segments(index, x, np.random.default_rng(1))
    assert (index.rows, index.codes, index.ntotal) == (None, tuple(c for c in CODES if c in kept), 4600)
    for code, dims in product(index.codes, (16, 50, D)):
        for before in ([], [Stage(code, dims=16, keep=90)], [Stage(index.codes[0], keep=90)]):
            plan = [*before, Stage(code)]
            equal(index.search(q, 20, dims=dims, plan=plan), whole.search(q, 20, dims=dims, plan=plan))
        report = index.explain(q, 20, [Stage(code, dims=dims)]).stages
        assert [(stage.code, stage.rows) for stage in report] == [(code, 4600)]
        if code in COARSE:
            ids = index.search(q[0], 9, plan=[Stage(code)])[1][0]
            equal(index.estimate(q, ids, code=code, dims=dims), whole.estimate(q, ids, code=code, dims=dims))


@pytest.mark.parametrize("kept", [("b1",), ("i4",), ("i8",), COARSE], ids="-".join)
def test_memory_without_rows(kept: tuple[str, ...], rng: np.random.Generator) -> None:
    index = nv.NestedIndex(D, LEVELS, rows=None, codes=kept)
    index.add(values(rng, "normal", 1000, D))
    sizes = {"b1": 8 * (1 + 1 + 2) + 6 * 3, "i4": 8 + 20 + 36 + 6 * 3, "i8": 16 + 36 + 72 + 12 * 3}
    blocks = 2 * 3 * 4 * 16 + 1024 if "i8" in kept else 0  # maxima of blocks, and room to read on
    assert index.memory_usage() == 1024 * sum(sizes[code] for code in kept) + blocks
    assert repr(index) == (
        f"NestedIndex(d=120, levels=(16, 50, 120), metric='ip', rows=None, codes={kept}, ntotal=1000)"
    )


def test_what_needs_rows(rng: np.random.Generator) -> None:
    index = nv.NestedIndex(D, LEVELS, rows=None, codes="i4")
    index.add(values(rng, "normal", 20, D))
    q, wanted = np.ones((1, D)), 'reads stored rows, and this index keeps only i4 codes; make it with rows="float32"'
    for call in (index.search, index.explain):
        with pytest.raises(ValueError, match=f"exact search {wanted}"):
            call(q, 3)
        with pytest.raises(ValueError, match=rf'Stage\("raw"\) {wanted}'):
            call(q, 3, plan=[Stage("i4", keep=9), RAW])
        with pytest.raises(ValueError, match=r'Stage\("f16"\) reads .* make it with rows="float16"'):
            call(q, 3, plan=[Stage("i4", keep=9), Stage("f16")])
        with pytest.raises(
            ValueError, match=r"keeps no i8 codes; make it with codes=\('i4', 'i8'\) \(it keeps i4 codes"
        ):
            call(q, 3, plan=[Stage("i8")])
    for ids in (0, []):
        with pytest.raises(ValueError, match=f"reconstruct {wanted}"):
            index.reconstruct(ids)
    with pytest.raises(ValueError, match="this index keeps no b1 codes"):
        index.estimate(q, [0])
    with pytest.raises(ValueError, match="without rows an index must keep codes"):
        nv.NestedIndex(D, rows=None, codes=())


@pytest.mark.parametrize("d", [10_240, 65_536])
def test_many_dims(d: int, backend: Any, rng: np.random.Generator) -> None:
    """Sums of the largest codes, and queries of more words than any table has room for."""
    x, q = values(rng, "normal", 70, d), np.ones((2, d), np.float32)
    x[:2] = [[1], [-1]]
    q[1, d // 3 :] = 0
    index = nv.NestedIndex(d, (d // 2 + 1,), rows=None, codes=("b1", "i4", "i8"), center=False)
    index.add(x)
    for code, slack in (("b1", 0.1), ("i4", 0.01), ("i8", 1e-3)):
        scores, ids = index.search(q, 70, plan=[Stage(code)])
        used = np.asarray([d, d // 3])
        np.testing.assert_array_equal(ids[:, [0, -1]], [[0, 1]] * 2)
        np.testing.assert_allclose(scores[:, [0, -1]], used[:, None] * [1, -1], rtol=slack)
        equal(index.search(q, 70, plan=[Stage(code, dims=d // 2 + 1, keep=70), Stage(code)]), (scores, ids))


@pytest.mark.parametrize("order", ["random", "rising", "falling", "equal"])
def test_lists_lose_nothing(order: str, monkeypatch: Any, rng: np.random.Generator) -> None:
    """Lists that are cut again and again, and a threshold from a sample, leave the rows that a list of all leaves."""
    x, q = values(rng, "normal", 100_000, 64), values(rng, "normal", 2, 64)
    index = nv.NestedIndex(64, (16,), codes=COARSE)
    if order != "random":
        x = x[np.argsort(x @ q[0] * (-1 if order == "falling" else 1))] if order != "equal" else x[:1].repeat(len(x), 0)
    for part in np.split(x, [20_000, 20_100]):
        index.add(part)
    room, call_bytes = stages.ROOM, stages.CALL_BYTES
    for keep, stage in product((16, 100, 3000), (("b1", 64), ("b1", 16), ("i4", 64), ("i8", 64))):
        plan = [Stage(*stage, keep), RAW]
        monkeypatch.setattr(stages, "SAMPLE_KEEP", 2**62)
        monkeypatch.setattr(stages, "ROOM", len(x))
        wanted = index.search(q, keep, plan=plan, threads=1)
        for threads, nbytes, more, sampled in (
            (1, 2**14, BLOCK, 2**62), (3, 2**16, BLOCK, 1), (1, call_bytes, room, 2**62), (1, 2**16, room, 1),
        ):  # fmt: skip
            monkeypatch.setattr(stages, "CALL_BYTES", nbytes)
            monkeypatch.setattr(stages, "ROOM", more)
            monkeypatch.setattr(stages, "SAMPLE_KEEP", sampled)
            equal(index.search(q, keep, plan=plan, threads=threads), wanted)


@pytest.mark.parametrize("least", [-1e9, 0, 10, 20, 30, 40, 60, 80, 1e9])
def test_any_threshold(least: float, monkeypatch: Any, rng: np.random.Generator) -> None:
    """Where a sample held better rows than there are elsewhere, the scan begins again."""
    x = values(rng, "normal", 3000, 32)
    index, plan = filled(x), [Stage("b1", keep=100), RAW]
    wanted = index.search(x[:4], 10, plan=plan)
    monkeypatch.setattr(stages, "SAMPLE_FROM", 64)
    monkeypatch.setattr(stages, "SAMPLE_KEEP", 1)
    monkeypatch.setattr(stages.Run, "_sampled", lambda *_: (100.0, least))
    equal(index.search(x[:4], 10, plan=plan), wanted)


@pytest.mark.parametrize("sizes", [[30, 30], [30, 30, 140, 5, 45, 50]], ids=str)
def test_small_segments(sizes: list[int], monkeypatch: Any, rng: np.random.Generator) -> None:
    """Segments too short to take a run of rows from, and lists that hold rows of several when they are cut."""
    index, q, plan = nv.NestedIndex(32), values(rng, "normal", 4, 32), [Stage("b1", keep=6), RAW]
    for at, size in enumerate(sizes):
        index.add(values(rng, "normal", size, 32), np.arange(size) + 1000 * at if at % 2 else None)
    wanted = index.search(q, 5, plan=plan)
    monkeypatch.setattr(stages, "ROOM", BLOCK)
    equal(index.search(q, 5, plan=plan), wanted)
    monkeypatch.setattr(stages, "SAMPLE_FROM", 1)
    monkeypatch.setattr(stages, "SAMPLE_KEEP", 1)
    equal(index.search(q, 5, plan=plan), wanted)


@pytest.mark.parametrize("code", COARSE)
@metrics
def test_estimates_are_calibrated(metric: str, code: str, rng: np.random.Generator) -> None:
    """No bias, and errors as large as they are said to be, at each level."""
    x, q = values(rng, "normal", 400, 384), values(rng, "normal", 20, 384)
    x += np.float32(code == "b1")  # a mean that the signs are relative to
    index = filled(x, levels=(64, 164), metric=metric, codes=COARSE, rotate=True)
    for dims in index.levels:
        actual, errors = index.estimate(q, np.arange(400), code=code, dims=dims)
        assert actual.dtype == errors.dtype == np.float32
        assert (errors > 0).all()
        off = (actual - truth.scores(q[:, :dims], x[:, :dims], metric) * (-1 if metric == "l2" else 1)) / errors
        assert abs(off.mean()) < 0.1
        assert 0.7 < off.std() < 1.3


def test_estimate_arguments(rng: np.random.Generator) -> None:
    x, index = values(rng, "normal", 50, D), nv.NestedIndex(D, LEVELS, rotate=True)
    index.add(x)
    for ids, count in (([3, 6, 6], 3), (9, 1), ([], 0), (np.array([[7], [8]], np.uint8), 2)):
        assert [a.shape for a in index.estimate(x[:2], ids)] == [(2, count)] * 2
    for unknown in (-1, 50, 2**40):
        with pytest.raises(KeyError, match=f"id {unknown} is not in the index"):
            index.estimate(x[:1], [0, unknown])
    for code in ("i8", "raw", "b2"):
        with pytest.raises(ValueError, match=f"code must be one of 'b1', 'i4', got '{code}'"):
            index.estimate(x[:1], [0], code=code)
    with pytest.raises(ValueError, match="this index keeps no i4 codes"):
        index.estimate(x[:1], [0], code="i4")
    with pytest.raises(ValueError, match=r"cut at levels only, \(16, 50, 120\), got dims=17"):
        index.estimate(x[:1], [0], dims=17)
    with pytest.raises(TypeError, match="ids must be integers"):
        index.estimate(x[:1], [1.0])


@pytest.mark.parametrize("bounds", [(1,), (7,), (7, 107, 144), (64, 128, 256), (3, 40, 41, 500)], ids=str)
@floats
def test_rotation_is_orthogonal(dtype: Any, bounds: tuple[int, ...], rng: np.random.Generator) -> None:
    """Orthogonal inside each level and nothing between them, so that inner products of prefixes stay."""
    turn, slack = BlockRotation(np.asarray(bounds)), 1e-5 if dtype == np.float32 else 1e-13
    matrix, x = turn.apply(np.eye(bounds[-1], dtype=dtype)), values(rng, "normal", 20, bounds[-1]).astype(dtype)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(bounds[-1]), atol=slack)
    before, whole = x.copy(), turn.apply(x)
    np.testing.assert_array_equal(x, before)
    assert matrix.dtype == whole.dtype == dtype
    for begin, end in zip((0, *bounds), bounds, strict=False):
        assert not matrix[begin:end, :begin].any()
        assert not matrix[begin:end, end:].any()
        assert abs(matrix[begin:end, begin:end]).max() < 0.9 or end - begin < 4
        np.testing.assert_array_equal(turn.apply(x[:, :end]), whole[:, :end])
        np.testing.assert_allclose(whole[:, :end] @ whole[:, :end].T, x[:, :end] @ x[:, :end].T, atol=100 * slack * end)


@floats
def test_rotation_stays_the_same(dtype: Any) -> None:
    """The bits of a rotation in which nothing is rounded: signs made by it are only comparable with its own."""
    x, bounds = np.arange(-320, 320).reshape(8, 80).astype(dtype), np.asarray([16, 80])
    scaled = BlockRotation(bounds).apply(x) * 512
    np.testing.assert_array_equal(scaled, np.rint(scaled))
    assert zlib.crc32(scaled.astype("<i4").tobytes()) == 780919130
    assert (BlockRotation(bounds, seed=1).apply(x) * 512 != scaled).any()


@pytest.mark.parametrize("kind", KINDS)
@rotated
@metrics
def test_extreme_values(metric: str, rotate: bool, kind: str, rng: np.random.Generator) -> None:
    """Whatever the values, zero rows and queries among them: real ids, each once, with their exact scores."""
    x, q = values(rng, kind, 300, 40), values(rng, kind, 4, 40)
    x[::7], q[1], q[2] = 0, 0, x[1]
    index = filled(x, levels=(7, 20), metric=metric, codes=COARSE, rotate=rotate)
    with np.errstate(over="ignore"):
        exact = (truth.scores(q, x, metric) * (-1 if metric == "l2" else 1)).astype(np.float32)
    for code, dims in product(("b1", "i4", "i8"), (7, 40)):
        for plan in ([], [Stage(code, dims=7, keep=90)], [Stage("raw", dims=7, keep=90)]):
            for last in ([Stage(code, dims=dims)], [Stage(code, dims=dims, keep=20), RAW]):
                scores, ids = index.search(q, 20, plan=plan + last)
                assert all(len(set(row)) == 20 and min(row) >= 0 for row in ids.tolist())
                assert not np.isnan(scores).any()
            np.testing.assert_array_equal(scores, np.take_along_axis(exact, ids, 1))


@pytest.mark.parametrize("kind", KINDS)
@metrics
def test_extreme_estimates(metric: str, kind: str, rng: np.random.Generator) -> None:
    index = filled(values(rng, kind, 100, 40), levels=(7, 20), metric=metric, codes=COARSE)
    for code, dims in product(COARSE, (7, 40)):
        actual, errors = index.estimate(values(rng, kind, 4, 40), np.arange(100), code=code, dims=dims)
        assert not np.isnan(actual).any()
        assert (errors >= 0).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@rotated
@metrics
def test_add_after_one_that_failed(metric: str, rotate: bool, value: float, rng: np.random.Generator) -> None:
    """The mean is that of the rows that went in first."""
    x = values(rng, "normal", 200, D) + np.float32(1)
    wrong, index = np.pad(x, ((50, 0), (0, 0)), constant_values=9), nv.NestedIndex(D, LEVELS, metric, rotate=rotate)
    wrong[220, 3:5] = value, -value
    with pytest.raises(ValueError, match="row 220, column 3; only finite values"):
        index.add(wrong)
    index.add(x[:0])
    index.add(x)
    wanted = filled(x, levels=LEVELS, metric=metric, rotate=rotate)
    equal(index.search(x[:3], 9, plan=[Stage("b1")]), wanted.search(x[:3], 9, plan=[Stage("b1")]))


def test_explain(rng: np.random.Generator) -> None:
    """Rows of each stage; exact search reads codes and some of the rows; off a level, all rows; else nothing."""
    x = values(rng, "normal", 2000, D)
    index = filled(x, levels=LEVELS, codes=COARSE)
    plan = [Stage("b1", dims=50, keep=400), Stage("i4", dims=50, times=10), Stage("i8", keep=20), Stage("f32")]
    report = index.explain(x[:3], 5, plan)
    wanted = [("b1", 50, 2000, 400), ("i4", 50, 400, 50), ("i8", 120, 50, 20), ("raw", 120, 20, 5)]
    assert [(s.code, s.dims, s.rows, s.kept) for s in report.stages] == wanted
    assert all(s.nbytes >= s.rows * s.dims / 8 and s.seconds > 0 for s in report.stages)
    assert [line.split()[0] for line in str(report).splitlines()] == ["stage", "b1", "i4", "i8", "raw"]
    for nq, dims in ((1, D), (9, 16)):
        codes, rows = index.explain(x[:nq], 5, dims=dims).stages
        assert [(s.code, s.dims) for s in (codes, rows)] == [("i8", dims), ("raw", dims)]
        assert 2000 == codes.rows > codes.kept == rows.rows >= rows.kept == 5
    assert [(s.code, s.rows, s.kept) for s in index.explain(x[:2], 3000, dims=30).stages] == [("raw", 2000, 2000)]
    for some in (None, [Stage("b1", keep=9), RAW]):
        assert not sum(stage.nbytes for stage in index.explain(x[:0], 5, some).stages)


def test_wrong_stage() -> None:
    some: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"code": "b2"}, ValueError, "code must be one of 'b1', 'i4', 'i8', 'raw', 'f32', 'f16', 'bf16', got 'b2'"),
        ({"keep": 5, "times": 2}, ValueError, "keep or times, not both: got keep=5, times=2"),
        *(({name: 0}, ValueError, f"{name} must be at least 1, got 0") for name in ("dims", "keep")),
        *(({name: 2.0}, TypeError, f"{name} must be an integer, got 2.0") for name in ("dims", "keep")),
        *(({"times": t}, ValueError, rf"a number from 1 to 2\^31, got {t!r}") for t in (0.5, float("nan"), np.inf)),
        *(({"times": t}, TypeError, f"a number, got {t!r}") for t in ("2", True)),
    ]
    for options, error, message in some:
        with pytest.raises(error, match=message):
            Stage(**{"code": "b1"} | options)


def test_wrong_plan(rng: np.random.Generator) -> None:
    index = filled(values(rng, "normal", 20, D), levels=LEVELS, rotate=True)
    some: list[tuple[Any, type[Exception], str]] = [
        ("raw", TypeError, "plan must be a list of Stage, got 'raw'"),
        (["b1", RAW], TypeError, "plan must be a list of Stage"),
        ([], ValueError, "plan has no stages; leave it out for exact search"),
        ([Stage("i4", keep=9), RAW], ValueError, r"keeps no i4 codes; make it with codes=\('b1', 'i4'\)"),
        ([Stage("b1", keep=9), Stage("f16")], ValueError, 'are float32, a stage asks for float16; use "raw"'),
        ([Stage("b1", keep=4), RAW], ValueError, r'Stage\("b1"\) keeps 4 rows, fewer than the k=5 asked for'),
        ([Stage("b1"), RAW], ValueError, r'Stage\("b1"\) needs keep or times'),
        ([Stage("b1", keep=9), Stage("raw", keep=5)], ValueError, "the last stage keeps the k rows asked for"),
        ([Stage("b1", keep=9), Stage("i8", times=2), RAW], ValueError, "stage 2 keeps 10 rows of the 9 that reach it"),
        ([Stage("b1", dims=51, keep=9), RAW], ValueError, "dims must be between 1 and 50, got 51"),
        ([Stage("b1", dims=30, keep=9), RAW], ValueError, r"only, \(16, 50, 120\), got dims=30"),
    ]
    for (plan, error, message), run in product(some, (index.search, index.explain)):
        with pytest.raises(error, match=message):
            run(np.ones((1, D)), 5, plan=plan, dims=50)
