"""MaxSim on a GPU: fast scores within the bound that is stated, exact scores and top-k with the bits of the CPU."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import nestvec as nv
from nestvec import cuda
from nestvec.cuda import bags, late
from nestvec.cuda.bags import AskedBags, Documents, Split
from nestvec.cuda.device import DeviceArray
from nestvec.cuda.late import Targets
from nestvec.cuda.lists import Names
from nestvec.cuda.results import Results
from test_maxsim import bags_of, joined, split

SUFFIXES = ("f32", "f16", "bf16", "i8")
DIMS = (1, 7, 16, 17, 64, 100, 128)
LENGTHS = (0, 1, 15, 16, 17, 40, 0)
QUERIES = (1, 7, 32, 33)

types = pytest.mark.parametrize("suffix", SUFFIXES)


@pytest.fixture(autouse=True)
def _short_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late, "ROOM", 64)


def normalised(rng: np.random.Generator, lengths: Any, d: int, suffix: str = "f32") -> list[np.ndarray]:
    """Bags of tokens of length 1, or of any int8."""
    bags = bags_of(rng, "normal", lengths, d, suffix)
    if suffix == "i8":
        return bags
    return [(x / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)).astype(x.dtype) for x in bags]


def equal(actual: Any, wanted: Any) -> None:
    for some, others in zip(actual, wanted, strict=True):
        np.testing.assert_array_equal(some, others, strict=True)


def errors(documents: Documents, q: list[np.ndarray], parts: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores as tensor cores sum them, with so many halves a query value, and what they may be off by."""
    queries = Split(documents, AskedBags.put(*joined(q), documents.device, 0), parts, False, 0)
    out = documents.device.empty((len(q), len(documents)), np.float32)
    queries.scan(None, 0, 0, len(documents), out=out)
    return out.numpy(), queries.errors()[:, None] * documents.norms.numpy().astype(np.float64)


def check_bound(documents: Documents, q: list[np.ndarray], docs: list[np.ndarray], scales: Any = None) -> None:
    """Sums of one half or of all are within their bounds, where there are any."""
    exact = nv.maxsim(q, docs, scales=scales).astype(np.float64)
    for parts in (1, bags.HALVES[documents.suffix][1]):
        found, error = errors(documents, q, parts)
        there = np.isfinite(exact) & np.isfinite(error)
        off = np.abs(found[there].astype(np.float64) - exact[there])
        assert np.all(off <= (error + np.abs(exact) * 2.0**-23 + 1e-44)[there])
        np.testing.assert_array_equal(found[:, [len(x) == 0 for x in docs]], -np.inf)


@types
@pytest.mark.parametrize("d", DIMS)
def test_scores(device: Any, rng: np.random.Generator, d: int, suffix: str) -> None:
    docs, q = normalised(rng, LENGTHS, d, suffix), normalised(rng, QUERIES, d)
    documents = Documents(device, docs)
    check_bound(documents, q, docs)
    fast, exact = cuda.maxsim(q, documents), nv.maxsim(q, docs)
    there = exact > -np.inf
    lengths = np.array(QUERIES)[:, None] * documents.norms.numpy()
    assert np.all(np.abs(fast[there] - exact[there]) < (1e-4 * lengths)[there])
    assert np.all(errors(documents, q, bags.HALVES[suffix][1])[1][there] < (1e-4 * lengths)[there])
    equal([cuda.maxsim(q, documents, exact=True)], [exact])
    equal([cuda.maxsim(q, docs, exact=True, device=device)], [exact])


@types
def test_wide_tokens(device: Any, rng: np.random.Generator, suffix: str) -> None:
    """Columns that do not fit into shared memory, and a query that takes several turns."""
    docs, q = normalised(rng, (3, 0, 20), 500, suffix), normalised(rng, (70, 3), 500)
    documents = Documents(device, docs)
    check_bound(documents, q, docs)
    equal([cuda.maxsim(q, documents, exact=True)], [nv.maxsim(q, docs)])
    equal(cuda.maxsim_topk(q, documents, 2), nv.maxsim_topk(q, docs, 2))


