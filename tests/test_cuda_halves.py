"""Scans of stored rows by products of halves on a GPU, and searches of arrays: the bits of the CPU's answers."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import nestvec as nv
from nestvec.cuda import halves, prefix_scores, prefix_topk
from nestvec.cuda.dense import CudaNestedIndex, DeviceTask, Exact
from nestvec.cuda.device import DeviceArray
from nestvec.cuda.foreign import incoming
from nestvec.cuda.halves import Halved, rounds
from nestvec.cuda.lists import Lists
from nestvec.cuda.stateless import Given

TYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
METRICS = ["ip", "l2", "cosine"]
NONE = -np.inf


@pytest.fixture(params=TYPES)
def row_type(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def small_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds so small that thresholds matter with a few hundred rows."""
    monkeypatch.setattr(halves, "FIRST", 64)


def put(device: Any, rows: np.ndarray) -> Any:
    """Rows in the memory of a device, of a type that is known where numpy has none."""
    array = device.put(rows.view(np.uint16) if rows.dtype.itemsize == 2 else rows)
    array.type = rows.dtype.name
    return array


def search_of(device: Any, q: np.ndarray, x: np.ndarray, k: int, metric: str) -> Exact:
    rows = Given(put(device, x))
    return Exact(rows, DeviceTask(device.put(q), k, x.shape[1], metric, rows.row_type), 0)


def check(device: Any, q: np.ndarray, x: np.ndarray, k: int, metric: str, dims: int | None = None) -> None:
    found = prefix_topk(q, x, k, dims=dims, metric=metric, device=device)
    for mine, right in zip(found, nv.prefix_topk(q, x, k, dims=dims, metric=metric), strict=True):
        np.testing.assert_array_equal(mine, right)


def bounds_of(device: Any, q: np.ndarray, x: np.ndarray, metric: str, least: float = NONE) -> tuple[Any, ...]:
    """Bounds of all rows, (nq, n), and multiply and offset."""
    halved = Halved(search_of(device, q, x, 1, metric))
    lists = Lists(device, len(q), len(x), 0)
    lists.begin(least)
    halved.list_rows(1, 0, None, 0, lists)
    rows, values, counts = (array.numpy() for array in (lists.rows, lists.values, lists.counts))
    found = np.full((len(q), len(x)), -np.inf)
    for query, count in enumerate(counts):
        assert len(set(rows[query, :count])) == count
        found[query, rows[query, :count]] = values[query, :count]
    return found, halved.multiply.numpy(), halved.offset.numpy()


def exact_in_units(q: np.ndarray, x: np.ndarray, metric: str, multiply: np.ndarray, offset: np.ndarray) -> Any:
    wide, rows = q.astype(np.longdouble), x.astype(np.float32).astype(np.longdouble)
    score = wide @ rows.T
    if metric == "l2":
        score = -((wide[:, None] - rows[None]) ** 2).sum(axis=2)
    if metric == "cosine":
        norms = np.sqrt((wide**2).sum(axis=1))[:, None] * np.sqrt((rows**2).sum(axis=1))
        score = np.divide(score, norms, out=np.zeros_like(score), where=norms > 0)
    return score * multiply[:, None].astype(np.longdouble) + offset[:, None].astype(np.longdouble)


