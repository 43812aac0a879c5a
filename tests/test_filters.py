"""Searches of rows allowed by sets give what brute force finds among those rows alone, on every path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import nestvec as nv
import truth
from inputs import METRICS, values
from nestvec import gather, search
from nestvec.parts import Part, Task, split_rows
from nestvec.planes import BLOCK, EVERY, Segment, allowed_rows, count_ones, padded
from nestvec.search import explain_exact, top_k
from nestvec.slices import best

D, LEVELS = 40, (16, 32)
SHARES = {"none": 0.0, "one": -1.0, "hundredth": 0.01, "half": 0.5, "all": 1.0}


@pytest.fixture
def read_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows far apart are read as fast as neighbours, so that all ways are taken at this size."""
    monkeypatch.setattr(gather, "MISS", 0)


@pytest.fixture(scope="module")
def x() -> np.ndarray:
    """Enough rows that scans check levels and that planes are made in several pieces."""
    return values(np.random.default_rng(5), "normal", 40_000, D)


def parts_of(x: np.ndarray, metric: str, sizes: Sequence[int], ids: np.ndarray | None = None) -> list[Part]:
    """An index's segments after adding rows in pieces."""
    index = nv.NestedIndex(D, levels=LEVELS, metric=metric)
    at = 0
    for size in sizes:
        index.add(x[at : at + size], None if ids is None else ids[at : at + size])
        at += size
    return [Part(segment, 0, n) for segment, n, _ in index._contents.stored]


def sets_of(rng: np.random.Generator, share: float, queries: int, rows: int) -> np.ndarray:
    """Which of the rows each query may find (queries, rows)."""
    if share < 0:
        return np.arange(rows) == rng.integers(0, rows, (queries, 1))
    return rng.random((queries, rows)) < share


def allowing(parts: Sequence[Part], sets: np.ndarray) -> list[Part]:
    """The parts with the sets of their rows; bits behind the last row are ones."""
    result, at = [], 0
    for part in parts:
        bits = np.ones((len(sets), padded(part.last, BLOCK)), bool)
        bits[:, : part.last] = sets[:, at : at + part.last]
        result.append(replace(part, allowed=np.packbits(bits, axis=1, bitorder="little").view(np.uint64)))
        at += part.last
    return result


def check(parts: Sequence[Part], x: np.ndarray, ids: np.ndarray, sets: np.ndarray, task: Task, threads: int) -> None:
    """Scores and ids, to the last bit, for all queries."""
    bounds = np.asarray([*(b for b in LEVELS if b < task.dims), task.dims]) if task.dims in (*LEVELS, D) else None
    scores, found = best([top_k(allowing(parts, sets), task, bounds, threads)], task.k, largest=True)
    for i, query in enumerate(task.queries):
        some = np.flatnonzero(sets[i if len(sets) > 1 else 0])
        wanted = truth.scores(query[None, : task.dims], x[some, : task.dims], task.metric)[0]
        order = np.lexsort((ids[some], -wanted))[: task.k]
        missing = task.k - len(order)
        np.testing.assert_array_equal(found[i], [*ids[some][order], *[-1] * missing])
        np.testing.assert_array_equal(scores[i], [*wanted[order], *[-np.inf] * missing])


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
@pytest.mark.parametrize("nq", [1, 3, 6, 40])
@pytest.mark.parametrize("dims", [16, 21, 40])
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.usefixtures("read_soon")
def test_finds_the_best_allowed(share: str, dims: int, nq: int, own: bool, threads: int, x: np.ndarray) -> None:
    """Planes scanned or made, rows read: each of them alone and side by side, as segments differ in what is left."""
    rng = np.random.default_rng([dims, nq, own, threads])
    metric = METRICS[int(rng.integers(0, 3))]
    ids = rng.permutation(100_000)[:4000]
    parts = parts_of(x[:4000], metric, (1000, 1, 2999), ids)
    sets = sets_of(rng, SHARES[share], nq if own else 1, 4000)
    task = Task(values(rng, "normal", nq, D), 10, dims, metric, "float32")
    check(parts, x[:4000], ids, sets, task, threads)
    check(parts, x[:4000], ids, sets, replace(task, k=4000), threads)


