"""`MultiVectorIndex.to`: on a GPU a search finds what it finds on the CPU, to the last bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nestvec as nv
from nestvec import Stage
from nestvec.cuda import late
from nestvec.cuda.multivector import CudaMultiVectorIndex
from test_cuda_maxsim import equal
from test_maxsim import bags_of
from test_multivector import encoder, filled

DIM = 12


@pytest.fixture(autouse=True)
def _short_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late, "ROOM", 64)
    monkeypatch.setattr(late, "FIRST", 16)


def documents(rng: np.random.Generator, n: int = 60, d: int = DIM) -> list[np.ndarray]:
    """Some without tokens, some twice."""
    docs = bags_of(rng, "normal", rng.choice([0, 1, 3, 17], n), d)
    docs[n // 2 : n // 2 + 9] = docs[:9]
    return docs


@pytest.mark.parametrize("kept", ["f16", "f32", "bf16", "i8"])
@pytest.mark.parametrize("d", [1, 12, 17])
def test_exact(device: Any, rng: np.random.Generator, kept: str, d: int) -> None:
    """Segments of several adds, and documents that were updated and removed."""
    index = nv.MultiVectorIndex(encoder(d), kept)
    docs, q = documents(rng, 60, d), bags_of(rng, "normal", (1, 17, 9), d)
    index.add(docs[:40])
    index.add([np.concatenate([docs[40]] * 300)] * 2)  # behind them: a new segment
    index.add(docs[40:])
    index.update([3, 50], [docs[7], docs[41]])
    index.remove([5, 44, 61])
    there = index.to(device.name)
    assert len(there) == len(index) == 59
    for k in (1, 5, 80):
        equal(there.search(q, k, exact=True), index.search(q, k, exact=True))


@pytest.mark.parametrize("ids", ["positions", "integers", "strings"])
def test_ids_and_filters(device: Any, rng: np.random.Generator, ids: str) -> None:
    docs, q = documents(rng), bags_of(rng, "normal", (4, 2), DIM)
    given = {"positions": None, "integers": rng.permutation(1000)[:60], "strings": [f"d{i}" for i in range(60)]}[ids]
    index = filled(docs, given)
    index.remove(index.ids[[2, 8]])
    there, some = CudaMultiVectorIndex(index, device), index.ids[10:40:3]
    filters: list[Any] = [None, list(some), [list(some[:4]), None], [[], list(some)]]
    if ids != "strings":
        filters += [range(100), nv.Bitmap(rng.integers(0, 256, (2, 125)).astype(np.uint8))]
    for one in filters:
        for how in ({"exact": True}, {"candidates": 7}):
            equal(there.search(q, 5, filter=one, **how), index.search(q, 5, filter=one, **how))


def test_shortlists(device: Any, rng: np.random.Generator) -> None:
    """Of a number of candidates, by a plan, by the plan for a recall, of a carved query; and by default."""
    docs, q = documents(rng), bags_of(rng, "normal", (4, 20), DIM)
    index = filled(docs, codes=("b1", "i8"))
    there = CudaMultiVectorIndex(index, device)
    plan = [Stage("b1", keep=60), Stage("i8")]
    ways: list[dict[str, Any]] = [
        {}, {"exact": False}, {"candidates": 1}, {"candidates": 13, "carve": 0.5}, {"plan": plan},
        {"plan": [Stage("b1", keep=20), Stage("i8", keep=12), Stage("raw")]}, {"recall": 1.0},
    ]  # fmt: skip
    for how in ways:
        for k in (1, 11):
            equal(there.search(q, k, **how), index.search(q, k, **how))
    with pytest.raises(ValueError, match="leave out candidates and plan"):
        there.search(q, 1, exact=True, candidates=3)
    with pytest.raises(ValueError, match="leave out exact and candidates"):
        there.search(q, 1, recall=0.9, candidates=3)


def test_later_changes_do_not_reach_it(device: Any, rng: np.random.Generator) -> None:
    docs, q = documents(rng), bags_of(rng, "normal", (4,), DIM)
    index = filled(docs, np.arange(60) * 3)
    there, before = CudaMultiVectorIndex(index, device), index.search(q, 9, exact=True, filter=[0, 3, 9, 30, 60])
    index.update([9], [docs[1]])
    index.remove([30])
    index.add(docs[:3], [500, 501, 502])
    equal(there.search(q, 9, exact=True, filter=[0, 3, 9, 30, 60, 501]), before)


def test_queries_of_the_device(device: Any, rng: np.random.Generator) -> None:
    """Results are on the device, but where ids are strings."""
    docs, q = documents(rng), rng.standard_normal((2, 5, DIM), np.float32)
    index = filled(docs)
    there = CudaMultiVectorIndex(index, device)
    for how in ({"exact": True}, {"candidates": 9}, {"exact": True, "carve": 0.7}):
        for asked in (device.put(q), (device.put(q.reshape(10, DIM)), np.array([0, 5, 10]))):
            equal([one.numpy() for one in there.search(asked, 4, **how)], index.search(q, 4, **how))
    named = filled(docs, [f"d{i}" for i in range(60)])
    equal(CudaMultiVectorIndex(named, device).search(device.put(q), 4), named.search(q, 4))
    q[1, 2, 3] = np.nan
    with pytest.raises(ValueError, match="nan at row 7, column 3"):
        there.search(device.put(q), 4)


def test_a_copy_says_what_it_is(device: Any, rng: np.random.Generator) -> None:
    index = filled(documents(rng), tokens="i8")
    there = index.to(device)
    assert (there.ntotal, there.tokens, there.device, there.encoder) == (60, "i8", device.name, index.encoder)
    assert repr(there) == f"Cuda{repr(index)[:-1]}, device={device.name!r})"
    assert there.memory_usage() >= index._contents.store.tokens * DIM
    q = rng.standard_normal((3, DIM), np.float32)
    for other in (there.to(device), there.to("cpu")):
        equal(other.search(q, 5, exact=True), index.search(q, 5, exact=True))


def test_empty(device: Any, rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="the index is empty"):
        nv.MultiVectorIndex(encoder()).to(device)
    index = filled([np.empty((0, DIM), np.float32)] * 3)
    there = CudaMultiVectorIndex(index, device)
    for how in ({"exact": True}, {"candidates": 2}):
        equal(there.search(np.ones((2, DIM)), 2, **how), index.search(np.ones((2, DIM)), 2, **how))
