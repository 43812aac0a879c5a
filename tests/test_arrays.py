"""Whatever holds real numbers gives the same answers as plain float32; whatever does not is refused in clear words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import nestvec as nv
from inputs import METRICS

D, LEVELS = 256, (64,)
LARGEST_ID = 2**63 - 1

Call = Callable[[Any], Any]


class Interface:
    """An object that numpy reads by `__array__` alone."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self._array if dtype is None else self._array.astype(dtype)


class Exchange:
    """An object that numpy reads by `__dlpack__` alone."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()


class Elsewhere:
    """An object whose values are not in this machine's memory."""

    device = "cuda:0"

    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError("not on the CPU")

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0


def misaligned(x: np.ndarray) -> np.ndarray:
    """Values that begin one byte after where they should; read-only as well."""
    return np.frombuffer(b"\0" + x.tobytes(), x.dtype, x.size, 1).reshape(x.shape)


def in_records(x: np.ndarray) -> np.ndarray:
    """Rows that are one byte further apart than they are long."""
    records = np.zeros(len(x), [("flag", "u1"), ("vector", x.dtype, x.shape[1:])])
    records["vector"] = x
    return records["vector"]


def read_only(x: np.ndarray) -> np.ndarray:
    x.flags.writeable = False
    return x


DTYPES = {
    **{np.dtype(code).name: np.dtype(code) for code in "efdgbhiqBHIQ"},
    **{f"big-endian {code}": np.dtype(f">{code}") for code in ("f2", "f4", "f8", "i2", "i8", "u4")},
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "big-endian bfloat16": np.dtype(ml_dtypes.bfloat16).newbyteorder(">"),
}
LAYOUTS: dict[str, Call] = {
    "every other row": lambda x: np.repeat(x, 2, axis=0)[::2],
    "every other dim": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "some of the dims": lambda x: np.hstack([x, x])[:, : x.shape[1]],
    "dims in the middle": lambda x: np.hstack([x[:, :3], x, x])[:, 3 : 3 + x.shape[1]],
    "Fortran": np.asfortranarray,
    "backward rows": lambda x: x[::-1].copy()[::-1],
    "backward dims": lambda x: x[:, ::-1].copy()[:, ::-1],
    "misaligned": misaligned,
    "records": in_records,
    "read-only": read_only,
    "matrix": lambda x: x.view(np.matrix),
    "masked, no mask": lambda x: x.view(np.ma.MaskedArray),
    "__array__": Interface,
}


@pytest.fixture
def x(rng: np.random.Generator) -> np.ndarray:
    """Small natural numbers: every type holds them exactly, and many scores tie."""
    return rng.integers(0, 16, (40, D)).astype(np.float32)


def every_answer(q: Any, x: Any, metric: str = "l2") -> list[np.ndarray]:
    """Answers by every way through the code that reads queries or rows."""
    index = nv.NestedIndex(D, levels=LEVELS, metric=metric)
    index.add(x)
    return [
        index.reconstruct(np.arange(index.ntotal)),
        *index.search(q, 5),
        *index.search(q, 5, dims=100),
        *nv.prefix_topk(q, x, 5, metric=metric),
        *nv.prefix_topk(q, x, 5, dims=100, metric=metric),
        nv.prefix_scores(q, x, dims=100, metric=metric),
    ]


def check(given: Any, x: np.ndarray) -> None:
    """`given` as rows and as queries; few queries read rows in place, more make planes of them."""
    for q, rows, plain_q, plain_rows in ((x[:3], given, x[:3], x), (x, given, x, x), (given, x, x, x)):
        for actual, wanted in zip(every_answer(q, rows), every_answer(plain_q, plain_rows), strict=True):
            np.testing.assert_array_equal(actual, wanted, strict=True)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_types(dtype: np.dtype, x: np.ndarray) -> None:
    given = x.astype(dtype)
    check(given, x)
    if np.issubdtype(dtype, np.signedinteger):
        check(-given, -x)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, dtype: str, x: np.ndarray) -> None:
    given = LAYOUTS[layout](x.astype(DTYPES[dtype]))
    check(given, x)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_on_every_backend(layout: str, x: np.ndarray, backend: Any) -> None:
    given = LAYOUTS[layout](x.copy())
    for actual, wanted in zip(every_answer(given, given, "cosine"), every_answer(x, x, "cosine"), strict=True):
        np.testing.assert_array_equal(actual, wanted)


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64", "uint8"])
def test_exchange_protocol(dtype: str, x: np.ndarray) -> None:
    check(Exchange(x.astype(dtype)), x)