@types
@pytest.mark.parametrize("kind", ["wide", "wide rows", "denormal", "huge", "outliers", "ties"])
def test_awkward_values(device: Any, rng: np.random.Generator, kind: str, suffix: str) -> None:
    """Of documents, of queries and of scales: what overflows or underflows in float32 is scored exactly or bounded."""
    docs, q = bags_of(rng, kind, (1, 3, 0, 17), 18, suffix), bags_of(rng, kind, (2, 9), 18)
    count = sum(map(len, docs))
    for scales in (None, np.float32(10.0 ** rng.uniform(-38, 38, count) * rng.choice([-1, 0, 1], count))):
        documents = Documents(device, docs, scales=scales)
        check_bound(documents, q, docs, scales)
        exact = nv.maxsim(q, docs, scales=scales)
        fast = cuda.maxsim(q, documents)
        equal([np.isneginf(fast[:, 2])], [np.ones(2, bool)])
        assert not np.any(np.isnan(fast))
        large = ~np.isfinite(documents.norms.numpy())
        equal([fast[:, large], cuda.maxsim(q, documents, exact=True)], [exact[:, large], exact])
        for k in (1, 3):
            equal(cuda.maxsim_topk(q, documents, k), nv.maxsim_topk(q, docs, k, scales=scales))


@types
@pytest.mark.parametrize("size", [1e-6, 1e-2, 1e4])
def test_magnitudes(device: Any, rng: np.random.Generator, size: float, suffix: str) -> None:
    docs = normalised(rng, LENGTHS, 33, suffix)
    if suffix != "i8":
        docs = [(x.astype(np.float32) * size).astype(x.dtype) for x in docs]
    q = [np.float32(x * size) for x in normalised(rng, QUERIES, 33)]
    documents = Documents(device, docs)
    check_bound(documents, q, docs)
    equal(cuda.maxsim_topk(q, documents, 3), nv.maxsim_topk(q, docs, 3))


def test_halves_hold_what_float16_queries_hold(device: Any, rng: np.random.Generator) -> None:
    """One half is enough for queries that are float16: nothing is left that a bound must cover."""
    q = [x.astype(np.float16).astype(np.float32) for x in normalised(rng, (5,), 32)]
    documents = Documents(device, normalised(rng, (4,), 32, "f16"))
    tokens, offsets = joined(q)
    whole, more = (AskedBags.put(x, offsets, device, 0) for x in (tokens, tokens * np.float32(1 + 2**-20)))
    assert (whole.parts("f16", True), whole.parts("bf16", True), whole.parts("bf16", False)) == (1, 3, 1)
    assert (more.parts("f16", True), more.parts("f16", False)) == (2, 1)
    wide, narrow = (Split(documents, whole, parts, False, 0).errors() for parts in (2, 1))
    np.testing.assert_allclose(narrow, wide, rtol=1e-12)


@pytest.mark.parametrize("few", [0, 64])
@types
def test_topk(device: Any, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, suffix: str, few: int) -> None:
    """Several rounds; documents with equal scores, and the same one many times."""
    docs = normalised(rng, rng.choice([0, 1, 2, 5, 18], 50), 20, suffix)
    docs[20:30], docs[40:46] = docs[:10], [docs[3]] * 6
    q = normalised(rng, (1, 9, 16, 8, 3), 20)
    q[1][:5] = docs[3][:5] if suffix != "i8" and len(docs[3]) >= 5 else q[1][:5]
    documents = Documents(device, docs)
    monkeypatch.setattr(late, "FIRST", 4)
    monkeypatch.setattr(late, "FEW", few)
    for k in (1, 3, 60):
        equal(cuda.maxsim_topk(q, documents, k), nv.maxsim_topk(q, docs, k))
    monkeypatch.setattr(late, "GROUP", 2)
    equal(cuda.maxsim_topk(q, docs, 5, device=device), nv.maxsim_topk(q, docs, 5))


