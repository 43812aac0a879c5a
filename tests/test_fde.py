"""Fixed dimensional encodings: the numbers of the reference, in every form of input, and an independent encoder."""

from __future__ import annotations

import copy
import hashlib
import pickle
from itertools import pairwise
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import nestvec as nv
from nestvec import backends, draws, muvera

Encoder = nv.FixedDimensionalEncoder
CLOUD = np.fromfunction(lambda i, j: (7 * i + 3 * j + i * j) % 11 - 5, (6, 8)).astype(np.float32)


def entries(table: np.ndarray) -> str:
    """Index and sign of each entry of a sketch."""
    return " ".join(f"{entry & 0x7FFFFFFF}{'-' if entry < 0 else '+'}" for entry in table.tolist())


def tokens_of(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    return rng.standard_normal((n, d)).astype(np.float32)


def reference(encoder: nv.FixedDimensionalEncoder, x: np.ndarray, document: bool) -> np.ndarray:
    """One encoding in plain numpy, from the same draws: slow, and in the order of arithmetic that is promised."""
    r, k, d = encoder.num_repetitions, encoder.num_simhash_projections, encoder.dim
    width, parts = encoder.projection_dim or d, 1 << encoder.num_simhash_projections
    result = np.zeros((r, parts, width), np.float32)
    for i in range(r):
        columns = draws.gaussians(encoder.seed + i, k * d).reshape(k, d).astype(np.float64)
        signs = (x @ columns.T > 0).astype(int)
        code = np.array([int("0" + "".join(map(str, row)), 2) for row in signs], int)
        partition = code.copy()
        for shift in range(1, k):
            partition ^= code >> shift
        y = x
        if encoder.projection_dim:
            table = draws.sketch(encoder.seed + i, d, width)
            y = np.zeros((len(x), width), np.float32)
            for j, entry in enumerate(table.tolist()):
                y[:, entry & 0x7FFFFFFF] += -x[:, j] if entry < 0 else x[:, j]
        for token, p in zip(y, partition, strict=True):
            result[i, p] += token
        for p in range(parts if document else 0):
            count = np.count_nonzero(partition == p)
            if count:
                result[i, p] /= np.float32(count)
            elif encoder.fill_empty_partitions:
                result[i, p] = y[min(range(len(x)), key=lambda t: ((code[t] ^ p ^ p >> 1).bit_count(), t))]
    flat = result.ravel()
    if not encoder.final_projection_dim:
        return flat
    projected = np.zeros(encoder.final_projection_dim, np.float32)
    for value, entry in zip(flat, draws.sketch(encoder.seed, flat.size, projected.size).tolist(), strict=True):
        projected[entry & 0x7FFFFFFF] += -value if entry < 0 else value
    return projected


def some_encoder(rng: np.random.Generator, **more: Any) -> nv.FixedDimensionalEncoder:
    return Encoder(
        int(rng.choice([1, 8, 17, 64])),
        num_repetitions=int(rng.integers(1, 5)),
        num_simhash_projections=int(rng.integers(0, 6)),
        projection_dim=rng.choice([None, 1, 5, 16, 20]),
        final_projection_dim=rng.choice([None, 33]),
        seed=int(rng.choice([-5, 0, 1, 42, 2**31 - 21, 2**32 - 1])),
        **more,
    )


def test_golden_draws() -> None:
    """mt19937, its normal distribution and its sketches, as libstdc++ draws them."""
    assert draws.Stream(1).take(4).tolist() == [1791095845, 4282876139, 3093770124, 4005303368]
    assert draws.Stream(42).take(4).tolist() == [1608637542, 3421126067, 4083286876, 787846414]
    one = [0.30639967, 0.15606569, -0.42438623, -0.5680398, -0.20454668, -0.8062886]
    np.testing.assert_array_equal(draws.gaussians(1, 6), np.float32(one))
    bits = ["0x1.39c0d6p-2", "0x1.3f9f5ep-3", "-0x1.b2924ep-2", "-0x1.22d61cp-1"]
    assert draws.gaussians(1, 4).tolist() == list(map(float.fromhex, bits))
    bits = ["0x1.38cfd6p+0", "-0x1.08af86p-1", "0x1.bd40ecp-1", "0x1.715284p-1"]
    assert draws.gaussians(42, 4).tolist() == list(map(float.fromhex, bits))
    two = np.float32([-1.3031056, -0.26484808, 0.64198005, 0.0712087])
    np.testing.assert_array_equal(draws.gaussians(2, 4), two)
    assert entries(draws.sketch(1, 16, 16)) == "6- 14+ 4+ 3+ 2+ 10- 8+ 5- 3- 3- 10+ 7+ 2+ 12- 15+ 1-"
    assert entries(draws.sketch(1, 8, 10240)) == "4270- 9549+ 3095+ 2417+ 1907+ 6858- 5517+ 3207-"
    assert entries(draws.sketch(42, 8, 16)) == "5- 2- 9+ 7+ 0- 5+ 11+ 0-"
    assert entries(draws.sketch(42, 8, 10240)) == "3835- 1878- 6130+ 4565+ 594- 3417+ 7250+ 577-"
    assert entries(draws.sketch(1, 8, 4)) == "1- 3+ 1+ 0+ 0+ 2- 2+ 1-"
    assert entries(draws.sketch(2, 8, 4)) == "1+ 3- 1+ 1+ 0- 0+ 1- 3-"


@pytest.mark.parametrize("buckets", [1, 3, 10240, 3 * 2**29, 2**31 - 1])
def test_sketch_rejects_as_the_reference_does(buckets: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One draw after the other, where a quarter of the draws of an index may be rejected."""
    monkeypatch.setattr(draws, "CHUNK", 64)
    stream, wanted = iter(draws.Stream(7).take(5000).tolist()), []
    for _ in range(500):
        product = next(stream) * buckets
        while product % 2**32 < 2**32 % buckets:
            product = next(stream) * buckets
        low, high = next(stream), next(stream)
        wanted.append((product >> 32) - (0 if (low + high * 2**32) / 2**64 < 0.5 else 2**31))
    assert draws.sketch(7, 500, buckets).tolist() == wanted


def test_log() -> None:
    x = np.geomspace(1e-38, 1, 100_000, dtype=np.float32)
    exact = np.log(x.astype(np.float64))
    assert (abs(draws.log(x) - exact) <= 0.5000001 * np.spacing(abs(exact).astype(np.float32))).all()


def test_golden_encodings(backend: Any) -> None:
    """Integer tokens, whose sums are exact, as the reference encodes them."""
    del backend

    def encoder(**more: Any) -> nv.FixedDimensionalEncoder:
        return Encoder(8, num_repetitions=2, num_simhash_projections=3, **more)

    def digest(encoding: np.ndarray) -> str:
        return hashlib.sha256(encoding.astype("<f4").tobytes()).hexdigest()[:16]

    assert encoder().partitions(CLOUD).T.tolist() == [[0, 7, 6, 2, 4, 1], [7, 2, 4, 0, 5, 3]]
    filled = encoder(projection_dim=4, fill_empty_partitions=True).encode_documents(CLOUD).reshape(2, 8, 4).tolist()
    assert filled[0][:4] == [[0, 1, 3, -2], [-5, 7, -3, 5], [-3, -13, -5, 0], [0, 1, 3, -2]]
    assert filled[0][4:] == [[-4, 8, -4, -3], [-2, -1, -6, 3], [-2, -1, -6, 3], [-1, 0, 4, -5]]
    assert filled[1][:4] == [[6, 4, 0, -3], [4, 0, 0, 8], [4, 0, 0, 8], [8, -3, 0, -3]]
    assert filled[1][4:] == [[5, 2, 0, -3], [7, 6, 0, 8], [3, -2, 0, -3], [3, -2, 0, -3]]
    sketched = encoder(projection_dim=4, final_projection_dim=16, fill_empty_partitions=True)
    document, query = sketched.encode_documents(CLOUD), sketched.encode_queries(CLOUD)
    assert document.tolist() == [-1, 4, -16, 14, 18, -10, 0, -3, 4, 0, -16, 0, 5, -8, 2, 3]
    assert query.tolist() == [-1, 4, -16, 14, 10, -10, 0, -4, -2, 0, -15, 0, 4, -8, 2, 0]
    assert digest(encoder().encode_queries(CLOUD)) == "3150d3b9468ccd41"
    assert digest(encoder(fill_empty_partitions=True).encode_documents(CLOUD)) == "1bc2ea9e984cf5bc"
    assert digest(np.float32(filled)) == "e4952a85bf4401ce"
    assert digest(document) == "392b6d9b79281b03"
    assert digest(query) == "7f7ec29d227c28df"


@pytest.mark.parametrize("round_", range(30))
def test_reference(round_: int, backend: Any) -> None:
    """Any parameters, several documents at once, against plain numpy: every bit but the sign of zero."""
    del backend
    rng = np.random.default_rng(round_)
    encoder = some_encoder(rng, fill_empty_partitions=bool(round_ % 2))
    bags = [tokens_of(rng, int(n), encoder.dim) for n in rng.choice([1, 2, 15, 16, 17, 33, 70], 3)]
    documents, queries = encoder.encode_documents(bags), encoder.encode_queries(bags)
    for i, bag in enumerate(bags):
        np.testing.assert_array_equal(documents[i], reference(encoder, bag, True))
        np.testing.assert_array_equal(queries[i], reference(encoder, bag, False))


def test_muvfde() -> None:
    """The reference itself, wrapped as a package: identical without a sketch of tokens, else within roundings."""
    muvfde = pytest.importorskip("muvfde")

    def theirs(encoder: nv.FixedDimensionalEncoder, x: np.ndarray, document: bool) -> np.ndarray:
        config = muvfde.fixed_dimensional_encoding_config().set_seed(encoder.seed)
        config = config.set_num_repetitions(encoder.num_repetitions)
        config = config.set_num_simhash_projections(encoder.num_simhash_projections)
        kind = muvfde.encoding_type
        config = config.set_encoding_type(kind.AVERAGE if document else kind.DEFAULT_SUM)
        if encoder.projection_dim:
            config = config.set_projection_type(muvfde.projection_type.AMS_SKETCH)
            config = config.set_projection_dimension(encoder.projection_dim)
        if encoder.final_projection_dim:
            config = config.set_final_projection_dimension(encoder.final_projection_dim)
        config = config.enable_fill_empty(document and encoder.fill_empty_partitions)
        return np.asarray(muvfde.generate_fixed_dimensional_encoding(x, config))

    rng = np.random.default_rng(0)
    for round_ in range(300):
        encoder = Encoder(
            int(rng.choice([8, 16, 96, 128])),
            num_repetitions=int(rng.integers(1, 5)),
            num_simhash_projections=int(rng.integers(0, 7)),
            projection_dim=rng.choice([4, 16, 40]) if round_ % 2 else None,
            final_projection_dim=rng.choice([None, 64, 1000]),
            fill_empty_partitions=bool(rng.integers(0, 2)),
            seed=int(rng.choice([-5, 0, 1, 42, 2**31 - 21])),
        )
        x = tokens_of(rng, int(rng.choice([2, 3, 17, 31, 89])), encoder.dim)
        products = abs(x @ encoder._tables.gaussians.T)
        x = x[(products >= 1e-5).all(axis=1)]  # theirs are rounded, ours decided in float64
        for document in (False, True):
            ours = encoder.encode_documents(x) if document else encoder.encode_queries(x)
            wanted = theirs(encoder, x, document)
            most = max(abs(x).max(), abs(wanted).max()) if round_ % 2 else 0
            np.testing.assert_allclose(ours, wanted, rtol=0, atol=1e-6 * most)


@pytest.mark.parametrize("k", range(7))
def test_fill_finds_the_nearest_token(k: int, backend: Any, rng: np.random.Generator) -> None:
    """Fewest different sign bits, then the first token; against all pairs."""
    encoder = Encoder(12, num_repetitions=3, num_simhash_projections=k, fill_empty_partitions=True)
    plain = Encoder(12, num_repetitions=3, num_simhash_projections=k)
    x = tokens_of(rng, 9, 12)
    filled, left = (e.encode_documents(x).reshape(3, -1, 12) for e in (encoder, plain))
    partitions = encoder.partitions(x).astype(int)
    for r in range(3):
        codes = partitions[:, r] ^ partitions[:, r] >> 1
        for p in range(1 << k):
            token = min(range(9), key=lambda t: (int(codes[t] ^ p ^ p >> 1).bit_count(), t))
            np.testing.assert_array_equal(filled[r, p], left[r, p] if p in partitions[:, r] else x[token])


@pytest.mark.parametrize("projection_dim", [None, 7])
@pytest.mark.parametrize("fill", [False, True])
def test_fewer_repetitions_are_a_prefix(fill: bool, projection_dim: int | None, rng: np.random.Generator) -> None:
    more: dict[str, Any] = {"projection_dim": projection_dim, "fill_empty_partitions": fill}
    x, all_of_them = tokens_of(rng, 50, 24), Encoder(24, num_repetitions=7, **more)
    for r in (1, 3, 7):
        encoder = Encoder(24, num_repetitions=r, **more)
        size = r * all_of_them.repetition_dim
        assert size == encoder.fde_dim
        np.testing.assert_array_equal(encoder.encode_documents(x), all_of_them.encode_documents(x)[:size])
        np.testing.assert_array_equal(encoder.encode_queries(x), all_of_them.encode_queries(x)[:size])


def test_inner_products_stay_below_maxsim(rng: np.random.Generator) -> None:
    """Every token of a query meets a mean of a document's tokens, which is no better than the best of them."""
    encoder = Encoder(16, fill_empty_partitions=True)
    for _ in range(5):
        q, d = tokens_of(rng, 10, 16), tokens_of(rng, 40, 16)
        bound = encoder.num_repetitions * (q @ d.T).max(axis=1).sum()
        assert encoder.encode_queries(q) @ encoder.encode_documents(d) <= bound


def test_neither_threads_nor_chunks_matter(backend: Any, rng: np.random.Generator, monkeypatch: Any) -> None:
    """Nor who else is in the batch."""
    del backend
    lengths = rng.integers(1, 40, 50)
    x, offsets = tokens_of(rng, int(lengths.sum()), 20), np.concatenate([[0], np.cumsum(lengths)])
    encoder = Encoder(20, num_repetitions=3, projection_dim=6, fill_empty_partitions=True)
    wanted, queries = encoder.encode_documents(x, offsets), encoder.encode_queries(x, offsets, sparse=True)
    partitions, report = encoder.partitions(x), str(encoder.occupancy(x, offsets))
    alone = [encoder.encode_documents(x[a:b]) for a, b in pairwise(offsets)]
    np.testing.assert_array_equal(wanted, alone)
    for tokens, values in ((1, 1), (100, 10_000), (64, 1 << 22)):
        monkeypatch.setattr(muvera, "CHUNK_TOKENS", tokens)
        monkeypatch.setattr(muvera, "CHUNK_VALUES", values)
        for threads in (1, 2, 5):
            np.testing.assert_array_equal(encoder.encode_documents(x, offsets, threads=threads), wanted)
            np.testing.assert_array_equal(encoder.partitions(x, threads=threads), partitions)
            for a, b in zip(encoder.encode_queries(x, offsets, sparse=True, threads=threads), queries, strict=True):
                np.testing.assert_array_equal(a, b)
        assert str(encoder.occupancy(x, offsets)) == report


def test_forms_of_input(rng: np.random.Generator) -> None:
    """Arrays, lists and offsets say the same; so do memory layouts and wider types of the same values."""
    encoder = Encoder(8, num_repetitions=2, projection_dim=3)
    x = tokens_of(rng, 12, 8).astype(ml_dtypes.bfloat16).astype(np.float32)
    wanted = encoder.encode_documents(x, [0, 4, 8, 12])
    assert wanted.shape == (3, encoder.fde_dim) == (3, 2 * 32 * 3)
    padded = np.zeros((24, 16), np.float32)
    padded[::2, ::2] = x
    misaligned = np.frombuffer(b"\0" + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(12, 8)
    frozen = x.copy()
    frozen.flags.writeable = False
    same: list[Any] = [padded[::2, ::2], np.asfortranarray(x), x[::-1].copy()[::-1], misaligned, frozen]
    same += [x.astype(np.float64), x.astype(">f4"), x.astype(ml_dtypes.bfloat16), x.tolist()]
    for other in same:
        np.testing.assert_array_equal(encoder.encode_documents(other, np.int32([0, 4, 8, 12])), wanted)
    np.testing.assert_array_equal(encoder.encode_documents(x.reshape(3, 4, 8)), wanted)
    np.testing.assert_array_equal(encoder.encode_documents([x[:4], x[4:8], x[8:]]), wanted)
    np.testing.assert_array_equal(encoder.encode_documents((x, [0, 4, 8, 12])), wanted)
    np.testing.assert_array_equal(encoder.encode_documents(x[4:8]), wanted[1])
    half = x.astype(np.float16)
    np.testing.assert_array_equal(encoder.encode_queries(half), encoder.encode_queries(half.astype(np.float32)))
    assert encoder.encode_documents(x[:0], [0]).shape == (0, encoder.fde_dim)
    assert encoder.encode_queries([], sparse=True).indptr.tolist() == [0]


def test_scaled_integers(rng: np.random.Generator) -> None:
    encoder = Encoder(8, num_repetitions=2)
    codes, scales = rng.integers(-127, 128, (10, 8), dtype=np.int8), rng.uniform(0, 1, 10).astype(np.float32)
    x = codes.astype(np.float32) * scales[:, None]
    for encode in (encoder.encode_documents, encoder.encode_queries):
        np.testing.assert_array_equal(encode(codes, [0, 3, 10], scales=scales), encode(x, [0, 3, 10]))
    np.testing.assert_array_equal(encoder.partitions(codes, scales=scales), encoder.partitions(x))
    assert encoder.occupancy(codes, scales=scales).tokens == encoder.occupancy(x).tokens
    with pytest.raises(ValueError, match=r"scales must be \(10,\), one for each token, got 9"):
        encoder.encode_documents(codes, scales=scales[:9])
    with pytest.raises(ValueError, match="scales holds nan at row 3"):
        encoder.encode_documents(codes, scales=np.where(np.arange(10) == 3, np.nan, scales))


@pytest.mark.parametrize("projection_dim", [None, 3])
def test_sparse_queries(projection_dim: int | None, backend: Any, rng: np.random.Generator) -> None:
    """What is not listed is zero, what is listed holds a token."""
    del backend
    encoder = Encoder(8, num_repetitions=3, num_simhash_projections=4, projection_dim=projection_dim)
    x, offsets = tokens_of(rng, 30, 8), [0, 1, 9, 30]
    values, blocks, indptr = encoder.encode_queries(x, offsets, sparse=True)
    assert (values.dtype, blocks.dtype, indptr.dtype) == (np.float32, np.int32, np.int64)
    dense = np.zeros((3, 3 * 16, projection_dim or 8), np.float32)
    for i, (begin, end) in enumerate(pairwise(indptr)):
        wanted = encoder.partitions(x[offsets[i] : offsets[i + 1]]) + 16 * np.arange(3)
        assert blocks[begin:end].tolist() == sorted(set(wanted.ravel().tolist()))
        dense[i, blocks[begin:end]] = values[begin:end]
    np.testing.assert_array_equal(dense.reshape(3, -1), encoder.encode_queries(x, offsets))
    with pytest.raises(ValueError, match="without final_projection_dim"):
        Encoder(8, final_projection_dim=9).encode_queries(x, sparse=True)
    with pytest.raises(ValueError, match="leave out `out`"):
        encoder.encode_queries(x, sparse=True, dtype="float16")


def test_out_and_float16(rng: np.random.Generator) -> None:
    encoder = Encoder(8, num_repetitions=2)
    x = tokens_of(rng, 9, 8)
    wanted = encoder.encode_documents(x, [0, 5, 9])
    half = encoder.encode_documents(x, [0, 5, 9], dtype="float16")
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, wanted.astype(np.float16))
    for dtype in ("float32", "float16"):
        for out in (np.empty((2, encoder.fde_dim), dtype), np.empty((encoder.fde_dim, 2), dtype).T):
            assert encoder.encode_documents(x, [0, 5, 9], out=out, dtype=dtype) is out
            np.testing.assert_array_equal(out, wanted.astype(dtype))
    one = np.empty(encoder.fde_dim, np.float32)
    np.testing.assert_array_equal(encoder.encode_documents(x[:5], out=one), wanted[0])
    for wrong in (np.empty((2, 3), np.float32), np.empty((2, encoder.fde_dim)), [0.0]):
        with pytest.raises(ValueError, match=r"out must be a writeable float32 array of shape \(2, 512\), got"):
            encoder.encode_documents(x, [0, 5, 9], out=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"encoding 1 holds .*, beyond the range of float16"):
        encoder.encode_documents(x * np.repeat([1, 1e9], [5, 4])[:, None], [0, 5, 9], dtype="float16")


@pytest.mark.parametrize("k", [0, 3])
def test_documents_without_tokens(k: int, backend: Any, rng: np.random.Generator) -> None:
    """Zeros, also where a mean would be 0 / 0; an error where they are to be filled, and for queries."""
    del backend
    x = tokens_of(rng, 5, 4)
    for projection_dim in (None, 2):
        encoder = Encoder(4, num_repetitions=2, num_simhash_projections=k, projection_dim=projection_dim)
        encodings = encoder.encode_documents(x, [0, 0, 5, 5])
        assert not encodings[[0, 2]].any()
        np.testing.assert_array_equal(encodings[1], encoder.encode_documents(x))
        with pytest.raises(ValueError, match="query 2 has no tokens"):
            encoder.encode_queries(x, [0, 2, 5, 5])
        filling = Encoder(4, num_simhash_projections=k, projection_dim=projection_dim, fill_empty_partitions=True)
        with pytest.raises(ValueError, match=r"document 1 has no tokens.*fill_empty_partitions=False"):
            filling.encode_documents([x, x[:0]])


def test_no_partitions_are_the_mean(rng: np.random.Generator) -> None:
    x = tokens_of(rng, 7, 5)
    encoder = Encoder(5, num_repetitions=2, num_simhash_projections=0)
    np.testing.assert_allclose(encoder.encode_documents(x), np.tile(x.mean(axis=0), 2), rtol=1e-5)
    np.testing.assert_array_equal(encoder.partitions(x), np.zeros((7, 2)))


def test_queries_are_never_filled(rng: np.random.Generator) -> None:
    x, encoder = tokens_of(rng, 3, 8), Encoder(8, fill_empty_partitions=True)
    np.testing.assert_array_equal(encoder.encode_queries(x), Encoder(8).encode_queries(x))
    with pytest.raises(ValueError, match="queries cannot be filled"):
        encoder.encode_queries(x, fill_empty_partitions=True)


def test_zero_has_no_sign(backend: Any) -> None:
    """A product of zero is not positive, and -0 adds nothing."""
    del backend
    encoder = Encoder(4, num_repetitions=2, projection_dim=2, final_projection_dim=9)
    zeros = np.full((3, 4), -0.0, np.float32)
    assert not encoder.partitions(zeros).any()
    for result in (encoder.encode_queries(zeros), Encoder(4).encode_queries(zeros)):
        assert not np.signbit(result).any()
        assert not result.any()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"dim": 0}, "dim must be at least 1, got 0"),
        ({"num_repetitions": 0}, "num_repetitions must be at least 1, got 0"),
        ({"num_simhash_projections": 31}, "num_simhash_projections must be between 0 and 30, got 31"),
        ({"num_simhash_projections": -1}, "num_simhash_projections must be between 0 and 30, got -1"),
        ({"projection_dim": 0}, "projection_dim must be at least 1, got 0"),
        ({"final_projection_dim": 0}, "final_projection_dim must be at least 1, got 0"),
        ({"seed": 2**32}, "seed must be between"),
        ({"num_simhash_projections": 28}, "an encoding would have 42949672960 values"),
        ({"final_projection_dim": 2**31}, "an encoding after its final projection would have 2147483648 values"),
    ],
)
def test_parameters_out_of_range(parameters: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Encoder(**{"dim": 8, **parameters})


def test_wrong_tokens(rng: np.random.Generator) -> None:
    encoder, x = Encoder(8), tokens_of(rng, 6, 8)
    bad = x.copy()
    bad[4, 2] = np.nan
    for encode in (encoder.encode_documents, encoder.encode_queries, encoder.occupancy):
        with pytest.raises(ValueError, match="tokens has 7 dims, 8 are needed"):
            encode(x[:, :7])
        with pytest.raises(ValueError, match="must ascend from 0 to 6"):
            encode(x, [0, 4, 2, 6])
        with pytest.raises(ValueError, match="must ascend from 0 to 6"):
            encode(x, [0, 5])
        with pytest.raises(ValueError, match="tokens holds nan at row 4, column 2"):
            encode(bad, [0, 3, 6])
    with pytest.raises(ValueError, match="tokens has 7 dims, 8 are needed"):
        encoder.partitions(x[:, :7])
    with pytest.raises(TypeError, match="num_repetitions must be an integer"):
        Encoder(8, num_repetitions=2.5)  # type: ignore[arg-type]


def test_encoders_are_values() -> None:
    """Equal, hashed and printed by their parameters, which cannot change; copies and pickles are as good."""
    encoder = Encoder(8, num_repetitions=2, projection_dim=3)
    assert repr(encoder) == (
        "FixedDimensionalEncoder(dim=8, num_repetitions=2, num_simhash_projections=5, projection_dim=3, "
        "final_projection_dim=None, fill_empty_partitions=False, seed=1)"
    )
    for other in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert other == encoder
        assert hash(other) == hash(encoder)
        assert other.fingerprint() == encoder.fingerprint()
        np.testing.assert_array_equal(other.encode_queries(CLOUD), encoder.encode_queries(CLOUD))
    others = [
        Encoder(8, num_repetitions=2, projection_dim=3, **more) for more in ({"seed": 2}, {"final_projection_dim": 5})
    ]
    assert len({encoder.fingerprint(), *(other.fingerprint() for other in others)}) == 3
    with pytest.raises(AttributeError):
        encoder.dim = 9  # type: ignore[misc]


def test_occupancy(rng: np.random.Generator) -> None:
    encoder, x = Encoder(8, num_repetitions=3, num_simhash_projections=2), tokens_of(rng, 20, 8)
    report = encoder.occupancy(x, [0, 0, 3, 20])
    distinct = [sum(len(set(column)) for column in encoder.partitions(x[a:b]).T) for a, b in ((0, 3), (3, 20))]
    np.testing.assert_array_equal(report.occupied, [0, distinct[0] / 12, distinct[1] / 12])
    np.testing.assert_allclose(report.tokens, [0, 9 / distinct[0], 51 / distinct[1]])
    assert str(encoder.occupancy([])) == "no documents"


def test_backends_agree(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every name that is used here is a backend that gives the same bits, on tokens of real size."""
    monkeypatch.setattr(backends, "_current", None)
    x, found = tokens_of(rng, 300, 128), []
    for name in backends.available():
        nv.use(name)
        found.append(Encoder(128, projection_dim=16, fill_empty_partitions=True).encode_documents(x, [0, 100, 300]))
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])
