"""Plans over binary codes: each stage keeps the nearest, of equal ones those added first, and the last one ranks."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

import nestvec as nv
from inputs import levels_of
from nestvec import Stage, backends, bitplans
from nestvec.nearest import query_words
from test_binary import best, equal, random_codes, scores

CASES = 1500  # over all backends
MISSING = np.iinfo(np.int32).max


def planned(
    q: np.ndarray, x: np.ndarray, plan: list[Stage], k: int, bits: int, ids: np.ndarray, allowed: np.ndarray
) -> list[np.ndarray]:
    """What a plan gives, by sorting: rows `x` in order of adding, of which each query may find those `allowed`."""
    distances, named = np.full((len(q), k), MISSING, np.int32), np.full((len(q), k), -1, np.int64)
    for i, rows in enumerate(np.flatnonzero(some) for some in np.broadcast_to(allowed, (len(q), len(x)))):
        for stage in plan:
            counts = scores(q[i : i + 1], x[rows], "hamming", stage.dims or bits)[0].astype(np.int32)
            keep = int(np.ceil(stage.times * min(k, len(x)))) if stage.times else stage.keep
            if stage is not plan[-1]:
                rows = np.sort(rows[np.argsort(counts, kind="stable")[:keep]])
        order = np.lexsort((ids[rows], counts))[:k]
        distances[i, : len(order)], named[i, : len(order)] = counts[order], ids[rows[order]]
    return [distances, named]


def random_plan(rng: np.random.Generator, k: int, n: int, bits: int) -> list[Stage]:
    """Stages of any dims, not always ascending, that keep ever fewer rows, some of them more than there are."""
    keeps = np.sort(rng.integers(k, max(2 * k, n + 20), int(rng.integers(0, 4))))[::-1].tolist()
    dims = rng.integers(1, bits + 1, len(keeps) + 1)
    dims = np.sort(dims) if rng.random() < 0.7 else dims
    last = Stage("b1") if rng.random() < 0.6 else Stage("b1", dims=int(dims[-1]))
    return [*(Stage("b1", dims=int(d), keep=keep) for d, keep in zip(dims, keeps, strict=False)), last]


def random_filter(rng: np.random.Generator, nq: int, names: np.ndarray) -> tuple[Any, np.ndarray]:
    """A filter, and which of the rows it lets each query find."""
    kind, top = rng.integers(0, 4), int(names.max(initial=0)) + 1
    if kind == 0:
        return None, np.ones(len(names), bool)
    mask = rng.random((nq if kind == 3 else 1, top)) < rng.choice([0, 0.02, 0.5, 1])
    given = mask if kind == 3 else mask[0] if kind == 2 else np.flatnonzero(mask[0])
    return given, mask[:, names]


def test_random_cases(backend: Any) -> None:
    """Segments, ids in any order, removed and updated rows, filters, threads: everything at once."""
    names = backends.available()
    for case in range(names.index(backends.describe()[0]), CASES, len(names)):
        rng = np.random.default_rng(case)
        bits, n, nq = int(rng.integers(1, 301)), int(rng.integers(1, 301)), int(rng.choice([0, 1, 2, 9, 40]))
        index, x, q = (
            nv.BinaryIndex(bits, levels_of(rng, bits)),
            random_codes(rng, n, bits),
            random_codes(rng, nq, bits),
        )
        cut, ids = int(rng.integers(0, n + 1)), rng.permutation(3 * n)[:n] if rng.random() < 0.5 else np.arange(n)
        for some in (slice(cut), slice(cut, n)):
            index.add(x[some], ids[some])
        if rng.random() < 0.5:
            gone = rng.random(n) < rng.choice([0.1, 0.9])
            gone[0] = False
            index.remove(ids[gone])
            x, ids = x[~gone], ids[~gone]
            x = np.concatenate([x[1:], x[:1] ^ np.packbits(np.arange(bits) < 1)])
            ids = np.roll(ids, -1)
            index.update(ids[-1:], x[-1:])
        k = int(rng.choice([1, 5, len(x), len(x) + 3]))
        used = int(rng.integers(1, bits + 1))
        plan, (given, allowed) = random_plan(rng, min(k, len(x)), len(x), used), random_filter(rng, nq, ids)
        found = index.search(q, k, bits=used, plan=plan, filter=given, threads=int(rng.choice([1, 1, 2, 3])))
        equal(found, planned(q, x, plan, k, used, ids, allowed), f"case {case}")


@pytest.mark.parametrize("kind", ["counted", "given"])
def test_ties_go_to_rows_added_first(kind: str, backend: Any, rng: np.random.Generator) -> None:
    """5,000 rows of 12 codes in several segments, ids descending: a stage keeps by order, the last one ranks by id."""
    bits, x = 200, random_codes(rng, 12, 200)[rng.integers(0, 12, 5000)]
    x[4000:] = x[0] ^ np.packbits(np.arange(bits) >= 150)  # equal to the first in a prefix
    index, ids = nv.BinaryIndex(bits, [70]), np.arange(5000) if kind == "counted" else np.arange(5000)[::-1] * 2
    for some in np.split(np.arange(5000), [800, 2000, 2001]):
        index.add(x[some], None if kind == "counted" else ids[some])
    q = np.concatenate([x[:1], random_codes(rng, 39, bits)])
    everything = np.ones(5000, bool)
    for keep, then in product((7, 300, 4500), (5, 7)):
        plan = [Stage("b1", dims=70, keep=keep), Stage("b1", dims=130, keep=then), Stage("b1")]
        for nq, threads in ((1, 1), (1, 3), (5, 3), (40, 1), (40, 2)):
            found = index.search(q[:nq], 5, plan=plan, threads=threads)
            equal(found, planned(q[:nq], x, plan, 5, bits, ids, everything), f"{keep}, {then}, {nq}, {threads}")


def test_keeping_all_rows_is_exact(backend: Any, rng: np.random.Generator) -> None:
    """At any prefixes; one stage is the exact search over its bits."""
    x, q = random_codes(rng, 900, 300), random_codes(rng, 12, 300)
    index, ids = nv.BinaryIndex(300, [64, 100]), rng.permutation(2000)[:900]
    index.add(x, ids)
    for used, first in product((64, 65, 128, 300), (1, 60, 64, 100)):
        wanted = best(scores(q, x, "hamming", used), 20, "hamming", ids)
        for keep in (900, 5000):
            plan = [Stage("b1", dims=min(first, used), keep=keep), Stage("b1", times=45), Stage("b1")]
            equal(index.search(q, 20, bits=used, plan=plan), wanted)
            equal(index.search(q, 20, plan=[plan[0], Stage("b1", dims=used)]), wanted)
        equal(index.search(q, 20, bits=used, plan=Stage("b1")), wanted)
        equal(index.search(q, 20, plan=(Stage("b1", dims=used),)), wanted)


def test_short_calls_and_groups(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """Lists longer than a call of a kernel reads, and more queries than pass together."""
    x, q = random_codes(rng, 3000, 256), random_codes(rng, 700, 256)
    index, plan = nv.BinaryIndex(256), [Stage("b1", dims=100, keep=900), Stage("b1", dims=128, keep=60), Stage("b1")]
    index.add(x)
    wanted = planned(q, x, plan, 10, 256, np.arange(3000), np.ones(3000, bool))
    equal(index.search(q, 10, plan=plan, threads=2), wanted)
    monkeypatch.setattr(bitplans, "LIST_WORDS", 1)
    equal(index.search(q[:20], 10, plan=plan, threads=2), [some[:20] for some in wanted])


def test_few_rows_allowed(rng: np.random.Generator) -> None:
    """Where a filter leaves few rows they are copied for the first stage; the others read them where they are."""
    x, q = random_codes(rng, 20_000, 256), random_codes(rng, 300, 256)
    index, plan = nv.BinaryIndex(256), [Stage("b1", dims=100, keep=50), Stage("b1")]
    index.add(x[:9000])
    index.add(x[9000:], np.arange(30_000, 41_000))
    ids = np.append(np.arange(9000), np.arange(30_000, 41_000))
    for few in (ids[::97], ids[:40], ids[19_000:19_900:3], ids[:0]):
        wanted = planned(q, x, plan, 10, 256, ids, np.isin(ids, few))
        for nq, threads in ((1, 1), (300, 2)):
            equal(index.search(q[:nq], 10, plan=plan, filter=few, threads=threads), [some[:nq] for some in wanted])


def test_mapped(tmp_path: Any, rng: np.random.Generator) -> None:
    x, plan = random_codes(rng, 3000, 300), [Stage("b1", dims=128, keep=50), Stage("b1")]
    index = nv.BinaryIndex(300)
    index.add(x)
    index.remove(range(0, 3000, 5))
    index.save(tmp_path / "index.nv")
    mapped = nv.load(tmp_path / "index.nv", mmap=True)
    equal(mapped.search(x[:9], 5, plan=plan), index.search(x[:9], 5, plan=plan))
    assert [s.rows for s in mapped.explain(x[:9], 5, plan).stages] == [2400, 50]


def test_explain(rng: np.random.Generator) -> None:
    """Rows counted and kept, bytes of the words read, for plans and exact search; filters count as they find."""
    x = random_codes(rng, 2000, 300)
    index = nv.BinaryIndex(300)
    index.add(x)
    plan = [Stage("b1", dims=100, keep=400), Stage("b1", dims=128, times=10), Stage("b1")]
    report = index.explain(x[:3], 5, plan)
    wanted = [("b1", 100, 2000, 400, 2000 * 16), ("b1", 128, 400, 50, 400 * 8), ("b1", 300, 50, 5, 50 * 24)]
    assert [(s.code, s.dims, s.rows, s.kept, s.nbytes) for s in report.stages] == wanted
    assert all(s.seconds > 0 for s in report.stages)
    assert [line.split()[:2] for line in str(report).splitlines()[1:]] == [["b1", "100"], ["b1", "128"], ["b1", "300"]]
    back = index.explain(x[0], 5, [Stage("b1", keep=9), Stage("b1", dims=64)]).stages
    assert [(s.rows, s.kept, s.nbytes) for s in back] == [(2000, 9, 2000 * 40), (9, 5, 9 * 8)]
    for options in ({}, {"plan": [Stage("b1", dims=128)]}, {"bits": 128}):
        (stage,) = index.explain(x[:3], 5, **options).stages
        assert (stage.rows, stage.kept, stage.dims) == (2000, 5, 128 if options else 300)
    masks = np.zeros((2, 2000), bool)
    masks[0, :300], masks[1, ::20] = True, True
    assert [(s.rows, s.kept) for s in index.explain(x[:2], 5, plan, filter=masks).stages] == [
        (200, 200), (200, 50), (50, 5)
    ]  # fmt: skip
    assert [(s.rows, s.kept) for s in index.explain(x[:2], 5, filter=range(3)).stages] == [(3, 3)]
    assert index.explain(x[:0], 5, plan).stages == ()


def test_words_between() -> None:
    """Words that hold some of the bits, counted bit by bit."""
    for bounds in ([300], [50, 130, 300], [64, 128, 300], [1, 2, 65, 200]):
        place = [(level, bit // 64) for level, size in enumerate(np.diff([0, *bounds])) for bit in range(size)]
        for begin, bits in product((0, 1, 49, 50, 63, 64, 65, 128, 199), (1, 64, 65, 130, 200)):
            wanted = len(set(place[begin:bits]))
            assert begin >= bits or bitplans.words_between(np.asarray(bounds), begin, bits) == wanted


def test_cut_words(rng: np.random.Generator) -> None:
    """Words of a shorter prefix are those that its codes would be packed into."""
    codes = random_codes(rng, 5, 300)
    for bounds in (np.asarray(b) for b in ([300], [50, 130, 300], [64, 128, 300], [1, 2, 65, 300])):
        whole = query_words(codes, bounds, 300)
        for bits in (1, 2, 49, 50, 51, 64, 65, 66, 128, 130, 192, 299, 300):
            np.testing.assert_array_equal(bitplans.cut_words(whole, bounds, bits), query_words(codes, bounds, bits))


def test_wrong_plan(rng: np.random.Generator) -> None:
    index = nv.BinaryIndex(300)
    index.add(random_codes(rng, 50, 300))
    some: list[tuple[Any, type[Exception], str]] = [
        ("b1", TypeError, "plan must be a list of Stage, got 'b1'"),
        (["b1"], TypeError, "plan must be a list of Stage"),
        ([], ValueError, "plan has no stages; leave it out for exact search"),
        (
            [Stage("i8", keep=9), Stage("b1")],
            ValueError,
            r'stages of binary codes are Stage\("b1"\), got Stage\("i8"\)',
        ),
        ([Stage("b1", keep=9), Stage("raw")], ValueError, r'are Stage\("b1"\), got Stage\("raw"\)'),
        ([Stage("b1", keep=4), Stage("b1")], ValueError, r'Stage\("b1"\) keeps 4 rows, fewer than the k=5 asked for'),
        ([Stage("b1"), Stage("b1")], ValueError, r'Stage\("b1"\) needs keep or times'),
        ([Stage("b1", keep=9), Stage("b1", keep=5)], ValueError, "the last stage keeps the k rows asked for"),
        ([Stage("b1", keep=9), Stage("b1", times=2), Stage("b1")], ValueError, "keeps 10 rows of the 9 that reach it"),
        ([Stage("b1", dims=201, keep=9), Stage("b1")], ValueError, "dims must be between 1 and 200, got 201"),
    ]
    for (plan, error, message), run in product(some, (index.search, index.explain)):
        with pytest.raises(error, match=message):
            run(np.zeros((1, 38), np.uint8), 5, plan=plan, bits=200)
    empty = nv.BinaryIndex(300)
    for run in (empty.search, empty.explain):
        with pytest.raises(ValueError, match="the index is empty; add codes before searching"):
            run(np.zeros((1, 38), np.uint8), 5, plan=[Stage("b1")])


def test_timeout(rng: np.random.Generator) -> None:
    index = nv.BinaryIndex(300)
    index.add(random_codes(rng, 5000, 300))
    plan = [Stage("b1", dims=100, keep=900), Stage("b1")]
    for run in (index.search, index.explain):
        with pytest.raises(TimeoutError, match="no answer within timeout=1e-09"):
            run(np.zeros((3, 38), np.uint8), 5, plan=plan, timeout=1e-9)


def test_smallest(rng: np.random.Generator) -> None:
    """The places that a stable sort gives."""
    for n, count in product((0, 1, 50), (1, 7, 49, 50, 60)):
        values, ids = rng.integers(0, 6, n), rng.permutation(n)
        order = np.argsort(values, kind="stable")[:count]
        np.testing.assert_array_equal(bitplans.smallest(values, count), np.sort(order))
        np.testing.assert_array_equal(bitplans.smallest(values, count, ids), np.lexsort((ids, values))[:count])
