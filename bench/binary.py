"""Speed of exact Hamming top-k: nestvec and its peers, in interleaved runs; results go to bench/results/NAME.json.

    python bench/binary.py --name binary --backends avx512 avx2
    python bench/binary.py --name binary-avx2 --avx2 --backends avx2
    python bench/binary.py --name binary-real --data pkg_wordllama --backends avx512

Turns, processes and rows are those of search.py. Codes are random, or the signs of a real set's values less their mean;
a real set is never tiled, only cut to prefixes. All peers are exact. In every turn the answers to all single queries,
and to the leading and 16 more of a batch, must have the k smallest distances that numpy's popcount finds; if one has
not, the results are still written, and the script ends with status 1.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial

import faiss
import numpy as np

import search
from data import BUILDERS, load
from peers import BEYOND_AVX2, BLOCK_ROWS, Answer, BlockedPeer, NestVec, Peer, Scan64, at_least, best_of

BITS = (128, 256, 512, 1024, 2048, 4096)
NESTED_BITS = 1024  # what random codes have at least, so that there are prefixes to search
RANDOM_ROWS = 1_000_000
SPREAD = 16  # queries of the largest batch that are judged beside the leading ones
FAISS_ROWS = faiss.cvar.hamming_batch_size
NOWHERE = 1 << 40  # the distance of a row that does not exist, or was answered before


# Data


def random_codes(bits: int, n: int, nq: int) -> tuple[np.ndarray, np.ndarray]:
    width = max(bits, NESTED_BITS)
    rng = np.random.default_rng([0, width])
    return tuple(rng.integers(0, 256, (count, width // 8), np.uint8) for count in (n, nq))  # type: ignore[return-value]


@lru_cache(maxsize=1)
def sign_codes(name: str, n: int | None, nq: int) -> tuple[np.ndarray, np.ndarray]:
    dataset = load(name, n=n)
    if nq > len(dataset.queries):
        raise ValueError(f"{name} has {len(dataset.queries)} queries, {nq} are needed")
    mean = dataset.docs.mean(0, dtype=np.float64)
    blocks = [dataset.docs[at : at + BLOCK_ROWS] for at in range(0, len(dataset.docs), BLOCK_ROWS)]
    codes = np.concatenate([np.packbits(block > mean, axis=1) for block in blocks])
    return codes, np.packbits(dataset.queries[:nq] > mean, axis=1)


def load_codes(name: str, bits: int, n: int | None, nq: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes and queries of at least so many bits, or of all there are."""
    return random_codes(bits, n or RANDOM_ROWS, nq) if name == "random" else sign_codes(name, n, nq)


def widths(name: str, args: argparse.Namespace) -> list[int]:
    """Bits to search: as asked; else a round number of them, and of a real set also all."""
    if args.bits or name == "random":
        return args.bits or list(BITS)
    d = load(name, n=args.n).docs.shape[1]
    return [bits for bits in BITS if bits < d] + [d]


# Truth


