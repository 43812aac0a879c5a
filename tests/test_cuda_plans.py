"""Plans on a GPU: the bits of the CPU's answers, also where lists are too short for what reaches them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nestvec as nv
from inputs import values
from nestvec import Stage
from nestvec.cuda import dense, lists, plans
from nestvec.cuda.dense import CudaNestedIndex

RAW = Stage("raw")
PLANS = [
    [Stage("b1", keep=40), RAW],
    [Stage("i4", keep=40), RAW],
    [Stage("b1", dims=40, keep=300), Stage("b1", keep=90), Stage("i4", dims=50, keep=60), Stage("i8", keep=30), RAW],
    [Stage("i8", dims=33, keep=50), Stage("i4")],
    [Stage("raw", dims=20, keep=70), Stage("b1", keep=35), Stage("raw", dims=64, keep=30), Stage("i8")],
    [Stage("raw", dims=64, keep=50), RAW],
    [Stage("b1", keep=10**6), Stage("raw", keep=10**6), Stage("i8", keep=25), RAW],
    [Stage("b1")],
    [Stage("i4", dims=64)],
    [Stage("i8")],
    [RAW],
]
CODES = ("b1", "i4")
METRICS = pytest.mark.parametrize("metric", ["ip", "l2", "cosine"])


def cut(plan: list[Stage], d: int) -> list[Stage]:
    """The plan for vectors of d dims."""
    dims = [stage.dims and min(stage.dims, d) for stage in plan]
    return [Stage(stage.code, end, stage.keep) for stage, end in zip(plan, dims, strict=True)]


def same(there: CudaNestedIndex, index: nv.NestedIndex, q: np.ndarray, k: int, **options: Any) -> None:
    for found, right in zip(there.search(q, k, **options), index.search(q, k, **options), strict=True):
        np.testing.assert_array_equal(found, right, str(options), strict=True)


def segmented(index: nv.NestedIndex, x: np.ndarray, rng: np.random.Generator) -> nv.NestedIndex:
    """Rows in three adds, those of the second with ids in any order, and some removed."""
    third = len(x) // 3
    index.add(x[:third])
    index.add(x[third : 2 * third], rng.permutation(third) + 10**6)
    index.add(x[2 * third :])
    index.remove(index.ids[rng.random(index.ntotal) < 0.1])
    return index


@pytest.fixture
def losses(device: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lists as short as may be, and rounds; for each search, how many of its queries' lists had lost rows."""
    for module, names in ((plans, ("FIRST", "ROOM", "REACHED")), (dense, ("FIRST", "ROOM"))):
        for name in names:
            monkeypatch.setattr(module, name, 64)
    made: list[lists.Lists] = []
    found: list[int] = []
    begin = lists.Lists.begin

    def remember(self: lists.Lists, least: float = -np.inf) -> None:
        begin(self, least)
        made.append(self)

    def noting(call: Any) -> Any:
        def noted(*given: Any) -> None:
            found.append(int(np.count_nonzero(made[-1].lost.numpy())))
            call(*given)

        return noted

    monkeypatch.setattr(lists.Lists, "begin", remember)
    for name in ("scan_lost", "top_k_of_rows"):
        monkeypatch.setattr(device.native, name, noting(getattr(device.native, name)))
    return found


