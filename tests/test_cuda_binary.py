"""Binary codes on a GPU: the bits of the CPU's answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nestvec as nv
from nestvec import cuda
from nestvec.cuda import binary, codes
from nestvec.cuda.binary import CudaBinaryIndex, hamming_topk

SHAPES = [  # bits, rows, queries: every kernel, and more words than it holds at a time
    (1, 50, 2), (7, 16, 1), (63, 100, 3), (64, 1000, 5), (65, 1000, 9), (100, 17, 4), (256, 3000, 1), (256, 2000, 70),
    (1000, 300, 66), (1100, 130, 9), (4500, 70, 3),
]  # fmt: skip


def random_codes(rng: np.random.Generator, n: int, bits: int, distinct: int = 0) -> np.ndarray:
    """Packed codes, or copies of a few."""
    some = np.packbits(rng.random((distinct or n, bits)) < 0.5, axis=1)
    return some[rng.integers(0, distinct, n)] if distinct else some


def equal(found: Any, wanted: Any) -> None:
    for some, others in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(some, others, strict=True)


def prefixes(bits: int) -> list[int | None]:
    return [None, *sorted({1, max(bits // 3, 1), bits - bits // 5})]


def filled(rng: np.random.Generator, bits: int, n: int, distinct: int = 0, **options: Any) -> nv.BinaryIndex:
    """Two segments or one."""
    index, x = nv.BinaryIndex(bits, **options), random_codes(rng, n, bits, distinct)
    index.add(x[: n // 3])
    index.add(x[n // 3 :])
    return index


def shuffled(rng: np.random.Generator, bits: int, n: int, distinct: int = 0) -> nv.BinaryIndex:
    """Ids that do not ascend, several segments, and removed rows."""
    index, ids = nv.BinaryIndex(bits), rng.permutation(10 * n)[:n]
    for some in np.array_split(np.arange(n), 3):
        index.add(random_codes(rng, len(some), bits, distinct), ids[some])
    index.remove(ids[rng.integers(0, n, n // 7)], missing="ignore")
    return index


@pytest.mark.parametrize(("bits", "n", "nq"), SHAPES)
def test_searches(device: Any, rng: np.random.Generator, bits: int, n: int, nq: int) -> None:
    index, q = filled(rng, bits, n), random_codes(rng, nq, bits)
    there = CudaBinaryIndex(index, device)
    for k in (1, 10, min(n + 1, 1000)):
        for used in prefixes(bits):
            equal(there.search(q, k, bits=used), index.search(q, k, bits=used))


@pytest.mark.parametrize("levels", [[64, 128], [10, 74, 75], [1, 2, 3]])
def test_prefixes_inside_levels(device: Any, rng: np.random.Generator, levels: list[int]) -> None:
    index = filled(rng, 200, 500, levels=levels)
    there = CudaBinaryIndex(index, device)
    assert there.levels == index.levels
    for nq in (1, 6):
        q = random_codes(rng, nq, 200)
        for used in (1, 2, 9, 10, 11, 63, 64, 65, 73, 74, 75, 76, 128, 139, 199, 200):
            equal(there.search(q, 9, bits=used), index.search(q, 9, bits=used))


@pytest.mark.parametrize("make", [filled, shuffled])
@pytest.mark.parametrize("distinct", [1, 5, 60])
def test_ties(device: Any, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, make: Any, distinct: int) -> None:
    """Where equally near rows are many, lists hold those of small ids, and lose none in any of several rounds."""
    monkeypatch.setattr(codes, "FOR_FEW", (128, 4, 512))
    monkeypatch.setattr(codes, "FOR_MANY", (128, 3, 512))
    monkeypatch.setattr(codes, "SPARE", 1)
    index = make(rng, 100, 3000, distinct)
    there = CudaBinaryIndex(index, device)
    for nq in (1, 9):
        q = random_codes(rng, nq, 100)
        for k, used in ((1, None), (30, None), (30, 3), (200, 50)):
            equal(there.search(q, k, bits=used), index.search(q, k, bits=used))


def test_ties_are_not_lost(device: Any, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """All rows equally near: what is behind the k-th is passed over, in rows of any order of ids."""
    for make in (filled, shuffled):
        index = make(rng, 64, 6000, 1)
        there = CudaBinaryIndex(index, device)
        q = device.put(random_codes(rng, 1, 64))
        batch = codes.Batch(there._words, q, *there._alive, 0)
        monkeypatch.setattr(codes, "FOR_FEW", (128, 4, 512))
        near = batch._listed(64, 20, there._words.ranks)
        assert near.lists.room < 1000
        assert near.lists.lost.numpy().tolist() == [0]
        assert near.lists.counts.numpy().tolist() == [20]


@pytest.mark.parametrize("make", [filled, shuffled])
@pytest.mark.parametrize("nq", [2, 12])
def test_lists_that_are_too_short(
    device: Any, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, make: Any, nq: int
) -> None:
    """Queries whose lists lose rows search all rows; others of the batch need not."""
    monkeypatch.setattr(codes, "Extent", ShortLists)
    index = make(rng, 70, 1000)
    there, q = CudaBinaryIndex(index, device), random_codes(rng, nq, 70)
    batch = codes.Batch(there._words, device.put(q), *there._alive, 0)
    assert batch._listed(70, 64, None).lists.lost.numpy().any()
    allowed = rng.random(int(index.ids.max()) + 1) < 0.9
    for given in (None, allowed):
        equal(there.search(q, 64, filter=given), index.search(q, 64, filter=given))
        for plan in ([nv.Stage("b1", dims=30, keep=64), nv.Stage("b1")], [nv.Stage("b1", keep=64), nv.Stage("b1")]):
            equal(there.search(q, 9, plan=plan, filter=given), index.search(q, 9, plan=plan, filter=given))


class ShortLists(codes.Extent):
    """Lists without room for what the second round appends."""

    @classmethod
    def of(cls, nq: int, k: int, n: int) -> codes.Extent:
        return cls(64, 16, max(k, 64))


@pytest.mark.parametrize("make", [filled, shuffled])
def test_filters(device: Any, rng: np.random.Generator, make: Any) -> None:
    index = make(rng, 130, 700)
    there = CudaBinaryIndex(index, device)
    room = int(index.ids.max()) + 1
    for nq in (1, 5, 11):
        q = random_codes(rng, nq, 130)
        masks = [rng.random(room) < share for share in np.linspace(0, 1, nq)]
        for given in (index.ids[::9], index.ids[:0], rng.random(room) < 0.01, range(3, 400), masks):
            equal(there.search(q, 12, filter=given), index.search(q, 12, filter=given))


PLANS = [
    [nv.Stage("b1", dims=40, keep=50), nv.Stage("b1")],
    [nv.Stage("b1", dims=128, keep=100), nv.Stage("b1", dims=200, keep=30), nv.Stage("b1")],
    [nv.Stage("b1", dims=200, keep=40), nv.Stage("b1", dims=64, keep=20), nv.Stage("b1", dims=150)],
    [nv.Stage("b1", dims=3, keep=700), nv.Stage("b1", times=5), nv.Stage("b1")],
    [nv.Stage("b1", dims=1, keep=100_000), nv.Stage("b1")],
]


@pytest.mark.parametrize("make", [filled, shuffled])
@pytest.mark.parametrize("plan", PLANS, ids=range(len(PLANS)))
def test_plans(device: Any, rng: np.random.Generator, make: Any, plan: Any) -> None:
    """Also with ties at every stage: of equally near rows those added first go on."""
    for distinct in (0, 20):
        index = make(rng, 300, 1200, distinct)
        there, q = CudaBinaryIndex(index, device), random_codes(rng, 5, 300)
        for k in (1, 20):
            equal(there.search(q, k, plan=plan), index.search(q, k, plan=plan))


def test_recall(device: Any, rng: np.random.Generator) -> None:
    """The plan that was tuned for a recall is the one that is run."""
    index, q = filled(rng, 512, 2000), random_codes(rng, 3, 512)
    plan = index.tune(k=5, recall=0.5, sample=20)
    equal(CudaBinaryIndex(index, device).search(q, 5, recall=0.5), index.search(q, 5, plan=plan))


def test_sizes(device: Any, rng: np.random.Generator) -> None:
    for n in (1, 15, 16, 17, 63, 64, 65):
        index = filled(rng, 70, n)
        for nq in (0, 1, 15, 16, 17):
            q = random_codes(rng, nq, 70)
            equal(CudaBinaryIndex(index, device).search(q, 3), index.search(q, 3))


def test_groups(device: Any, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """More queries than pass over the rows together."""
    monkeypatch.setattr(codes, "GROUP", 7)
    index, q = shuffled(rng, 70, 500), random_codes(rng, 20, 70)
    there, masks = CudaBinaryIndex(index, device), [rng.random(5000) < 0.5 for _ in q]
    equal(there.search(q, 4), index.search(q, 4))
    equal(there.search(q, 4, filter=masks), index.search(q, 4, filter=masks))
    equal(there.range_search(q, 25, filter=masks), index.range_search(q, 25, filter=masks))


@pytest.mark.parametrize("room", [2, 4096])
def test_range_search(device: Any, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    monkeypatch.setattr(binary, "RANGE_ROOM", room)
    for index in (filled(rng, 100, 500), shuffled(rng, 100, 500, 9)):
        there = CudaBinaryIndex(index, device)
        for nq in (0, 1, 10):
            q = random_codes(rng, nq, 100)
            for radius, used in ((0, 2), (40, None), (10, 30), (1000, 7)):
                equal(there.range_search(q, radius, bits=used), index.range_search(q, radius, bits=used))
    with pytest.raises(ValueError, match="radius must be"):
        there.range_search(q, -1)


def test_a_copy_stays_as_it_was(device: Any, rng: np.random.Generator) -> None:
    index, q = filled(rng, 64, 300), random_codes(rng, 4, 64)
    there, before = CudaBinaryIndex(index, device), index.search(q, 5)
    index.add(q)
    index.remove(np.arange(100))
    equal(there.search(q, 5), before)
    assert (there.ntotal, len(there), there.bits, there.levels) == (300, 300, 64, (64,))
    assert repr(there) == f"CudaBinaryIndex(bits=64, levels=(64,), ntotal=300, device='{device.name}')"
    assert there.memory_usage() >= 300 * 8
    back = there.to("cpu")
    back.add(q)
    equal(there.to(device).search(q, 5), before)
    assert back.ntotal == 304


def test_queries_of_the_device(device: Any, rng: np.random.Generator) -> None:
    """Codes as they are, and signs of vectors of several types against thresholds that float32 does not hold."""
    limits = rng.standard_normal(100) / 10
    index = nv.BinaryIndex(100, thresholds=limits)
    index.add(random_codes(rng, 500, 100))
    there, q = CudaBinaryIndex(index, device), random_codes(rng, 7, 100)
    for given in (
        q,
        q[0],
        np.float32(limits) + np.zeros((3, 1), np.float32),
        np.float16(rng.standard_normal((3, 100))),
    ):
        D, ids = there.search(device.put(given), 5)
        assert isinstance(D, cuda.DeviceArray)
        equal((D.numpy(), ids.numpy()), index.search(given, 5))


def test_vectors_of_the_device_that_are_not_finite(device: Any, rng: np.random.Generator) -> None:
    index = filled(rng, 20, 100)
    there, x = CudaBinaryIndex(index, device), rng.standard_normal((4, 20), np.float32)
    wanted = index.search(x, 3)
    x[2, 7] = np.nan
    with pytest.raises(ValueError, match="q holds nan at row 2, column 7"):
        there.search(device.put(x), 3)
    D, ids = (some.numpy() for some in there.search(device.put(x), 3, check=False))
    assert (ids[2] == -1).all()
    assert (D[2] == np.iinfo(np.int32).max).all()
    fine = [0, 1, 3]
    equal((D[fine], ids[fine]), (wanted[0][fine], wanted[1][fine]))


@pytest.mark.parametrize(("bits", "n", "nq"), [(8, 0, 2), (8, 1, 2), (24, 100, 0), (64, 65, 9), (200, 1000, 3)])
def test_codes_in_arrays(
    device: Any, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, bits: int, n: int, nq: int
) -> None:
    monkeypatch.setattr(binary, "PIECE", 64 * bits // 8)
    x, q = random_codes(rng, n, bits), random_codes(rng, nq, bits)
    for used in (None, 1, bits - 3):
        for k in (1, 7, 150):
            wanted = nv.hamming_topk(q, x, k, bits=used)
            equal(hamming_topk(q, x, k, bits=used, device=device), wanted)
            equal(hamming_topk(q, device.put(x), k, bits=used), wanted)
            found = hamming_topk(device.put(q), device.put(x), k, bits=used)
            equal([some.numpy() for some in found], wanted)


def test_a_code_in_an_array(device: Any, rng: np.random.Generator) -> None:
    x = random_codes(rng, 50, 64)
    found = hamming_topk(device.put(x[3]), x, 2, device=device)
    equal([some.numpy() for some in found], nv.hamming_topk(x[3], x, 2))


def test_errors(device: Any, rng: np.random.Generator) -> None:
    index = filled(rng, 22, 3000)
    there, x = CudaBinaryIndex(index, device), random_codes(rng, 3000, 22)
    with pytest.raises(ValueError, match="the index is empty; add codes before it is copied to"):
        CudaBinaryIndex(nv.BinaryIndex(8), device)
    for search in (there.search, lambda q, k: hamming_topk(q, x, k, device=device)):
        with pytest.raises(ValueError, match="k=3000; a GPU lists at most 2048 results"):
            search(x, 3000)
        with pytest.raises(ValueError, match="k must be"):
            search(x, 0)
        for q in (x[:, :1], device.put(x[:, :1])):
            with pytest.raises(ValueError, match="q has codes of 8 bits"):
                search(q, 3)
    with pytest.raises(ValueError, match="bits must be between 1 and 22, got 23"):
        there.search(x, 3, bits=23)
    with pytest.raises(TypeError, match="q has dtype float64; vectors of a device are float32"):
        there.search(device.put(np.ones((2, 22))), 3)
    with pytest.raises(ValueError, match="q has 3 dims"):
        there.search(device.put(np.ones((2, 3), np.float32)), 3)
    with pytest.raises(TypeError, match="codes has dtype float32"):
        hamming_topk(x, device.put(np.ones((2, 3), np.float32)), 3)
