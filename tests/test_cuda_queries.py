"""Queries that a device makes ready: the bits of the CPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import nestvec as nv
from nestvec import arrays, coding, parts, search
from nestvec.cuda import queries as there
from nestvec.rotation import BlockRotation

METRICS = ["ip", "l2", "cosine"]
BOUNDS = [(1,), (7,), (16,), (17,), (3, 64, 65), (64, 128, 256, 300), (100,), (1, 2, 1030, 2100)]
SCALES = [1.0, 1e-42, 1e-30, 1e30, 3e38]


def vectors(rng: np.random.Generator, nq: int, d: int, scale: float = 1.0) -> Any:
    """Some of them zero, some zero but for one dim, some of small integers."""
    q = rng.standard_normal((nq, d), np.float32)
    q[::5] = rng.integers(-3, 4, q[::5].shape)
    q[1::7] = 0
    q[2::7, : d // 2] = 0
    with np.errstate(all="ignore"):
        return np.clip(q.astype(np.float64) * scale, -3.4e38, 3.4e38).astype(np.float32)


def same(found: Any, right: Any) -> None:
    """Bit for bit, but for the sign of zeros."""
    found, right = found.numpy(), np.asarray(right)
    assert found.dtype == right.dtype
    np.testing.assert_array_equal(found, right)


def frame(metric: str, bounds: Any, rng: np.random.Generator, rotated: bool, scale: float = 1.0) -> coding.Frame:
    ends = np.asarray(bounds, np.int64)
    center = rng.standard_normal(bounds[-1]) * scale * 0.3
    return coding.Frame(metric, ends, center, BlockRotation(ends) if rotated else None)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
def test_packed_queries(device: Any, rng: np.random.Generator, metric: str, bounds: tuple[int, ...]) -> None:
    """Every array that certified scans read, over all levels and fewer."""
    q, ends = vectors(rng, 9, bounds[-1]), np.asarray(bounds, np.int64)
    for some in {1, len(bounds)}:
        task = parts.Task(q, 1, bounds[some - 1], metric, "float32")
        right = search.Packed(task, ends[:some], 0)
        found = there.Packed.of(device.put(q), ends[:some], device.put(ends), metric, 0)
        for name in ("codes", "sums", "stats", "multiply", "offset"):
            same(getattr(found, name), getattr(right, name))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("metric", METRICS)
def test_packed_queries_of_any_size(device: Any, rng: np.random.Generator, metric: str, scale: float) -> None:
    q, ends = vectors(rng, 40, 33, scale), np.asarray([20, 33])
    right = search.Packed(parts.Task(q, 1, 33, metric, "float32"), ends, 0)
    found = there.Packed.of(device.put(q), ends, device.put(ends), metric, 0)
    for name in ("codes", "sums", "stats", "multiply", "offset"):
        same(getattr(found, name), getattr(right, name))


def check_coded(device: Any, q: Any, code: str, dims: int, widest: int, how: coding.Frame) -> None:
    right = coding.encode(q, code, dims, widest, how)
    found = there.encode(device.put(q), code, dims, widest, there.Frame(how, device), 0)
    same(found.words if code == "b1" else found.codes, right.codes)
    same(found.shifts, np.asarray(right.shifts, np.int64))
    same(found.lifts, np.asarray(right.lifts, np.float32))
    same(found.units, right.units)
    same(found.offsets, right.offsets)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("code", ["b1", "i4", "i8"])
@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
def test_coded_queries(device: Any, rng: np.random.Generator, metric: str, code: str, bounds: tuple[int, ...]) -> None:
    """At levels and between them, in units of this stage and of a wider one."""
    d, q = bounds[-1], vectors(rng, 9, bounds[-1])
    how = frame(metric, bounds, rng, rotated=False)
    for dims, widest in {(d, d), (bounds[0], d), (max(1, d // 2), max(1, d // 2)), (max(1, d // 3), d)}:
        check_coded(device, q, code, dims, widest, how)
        if widest < d:  # queries may be cut
            check_coded(device, np.ascontiguousarray(q[:, :widest]), code, dims, widest, how)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("bounds", BOUNDS, ids=str)
def test_signs_of_rotated_queries(device: Any, rng: np.random.Generator, metric: str, bounds: tuple[int, ...]) -> None:
    how, q = frame(metric, bounds, rng, rotated=True), vectors(rng, 7, bounds[-1])
    for dims in {bounds[0], bounds[-1]}:
        check_coded(device, q, "b1", dims, bounds[-1], how)
        check_coded(device, np.ascontiguousarray(q[:, :dims]), "b1", dims, dims, how)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("code", ["b1", "i4"])
@pytest.mark.parametrize("metric", METRICS)
def test_coded_queries_of_any_size(device: Any, rng: np.random.Generator, metric: str, code: str, scale: float) -> None:
    q = vectors(rng, 40, 33, scale)
    for rotated in (False, True):
        check_coded(device, q, code, 33, 33, frame(metric, (20, 33), rng, rotated, scale))


def test_digits_know_the_smallest_and_largest_codes(device: Any) -> None:
    """The largest value of each sign, and halves, which go to even."""
    q = np.asarray([[15.0, -15.0, 0.5, 1.5, -0.5, -2.5, 7.0, 0.0]], np.float32)
    ends = np.asarray([8])
    how = coding.Frame("ip", ends, np.zeros(8), None)
    check_coded(device, q, "b1", 8, 8, how)
    found = there.encode(device.put(q), "b1", 8, 8, there.Frame(how, device), 0)
    assert found.codes.numpy()[0, :8].tolist() == [15, -15, 0, 2, 0, -2, 7, 0]


def transforms(rng: np.random.Generator) -> list[nv.Transform]:
    x = rng.standard_normal((50, 70), np.float32)
    return [
        nv.Transform(rng.standard_normal((70, 33))),
        nv.Transform(rng.standard_normal((3, 1))),
        nv.Transform(rng.standard_normal((33, 100))),
        nv.Transform(rng.permutation(65)),
        nv.fit_rotation(x, "block-pca", (16, 70)),
        nv.fit_rotation(x, "hadamard", (1, 17, 70)),
        nv.fit_rotation(rng.standard_normal((5, 5000), np.float32), "hadamard", (5000,)),  # longer than is staged
    ]


@pytest.mark.parametrize("number", range(7))
@pytest.mark.parametrize("scale", [1.0, 1e-40, 1e30])
def test_transforms(device: Any, rng: np.random.Generator, number: int, scale: float) -> None:
    transform = transforms(rng)[number]
    x = vectors(rng, 3 if transform.d_in > 1000 else 37, transform.d_in, scale)
    through = there.Through(transform, device)
    for dims in {1, max(1, transform.d_out // 2), transform.d_out}:
        bad = device.put(np.zeros(len(x) + 1, np.int32))
        found = through.apply(device.put(x), dims, bad, 0)
        assert found.shape == (len(x), dims)
        same(found, transform.apply(x)[:, :dims])
        assert not bad.numpy().any()


@pytest.mark.parametrize("kind", ["matrix", "hadamard"])
def test_what_a_transform_takes_beyond_float32_is_marked(device: Any, kind: str) -> None:
    transform = nv.Transform(np.full((4, 4), 2.0))
    if kind == "hadamard":
        transform = nv.fit_rotation(np.ones((2, 64), np.float32), "hadamard", (64,))
    x = np.zeros((5, transform.d_in), np.float32)
    x[2] = 3.4e38 * np.sign(transform.matrix[:, np.abs(transform.matrix).sum(axis=0).argmax()])
    bad = device.put(np.zeros(6, np.int32))
    found = there.Through(transform, device).apply(device.put(x), transform.d_out, bad, 0)
    assert bad.numpy().tolist() == [0, 0, 1, 0, 0, 1]
    assert np.isfinite(found.numpy()).all()


TYPES = [*np.typecodes["AllInteger"], "e", "f", "d", ml_dtypes.bfloat16]


@pytest.mark.parametrize("dtype", TYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_every_type_becomes_float32(device: Any, rng: np.random.Generator, dtype: Any) -> None:
    """All values of types of 16 bits and fewer; of others the largest, the smallest, and what lies between floats."""
    dtype = np.dtype(dtype)
    if dtype.itemsize <= 2:
        x = np.arange(2 ** (8 * dtype.itemsize)).astype(f"u{dtype.itemsize}").view(dtype)
        x = x[np.isfinite(x.astype(np.float32))]
    elif dtype.kind in "iu":
        edges = [np.iinfo(dtype).min, np.iinfo(dtype).max, 0, 1, 2**24 + 1, 2**24 + 2, 2**24 + 3, 2**31 - 65]
        x = np.concatenate([np.asarray(edges, dtype), rng.integers(0, np.iinfo(dtype).max, 56, dtype)])
    else:
        x = np.concatenate(
            [rng.standard_normal(60) * 10.0 ** rng.integers(-50, 38, 60), [1e-46, 1.4e-45, 3.4e38, -0.0]]
        )
        x = x.astype(np.float32).astype(dtype) if dtype == np.float32 else x
    x = np.ascontiguousarray(x[: len(x) // 4 * 4].reshape(4, -1))
    given = device.put(x.view(np.uint16) if dtype.name == "bfloat16" else x)
    given.type = dtype.name
    bad = device.put(np.zeros(5, np.int32))
    for dims in {1, x.shape[1]}:
        found = there.to_float32(given, dims, bad, 0).numpy()
        right = np.ascontiguousarray(arrays.to_float32(x, "x")[:, :dims])
        np.testing.assert_array_equal(found.view(np.uint32), right.view(np.uint32))
    assert not bad.numpy().any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_values_that_are_not_finite_are_marked(device: Any, value: float, dtype: str) -> None:
    x = np.ones((300, 3), ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    with np.errstate(all="ignore"):
        x[[0, 299], [2, 1]] = value
    given = device.put(x.view(np.uint16) if dtype == "bfloat16" else x)
    given.type = dtype
    bad = device.put(np.zeros(301, np.int32))
    found = there.to_float32(given, 3, bad, 0).numpy()
    assert np.flatnonzero(bad.numpy()).tolist() == [0, 299, 300]
    assert found[0].tolist() == [1, 1, 0]
    assert (found[1:299] == 1).all()


@pytest.mark.parametrize(("nq", "found", "k"), [(1, 1, 1), (5, 3, 3), (5, 3, 7), (300, 2, 5)])
@pytest.mark.parametrize("metric", METRICS)
def test_results(device: Any, rng: np.random.Generator, nq: int, found: int, k: int, metric: str) -> None:
    """In two batches, with columns that are missing, and queries that find nothing."""
    from nestvec.cuda.lists import Best
    from nestvec.cuda.results import Results

    scores, ids = -np.sort(rng.standard_normal((nq, found)) * 1e30), rng.integers(0, 2**60, (nq, found))
    scores[0, 0] = 1e300
    scores[-1, -1], ids[-1, -1] = -np.inf, -1
    marks = np.zeros(nq + 1, np.int32)
    marks[nq // 2] = 1
    for bad in (None, device.put(marks)):
        results = Results(device, nq, k, metric, bad, 0)
        for first, last in ((0, nq // 3), (nq // 3, nq)):
            best = Best(device, last - first, found, 0)
            best.scores.write(scores[first:last])
            best.ids.write(ids[first:last])
            results.put(best, first, last - first)
        right_scores, right_ids = search.as_results(scores, ids, k, metric)
        if bad is not None:
            right_scores[nq // 2], right_ids[nq // 2] = np.inf if metric == "l2" else -np.inf, -1
        same(results.D, right_scores)
        same(results.I, right_ids)


def test_arguments_are_checked_before_kernels(device: Any) -> None:
    """Sizes of buffers, where the bindings see them."""
    native, empty = device.native, device.empty
    some = SimpleNamespace(q=empty((2, 8), np.float32), out=empty((2, 8), np.float32))
    with pytest.raises(ValueError, match="source"):
        native.to_float32(some.q.buffer, 0, 9, 2, 8, some.out.buffer, None, 0)
    with pytest.raises(ValueError, match="target"):
        native.to_float32(some.q.buffer, 0, 8, 2, 8, empty((2, 7), np.float32).buffer, None, 0)
    with pytest.raises(ValueError, match="bad"):
        native.to_float32(some.q.buffer, 0, 8, 2, 8, some.out.buffer, empty(2, np.int32).buffer, 0)
    with pytest.raises(ValueError, match="panels"):
        native.multiply_rows(some.q.buffer, 2, 8, empty(127, np.float32).buffer, 8, some.out.buffer, None, 0)
