"""The libraries that multivector.py compares: encoders, MaxSim kernels and searches, each with its fastest settings.

An encoder or a kernel is a function that gets its data ready and returns the call to be timed. All run on one thread.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import faiss
import numpy as np

from peers import DEFAULT_BLAS_THRESHOLD, Answer, Peer, Recall
from peers import NestVec as NestVecPeer

BLOCK_TOKENS = 4_096  # their scores stay in cache
Call = Callable[[], np.ndarray]


@dataclass(frozen=True)
class Ragged:
    """Bags of vectors: bag i is tokens[offsets[i] : offsets[i + 1]]."""

    tokens: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, bags: slice) -> Ragged:
        first, last, _ = bags.indices(len(self))
        offsets = self.offsets[first : max(first, last) + 1]
        return Ragged(self.tokens[offsets[0] : offsets[-1]], offsets - offsets[0])

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.tokens[a:b] for a, b in zip(self.offsets[:-1], self.offsets[1:], strict=True))

    def of(self, dtype: type) -> Ragged:
        return Ragged(np.ascontiguousarray(self.tokens, dtype), self.offsets)

    def pair(self) -> tuple[np.ndarray, np.ndarray]:
        return self.tokens, self.offsets

    def length(self) -> int | None:
        """Of every bag, if they are equally long."""
        lengths = np.unique(np.diff(self.offsets))
        return int(lengths[0]) if len(lengths) == 1 else None

    def blocks(self, tokens: int = BLOCK_TOKENS) -> Iterator[tuple[int, Ragged]]:
        """Runs of bags of about so many tokens, each with the number of its first bag."""
        first = 0
        while first < len(self):
            last = int(np.searchsorted(self.offsets, self.offsets[first] + tokens, "right")) - 1
            yield first, self[first : max(first + 1, last)]
            first = max(first + 1, last)

    def taken(self, bags: np.ndarray) -> Ragged:
        starts, lengths = self.offsets[bags], np.diff(self.offsets)[bags]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        return Ragged(self.tokens[np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)], offsets)


def maxsim(queries: Ragged, docs: Ragged) -> np.ndarray:
    """Scores (queries, docs), by one product for each block of documents; as exact as the type of the tokens."""
    out = np.empty((len(queries), len(docs)), docs.tokens.dtype)
    for first, block in docs.blocks():
        products = Ragged(block.tokens @ queries.tokens.T, block.offsets)
        if len(queries.tokens) < 64:
            best = np.maximum.reduceat(products.tokens, products.offsets[:-1], axis=0)
        else:  # faster where rows are long
            best = np.stack([product.max(0) for product in products])
        out[:, first : first + len(block)] = np.add.reduceat(best, queries.offsets[:-1], axis=1).T
    return out


def single(bag: np.ndarray) -> Ragged:
    return Ragged(bag, np.array([0, len(bag)]))


# Encoders


@dataclass(frozen=True)
class Setting:
    """Of a fixed dimensional encoding; projection 0 is none, and so is final. Only nestvec's can be fitted."""

    repetitions: int
    bits: int
    projection: int
    final: int = 0
    fitted: bool = False

    @classmethod
    def parse(cls, text: str) -> Setting:
        shape = text.removeprefix("fit").replace("-", "x").split("x")
        return replace(cls(*map(int, shape)), fitted=text.startswith("fit"))

    def __str__(self) -> str:
        shape = f"{'fit' if self.fitted else ''}{self.repetitions}x{self.bits}x{self.projection}"
        return f"{shape}-{self.final}" if self.final else shape


def nestvec_encoder(setting: Setting, docs: Ragged):
    """A fitted one is fitted to the documents."""
    from nestvec import FixedDimensionalEncoder

    make = FixedDimensionalEncoder.fitted if setting.fitted else FixedDimensionalEncoder
    return make(
        docs.tokens if setting.fitted else docs.tokens.shape[1],
        num_repetitions=setting.repetitions,
        num_simhash_projections=setting.bits,
        projection_dim=setting.projection or None,
        final_projection_dim=setting.final or None,
        seed=1,
    )


