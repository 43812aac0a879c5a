"""Removing, updating, compacting, merging: answers and ids are those of a dict, and what fails changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nestvec as nv

D = 40


class Model:
    """An index and a dict that is to hold the same."""

    def __init__(self, kind: str, rng: np.random.Generator) -> None:
        self.kind, self.rng = kind, rng
        self.index = make(kind)
        self.rows: dict[Any, np.ndarray] = {}
        self.next = 0

    def data(self, n: int) -> Any:
        if self.kind == "binary":
            return self.rng.integers(0, 256, (n, D // 8), dtype=np.uint8)
        if self.kind == "multi":
            return [self.rng.standard_normal((int(self.rng.integers(1, 5)), D)).astype(np.float16) for _ in range(n)]
        return np.round(self.rng.standard_normal((n, D)), 1).astype(np.float16).astype(np.float32)

    def check(self) -> None:
        assert len(self.index) == len(self.rows) == self.index.ntotal
        assert sorted(self.index.ids.tolist()) == sorted(self.rows)
        if not self.rows:
            return
        names = list(self.rows)
        for one, row in zip(names, self.index.reconstruct(names), strict=True):
            np.testing.assert_array_equal(row, self.rows[one])
        q = self.data(2)
        k = min(len(self.rows) + 2, 12)
        _, found = self.index.search(q, k)
        for i in range(2):
            best = sorted(self.rows, key=lambda one: (-score(self.kind, q[i], self.rows[one]), one))[:k]
            np.testing.assert_array_equal(found[i], best + [-1] * (k - len(best)))

    def add(self) -> None:
        data = self.data(int(self.rng.integers(0, 90)))
        self.index.add(data)
        for row in data:
            self.rows[self.next] = row
            self.next += 1

    def add_named(self) -> None:
        data = self.data(int(self.rng.integers(1, 50)))
        free = np.setdiff1d(np.arange(self.next + 200), list(self.rows))
        ids = self.rng.permutation(free)[: len(data)]
        self.index.add(data, ids)
        self.rows |= dict(zip(ids.tolist(), data, strict=True))
        self.next = max(self.next, int(ids.max()) + 1)

    def some(self) -> list[Any]:
        names = list(self.rows)
        return [names[i] for i in self.rng.permutation(len(names))[: int(self.rng.integers(0, len(names) // 2 + 1))]]

    def remove(self) -> None:
        some = self.some()
        assert self.index.remove(some) == len(some)
        for one in some:
            del self.rows[one]

    def update(self) -> None:
        some = self.some()
        data = self.data(len(some))
        self.index.update(some, data)
        self.rows |= dict(zip(some, data, strict=True))

    def compact(self) -> None:
        self.index.compact(threads=int(self.rng.integers(1, 3)))

    def merge(self) -> None:
        other = make(self.kind)
        data = self.data(int(self.rng.integers(1, 40)))
        other.add(data)
        other.remove([0])
        self.index.merge(other, add_id=self.next)
        self.rows |= {self.next + i: row for i, row in enumerate(data) if i > 0}
        self.next += len(data) if len(data) > 1 else 0

    def clear(self) -> None:
        self.index.clear()
        self.rows, self.next = {}, 0


def make(kind: str) -> Any:
    if kind == "binary":
        return nv.BinaryIndex(D)
    if kind == "multi":
        return nv.MultiVectorIndex(
            nv.FixedDimensionalEncoder(D, num_repetitions=2, num_simhash_projections=1, projection_dim=4)
        )
    return nv.NestedIndex(D, levels=(16,), metric=kind, codes=("b1", "i4"))


def score(kind: str, q: np.ndarray, row: np.ndarray) -> float:
    if kind == "binary":
        return -float(np.unpackbits(q ^ row).sum())
    a, b = q.astype(np.float64), row.astype(np.float64)
    if kind == "multi":
        return float((a @ b.T).max(axis=1).sum())
    if kind == "l2":
        return -float(((a - b) ** 2).sum())
    return float(a @ b) / (float(np.linalg.norm(a) * np.linalg.norm(b)) if kind == "cosine" else 1.0)


KINDS = ["ip", "l2", "binary", "multi"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(4))
def test_any_order_of_changes(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = Model(kind, rng)
    steps: list[Callable[[], None]] = [
        *[model.add, model.add_named, model.remove, model.update] * 3, model.compact, model.compact, model.merge,
        model.merge, model.clear,
    ]  # fmt: skip
    for _ in range(30):
        step = steps[int(rng.integers(len(steps)))]
        step()
        model.check()


@pytest.mark.parametrize("kind", ["ip", "l2"])
def test_plans_and_prefixes_after_changes(kind: str) -> None:
    """Codes that were copied are those that were packed."""
    rng = np.random.default_rng(5)
    index = make(kind)
    x = rng.standard_normal((300, D)).astype(np.float32)
    index.add(x)
    gone = rng.permutation(300)[:120]
    index.remove(gone)
    plans = [[nv.Stage("i4", keep=30), nv.Stage("raw")], [nv.Stage("i8", dims=16, keep=25), nv.Stage("i4")]]
    before = [index.search(x[:4], 6, plan=plan) for plan in plans]
    signs = index.search(x[:4], 6, plan=[nv.Stage("b1", keep=20), nv.Stage("b1")])
    index.compact()
    assert index._contents.stored[0].n == 180
    for plan, (D0, I0) in zip(plans, before, strict=True):
        D1, I1 = index.search(x[:4], 6, plan=plan)
        np.testing.assert_array_equal(I0, I1)
        np.testing.assert_array_equal(D0, D1)
    D1, I1 = index.search(x[:4], 6, plan=[nv.Stage("b1", keep=20), nv.Stage("b1")])
    np.testing.assert_array_equal(signs[1], I1)
    np.testing.assert_array_equal(signs[0], D1)
    np.testing.assert_array_equal(index.search(x[:4], 6, dims=16)[1], index.search(x[:4], 6, dims=16, threads=2)[1])


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_ids(kind: str) -> None:
    model = Model(kind, np.random.default_rng(0))
    model.add_named()
    with pytest.raises(KeyError, match="id 12345 is not in the index"):
        model.index.remove([next(iter(model.rows)), 12345])
    with pytest.raises(KeyError, match="id 12345 is not in the index"):
        model.index.update([12345], model.data(1))
    model.check()
    first = next(iter(model.rows))
    assert model.index.remove([first, 12345, first], missing="ignore") == 1
    assert first not in model.index
    assert 12345 not in model.index
    del model.rows[first]
    model.check()
    with pytest.raises(ValueError, match="missing must be one of"):
        model.index.remove([1], missing="maybe")
    with pytest.raises(TypeError, match="ids must be integers"):
        model.index.remove([1.5])


@pytest.mark.parametrize("kind", KINDS)
def test_duplicate_ids(kind: str) -> None:
    model = Model(kind, np.random.default_rng(1))
    model.add()
    taken = next(iter(model.rows))
    for ids, message in (([500, 500], "id 500 is given"), ([500, taken], f"id {taken} is in the index already")):
        with pytest.raises(ValueError, match=message):
            model.index.add(model.data(2), ids)
        model.check()
    with pytest.raises(ValueError, match="is given"):
        model.index.update([taken, taken], model.data(2))
    other = make(kind)
    other.add(model.data(3))
    with pytest.raises(ValueError, match="is in the index already"):
        model.index.merge(other)
    model.check()
    model.index.remove([taken])
    row = model.data(1)
    model.index.add(row, [taken])  # an id that was removed is free
    model.rows[taken] = row[0]
    model.check()


def test_string_ids() -> None:
    model = Model("multi", np.random.default_rng(2))
    docs = model.data(5)
    model.index.add(docs, ["a", "b", "c", "d", "e"])
    model.index.remove("b")
    assert "b" not in model.index
    assert model.index.ids.tolist() == ["a", "c", "d", "e"]
    model.index.update(["a"], docs[1:2])
    np.testing.assert_array_equal(model.index.reconstruct("a")[0], docs[1])
    assert model.index.search(docs[1], 1)[1].tolist() == [["a"]]
    with pytest.raises(KeyError, match="'b'"):
        model.index.remove(["c", "b"])
    with pytest.raises(KeyError, match="id 1 "):
        model.index.remove(1)
    model.index.compact()
    assert sorted(model.index.ids.tolist()) == ["a", "c", "d", "e"]
    assert model.index.search(docs[1], 1)[1].tolist() == [["a"]]


def test_merge_refuses() -> None:
    nested, binary, multi = make("ip"), make("binary"), make("multi")
    for index in (nested, binary, multi):
        with pytest.raises(TypeError, match="other must be a"):
            index.merge(object())
    with pytest.raises(ValueError, match="vectors of 8 dims"):
        nested.merge(nv.NestedIndex(8))
    with pytest.raises(ValueError, match="codes of 8 bits"):
        binary.merge(nv.BinaryIndex(8))
    with pytest.raises(ValueError, match="merge reads stored rows"):
        nested.merge(nv.NestedIndex(D, rows=None))


def test_room_is_given_back() -> None:
    index = nv.NestedIndex(D)
    index.add(np.ones((20_000, D)))
    full = index.memory_usage()
    index.remove(range(15_000))
    index.compact()
    assert index.memory_usage() < full / 3
    index.remove(range(15_000, 20_000))
    index.compact()
    assert len(index) == 0
    assert index.memory_usage() < 1000
    index.add(np.ones((1, D)))
    assert index.ids.tolist() == [20_000]


def test_a_search_sees_one_state() -> None:
    """Contents taken before a change answer as before it, whatever comes later."""
    rng = np.random.default_rng(3)
    index = make("l2")
    x = rng.standard_normal((100, D)).astype(np.float32)
    index.add(x[:70])
    before = index._contents
    wanted = index.search(x[:5], 9)
    index.add(x[70:])
    index.update([3], x[80:81])
    index.remove(range(0, 60, 2))
    index.compact()
    index.add(x[:50])
    now, index._contents = index._contents, before
    try:
        for got, want in zip(index.search(x[:5], 9), wanted, strict=True):
            np.testing.assert_array_equal(got, want)
    finally:
        index._contents = now
    assert index._slots(before, np.arange(3)).tolist() == [0, 1, 2]


def test_an_interrupt_while_names_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a directory knew is made again from contents."""
    index = make("ip")
    rng = np.random.default_rng(4)
    x = rng.standard_normal((10, D)).astype(np.float32)
    index.add(x, ids=np.arange(100, 110))
    changed = type(index._directory).changed

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        changed(*args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(type(index._directory), "changed", interrupted)
    for change in (lambda: index.remove([101]), lambda: index.add(x[:1], [7]), lambda: index.update([102], x[:1])):
        with pytest.raises(KeyboardInterrupt):
            change()
        assert index.ids.tolist() == list(range(100, 110))
        np.testing.assert_array_equal(index.reconstruct(np.arange(100, 110)), x)
        assert 7 not in index
    monkeypatch.undo()
    index.remove([101])
    index.add(x[:1], [101])
    np.testing.assert_array_equal(index.reconstruct([101]), x[:1])
