"""MaxSim of arrays: the sums of float64 brute force to the last bit, from any form, type and memory of tokens."""

from __future__ import annotations

import functools
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import nestvec as nv
import truth
from inputs import DIMS, KINDS, values
from nestvec import arrays, bags
from nestvec.maxsim import SUFFIX, carved

TYPES = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16, "i8": np.int8}
LENGTHS = (3, 0, 1, 129, 2, 300, 16)  # of documents: more than 128 and 256 tokens among them
QUERY_LENGTHS = (1, 15, 33)

Bags = list[np.ndarray]
kinds = st.sampled_from(list(KINDS))


def rounded(scores: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return scores.astype(np.float32)


def joined(some: Bags) -> tuple[np.ndarray, np.ndarray]:
    """Bags as tokens and offsets."""
    return np.concatenate(some), np.cumsum([0, *map(len, some)])


def split(tokens: np.ndarray, lengths: Any) -> Bags:
    return np.split(tokens, np.cumsum(lengths)[:-1]) if len(lengths) else []


def bags_of(rng: np.random.Generator, kind: str, lengths: Any, d: int, suffix: str = "f32") -> Bags:
    """Bags of tokens of a type, with values of a kind."""
    n = int(np.sum(lengths))
    if suffix == "i8":
        return split(rng.integers(-128, 128, (n, d)).astype(np.int8), lengths)
    return split(values(rng, kind, n, d, suffix).astype(TYPES[suffix]), lengths)


def check(actual: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_array_equal(actual, rounded(wanted), strict=True)


def check_best(actual: tuple[np.ndarray, np.ndarray], found: np.ndarray, k: int) -> None:
    for some, others in zip(actual, truth.best(found, k), strict=True):
        np.testing.assert_array_equal(some, others, strict=True)


def exactly(q: Bags, docs: Bags, scales: np.ndarray | None = None) -> np.ndarray:
    """What `maxsim` rounds, from the backend in use."""
    tokens, offsets = joined(docs)
    queries, query_offsets = joined(q)
    kept, kind = arrays.readable_tokens(tokens, "docs")
    weights = np.empty(0, np.float32) if scales is None else scales
    some = bags.Bags(kept, weights, SUFFIX[kind], offsets)
    return bags.score(bags.BagQueries(np.float64(queries), query_offsets), some, np.arange(len(docs)), 1)


@functools.cache
def case(d: int, suffix: str) -> tuple[Bags, Bags, np.ndarray]:
    """Queries, documents and their scores."""
    rng = np.random.default_rng(d)
    q = bags_of(rng, "normal", QUERY_LENGTHS if d > 100 else (*QUERY_LENGTHS, 101), d)
    docs = bags_of(rng, "normal", LENGTHS, d, suffix)
    return q, docs, truth.maxsim(q, docs)


def test_truth(rng: np.random.Generator) -> None:
    """The scores that all others are compared with are those of a matrix product."""
    q, docs = bags_of(rng, "normal", QUERY_LENGTHS, 40), bags_of(rng, "normal", LENGTHS, 40)
    wanted = [[(np.float64(a) @ np.float64(b).T).max(axis=1).sum() if len(b) else -np.inf for b in docs] for a in q]
    np.testing.assert_allclose(truth.maxsim(q, docs), wanted, rtol=1e-12)


@pytest.mark.parametrize("suffix", TYPES)
@pytest.mark.parametrize("d", DIMS)
def test_dims_and_types(d: int, suffix: str, backend: Any) -> None:
    q, docs, wanted = case(d, suffix)
    np.testing.assert_array_equal(exactly(q, docs), wanted)
    check(nv.maxsim(q, joined(docs)), wanted)
    check_best(nv.maxsim_topk(q, joined(docs), 3), wanted, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_kinds(kind: str, backend: Any) -> None:
    """Values of every kind against queries of every kind."""
    rng = np.random.default_rng(len(kind))
    for query_kind in KINDS:
        d, suffix = int(rng.integers(1, 40)), str(rng.choice(["f32", "f16", "bf16"]))
        q, docs = bags_of(rng, query_kind, (2, 17), d), bags_of(rng, kind, (5, 0, 1, 20), d, suffix)
        np.testing.assert_array_equal(exactly(q, docs), truth.maxsim(q, docs), query_kind)


@pytest.mark.parametrize("q_scale", [1e-38, 1.0, 3e38])
def test_tokens_that_nearly_tie(q_scale: float, backend: Any, rng: np.random.Generator) -> None:
    """Which token is a query token's best is not for float32 to say, also where |q| is beyond it."""
    for d, scale in ((3, 1e-30), (64, 1e30), (64, 1e-30), (1000, 1e-30)):
        base = rng.uniform(0.5, 1, d) * scale
        docs = [np.float32(base * (1 + 2e-7 * rng.standard_normal((n, d)))) for n in (100, 40)]
        q = [np.float32(rng.uniform(0.5, 1, (18, d)) * q_scale)]
        np.testing.assert_array_equal(exactly(q, docs), truth.maxsim(q, docs), f"{d}, {scale}")


@pytest.mark.parametrize("size", [2.0**-40, 1.0, 2.0**127])
def test_sums_that_float32_loses(size: float, backend: Any) -> None:
    """One token's product is the larger by terms that each vanish in a float32 sum."""
    tokens = np.ones((2, 8192))
    tokens[0, 4096:] = 0.49 * 2.0**-11
    tokens[1, 4096:] = 0
    tokens[1, 0] = 1.5
    q, docs = [np.full((2, 8192), size)], [np.float32(tokens * 2.0**-30), np.float32(tokens[1:] * 2.0**-30)]
    wanted = truth.maxsim(q, docs)
    assert wanted[0, 0] > wanted[0, 1]
    np.testing.assert_array_equal(exactly(q, docs), wanted)


@pytest.mark.parametrize("magnitude", [2.0**-149, 1e-40, 1e-3, 1.0, 1e38])
def test_scales(magnitude: float, backend: Any, rng: np.random.Generator) -> None:
    """Positive, negative and zero scales, denormal and huge ones."""
    for suffix in TYPES:
        for kind in ("normal", "huge", "denormal"):
            q, docs = bags_of(rng, kind, (2, 17), 33), bags_of(rng, "normal", (3, 0, 1, 140), 33, suffix)
            weights = [np.float32(magnitude * rng.integers(-3, 4, len(x))) for x in docs]
            wanted = truth.maxsim(q, docs, weights)
            np.testing.assert_array_equal(exactly(q, docs, np.concatenate(weights)), wanted, f"{suffix}, {kind}")
            check(nv.maxsim(q, docs, scales=np.concatenate(weights)), wanted)


def test_scale_types(rng: np.random.Generator) -> None:
    q, docs = bags_of(rng, "normal", (4,), 8), bags_of(rng, "normal", (3, 2), 8, "i8")
    scales = np.arange(-2, 3)
    wanted = truth.maxsim(q, docs, split(scales, (3, 2)))
    for some in (scales, scales.tolist(), scales.astype(np.float16), np.repeat(scales, 2)[::2], scales.astype(">f4")):
        check(nv.maxsim(q, docs, scales=some), wanted)


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "fortran": np.asfortranarray,
    "every other row": lambda x: np.repeat(x, 2, axis=0)[::2],
    "every other dim": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "leading dims": lambda x: np.pad(x, ((0, 0), (0, 5)), constant_values=7)[:, : x.shape[1]],
    "trailing dims": lambda x: np.pad(x, ((0, 0), (3, 0)), constant_values=7)[:, 3:],
    "rows backwards": lambda x: x[::-1].copy()[::-1],
    "dims backwards": lambda x: x[:, ::-1].copy()[:, ::-1],
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
    "misaligned": lambda x: np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(x.dtype).reshape(x.shape),
    "columns of one": lambda x: np.repeat(x[:, :, None], 3, axis=2)[:, :, 1],
}


@pytest.mark.parametrize("suffix", TYPES)
@pytest.mark.parametrize("d", [1, 37])
def test_memory(suffix: str, d: int, backend: Any, rng: np.random.Generator) -> None:
    q, docs = bags_of(rng, "normal", (17,), d), bags_of(rng, "normal", (3, 0, 140), d, suffix)
    (tokens, offsets), wanted = joined(docs), rounded(truth.maxsim(q, docs))
    for layout, lay in LAYOUTS.items():
        there = lay(tokens)
        np.testing.assert_array_equal(there, tokens)
        np.testing.assert_array_equal(nv.maxsim(lay(q[0]), (there, offsets)), wanted, layout)


@pytest.mark.parametrize("suffix", TYPES)
def test_one_token_in_many_places(suffix: str, backend: Any, rng: np.random.Generator) -> None:
    """Rows that are no bytes apart."""
    x = np.broadcast_to(bags_of(rng, "normal", (1,), 20, suffix)[0], (150, 20))
    q = bags_of(rng, "normal", (5,), 20)
    check(nv.maxsim(q, (x, [0, 149, 150])), truth.maxsim(q, [x[:149], x[149:]]))


@pytest.mark.parametrize(
    "dtype", [">f4", ">f2", "f8", ">f8", "i1", "u1", "i2", ">i4", "i8", "u8", ml_dtypes.bfloat16, "g"], ids=str
)
def test_types_of_tokens(dtype: Any, rng: np.random.Generator) -> None:
    """Of documents and queries, all that hold real numbers."""
    tokens = rng.integers(0, 100, (12, 9)).astype(dtype)
    q, docs = split(tokens, (5, 7)), split(tokens[::-1], (4, 0, 8))
    check(nv.maxsim(q, docs), truth.maxsim(q, docs))
    check(nv.maxsim(joined(q), joined(docs)), truth.maxsim(q, docs))


def test_lists_of_mixed_types(rng: np.random.Generator) -> None:
    x = rng.integers(-100, 100, (6, 4))
    q = [np.ones((2, 4))]
    for types in (("i1", "f2", "f4"), ("f2", "f8", ">f4"), (ml_dtypes.bfloat16, "f4", "f4"), ("u1", "i1", "i8")):
        docs = [part.astype(dtype) for part, dtype in zip(split(x, (1, 2, 3)), types, strict=True)]
        check(nv.maxsim(q, docs), truth.maxsim(q, docs))


def test_forms(rng: np.random.Generator) -> None:
    """Pairs, lists, arrays of three and of two dimensions, of documents and of queries."""
    x, q = bags_of(rng, "normal", (5, 5, 5), 7), bags_of(rng, "normal", (2, 2), 7)
    wanted = truth.maxsim(q, x)
    of_docs = [joined(x), (joined(x)[0], [0, 5, 10, 15]), x, tuple(x), np.stack(x), [a.tolist() for a in x]]
    of_queries = [joined(q), q, tuple(q), np.stack(q), [a.tolist() for a in q]]
    for docs in of_docs:
        for queries in of_queries:
            check(nv.maxsim(queries, docs), wanted)
    check(nv.maxsim(q[0], x), wanted[:1])
    check(nv.maxsim(q, x[0]), wanted[:, :1])
    check(nv.maxsim(np.stack(q)[:, ::-1], np.stack(x).transpose(0, 2, 1).copy().transpose(0, 2, 1)), wanted)
    check(nv.maxsim(q, (joined(x)[0], np.array([0, 5, 10, 15], np.uint32))), wanted)


def test_nothing(rng: np.random.Generator) -> None:
    """No documents, no queries, no candidates, no tokens."""
    q, x = bags_of(rng, "normal", (2, 3), 7), bags_of(rng, "normal", (4, 1), 7)
    for docs in ([], (np.empty((0, 7), np.float32), [0]), np.empty((0, 3, 7)), np.empty((0, 0, 7))):
        for threads in (1, 2):
            assert nv.maxsim(q, docs, threads=threads).shape == (2, 0)
        D, I = nv.maxsim_topk(q, docs, 2)
        assert (-np.inf == D).all()
        assert (I == -1).all()
    assert nv.maxsim([], x).shape == (0, 2)
    assert nv.maxsim([], x, candidates=np.empty((0, 5), int)).shape == (0, 5)
    assert nv.maxsim_topk((np.empty((0, 7)), [0]), x, 4)[1].shape == (0, 4)
    for candidates in ([], np.empty((2, 0), np.int32)):
        assert nv.maxsim(q, x, candidates=candidates, threads=2).shape == (2, 0)
        assert (nv.maxsim_topk(q, x, 1, candidates=candidates)[1] == -1).all()
    empty = np.empty((3, 0, 7), np.float16)
    check(nv.maxsim(q, empty), np.full((2, 3), -np.inf))
    assert (nv.maxsim_topk(q, empty, 3)[1] == -1).all()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("suffix", ["f32", "i8"])
def test_candidates(suffix: str, threads: int, rng: np.random.Generator) -> None:
    """For all queries or for each, in the order given and as often as given; results name each document once."""
    q, docs = bags_of(rng, "normal", (3, 1, 20), 12), bags_of(rng, "normal", (*LENGTHS, 0, 4), 12, suffix)
    weights = [np.float32(rng.uniform(-1, 1, len(x))) for x in docs]
    found, scales = truth.maxsim(q, docs, weights), np.concatenate(weights)
    for candidates in ([4], [8, 1, 1, 5, 0, 8], np.arange(9)[::-2], rng.integers(0, 9, (3, 30)), [[1], [7], [2]]):
        listed = np.broadcast_to(candidates, (3, np.shape(candidates)[-1]))
        options: dict[str, Any] = {"scales": scales, "candidates": candidates, "threads": threads}
        check(nv.maxsim(q, joined(docs), **options), np.take_along_axis(found, listed, 1))
        only = np.full_like(found, -np.inf)
        np.put_along_axis(only, listed, np.take_along_axis(found, listed, 1), 1)
        for k in (1, 2, 20):
            check_best(nv.maxsim_topk(q, docs, k, **options), only, k)


@pytest.mark.parametrize("k", [1, 5, 29, 30, 31, 100])
def test_k(k: int, backend: Any, rng: np.random.Generator) -> None:
    """Also more than there are documents, or documents with tokens; ties go to the smaller number."""
    q, docs = bags_of(rng, "ties", (1, 4), 5), bags_of(rng, "ties", rng.integers(0, 4, 30), 5)
    check_best(nv.maxsim_topk(q, docs, k), truth.maxsim(q, docs), k)


@pytest.mark.parametrize("order", [1, -1])
def test_negative_scores(order: int, rng: np.random.Generator) -> None:
    """Documents without tokens do not come before those whose scores are negative, even beyond float32."""
    docs = [np.empty((0, 3)), np.full((2, 3), -3e38), np.empty((0, 3)), np.full((1, 3), -1)][::order]
    D, I = nv.maxsim_topk(np.full((2, 3), 3e38), docs, 4)
    assert D.tolist() == [[-np.inf] * 4]
    assert I.tolist() == [[3, 1, -1, -1] if order == 1 else [0, 2, -1, -1]]


@pytest.mark.parametrize("suffix", TYPES)
def test_threads(suffix: str, rng: np.random.Generator) -> None:
    """The same bits from any number of threads, with more of them than documents too."""
    q, docs = bags_of(rng, "normal", (40, 3), 32), bags_of(rng, "normal", (*LENGTHS, *LENGTHS), 32, suffix)
    for some in (docs, docs[:2], docs[3:4]):
        wanted = nv.maxsim(q, some, threads=1)
        check(wanted, truth.maxsim(q, some))
        for threads in (2, 5, 50, None):
            np.testing.assert_array_equal(nv.maxsim(q, some, threads=threads), wanted)
            check_best(nv.maxsim_topk(q, some, 2, threads=threads), truth.maxsim(q, some), 2)


def test_short_calls(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """Much work is cut into many calls."""
    q, docs = bags_of(rng, "normal", (4, 2), 8), bags_of(rng, "normal", (*LENGTHS, *LENGTHS), 8)
    wanted = nv.maxsim(q, docs)
    monkeypatch.setattr(bags, "CALL_WORK", 100)
    np.testing.assert_array_equal(nv.maxsim(q, docs), wanted)


@pytest.mark.parametrize("each", [10**3, 10**8, 10**13])
@pytest.mark.parametrize("threads", [1, 4])
def test_spans(each: int, threads: int) -> None:
    """Cuts hold everything once, a share for each thread and no more than a call's work."""
    cuts = bags.spans(np.full(400, each), threads)
    assert [at for cut in cuts for at in range(*cut)] == list(range(400))
    assert len(cuts) >= threads
    assert max(last - first for first, last in cuts) <= max(1, min(400 // threads, bags.CALL_WORK // each)) + 1


@settings(max_examples=150)
@given(st.integers(0, 2**32), kinds, kinds, st.sampled_from(list(TYPES)), st.booleans())
def test_adversarial(seed: int, kind: str, query_kind: str, suffix: str, scaled: bool) -> None:
    rng = np.random.default_rng(seed)
    d, n, k = int(rng.integers(1, 70)), int(rng.integers(1, 12)), int(rng.integers(1, 15))
    lengths = rng.choice([0, 1, 2, 17, 40, 130], n)
    q, docs = bags_of(rng, query_kind, rng.integers(1, 36, 2), d), bags_of(rng, kind, lengths, d, suffix)
    scales = np.clip(values(rng, kind, 1, int(lengths.sum())), -1e38, 1e38)[0] if scaled and lengths.sum() else None
    wanted = truth.maxsim(q, docs, None if scales is None else split(scales, lengths))
    np.testing.assert_array_equal(exactly(q, docs, scales), wanted)
    check(nv.maxsim(q, docs, scales=scales, threads=2), wanted)
    check_best(nv.maxsim_topk(joined(q), joined(docs), k, scales=scales), wanted, k)


ONE = np.ones((2, 4), np.float32)
PAIR = (np.ones((6, 4), np.float32), [0, 2, 6])
WRONG: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "dims of q": (lambda: nv.maxsim(ONE[:, :3], PAIR), ValueError, "q has 3 dims, 4 are needed"),
    "dims of a list": (lambda: nv.maxsim(ONE, [ONE, ONE[:, :3]]), ValueError, r"docs\[1\] has 3 dims, 4 are needed"),
    "dims of queries": (lambda: nv.maxsim([ONE, ONE[:, :3]], PAIR), ValueError, r"q\[1\] has 3 dims, 4 are needed"),
    "no dims": (lambda: nv.maxsim(ONE, np.zeros((2, 3, 0))), ValueError, "at least one dim"),
    "1-D docs": (lambda: nv.maxsim(ONE, ONE[0]), ValueError, "docs must be a 2-D array"),
    "1-D query": (lambda: nv.maxsim(ONE[0], PAIR), ValueError, "q must be a 2-D array"),
    "4-D docs": (lambda: nv.maxsim(ONE, np.ones((1, 1, 1, 4))), ValueError, "docs must be a 2-D array"),
    "first offset": (lambda: nv.maxsim(ONE, (ONE, [1, 2])), ValueError, "docs must ascend from 0 to 2.*from 1 to 2"),
    "last offset": (lambda: nv.maxsim(ONE, (ONE, [0, 1])), ValueError, "must ascend from 0 to 2"),
    "far offset": (lambda: nv.maxsim(ONE, (ONE, [0, 3])), ValueError, "must ascend from 0 to 2"),
    "no offsets": (lambda: nv.maxsim(ONE, (ONE, np.empty(0, int))), ValueError, "got 0 of them, from nothing"),
    "descending": (lambda: nv.maxsim(ONE, (ONE, [0, 2, 1, 2])), ValueError, "must ascend from 0 to 2"),
    "negative offset": (lambda: nv.maxsim(ONE, (ONE, [0, -1, 2])), ValueError, "must ascend from 0 to 2"),
    "float offsets": (lambda: nv.maxsim(ONE, (ONE, [0.0, 2.0])), TypeError, "offsets of docs must be 1-D integers"),
    "bool offsets": (lambda: nv.maxsim(ONE, (ONE, [False, True])), TypeError, "offsets of docs must be 1-D integers"),
    "query offsets": (lambda: nv.maxsim((ONE, [0, 1]), PAIR), ValueError, "offsets of q must ascend from 0 to 2"),
    "empty query": (lambda: nv.maxsim([ONE, ONE[:0]], PAIR), ValueError, "query 1 has no tokens"),
    "only an empty query": (lambda: nv.maxsim(ONE[:0], PAIR), ValueError, "query 0 has no tokens"),
    "k of 0": (lambda: nv.maxsim_topk(ONE, PAIR, 0), ValueError, "k must be at least 1, got 0"),
    "negative k": (lambda: nv.maxsim_topk(ONE, PAIR, -1), ValueError, "k must be at least 1, got -1"),
    "float k": (lambda: nv.maxsim_topk(ONE, PAIR, 1.0), TypeError, "k must be an integer"),  # type: ignore[arg-type]
    "threads": (lambda: nv.maxsim(ONE, PAIR, threads=0), ValueError, "threads must be at least 1"),
    "candidate": (lambda: nv.maxsim(ONE, PAIR, candidates=[0, 2]), ValueError, "candidate 2 does not .* 0 to 1"),
    "negative": (lambda: nv.maxsim_topk(ONE, PAIR, 1, candidates=[-1]), ValueError, "candidate -1 does not exist"),
    "float candidates": (lambda: nv.maxsim(ONE, PAIR, candidates=[0.0]), TypeError, "ids must be integers"),
    "3-D candidates": (lambda: nv.maxsim(ONE, PAIR, candidates=[[[0]]]), ValueError, r"\(c,\) or \(1, c\)"),
    "rows of candidates": (lambda: nv.maxsim(ONE, PAIR, candidates=[[0], [1]]), ValueError, r"shape \(2, 1\)"),
    "few scales": (lambda: nv.maxsim(ONE, PAIR, scales=[1.0]), ValueError, r"scales must be \(6,\)"),
    "2-D scales": (lambda: nv.maxsim(ONE, PAIR, scales=np.ones((2, 6))), ValueError, r"got shape \(2, 6\)"),
    "NaN scale": (lambda: nv.maxsim(ONE, PAIR, scales=[1, 1, 1, np.nan, 1, 1]), ValueError, "nan at row 3, column 0"),
    "bool scales": (lambda: nv.maxsim(ONE, PAIR, scales=[True] * 6), TypeError, "scales has dtype bool"),
    "carving nothing": (lambda: nv.carve(ONE[:0], 0.5), ValueError, "at least one"),
    "carving at NaN": (lambda: nv.carve(ONE, float("nan")), ValueError, "tau must be a finite number"),
    "carving at Inf": (lambda: nv.carve(ONE, float("inf")), ValueError, "tau must be a finite number"),
    "carving NaN": (lambda: nv.carve(ONE * np.nan, 0.5), ValueError, "tokens holds nan at row 0, column 0"),
    "carving many": (lambda: nv.carve(ONE[None], 0.5), ValueError, "tokens must be a 2-D array"),
    "carving the huge": (lambda: nv.carve(ONE * np.float32(3e38), 1), ValueError, "beyond the range of float32"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_arguments(wrong: str) -> None:
    call, error, message = WRONG[wrong]
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("dtype", [bool, complex, object, str], ids=str)
def test_wrong_types(dtype: Any) -> None:
    wrong = ONE.astype(dtype)
    with pytest.raises(TypeError, match="docs has dtype"):
        nv.maxsim(ONE, (wrong, [0, 2]))
    with pytest.raises(TypeError, match=r"docs\[1\] has dtype"):
        nv.maxsim(ONE, [ONE, wrong])
    with pytest.raises(TypeError, match="q has dtype"):
        nv.maxsim_topk(wrong, PAIR, 1)
    with pytest.raises(TypeError, match="tokens has dtype"):
        nv.carve(wrong, 0.5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.float64, ">f4"], ids=str)
def test_not_finite(dtype: Any, value: float, backend: Any, rng: np.random.Generator) -> None:
    """Token and column are named, also of the last value of a type read in place."""
    tokens, offsets = joined(bags_of(rng, "normal", (3, 200, 0, 4), 19))
    tokens = tokens.astype(dtype)
    for token, column in ((0, 0), (150, 18), (206, 18), (206, 3)):
        bad = tokens.copy()
        bad[token, column] = value
        some = tokens[:4].astype(np.float32)
        message = rf"docs holds -?{abs(value)} at (row|token) {token}, column {column}; only finite"
        with pytest.raises(ValueError, match=message):
            nv.maxsim(some, (bad, offsets), threads=3)
        with pytest.raises(ValueError, match=message):
            nv.maxsim_topk(some, (bad, offsets), 2)
        with pytest.raises(ValueError, match=f"q holds {value} at row {token}, column {column}; only finite"):
            nv.maxsim((bad, offsets[[0, 1, 4]]), PAIR[0].repeat(5, axis=1)[:, :19])


def test_candidates_need_be_finite_only(rng: np.random.Generator) -> None:
    """What is read in place is looked at only where it is scored."""
    docs = bags_of(rng, "normal", (2, 3, 2), 6)
    docs[1][2, 5] = np.nan
    q = bags_of(rng, "normal", (3,), 6)
    check(nv.maxsim(q, joined(docs), candidates=[2, 0]), truth.maxsim(q, [docs[2], docs[0]]))
    with pytest.raises(ValueError, match="docs holds nan at token 4, column 5"):
        nv.maxsim(q, joined(docs), candidates=[2, 1])


def test_float64_beyond_float32() -> None:
    with pytest.raises(ValueError, match="docs holds 1e\\+39 at row 1, column 2, beyond the range of float32"):
        nv.maxsim(ONE, [np.ones((1, 4)), np.array([[1, 1, 1e39, 1]])])


def carving(x: np.ndarray, tau: float) -> np.ndarray:
    """As documented: the first token left takes those left that are alike."""
    alike, left, sums = rounded(truth.scores(x, x, "ip")).astype(np.float64), list(range(len(x))), []
    while left:
        taken = [t for t in left if t == left[0] or alike[left[0], t] >= tau]
        sums.append(np.cumsum(np.float64(x)[taken], axis=0)[-1])
        left = [t for t in left if t not in taken]
    return np.stack(sums)


@pytest.mark.parametrize("kind", ["normal", "ties", "duplicates", "one-hot", "denormal", "underflowing"])
@pytest.mark.parametrize("d", [1, 40])
def test_carve(kind: str, d: int, backend: Any, rng: np.random.Generator) -> None:
    x = values(rng, kind, 30, d)
    for tau in (-1e30, -1.0, 0.0, 0.7, 1.0, 2.5, 1e30):
        check(nv.carve(x, tau), carving(x, tau))
    assert nv.carve(x, -1e30).shape == (1, d)
    assert len(nv.carve(x, 1e30)) == 30
    check(nv.carve(np.asfortranarray(x.astype(">f8")), 0.7), carving(x, 0.7))


def test_carving_keeps_scores_of_equal_tokens(rng: np.random.Generator) -> None:
    """MaxSim is linear in a query token."""
    q, docs = values(rng, "one-hot", 30, 6), bags_of(rng, "normal", (3, 9), 6)
    q /= np.linalg.norm(q, axis=1, keepdims=True)
    fewer = nv.carve(q, 0.9)
    assert len(fewer) == len(np.unique(q, axis=0)) < len(q)
    np.testing.assert_allclose(nv.maxsim(fewer, docs), nv.maxsim(q, docs), rtol=1e-5)


def test_offsets_of_carved_queries(rng: np.random.Generator) -> None:
    q = bags_of(rng, "ties", (1, 9, 30), 4)
    tokens, offsets = joined(q)
    some = carved(bags.BagQueries(np.float64(tokens), offsets), 1.0)
    for (first, last), one in zip(pairwise(some.offsets.tolist()), q, strict=True):
        np.testing.assert_array_equal(some.tokens[first:last], nv.carve(one, 1.0))