def words(codes: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(codes).view(np.uint64)


class Judge:
    """Recall and distance error of answers to the queries `known`, whose nearest rows numpy's popcount found."""

    every_turn = True

    def __init__(self, codes: np.ndarray, queries: np.ndarray, known: set[int], k: int) -> None:
        self.words, self.queries, self.k = words(codes), words(queries), k
        self.truth = {query: self._nearest(query) for query in sorted(known)}

    def _distances(self, rows: np.ndarray | slice, query: int) -> np.ndarray:
        return np.bitwise_count(self.words[rows] ^ self.queries[query]).sum(axis=1, dtype=np.int64)

    def _nearest(self, query: int) -> np.ndarray:
        starts = range(0, len(self.words), BLOCK_ROWS)
        distances = np.concatenate([self._distances(slice(at, at + BLOCK_ROWS), query) for at in starts])
        return np.sort(np.partition(distances, self.k - 1)[: self.k])

    def _answered(self, ids: np.ndarray, query: int) -> np.ndarray:
        out = np.full(len(ids), NOWHERE)
        unique, at = np.unique(ids, return_index=True)
        real = (unique >= 0) & (unique < len(self.words))
        out[at[real]] = self._distances(unique[real], query)
        return out

    def recall(self, ids: np.ndarray, first: int = 0) -> float:
        k = ids.shape[1]
        judged = [(row, first + row) for row in range(len(ids)) if first + row in self.truth]
        return float(np.mean([self._answered(ids[row], query) <= self.truth[query][k - 1] for row, query in judged]))

    def error(self, D: np.ndarray, I: np.ndarray, first: int) -> float:
        """The largest deviation of a reported distance, or of that of the row reported, from the true one there."""
        worst = 0.0
        for row in range(len(I)):
            if (true := self.truth.get(first + row)) is not None:
                both = np.nan_to_num([D[row], self._answered(I[row], first + row)], nan=NOWHERE)
                worst = max(worst, float(np.abs(both - true[: I.shape[1]]).max()))
        return worst


# Peers


class BinaryPeer(Peer):
    """build takes packed codes; D of search are distances, ascending."""

    def build(self, x: np.ndarray, dims: int) -> None:
        self._build(np.ascontiguousarray(x[:, : dims // 8]))


class Nested(NestVec):
    """The library itself: an index of the bits searched, or with `prefix` one of all bits that there are."""

    def __init__(self, name: str, threads: int = 1, *, prefix: bool = False, **options) -> None:
        super().__init__(name, threads, **options)
        self.prefix = prefix

    def build(self, x: np.ndarray, dims: int) -> None:
        import nestvec

        nestvec.use(self.backend)
        self.dims, width = dims, x.shape[1] * 8 if self.prefix else dims
        levels = [level for level in self.levels if level < width] or None
        self.index = nestvec.BinaryIndex(width, levels=levels)
        self.index.add(np.ascontiguousarray(x[:, : width // 8]))
        self.nbytes = self.index.memory_usage()

    def search(self, queries: np.ndarray, k: int) -> Answer:
        if self.prefix:  # codes of all bits are wanted, whatever those beyond the prefix are
            whole = np.zeros((len(queries), self.index.bits // 8), np.uint8)
            whole[:, : queries.shape[1]] = queries
            queries = whole
        return self.index.search(queries, k, bits=self.dims, threads=self.threads)


class Faiss(BinaryPeer):
    """Top-k by a heap or by counting, as it comes or tuned.

    Batches are up to 1.5 times faster in blocks of rows that stay in cache than in its default ones. Several threads
    wait for each other after every block, so for those, as for single queries, the default is best.
    """

    def __init__(self, name: str, threads: int = 1, *, heap: bool, tuned: bool = False) -> None:
        super().__init__(name, threads)
        self.heap, self.tuned = heap, tuned

    def _build(self, x: np.ndarray) -> None:
        self.index = faiss.IndexBinaryFlat(x.shape[1] * 8)
        self.index.use_heap = self.heap
        self.index.add(x)
        self.nbytes, self.rows = x.nbytes, FAISS_ROWS
        if self.tuned:
            self.index.query_batch_size = 256
            self.rows = max(256, min(1024, (1 << 18) // self.index.d)) if self.threads == 1 else FAISS_ROWS

    def search(self, queries: np.ndarray, k: int) -> Answer:
        faiss.omp_set_num_threads(self.threads)
        faiss.cvar.hamming_batch_size = FAISS_ROWS if len(queries) == 1 else self.rows
        return self.index.search(queries, k)


class USearch(BinaryPeer):
    """Its search function on arrays."""

    def _build(self, x: np.ndarray) -> None:
        self.x, self.nbytes = x, x.nbytes

    def _matches(self, queries: np.ndarray, k: int):
        from usearch.index import MetricKind
        from usearch.index import search as exact_search

        return exact_search(self.x, queries, k, MetricKind.Hamming, exact=True, threads=self.threads, dtype="b1")

    def search(self, queries: np.ndarray, k: int) -> Answer:
        matches, shape = self._matches(queries, k), (len(queries), k)
        return matches.distances.reshape(shape), matches.keys.reshape(shape).astype(np.int64)


class USearchIndex(USearch):
    """Exact search of its index, with as little of a graph as can be: several times faster for single queries."""

    def _build(self, x: np.ndarray) -> None:
        from usearch.index import Index, MetricKind

        bits = x.shape[1] * 8
        self.index = Index(ndim=bits, metric=MetricKind.Hamming, dtype="b1", connectivity=2, expansion_add=1)
        self.index.add(np.arange(len(x)), x, threads=self.threads)
        self.nbytes = self.index.memory_usage

    def _matches(self, queries: np.ndarray, k: int):
        return self.index.search(queries, k, exact=True, threads=self.threads)


class NumKong(BlockedPeer, BinaryPeer):
    """Packed Hamming distances, of complements: bits that agree, so that more is better as the base class wants it."""

    block_rows, query_tile = 4_096, 128

    def __init__(self, name: str, threads: int = 1) -> None:
        super().__init__(name, threads)
        if threads > 1:  # the library is single-threaded, so blocks are spread over threads here
            self._map = ThreadPoolExecutor(threads).map

    def _pack(self, x: np.ndarray) -> object:
        import numkong

        return numkong.hammings_pack(~x)

    def _scores(self, queries: np.ndarray, block: object) -> np.ndarray:
        import numkong

        return np.asarray(numkong.hammings_packed(queries, block)).view(np.int32)

    def _survivors(self, queries: np.ndarray, threshold: np.ndarray, block: tuple[int, object]) -> tuple:
        return at_least(self._scores(queries, block[1]), threshold, block[0])

    def _search_tile(self, queries: np.ndarray, k: int) -> Answer:
        """The threshold is raised whenever the rows seen have doubled: a third faster at k = 100."""
        seeds, nq, seen = self._scores(queries, self.blocks[0][1]), len(queries), 1
        D, I = best_of([at_least(seeds, np.partition(seeds, -k, axis=1)[:, -k, None], 0)], nq, k)
        while seen < len(self.blocks):
            found = self._map(partial(self._survivors, queries, D[:, -1:]), self.blocks[seen : 2 * seen])
            D, I = best_of([(np.arange(nq).repeat(k), I.ravel(), D.ravel()), *found], nq, k)
            seen *= 2
        return D, I

    def search(self, queries: np.ndarray, k: int) -> Answer:
        D, I = super().search(queries, k)
        return queries.shape[1] * 8 - D, I


class Scan(Scan64):
    """The floor of a single query: reading every code once. It answers nothing."""

    def build(self, x: np.ndarray, dims: int) -> None:
        self.plane = x[:, : dims // 8].flatten()
        self.nbytes = self.plane.nbytes


PEERS = {
    "faiss-heap": partial(Faiss, heap=True),
    "faiss-count": partial(Faiss, heap=False),
    "faiss-heap-tuned": partial(Faiss, heap=True, tuned=True),
    "faiss-count-tuned": partial(Faiss, heap=False, tuned=True),
    "usearch": USearch,
    "usearch-index": USearchIndex,
    "numkong": NumKong,
}


# Measurement


def make_peers(args: argparse.Namespace, codes: np.ndarray, bits: int) -> list[Peer]:
    names = [name for name in args.peers or PEERS if not (args.avx2 and name in BEYOND_AVX2)]
    makers = {name: PEERS[name] for name in names}
    for backend in args.backends:
        ours = partial(Nested, backend=backend, levels=tuple(args.levels))
        makers[f"nestvec-{backend}"] = ours
        if bits < codes.shape[1] * 8:
            makers[f"nestvec-prefix-{backend}"] = partial(ours, prefix=True)
        if args.threads == [1]:
            makers[f"scan-{backend}"] = partial(Scan, backend=backend)
    return search.build_peers(makers, args.threads[0], codes, bits)


def measure(args: argparse.Namespace) -> list[dict]:
    """Rows of every data set and number of bits."""
    rows = []
    for name in args.data:
        for bits in widths(name, args):
            rows += measure_bits(args, name, bits)
    return rows


def measure_bits(args: argparse.Namespace, name: str, bits: int) -> list[dict]:
    singles = (args.repeats + 1) * search.SINGLES if 1 in args.nq else 0
    codes, queries = load_codes(name, bits, args.n, max(*args.nq, singles))
    width = codes.shape[1] * 8
    if bits > width or bits % 64:
        print(f"left out {bits} bits of {name}: no multiple of 64, or more than its {width}")
        return []
    print(f"== {name} {len(codes)} x {bits} bits")
    queries = np.ascontiguousarray(queries[:, : bits // 8])
    known = {*range(singles), *np.linspace(0, max(args.nq) - 1, SPREAD).astype(int).tolist()}
    judge = Judge(codes[:, : bits // 8], queries, known, max(args.k))
    peers = make_peers(args, codes, bits)
    shape = {"data": name, "n": len(codes), "d": width, "dims": bits, "bits": bits, "threads": args.threads[0]}
    shape["simd"] = "avx2" if args.avx2 else "native"
    return [shape | row for k in args.k for row in search.run_k(peers, judge, queries, k, args)]


def main() -> None:
    parser = search.common_parser(__doc__, ["random", *BUILDERS])
    parser.set_defaults(name="binary", data=["random"], nq=[1, 16, 256])
    parser.add_argument("--bits", nargs="+", type=int, help=f"default: those of {BITS} there are, and a real set's d")
    parser.add_argument("--levels", nargs="*", type=int, default=[], help="nestvec's, in bits; default: its own")
    args = parser.parse_args()
    rows = search.run(args, measure)
    wrong = sorted({row["peer"] for row in rows if row.get("max_score_error", 0) != 0})
    if wrong and not args.child:
        sys.exit(f"wrong answers: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