@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
@pytest.mark.parametrize("nq", [1, 5, 20])
@pytest.mark.parametrize("share", [0.003, 0.1, 0.6])
@pytest.mark.usefixtures("read_soon")
def test_many_rows(share: float, nq: int, own: bool, x: np.ndarray) -> None:
    """Long enough for probes and several pieces; rows allowed in runs, and one query with few rows among others."""
    rng = np.random.default_rng([nq, own])
    parts, ids = parts_of(x, "ip", (len(x),)), np.arange(len(x))
    sets = np.repeat(rng.random((nq if own else 1, len(x) // 100)) < share, 100, axis=1)
    sets[0] = sets[0] if len(sets) == 1 else rng.random(len(x)) < 0.001
    for dims in (21, 40):
        check(parts, x, ids, sets, Task(values(rng, "normal", nq, D), 10, dims, "ip", "float32"), 1)


@pytest.mark.parametrize("own", [False, True], ids=["shared", "own"])
def test_slices(own: bool, x: np.ndarray, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """Calls over slices of rows get the words of those rows."""
    monkeypatch.setattr(search, "SLICE", 1e-5)
    parts, ids = parts_of(x[:7000], "l2", (3000, 4000)), np.arange(7000)
    for nq in (1, 5, 15):
        sets = sets_of(rng, 0.3, nq if own else 1, 7000)
        check(parts, x[:7000], ids, sets, Task(values(rng, "normal", nq, D), 10, 21, "l2", "float32"), 1)


def test_ways(x: np.ndarray) -> None:
    """Few rows are read by one query and copied for many; all others are scanned, and what is empty left out."""
    (part,) = parts_of(x, "ip", (len(x),))
    rng = np.random.default_rng(0)
    none, few, half = (allowing([part], sets_of(rng, share, 1, len(x)))[0] for share in (0, 0.001, 0.5))
    whole = replace(part, allowed=EVERY)
    one, many = (Task(x[:nq], 10, D, "ip", "float32") for nq in (1, 100))
    assert gather.ways([none, few, half, whole], one, True) == ([few], [], [half, whole])
    assert gather.ways([none, few, half, whole], many, True) == ([], [few], [half, whole])
    assert gather.ways([none, few, half, whole], many, False) == ([], [few, half, whole], [])
    own = allowing([part], sets_of(rng, 0.5, 40, len(x)) & (np.arange(40) % 2 == 0)[:, None])
    assert gather.few(own, replace(many, queries=x[:40]), True).tolist() == [False, True] * 20


def test_explain(x: np.ndarray) -> None:
    """Rows that count are those allowed."""
    (part,) = parts_of(x, "ip", (len(x),))
    task = Task(x[:2], 5, D, "ip", "float32")
    bounds = np.asarray([*LEVELS, D])
    for share, codes in ((0.0003, ["raw"]), (0.5, ["i8", "raw"])):
        sets = sets_of(np.random.default_rng(1), share, 1, len(x))
        report = explain_exact(allowing([part], sets), task, bounds)[0].stages
        assert [stage.code for stage in report] == codes
        assert report[0].rows == sets.sum()
        assert codes == ["raw"] or 5 <= report[1].rows < sets.sum() / 10


def test_shares_keep_their_rows(x: np.ndarray) -> None:
    """Parts cut for threads still know which rows are allowed: words are numbered through the segment."""
    parts = allowing(parts_of(x, "ip", (len(x),)), sets_of(np.random.default_rng(2), 0.1, 1, len(x)))
    listed = [allowed_rows(part.allowed, part.first, part.last) for share in split_rows(parts, 3) for part in share]
    np.testing.assert_array_equal(np.concatenate(listed), allowed_rows(parts[0].allowed, parts[0].first, parts[0].last))


@pytest.mark.parametrize("counter", [True, False], ids=["counted", "looked up"])
def test_ones(counter: bool, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """The same with and without numpy's own function, which numpy 2 brought."""
    if not counter:
        monkeypatch.delattr(np, "bitwise_count", raising=False)
    words = rng.integers(0, 2**64, (5, 33), dtype=np.uint64)
    assert count_ones(words).tolist() == [sum(int(word).bit_count() for word in row) for row in words.tolist()]


def test_ids_of_copies(rng: np.random.Generator) -> None:
    """Rows copied into pieces keep their ids, given or counted."""
    rows = values(rng, "normal", 300, 4)
    for ids, wanted in ((np.empty(0, np.int64), np.arange(7, 307)), (rng.permutation(300), None)):
        (part,) = allowing([Part(Segment.unpacked(rows, ids, 7), 0, 300)], sets_of(rng, 0.2, 1, 300))
        wanted = (ids if wanted is None else wanted)[allowed_rows(part.allowed, part.first, part.last)]
        pieces: list[Any] = list(gather.pieces(part, 3, 16))
        assert [piece.last for piece in pieces[:-1]] == [16] * (len(pieces) - 1)
        np.testing.assert_array_equal(np.concatenate([piece.segment.ids for piece in pieces]), wanted)
        np.testing.assert_array_equal(
            np.concatenate([piece.segment.rows for piece in pieces]),
            rows[allowed_rows(part.allowed, part.first, part.last), :3],
        )
