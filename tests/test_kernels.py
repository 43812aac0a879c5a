"""Every backend computes the same bits as the loops of the table, and those loops compute what they say."""

from __future__ import annotations

import functools
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import cases
import truth
from inputs import KINDS, METRICS, SHAPES, guarded, level_widths, stored, values
from nestvec import backends
from nestvec.kernels import TABLE
from nestvec.kernels.lanes import L2
from nestvec.planes import EVERY

PLAIN = 2000  # values beyond which the compiled loop stands in for the interpreted one
EPS = 2.0**-53
LISTS = {  # what lies beyond `counts` is nobody's
    "scan": ("rows", "upper"),
    "scan_bits": ("rows", "distances"),
    **dict.fromkeys(("scan_b1", "scan_i4", "scan_i8", "keep_best"), ("rows", "sums", "values")),
    **{f"rescore_{suffix}": ("candidates", "upper") for suffix in ("f32", "f16", "bf16")},
}


def outcome(name: str, kernel: Any, arguments: cases.Arguments) -> cases.Arguments:
    """What the call returned, and all arguments after it."""
    with np.errstate(all="ignore"):
        result = {"return": kernel(*arguments.values()), **arguments}
    result.pop("scratch", None)  # its contents are nobody's
    for key in LISTS.get(name, ()):
        counts = result["counts"] if result[key].ndim == 1 else result["counts"][:, None]
        result[key] = np.where(np.arange(result[key].shape[-1]) < counts, result[key], 0)
    return result


@functools.lru_cache(maxsize=len(KINDS))
def expected(name: str, n: int, d: int, kind: str) -> cases.Arguments:
    """The outcome by the loop of the table, as plain Python if that does not take too long."""
    loop = TABLE[name]
    loop = getattr(loop, "py_func", loop) if n * d <= PLAIN else loop
    return outcome(name, loop, cases.arguments(name, n, d, kind))


@pytest.mark.parametrize(("n", "d"), SHAPES)
@pytest.mark.parametrize("name", TABLE)
def test_parity(name: str, n: int, d: int, backend: Any) -> None:
    """Same bits (but for the sign of zero), nothing else written, nothing read past the end of an argument."""
    for kind in KINDS:
        arguments = cases.arguments(name, n, d, kind)
        arguments = {key: guarded(a) if isinstance(a, np.ndarray) else a for key, a in arguments.items()}
        actual = outcome(name, getattr(backend, name), arguments)
        for key, wanted in expected(name, n, d, kind).items():
            np.testing.assert_array_equal(actual[key], wanted, f"{key}, {kind}")


def test_most_dims(backend: Any) -> None:
    """65,536 dims of the largest codes: the largest sums there are, none of which may saturate."""
    x = np.ones((3, 65536), np.float32)
    x[1] = -1
    segment, bounds = cases.plane(x, np.asarray([65536])), np.asarray([65536])
    scan = cases.scan_arguments(segment, bounds, x[:2], 0, 128)
    backend.scan(*scan.values())
    one = cases.scan_arguments(segment, bounds, x[1:2], 0, 128)
    backend.scan(*one.values())
    top = 127 * 65536
    np.testing.assert_allclose(scan["upper"][:, :3], [[top, -top, top], [-top, top, -top]], rtol=1e-3)
    np.testing.assert_array_equal(one["upper"][0, :3], scan["upper"][1, :3])


@pytest.mark.parametrize("room", [64, 128, 192, 704])
@pytest.mark.parametrize("queries", [1, 37])
def test_full_buffers(queries: int, room: int, backend: Any, rng: np.random.Generator) -> None:
    """A scan stops at the first block for which a query lacks room, and goes on from there once there is some."""
    x, bounds = values(rng, "normal", 1000, 24), np.asarray([9, 24])
    segment, q = cases.plane(x, bounds), values(rng, "normal", queries, 24)
    reach = cases.upper_bounds(segment, bounds, q, 0)
    least = np.quantile(reach, np.linspace(0, 1, len(q)), axis=1).diagonal().astype(np.float32)
    found: list[list[int]] = [[] for _ in q]
    at = 0
    while at < 1000:
        scan = cases.scan_arguments(segment, bounds, q, 0, room)
        scan["thresholds"][: len(q)], scan["first"] = least, at
        reached = backend.scan(*scan.values())
        assert reached == 1000 or (reached % 64 == 0 and scan["counts"].max() > room - 64)
        at = reached
        for rows, count, so_far in zip(scan["rows"], scan["counts"], found, strict=True):
            so_far.extend(rows[:count].tolist())
    assert found == [np.flatnonzero(row >= bound).tolist() for row, bound in zip(reach, least, strict=True)]