def rounding(q: np.ndarray, x: np.ndarray, metric: str, multiply: np.ndarray, offset: np.ndarray) -> Any:
    """What `lanes.threshold` leaves for roundings of an l2 score."""
    exact = exact_in_units(q, x, metric, multiply, offset)
    return (np.abs(exact - offset[:, None]) + offset[:, None]) * 2.0**-19 if metric == "l2" else 0 * exact


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(
    ("d", "n", "nq"),
    [
        *[(1, 1, 1), (7, 17, 8), (15, 300, 9), (16, 16, 17), (17, 15, 1), (63, 130, 33), (64, 300, 3), (65, 300, 9)],
        *[(100, 1000, 2), (256, 300, 9), (9, 200, 130), (1100, 70, 9), (900, 17, 33)],
    ],
)
def test_searches_of_arrays_give_the_bits_of_the_cpu(
    device: Any, rng: np.random.Generator, small_rounds: None, row_type: str, metric: str, d: int, n: int, nq: int
) -> None:
    x = rng.standard_normal((n, d)).astype(TYPES[row_type])
    q = rng.standard_normal((nq, d), np.float32)
    for k in (1, 10, n + 1):
        check(device, q, x, k, metric)
    np.testing.assert_array_equal(
        prefix_scores(q[:9], x[:300], metric=metric, device=device), nv.prefix_scores(q[:9], x[:300], metric=metric)
    )


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("d", [5, 96])
def test_magnitudes_from_the_smallest_to_the_largest(
    device: Any, rng: np.random.Generator, small_rounds: None, row_type: str, metric: str, d: int
) -> None:
    low, high = (-7, 4) if row_type == "float16" else (-30, 30)
    x = rng.standard_normal((300, d)) * 10.0 ** rng.uniform(low, high, (300, 1))
    q = (rng.standard_normal((9, d)) * 10.0 ** rng.uniform(low, high, (9, 1))).astype(np.float32)
    x[::7], q[3] = 0, 0
    x[5:8] = x[0] = x[200]
    check(device, q, x.astype(TYPES[row_type]), 10, metric)


@pytest.mark.parametrize("metric", METRICS)
def test_ties_and_duplicates_beyond_what_lists_hold(
    device: Any, rng: np.random.Generator, small_rounds: None, row_type: str, metric: str
) -> None:
    x = np.repeat(rng.standard_normal((3, 20)), 200, axis=0).astype(TYPES[row_type])
    check(device, rng.standard_normal((3, 20), np.float32), x, 5, metric)
    check(device, np.zeros((1, 20), np.float32), x, 5, metric)


@pytest.mark.parametrize("stride", [40, 41])
def test_rows_of_a_wider_array_are_read_in_place(
    device: Any, rng: np.random.Generator, small_rounds: None, row_type: str, stride: int
) -> None:
    x = rng.standard_normal((200, stride)).astype(TYPES[row_type])
    q = rng.standard_normal((3, stride), np.float32)
    for dims in (1, 8, 33, 40):
        wide = x.copy()
        wide[:, dims:] = np.nan
        found = prefix_topk(q, put(device, wide), 4, dims=dims)
        for mine, right in zip(found, nv.prefix_topk(q, x, 4, dims=dims), strict=True):
            np.testing.assert_array_equal(mine, right)
        np.testing.assert_array_equal(prefix_scores(q, put(device, wide), dims=dims), nv.prefix_scores(q, x, dims=dims))
        check(device, q, x, 4, "ip", dims)


class Interface:
    """An array of another library."""

    def __init__(self, array: np.ndarray) -> None:
        self._array, self.__cuda_array_interface__ = array, {**array.__array_interface__, "version": 3}


@pytest.mark.parametrize("kind", ["float32", "float16", "int16", "float64"])
def test_leading_dims_of_an_array_of_a_device(device: Any, rng: np.random.Generator, kind: str) -> None:
    if not device.native.emulated:
        pytest.skip("a GPU's memory is none of the host's")
    x, q = (rng.standard_normal((50, 40)) * 100).astype(kind), rng.standard_normal((3, 24), np.float32)
    found = prefix_topk(q, Interface(x[:, :24]), 4, dims=23, device=device)
    for mine, right in zip(found, nv.prefix_topk(q, x[:, :24], 4, dims=23), strict=True):
        np.testing.assert_array_equal(mine, right)
    view = incoming(Interface(x[:, :24]), device, "x", wide=True)
    assert (view.buffer.pointer, view.shape, view.pitch) == (x.ctypes.data, (50, 24), 40)
    assert incoming(Interface(x[:, :24]), device, "x").pitch == 24


@pytest.mark.parametrize("metric", METRICS)
def test_queries_of_a_device_have_results_there(device: Any, rng: np.random.Generator, metric: str) -> None:
    x, q = rng.standard_normal((90, 20), np.float32), rng.standard_normal((3, 20), np.float32)
    there = device.put(q)
    found = [
        *prefix_topk(there, x, 4, metric=metric, device=device),
        prefix_scores(there, x, metric=metric, device=device),
    ]
    right = [*nv.prefix_topk(q, x, 4, metric=metric), nv.prefix_scores(q, x, metric=metric)]
    for mine, other in zip(found, right, strict=True):
        assert isinstance(mine, DeviceArray)
        np.testing.assert_array_equal(mine.numpy(), other)