@pytest.mark.parametrize("room", [1, 3])
def test_lists_without_room(device: Any, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """Queries that a list has no room for are answered by scoring everything; the others keep their lists."""
    docs, q = normalised(rng, (3, 0, 1, 4, 2, 2, 0, 7), 9, "f16"), normalised(rng, (2, 8), 9)
    q[1][:] = 0  # all documents tie
    monkeypatch.setattr(late, "list_room", lambda k, candidates: room * k)
    monkeypatch.setattr(late, "FIRST", 1)
    for k in (1, 2, 7):
        equal(cuda.maxsim_topk(q, docs, k, device=device), nv.maxsim_topk(q, docs, k))


@types
def test_candidates(device: Any, rng: np.random.Generator, suffix: str) -> None:
    docs, q = normalised(rng, (4, 0, 2, 17, 1, 3), 12, suffix), normalised(rng, (3, 12, 1), 12)
    documents, numbers = Documents(device, docs), rng.integers(0, 6, (3, 9))
    for some in (numbers, numbers[0], np.array([], np.int64), np.array([[5], [1], [0]])):
        wanted = nv.maxsim(q, docs, candidates=some)
        equal([cuda.maxsim(q, documents, candidates=some, exact=True)], [wanted])
        np.testing.assert_allclose(cuda.maxsim(q, documents, candidates=some), wanted, rtol=1e-4, atol=1e-4)
        for k in (1, 4, 10):
            equal(cuda.maxsim_topk(q, documents, k, candidates=some), nv.maxsim_topk(q, docs, k, candidates=some))


def test_no_candidate(device: Any, rng: np.random.Generator) -> None:
    """-1 in a list of documents, and every number that is no document's, is none."""
    docs, q = normalised(rng, (4, 2, 17), 12, "f16"), normalised(rng, (3, 2), 12)
    documents, listed = Documents(device, docs), np.array([[-1, 2, 3, 0], [-1, -1, 1, 2**40]])
    none = (listed < 0) | (listed > 2)
    wanted = np.where(none, -np.inf, np.take_along_axis(nv.maxsim(q, docs), np.where(none, 0, listed), 1))
    there = device.put(listed)
    np.testing.assert_allclose(cuda.maxsim(q, documents, candidates=there), wanted, rtol=1e-4)
    equal([cuda.maxsim(q, documents, candidates=there, exact=True)], [wanted.astype(np.float32)])
    found = cuda.maxsim_topk(q, documents, 3, candidates=there)[1]
    assert [sorted(row) for row in found.tolist()] == [[-1, 0, 2], [-1, -1, 1]]
    with pytest.raises(ValueError, match=r"\(2, c\) int64, got \(2, 4\) int32"):
        cuda.maxsim(q, documents, candidates=device.put(listed.astype(np.int32)))


def test_filters(device: Any, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """One set of documents for all queries, or one for each, also where everything is scored."""
    docs, q = normalised(rng, rng.choice([0, 1, 3], 100), 8, "f16"), normalised(rng, (2, 4, 1), 8)
    documents, asked, scores = Documents(device, docs), AskedBags.put(*joined(q), device, 0), nv.maxsim(q, docs)
    names = Names(None, 0, 100)
    for room in (64, 4):
        monkeypatch.setattr(late, "list_room", lambda k, candidates, room=room: room)
        for sets in (1, 3):
            allowed = rng.random((sets, 128)) < 0.4
            words = np.packbits(allowed, axis=1, bitorder="little").view(np.uint64)
            results = Results(device, 3, 4, "ip", None, 0)
            late.rank(documents, asked, Targets(None, words), names, results, 0)
            wanted = np.where(allowed[:, :100], scores, -np.inf)
            found, ids = results.numpy()
            equal([found, np.take_along_axis(wanted, ids, 1)], [-np.sort(-wanted, axis=1)[:, :4], found])


@pytest.mark.parametrize("dtype", ["float16", "float32", "bfloat16", "int8", "float64", "int32"])
@pytest.mark.parametrize("d", [7, 16])
def test_arrays_of_the_device(device: Any, rng: np.random.Generator, dtype: str, d: int) -> None:
    """Documents and queries that are on the device are read there, and results stay there."""
    tokens = np.rint(rng.standard_normal((30, d)) * 9).astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    q, offsets = rng.standard_normal((2, 4, d), np.float32), np.array([0, 3, 3, 20, 30])
    there = device.put(tokens.view(np.uint16) if dtype == "bfloat16" else tokens)
    there.type = dtype
    exact, best = nv.maxsim(q, (tokens, offsets)), nv.maxsim_topk(q, (tokens, offsets), 3)
    for docs in (Documents(device, there, offsets), (there, device.put(offsets))):
        for asked in (device.put(q), (device.put(q.reshape(8, d)), [0, 4, 8])):
            found = cuda.maxsim(asked, docs, exact=True, device=device)
            assert isinstance(found, DeviceArray)
            equal(
                [found.numpy(), *(one.numpy() for one in cuda.maxsim_topk(asked, docs, 3, device=device))],
                [exact, *best],
            )
        np.testing.assert_allclose(cuda.maxsim(q, docs, device=device)[:, [0, 2, 3]], exact[:, [0, 2, 3]], atol=1e-3)
    equal(
        [cuda.maxsim(device.put(q[0]), there.reshape(5, 6, d), exact=True, device=device).numpy()],
        [nv.maxsim(q[0], tokens.reshape(5, 6, d))],
    )
    scales = rng.standard_normal(30).astype(np.float32)
    scaled = Documents(device, there, device.put(offsets), device.put(scales))
    equal([cuda.maxsim(q, scaled, exact=True)], [nv.maxsim(q, (tokens, offsets), scales=scales)])


def test_queries_of_the_device_that_are_not_finite(device: Any) -> None:
    """They are an error, or, where nobody looks, taken as 0."""
    q = np.ones((2, 3, 8), np.float32)
    q[1, 2, 5] = np.inf
    documents = Documents(device, np.ones((4, 8), np.float32), [0, 1, 4])
    with pytest.raises(ValueError, match="inf at row 5, column 5"):
        cuda.maxsim(device.put(q), documents)
    with pytest.raises(ValueError, match="inf at row 5, column 5"):
        cuda.maxsim_topk(device.put(q), documents, 1)
    q[1, 2, 5] = 0
    equal([cuda.maxsim(device.put(q), documents, check=False).numpy()], [nv.maxsim(q, np.ones((2, 1, 8)))])
    with pytest.raises(ValueError, match="query 1 has no tokens"):
        cuda.maxsim((device.put(q[0]), [0, 3, 3]), documents)


def test_torch(device: Any, rng: np.random.Generator) -> None:
    """Tensors in, tensors out."""
    torch = pytest.importorskip("torch")
    place = "cpu" if device.native.emulated else "cuda"
    q, x = (torch.from_numpy(rng.standard_normal((2, 6, 16), np.float32)).half().to(place) for _ in range(2))
    wanted = nv.maxsim(q.cpu().numpy(), x.cpu().numpy())
    capsules = device.native.emulated  # where tensors count as the host's
    found = cuda.maxsim(q.__dlpack__() if capsules else q, Documents(device, x.__dlpack__() if capsules else x))
    assert capsules or isinstance(found, torch.Tensor)
    np.testing.assert_allclose(torch.from_dlpack(found).cpu().numpy(), wanted, rtol=1e-4)


def test_no_documents(device: Any, rng: np.random.Generator) -> None:
    q = normalised(rng, (2, 1), 5)
    for docs in ([], [np.empty((0, 5), np.float32)] * 2):
        equal([cuda.maxsim(q, docs, device=device)], [nv.maxsim(q, docs)])
        equal(cuda.maxsim_topk(q, docs, 2, device=device), nv.maxsim_topk(q, docs, 2))


def test_forms(device: Any, rng: np.random.Generator) -> None:
    """Documents come in the forms that the CPU takes: read with strides, widened, as one array."""
    x, q = rng.integers(-9, 9, (40, 16)), rng.standard_normal((3, 8), np.float32)
    for docs in ((x[:, ::2], [0, 3, 40]), x.reshape(5, 16, 8), split(x[:, 8:].astype(">f4"), [10, 30])):
        equal([cuda.maxsim(q, docs, exact=True, device=device)], [nv.maxsim(q, docs)])


def test_errors(device: Any, rng: np.random.Generator) -> None:
    docs = [np.ones((2, 3), np.float32), np.ones((4, 3), np.float32)]
    documents = Documents(device, docs)
    assert len(documents) == 2
    with pytest.raises(ValueError, match="q has 4"):
        cuda.maxsim(np.ones((2, 4)), documents)
    with pytest.raises(ValueError, match="candidate 2 does not exist"):
        cuda.maxsim(np.ones((2, 3)), documents, candidates=[0, 2])
    with pytest.raises(ValueError, match="give them to Documents"):
        cuda.maxsim(np.ones((2, 3)), documents, scales=np.ones(6))
    with pytest.raises(ValueError, match="at most 2048"):
        cuda.maxsim_topk(np.ones((2, 1)), Documents(device, np.ones((2049, 1)), np.arange(2050)), 2049)
    equal(cuda.maxsim_topk(np.ones((2, 3)), documents, 2049), nv.maxsim_topk(np.ones((2, 3)), docs, 2049))
    assert documents.memory_usage() >= 6 * 8 * 4
    for dtype, bad in ((np.float32, np.nan), (np.float16, np.inf), (np.float32, -np.inf)):
        broken = np.ones((6, 3), dtype)
        broken[4, 1] = bad
        with pytest.raises(ValueError, match=f"docs holds {bad} at token 4, column 1"):
            Documents(device, broken, [0, 2, 6])
        with pytest.raises(ValueError, match=f"docs holds {bad} at token 4, column 1"):
            Documents(device, device.put(broken), [0, 2, 6])
