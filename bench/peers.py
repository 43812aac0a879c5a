"""The libraries that the benchmarks compare, each behind the same four methods.

Every peer gets the settings that make it fastest: nobody wins by a rival's default. All score by inner product.
Thread counts come from the environment of the process (see search.py), as several libraries read it only once.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from math import log2
from pathlib import Path
from statistics import median
from typing import Any

import faiss
import numpy as np

from data import data_folder

BLOCK_ROWS = 16_384
WORTH_KEEPING = 10.0  # seconds: faiss indexes that took longer to build are kept in a file
STALLED = 5  # steps of the same recall, after which no further ones are tried
CHOOSING = 40  # queries that are timed where several settings reach a recall
# these cannot be held to AVX2
BEYOND_AVX2 = {"turbovec2-rerank", "turbovec4", "turbovec4-rerank", "usearch", "usearch-index"}
DEFAULT_BLAS_THRESHOLD = faiss.cvar.distance_compute_blas_threshold

Answer = tuple[np.ndarray, np.ndarray]
Recall = Callable[[np.ndarray], float]


class Peer:
    """build(x) once, then search; scores (nq, k) are inner products, ids (nq, k), -1 where there is no answer."""

    name: str
    nbytes: int | None = None
    build_s: float = 0.0
    knob: Any = None  # the setting in use

    def __init__(self, name: str, threads: int = 1) -> None:
        self.name, self.threads = name, threads

    def build(self, x: np.ndarray, dims: int) -> None:
        """x (n, d) float32; peers that cannot search a prefix index a copy of the leading dims."""
        self._build(x if dims == x.shape[1] else np.ascontiguousarray(x[:, :dims]))

    def _build(self, x: np.ndarray) -> None:
        raise NotImplementedError

    def ladders(self, k: int) -> Iterable[Sequence[Any]]:
        """Settings that trade recall for speed: rows of them, each from the fastest to what finds most.

        Of several each takes longer than the one before, step by step, and may need fewer steps.
        """
        return ()

    def use(self, knob: Any) -> None:
        """Take a setting of the ladders."""
        self.knob = knob

    def tune(self, queries: np.ndarray, k: int, recall: Recall, target: float = 0.99) -> None:
        """Take the fastest setting that finds the target share; recall(ids) is measured on the queries given."""
        found = self.reaching(queries, k, recall, [target])[target]
        if found:
            self.use(self.fastest(found, queries, k))
        if self.knob is not None:
            print(f"{self.name}: {self.knob}")

    def reaching(self, queries: np.ndarray, k: int, recall: Recall, targets: Sequence[float]) -> dict[float, list[Any]]:
        """The first setting of each ladder that reaches each target.

        A ladder ends where steps find nothing more; the last one is that which needs as many steps as the one before.
        """
        found: dict[float, list[Any]] = {target: [] for target in targets}
        before: list[int] = []
        for ladder in self.ladders(k):
            left, shares, steps = sorted(targets), [], []
            for step, knob in enumerate(ladder):
                self.use(knob)
                shares.append(recall(self.search(queries, k)[1]))
                while left and shares[-1] >= left[0]:
                    found[left.pop(0)].append(knob)
                    steps.append(step)
                if not left or (shares[-1] > 0.5 and shares[-STALLED:-1] == [shares[-1]] * (STALLED - 1)):
                    break
            if len(steps) == len(targets) and steps == before:
                break
            before = steps
        return found

    def fastest(self, knobs: Sequence[Any], queries: np.ndarray, k: int, nq: int = 1) -> Any:
        """Of settings the one that takes least for calls of nq queries."""

        def seconds(knob: Any) -> float:
            self.use(knob)
            times = []
            for at in range(CHOOSING if nq == 1 else 3):
                began = time.perf_counter()
                self.search(queries[at : at + 1] if nq == 1 else queries[:nq], k)
                times.append(time.perf_counter() - began)
            return median(times)

        return min(knobs, key=seconds) if len(knobs) > 1 else knobs[0]

    @contextmanager
    def active(self) -> Iterator[None]:
        """Settings of the process that hold only while this peer searches; entered outside the clock."""
        yield

    def search(self, queries: np.ndarray, k: int) -> Answer:
        raise NotImplementedError


def rerank(x: np.ndarray, queries: np.ndarray, shortlist: np.ndarray, k: int) -> Answer:
    """Exact float32 scores of a shortlist (nq, m), by numpy; 32 queries at a time keep the gathered rows in cache."""
    D, I = np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64)
    for start in range(0, len(queries), 32):
        ids = shortlist[start : start + 32].astype(np.int64)
        scores = np.matmul(x[ids], queries[start : start + 32, :, None])[..., 0]
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        D[start : start + 32] = np.take_along_axis(scores, best, 1)
        I[start : start + 32] = np.take_along_axis(ids, best, 1)
    return D, I


class BlockedPeer(Peer):
    """A library that only multiplies matrices; numpy picks the top k, block by block, so any n and nq fit in memory.

    The k-th score of the first rows is a threshold that later blocks are compared with: about 20 times faster than
    argpartition of every score, and the same answer.
    """

    blocks: list[tuple[int, object]]
    block_rows, query_tile = BLOCK_ROWS, 1_024  # what each library was fastest with
    _map: Callable = map

    def _build(self, x: np.ndarray) -> None:
        rows = self.block_rows
        self.blocks = [(a, self._pack(x[a : a + rows])) for a in range(0, len(x), rows)]
        self.nbytes = sum(self._packed_bytes(block) for _, block in self.blocks)

    def _pack(self, x: np.ndarray) -> object:
        return x

    def _packed_bytes(self, block: object) -> int:
        return block.nbytes  # type: ignore[attr-defined]

    def _prepare(self, queries: np.ndarray) -> np.ndarray:
        return queries

    def _scores(self, queries: np.ndarray, block: object) -> np.ndarray:
        raise NotImplementedError

    def search(self, queries: np.ndarray, k: int) -> Answer:
        prepared = self._prepare(queries)
        starts = range(0, len(queries), self.query_tile)
        tiles = [self._search_tile(prepared[a : a + self.query_tile], k) for a in starts]
        D, I = (np.concatenate(part) for part in zip(*tiles, strict=True))
        return D, I

    def _search_tile(self, queries: np.ndarray, k: int) -> Answer:
        seeds = self._scores(queries, self.blocks[0][1])
        threshold = np.partition(seeds, -k, axis=1)[:, -k, None]
        found = [at_least(seeds, threshold, 0)]

        def survivors(block: tuple[int, object]) -> tuple[np.ndarray, ...]:
            return at_least(self._scores(queries, block[1]), threshold, block[0])

        found += self._map(survivors, self.blocks[1:])
        return best_of(found, len(queries), k)


def best_of(found: list[tuple[np.ndarray, ...]], nq: int, k: int) -> Answer:
    """The k best of each query, among triples of query, id and score."""
    query, ids, scores = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.lexsort((ids, -scores, query))
    firsts = np.searchsorted(query[order], np.arange(nq))
    best = order[firsts[:, None] + np.arange(k)]
    return scores[best], ids[best]


def at_least(scores: np.ndarray, threshold: np.ndarray, start: int) -> tuple[np.ndarray, ...]:
    flat = np.flatnonzero(scores >= threshold)
    query, row = np.divmod(flat, scores.shape[1])
    return query, row + start, scores.ravel()[flat]


class Numpy(BlockedPeer):
    def _scores(self, queries: np.ndarray, block: np.ndarray) -> np.ndarray:
        return queries @ block.T


class NumKong(BlockedPeer):
    """Packed matrix products; i8 multiplies int8 codes (AMX where there is one), with or without a float32 rerank."""

    query_tile = 128

    def __init__(self, name: str, threads: int = 1, *, int8: bool = False, shortlist: int = 0) -> None:
        super().__init__(name, threads)
        self.int8, self.shortlist = int8, shortlist
        if threads > 1:  # the library is single-threaded, so blocks are spread over threads here
            self._map = ThreadPoolExecutor(threads).map

    def _build(self, x: np.ndarray) -> None:
        self.x, self.scale = x, np.abs(x).max() / 127
        super()._build(x)
        self.nbytes += x.nbytes if self.shortlist else 0

    def _pack(self, x: np.ndarray) -> object:
        import numkong

        return numkong.dots_pack(_codes(x, self.scale) if self.int8 else x)

    def _prepare(self, queries: np.ndarray) -> np.ndarray:
        self.query_scale = np.abs(queries).max() / 127
        return _codes(queries, self.query_scale) if self.int8 else queries

    def _scores(self, queries: np.ndarray, block: object) -> np.ndarray:
        import numkong

        return np.asarray(numkong.dots_packed(queries, block))

    def search(self, queries: np.ndarray, k: int) -> Answer:
        D, I = super().search(queries, self.shortlist * k // 10 if self.shortlist else k)
        if self.shortlist:
            return rerank(self.x, queries, I, k)
        return (D * (self.scale * self.query_scale), I) if self.int8 else (D, I)


def _codes(x: np.ndarray, scale: float) -> np.ndarray:
    return np.clip(np.rint(x / scale), -127, 127).astype(np.int8)


class Faiss(Peer):
    """Any faiss index; blas_threshold=1 sends every batch to BLAS, which faiss by default does for large ones only.

    Its knobs are parameters as faiss' ParameterSpace reads them. What takes long to build is kept beside the data.
    """

    def __init__(
        self, name: str, threads: int = 1, *, make: Callable[[int, int], faiss.Index], blas_threshold: int | None = None
    ) -> None:
        super().__init__(name, threads)
        self.make, self.blas_threshold = make, blas_threshold or DEFAULT_BLAS_THRESHOLD

    def _build(self, x: np.ndarray) -> None:
        path = self._file(x)
        if path.exists():
            self.index = faiss.read_index(str(path))
            self.nbytes, self.build_s = json.loads(path.with_suffix(".json").read_text())
            return
        began = time.perf_counter()
        self.index = self.make(x.shape[1], len(x))
        if not self.index.is_trained:
            count = max(50_000, POINTS * _lists(len(x)))
            sample = np.random.default_rng(0).choice(len(x), min(len(x), count), replace=False)
            self.index.train(x[np.sort(sample)])
        self.index.add(x)
        self.build_s = time.perf_counter() - began
        self.nbytes = len(faiss.serialize_index(self.index))
        if self.build_s >= WORTH_KEEPING:
            path.parent.mkdir(parents=True, exist_ok=True)
            faiss.write_index(self.index, str(path.with_suffix(".partial")))
            path.with_suffix(".json").write_text(json.dumps([self.nbytes, self.build_s]))
            path.with_suffix(".partial").replace(path)

    def _file(self, x: np.ndarray) -> Path:
        """Where the index of these rows is kept."""
        some = np.ascontiguousarray(x[:: max(1, len(x) // 1000)])
        key = hashlib.sha256(some.tobytes() + repr((x.shape, self.threads, faiss.__version__)).encode()).hexdigest()
        return data_folder() / "indexes" / f"{self.name}-{key[:16]}.faiss"

    def ladders(self, k: int) -> list[list[str]]:
        """The refine stage's k_factor, a graph's efSearch, lists that are probed, or for few k_factors those."""
        refines = isinstance(self.index, faiss.IndexRefine)
        if isinstance(self.index, faiss.IndexHNSW):
            return [[f"efSearch={ef}" for ef in _steps(max(k, 10), 2048)]]
        try:
            lists = faiss.extract_index_ivf(self.index).nlist
        except RuntimeError:
            return [[f"k_factor_rf={factor}" for factor in _steps(1, 512)]] if refines else []
        probes = _steps(1, lists)
        if not refines:
            return [[f"nprobe={n}" for n in probes]]
        return [[f"k_factor_rf={factor},nprobe={n}" for n in probes] for factor in (1, 2, 4, 8, 16, 32)]

    def use(self, knob: str) -> None:
        if knob != self.knob:
            faiss.ParameterSpace().set_index_parameters(self.index, knob)
            self.knob = knob

    @contextmanager
    def active(self) -> Iterator[None]:
        faiss.omp_set_num_threads(self.threads)
        faiss.cvar.distance_compute_blas_threshold = self.blas_threshold
        try:
            yield
        finally:
            faiss.cvar.distance_compute_blas_threshold = DEFAULT_BLAS_THRESHOLD

    def search(self, queries: np.ndarray, k: int) -> Answer:
        return self.index.search(queries, k)


def _steps(low: int, high: int, factor: float = 1.3) -> list[int]:
    """Whole numbers from low to high by about a factor."""
    steps = [low]
    while steps[-1] < high:
        steps.append(min(max(steps[-1] + 1, round(steps[-1] * factor)), high))
    return steps


def _factory(text: str, d: int, n: int) -> faiss.Index:
    """An index as faiss' index_factory makes it, for d dims and n rows."""
    return faiss.index_factory(d, text.format(d=d, quarter=d // 4, lists=_lists(n)), faiss.METRIC_INNER_PRODUCT)


POINTS = 64  # rows that each inverted list is trained on


def _lists(n: int) -> int:
    """Inverted lists for n rows: the power of two near 4 sqrt(n), 4096 for a million."""
    return 2 ** max(4, round(log2(4 * n**0.5)))


class USearch(Peer):
    def _build(self, x: np.ndarray) -> None:
        self.x, self.nbytes = x, x.nbytes

    def search(self, queries: np.ndarray, k: int) -> Answer:
        from usearch.index import MetricKind, search

        matches = search(self.x, queries, k, MetricKind.IP, exact=True, threads=self.threads)
        shape = (len(queries), k)
        return 1 - matches.distances.reshape(shape), matches.keys.reshape(shape).astype(np.int64)


class TurboVec(Peer):
    """4-bit codes, calibrated as its manual advises; the knob of reranked ones is the shortlist, scored in float32."""

    def __init__(self, name: str, threads: int = 1, *, reranked: bool = False, bits: int = 4) -> None:
        super().__init__(name, threads)
        self.reranked, self.bits = reranked, bits

    def _build(self, x: np.ndarray) -> None:
        from turbovec import TurboQuantIndex

        self.x, self.index = x, TurboQuantIndex(x.shape[1], self.bits)
        self.index.calibrate(np.random.default_rng(0).permutation(x)[:1024])
        self.index.add(x)
        self.index.prepare()
        self.nbytes = len(self.index.to_bytes()) + (x.nbytes if self.reranked else 0)

    def ladders(self, k: int) -> list[list[int]]:
        return [_steps(k, min(len(self.x), 300 * k))] if self.reranked else []

    def search(self, queries: np.ndarray, k: int) -> Answer:
        if not self.reranked:
            return self.index.search(queries, k)
        _, shortlist = self.index.search(queries, self.knob)
        return rerank(self.x, queries, shortlist, k)


class NestVec(Peer):
    """The library itself, on one backend; an index of all dims answers every prefix."""

    def __init__(self, name: str, threads: int = 1, *, backend: str, levels: tuple[int, ...]) -> None:
        super().__init__(name, threads)
        self.backend, self.levels = backend, levels

    def build(self, x: np.ndarray, dims: int) -> None:
        nestvec = _nestvec()
        nestvec.use(self.backend)
        self.dims = dims
        self.index = nestvec.NestedIndex(x.shape[1], levels=self.levels, metric="ip")
        self.index.add(x)
        self.nbytes = self.index.memory_usage()

    @contextmanager
    def active(self) -> Iterator[None]:
        _nestvec().use(self.backend)
        yield

    def search(self, queries: np.ndarray, k: int) -> Answer:
        return self.index.search(queries, k, dims=self.dims, threads=self.threads)


class Planned(NestVec):
    """Search by a plan, its shortlists the shortest that find .99 of the true k best of the tuning queries."""

    def __init__(self, name: str, threads: int = 1, *, plan: str, **settings: Any) -> None:
        super().__init__(name, threads, **settings)
        self.shape = PLANS[plan]

    def build(self, x: np.ndarray, dims: int) -> None:
        nestvec = _nestvec()
        nestvec.use(self.backend)
        self.dims = dims
        codes = {code for code, _, _ in self.shape}
        self.index = nestvec.NestedIndex(x.shape[1], levels=self.levels, metric="ip", codes=codes)
        self.index.add(x)
        self.nbytes = self.index.memory_usage()

    def ladders(self, k: int) -> list[list[int]]:
        return [_steps(max(k, 20), max(k, 20, len(self.index) // 40))]

    def plan(self, k: int) -> list:
        nestvec = _nestvec()
        levels = np.asarray(self.index.levels)
        stages = [
            nestvec.Stage(code, int(levels[np.searchsorted(levels, self.dims * share)]), max(k, int(self.knob * more)))
            for code, share, more in self.shape
        ]
        return [*stages, nestvec.Stage("raw")]

    def search(self, queries: np.ndarray, k: int) -> Answer:
        return self.index.search(queries, k, dims=self.dims, plan=self.plan(k), threads=self.threads)


class Tuned(NestVec):
    """Search by the plan that `tune` finds for the tuning queries, whose lower confidence bound reaches the recall."""

    def __init__(
        self,
        name: str,
        threads: int = 1,
        *,
        codes: Sequence[str] = ("b1",),
        transform: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(name, threads, **settings)
        self.codes, self.transform = tuple(codes), transform

    def build(self, x: np.ndarray, dims: int) -> None:
        nestvec = _nestvec()
        nestvec.use(self.backend)
        if self.transform and dims < x.shape[1]:
            raise ValueError("leading dims of rotated vectors are others")
        self.dims = dims
        options = {"transform": nestvec.fit_rotation(x, self.transform)} if self.transform else {}
        self.index = nestvec.NestedIndex(x.shape[1], self.levels, "ip", codes=self.codes, **options)
        self.index.add(x)
        self.nbytes = self.index.memory_usage()

    def reaching(self, queries: np.ndarray, k: int, recall: Recall, targets: Sequence[float]) -> dict[float, list[Any]]:
        options = {"dims": self.dims, "threads": self.threads, "sample": len(queries)}
        return {target: [self.index.tune(queries, k, target, **options)] for target in targets}

    def search(self, queries: np.ndarray, k: int) -> Answer:
        return self.index.search(queries, k, dims=self.dims, plan=self.knob, threads=self.threads)


# stages before the last word: code, share of the dims, and how much longer than the last shortlist this one is
PLANS = {
    "b1": [("b1", 1, 1)],
    "b1-half": [("b1", 0.5, 16), ("b1", 1, 1)],
    "b1-third": [("b1", 1 / 3, 1)],
    "b1-third-b1": [("b1", 1 / 3, 8), ("b1", 1, 1)],
    "i4": [("i4", 1, 1)],
    "i4-half": [("i4", 0.5, 1)],
    "i8-half": [("i8", 0.5, 1)],
}


class Scan64(Peer):
    """The floor of a search that starts with 64 int8 dims: reading those bytes once. It answers nothing."""

    def __init__(self, name: str, threads: int = 1, *, backend: str) -> None:
        super().__init__(name, threads)
        self.sum_bytes = getattr(_nestvec()._core, backend).sum_bytes

    def build(self, x: np.ndarray, dims: int) -> None:
        self.plane = np.random.default_rng(0).integers(0, 255, 64 * len(x), np.uint8)
        self.nbytes = self.plane.nbytes

    def search(self, queries: np.ndarray, k: int) -> Answer:
        self.sum_bytes(self.plane)
        return np.empty((0, k), np.float32), np.empty((0, k), np.int64)


def _nestvec():
    try:
        import nestvec
    except ImportError as error:
        raise ImportError("nestvec is not installed here: pip install . in the repository root") from error
    return nestvec


def limit_to_avx2() -> None:
    """Hold numkong to AVX2, which has no variable for it; the other peers read theirs from the environment."""
    import numkong

    for capability in ("skylake", "icelake", "genoa", "sapphire", "sapphireamx", "graniteamx", "alder"):
        numkong.disable_capability(capability)


PEERS: dict[str, Callable[..., Peer]] = {
    "numpy": Numpy,
    "faiss-flat": partial(Faiss, make=partial(_factory, "Flat")),
    "faiss-flat-blas": partial(Faiss, make=partial(_factory, "Flat"), blas_threshold=1),
    "faiss-panorama8": partial(Faiss, make=lambda d, n: faiss.IndexFlatIPPanorama(d, 8)),
    "faiss-panorama12": partial(Faiss, make=lambda d, n: faiss.IndexFlatIPPanorama(d, 12)),
    "faiss-sq8": partial(Faiss, make=partial(_factory, "SQ8")),
    "faiss-pq64x4fs-refine": partial(Faiss, make=partial(_factory, "PQ64x4fs,Refine(SQfp16)")),
    "usearch": USearch,
    "numkong-f32": NumKong,
    "numkong-i8": partial(NumKong, int8=True),
    "numkong-i8-rerank": partial(NumKong, int8=True, shortlist=30),
    "faiss-rabitq-refine": partial(Faiss, make=partial(_factory, "RR{d},RaBitQ,Refine(Flat)")),
    "faiss-rabitqfs-refine": partial(Faiss, make=partial(_factory, "RR{d},RaBitQfs,Refine(Flat)")),
    "faiss-hnsw32": partial(Faiss, make=partial(_factory, "HNSW32")),
    "faiss-ivf-flat": partial(Faiss, make=partial(_factory, "IVF{lists},Flat")),
    "faiss-ivf-sq8-refine": partial(Faiss, make=partial(_factory, "IVF{lists},SQ8,Refine(Flat)")),
    "faiss-ivf-pq4fs-refine": partial(Faiss, make=partial(_factory, "IVF{lists},PQ{quarter}x4fs,Refine(SQfp16)")),
    "turbovec2-rerank": partial(TurboVec, reranked=True, bits=2),
    "turbovec4": TurboVec,
    "turbovec4-rerank": partial(TurboVec, reranked=True),
}