def encode_nestvec(setting: Setting, bags: Ragged, queries: bool, *, backend: str, batch: bool = True) -> Call:
    import nestvec

    nestvec.use(backend)
    encoder = nestvec_encoder(setting, bags)
    encode = encoder.encode_queries if queries else encoder.encode_documents
    if batch:
        return lambda: encode(*bags.pair(), threads=1)
    parts = list(map(single, bags))
    return lambda: np.concatenate([encode(*part.pair(), threads=1) for part in parts])


def encode_muvfde(setting: Setting, bags: Ragged, queries: bool) -> Call:
    import muvfde

    config = muvfde.fixed_dimensional_encoding_config()  # its setters return a changed copy
    config = config.set_num_repetitions(setting.repetitions).set_num_simhash_projections(setting.bits).set_seed(1)
    config = config.set_encoding_type(getattr(muvfde.encoding_type, "DEFAULT_SUM" if queries else "AVERAGE"))
    if setting.projection:
        config = config.set_projection_type(muvfde.projection_type.AMS_SKETCH)
        config = config.set_projection_dimension(setting.projection)
    if setting.final:
        config = config.set_final_projection_dimension(setting.final)
    arrays = list(bags)
    return lambda: np.stack([muvfde.generate_fixed_dimensional_encoding(array, config) for array in arrays])


def encode_muvera_python(setting: Setting, bags: Ragged, queries: bool, *, batch: bool) -> Call:
    from muvera import Muvera

    encoder = Muvera(
        num_repetitions=setting.repetitions,
        num_simhash_projections=setting.bits,
        dimension=bags.tokens.shape[1],
        projection_type="ams_sketch" if setting.projection else "identity",
        projection_dimension=setting.projection or None,
        fill_empty_partitions=False,
        final_projection_dimension=setting.final or None,
        seed=1,
    )
    encode, arrays = encoder.encode_queries if queries else encoder.encode_documents, list(bags)
    if not batch:
        return lambda: np.stack([encode(array) for array in arrays])
    groups = [arrays[at : at + 64] for at in range(0, len(arrays), 64)]  # its buffers grow with the batch
    return lambda: np.concatenate([encode(group) for group in groups])


def encode_fastembed(setting: Setting, bags: Ragged, queries: bool) -> Call:
    """It has no final projection, and always fills the empty partitions of documents."""
    from fastembed.postprocess import Muvera

    if setting.final:
        raise ValueError("no final projection")
    dims = bags.tokens.shape[1]
    encoder = Muvera(dims, setting.bits, setting.projection or dims, setting.repetitions, random_seed=1)
    encode, arrays = encoder.process_query if queries else encoder.process_document, list(bags)
    return lambda: np.stack([encode(array) for array in arrays])


ENCODERS: dict[str, Callable[[Setting, Ragged, bool], Call]] = {
    "muvfde": encode_muvfde,
    "muvera-python": partial(encode_muvera_python, batch=False),
    "muvera-python-batch": partial(encode_muvera_python, batch=True),
    "fastembed": encode_fastembed,
}


# MaxSim


def maxsim_nestvec(query: np.ndarray, docs: Ragged, *, backend: str, kind: str) -> Call:
    import nestvec

    nestvec.use(backend)
    scales = None
    if kind == "i8":
        scales = np.abs(docs.tokens).max(1) / np.float32(127)
        tokens = np.rint(docs.tokens / scales[:, None]).astype(np.int8)
    else:
        tokens = docs.tokens.astype({"f32": np.float32, "f16": np.float16}[kind])
    return lambda: nestvec.maxsim(query, (tokens, docs.offsets), scales=scales, threads=1)


def maxsim_numpy(query: np.ndarray, docs: Ragged) -> Call:
    return lambda: maxsim(single(query), docs)[0]


def maxsim_numpy_each(query: np.ndarray, docs: Ragged) -> Call:
    arrays = list(docs)
    return lambda: np.array([(array @ query.T).max(0).sum() for array in arrays])


def maxsim_torch(query: np.ndarray, docs: Ragged, *, half: bool = False) -> Call:
    """One product, and a maximum over its rows (of equally long documents: over a middle axis, which is faster)."""
    import torch

    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    q, tokens = (
        torch.from_numpy(array).to(torch.bfloat16 if half else torch.float32) for array in (query, docs.tokens)
    )
    n, m, length = len(docs), len(q), docs.length()
    owners = torch.arange(n).repeat_interleave(torch.from_numpy(np.diff(docs.offsets)))

    def best() -> torch.Tensor:
        if length and half:
            return (q @ tokens.T).view(m, n, length).amax(2).T
        if length:
            return (tokens @ q.T).view(n, length, m).amax(1)
        return torch.full((n, m), -torch.inf, dtype=q.dtype).index_reduce_(0, owners, tokens @ q.T, "amax")

    return lambda: best().float().sum(1).numpy()


