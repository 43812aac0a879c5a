"""Fitted encoders: the formulas in plain numpy, and everything that the reference's encoders can do."""

from __future__ import annotations

import copy
import pickle
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import nestvec as nv
from nestvec import backends, fitting, muvera
from nestvec.fitting import Fit

Encoder = nv.FixedDimensionalEncoder


def tokens_of(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Tokens that share a part and vary along some axes more than along others, like those of a model."""
    return (1 + rng.standard_normal((n, d)) * np.geomspace(1, 0.05, d)).astype(np.float32)


def words_of(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Unit tokens around 200 words, in documents of ten."""
    axes = np.geomspace(1, 0.1, d)
    x = 1 + rng.standard_normal((200, d))[rng.integers(0, 200, n)] * axes + 0.3 * rng.standard_normal((n, d)) * axes
    return np.float32(x / np.linalg.norm(x, axis=1, keepdims=True))


def queries_near(rng: np.random.Generator, x: np.ndarray, count: int) -> np.ndarray:
    """Four tokens near those of a document each."""
    starts = rng.integers(0, len(x) // 10, count) * 10
    q = np.stack([x[s : s + 4] for s in starts]) + 0.1 * rng.standard_normal((count, 4, x.shape[1]))
    return np.float32(q / np.linalg.norm(q, axis=2, keepdims=True))


def some_encoder(rng: np.random.Generator, **more: Any) -> nv.FixedDimensionalEncoder:
    parameters: dict[str, Any] = {
        "num_repetitions": int(rng.choice([1, 2, 5, 18])),
        "num_simhash_projections": int(rng.integers(0, 7)),
        "projection_dim": rng.choice([None, 1, 5, 16, 20]),
        "final_projection_dim": rng.choice([None, None, 33]),
        "seed": int(rng.integers(0, 100)),
    }
    return Encoder.fitted(tokens_of(rng, 60, int(rng.choice([1, 8, 17, 64]))), **{**parameters, **more})


def project(x: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Products, summed up in float32 in the order of dims."""
    result = np.zeros((len(x), columns.shape[1]), np.float32)
    for j in range(len(columns)):
        result += x[:, j : j + 1] * columns[j]
    return result


def partition_of(bits: Any) -> int:
    """Sign bits, the first one highest, read as a Gray code."""
    partition = 0
    for bit in bits:
        partition = 2 * partition + (int(bit) ^ (partition & 1))
    return partition


def finished(encoder: nv.FixedDimensionalEncoder, blocks: np.ndarray) -> np.ndarray:
    if not encoder.final_projection_dim:
        return blocks.ravel()
    result = np.zeros(encoder.final_projection_dim, np.float32)
    for value, entry in zip(blocks.ravel(), encoder._tables.final.tolist(), strict=True):
        result[entry & 0x7FFFFFFF] += -value if entry < 0 else value
    return result


def document(encoder: nv.FixedDimensionalEncoder, tokens: np.ndarray) -> np.ndarray:
    assert encoder.fit is not None
    r, k, width = encoder.num_repetitions, encoder.num_simhash_projections, encoder.projection_dim or encoder.dim
    x = tokens - encoder.fit.mean
    y = project(x, encoder.fit.projection).reshape(len(x), r, width)
    above = (x.astype(np.float64) @ encoder.fit.planes.T.astype(np.float64) > 0).reshape(len(x), r, k)
    blocks, counts = np.zeros((r, 1 << k, width), np.float32), np.zeros((r, 1 << k))
    for t, i in np.ndindex(len(x), r):
        p = partition_of(above[t, i])
        blocks[i, p] += y[t, i]
        counts[i, p] += 1
    divisors = np.sqrt(counts) * np.sqrt(np.sqrt(counts))
    return finished(encoder, blocks / np.where(counts > 0, divisors, 1).astype(np.float32)[:, :, None])


def query(encoder: nv.FixedDimensionalEncoder, tokens: np.ndarray) -> np.ndarray:
    assert encoder.fit is not None
    r, k, width = encoder.num_repetitions, encoder.num_simhash_projections, encoder.projection_dim or encoder.dim
    x, one, half = tokens - encoder.fit.mean, np.float32(1), np.float32(0.5)
    y = project(x, encoder.fit.projection) + project(encoder.fit.mean[None], encoder.fit.projection)
    u = 2 * project(x, np.ascontiguousarray(encoder.fit.planes.T)).reshape(len(x), r, k)
    above = half + half * u / np.sqrt(one + u * u)
    squares = (x.astype(np.float64) ** 2).sum(axis=1).astype(np.float32)
    blocks = np.zeros((r, 1 << k, width), np.float32)
    for t, i, code in np.ndindex(len(x), r, 1 << k):
        bits, weight = [code >> (k - 1 - j) & 1 for j in range(k)], one
        for j, bit in enumerate(bits):
            weight *= above[t, i, j] if bit else one - above[t, i, j]
        if weight > np.float32(0.1):
            blocks[i, partition_of(bits)] += weight * squares[t] * y[t].reshape(r, width)[i]
    return finished(encoder, blocks)


@pytest.mark.parametrize("round_", range(25))
def test_formulas(round_: int, backend: Any) -> None:
    """Every bit but the sign of zero, several bags at once."""
    del backend
    rng = np.random.default_rng(round_)
    encoder = some_encoder(rng)
    bags = [tokens_of(rng, int(n), encoder.dim) for n in rng.choice([1, 2, 12, 13, 25, 33], 3)]
    documents, queries = encoder.encode_documents(bags), encoder.encode_queries(bags)
    for i, bag in enumerate(bags):
        np.testing.assert_array_equal(documents[i], document(encoder, bag))
        np.testing.assert_array_equal(queries[i], query(encoder, bag))


@pytest.mark.parametrize("k", [0, 2, 5, 6, 9])
def test_weights_of_a_token(k: int, backend: Any, rng: np.random.Generator) -> None:
    """A token alone has its partition of documents among those of its query, the heaviest one."""
    del backend
    encoder = Encoder.fitted(tokens_of(rng, 200, 24), num_simhash_projections=k)
    for token in tokens_of(rng, 5, 24)[:, None]:
        blocks = encoder.encode_queries(token).reshape(20, 1 << k, 16)
        lengths, partitions = np.linalg.norm(blocks, axis=2), encoder.partitions(token)[0]
        found = (lengths > 0).sum(axis=1)
        assert found.max() <= 9
        for r in np.flatnonzero(found):
            assert lengths[r].argmax() == partitions[r]
    assert k > 6 or (found > 0).all()


def test_fit(rng: np.random.Generator) -> None:
    """Products with planes have variance 1 and mean 0; the projections of all repetitions are rotations."""
    x = tokens_of(rng, 5000, 32)
    fit = Encoder.fitted(x, num_repetitions=4, projection_dim=16).fit
    assert fit is not None
    np.testing.assert_allclose(fit.mean, x.mean(axis=0), rtol=1e-4)
    products = (x - fit.mean) @ fit.planes.T
    np.testing.assert_allclose(products.var(axis=0), 1, rtol=1e-4)
    np.testing.assert_allclose(products.mean(axis=0), 0, atol=1e-3)
    for half in (fit.projection[:, :32], fit.projection[:, 32:]):
        np.testing.assert_allclose(half.T @ half, 2 * np.eye(32), atol=1e-5)
    assert abs(fit.projection[:, :32] - fit.projection[:, 32:]).max() > 0.5
    spread = np.linalg.norm(fit.planes, axis=0)
    assert 2 < spread[-1] / spread[0] < 20  # (1 / 0.05) ** 0.5 is 4.5, the half of what whitening makes of it


def test_forms_of_tokens(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same tokens in any form; of many of them some."""
    x = tokens_of(rng, 60, 8).astype(np.float16)
    wanted = Encoder.fitted(x.astype(np.float32))
    for form in (x, x.astype(np.float64), x.reshape(6, 10, 8), [x[:7], x[7:]], (x, [0, 7, 60])):
        assert Encoder.fitted(form) == wanted
    monkeypatch.setattr(fitting, "SAMPLE", 25)
    assert Encoder.fitted(x) == Encoder.fitted(x[::3]) != wanted
    with pytest.raises(ValueError, match=r"tokens\[::3\] holds nan at row 2, column 1"):
        Encoder.fitted(np.where((np.arange(60) == 6)[:, None] & (np.arange(8) == 1), np.nan, x))


def test_ranks_better_than_the_reference(rng: np.random.Generator) -> None:
    """The exact best document among the first ten, for more queries."""
    x = words_of(rng, 4000, 32)
    queries = queries_near(rng, x, 60)
    best = [(q @ x.T).reshape(4, 400, 10).max(axis=2).sum(axis=0).argmax() for q in queries]
    more: dict[str, Any] = {"num_repetitions": 10, "num_simhash_projections": 4, "projection_dim": 16}
    hits = []
    for encoder in (Encoder(32, **more), Encoder.fitted(x, **more)):
        scores = encoder.encode_queries(queries) @ encoder.encode_documents(x.reshape(400, 10, 32)).T
        hits.append(sum(b in row for b, row in zip(best, np.argsort(-scores, axis=1)[:, :10], strict=True)))
    assert hits[1] > hits[0] + 10


@pytest.mark.parametrize("projection_dim", [None, 7])
def test_fewer_repetitions_are_a_prefix(projection_dim: int | None, rng: np.random.Generator) -> None:
    x, more = tokens_of(rng, 50, 24), {"projection_dim": projection_dim}
    all_of_them = Encoder.fitted(x, num_repetitions=7, **more)
    for r in (1, 3, 7):
        encoder, size = Encoder.fitted(x, num_repetitions=r, **more), r * all_of_them.repetition_dim
        np.testing.assert_array_equal(encoder.encode_documents(x), all_of_them.encode_documents(x)[:size])
        np.testing.assert_array_equal(encoder.encode_queries(x), all_of_them.encode_queries(x)[:size])


@pytest.mark.parametrize("projection_dim", [None, 3])
def test_sparse_queries(projection_dim: int | None, backend: Any, rng: np.random.Generator) -> None:
    """What is not listed is zero, what is listed is not."""
    del backend
    x, offsets = tokens_of(rng, 30, 8), [0, 1, 9, 30]
    encoder = Encoder.fitted(x, num_repetitions=3, num_simhash_projections=4, projection_dim=projection_dim)
    values, blocks, indptr = encoder.encode_queries(x, offsets, sparse=True)
    assert (values.dtype, blocks.dtype, indptr.dtype) == (np.float32, np.int32, np.int64)
    dense = np.zeros((3, 3 * 16, projection_dim or 8), np.float32)
    for i, (begin, end) in enumerate(pairwise(indptr)):
        assert (np.diff(blocks[begin:end]) > 0).all()
        dense[i, blocks[begin:end]] = values[begin:end]
    assert values.any(axis=1).all()
    assert len(blocks) < 3 * 3 * 16
    np.testing.assert_array_equal(dense.reshape(3, -1), encoder.encode_queries(x, offsets))


def test_neither_threads_nor_chunks_matter(backend: Any, rng: np.random.Generator, monkeypatch: Any) -> None:
    del backend
    lengths = rng.integers(1, 40, 50)
    x, offsets = tokens_of(rng, int(lengths.sum()), 20), np.concatenate([[0], np.cumsum(lengths)])
    encoder = Encoder.fitted(x, num_repetitions=3, projection_dim=6)
    wanted, queries = encoder.encode_documents(x, offsets), encoder.encode_queries(x, offsets, sparse=True)
    np.testing.assert_array_equal(wanted, [encoder.encode_documents(x[a:b]) for a, b in pairwise(offsets)])
    for tokens, values in ((1, 1), (100, 10_000), (64, 1 << 22)):
        monkeypatch.setattr(muvera, "CHUNK_TOKENS", tokens)
        monkeypatch.setattr(muvera, "CHUNK_VALUES", values)
        for threads in (1, 5):
            np.testing.assert_array_equal(encoder.encode_documents(x, offsets, threads=threads), wanted)
            for a, b in zip(encoder.encode_queries(x, offsets, sparse=True, threads=threads), queries, strict=True):
                np.testing.assert_array_equal(a, b)


def test_types_and_scales(rng: np.random.Generator) -> None:
    """Half results, scaled integers, documents without tokens, and a report of partitions, as for any encoder."""
    codes, scales = rng.integers(-127, 128, (10, 8), dtype=np.int8), rng.uniform(0, 1, 10).astype(np.float32)
    x = codes * scales[:, None]
    encoder = Encoder.fitted(x, num_repetitions=2, num_simhash_projections=2)
    for encode in (encoder.encode_documents, encoder.encode_queries):
        wanted = encode(x, [0, 3, 10])
        np.testing.assert_array_equal(encode(codes, [0, 3, 10], scales=scales), wanted)
        np.testing.assert_array_equal(
            encode(x / 1000, [0, 3, 10], dtype="float16"), encode(x / 1000, [0, 3, 10]).astype("f2")
        )
    assert not encoder.encode_documents(x, [0, 0, 10])[0].any()
    occupied = [len(set(column)) for column in encoder.partitions(x).T.tolist()]
    assert encoder.occupancy(x).occupied == sum(occupied) / 8
    far = np.full((2, 8), 3e38, np.float32)
    with pytest.raises(ValueError, match="tokens less their mean holds -inf at row 0, column 0"):
        Encoder.fitted(far).encode_documents(-far)


@pytest.mark.parametrize(
    "tokens", [np.zeros((2, 4)), np.full((100, 4), 0.1), np.eye(4)[:2], np.diag([1e38, 1, 1e-30, 0])], ids=str
)
def test_tokens_that_hardly_vary(tokens: np.ndarray) -> None:
    """Along no axis, along one, or along axes of very different lengths."""
    encoder = Encoder.fitted(tokens, num_repetitions=2)
    assert np.isfinite(encoder.encode_documents(tokens)).all()
    assert encoder.fit is not None
    assert np.isfinite(encoder.fit.planes).all()
    assert (np.linalg.norm(encoder.fit.planes.astype(np.float64), axis=1) > 0).all()


def test_wrong_fits(rng: np.random.Generator) -> None:
    x = tokens_of(rng, 20, 8)
    for few in (x[:0], x[:1], []):
        with pytest.raises(ValueError, match="at least 2 tokens"):
            Encoder.fitted(few)
    with pytest.raises(ValueError, match="too little for float32; scale them"):
        Encoder.fitted((x * 1e-41).astype(np.float32))
    with pytest.raises(ValueError, match="num_repetitions must be at least 1"):
        Encoder.fitted(x, num_repetitions=0)
    fit = Encoder.fitted(x).fit
    with pytest.raises(ValueError, match="leaves empty partitions empty"):
        Encoder(8, projection_dim=16, fill_empty_partitions=True, fit=fit)
    with pytest.raises(ValueError, match=r"planes of the fit must be \(80, 8\), got \(100, 8\)"):
        Encoder(8, projection_dim=16, num_simhash_projections=4, fit=fit)
    with pytest.raises(ValueError, match=r"projection of the fit must be \(8, 160\), got \(8, 320\)"):
        Encoder(8, fit=fit)
    with pytest.raises(TypeError, match="fit must come from"):
        Encoder(8, fit="best")  # type: ignore[arg-type]


def test_fits_are_values(rng: np.random.Generator) -> None:
    """Part of equality, hash, text and fingerprint; copies and pickles are as good."""
    x, y = tokens_of(rng, 30, 8), tokens_of(rng, 30, 8)
    encoder, other = Encoder.fitted(x), Encoder.fitted(y)
    plain = Encoder(8, projection_dim=16)
    assert len({encoder, other, plain}) == len({e.fingerprint() for e in (encoder, other, plain)}) == 3
    assert repr(encoder) == f"{repr(plain)[:-1]}, fit={encoder.fit!r})"
    for copied in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert copied == encoder
        assert copied.fingerprint() == encoder.fingerprint()
        np.testing.assert_array_equal(copied.encode_queries(y), encoder.encode_queries(y))
        with pytest.raises(ValueError, match="read-only"):
            copied.fit.mean[0] = 1
    assert encoder.fit is not None
    moved = Fit(np.nextafter(encoder.fit.mean, np.float32(9)), encoder.fit.planes, encoder.fit.projection)
    assert Encoder(8, projection_dim=16, fit=moved).fingerprint() != encoder.fingerprint()


def test_index(rng: np.random.Generator) -> None:
    """Shortlists of a fitted encoder in an index, and their exact ranks."""
    x = words_of(rng, 2000, 32)
    index = nv.MultiVectorIndex(Encoder.fitted(x), "f32", codes=("b1", "i8"))
    index.add(x.reshape(200, 10, 32))
    queries = queries_near(rng, x, 40)
    exact = index.search(queries, 3, exact=True)
    for a, b in zip(index.search(queries, 3, candidates=200), exact, strict=True):
        np.testing.assert_array_equal(a, b)
    _, found = index.search(queries, 1, candidates=40)
    assert (found == exact[1][:, :1]).mean() > 0.9


def test_backends_agree(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name that is used here is a backend that gives the same bits, on tokens of real size."""
    monkeypatch.setattr(backends, "_current", None)
    x, found = tokens_of(rng, 300, 128), []
    fit = Encoder.fitted(x).fit
    for name in backends.available():
        nv.use(name)
        encoder = Encoder(128, projection_dim=16, fit=fit)
        found.append((encoder.encode_documents(x, [0, 100, 300]), encoder.encode_queries(x, [0, 32, 300])))
    for other in found[1:]:
        np.testing.assert_array_equal(other[0], found[0][0])
        np.testing.assert_array_equal(other[1], found[0][1])