SETS = {
    "none": lambda rng, shape: np.zeros(shape, bool),
    "all": lambda rng, shape: np.ones(shape, bool),
    "one": lambda rng, shape: np.arange(shape[1]) == rng.integers(0, shape[1], (shape[0], 1)),
    "few": lambda rng, shape: rng.random(shape) < 0.02,
    "half": lambda rng, shape: rng.random(shape) < 0.5,
    "runs": lambda rng, shape: np.repeat(rng.random((shape[0], -(-shape[1] // 48))) < 0.3, 48, axis=1)[:, : shape[1]],
}


def words_of(sets: np.ndarray) -> np.ndarray:
    """Sets of rows (m, n) as words; bits behind the last row are ones, which must not matter."""
    bits = np.pad(sets, ((0, 0), (0, -sets.shape[1] % 64)), constant_values=True)
    return np.packbits(bits, axis=1, bitorder="little").view(np.uint64)


@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
@pytest.mark.parametrize("queries", [1, 3, 37])
@pytest.mark.parametrize("kind", SETS)
def test_scan_finds_what_is_allowed(kind: str, queries: int, own: bool, backend: Any, rng: np.random.Generator) -> None:
    """Rows of the set and no others, with the same bounds as without; padding of the set is never read."""
    for n in (1, 15, 16, 17, 63, 64, 65, 1000):
        x, q, bounds = values(rng, "normal", n, 20), values(rng, "normal", queries, 20), np.asarray([7, 20])
        segment, sets = cases.plane(x, bounds), SETS[kind](rng, (queries if own else 1, n))
        scan = cases.scan_arguments(segment, bounds, q, 0, 1100)
        assert backend.scan(*{**scan, "allowed": guarded(words_of(sets))}.values()) == n
        upper = cases.upper_bounds(segment, bounds, q, 0)
        for i, count in enumerate(scan["counts"]):
            wanted = np.flatnonzero(sets[i if own else 0])
            np.testing.assert_array_equal(scan["rows"][i, :count], wanted)
            np.testing.assert_array_equal(scan["upper"][i, :count], upper[i, wanted])


@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize("suffix", ["f32", "f16", "bf16"])
def test_topk_finds_what_is_allowed(suffix: str, kind: str, own: bool, backend: Any, rng: np.random.Generator) -> None:
    """The best of the set, as numpy finds them among its rows alone."""
    kernel = getattr(backend, f"topk_{suffix}")
    for n, queries, metric in ((1, 1, 0), (15, 2, 1), (16, 3, 2), (17, 1, 0), (63, 2, 1), (65, 70, 2), (2100, 3, 2)):
        x, q = values(rng, "normal", n, 9, suffix), values(rng, "normal", queries, 9)
        sets = SETS[kind](rng, (queries if own else 1, n))
        best, found = np.full((queries, 5), -np.inf), np.full((queries, 5), -1)
        rows = (q.astype(np.float64), stored(x, suffix), 9, metric, found[0, :0], 0)
        kernel(*rows, guarded(words_of(sets)), best, found)
        for i in range(queries):
            some = np.flatnonzero(sets[i if own else 0])
            scores = truth.scores(q[i : i + 1], x[some], METRICS[metric])[0]
            order = np.argsort(-scores)[:5]
            assert sorted(found[i].tolist()) == sorted([*some[order].tolist(), *[-1] * (5 - len(order))])
            np.testing.assert_array_equal(np.sort(best[i])[::-1][: len(order)], scores[order])


@pytest.mark.parametrize("name", [name for name in backends.available() if name not in ("numba", "python")])
def test_sets_that_do_not_fit_are_refused(name: str) -> None:
    """A set for some of the queries, or for fewer rows than there are, would be read past its end."""
    for kernel in ("scan", "topk_f32"):
        arguments = cases.arguments(kernel, 65, 5, "normal")
        queries = len(arguments["counts"] if kernel == "scan" else arguments["q"])
        for shape in ((queries + 1, 2), (1, 1), (2,)):
            with pytest.raises(ValueError, match="allowed must"):
                getattr(backends.load(name), kernel)(*{**arguments, "allowed": np.zeros(shape, np.uint64)}.values())


def test_widen_all_bits(backend: Any) -> None:
    """Every finite float16 and bfloat16, compared with numpy and ml_dtypes."""
    for name, dtype in (("widen_f16", np.float16), ("widen_bf16", ml_dtypes.bfloat16)):
        bits = np.arange(65536, dtype=np.uint16)
        with np.errstate(invalid="ignore"):
            bits = bits[np.isfinite(bits.view(dtype).astype(np.float32))]
        actual = np.empty(bits.shape, np.float32)
        getattr(backend, name)(bits, actual)
        np.testing.assert_array_equal(actual.view(np.uint32), bits.view(dtype).astype(np.float32).view(np.uint32))


def test_narrow_all_halfway(backend: Any) -> None:
    """Every finite float16 and bfloat16, the values halfway to the next, and their float32 neighbours."""
    for name, dtype in (("narrow_f16", np.float16), ("narrow_bf16", ml_dtypes.bfloat16)):
        with np.errstate(invalid="ignore"):
            exact = np.arange(65536, dtype=np.uint16).view(dtype).astype(np.float32)
        exact = np.unique(exact[np.isfinite(exact)])
        middle = ((exact[1:].astype(np.float64) + exact[:-1]) / 2).astype(np.float32)
        source = np.concatenate([exact, middle, np.float32([65519.996, 65520, 1e38, 3.3961775e38, 3.4e38])])
        source = np.concatenate([source, np.nextafter(source, np.inf), np.nextafter(source, -np.inf)])
        source = np.concatenate([source, -source])
        actual = np.empty(source.shape, np.uint16)
        getattr(backend, name)(source, actual)
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(actual, source.astype(dtype).view(np.uint16))


def test_first_nonfinite(backend: Any) -> None:
    x = np.zeros(5000, np.float32)
    assert backend.first_nonfinite(x) == -1
    for at, value in ((4999, np.inf), (1024, -np.inf), (1023, np.nan), (0, np.inf)):
        x[at] = value
        assert backend.first_nonfinite(x) == at


def test_sum_bytes(backend: Any, rng: np.random.Generator) -> None:
    for size in (0, 1, 1023, 1024, 5000):
        some = rng.integers(0, 256, size, dtype=np.uint8)
        assert backend.sum_bytes(some) == some.sum(dtype=np.int64)


def test_crc32c_is_the_standard_one(backend: Any) -> None:
    """The catalogue's check value, and the examples of RFC 3720, B.4."""
    ascending = bytes(range(32))
    for data, wanted in (
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (ascending, 0x46DD794E),
        (ascending[::-1], 0x113FDB5C),
    ):
        assert backend.crc32c(np.frombuffer(data, np.uint8), 0) == wanted


def test_crc32c_of_parts(backend: Any, rng: np.random.Generator) -> None:
    """Any length from any address, by plain bytes; the sum of what comes before goes on."""
    plain = getattr(TABLE["crc32c"], "py_func", TABLE["crc32c"])
    some = rng.integers(0, 256, 200, dtype=np.uint8)
    for length in range(131):
        assert backend.crc32c(guarded(some[:length]), 0) == plain(some[:length], 0)
    for first in range(1, 65):
        assert backend.crc32c(some[first:], 7) == plain(some[first:], 7)
    many = rng.integers(0, 256, 100_000, dtype=np.uint8)
    whole = plain(many, 0)
    assert backend.crc32c(many, 0) == whole
    for cut in (0, 1, 6143, 6144, 6145, 20_001, 99_999, 100_000):
        assert backend.crc32c(many[cut:], backend.crc32c(many[:cut], 0)) == whole


@pytest.mark.parametrize("metric", range(3), ids=METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_exact(kind: str, metric: int, rng: np.random.Generator) -> None:
    """Scores against rational arithmetic: the error is a few roundings of float64, whatever the values are."""
    q, x = values(rng, kind, 2, 19), values(rng, kind, 5, 19)
    actual = cases.exact_scores(q, x, metric)
    np.testing.assert_array_equal(actual, truth.scores(q, x, METRICS[metric]))
    for i, j in np.ndindex(actual.shape):
        a, b = [Fraction(float(v)) for v in q[i]], [Fraction(float(v)) for v in x[j]]
        terms = [-((s - t) ** 2) if metric == L2 else s * t for s, t in zip(a, b, strict=True)]
        wanted, size = sum(terms), sum(map(abs, terms))
        if METRICS[metric] == "cosine" and any(a) and any(b):
            root = _root(sum(s * s for s in a) * sum(t * t for t in b))
            wanted, size = wanted / root, size / root
        assert abs(Fraction(actual[i, j]) - wanted) <= 40 * Fraction(EPS) * size


def _root(value: Fraction) -> Fraction:
    with localcontext() as context:
        context.prec = 60
        return Fraction((Decimal(value.numerator) / Decimal(value.denominator)).sqrt())


@pytest.mark.parametrize("metric", range(3), ids=METRICS)
@pytest.mark.parametrize("suffix", ["f32", "f16", "bf16"])
def test_scores_and_topk(suffix: str, metric: int, backend: Any, rng: np.random.Generator) -> None:
    """All scores, and the best of them in order, as numpy finds them; ties by id, and leading dims only."""
    q, x = values(rng, "ties", 3, 21, suffix), values(rng, "ties", 200, 21, suffix)
    wanted = truth.scores(q[:, :17], x[:, :17], METRICS[metric])
    actual = np.empty(wanted.shape, np.float32)
    getattr(backend, f"scores_{suffix}")(q.astype(np.float64), stored(x, suffix), 17, metric, actual)
    np.testing.assert_array_equal(actual, wanted.astype(np.float32))
    ids = rng.permutation(1000)[:200]
    best, found = np.full((3, 30), -np.inf), np.full((3, 30), -1)
    getattr(backend, f"topk_{suffix}")(q.astype(np.float64), stored(x, suffix), 17, metric, ids, 0, EVERY, best, found)
    order = np.lexsort((np.broadcast_to(ids, wanted.shape), -wanted), axis=1)[:, :30]
    assert [sorted(row) for row in found.tolist()] == [sorted(row) for row in ids[order].tolist()]
    np.testing.assert_array_equal(np.sort(best)[:, ::-1], np.take_along_axis(wanted, order, 1))


@pytest.mark.parametrize("take", [5, 16, 2**62])
def test_rescore(take: int, backend: Any, rng: np.random.Generator) -> None:
    """Best bounds first, `take` of them rounded up to fours; what is left can still matter, no such row is lost."""
    x, q = values(rng, "normal", 100, 32), values(rng, "normal", 1, 32)
    scores = truth.scores(q, x, "ip")
    upper = (scores + rng.uniform(0, 3, scores.shape)).astype(np.float32)
    listed, counts, least = np.arange(100, dtype=np.int32)[None], np.asarray([100]), np.float32([-np.inf])
    best, ids, left = np.full((1, 5), -np.inf), np.full((1, 5), -1), upper.copy()
    rows = (q.astype(np.float64), x, 32, 0, ids[0, :0], 0)
    done = backend.rescore_f32(*rows, take, np.ones(1), np.zeros(1), least, listed, left, counts, best, ids)
    assert 8 <= done <= -(-take // 4) * 4
    order = np.argsort(-upper[0])
    seen, waiting = order[:done], set(listed[0, : counts[0]].tolist())
    assert set(ids[0].tolist()) == set(seen[np.argsort(-scores[0, seen])[:5]].tolist())
    assert waiting == {r for r in order[done:].tolist() if upper[0, r] >= least[0]}
    assert least[0] <= best.min() <= least[0] + 1e-3
    if take > 100:
        assert not waiting
        assert sorted(best[0]) == sorted(scores[0])[-5:]


@pytest.mark.parametrize("kind", KINDS)
def test_planes_hold_what_they_say(kind: str, backend: Any, rng: np.random.Generator) -> None:
    """x = s (c + e): the codes where the layout puts them, norms never below the true ones, nor far above."""
    x, bounds = values(rng, kind, 70, 37), np.asarray([1, 18, 37])
    segment = cases.plane(np.zeros_like(x), bounds)
    segment.blocks[:] = 0
    backend.pack_rows(x, bounds, segment.starts, 0, segment.codes, segment.stats, segment.blocks)
    stats = segment.stats[:, :70].astype(np.float64)
    scale = np.where(stats[0] > 0, stats[0], 1)[:, None]
    codes, begin = np.empty(x.shape), 0
    for start, width, end in zip(segment.starts, level_widths(bounds, 4), bounds, strict=True):
        lines = segment.codes[start : start + 128 * width].reshape(8, width // 4, 16, 4)
        codes[:, begin:end] = lines.transpose(0, 2, 1, 3).reshape(128, width)[:70, : end - begin] - 128.0
        begin = end
    assert (abs(codes).max(axis=1) == np.where(x.any(axis=1), 127, 0))[abs(x).max(axis=1) > 1e-38].all()
    units, missing = x / scale, x / scale - codes
    for level, end in enumerate(bounds):
        norm, error = np.linalg.norm(units[:, :end], axis=1), np.linalg.norm(missing[:, :end], axis=1)
        behind = np.linalg.norm(units[:, end:], axis=1)
        assert within(stats[1 + level], norm)
        assert within(stats[4 + level], error, norm * 2.0**-21)
        assert level == 2 or within(stats[7 + level], behind)
        assert ((stats[1 + level] == 0) == ~x[:, :end].any(axis=1)).all()
    for block, rows in enumerate((slice(0, 64), slice(64, 70))):
        np.testing.assert_array_equal(segment.blocks[:, block], segment.stats[1:7, rows].max(axis=1))


@pytest.mark.parametrize("kind", KINDS)
def test_queries_hold_what_they_say(kind: str, backend: Any, rng: np.random.Generator) -> None:
    """q = t (b + f), over the searched prefix: codes, their sums, and factors that are never too small."""
    q, bounds = values(rng, kind, 40, 90), np.asarray([3, 70])
    used = q[:, :70].astype(np.float64)
    step = np.where(used.any(axis=1), abs(used).max(axis=1) / 127, 1)[:, None]
    for metric in range(3):
        packed = cases.no_queries(40, bounds)
        backend.pack_queries(q, bounds, metric, *packed.values())
        codes = np.concatenate([packed["codes"][:40, :3], packed["codes"][:40, 64:131]], axis=1).astype(np.float64)
        assert (abs(used / step - codes) <= 0.5 + 1e-9).all()
        np.testing.assert_array_equal(packed["sums"][-1, :40], codes.sum(axis=1))
        stats = packed["stats"][:, :40].astype(np.float64)
        norm = np.linalg.norm(used / step, axis=1)
        for level, end in enumerate(bounds):
            prefix = np.linalg.norm((used / step)[:, :end], axis=1)
            left = np.linalg.norm((used / step - codes)[:, :end], axis=1)
            assert within(stats[level], prefix + left, rtol=1e-4)
            assert within(stats[2 + level], left, prefix * 2.0**-15, rtol=1e-4)
        assert within(stats[4], np.linalg.norm((used / step)[:, 3:], axis=1), rtol=1e-4)
        multiply = {"ip": 1 / step[:, 0], "l2": 0.5 / step[:, 0], "cosine": norm}[METRICS[metric]]
        np.testing.assert_allclose(packed["multiply"], multiply, rtol=1e-12)
        np.testing.assert_allclose(packed["offset"], norm**2 * step[:, 0] / 2 * (metric == L2), rtol=1e-12)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_coded_queries_hold_what_they_say(kind: str, metric: str, backend: Any, rng: np.random.Generator) -> None:
    """Codes over a prefix, in steps of a wider one, the digits of them, and the terms of each metric."""
    q, bounds = values(rng, kind, 40, 90).astype(np.float64), np.asarray([3, 70, 90])
    places = [*range(3), *range(64, 101)]
    center = rng.standard_normal(90) * abs(q).max() / 10
    for largest, shift, digits in ((15, 1.0, 5), (127, 15.0625, 0)):
        codes, words = np.zeros((40, 192), np.int8), np.zeros((40, digits, 3), np.uint64)
        shifts, lifts, units, offsets = np.empty(40, np.int64), np.empty(40, np.float32), np.empty(40), np.empty(40)
        given = (q, center if digits else center[:0], bounds, 40, 80, METRICS.index(metric), largest, shift)
        backend.code_queries(*given, codes, words, shifts, lifts, units, offsets)
        rows = q - center if digits and metric == "l2" else q
        step = np.where(rows[:, :80].any(axis=1), abs(rows[:, :80]).max(axis=1) / largest, 1 / largest)
        wanted = np.zeros((40, 192))
        wanted[:, places] = rows[:, :40] / step[:, None]
        assert (abs(wanted - codes) <= 0.5 + 1e-9).all()
        assert (codes[:, np.setdiff1d(np.arange(192), places)] == 0).all()
        np.testing.assert_array_equal(shifts, np.rint(codes.sum(axis=1, dtype=np.int64) * shift))
        bits = np.unpackbits(words.astype(">u8").view(np.uint8), axis=2)
        np.testing.assert_array_equal(bits, codes[:, None] >> np.arange(digits)[:, None] & 1)
        square, product = (rows[:, :40] ** 2).sum(axis=1), q[:, :40] @ center[:40] * (digits > 0)
        norm = np.where(square > 0, square, np.inf) ** 0.5
        zero, slack = np.zeros(40), 1e-12 * np.sqrt(square) * np.linalg.norm(center)
        terms = {
            "ip": (zero, step, product),
            "l2": (-1 / step, 2 * step, -square),
            "cosine": (product / step, step / norm, zero),
        }
        lift, unit, offset = terms[metric]
        np.testing.assert_allclose(units, unit, rtol=1e-12)
        assert (abs(offsets - offset) <= slack + 1e-12 * abs(offset)).all()
        limit = np.finfo(np.float32).max
        assert (abs(lifts - np.clip(lift, -limit, limit)) <= slack / step + 1e-6 * abs(lifts) + 1e-45).all()


@pytest.mark.parametrize("kind", KINDS)
def test_order_is_that_of_numpy(kind: str, backend: Any, rng: np.random.Generator) -> None:
    for n in (1, 2, 15, 64, 1000):
        scores, ids, sign, values = cases.arguments("order_best", n, 3, kind).values()
        order = np.lexsort((ids, -scores), axis=1)
        wanted = np.take_along_axis(scores, order, axis=1), np.take_along_axis(ids, order, axis=1)
        backend.order_best(scores, ids, sign, values)
        np.testing.assert_array_equal(scores, wanted[0])
        np.testing.assert_array_equal(ids, wanted[1])
        np.testing.assert_array_equal(values, (sign * scores).astype(np.float32))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("suffix", ["f32", "f16", "bf16"])
def test_listed_rows_are_those_of_a_search(suffix: str, metric: str, backend: Any, rng: np.random.Generator) -> None:
    """The heap that a search of these rows alone leaves."""
    x, q, ids = values(rng, "normal", 300, 20, suffix), values(rng, "normal", 1, 20), rng.permutation(300)
    for count in (0, 1, 3, 4, 8, 9, 250):
        some = rng.permutation(300)[:count].astype(np.int32)
        for named in (ids, ids[:0]):
            heaps = [(np.full((1, 7), -np.inf), np.full((1, 7), -1)) for _ in range(2)]
            given = (17, METRICS.index(metric), named)
            getattr(backend, f"list_{suffix}")(q.astype(np.float64), stored(x, suffix), *given, 5, some, *heaps[0])
            own = named[some] if len(named) else 5 + some.astype(np.int64)
            given = (17, METRICS.index(metric), own, 0, EVERY)
            getattr(backend, f"topk_{suffix}")(q.astype(np.float64), stored(x[some], suffix), *given, *heaps[1])
            np.testing.assert_array_equal(heaps[0], heaps[1])


def within(bound: np.ndarray, value: np.ndarray, slack: np.ndarray | float = 0.0, rtol: float = 1e-5) -> bool:
    """Whether upper bounds hold (to rounding, and underflow to float32) and are not much larger than they need be."""
    return bool((bound >= value * (1 - 1e-12) - 1e-45).all() and (bound <= value * (1 + rtol) + slack + 2e-30).all())