def test_lists(x: np.ndarray) -> None:
    check(x.tolist(), x)
    check(x.astype(int).tolist(), x)
    check(list(x), x)


@pytest.mark.parametrize("metric", METRICS)
def test_rows_that_overlap(metric: str, rng: np.random.Generator) -> None:
    """Views in which rows share memory are read in place."""
    values = rng.standard_normal(D + 100).astype(np.float32)
    for rows in (np.lib.stride_tricks.sliding_window_view(values, D), np.broadcast_to(values[:D], (70, D))):
        for q in (rows[:2], rows):
            for actual, wanted in zip(every_answer(q, rows, metric), every_answer(q, rows.copy(), metric), strict=True):
                np.testing.assert_array_equal(actual, wanted, strict=True)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64", "int64", "uint8"])
def test_torch(dtype: str, x: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(x.copy()).to(getattr(torch, dtype))
    check(tensor, x)
    check(torch.hstack([tensor, tensor])[:, :D], x)
    check(tensor.t().contiguous().t(), x)
    if tensor.is_floating_point():
        check(tensor.requires_grad_(), x)


def test_torch_views_that_negate(x: np.ndarray) -> None:
    """The sign is in a flag of the tensor, not in its memory."""
    torch = pytest.importorskip("torch")
    tensor = torch.complex(torch.zeros(x.shape), -torch.from_numpy(x)).conj().imag
    assert tensor.is_neg()
    check(tensor, x)


def test_torch_errors(x: np.ndarray) -> None:
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(x.copy()).to(torch.bfloat16)
    tensor[30, 200] = float("nan")
    with pytest.raises(ValueError, match="x holds nan at row 30, column 200"):
        nv.prefix_topk(x, tensor, 5)
    with pytest.raises(TypeError, match="q has dtype complex64"):
        nv.prefix_topk(torch.zeros(1, D, dtype=torch.complex64), x, 5)
    with pytest.raises(TypeError, match="x "):
        nv.prefix_topk(x, torch.zeros(5, D, device="meta"), 5)


@pytest.mark.parametrize("rows", ["float32", "float16", "bfloat16"])
def test_rows_are_copied(rows: str, x: np.ndarray) -> None:
    index = nv.NestedIndex(D, rows=rows)
    given = x.astype(DTYPES[rows])
    index.add(given)
    given[:] = 0
    np.testing.assert_array_equal(index.reconstruct(range(len(x))), x)


# What is refused


def with_value(x: np.ndarray, value: float, dtype: str) -> np.ndarray:
    """Rows with one unusual value at row 30, column 200."""
    result = x.astype(DTYPES[dtype])
    result[30, 200] = value
    return result


BAD: dict[str, tuple[Call, type[Exception], str]] = {
    **{
        f"{value} {dtype}": (
            lambda x, value=value, dtype=dtype: with_value(x, value, dtype),
            ValueError,
            f"{{}} holds {value} at row 30, column 200; only finite",
        )
        for dtype in ("float32", "float16", "bfloat16", "float64", "big-endian f4")
        for value in (np.nan, np.inf, -np.inf)
    },
    "beyond float32": (
        lambda x: with_value(x, -1e39, "float64"),
        ValueError,
        r"{} holds -1e\+39 at row 30, column 200, beyond the range of float32",
    ),
    "objects": (lambda x: x.astype(object), TypeError, "{} has dtype object; floating point or integer values"),
    "objects in a list": (lambda x: [[None] * D], TypeError, "{} has dtype object; floating point or integer"),
    "complex": (lambda x: x.astype(complex), TypeError, "{} has dtype complex128; floating point or integer"),
    "bool": (lambda x: x > 3, TypeError, "{} has dtype bool; floating point or integer values"),
    "strings": (lambda x: x.astype("U4"), TypeError, "{} has dtype <U4; floating point or integer values"),
    "dates": (lambda x: x.astype("M8[s]"), TypeError, r"{} has dtype datetime64\[s\]; floating point or integer"),
    "float8": (lambda x: x.astype(ml_dtypes.float8_e4m3fn), TypeError, "{} has dtype float8_e4m3fn; floating point"),
    "records": (
        lambda x: np.zeros((3, D), [("a", "f4")]),
        TypeError,
        r"{} has dtype \[\('a', '<f4'\)\]; floating point or",
    ),
    "ragged": (lambda x: [[1.0] * D, [1.0] * 7], ValueError, "{} is not a rectangular array"),
    "not here": (lambda x: Elsewhere(), TypeError, "{} lives on cuda:0; move it to the CPU"),
    "None": (lambda x: None, ValueError, r"{} must be a 2-D array \(n, d\), got 0 dim"),
    "number": (lambda x: 3.0, ValueError, r"{} must be a 2-D array \(n, d\), got 0 dim"),
    "three axes": (lambda x: x[None], ValueError, rf"{{}} must be a 2-D array .* got 3 dim.* \(1, 40, {D}\)"),
    "no dims": (lambda x: x[:, :0], ValueError, "{} has (shape .*at least one dim|0 dims, 256 are needed)"),
}
READERS: dict[str, tuple[str, Callable[[Any, np.ndarray], Any]]] = {
    "add": ("x", lambda bad, x: nv.NestedIndex(D).add(bad)),
    "search": ("q", lambda bad, x: filled(x).search(bad, 3)),
    "rows of prefix_topk": ("x", lambda bad, x: nv.prefix_topk(x, bad, 3)),
    "queries of prefix_topk": ("q", lambda bad, x: nv.prefix_topk(bad, x, 3)),
    "rows of prefix_scores": ("x", lambda bad, x: nv.prefix_scores(x, bad)),
    "queries of prefix_scores": ("q", lambda bad, x: nv.prefix_scores(bad, x)),
}


def filled(x: np.ndarray, **options: Any) -> nv.NestedIndex:
    index = nv.NestedIndex(x.shape[1], **options)
    index.add(x)
    return index


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", BAD)
def test_bad_vectors(kind: str, reader: str, x: np.ndarray) -> None:
    make, error, message = BAD[kind]
    name, read = READERS[reader]
    with pytest.raises(error, match="^" + message.format(name)):
        read(make(x), x)


def test_errors_are_the_same_on_every_backend(x: np.ndarray, backend: Any) -> None:
    for make, error, message in BAD.values():
        for name, read in READERS.values():
            with pytest.raises(error, match="^" + message.format(name)):
                read(make(x), x)


def test_rows_are_not_taken_for_one_row(x: np.ndarray) -> None:
    for read in (nv.NestedIndex(D).add, lambda rows: nv.prefix_topk(x, rows, 3)):
        with pytest.raises(ValueError, match=rf"x must be a 2-D array \(n, d\), got 1 dimension.*\({D},\)"):
            read(x[0])


def test_wrong_dims(x: np.ndarray) -> None:
    """Both numbers are named."""
    index = filled(x)
    with pytest.raises(ValueError, match="x has 255 dims, 256 are needed"):
        index.add(x[:, :255])
    for search in (index.search, lambda *a, **options: nv.prefix_topk(a[0], x, a[1], **options)):
        with pytest.raises(ValueError, match=r"q has 255 dims, the rows have 256$"):
            search(x[:, :255], 3)
        with pytest.raises(ValueError, match=r"q has 255 dims, the rows have 256 \(or the 64 searched\)"):
            search(x[0, :255], 3, dims=64)
    with pytest.raises(ValueError, match="q has 256 dims, the rows have 255"):
        nv.prefix_scores(x, x[:, :255])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_nonfinite_deep_in_many_rows(dtype: str, threads: int) -> None:
    """Rows are checked a few thousand at a time, and counted from the first one given."""
    x = np.zeros((10_000, 8), DTYPES[dtype])
    x[9001, 5] = np.nan
    message = "holds nan at row 9001, column 5; only finite"
    index = filled(np.ones((100, 8)))
    with pytest.raises(ValueError, match=f"^x {message}"):
        index.add(x, threads=threads)
    with pytest.raises(ValueError, match=f"^x {message}"):
        nv.prefix_topk(np.ones(8), x, 3, threads=threads)
    with pytest.raises(ValueError, match=f"^q {message}"):
        index.search(x, 3, threads=threads)


def test_underflow_is_no_error(x: np.ndarray) -> None:
    """However numpy is told to treat it."""
    tiny = x * 1e-42
    wanted = [a.tobytes() for a in every_answer(tiny, tiny)]
    with np.errstate(all="raise"):
        assert [a.tobytes() for a in every_answer(tiny, tiny)] == wanted


def test_only_searched_dims_are_looked_at() -> None:
    x = np.ones((3, 8), np.float32)
    x[1, 5] = np.nan
    assert nv.prefix_topk(x, x, 3, dims=5)[1].tolist() == [[0, 1, 2]] * 3
    assert filled(np.ones((3, 8))).search(x, 3, dims=5)[1].tolist() == [[0, 1, 2]] * 3


@pytest.mark.parametrize(
    ("rows", "value"),
    [("float16", 65520), ("float16", -1e5), ("float16", 3e38), ("bfloat16", 3.3961776e38), ("bfloat16", -3.4e38)],
)
def test_beyond_the_stored_type(rows: str, value: float, backend: Any) -> None:
    x = np.ones((5000, 8), np.float32)
    x[4500, 3] = value
    index = nv.NestedIndex(8, rows=rows)
    with pytest.raises(ValueError, match=rf"x holds .* at row 4500, column 3, beyond the range of {rows}; rescale"):
        index.add(x)
    assert index.ntotal == 0


@pytest.mark.parametrize(("rows", "value"), [("float16", 65519.996), ("bfloat16", 3.396177e38)])
def test_rounded_to_the_largest_of_the_stored_type(rows: str, value: float) -> None:
    index = filled(np.full((1, 3), value, np.float32), rows=rows)
    assert (index.reconstruct(0) == np.float32(ml_dtypes.finfo(DTYPES[rows]).max)).all()


BAD_IDS: dict[str, tuple[Any, type[Exception], str]] = {
    "repeated": ([1000, 1001, 1000], ValueError, "id 1000 is given 2 times; ids must be unique"),
    "known": ([1000, 7, 1001], ValueError, "id 7 is in the index already; ids must be unique"),
    "negative": ([1000, -1, 1001], ValueError, "ids must not be negative .*got -1"),
    "floats": ([1000.0, 1001.0, 1002.0], TypeError, "ids must be integers, got dtype float64"),
    "bools": ([True, False, True], TypeError, "ids must be integers, got dtype bool"),
    "strings": (["a", "b", "c"], TypeError, "ids must be integers, got dtype <U1"),
    "objects": ([None, 1, 2], TypeError, "ids must be integers, got dtype object"),
    "too large": (np.uint64([2**63, 1000, 1001]), ValueError, f"id {2**63} does not fit int64"),
    "far too large": ([2**64, 1000, 1001], TypeError, "ids must be integers"),
    "too few": ([1000, 1001], ValueError, r"one id per row, 3, got shape \(2,\)"),
    "too many": ([1000, 1001, 1002, 1003], ValueError, r"one id per row, 3, got shape \(4,\)"),
    "none": ([], ValueError, r"one id per row, 3, got shape \(0,\)"),
    "one": (1000, ValueError, r"one id per row, 3, got shape \(\)"),
    "two axes": ([[1000, 1001, 1002]], ValueError, r"one id per row, 3, got shape \(1, 3\)"),
    "ragged": ([[1000], [1001, 1002], 5], ValueError, "ids"),
}


@pytest.mark.parametrize("given", [False, True], ids=["ids counted so far", "ids given so far"])
@pytest.mark.parametrize("kind", BAD_IDS)
def test_bad_ids(kind: str, given: bool, x: np.ndarray) -> None:
    ids, error, message = BAD_IDS[kind]
    index = nv.NestedIndex(D)
    index.add(x, range(len(x)) if given else None)
    before = state(index, x)
    with pytest.raises(error, match=message):
        index.add(x[:3], ids)
    assert state(index, x) == before
    index.add(x[:3], [1000, 1001, 1002])
    index.add(x[:1])
    np.testing.assert_array_equal(index.reconstruct([1000, 1001, 1002, 1003]), x[[0, 1, 2, 0]])


@pytest.mark.parametrize("dtype", ["int8", "uint8", "uint64", "big-endian i8"])
def test_ids_of_any_integer_type(dtype: str, x: np.ndarray) -> None:
    index, ids = nv.NestedIndex(D), np.arange(100, 100 - len(x), -1)
    index.add(x, ids.astype(DTYPES[dtype]))
    np.testing.assert_array_equal(index.reconstruct(ids), x)


def test_ids_run_out(x: np.ndarray) -> None:
    """No id follows the largest int64; one before it, one does."""
    index = nv.NestedIndex(D)
    index.add(x[:1], [LARGEST_ID - 1])
    for count in (2, 3):
        with pytest.raises(ValueError, match="id"):
            index.add(x[:count])
    index.add(x[1:2])
    with pytest.raises(ValueError, match="id"):
        index.add(x[2:3])
    index.add(x[2:3], [5])
    assert sorted(index.search(x[0], 3)[1][0].tolist()) == [5, LARGEST_ID - 1, LARGEST_ID]


# A failed add changes nothing


def state(index: nv.NestedIndex, q: np.ndarray) -> tuple[Any, ...]:
    """All that can be asked of an index."""
    answers = [index.search(some, 50, dims=dims) for some in (q[:1], q[:5], q[:20]) for dims in (index.levels[0], None)]
    return index.ntotal, repr(index), index.memory_usage(), [a.tobytes() for answer in answers for a in answer]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("rows", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("bad_row", [0, 30, 63, 64, 900, 4999, 9999])
def test_failed_add(bad_row: int, rows: str, threads: int, rng: np.random.Generator) -> None:
    """Wherever it fails: in the last block begun, in the room left in the last segment, in a new one."""
    x = rng.standard_normal((10_100, 24)).astype(np.float32)
    x[100:1000] *= 100
    index = nv.NestedIndex(24, levels=[8], metric="cosine", rows=rows)
    index.add(x[:100])
    before, bad = state(index, x), x[100:].copy()
    bad[bad_row, 20] = np.nan
    for ids in (None, range(200, 200 + len(bad))):
        with pytest.raises(ValueError, match=f"x holds nan at row {bad_row}, column 20"):
            index.add(bad, ids, threads=threads)
        assert state(index, x) == before
    with pytest.raises(KeyError, match="100"):
        index.reconstruct(100)
    index.add(x[100:], threads=threads)
    fresh = nv.NestedIndex(24, levels=[8], metric="cosine", rows=rows)
    fresh.add(x)
    for nq in (1, 5, 20):
        for actual, wanted in zip(index.search(x[:nq], 10), fresh.search(x[:nq], 10), strict=True):
            np.testing.assert_array_equal(actual, wanted)
    np.testing.assert_array_equal(index.reconstruct(range(10_100)), fresh.reconstruct(range(10_100)))


@pytest.mark.parametrize("bad_row", [0, 30, 900, 4999])
def test_failed_add_loosens_no_bounds(bad_row: int, rng: np.random.Generator) -> None:
    """The bounds of a block grow with its rows; those of rows that were refused would make searches read more."""
    x = rng.standard_normal((5000, 24)).astype(np.float32)
    index = filled(np.eye(100, 24))
    before = index._contents.stored[0].segment.blocks.copy()
    x[bad_row, 20] = np.nan
    with pytest.raises(ValueError, match=f"row {bad_row}, column 20"):
        index.add(x, threads=1)
    np.testing.assert_array_equal(index._contents.stored[0].segment.blocks, before)


@pytest.mark.parametrize("kind", BAD)
def test_failed_first_add(kind: str, x: np.ndarray) -> None:
    make, error, message = BAD[kind]
    index = nv.NestedIndex(D)
    with pytest.raises(error, match="^" + message.format("x")):
        index.add(make(x))
    assert (len(index), index.memory_usage()) == (0, 0)
    index.add(x)
    assert state(index, x) == state(filled(x), x)


# Other arguments


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"k": 0}, ValueError, "k must be at least 1, got 0"),
        ({"k": -3}, ValueError, "k must be at least 1, got -3"),
        ({"k": 2.0}, TypeError, r"k must be an integer, got 2\.0"),
        ({"k": "3"}, TypeError, "k must be an integer, got '3'"),
        ({"k": None}, TypeError, "k must be an integer, got None"),
        ({"k": True}, TypeError, "k must be an integer, got True"),
        ({"k": 3, "dims": 0}, ValueError, f"dims must be between 1 and {D}, got 0"),
        ({"k": 3, "dims": -1}, ValueError, f"dims must be between 1 and {D}, got -1"),
        ({"k": 3, "dims": D + 1}, ValueError, f"dims must be between 1 and {D}, got {D + 1}"),
        ({"k": 3, "dims": 64.0}, TypeError, r"dims must be an integer, got 64\.0"),
        ({"k": 3, "threads": 0}, ValueError, "threads must be at least 1, got 0"),
        ({"k": 3, "threads": 1.5}, TypeError, r"threads must be an integer, got 1\.5"),
    ],
    ids=str,
)
def test_bad_search_arguments(options: dict[str, Any], error: type[Exception], message: str, x: np.ndarray) -> None:
    with pytest.raises(error, match=message):
        filled(x).search(x, **options)
    with pytest.raises(error, match=message):
        nv.prefix_topk(x, x, **options)
    if options.pop("k") == 3:
        with pytest.raises(error, match=message):
            nv.prefix_scores(x, x, **options)
    if "threads" in options:
        with pytest.raises(error, match=message):
            nv.NestedIndex(D).add(x, **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"d": 0}, ValueError, "d must be between 1 and 65536, got 0"),
        ({"d": 65537}, ValueError, "d must be between 1 and 65536, got 65537"),
        ({"d": 8.0}, TypeError, r"d must be an integer, got 8\.0"),
        ({"d": 8, "levels": (4, 2)}, ValueError, r"levels must be strictly ascending, got \(4, 2\)"),
        ({"d": 8, "levels": (4, 4)}, ValueError, r"levels must be strictly ascending, got \(4, 4\)"),
        ({"d": 8, "levels": (0, 4)}, ValueError, "a level must be between 1 and 8, got 0"),
        ({"d": 8, "levels": (4, 9)}, ValueError, "a level must be between 1 and 8, got 9"),
        ({"d": 8, "levels": (4.5,)}, TypeError, r"a level must be an integer, got 4\.5"),
        ({"d": 8, "levels": 4}, TypeError, "levels"),
        ({"d": 80, "levels": range(1, 33)}, ValueError, "at most 32 levels can be kept, got 33"),
        ({"d": 8, "metric": "dot"}, ValueError, "metric must be one of 'ip', 'l2', 'cosine', got 'dot'"),
        ({"d": 8, "metric": None}, ValueError, "metric must be one of 'ip', 'l2', 'cosine', got None"),
        ({"d": 8, "rows": "int8"}, ValueError, "rows must be one of 'float32', 'float16', 'bfloat16', got 'int8'"),
        ({"d": 8, "rows": np.float16}, ValueError, "rows must be one of 'float32', .* got <class 'numpy.float16'>"),
    ],
    ids=str,
)
def test_bad_index_arguments(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        nv.NestedIndex(**options)


def test_bad_metric(x: np.ndarray) -> None:
    for call in (lambda: nv.prefix_topk(x, x, 3, metric="dot"), lambda: nv.prefix_scores(x, x, metric="dot")):
        with pytest.raises(ValueError, match="metric must be one of 'ip', 'l2', 'cosine', got 'dot'"):
            call()


@pytest.mark.parametrize(
    ("d", "levels", "wanted"),
    [
        (8, None, (8,)),
        (64, None, (64,)),
        (65, None, (64, 65)),
        (768, None, (64, 128, 256, 512, 768)),
        (65536, None, tuple(64 << i for i in range(11))),
        (8, (), (8,)),
        (8, iter([2, 8]), (2, 8)),
        (8, np.asarray([2, 4]), (2, 4, 8)),
        (80, range(1, 32), (*range(1, 32), 80)),
    ],
    ids=str,
)
def test_levels(d: int, levels: Any, wanted: tuple[int, ...]) -> None:
    assert nv.NestedIndex(np.int64(d), levels=levels).levels == wanted


# Few rows, or none


@pytest.mark.parametrize("metric", METRICS)
def test_fewer_rows_than_asked_for(metric: str, x: np.ndarray) -> None:
    """What is missing has id -1 and the worst score there is."""
    worst, index = np.inf if metric == "l2" else -np.inf, filled(x[:2], metric=metric)
    for nq in (1, 5, 20):
        for distances, found in (
            index.search(x[:nq], 4),
            index.search(x[:nq], 4, dims=100),
            nv.prefix_topk(x[:nq], x[:2], 4, metric=metric),
        ):
            assert (distances.dtype, found.dtype) == (np.float32, np.int64)
            assert np.sort(found[:, :2]).tolist() == [[0, 1]] * nq
            assert found[:, 2:].tolist() == [[-1, -1]] * nq
            assert np.isfinite(distances[:, :2]).all()
            assert (distances[:, 2:] == worst).all()
        distances, found = nv.prefix_topk(x[:nq], x[:0], 4, metric=metric)
        assert (distances.tolist(), found.tolist()) == ([[worst] * 4] * nq, [[-1] * 4] * nq)
        assert nv.prefix_scores(x[:nq], x[:0], metric=metric).shape == (nq, 0)


def test_no_rows(x: np.ndarray) -> None:
    index = nv.NestedIndex(D)
    for _ in range(2):
        index.add(x[:0])
        index.add(x[:0].astype(np.float64), [])
        with pytest.raises(ValueError, match="index is empty; add"):
            index.search(x, 3)
    index.add(x)
    index.add(x[:0])
    assert state(index, x) == state(filled(x), x)


@pytest.mark.parametrize("threads", [None, 1, 4])
def test_no_queries(threads: int | None, x: np.ndarray) -> None:
    index = filled(x)
    for dims in (64, 100):
        for distances, found in (
            index.search(x[:0], 3, dims=dims, threads=threads),
            index.search(x[:0, :dims], 50, dims=dims, threads=threads),
            nv.prefix_topk(x[:0], x, 3, dims=dims, threads=threads),
        ):
            assert (len(distances), distances.dtype, found.dtype) == (0, np.float32, np.int64)
            assert distances.shape == found.shape
            assert found.shape[1] in (3, 50)
    assert nv.prefix_scores(x[:0], x, threads=threads).shape == (0, len(x))


def test_one_query(x: np.ndarray) -> None:
    """A vector is one query, and its leading dims are enough."""
    wanted = [a.tolist() for a in filled(x).search(x[3:4], 5, dims=64)]
    for q in (x[3], x[3, :64], x[3:4, :64], x[3].tolist()):
        assert [a.tolist() for a in filled(x).search(q, 5, dims=64)] == wanted
        assert [a.tolist() for a in nv.prefix_topk(q, x, 5, dims=64)] == wanted
        assert nv.prefix_scores(q, x, dims=64).shape == (1, len(x))


def test_reconstruct_refuses_what_is_not_there(x: np.ndarray) -> None:
    index = filled(x)
    for wanted, missing in ((40, 40), (-1, -1), ([0, 41], 41)):
        with pytest.raises(KeyError, match=f"id {missing} is not in the index"):
            index.reconstruct(wanted)
    with pytest.raises(TypeError, match="ids must be integers, got dtype float64"):
        index.reconstruct(1.0)
    assert index.reconstruct([]).shape == (0, D)
    assert index.reconstruct([[1], [2]]).shape == (2, 1, D)