def test_queries_and_rows_with_nan(device: Any, rng: np.random.Generator, small_rounds: None, row_type: str) -> None:
    x = rng.standard_normal((300, 20)).astype(TYPES[row_type])
    q = rng.standard_normal((3, 20), np.float32)
    q[1, 7] = np.nan
    with pytest.raises(ValueError, match="q holds nan at row 1, column 7"):
        prefix_topk(device.put(q), x, 4, device=device)
    D, I = prefix_topk(device.put(q), x, 4, device=device, check=False)
    right = nv.prefix_topk(q[[0, 2]], x, 4)
    np.testing.assert_array_equal(D.numpy()[[0, 2]], right[0])
    np.testing.assert_array_equal(I.numpy(), [right[1][0], [-1] * 4, right[1][1]])
    bad = np.concatenate([x, x[:9]])
    bad[300:, 3] = np.nan
    np.testing.assert_array_equal(prefix_topk(q[:1], put(device, bad), 4)[1], right[1][:1])


@pytest.mark.parametrize("metric", METRICS)
def test_an_index_is_searched_between_its_levels(
    device: Any, rng: np.random.Generator, small_rounds: None, row_type: str, metric: str
) -> None:
    index = nv.NestedIndex(40, metric=metric, rows=row_type, levels=(8, 40))
    for count in (70, 300, 1):
        index.add(rng.standard_normal((count, 40), np.float32))
    index.remove(np.arange(0, 371, 5))
    q = rng.standard_normal((9, 40), np.float32)
    there = CudaNestedIndex(index, device)
    for dims in (7, 9, 39):
        for chosen in (None, np.arange(60, 140), [np.arange(i, 371, 9) for i in range(9)]):
            found = there.search(q, 10, dims=dims, filter=chosen)
            for mine, right in zip(found, index.search(q, 10, dims=dims, filter=chosen), strict=True):
                np.testing.assert_array_equal(mine, right)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("size", range(4))
def test_no_bound_is_below_the_score_and_few_reach_the_best(
    device: Any, rng: np.random.Generator, row_type: str, metric: str, size: int
) -> None:
    scale = ([1e-7, 1e-4, 1, 1e4] if row_type == "float16" else [1e-30, 1e-7, 1, 1e30])[size]
    x = (rng.standard_normal((1000, 96)) * scale).astype(TYPES[row_type])
    q = (rng.standard_normal((3, 96)) * scale).astype(np.float32)
    bounds, multiply, offset = bounds_of(device, q, x, metric)
    exact = exact_in_units(q, x, metric, multiply, offset)
    assert (bounds >= exact - rounding(q, x, metric, multiply, offset)).all()
    best = np.sort(exact, axis=1)[:, -10]
    assert ((bounds >= best[:, None]).sum(axis=1) < 20).all()


def test_bounds_hold_where_all_roundings_add_up(device: Any, rng: np.random.Generator, row_type: str) -> None:
    """Rows along what a query lost when it was rounded, and float32 rows that all lose as they are rounded."""
    q = rng.uniform(1, 2, (2, 64)).astype(np.float32)
    half = q.astype(TYPES["bfloat16" if row_type == "float32" else row_type]).astype(np.float32)
    x = np.stack([(q - half)[0] * 2.0**8, np.full(64, 1 + 0.99 * 2.0**-8)]).astype(TYPES[row_type])
    q[1] = half[1]
    for metric in METRICS:
        bounds, multiply, offset = bounds_of(device, q, x, metric)
        exact = exact_in_units(q, x, metric, multiply, offset)
        assert (bounds >= exact - rounding(q, x, metric, multiply, offset)).all()


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("largest", [4e37, 3e38])
def test_sums_that_leave_float32_on_the_way(
    device: Any, rng: np.random.Generator, small_rounds: None, kind: str, metric: str, largest: float
) -> None:
    """The dims that are multiplied first are negative, so that a sum is lost which would be the largest."""
    x = rng.standard_normal((400, 40)) * 1e30
    first = (np.arange(40) % 8 < 4) & (np.arange(40) < 32)
    x[::7] = np.where(first, -largest, largest)
    check(device, rng.choice([1, 1.125], (9, 40)).astype(np.float32), x.astype(TYPES[kind]), 70, metric)