def maxsim_cpu(query: np.ndarray, docs: Ragged) -> Call:
    import maxsim_cpu as library

    if length := docs.length():
        array = docs.tokens.reshape(len(docs), length, -1)
        return lambda: library.maxsim_scores(query, array)
    arrays = list(docs)
    return lambda: library.maxsim_scores_variable(query, arrays)


def maxsim_numkong(query: np.ndarray, docs: Ragged, *, kind: str) -> Call:
    """Its sums of smallest angular distances, as cosines; queries are packed within the clock."""
    import numkong

    if kind == "bf16":
        from ml_dtypes import bfloat16 as dtype
    else:
        dtype = {"f32": np.float32, "f16": np.float16}[kind]
    packed = [numkong.maxsim_pack(array.astype(dtype)) for array in docs]
    asked = query.astype(dtype)

    def call() -> np.ndarray:
        q = numkong.maxsim_pack(asked)
        return len(asked) - np.array([numkong.maxsim_packed(q, doc) for doc in packed])

    return call


KERNELS: dict[str, Callable[[np.ndarray, Ragged], Call]] = {
    "numpy": maxsim_numpy,
    "numpy-each": maxsim_numpy_each,
    "torch": maxsim_torch,
    "torch-bf16": partial(maxsim_torch, half=True),
    "maxsim-cpu": maxsim_cpu,
    "numkong-f32": partial(maxsim_numkong, kind="f32"),
    "numkong-f16": partial(maxsim_numkong, kind="f16"),
    "numkong-bf16": partial(maxsim_numkong, kind="bf16"),
}


# Searches: x and queries are Ragged


def top(scores: np.ndarray, k: int) -> Answer:
    """The k best columns of each row, descending."""
    found = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    found = np.take_along_axis(found, np.argsort(-np.take_along_axis(scores, found, 1), axis=1, kind="stable"), 1)
    return np.take_along_axis(scores, found, 1), found


class Exact(Peer):
    """numpy, every document; 32 queries at a time keep their scores in cache."""

    def build(self, x: Ragged, dims: int) -> None:
        self.docs = x.of(np.float32)
        self.nbytes = self.docs.tokens.nbytes

    def search(self, queries: Ragged, k: int) -> Answer:
        found = [top(maxsim(queries[at : at + 32], self.docs), k) for at in range(0, len(queries), 32)]
        D, I = (np.concatenate(part) for part in zip(*found, strict=True))
        return D, I


