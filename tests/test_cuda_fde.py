"""Fixed dimensional encodings on a GPU: the bits of the CPU's."""

from __future__ import annotations

import pickle
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

import nestvec as nv
from inputs import KINDS, values
from nestvec import backends
from nestvec.cuda import encoding
from nestvec.cuda.encoding import CudaEncoder, sketch
from token_cases import TOKENS

Encoder = nv.FixedDimensionalEncoder
LENGTHS = [3, 0, 1, 17, 0, 33, 70]

# dim, repetitions, k, projection_dim, final_projection_dim
SHAPES = [
    (1, 1, 0, None, None), (1, 2, 5, 1, 1), (7, 20, 1, None, None), (15, 20, 5, 16, None), (16, 2, 6, 1, 33),
    (17, 1, 5, 8, None), (63, 2, 5, None, 100), (64, 33, 5, 8, None), (65, 2, 0, 16, None), (100, 20, 6, 8, None),
    (128, 20, 5, 16, None), (128, 1, 7, None, None), (33, 3, 9, 2, 64), (40, 40, 7, 3, None),
]  # fmt: skip


def some_bags(rng: np.random.Generator, d: int, lengths: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of ordinary and of extreme size, zeros and copies among them, and their offsets."""
    offsets = np.cumsum([0, *lengths])
    x = rng.standard_normal((offsets[-1], d), np.float32)
    x[3::7] *= np.float32(1e-38)
    x[4::7] *= np.float32(1e30)
    x[5::7] = 0
    x[6::14] = x[0]
    return x, offsets


def same(found: np.ndarray, wanted: np.ndarray) -> None:
    """Every bit, but those of NaN."""
    np.testing.assert_array_equal(found, wanted)
    there = ~np.isnan(wanted)
    np.testing.assert_array_equal(found.view(np.uint32)[there], wanted.view(np.uint32)[there])


@pytest.mark.parametrize("fill", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_encodings(device: Any, rng: np.random.Generator, shape: Any, fill: bool) -> None:
    d, repetitions, k, width, final = shape
    encoder = Encoder(
        d, num_repetitions=repetitions, num_simhash_projections=k, projection_dim=width, final_projection_dim=final,
        fill_empty_partitions=fill,
    )  # fmt: skip
    there = CudaEncoder(encoder, device)
    some = [n for n in LENGTHS if n]
    documents, queries = some_bags(rng, d, some if fill else LENGTHS), some_bags(rng, d, some)
    with np.errstate(all="ignore"):
        same(there.encode_documents(documents), encoder.encode_documents(documents))
        same(there.encode_queries(queries), encoder.encode_queries(queries))


@pytest.mark.parametrize("shape", [s for s in SHAPES if s[0] not in (1, 65)], ids=str)
def test_fitted_encodings(device: Any, rng: np.random.Generator, shape: Any) -> None:
    d, repetitions, k, width, final = shape
    sample = rng.standard_normal((300, d)).astype(np.float32) * np.geomspace(1, 0.1, d, dtype=np.float32) + 1
    encoder = Encoder.fitted(
        sample, num_repetitions=repetitions, num_simhash_projections=k, projection_dim=width,
        final_projection_dim=final,
    )  # fmt: skip
    there = CudaEncoder(encoder, device)
    x, offsets = some_bags(rng, d, LENGTHS)
    x[::2] = sample[: len(x[::2])]
    x[5] = encoder.fit.mean  # type: ignore[union-attr]
    same(there.encode_documents(x, offsets), encoder.encode_documents(x, offsets))
    kept = np.flatnonzero(np.diff(offsets, prepend=-1))
    same(there.encode_queries(x, offsets[kept]), encoder.encode_queries(x, offsets[kept]))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "d"), [(65, 1), (130, 17), (64, 100), (1, 768)])
def test_signs_of_awkward_values(device: Any, rng: np.random.Generator, kind: str, n: int, d: int) -> None:
    encoder = Encoder(d, num_repetitions=17, num_simhash_projections=5)
    x = values(rng, kind, n, d)
    x[::2, : d // 2] = 0
    np.testing.assert_array_equal(CudaEncoder(encoder, device).partitions(x), encoder.partitions(x))


@pytest.mark.parametrize("k", [2, 7])
def test_signs_that_only_float64_decides(device: Any, rng: np.random.Generator, k: int) -> None:
    """Tokens across a plane: their products are rounding errors, or exactly zero."""
    encoder = Encoder(20, num_repetitions=18, num_simhash_projections=k)
    planes = encoder._tables.gaussians
    x = rng.standard_normal((150, 20))
    across = planes[rng.integers(0, len(planes), 150)]
    x -= across * ((x * across).sum(axis=1) / (across * across).sum(axis=1))[:, None]
    x[::3] = 0
    x[np.arange(0, 150, 3), 0], x[np.arange(0, 150, 3), 1] = across[::3, 1], -across[::3, 0]
    x = x.astype(np.float32)
    assert (abs(x[::3].astype(np.float64) @ planes.T) == 0).any(axis=1).all()
    np.testing.assert_array_equal(CudaEncoder(encoder, device).partitions(x), encoder.partitions(x))


def on_device(device: Any, name: str, arguments: dict[str, Any]) -> np.ndarray:
    """What a kernel makes of the arguments of its twin on the CPU."""
    native, put = device.native, device.put
    x, n, d = put(arguments["x"]), *arguments["x"].shape
    if name == "project_tokens":
        out = device.empty(arguments["out"].shape, np.float32)
        native.project_tokens(x.buffer, n, d, put(arguments["panels"]).buffer, len(arguments["panels"]), out.buffer, 0)
        return out.numpy()
    final, offsets = arguments["final"], put(arguments["offsets"])
    rows, columns = arguments["out"].shape
    bags = native.FdeBags(offsets.buffer, 0, rows, 0, n)
    size = len(final) or columns
    out, made = device.empty((rows, columns), np.float32), device.empty((rows, size), np.float32)
    k = arguments["k"]
    if name == "encode_bags":
        ams, partitions = arguments["ams"], arguments["partitions"]
        repetitions = partitions.shape[1]
        width = size // (repetitions << k)
        native.encode_bags(
            bags, native.FdeShape(repetitions, k, width), x.buffer, 0, d, put(partitions).buffer,
            sketch(device, ams, width) if len(ams) else None, arguments["mode"], arguments["fill"], 232448, made.buffer,
            0, 0,
        )  # fmt: skip
    else:
        projected, shift = arguments["projected"], arguments["shift"]
        repetitions = arguments["repetitions"]
        native.encode_probes(
            bags, native.FdeShape(repetitions, k, size // (repetitions << k)), x.buffer, d, put(projected).buffer,
            projected.shape[1], len(shift), put(shift).buffer, 232448, made.buffer, 0, 0,
        )  # fmt: skip
    if len(final):
        native.sketch_rows(made.buffer, rows, size, sketch(device, final[None], columns), out.buffer, 0, 0)
        return out.numpy()
    return made.numpy()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["encode_bags", "project_tokens", "encode_probes"])
def test_kernels(device: Any, rng: np.random.Generator, name: str, kind: str) -> None:
    """Arguments that no encoder makes: any mode, partitions and values."""
    for n, d in ((0, 16), (65, 7), (40, 65), (65, 100), (1, 33)):
        arguments = TOKENS[name](rng, n, d, kind)
        with np.errstate(all="ignore"):
            getattr(backends.current(), name)(*arguments.values())
        same(on_device(device, name, arguments), arguments["out"])


@pytest.mark.parametrize("shared", [4096, 30_000, 232448])
@pytest.mark.parametrize("width", [None, 8])
def test_any_shared_memory(device: Any, rng: np.random.Generator, width: int | None, shared: int) -> None:
    """Blocks and tokens outside of it, where there is no room."""
    encoder = Encoder(130, num_repetitions=6, projection_dim=width, fill_empty_partitions=True)
    fitted = Encoder.fitted(rng.standard_normal((60, 130)), num_repetitions=6, projection_dim=width)
    bags = some_bags(rng, 130, [1, 40, 20])
    for one in (encoder, fitted):
        there = CudaEncoder(one, device)
        there._there.shared = shared
        same(there.encode_documents(bags), one.encode_documents(bags))
        same(there.encode_queries(bags), one.encode_queries(bags))


@pytest.mark.parametrize("final", [None, 50])
@pytest.mark.parametrize("fit", [False, True])
@pytest.mark.parametrize("some", [1, 3000, 1 << 26])
def test_passes(
    device: Any, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, some: int, fit: bool, final: int | None
) -> None:
    """From the host and from the device, in one pass or in many."""
    monkeypatch.setattr(encoding, "PASS_VALUES", some)
    x, offsets = some_bags(rng, 24, [5, 1, 40, 0, 17, 2, 60])
    more: dict[str, Any] = {"num_repetitions": 3, "projection_dim": 8, "final_projection_dim": final}
    encoder = Encoder.fitted(x[:40], **more) if fit else Encoder(24, **more)
    there = CudaEncoder(encoder, device)
    wanted = encoder.encode_documents(x, offsets)
    same(there.encode_documents(x, offsets), wanted)
    made = there.encode_on_device(device.put(x), device.put(offsets), "documents")
    assert made.shape == wanted.shape
    same(made.numpy(), wanted)
    some_offsets = np.delete(offsets, 3)
    made = there.encode_on_device(device.put(x), device.put(some_offsets), "queries")
    same(made.numpy(), encoder.encode_queries(x, some_offsets))
    assert there.encode_on_device(device.put(x[:0]), device.put(offsets[:1]), "queries").shape == (0, encoder.fde_dim)


@pytest.mark.parametrize("fit", [False, True])
def test_all_that_an_encoder_does(device: Any, rng: np.random.Generator, fit: bool) -> None:
    """Any form of tokens, scales, sparse queries, half results, `out`, and reports."""
    x = rng.standard_normal((50, 12), np.float32)
    encoder = Encoder.fitted(x, num_repetitions=4) if fit else Encoder(12, num_repetitions=4, projection_dim=16)
    there = encoder.to(device.name)
    assert isinstance(there, CudaEncoder)
    assert there.fingerprint() == encoder.fingerprint()
    scales = rng.uniform(0, 1, 50).astype(np.float32)
    for form in (x, [x[:7], x[7:]], x.reshape(5, 10, 12), (x.astype(np.float16), [0, 0, 50])):
        same(there.encode_documents(form), encoder.encode_documents(form))
    same(there.encode_queries(x, [0, 7, 50], scales=scales), encoder.encode_queries(x, [0, 7, 50], scales=scales))
    for a, b in zip(*(e.encode_queries(x, [0, 1, 50], sparse=True) for e in (there, encoder)), strict=True):
        np.testing.assert_array_equal(a, b)
    for out in (np.empty(encoder.fde_dim, np.float16), np.empty((2, 9999), np.float32)[:, : encoder.fde_dim]):
        offsets = [0, 20, 50] if out.ndim == 2 else None
        assert there.encode_documents(x, offsets, out=out, dtype=out.dtype.name) is out
        np.testing.assert_array_equal(out, encoder.encode_documents(x, offsets, dtype=out.dtype.name))
    np.testing.assert_array_equal(there.partitions(x), encoder.partitions(x))
    assert str(there.occupancy(x)) == str(encoder.occupancy(x))
    copied = pickle.loads(pickle.dumps(there))
    assert copied == there
    same(copied.encode_queries(x), encoder.encode_queries(x))


def test_an_index_may_have_one(device: Any, rng: np.random.Generator) -> None:
    x = rng.standard_normal((60, 16), np.float32)
    encoder, found = Encoder(16, num_repetitions=3, projection_dim=8), []
    for one in (encoder, encoder.to(device.name)):
        index = nv.MultiVectorIndex(one)
        index.add(x.reshape(12, 5, 16))
        found.append(index.search(x[:8].reshape(2, 4, 16), 3))
    for a, b in pairwise(found):
        np.testing.assert_array_equal(a, b)


def test_errors(device: Any, rng: np.random.Generator) -> None:
    x = rng.standard_normal((20, 6), np.float32)
    there = CudaEncoder(Encoder(6), device)
    fitted = CudaEncoder(Encoder.fitted((x / 10 + 1) * np.float32(1e38)), device)
    far = np.where((np.arange(20) == 5)[:, None] & (np.arange(6) == 1), np.float32(-3e38), x)
    for encode in (fitted.encode_documents, fitted.encode_queries):
        with pytest.raises(ValueError, match="tokens less their mean holds -inf at row 5, column 1"):
            encode(far)
    with pytest.raises(ValueError, match="tokens holds nan at row 7, column 2"):
        there.encode_documents(np.where((np.arange(20) == 7)[:, None] & (np.arange(6) == 2), np.nan, x))
    with pytest.raises(ValueError, match="query 1 has no tokens"):
        there.encode_queries(x, [0, 20, 20])
    with pytest.raises(ValueError, match=r"tokens must be \(N, 6\) float32, got \(20, 5\) float32"):
        there.encode_on_device(device.put(x[:, :5]), device.put(np.array([0, 20])), "documents")
    with pytest.raises(ValueError, match=r"offsets must be \(n \+ 1,\) int64, got \(2,\) int32"):
        there.encode_on_device(device.put(x), device.put(np.int32([0, 20])), "documents")
    with pytest.raises(ValueError, match="kind must be one of"):
        there.encode_on_device(device.put(x), device.put(np.array([0, 20])), "both")
    with pytest.raises(ValueError, match="threads must be at least 1"):
        there.encode_documents(x, threads=0)


def test_no_memory(device: Any, rng: np.random.Generator) -> None:
    if not device.native.emulated:
        pytest.skip("how much memory there is can be said of an emulated device only")
    there = CudaEncoder(Encoder(8), device)
    try:
        device.native.limit_memory(10_000)
        with pytest.raises(MemoryError, match="needed 20480 bytes, free 10000"):
            there.encode_documents(rng.standard_normal((20, 8), np.float32))
    finally:
        device.native.limit_memory(1 << 34)