def test_bounds_of_zeros(device: Any, rng: np.random.Generator, row_type: str) -> None:
    x = np.zeros((3, 20), TYPES[row_type])
    for metric in METRICS:
        bounds, *_ = bounds_of(device, rng.standard_normal((2, 20), np.float32), x, metric)
        np.testing.assert_allclose(bounds, 0, atol=1e-30)


def test_only_rows_that_reach_the_threshold_are_listed(device: Any, rng: np.random.Generator, row_type: str) -> None:
    x = rng.standard_normal((200, 33)).astype(TYPES[row_type])
    q = rng.standard_normal((10, 33), np.float32)
    everything, *_ = bounds_of(device, q, x, "ip")
    least = np.float32(np.median(everything))
    some, *_ = bounds_of(device, q, x, "ip", float(least))
    np.testing.assert_array_equal(some, np.where(everything >= least, everything, -np.inf))


@pytest.mark.parametrize("metric", METRICS)
def test_a_scan_needs_no_search_that_leaves_nothing_out(
    device: Any, rng: np.random.Generator, small_rounds: None, row_type: str, metric: str
) -> None:
    x = rng.standard_normal((1000, 33)).astype(TYPES[row_type])
    q = rng.standard_normal((9, 33), np.float32)
    search = search_of(device, q, x, 7, metric)
    assert not halves.scan(search, None, 0).numpy().any()
    np.testing.assert_array_equal(search.best.ids.numpy(), nv.prefix_topk(q, x, 7, metric=metric)[1])


@pytest.mark.parametrize("n", [1, 64, 65, 700, 5000])
@pytest.mark.parametrize("growth", [2, 8, 32])
def test_rounds_take_each_row_once(device: Any, rng: np.random.Generator, n: int, growth: int) -> None:
    x, q = rng.standard_normal((n, 1), np.float32), np.ones((1, 1), np.float32)
    halved = Halved(search_of(device, q, x, 1, "ip"))
    lists, taken = Lists(device, 1, n, 0), [0]
    for stride, skip in rounds(n, 128, growth):
        halved.list_rows(stride, skip, None, 0, lists)
        taken.append(int(lists.counts.numpy()[0]))
        assert taken[-1] <= max(128, growth * taken[-2] + 64 * growth)
    np.testing.assert_array_equal(np.sort(lists.rows.numpy()[0]), np.arange(n))


def test_arguments_are_checked(device: Any) -> None:
    x = np.ones((3, 4), np.float32)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        prefix_topk(x, x, 0, device=device)
    with pytest.raises(ValueError, match="at most 2048 results"):
        prefix_topk(x[:1], np.ones((2100, 4), np.float32), 2100, device=device)
    with pytest.raises(ValueError, match="dims must be between 1 and 4, got 5"):
        prefix_topk(x, put(device, x), 1, dims=5)
    with pytest.raises(ValueError, match="metric must be one of"):
        prefix_scores(x, put(device, x), metric="dot")
    with pytest.raises(ValueError, match="at row 1, column 0"):
        prefix_topk(x, np.float32([[1, 2, 3, 4], [np.nan, 0, 0, 0]]), 1, device=device)
    with pytest.raises(TypeError, match="x has dtype bool"):
        prefix_topk(x, device.put(x > 0), 1)
    with pytest.raises(ValueError, match="x must be a 2-D array"):
        prefix_topk(x, device.put(x[:, 0]), 1)
    assert prefix_scores(x[:0], x, device=device).shape == (0, 3)
    D, I = prefix_topk(x, x[:0], 2, metric="l2", device=device)
    assert (np.isinf(D) & (D > 0)).all()
    assert (I == -1).all()