class SingleVectors(Peer):
    """Nearest tokens of every query token, by faiss, and exact scores of the documents that these belong to."""

    def __init__(self, name: str, threads: int = 1, *, make: Callable[[int], faiss.Index]) -> None:
        super().__init__(name, threads)
        self.make, self.knob = make, 0

    def build(self, x: Ragged, dims: int) -> None:
        self.docs = x.of(np.float32)
        self.owners = np.repeat(np.arange(len(x)), np.diff(x.offsets))
        self.index = self.make(dims)
        if not self.index.is_trained:
            self.index.train(self.docs.tokens[:: max(1, len(self.docs.tokens) // 100_000)])
        self.index.add(self.docs.tokens)
        self.nbytes = self.docs.tokens.nbytes + self.owners.nbytes + len(faiss.serialize_index(self.index))

    def tune(self, queries: Ragged, k: int, recall: Recall) -> None:
        for self.knob in (2, 5, 10, 20, 50, 100, 150, 200, 300, 500, 700, 1000):
            if isinstance(self.index, faiss.IndexHNSW):
                self.index.hnsw.efSearch = max(16, self.knob)
            if recall(self.search(queries, k)[1]) >= 0.99:
                break
        print(f"{self.name}: {self.knob} tokens near each query token")

    @contextmanager
    def active(self) -> Iterator[None]:
        """BLAS for single queries too: they have enough tokens."""
        faiss.cvar.distance_compute_blas_threshold = 1
        try:
            yield
        finally:
            faiss.cvar.distance_compute_blas_threshold = DEFAULT_BLAS_THRESHOLD

    def search(self, queries: Ragged, k: int) -> Answer:
        D, I = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1)
        nearest = self.index.search(queries.tokens, self.knob)[1]
        for row, (query, tokens) in enumerate(zip(queries, Ragged(nearest, queries.offsets), strict=True)):
            candidates = np.unique(self.owners[tokens[tokens >= 0]])
            scores = maxsim(single(query), self.docs.taken(candidates))
            count = min(k, len(candidates))
            D[row, :count], best = (part[0] for part in top(scores, count))
            I[row, :count] = candidates[best]
        return D, I


class FastPlaid(Peer):
    """4-bit residuals of centroids, searched on the CPU; one query at a time is no slower than many."""

    def build(self, x: Ragged, dims: int) -> None:
        import torch
        from fast_plaid import search

        torch.set_num_threads(1)
        self.folder = tempfile.TemporaryDirectory()
        self.index = search.FastPlaid(index=self.folder.name, device="cpu")
        self.index.create(documents_embeddings=[torch.from_numpy(doc) for doc in x.of(np.float32)])
        self.nbytes = sum(file.stat().st_size for file in Path(self.folder.name).rglob("*"))

    def tune(self, queries: Ragged, k: int, recall: Recall) -> None:
        """The fewest full scores that find .99 of what the most do; more of the inverted lists find no more."""
        self.knob = 4096
        most = recall(self.search(queries, k)[1])
        for self.knob in (64, 128, 256, 512, 1024, 2048, 4096):
            if recall(self.search(queries, k)[1]) >= 0.99 * most:
                break
        print(f"{self.name}: {self.knob} full scores")

    def search(self, queries: Ragged, k: int) -> Answer:
        import torch

        options = {"top_k": k, "n_full_scores": self.knob, "n_ivf_probe": 4, "show_progress": False}
        tensors = [torch.from_numpy(query)[None] for query in queries]
        found = [self.index.search(queries_embeddings=tensor, **options)[0] for tensor in tensors]
        padded = np.array([(row + [(-1, -np.inf)] * k)[:k] for row in found])
        return padded[..., 1].astype(np.float32), padded[..., 0].astype(np.int64)


class Shared:
    """One nestvec index for all its peers: encodings and tokens are the same on every backend."""

    def __init__(self, setting: Setting, backend: str) -> None:
        self.setting, self.backend, self.index = setting, backend, None

    def built(self, x: Ragged, dims: int):
        if self.index is None:
            import nestvec

            nestvec.use(self.backend)
            began = time.perf_counter()
            index = nestvec.MultiVectorIndex(nestvec_encoder(self.setting, x), tokens="f16")
            index.add(x.pair())
            self.index, self.build_s = index, time.perf_counter() - began
        return self.index


class NestVec(NestVecPeer):
    """Exact search, or a shortlist of so many candidates, of 0 the fewest that find .99 of the true k best."""

    def __init__(self, name: str, threads: int = 1, *, backend: str, shared: Shared, candidates: int | None) -> None:
        super().__init__(name, threads, backend=backend, levels=())
        self.shared, self.knob = shared, candidates

    def build(self, x: Ragged, dims: int) -> None:
        self.index = self.shared.built(x, dims)
        self.nbytes = self.index.memory_usage()

    def tune(self, queries: Ragged, k: int, recall: Recall) -> None:
        if self.knob is None or self.knob:
            return
        self.knob = 2 * k
        while recall(self.search(queries, k)[1]) < 0.99 and self.knob < len(self.index) // 2:
            self.knob = int(self.knob * 1.25) + 1
        print(f"{self.name}: {self.knob} candidates")

    def search(self, queries: Ragged, k: int) -> Answer:
        options = {"exact": True} if self.knob is None else {"candidates": self.knob}
        return self.index.search(queries.pair(), k, threads=self.threads, **options)


def _hnsw(dims: int) -> faiss.Index:
    return faiss.IndexHNSWFlat(dims, 16, faiss.METRIC_INNER_PRODUCT)


SEARCHES: dict[str, Callable[..., Peer]] = {
    "numpy": Exact,
    "sv-flat": partial(SingleVectors, make=faiss.IndexFlatIP),
    "sv-hnsw": partial(SingleVectors, make=_hnsw),
    "fast-plaid": FastPlaid,
}
