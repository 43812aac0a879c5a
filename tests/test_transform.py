"""Rotations and other transforms: their bits, what they keep, and indexes that store what they make of vectors."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import nestvec as nv
import truth
from inputs import METRICS, orthogonal
from nestvec import Stage, Transform, files, parallel, slices, transform
from nestvec.tuning import Draw

DIMS = (1, 7, 15, 16, 17, 63, 64, 65, 100, 384)
KINDS = ("pca", "block-pca", "hadamard")


def skewed(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Rows whose energy lies in few directions, spread over all dims, and far from zero on average."""
    x = (rng.standard_normal((n, d)) + 0.5) * np.linspace(3, 0.1, d) ** 2
    return (x @ orthogonal(rng, d)).astype(np.float32)


def product(x: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """As it is specified: float64 sums in the order of dims, rounded once."""
    total = np.zeros((len(x), matrix.shape[1]))
    for j in range(matrix.shape[0]):
        total += x[:, j : j + 1].astype(np.float64) * matrix[j].astype(np.float64)
    return total.astype(np.float32)


# Transforms


@pytest.mark.parametrize("d", DIMS)
def test_bits_of_a_matrix(d: int, backend: Any, rng: np.random.Generator) -> None:
    """One row or many, whole or in parts, forth and back, on every backend."""
    x = rng.standard_normal((40, d)).astype(np.float32)
    for matrix in (orthogonal(rng, d), rng.standard_normal((d, 5)), rng.standard_normal((d, 2 * d + 1))):
        found = Transform(matrix)
        wanted = product(x, found.matrix)
        np.testing.assert_array_equal(found.apply(x), wanted)
        np.testing.assert_array_equal(found.apply(x[3]), wanted[3])
        np.testing.assert_array_equal(found._queries(x[5:7], found.d_out // 2 + 1), wanted[5:7, : found.d_out // 2 + 1])
    rotation = Transform(orthogonal(rng, d))
    np.testing.assert_array_equal(rotation.undo(x), product(x, rotation.matrix.T))
    np.testing.assert_allclose(rotation.undo(rotation.apply(x)), x, atol=1e-5)


@pytest.mark.parametrize("threads", [1, 3])
def test_slices_change_no_bits(threads: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    x, rotation = rng.standard_normal((300, 100)).astype(np.float32), Transform(orthogonal(rng, 100))
    wanted = rotation.apply(x, threads=threads)
    monkeypatch.setattr(slices, "VALUES", 2000)
    monkeypatch.setattr(transform, "CALL_WORK", 4000)
    np.testing.assert_array_equal(rotation.apply(x, threads=threads), wanted)


FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "float16": lambda x: x.astype(np.float16),
    "bfloat16": lambda x: x.astype(ml_dtypes.bfloat16),
    "float64": lambda x: x.astype(np.float64),
    "integers": lambda x: x.astype(np.int8),
    "big-endian": lambda x: x.astype(">f4"),
    "Fortran order": np.asfortranarray,
    "every other row and dim": lambda x: np.repeat(np.repeat(x, 2, axis=0), 2, axis=1)[::2, ::2],
    "backwards": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
    "lists": lambda x: x.tolist(),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["matrix", "permutation", "hadamard"])
def test_forms_of_vectors(kind: str, form: str, rng: np.random.Generator) -> None:
    x = rng.integers(-50, 50, (70, 24)).astype(np.float32)
    through = {
        "matrix": Transform(orthogonal(rng, 24)),
        "permutation": Transform(rng.permutation(24)),
        "hadamard": nv.fit_rotation(x, "hadamard", (9,)),
    }[kind]
    np.testing.assert_array_equal(through.apply(FORMS[form](x)), through.apply(x))
    one, other = (nv.NestedIndex(24, (8,), transform=through) for _ in range(2))
    one.add(FORMS[form](x))
    other.add(x)
    assert files.to_bytes(one) == files.to_bytes(other)
    for a, b in zip(one.search(FORMS[form](x)[:5], 4), other.search(x[:5], 4), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("d", DIMS)
def test_permutations(d: int, rng: np.random.Generator) -> None:
    x, order = rng.standard_normal((9, d)).astype(np.float32), rng.permutation(d)
    swapped = Transform(order)
    np.testing.assert_array_equal(swapped.apply(x), x[:, order])
    np.testing.assert_array_equal(swapped.undo(x[:, order]), x)
    np.testing.assert_array_equal(swapped.order, order)
    np.testing.assert_array_equal(x @ swapped.matrix, x[:, order])
    assert (swapped.kind, swapped.orthogonal, swapped.d_in, swapped.d_out) == ("permutation", True, d, d)


@pytest.mark.parametrize("d", DIMS)
@pytest.mark.parametrize("kind", KINDS)
def test_fitted_rotations(kind: str, d: int, rng: np.random.Generator) -> None:
    x = skewed(rng, 200, d)
    levels = tuple({min(7, d), min(64, d), d})
    fitted = nv.fit_rotation(x, kind, sorted(levels))
    assert (fitted.kind, fitted.d_in, fitted.d_out, fitted.orthogonal) == (kind, d, d, True)
    assert fitted.levels == (None if kind == "pca" else tuple(sorted(levels)))
    wide = fitted.matrix.astype(np.float64)
    np.testing.assert_allclose(wide @ wide.T, np.eye(d), atol=1e-6)
    y, size = fitted.apply(x), np.linalg.norm(x, axis=1).max()
    np.testing.assert_allclose(y, x @ wide, atol=1e-6 * size)
    np.testing.assert_allclose(fitted.undo(y), x, atol=1e-6 * size)
    for end in fitted.levels or (d,):
        np.testing.assert_allclose(y[:, :end] @ y[:5, :end].T, x[:, :end] @ x[:5, :end].T, atol=4e-6 * size**2)
    squares = np.cumsum((y.astype(np.float64) ** 2).sum(axis=0))
    np.testing.assert_allclose(fitted.energy, squares / squares[-1], atol=1e-6)
    begin = 0
    for end in (fitted.levels or (d,)) if kind != "hadamard" else ():
        moments = y[:, begin:end].astype(np.float64).T @ y[:, begin:end]
        assert (np.diff(moments.diagonal()) <= 1e-5 * squares[-1]).all()
        np.testing.assert_allclose(moments, np.diag(moments.diagonal()), atol=1e-5 * squares[-1])
        axes = fitted.matrix[:, begin:end]
        assert (axes[np.abs(axes).argmax(axis=0), np.arange(end - begin)] > 0).all()
        begin = end


def test_a_row_does_not_depend_on_those_beside_it(rng: np.random.Generator, backend: Any) -> None:
    """Nor on their size: signs and Hadamard transforms otherwise go another way for large values."""
    x = rng.standard_normal((50, 65)).astype(np.float32)
    x[7] *= 1e36
    for kind in KINDS:
        fitted = nv.fit_rotation(np.delete(x, 7, axis=0), kind, (16,))
        whole = fitted.apply(x)
        for at in (0, 7, 49):
            np.testing.assert_array_equal(fitted.apply(x[at : at + 1])[0], whole[at])


def test_hadamard_spreads_and_depends_on_the_seed(rng: np.random.Generator) -> None:
    x = np.zeros((10, 128))
    x[:, 5] = 1
    one, other, again = (nv.fit_rotation(x, "hadamard", (64,), seed=seed) for seed in (0, 1, 0))
    assert np.abs(one.apply(x)).max() < 0.6
    assert one.energy is not None
    assert one.energy[63] == 1
    assert one == again != other


def test_a_fit_looks_at_some_rows(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    x = skewed(rng, 1001, 20)
    monkeypatch.setattr(transform, "SAMPLE", 300)
    monkeypatch.setattr(transform, "BLAS_WORK", 100)
    for kind in KINDS:
        assert nv.fit_rotation(x, kind, (8,)) == nv.fit_rotation(np.ascontiguousarray(x[::4]), kind, (8,), threads=2)
    x[8, 3] = np.inf
    with pytest.raises(ValueError, match=r"x\[::4\] holds inf at row 2, column 3"):
        nv.fit_rotation(x)


@pytest.mark.parametrize("kind", KINDS)
def test_fits_of_little(kind: str, rng: np.random.Generator) -> None:
    """Fewer rows than dims, none but zeros, and values whose squares are beyond float32 or vanish in it."""
    for x in (np.ones((1, 33)), np.zeros((3, 33)), rng.standard_normal((5, 33)) * 1e30, np.full((2, 33), 1e-40)):
        fitted = nv.fit_rotation(x, kind, (16,))
        wide = fitted.matrix.astype(np.float64)
        np.testing.assert_allclose(wide @ wide.T, np.eye(33), atol=1e-6)
        assert fitted.energy is not None
        assert fitted.energy[-1] == x.any()


def test_values_are_frozen_and_compared(rng: np.random.Generator) -> None:
    matrix = orthogonal(rng, 20)
    one, other = Transform(matrix), Transform(np.asfortranarray(matrix))
    matrix[0] = 0
    assert one == other
    assert hash(one) == hash(other)
    assert one.fingerprint() == other.fingerprint() != Transform(matrix).fingerprint()
    assert one != nv.fit_rotation(rng.standard_normal((50, 20)))
    assert one != "another thing"
    assert Transform([1, 0]) != Transform([[0, 1], [1, 0]])
    assert one.matrix.flags.c_contiguous
    for array in (one.matrix, Transform([1, 0]).order, nv.fit_rotation(np.eye(20), "hadamard").matrix):
        assert array is not None
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 5
    assert repr(Transform(np.ones((3, 2)))) == "Transform(kind='matrix', d_in=3, d_out=2, orthogonal=False)"
    assert "levels=(64, 65), orthogonal=True" in repr(nv.fit_rotation(np.ones((2, 65)), "block-pca"))


@pytest.mark.parametrize("kind", [*KINDS, "matrix", "permutation", "adaptor"])
def test_copies_and_pickles(kind: str, rng: np.random.Generator) -> None:
    x = skewed(rng, 50, 20)
    given = {"matrix": orthogonal(rng, 20), "permutation": rng.permutation(20), "adaptor": np.ones((20, 3))}
    one = Transform(given[kind]) if kind in given else nv.fit_rotation(x, kind, (8,), seed=5)
    for other in (copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert other == one
        assert repr(other) == repr(one)
        np.testing.assert_array_equal(other.apply(x), one.apply(x))
        np.testing.assert_array_equal(other.energy, one.energy)


def test_nothing_in_a_pickle_is_believed(rng: np.random.Generator) -> None:
    make, (given, held, d) = Transform(orthogonal(rng, 8)).__reduce__()
    held = {name: array.copy() for name, array in held.items()}
    for wrong in (held["transform"] * 2, held["transform"][:, :3], held["transform"].astype(np.float64)):
        with pytest.raises(ValueError, match=r"not orthogonal|must be float32"):
            make(given, {"transform": wrong}, d)


def test_orthogonality() -> None:
    wide = np.eye(4)[:2]  # two dims into four: inner products stay
    assert Transform(wide).orthogonal
    np.testing.assert_array_equal(Transform(wide).undo(Transform(wide).apply([[3, 4]])), [[3, 4]])
    assert not Transform(wide.T).orthogonal
    assert Transform(np.eye(4) * (1 + 4e-6)).orthogonal
    assert not Transform(np.eye(4) * (1 + 6e-6)).orthogonal
    assert not Transform(np.eye(4), orthogonal=False).orthogonal
    assert not Transform(np.full((4, 4), 3e38)).orthogonal
    with pytest.raises(ValueError, match=r"off by 0.21, more than 1e-05.*nv.Transform\(matrix, orthogonal=False\)"):
        Transform(np.eye(4) * 1.1, orthogonal=True)
    with pytest.raises(ValueError, match="it takes 4 dims to 2"):
        Transform(wide.T, orthogonal=True)
    with pytest.raises(ValueError, match="not orthogonal: its transpose does not undo it"):
        Transform(wide.T).undo([[1, 2]])


@pytest.mark.parametrize(("given", "error", "match"), [
    (np.ones((2, 2, 2)), ValueError, r"a matrix \(d_in, d_out\) or a permutation \(d,\), got .* \(2, 2, 2\)"),
    ("pca", ValueError, "a matrix"),
    (np.ones((0, 3)), ValueError, "dims of a transform must be between 1"),
    (np.ones((3, 0)), ValueError, "at least one dim"),
    ([], TypeError, "a permutation, which needs integers"),
    ([1.0, 0.0], TypeError, "a permutation, which needs integers, got dtype float64"),
    ([True, False], TypeError, "needs integers, got dtype bool"),
    ([0, 2], ValueError, "each of the 2 numbers from 0 to 1 must be there once"),
    ([0, 0], ValueError, "each of the 2 numbers"),
    ([-1, 0], ValueError, "each of the 2 numbers"),
    (np.asarray([0, 2**63], np.uint64), ValueError, "each of the 2 numbers"),
    ([[1, np.nan], [0, 1]], ValueError, "transform holds nan at row 0, column 1"),
    ([[1e300, 0], [0, 1]], ValueError, "beyond the range of float32"),
    (np.eye(2) * 1j, TypeError, "complex"),
])  # fmt: skip
def test_what_is_no_transform(given: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        Transform(given)


@pytest.mark.parametrize(("arguments", "error", "match"), [
    ((np.ones((3, 4)), "ica"), ValueError, "kind must be one of 'pca', 'block-pca', 'hadamard'"),
    ((np.ones((0, 4)),), ValueError, "fitted to at least one row"),
    ((np.ones(4),), ValueError, "2-D"),
    (([["a"]],), TypeError, "dtype"),
    ((np.ones((3, 4)), "block-pca", (3, 2)), ValueError, "strictly ascending"),
    ((np.ones((3, 4)), "hadamard", 5), TypeError, "levels must be a sequence"),
    (([[1, np.nan]],), ValueError, "x holds nan at row 0, column 1"),
])  # fmt: skip
def test_what_cannot_be_fitted(arguments: tuple[Any, ...], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        nv.fit_rotation(*arguments)


def test_a_seed_is_a_number() -> None:
    with pytest.raises(TypeError, match="seed must be an integer"):
        nv.fit_rotation(np.ones((3, 4)), "hadamard", seed=0.5)  # type: ignore[arg-type]


# Indexes


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_whole_vectors_have_the_neighbours_they_had(kind: str, metric: str, rng: np.random.Generator) -> None:
    """Exact top-10 as of brute force over rows that were not rotated; ids may differ only where scores tie."""
    x, q = skewed(rng, 3000, 100), skewed(rng, 40, 100)
    index = nv.NestedIndex(100, metric=metric, transform=nv.fit_rotation(x, kind))
    index.add(x)
    D, I = index.search(q, 10)
    scores = truth.scores(q, x, metric)
    wanted = -np.sort(-scores, axis=1)[:, :10]
    found = np.take_along_axis(scores, I, axis=1)
    tie = 1e-6 * np.maximum((q**2).sum(axis=1), (x**2).sum(axis=1).max())[:, None] if metric != "cosine" else 1e-6
    assert (np.abs(found - wanted) <= tie).all()
    assert (np.abs((-D if metric == "l2" else D) - wanted) <= 2 * tie).all()
    order = np.argsort(-scores, axis=1, kind="stable")[:, :10]
    assert (order == I).mean() > 0.99


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("shape", ["square", "narrow", "wide", "permutation", "hadamard"])
def test_searches_are_those_of_transformed_vectors(shape: str, metric: str, rng: np.random.Generator) -> None:
    """Bit by bit, at any dims, for every question."""
    x, q = rng.standard_normal((700, 40)).astype(np.float32), rng.standard_normal((20, 40)).astype(np.float32)
    through = {
        "square": Transform(orthogonal(rng, 40)),
        "narrow": Transform(rng.standard_normal((40, 24))),
        "wide": Transform(rng.standard_normal((40, 70))),
        "permutation": Transform(rng.permutation(40)),
        "hadamard": nv.fit_rotation(x, "hadamard", (16,)),
    }[shape]
    index = nv.NestedIndex(through.d_out, (16,), metric, transform=through, codes=("b1", "i4"))
    plain = nv.NestedIndex(through.d_out, (16,), metric, codes=("b1", "i4"), center=False)
    index.add(x, threads=2)
    y, p = through.apply(x), through.apply(q)
    plain.add(y)
    assert (index.d, index.transform) == (through.d_out, through)
    np.testing.assert_array_equal(index.reconstruct(np.arange(700)), y)
    for dims in (None, 16, 11):
        wanted = truth.topk(p[:, :dims], y[:, :dims], 7, metric)
        for some in (slice(None), slice(1)):
            for found, right in zip(index.search(q[some], 7, dims=dims), wanted, strict=True):
                np.testing.assert_array_equal(found, right[some])
        for found, right in zip(
            index.range_search(q, wanted[0][0, 5], dims=dims), plain.range_search(p, wanted[0][0, 5], dims=dims),
            strict=True,
        ):  # fmt: skip
            np.testing.assert_array_equal(found, right)
    np.testing.assert_array_equal(index.search(q[0], 3)[1], index.search(q[:1], 3)[1])
    plan = [Stage("i4", keep=400), Stage("raw")]
    np.testing.assert_array_equal(index.search(q, 5, plan=plan)[1], plain.search(p, 5, plan=plan)[1])
    np.testing.assert_array_equal(index.estimate(q, [3, 9], code="i4"), plain.estimate(p, [3, 9], code="i4"))
    assert [s.rows for s in index.explain(q, 5, plan).stages] == [s.rows for s in plain.explain(p, 5, plan).stages]


def test_signs_are_relative_to_the_mean_of_transformed_vectors(rng: np.random.Generator) -> None:
    x = skewed(rng, 9000, 40) + 5
    rotation = nv.fit_rotation(x)
    index = nv.NestedIndex(40, (16,), transform=rotation)
    index.add(x)
    y = rotation.apply(x)
    np.testing.assert_allclose(index._contents.frame.center, y.mean(axis=0), atol=0.2)
    q = x[:20] + rng.standard_normal((20, 40)).astype(np.float32) / 100
    found = index.search(q, 1, plan=[Stage("b1", keep=900), Stage("raw")])[1]
    assert (found == index.search(q, 1)[1]).mean() >= 0.9


def test_queries_are_whole(rng: np.random.Generator) -> None:
    index = nv.NestedIndex(24, (8,), transform=Transform(rng.standard_normal((40, 24))))
    index.add(rng.standard_normal((100, 40)))
    for width, dims in ((8, 8), (24, None), (41, 8)):
        with pytest.raises(ValueError, match=f"q has {width} dims; this index transforms vectors of 40 dims"):
            index.search(np.ones((2, width)), 3, dims=dims)
    with pytest.raises(ValueError, match="dims must be between 1 and 24"):
        index.search(np.ones((2, 40)), 3, dims=25)
    with pytest.raises(ValueError, match="q holds nan at row 0, column 39"):
        index.search(np.append(np.ones(39), np.nan), 3)
    with pytest.raises(ValueError, match="x has 24 dims, 40 are needed: the index transforms vectors itself and"):
        index.add(np.ones((3, 24)))
    assert index.search(np.empty((0, 40)), 3)[0].shape == (0, 3)


@pytest.mark.parametrize(("given", "d", "match"), [
    (np.ones((40, 24)), 40, r"of 40 dims to 24, and d=40 are to be .* x @ matrix: .* pass transform.T, else d=24"),
    (np.eye(24), 40, "of 24 dims to 24, and d=40 are to be stored; pass d=24"),
    (Transform(np.ones((40, 24))), 25, "pass d=24"),
    (np.arange(9), 10, "pass d=9"),
    (np.eye(10) * 2, 10, "not orthogonal .*off by 3, more than 1e-05"),
    (np.ones((40, 24)), 24, "not orthogonal .*it takes 40 dims to 24"),
    ("pca", 10, "a matrix"),
])  # fmt: skip
def test_transforms_that_an_index_refuses(given: Any, d: int, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        nv.NestedIndex(d, transform=given)


def test_values_beyond_a_type(rng: np.random.Generator) -> None:
    index = nv.NestedIndex(2, transform=Transform([[1, 0], [1, 1]]))
    index.add([[1, 2]])
    for change in (index.add, lambda x: index.update([0], x[:1])):
        with pytest.raises(ValueError, match="x is beyond the range of float32 after the transform, at row 0"):
            change([[3e38, 3e38], [1, 1]])
    with pytest.raises(ValueError, match="x holds inf at row 1, column 0"):
        index.add([[0, 0], [np.inf, 0]])
    with pytest.raises(ValueError, match="q is beyond the range of float32 after the transform, at row 0"):
        index.search([3e38, 3e38], 1)
    half = nv.NestedIndex(2, rows="float16", transform=index.transform)
    with pytest.raises(ValueError, match=r"transformed x holds 80000.0 at row 1, column 0, beyond the range of"):
        half.add([[1, 2], [40000, 40000]])
    assert (len(index), len(half)) == (1, 0)
    assert index.reconstruct(0).tolist() == [3, 2]
    rotation = Transform(orthogonal(rng, 2))
    with pytest.raises(ValueError, match="y is beyond the range of float32 after the transform, at row 1"):
        rotation.undo([[0, 0], rotation.apply([3.4e38, 0.0]) * 1.01])


def test_changes(rng: np.random.Generator) -> None:
    """Rows that are updated, merged, copied or moved are transformed once."""
    x = rng.standard_normal((400, 30)).astype(np.float32)
    rotation = nv.fit_rotation(x, "block-pca", (8,))
    y = rotation.apply(x)

    def make(rows: str = "float32") -> nv.NestedIndex:
        return nv.NestedIndex(30, (8,), "l2", rows, transform=rotation)

    index, other = make(), make()
    index.add(x[:100])
    index.update([3, 50], x[200:202])
    np.testing.assert_array_equal(index.reconstruct([3, 50, 4]), y[[200, 201, 4]])
    other.add(x[300:])
    index.merge(other, add_id=1000)
    np.testing.assert_array_equal(index.reconstruct(np.arange(1000, 1100)), y[300:])
    np.testing.assert_allclose(rotation.undo(index.reconstruct(1001)), x[301], atol=1e-5)
    index.remove([4])
    index.compact()
    for same in (copy.copy(index), index.twin(), index.taken(index.ids, 1)):
        assert same.transform == rotation
        np.testing.assert_array_equal(same.search(x[:5], 4)[0], index.search(x[:5], 4)[0])
    stored = index._untransformed()
    np.testing.assert_array_equal(stored.search(y[:5], 4), index.search(x[:5], 4))
    half = make("bfloat16")
    half.merge(nv.load(files.to_bytes(other)))
    np.testing.assert_array_equal(half.reconstruct(5), y[305].astype(ml_dtypes.bfloat16).astype(np.float32))
    assert index.transform is rotation
    before = files.to_bytes(index)
    for wrong in (None, np.arange(30), nv.fit_rotation(x)):
        with pytest.raises(
            ValueError, match=r"other index has the transform .* only rows of one transform can be merged"
        ):
            index.merge(nv.NestedIndex(30, transform=wrong))
    with pytest.raises(ValueError, match="this one None"):
        nv.NestedIndex(30).merge(index)
    assert files.to_bytes(index) == before


def test_tuning_transforms_queries_once(rng: np.random.Generator) -> None:
    x, q = skewed(rng, 2000, 40), skewed(rng, 30, 40)
    index = nv.NestedIndex(40, (16,), "l2", transform=nv.fit_rotation(x))
    index.add(x)
    held = index._subject(None, 5, None, Draw(50, 0), 1)
    np.testing.assert_array_equal(held.exact(held.queries, 1)[1][:, 0], held.own)
    given = index._subject(q.tolist(), 5, None, Draw(50, 0), 1)
    np.testing.assert_array_equal(given.exact(given.queries, 4)[1], index.search(q, 4)[1])
    plan = index.tune(k=5, recall=0.9, sample=100)
    assert nv.load(files.to_bytes(index)).transform == index.transform
    assert index.search(q, 5, plan=plan)[1].shape == index.search(q, 5, recall=0.9)[1].shape == (30, 5)
    with pytest.raises(ValueError, match="q has 39 dims; this index transforms vectors of 40"):
        index.tune(q[:, :39])


def test_threads_and_backends_store_the_same_bits(rng: np.random.Generator, backend: Any) -> None:
    x = skewed(rng, 300, 40)
    matrix = Transform(orthogonal(np.random.default_rng(1), 40))
    made = []
    for threads in (1, 3):
        index = nv.NestedIndex(40, (16,), "cosine", codes=("b1", "i4"), transform=matrix)
        index.add(x, threads=threads)
        made.append(files.to_bytes(index))
    assert made[0] == made[1] == STORED.setdefault("bytes", made[0])


STORED: dict[str, bytes] = {}


def test_calls_end_early(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    x = skewed(rng, 300, 40)
    index = nv.NestedIndex(40, transform=nv.fit_rotation(x))
    index.add(x)
    with pytest.raises(TimeoutError):
        index.search(x[:2], 3, timeout=1e-9)

    def stop() -> None:
        raise KeyboardInterrupt

    before = files.to_bytes(index)
    rotation = index.transform
    assert rotation is not None
    with monkeypatch.context() as patch:
        patch.setattr(parallel, "check", stop)
        for call in (index.add, rotation.apply, rotation.undo, nv.fit_rotation, lambda x: index.search(x, 1)):
            with pytest.raises(KeyboardInterrupt):
                call(x)
    assert files.to_bytes(index) == before