@METRICS
@pytest.mark.parametrize(("d", "n", "nq"), [(1, 1, 1), (15, 64, 2), (65, 333, 3), (100, 1000, 9), (100, 700, 1)])
def test_plans_give_the_bits_of_the_cpu(
    device: Any, rng: np.random.Generator, d: int, n: int, nq: int, metric: str
) -> None:
    x, q = rng.standard_normal((n, d), np.float32) + np.float32(0.3), rng.standard_normal((nq, d), np.float32)
    index = nv.NestedIndex(d, sorted({min(33, d), min(64, d)}), metric, codes=CODES)
    index.add(x)
    there = CudaNestedIndex(index, device)
    for k, plan in zip((1, 10, 5, 20) * 3, PLANS, strict=False):
        same(there, index, q, k, plan=cut(plan, d))
        same(there, index, q, k, plan=cut(plan, max(1, d // 2)), dims=max(1, d // 2))
    for k in (n, n + 7):
        same(there, index, q, k, plan=[Stage("b1", keep=k), Stage("i8")])
        same(there, index, q, k, plan=[Stage("i4")])


@METRICS
@pytest.mark.parametrize("rows", ["float32", "float16", "bfloat16", None])
def test_segments_removed_rows_and_filters(
    device: Any, rng: np.random.Generator, rows: str | None, metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    d, n, nq = 80, 500, 5
    x, q = rng.standard_normal((n, d), np.float32), rng.standard_normal((nq, d), np.float32)
    index = nv.NestedIndex(d, (33, 64), metric, rows, codes=(*CODES, "i8"), center=metric != "ip")
    segmented(index, x, rng)
    there = CudaNestedIndex(index, device)
    some = [rng.choice(index.ids, size, replace=False) for size in (0, 3, 60, 200, 400)]
    for number, plan in enumerate(PLANS if rows else [PLANS[3], PLANS[7], PLANS[8]]):
        with monkeypatch.context() as patch:
            patch.setattr(plans, "GROUP", 2 if number % 2 else 1024)  # queries of one search in several batches
            same(there, index, q, 10, plan=plan)
            same(there, index, q, 10, plan=plan, filter=some[number % 4])
            same(there, index, q, 10, plan=plan, filter=some)


@pytest.mark.parametrize("nq", [1, 2, 3, 9, 130])
@pytest.mark.parametrize("code", ["b1", "i4", "i8"])
def test_many_dims_and_queries(device: Any, rng: np.random.Generator, code: str, nq: int) -> None:
    """More queries than a block holds, more dims than are staged at a time."""
    d = 2200 if nq < 9 else 300
    x, q = rng.standard_normal((150, d), np.float32), rng.standard_normal((nq, d), np.float32)
    index = nv.NestedIndex(d, (10, 200), "cosine", codes=CODES)
    index.add(x)
    there = CudaNestedIndex(index, device)
    same(there, index, q, 7, plan=[Stage(code)])
    same(there, index, q, 7, plan=[Stage("i8" if code == "b1" else "b1", keep=140), Stage(code, dims=d - 3)])


@METRICS
def test_rotated_and_transformed(device: Any, rng: np.random.Generator, metric: str) -> None:
    x, q = rng.standard_normal((400, 90), np.float32), rng.standard_normal((4, 90), np.float32)
    turn = np.linalg.qr(rng.standard_normal((90, 90)))[0].astype(np.float32)
    index = nv.NestedIndex(90, (32, 64), metric, codes=CODES, rotate=True, transform=turn)
    index.add(x)
    there = CudaNestedIndex(index, device)
    for plan in (
        [Stage("b1", dims=32, keep=60), Stage("b1", keep=30), RAW],
        [Stage("b1")],
        [Stage("i4", keep=20), RAW],
    ):
        same(there, index, q, 5, plan=plan)


KINDS = ["equal", "few", "zeros", "rising", "normal"]


def awkward(kind: str, n: int, d: int, rng: np.random.Generator) -> np.ndarray:
    """Rows that tie, or that are the better the later they come."""
    x = rng.standard_normal((n, d)).astype(np.float32)
    if kind == "equal":
        x[:] = x[0]
    if kind == "few":
        x = x[rng.integers(0, 2, n)]
    if kind == "zeros":
        x[rng.random(n) < 0.9] = 0
    if kind == "rising":
        x = np.arange(1, n + 1, dtype=np.float32)[:, None] * abs(x[:1])
    return x


@METRICS
@pytest.mark.parametrize("kind", KINDS)
def test_ties_and_lists_that_are_too_short(
    device: Any, rng: np.random.Generator, losses: list[int], kind: str, metric: str
) -> None:
    """Of equal estimates the first rows go on, whether lists hold them all or lose some."""
    n, d = 1700, 40
    x, q = awkward(kind, n, d, rng), abs(rng.standard_normal((3, d))).astype(np.float32)
    index = nv.NestedIndex(d, (20,), metric, codes=CODES, center=False)
    segmented(index, x, rng)
    there = CudaNestedIndex(index, device)
    some = [rng.choice(index.ids, size, replace=False) for size in (900, 1300, 1400)]
    for plan in PLANS[:9]:
        same(there, index, q[:2], 12, plan=cut(plan, d))
        same(there, index, q, 12, plan=cut(plan, d), filter=some)
    assert kind == "rising" or (max(losses) > 0) == (kind != "normal")
    losses.clear()
    same(there, index, q, 1)
    same(there, index, q, 9, filter=some)
    assert len(losses) == 2
    assert kind != "equal" or losses == [3, 3]


@METRICS
@pytest.mark.parametrize("kind", ["wide", "denormal", "huge", "one-hot"])
def test_awkward_values(device: Any, rng: np.random.Generator, kind: str, metric: str) -> None:
    """Estimates that overflow, and zeros of both signs."""
    index = nv.NestedIndex(70, (33, 64), metric, codes=CODES)
    index.add(values(rng, kind, 330, 70))
    there = CudaNestedIndex(index, device)
    for plan in PLANS[:4] + PLANS[7:10]:
        same(there, index, values(rng, kind, 3, 70), 10, plan=plan)


def test_rounds_take_each_block_once() -> None:
    for n in (0, 1, 64, 65, 1000, 4096, 4097, 100_000):
        for first, growth in ((64, 2), (64, 8), (4096, 8), (128, 3)):
            taken: list[int] = []
            for stride, skip in lists.rounds(n, first, growth):
                some = [b for b in range(0, -(-n // 64), stride) if not skip or b % (stride * skip)]
                assert taken or len(some) * 64 <= first
                assert not taken or len(some) + len(taken) <= growth * len(taken) + growth
                taken += some
            assert sorted(taken) == list(range(-(-n // 64)))


def test_recall_and_plans_of_tuning(device: Any, rng: np.random.Generator) -> None:
    x = (rng.standard_normal((3000, 8)) @ rng.standard_normal((8, 64))).astype(np.float32)
    index = nv.NestedIndex(64)
    index.add(x)
    plan = index.tune(k=5, recall=0.8, sample=30)
    there = CudaNestedIndex(index, device)
    same(there, index, x[:3], 5, recall=0.8)
    same(there, index, x[:3], 5, recall=1.0)
    same(there, index, x[:3], 5, plan=plan)
    same(there, index, x[:0], 5, plan=[Stage("b1", keep=50), RAW])


def test_queries_on_the_device(device: Any, rng: np.random.Generator) -> None:
    """Answers stay there; queries that are not numbers find nothing where nobody looks."""
    x, q = rng.standard_normal((300, 60), np.float32), rng.standard_normal((4, 60), np.float32)
    index = nv.NestedIndex(60, codes=CODES, rotate=True)
    index.add(x)
    there, plan = CudaNestedIndex(index, device), [Stage("b1", keep=60), Stage("i4", dims=40, keep=30), RAW]
    D, I = index.search(q, 5, plan=plan)
    q[2, 7] = np.nan
    found = there.search(device.put(q), 5, plan=plan, check=False)
    D[2], I[2] = -np.inf, -1
    np.testing.assert_array_equal(found[0].numpy(), D, strict=True)
    np.testing.assert_array_equal(found[1].numpy(), I, strict=True)
    with pytest.raises(ValueError, match="row 2, column 7"):
        there.search(device.put(q), 5, plan=plan)


def test_refusals(device: Any, rng: np.random.Generator) -> None:
    x = rng.standard_normal((4000, 16), np.float32)
    index, codes = nv.NestedIndex(16), nv.NestedIndex(16, rows=None)
    index.add(x)
    codes.add(x)
    there, rowless = CudaNestedIndex(index, device), CudaNestedIndex(codes, device)
    with pytest.raises(ValueError, match="at most 2048 rows"):
        there.search(x[:1], 5, plan=[Stage("raw", keep=3000), Stage("b1", keep=10), RAW])
    with pytest.raises(ValueError, match="at most 2048 results"):
        there.search(x[:1], 3000, plan=[Stage("b1")])
    with pytest.raises(ValueError, match="plan or recall, not both"):
        there.search(x[:1], 5, plan=[RAW], recall=0.5)
    with pytest.raises(ValueError, match="keeps no i4 codes"):
        there.search(x[:1], 5, plan=[Stage("i4")])
    with pytest.raises(ValueError, match="keeps only b1"):
        rowless.search(x[:1], 5)
    with pytest.raises(ValueError, match="keeps only b1"):
        rowless.search(x[:1], 5, plan=[Stage("b1", keep=10), RAW])
