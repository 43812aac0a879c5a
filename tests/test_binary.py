"""Binary codes: what is packed, counted and found is what a few lines of numpy give, bit for bit."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import nestvec as nv
from inputs import levels_of
from nestvec import backends
from test_arrays import DTYPES, LAYOUTS, Exchange

Call = Callable[..., Any]

CASES = 10_000  # over all backends
DIMS = (1, 7, 8, 9, 63, 64, 65, 100, 1000)
SCORES = {"hamming": nv.hamming, "intersection": nv.intersection, "jaccard": nv.jaccard}
SEARCHES = {"hamming": nv.hamming_topk, "intersection": nv.intersection_topk, "jaccard": nv.jaccard_topk}
FUNCTIONS: dict[str, Call] = {**SCORES, **{f"{name}_topk": partial(f, k=3) for name, f in SEARCHES.items()}}
WORST = {"hamming": np.int32(2**31 - 1), "intersection": np.int32(-1), "jaccard": np.float32(-np.inf)}
BITS = 22
CODES = np.array([[0b10110000, 0b01010101, 0b01100100], [0b00110001, 0, 4], [255, 255, 252], [0, 0, 0]], np.uint8)

NARROW = r"q has codes of 24 bits, 8 are needed \(1 bytes\)"
FLOATS = "has dtype float32, packed codes are uint8; pack_bits makes codes of floats"


def scores(q: np.ndarray, x: np.ndarray, metric: str, bits: int) -> np.ndarray:
    """Counts, or quotients, in float64 (nq, n), by `np.unpackbits` and sums."""
    a, b = (np.unpackbits(codes, axis=1)[:, :bits].astype(np.float64) for codes in (q, x))
    both, ones = a @ b.T, a.sum(axis=1)[:, None] + b.sum(axis=1)
    if metric == "jaccard":
        return np.where(ones > 0, both / np.maximum(ones - both, 1), 1.0)
    return both if metric == "intersection" else ones - 2 * both


def best(found: np.ndarray, k: int, metric: str = "hamming", ids: Any = None) -> list[np.ndarray]:
    """What a search returns for such scores."""
    ids = np.arange(found.shape[1]) if ids is None else np.asarray(ids, np.int64)
    order = np.lexsort((np.broadcast_to(ids, found.shape), found if metric == "hamming" else -found), axis=1)[:, :k]
    top, missing = np.take_along_axis(found, order, 1).astype(WORST[metric].dtype), ((0, 0), (0, k - order.shape[1]))
    return [np.pad(top, missing, constant_values=WORST[metric]), np.pad(ids[order], missing, constant_values=-1)]


def within(distances: np.ndarray, radius: int, ids: Any = None) -> list[np.ndarray]:
    """What a range search returns for such distances."""
    ordered, named = best(distances, distances.shape[1], "hamming", ids)
    near = ordered <= radius
    return [np.append(0, near.sum(axis=1).cumsum()), ordered[near], named[near]]


def equal(actual: Any, wanted: Any, message: str = "") -> None:
    for some, others in zip(actual, wanted, strict=True):
        np.testing.assert_array_equal(some, others, message, strict=True)


def random_codes(rng: np.random.Generator, n: int, bits: int) -> np.ndarray:
    """Codes, sparse or not, each of them perhaps several times."""
    rows = np.packbits(rng.random((n, bits)) < rng.choice([0.02, 0.3, 0.5, 1.0]), axis=1)
    return rows[rng.integers(0, max(n, 1), n)] if rng.random() < 0.5 else rows


def filled(x: Any, bits: int = BITS, ids: Any = None, **options: Any) -> nv.BinaryIndex:
    index = nv.BinaryIndex(bits, **options)
    index.add(x, ids)
    return index


# Packing


def awkward(rng: np.random.Generator, dtype: np.dtype, shape: Any) -> np.ndarray:
    """Both zeros, the smallest and largest values of several types, and ties."""
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        return rng.choice(np.asarray([info.min, 0, 1, 2, info.max], dtype), shape)
    values = np.array([0, 1, 2.5, 60_000, 1e300, 1e-40, 1e-300, 5e-324, 2.0**-24, 2.0**-133, 2.0**-149])
    with np.errstate(all="ignore"):
        held = np.append(values, -values).astype(dtype)
    return rng.choice(held[np.isfinite(held)], shape)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_pack_types(dtype: np.dtype, backend: Any, rng: np.random.Generator) -> None:
    for d in DIMS:
        for n in (0, 1, 5):
            x = awkward(rng, dtype, (n, d))
            equal([nv.pack_bits(x)], [np.packbits(x > 0, axis=1)])
            limits = awkward(rng, np.dtype(np.float64), d)
            for thresholds in (limits, np.float32(np.clip(limits, -1, 1)), limits.tolist(), float(limits[0])):
                equal([nv.pack_bits(x, thresholds)], [np.packbits(x.astype(np.float64) > thresholds, axis=1)])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_pack_layouts(layout: str, rng: np.random.Generator) -> None:
    for d in DIMS[2:]:
        for name in ("float32", "float16", "bfloat16", "float64", "int16", "big-endian f4", "big-endian f8"):
            x = awkward(rng, DTYPES[name], (5, d))
            equal([nv.pack_bits(LAYOUTS[layout](x))], [np.packbits(x > 0, axis=1)])


def test_pack_one_vector_or_many(rng: np.random.Generator) -> None:
    x = rng.standard_normal((40_000, 20))
    wanted = np.packbits(x > 0, axis=1)
    for some, codes in ((x, wanted), (x[7], wanted[7]), (x.tolist(), wanted), (x[7].tolist(), wanted[7])):
        equal([nv.pack_bits(some)], [codes])


@settings(max_examples=300)
@given(
    hnp.arrays(np.float32, 13, elements=st.floats(width=32, allow_nan=False, allow_infinity=False)),
    hnp.arrays(np.float64, 13, elements=st.sampled_from([-np.inf, 0.0, np.inf])),
)
def test_thresholds_between_float32_values(x: np.ndarray, towards: np.ndarray) -> None:
    """Thresholds are the values themselves or the next float64 on either side."""
    exact = np.float64(x)
    limits = np.where(towards == 0, exact, np.nextafter(exact, towards))
    equal([nv.pack_bits(x, limits), nv.pack_bits(exact, limits)], [np.packbits(exact > limits)] * 2)
    equal(filled(x[None], 13, thresholds=limits).reconstruct([0]), np.packbits(exact > limits)[None])


@pytest.mark.parametrize("state", ["warn", "raise"])
def test_thresholds_beyond_float32(state: Any) -> None:
    """However numpy is told to treat overflow and underflow."""
    x = np.array([[3.4e38, -3.4e38, 1e-45, -1e-45, 0]], np.float32)
    with np.errstate(all=state):
        for limits in ([1e300, -1e300, 1e-300, -1e-300, -1e-300], [-1e39, 1e39, 1e-300, 0, 1e-300]):
            equal([nv.pack_bits(x, limits)], [np.packbits(x > np.asarray(limits), axis=1)])


def test_signed_codes(rng: np.random.Generator) -> None:
    """The `binary` precision of sentence-transformers, made as they make it."""
    x = rng.standard_normal((40, 100))
    ubinary = np.packbits(x > 0, axis=1)
    signed = (ubinary - 128).astype(np.int8)
    for some in (np.s_[:], np.s_[0], np.s_[:0], np.s_[::-1, ::2], np.s_[None]):
        equal([nv.as_ubinary(signed[some])], [ubinary[some]])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: nv.as_ubinary(CODES), TypeError, "dtype uint8; signed codes are int8, and uint8 codes need no conv"),
        (lambda: nv.pack_bits(CODES > 3), TypeError, "x has dtype bool; floating point or integer values are needed"),
        (lambda: nv.pack_bits(np.ones((2, 0))), ValueError, r"x has shape \(2, 0\): vectors need at least one dim"),
        (
            lambda: nv.pack_bits(np.ones((2, 3)), [1, 2]),
            ValueError,
            r"thresholds must be .* \(3,\), .* got shape \(2,\)",
        ),
        (lambda: nv.pack_bits([[1, 2]], [[1, 2]]), ValueError, r"thresholds must be .* \(2,\), .* got shape \(1, 2\)"),
        (lambda: nv.pack_bits([[1, 2]], [0, np.nan]), ValueError, "thresholds holds nan at row 0, column 1"),
        (
            lambda: nv.BinaryIndex(2, thresholds=[1, 2, 3]),
            ValueError,
            r"thresholds must be .* \(2,\), .* got shape \(3,\)",
        ),
        (lambda: nv.BinaryIndex(0), ValueError, "bits must be between 1 and 65536, got 0"),
        (lambda: nv.BinaryIndex(65537), ValueError, "bits must be between 1 and 65536, got 65537"),
        (lambda: filled(CODES).reconstruct([1, 4]), KeyError, "id 4 is not in the index"),
        (lambda: filled(CODES).reconstruct(1.0), TypeError, "ids must be integers, got dtype float64"),
        (lambda: nv.BinaryIndex(BITS).search(CODES, 1), ValueError, "the index is empty; add codes before searching"),
        *((lambda f=f: f(CODES, CODES[:, :1]), ValueError, NARROW) for f in FUNCTIONS.values()),
        *((lambda f=f: f(CODES, np.float32(CODES)), TypeError, f"codes {FLOATS}") for f in FUNCTIONS.values()),
        *((lambda f=f: f(np.float32(CODES), CODES), TypeError, f"q {FLOATS}") for f in FUNCTIONS.values()),
    ],
)
def test_errors(call: Call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "big-endian f4", "big-endian f8"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nonfinite(value: float, dtype: str) -> None:
    """Row and column are those of what was given, however many rows are packed at a time."""
    x = np.zeros((40_000, BITS), DTYPES[dtype])
    x[36_001, 5] = value
    index = filled(CODES)
    for name, call in (("x", nv.pack_bits), ("x", index.add), ("q", partial(index.search, k=1))):
        with pytest.raises(ValueError, match=f"^{name} holds {value} at row 36001, column 5; only finite values"):
            call(x)


# Counting and searching


def test_random_cases(backend: Any) -> None:
    """Thousands of small cases of everything at once."""
    names = backends.available()
    for case in range(names.index(backends.describe()[0]), CASES, len(names)):
        rng, metric = np.random.default_rng(case), list(SCORES)[case // len(names) % 3]
        bits, n, threads = int(rng.integers(1, 301)), int(rng.integers(0, 201)), int(rng.choice([1, 1, 2]))
        k, used = int(rng.choice([1, 5, n + 1, int(rng.integers(1, 220))])), int(rng.integers(1, bits + 1))
        q, x = random_codes(rng, int(rng.integers(0, 7)), bits), random_codes(rng, n, bits)
        options, message = {"bits": used, "threads": threads}, f"case {case}"
        wanted = scores(q, x, metric, used)
        given_q = q[0] if len(q) == 1 else q
        equal([SCORES[metric](given_q, x, **options)], [wanted.astype(WORST[metric].dtype)], message)
        equal(SEARCHES[metric](given_q, x, k, **options), best(wanted, k, metric), message)
        if n == 0:
            continue
        index, cut = nv.BinaryIndex(bits, levels=levels_of(rng, bits)), int(rng.integers(0, n + 1))
        ids = rng.permutation(3 * n)[:n] if rng.random() < 0.5 else None
        for some in (slice(cut), slice(cut, n)):
            index.add(x[some], None if ids is None else ids[some], threads=threads)
        distances, radius = scores(q, x, "hamming", used), int(rng.integers(0, used + 2))
        equal(index.search(given_q, k, **options), best(distances, k, "hamming", ids), message)
        equal(index.range_search(given_q, radius, **options), within(distances, radius, ids), message)
        row = int(rng.integers(0, n))
        equal([index.reconstruct(row if ids is None else ids[row])], [x[row]], message)


@pytest.mark.parametrize("kind", ["counted", "given", "now and then"])
def test_ties_over_segments(kind: str, backend: Any, rng: np.random.Generator) -> None:
    """4,600 rows of 30 codes, in several segments."""
    bits, index, ids = 70, nv.BinaryIndex(70, levels=[20]), np.empty(0, np.int64)
    x, q = random_codes(rng, 30, bits)[rng.integers(0, 30, 4600)], random_codes(rng, 300, bits)
    for size, named in ((700, kind == "given"), (900, kind != "counted"), (3000, kind == "given")):
        first = ids.max(initial=-1) + 1
        new = first + (rng.permutation(4 * size)[:size] if named else np.arange(size))
        index.add(x[len(ids) : len(ids) + size], new if named else None)
        ids = np.append(ids, new)
    assert len(index) == index.ntotal == 4600
    equal([index.reconstruct(ids[::50])], [x[::50]])
    for used in (20, 33, 70):
        distances = scores(q, x, "hamming", used)
        for nq, sizes in ((0, (3,)), (1, (1, 30, 700, 5000)), (3, (1, 700, 5000)), (300, (10,))):
            for k in sizes:
                wanted = best(distances[:nq], k, "hamming", ids)
                for threads in (1, 2, 3):
                    equal(index.search(q[:nq], k, bits=used, threads=threads), wanted)
        for threads in (1, 3):
            found = index.range_search(q[:3], used // 2, bits=used, threads=threads)
            equal(found, within(distances[:3], used // 2, ids))


@pytest.mark.parametrize("kind", ["counted", "descending", "shuffled"])
@pytest.mark.parametrize("order", ["equal", "nearer", "farther", "two"])
def test_full_lists(order: str, kind: str, backend: Any, rng: np.random.Generator) -> None:
    """5,000 rows that fill what is kept of a query: all equal, each nearer or farther than before, two in turn."""
    ids = {"descending": np.arange(5000)[::-1] * 3, "shuffled": rng.permutation(15_000)[:5000]}.get(kind)
    ones = {"equal": np.zeros(5000), "two": np.arange(5000) % 2, "farther": np.arange(5000) // 25}
    count = ones.get(order, 200 - np.arange(5000) // 25)
    x, q = np.packbits(np.arange(200) < count[:, None], axis=1), np.packbits(np.zeros((3, 200), bool), axis=1)
    index, distances = filled(x, 200, ids), scores(q, x, "hamming", 200)
    for k in (1, 7, 600, 1100):
        wanted = best(distances, k, "hamming", ids)
        for nq, threads in ((1, 1), (3, 1), (3, 2)):
            equal(index.search(q[:nq], k, threads=threads), [some[:nq] for some in wanted])
        equal(nv.hamming_topk(q, x, k), best(distances, k))


def test_close_neighbours(backend: Any, rng: np.random.Generator) -> None:
    """Rows that differ from a query in a few bits of some levels only, among others far from all of them."""
    bits, q = 1024, np.packbits(rng.random((20, 1024)) < 0.5, axis=1)
    x = np.packbits(rng.random((6000, bits)) < 0.5, axis=1)
    near = rng.choice(6000, 600, replace=False)
    first = rng.choice([0, 128, 256, 512], (600, 1))
    flips = (rng.random((600, bits)) < rng.choice([0.005, 0.02, 0.1], (600, 1))) & (np.arange(bits) >= first)
    x[near] = q[np.arange(600) % 20] ^ np.packbits(flips, axis=1)
    index, ids = nv.BinaryIndex(bits), rng.permutation(6000)
    assert index.levels == (128, 256, 512, 1024)
    index.add(x[:2000], ids[:2000])
    index.add(x[2000:], ids[2000:])
    for used in (100, 128, 256, 300, 512, 777, 1024):
        distances = scores(q, x, "hamming", used)
        for nq in (1, 20):
            for k in (1, 10, 200):
                equal(index.search(q[:nq], k, bits=used), best(distances[:nq], k, "hamming", ids))
                equal(nv.hamming_topk(q[:nq], x, k, bits=used), best(distances[:nq], k))
        equal(index.range_search(q, 30, bits=used), within(distances, 30, ids))


@pytest.mark.parametrize("threads", [1, 2])
def test_many_rows(threads: int, rng: np.random.Generator) -> None:
    """More than are packed, counted or looked through at a time."""
    x, q = rng.integers(0, 256, (70_000, 3), np.uint8), rng.integers(0, 256, (3, 3), np.uint8)
    for metric in SCORES:
        wanted = scores(q, x, metric, 20)
        equal([SCORES[metric](q, x, bits=20, threads=threads)], [wanted.astype(WORST[metric].dtype)])
        equal(SEARCHES[metric](q, x, 5000, bits=20, threads=threads), best(wanted, 5000, metric))
    wanted = scores(q, x, "hamming", 20)
    for ids in (None, rng.permutation(70_000)):
        index = filled(x, 24, ids, levels=[7])
        equal(index.search(q, 5000, bits=20, threads=threads), best(wanted, 5000, "hamming", ids))
        equal(index.range_search(q, 3, bits=20, threads=threads), within(wanted, 3, ids))


def test_jaccard_beyond_float32() -> None:
    """20,000 / 39,999 and 19,999 / 39,997 are one float32, and the second is larger."""
    q, place = np.arange(40_000) < 20_000, np.arange(40_000)
    x = np.packbits([q, place < 39_999, (place >= 1) & (place < 39_997)], axis=1)
    distances, found = nv.jaccard_topk(np.packbits(q), x, 3)
    assert (found.tolist(), distances[0, 1]) == ([[0, 2, 1]], distances[0, 2])


# Indexes


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "big-endian f8"])
def test_vectors(dtype: str, rng: np.random.Generator) -> None:
    """Vectors are packed with the thresholds of the index, as rows and as queries, alone and in lists."""
    x, limits = rng.standard_normal((50, 20)).astype(DTYPES[dtype]), rng.standard_normal(20)
    codes = nv.pack_bits(x, limits)
    index, wanted = filled(x, 20, thresholds=limits), filled(codes, 20)
    equal([index.reconstruct(range(50))], [codes])
    for q, query in ((x, codes), (x[3], codes[3]), (x.tolist(), codes), (x[::-2], codes[::-2])):
        equal(index.search(q, 7), wanted.search(query, 7))
    equal(index.range_search(x, 5), wanted.range_search(codes, 5))


@pytest.mark.parametrize(
    ("bits", "levels", "wanted", "words"),
    [
        (1, None, (1,), 1),
        (129, None, (128, 129), 3),
        (1024, None, (128, 256, 512, 1024), 16),
        (65536, None, (*(128 << i for i in range(10)),), 1024),
        (300, (50, 130), (50, 130, 300), 6),
    ],
    ids=str,
)
def test_levels_and_memory(bits: int, levels: Any, wanted: tuple[int, ...], words: int) -> None:
    """Whole words in every level; room for 1,024 rows at first."""
    index, codes = nv.BinaryIndex(bits, levels=levels), np.zeros((3, -(-bits // 8)), np.uint8)
    assert (index.levels, index.bits, len(index), index.memory_usage()) == (wanted, bits, 0, 0)
    index.add(codes)
    assert (len(index), index.ntotal, index.memory_usage()) == (3, 3, 1024 * 8 * words)
    index.add(codes, [7, 4, 5])
    assert index.memory_usage() == 2 * 1024 * 8 * words + 1024 * 8 + 3 * 100
    assert repr(index) == f"BinaryIndex(bits={bits}, levels={wanted}, ntotal=6)"
    index.add(codes)
    assert index.search(codes[0], 9)[1].tolist() == [[0, 1, 2, 4, 5, 7, 8, 9, 10]]
    assert index.reconstruct([]).shape == (0, -(-bits // 8))
    assert index.reconstruct([[1], [7]]).shape == (2, 1, -(-bits // 8))
    assert index.reconstruct(10).shape == (-(-bits // 8),)


def state(index: nv.BinaryIndex) -> tuple[Any, ...]:
    found = [*index.search(CODES, 9), *index.search(CODES, 9, bits=3), *index.range_search(CODES, 9)]
    return index.ntotal, repr(index), index.memory_usage(), [some.tolist() for some in found]


@pytest.mark.parametrize(
    ("x", "ids", "error", "message"),
    [
        (CODES, [8, 9, 8, 7], ValueError, "id 8 is given 2 times; ids must be unique"),
        (CODES, [8, 9, 2, 7], ValueError, "id 2 is in the index already; ids must be unique"),
        (CODES, [8, 9, -1, 7], ValueError, "ids must not be negative .*got -1"),
        (CODES | 1, None, ValueError, "x has a one bit beyond bit 22 in row 0; codes of 22 bits end in zeros"),
        (CODES | np.array([[0], [0], [2], [0]], np.uint8), None, ValueError, "x has a one bit beyond bit 22 in row 2"),
        (CODES[:, :1], None, ValueError, r"x has codes of 8 bits, 22 are needed \(3 bytes\)"),
        (np.ones((4, 24)), None, ValueError, "x has 24 dims, 22 are needed"),
        (np.diag([np.inf] * 22), None, ValueError, "x holds inf at row 0, column 0"),
        (CODES[0], None, ValueError, r"x must be a 2-D array \(n, bytes\), got 1 dimension"),
        (np.ones(22), None, ValueError, r"x must be a 2-D array \(n, d\), got 1 dimension"),
    ],
)
@pytest.mark.parametrize("given", [None, [3, 2, 1, 0]], ids=["counted", "given"])
def test_failed_add(given: Any, x: np.ndarray, ids: Any, error: type[Exception], message: str) -> None:
    index = filled(CODES, BITS, given)
    before = state(index)
    with pytest.raises(error, match=message):
        index.add(x, ids)
    assert state(index) == before
    index.add(CODES[:1], [8])
    index.add(CODES[:1])
    equal([index.reconstruct([8, 9])], [CODES[[0, 0]]])


# What is taken and what is refused, by every way in

READERS: dict[str, tuple[str, Call]] = {
    "add": ("x", lambda codes: filled(codes).search(CODES, 3)),
    "search": ("q", lambda q: filled(CODES).search(q, 3)),
    "range_search": ("q", lambda q: filled(CODES).range_search(q, 3)),
    **{f"q of {name}": ("q", lambda q, f=f: f(q, CODES)) for name, f in FUNCTIONS.items()},
    **{f"codes of {name}": ("codes", partial(f, CODES)) for name, f in FUNCTIONS.items()},
}
readers = pytest.mark.parametrize("reader", READERS)


@readers
@pytest.mark.parametrize("layout", {**LAYOUTS, "__dlpack__": Exchange}.items(), ids=lambda item: item[0])
def test_layouts(layout: tuple[str, Call], reader: str) -> None:
    read = READERS[reader][1]
    equal(read(layout[1](CODES.copy())), read(CODES))


@readers
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (CODES.view(np.int8), "has dtype int8, packed codes are uint8; as_ubinary converts signed codes"),
        (CODES.tolist(), "has dtype int64, packed codes are uint8"),
        (CODES > 0, "has dtype bool, packed codes are uint8"),
        (CODES[None], r"must be a 2-D array \(n, bytes\), got 3 dimension"),
        (CODES[:, :0], r"has (shape \(4, 0\): codes need at least one byte|codes of 0 bits)"),
        (np.ma.masked_equal(CODES, 0), "is a masked array"),
        ([[1, 2], [3]], "is not a rectangular array"),
    ],
    ids=["int8", "list of integers", "bool", "three axes", "no bytes", "masked", "ragged"],
)
def test_bad_codes(bad: Any, message: str, reader: str) -> None:
    name, read = READERS[reader]
    with pytest.raises((TypeError, ValueError), match=f"^{name} {message}"):
        read(bad)


@pytest.mark.parametrize(
    ("name", "wrong"), [("k", (0, 2**31)), ("bits", (0, 25)), ("threads", (0, -1)), ("radius", (-1,))]
)
def test_bad_options(name: str, wrong: tuple[int, ...]) -> None:
    index = filled(CODES)
    calls: list[Call] = [index.search, index.range_search, *(partial(f, CODES) for f in FUNCTIONS.values())]
    for call in calls:
        known = inspect.signature(call).parameters
        needed = {option: 1 for option in ("k", "radius") if option in known}
        for value in (*wrong, True, 8.0) if name in known else ():
            error, bounds = (ValueError, "(at least|at most|between)") if value in wrong else (TypeError, "an integer")
            with pytest.raises(error, match=f"{name} must be {bounds}.*, got {value}"):
                call(CODES, **{**needed, name: value})


@pytest.mark.parametrize("bits", [31 * 64, 32 * 64, 2100, 63 * 64 + 5])
def test_long_codes(bits: int, backend: Any, rng: np.random.Generator) -> None:
    """Counts of bytes are added up after 31 words, before a byte is full: of codes that differ in every bit, too."""
    codes = rng.integers(0, 256, (70, -(-bits // 8)), np.uint8)
    codes[1] = ~codes[0]
    for name, found in SCORES.items():
        np.testing.assert_array_equal(
            found(codes, codes, bits=bits), scores(codes, codes, name, bits).astype(np.float32)
        )
    equal(nv.hamming_topk(codes, codes, 9, bits=bits), best(scores(codes, codes, "hamming", bits), 9))
