"""Encoding, MaxSim and search of texts with many vectors: nestvec and its peers, in interleaved runs on one thread.

    python bench/multivector.py encode --backends amx avx512 avx2 numba
    python bench/multivector.py maxsim --backends amx avx512 avx2 numba
    python bench/multivector.py search --backends amx avx512 --nq 1 32
    python bench/multivector.py curves --backends amx          # exact top 10 among the first candidates of encodings
    python bench/multivector.py compression --backends avx512  # 1-bit codes of encodings beside product quantisation
    python bench/multivector.py crossing --backends amx        # from how many documents a shortlist is faster

Turns, processes and files are those of search.py. Recall counts documents whose exact score reaches the true k-th.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import faiss
import numpy as np

import search
from data import MULTIVECTORS, data_folder, load_multivectors
from multivector_data import MultiVectors
from multivector_peers import (
    ENCODERS,
    KERNELS,
    SEARCHES,
    Call,
    NestVec,
    Ragged,
    Setting,
    Shared,
    encode_nestvec,
    maxsim,
    maxsim_nestvec,
    nestvec_encoder,
    top,
)
from peers import Answer, Peer

SETTINGS = ("20x3x8", "20x4x8", "20x5x8", "20x5x16", "40x6x0-10240", "fit20x5x8", "fit20x5x16", "fit20x6x16")
MISSING = (ImportError, AttributeError, RuntimeError, ValueError)
DIMS = 128  # of random tokens


# Turns of calls


def ready(makers: dict[str, Callable[[], Call]]) -> dict[str, Call]:
    """What gets ready; what does not is named and left out."""
    calls = {}
    for name, make in makers.items():
        try:
            calls[name] = make()
        except MISSING as error:
            print(f"left out {name}: {error}")
    return calls


def take_turns(calls: dict[str, Call], args: argparse.Namespace) -> dict[str, tuple[list[float], np.ndarray]]:
    """Seconds and answer of each call; the first turn warms up, and leaves out who is too slow or fails."""
    found: dict[str, tuple[list[float], np.ndarray]] = {}
    for turn in range(args.repeats + 1):
        for name, call in calls.items():
            if turn and name not in found:
                continue
            _use(backend_of(name, args))
            try:
                began = time.perf_counter()
                answer = call()
                seconds = time.perf_counter() - began
            except MISSING as error:
                print(f"left out {name}: {error}")
                continue
            if turn:
                found[name][0].append(seconds)
            elif seconds > args.budget:
                print(f"left out {name}: {seconds:.0f} s a call")
            else:
                found[name] = [], answer
    return found


def backend_of(name: str, args: argparse.Namespace) -> str | None:
    """Of one of ours, whose names end with it but for what follows a colon."""
    return next((b for b in args.backends if name.startswith("nestvec") and name.split(":")[0].endswith(b)), None)


def _use(backend: str | None) -> None:
    if backend:
        import nestvec

        nestvec.use(backend)


def timed_row(name: str, seconds: list[float], units: int, args: argparse.Namespace) -> dict:
    """Milliseconds for each of the units that a call works on."""
    ms = [1e3 * s / units for s in seconds]
    backend = backend_of(name, args)
    return {"peer": name, "backend": backend, "ms_median": median(ms), "ms_min": min(ms), "samples": len(ms)}


def show(row: dict) -> dict:
    print(*(f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in row.items()))
    return row


def random_bags(lengths: np.ndarray, seed: int = 0) -> Ragged:
    """Unit tokens that float16 holds exactly up to its rounding of their length."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.random.default_rng(seed).standard_normal((offsets[-1], DIMS), np.float32)
    tokens /= np.linalg.norm(tokens, axis=1, keepdims=True)
    return Ragged(tokens, offsets).of(np.float16).of(np.float32)


def documents(dataset: MultiVectors, count: int | None = None) -> Ragged:
    return Ragged(dataset.docs, dataset.doc_offsets)[:count]


def questions(dataset: MultiVectors, count: int | None = None) -> Ragged:
    return Ragged(dataset.queries, dataset.query_offsets)[:count].of(np.float32)


# Encoding


def measure_encode(args: argparse.Namespace) -> list[dict]:
    """Milliseconds a bag; errors are against muvfde, whose random numbers nestvec has too."""
    real = load_multivectors(args.data)
    cases = {
        "documents of 128": (random_bags(np.full(args.bags, 128)), False),
        "queries of 32": (random_bags(np.full(args.bags, 32), 1), True),
        f"documents of {args.data}": (documents(real, args.bags).of(np.float32), False),
        f"queries of {args.data}": (questions(real, args.bags), True),
    }
    return [
        row for text in args.settings for case in cases.items() for row in encode_rows(Setting.parse(text), *case, args)
    ]


def encode_rows(setting: Setting, case: str, data: tuple[Ragged, bool], args: argparse.Namespace) -> list[dict]:
    bags, queries = data
    names = [] if setting.fitted else args.peers or ENCODERS
    makers = {name: partial(ENCODERS[name], setting, bags, queries) for name in names}
    for backend in args.backends:
        ours = partial(encode_nestvec, setting, bags, queries, backend=backend)
        makers |= {f"nestvec-{backend}": partial(ours, batch=False), f"nestvec-{backend}:batch": ours}
    print(f"-- {setting}, {case}")
    found = take_turns(ready(makers), args)
    truth = found["muvfde"][1] if "muvfde" in found else None
    rows = []
    for name, (seconds, answer) in found.items():
        row = {"bench": "encode", "setting": str(setting), "case": case, "dims": answer.shape[1]}
        row |= timed_row(name, seconds, len(bags), args)
        if truth is not None and name.startswith("nestvec"):
            row["max_error"] = float(np.abs(answer - truth).max())
        rows.append(show(row))
    return rows


# MaxSim


def measure_maxsim(args: argparse.Namespace) -> list[dict]:
    """Milliseconds for each 1,000 documents, GFLOP/s, and errors against float64 scores of the tokens given."""
    rng = np.random.default_rng(0)
    real = load_multivectors(args.data)
    query = random_bags(np.array([32]), 1).tokens
    cases = {
        "128": (query, random_bags(np.full(args.docs, 128))),
        "300": (query, random_bags(np.full(args.docs, 300))),
        "50 to 800": (query, random_bags(rng.integers(50, 801, args.docs))),
        args.data: (questions(real, 1).tokens, documents(real, args.docs).of(np.float32)),
    }
    return [row for case, data in cases.items() for row in maxsim_rows(case, *data, args)]


def maxsim_rows(case: str, query: np.ndarray, docs: Ragged, args: argparse.Namespace) -> list[dict]:
    makers: dict[str, Callable[[], Call]] = {}
    for name in args.peers or KERNELS:
        makers[name] = partial(KERNELS[name], query, docs)
    for backend in args.backends:
        for kind in ("f32", "f16", "i8"):
            makers[f"nestvec-{kind}-{backend}"] = partial(maxsim_nestvec, query, docs, backend=backend, kind=kind)
    print(f"-- query of {len(query)}, {len(docs)} documents of {case}")
    found = take_turns(ready(makers), args)
    truth = maxsim(Ragged(query, np.array([0, len(query)])).of(np.float64), docs.of(np.float64))[0]
    work = 2 * query.size * len(docs.tokens)
    rows = []
    for name, (seconds, answer) in found.items():
        row = {"bench": "maxsim", "case": case, "query": len(query), "n": len(docs), "tokens": len(docs.tokens)}
        row |= timed_row(name, seconds, len(docs) / 1000, args)
        row |= {"gflops": work / median(seconds) / 1e9, "max_error": float(np.abs(answer - truth).max())}
        rows.append(show(row))
    return rows


# Search


class Judge:
    """Recall and score error of answers to queries whose exact scores (queries, documents) are known."""

    every_turn = False

    def __init__(self, scores: np.ndarray, k: int) -> None:
        self.truth, self.kth = scores, -np.partition(-scores, k - 1, axis=1)[:, k - 1 : k]
        self.tolerance = 1e-9 if scores.dtype == np.float64 else 1e-5

    def scores(self, ids: np.ndarray, first: int) -> np.ndarray:
        """Exact scores of the ids answered to queries first, first + 1, ...; -1 and repeats get -inf."""
        rows = np.arange(first, first + len(ids))[:, None]
        found = np.where(ids >= 0, self.truth[rows, ids], -np.inf)
        order = np.argsort(ids, axis=1, kind="stable")
        repeats = np.diff(np.take_along_axis(ids, order, 1), axis=1, prepend=-2) == 0
        np.put_along_axis(found, order, np.where(repeats, -np.inf, np.take_along_axis(found, order, 1)), 1)
        return found

    def recall(self, ids: np.ndarray, first: int = 0) -> float:
        return float((self.scores(ids, first) >= self.kth[first : first + len(ids)] - self.tolerance).mean())

    def error(self, D: np.ndarray, I: np.ndarray, first: int) -> float:
        exact = self.scores(I, first)
        return float(np.abs(D - exact)[np.isfinite(exact)].max(initial=0))


def exact_scores(dataset: MultiVectors, count: int) -> np.ndarray:
    """float64 scores of the leading queries and all documents; those of sets with a folder are kept there."""
    path = data_folder() / dataset.name / f"truth_maxsim_{count}.npy"
    if path.exists():
        return np.load(path)
    docs = documents(dataset)
    queries = questions(dataset, count).of(np.float64)
    scores = np.hstack([maxsim(queries, block.of(np.float64)) for _, block in docs.blocks()])
    if dataset.name in MULTIVECTORS:
        np.save(path, scores)
    return scores


def ndcg(ids: np.ndarray, relevant: np.ndarray | None) -> float | None:
    """Mean nDCG@10 of answers to the leading queries, as ir-measures has it."""
    import ir_measures

    if relevant is None:
        return None
    qrels = [ir_measures.Qrel(str(query), str(doc), 1) for query, doc in enumerate(relevant[: len(ids)])]
    run = [
        ir_measures.ScoredDoc(str(query), str(doc), -float(rank))
        for query, row in enumerate(ids)
        for rank, doc in enumerate(row)
    ]
    return float(ir_measures.calc_aggregate([ir_measures.nDCG @ 10], qrels, run)[ir_measures.nDCG @ 10])


def make_searches(args: argparse.Namespace, docs: Ragged, names: list[str]) -> list[Peer]:
    makers: dict[str, Callable[..., Peer]] = {name: SEARCHES[name] for name in names}
    shared = Shared(Setting.parse(args.setting), args.backends[0]) if args.backends else None
    for backend in args.backends:
        for kind, candidates in (("exact", None), ("shortlist", args.candidates)):
            makers[f"nestvec-{kind}-{backend}"] = partial(
                NestVec, backend=backend, shared=shared, candidates=candidates
            )
    ready = search.build_peers(makers, args.threads[0], docs, docs.tokens.shape[1])
    for peer in ready:
        if isinstance(peer, NestVec):
            peer.build_s = shared.build_s
    return ready


def search_rows(
    bench: str, dataset: MultiVectors, judge: Judge, peers: list[Peer], args: argparse.Namespace
) -> list[dict]:
    """Rows of search.py, with what each peer was tuned to."""
    shape = {"bench": bench, "data": args.data, "n": len(dataset), "tokens": len(dataset.docs), "setting": args.setting}
    rows = search.run_k(peers, judge, questions(dataset, len(judge.truth)), args.k, args)
    knobs = {peer.name: getattr(peer, "knob", None) for peer in peers}
    return [shape | row | {"knob": knobs[row["peer"]]} for row in rows]


def timed_queries(args: argparse.Namespace) -> int:
    return max(*args.nq, (args.repeats + 1) * search.SINGLES if 1 in args.nq else 0)


def measure_search(args: argparse.Namespace) -> list[dict]:
    """Speed by turns; recall and nDCG of answers to all judged queries."""
    args.queries = max(args.queries, timed_queries(args))
    dataset = load_multivectors(args.data, n=args.n)
    judge = Judge(exact_scores(dataset, args.queries), args.k)
    peers = make_searches(args, documents(dataset), args.peers or list(SEARCHES))
    rows = search_rows("search", dataset, judge, peers, args)
    quality = {peer.name: judged(peer, dataset, judge, args) for peer in peers}
    exact = {"queries": args.queries, "exact_ndcg": ndcg(top(judge.truth, 10)[1], dataset.relevant)}
    return [show(row | quality[row["peer"]] | exact) for row in rows]


def judged(peer: Peer, dataset: MultiVectors, judge: Judge, args: argparse.Namespace) -> dict:
    with peer.active():
        D, I = peer.search(questions(dataset, args.queries), args.k)
    return {"recall": judge.recall(I), "max_score_error": judge.error(D, I, 0), "ndcg": ndcg(I, dataset.relevant)}


def measure_crossing(args: argparse.Namespace) -> list[dict]:
    """The same search of ever more documents: noisy repeats of those of the set."""
    rows = []
    for n in args.sizes:
        dataset = load_multivectors(args.data, n=n)
        queries = questions(dataset, timed_queries(args))
        scores = np.hstack([maxsim(queries, block.of(np.float32)) for _, block in documents(dataset).blocks()])
        peers = make_searches(args, documents(dataset), args.peers or ["numpy"])
        rows += search_rows("crossing", dataset, Judge(scores, args.k), peers, args)
    return rows


# Quality of encodings


def encoded(setting: Setting, docs: Ragged, queries: Ragged, args: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    """Encodings of queries and of documents."""
    if args.encoder != "nestvec":
        return ENCODERS[args.encoder](setting, queries, True)(), ENCODERS[args.encoder](setting, docs, False)()
    _use(args.backends[0])
    encoder = nestvec_encoder(setting, docs)
    asked = encoder.encode_queries(*queries.pair(), threads=1)
    return asked, encoder.encode_documents(*docs.pair(), threads=1)


def share_found(ranked: np.ndarray, best: np.ndarray) -> float:
    """Share of the best documents of each query among those ranked."""
    return float(np.mean([np.isin(b, r).mean() for b, r in zip(best, ranked, strict=True)]))


def share_answered(ranked: np.ndarray, relevant: np.ndarray | None) -> float | None:
    return None if relevant is None else share_found(ranked, relevant[: len(ranked), None])


def measure_curves(args: argparse.Namespace) -> list[dict]:
    """Share of the exact top 10, and of the known answers, among the first candidates by encodings and by tokens."""
    dataset = load_multivectors(args.data, n=args.n)
    docs, queries = documents(dataset).of(np.float32), questions(dataset, args.queries)
    best = top(exact_scores(dataset, args.queries), 10)[1]
    rankings = {text: partial(ranked_by_encodings, text, docs, queries, args) for text in args.settings}
    rankings["tokens"] = partial(ranked_by_tokens, docs, queries)
    rows = []
    counts = [c for c in args.candidates if c <= len(docs)]
    for name, rank in rankings.items():
        ranked, dims = rank(max(counts))
        for c in counts:
            row = {"bench": "curves", "data": args.data, "n": len(docs), "setting": name, "dims": dims, "candidates": c}
            row |= {"found": share_found(ranked[:, :c], best)}
            row |= {"answered": share_answered(ranked[:, :c], dataset.relevant)}
            rows.append(show(row))
    return rows


def ranked_by_encodings(text: str, docs: Ragged, queries: Ragged, args: argparse.Namespace, count: int) -> Answer:
    asked, rows = encoded(Setting.parse(text), docs, queries, args)
    return top(asked @ rows.T, count)[1], asked.shape[1]


def ranked_by_tokens(docs: Ragged, queries: Ragged, count: int) -> Answer:
    """The single-vector heuristic: documents of the token nearest to each query token, then of the next, and so on."""
    owners = np.repeat(np.arange(len(docs)), np.diff(docs.offsets))
    index = faiss.IndexFlatIP(docs.tokens.shape[1])
    index.add(docs.tokens)
    nearest = index.search(queries.tokens, min(1000, len(owners)))[1]
    ranked = np.full((len(queries), count), -1)
    for row, tokens in zip(ranked, Ragged(nearest, queries.offsets), strict=True):
        candidates, first = np.unique(owners[tokens.T.ravel()], return_index=True)
        found = candidates[np.argsort(first)][:count]
        row[: len(found)] = found
    return ranked, docs.tokens.shape[1]


def measure_compression(args: argparse.Namespace) -> list[dict]:
    """Codes of encodings, a bit a dim or as many bytes: what their first 100 documents have of the best there are."""
    dataset = load_multivectors(args.data, n=args.n)
    setting = Setting.parse(args.setting)
    asked, x = encoded(setting, documents(dataset).of(np.float32), questions(dataset, args.queries), args)
    best = top(exact_scores(dataset, args.queries), 10)[1]
    nearest = top(asked @ x.T, 100)[1]
    makers = {name: partial(QUANTISERS[name], x, args) for name in args.peers or QUANTISERS}
    for backend in args.backends:
        makers[f"nestvec-b1-{backend}"] = partial(signs, x, backend)
    indexes = {}
    for name, make in makers.items():
        try:
            indexes[name] = make()
        except MISSING as error:
            print(f"left out {name}: {error}")
    found = take_turns({name: partial(built["search"], asked, 100) for name, built in indexes.items()}, args)
    rows = []
    for name, (seconds, ids) in found.items():
        row = {"bench": "compression", "data": args.data, "n": len(x), "setting": args.setting, "dims": x.shape[1]}
        row |= timed_row(name, seconds, len(asked), args)
        row |= {key: indexes[name][key] for key in ("bytes", "train_s", "encode_s", "trained_on")}
        row |= {"recall": share_found(ids, nearest), "found": share_found(ids, best)}
        row |= {"answered": share_answered(ids, dataset.relevant)}
        rows.append(show(row))
    return rows


def faiss_codes(index: faiss.Index, x: np.ndarray, size: float, training: np.ndarray | None = None) -> dict:
    began = time.perf_counter()
    if training is not None:
        index.train(training)
    trained = time.perf_counter()
    index.add(x)
    done = time.perf_counter()
    return {
        "search": lambda queries, k: index.search(queries, k)[1],
        "bytes": size,
        "train_s": trained - began,
        "encode_s": done - trained,
        "trained_on": 0 if training is None else len(training),
    }


def flat(x: np.ndarray, args: argparse.Namespace) -> dict:
    return faiss_codes(faiss.IndexFlatIP(x.shape[1]), x, 4 * x.shape[1])


def product_quantised(x: np.ndarray, args: argparse.Namespace) -> dict:
    """A byte for every 8 dims, as many as 1-bit codes have."""
    index = faiss.IndexPQ(x.shape[1], x.shape[1] // 8, 8, faiss.METRIC_INNER_PRODUCT)
    index.pq.cp.niter = args.iterations
    sample = np.sort(np.random.default_rng(0).permutation(len(x))[: args.training])
    return faiss_codes(index, x, index.sa_code_size(), x[sample])


def rabitq(x: np.ndarray, args: argparse.Namespace, rotated: bool = False) -> dict:
    """A bit a dim and 8 bytes; a random rotation finds more, for a matrix of d x d values that is not counted."""
    transform = f"RR{x.shape[1]}," if rotated else ""
    index = faiss.index_factory(x.shape[1], f"{transform}RaBitQ", faiss.METRIC_INNER_PRODUCT)
    return faiss_codes(index, x, index.sa_code_size(), x)


QUANTISERS: dict[str, Callable[..., dict]] = {
    "float32": flat,
    "faiss-pq": product_quantised,
    "faiss-rabitq": rabitq,
    "faiss-rr-rabitq": partial(rabitq, rotated=True),
}


def signs(x: np.ndarray, backend: str) -> dict:
    import nestvec

    nestvec.use(backend)
    began = time.perf_counter()
    index = nestvec.NestedIndex(x.shape[1], [x.shape[1]], metric="ip", rows=None, codes=("b1",))
    index.add(x, threads=1)
    plan = [nestvec.Stage("b1")]
    return {
        "search": lambda queries, k: index.search(queries, k, plan=plan, threads=1)[1],
        "bytes": index.memory_usage() / len(x),
        "train_s": 0.0,
        "encode_s": time.perf_counter() - began,
        "trained_on": 0,
    }


# What is asked for


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    benches = parser.add_subparsers(dest="bench", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--name", help="results go to bench/results/NAME.json; default: multivector-BENCH")
    common.add_argument("--data", default="mv_colbert", choices=[*MULTIVECTORS, "mv_synth"])
    common.add_argument("--peers", nargs="*", help="default: all")
    common.add_argument("--backends", nargs="*", default=[], help="nestvec's: amx avx512 avx2 baseline numba")
    common.add_argument("--repeats", type=int, default=5)
    common.add_argument("--budget", type=float, default=60.0, help="seconds; slower calls are left out")
    common.add_argument("--avx2", action="store_true", help="hold all peers that allow it to AVX2")
    common.add_argument("--threads", nargs=1, type=int, default=[1], help=argparse.SUPPRESS)
    common.add_argument("--child", help=argparse.SUPPRESS)
    judged = argparse.ArgumentParser(add_help=False)
    judged.add_argument("--n", type=int, help="so many documents; beyond those of the set, noisy repeats")
    judged.add_argument("--queries", type=int, default=500, help="so many of them judge")
    judged.add_argument("--encoder", default="nestvec", choices=["nestvec", *ENCODERS], help="of encodings alone")
    several = argparse.ArgumentParser(add_help=False)
    several.add_argument("--settings", nargs="+", default=SETTINGS, help="[fit]REPETITIONSxBITSxPROJECTION[-FINAL]")
    one = argparse.ArgumentParser(add_help=False)
    one.add_argument("--setting", default="fit20x5x16", help="[fit]REPETITIONSxBITSxPROJECTION[-FINAL]")
    turns = argparse.ArgumentParser(add_help=False)
    turns.add_argument("--nq", nargs="+", type=int, default=[1], help="queries of a call")
    turns.add_argument("--k", type=int, default=10)
    turns.add_argument("--candidates", type=int, default=0, help="of nestvec's shortlists; default: for recall .99")
    encode = benches.add_parser("encode", parents=[common, several])
    encode.add_argument("--bags", type=int, default=64)
    kernel = benches.add_parser("maxsim", parents=[common])
    kernel.add_argument("--docs", type=int, default=1_000)
    benches.add_parser("search", parents=[common, judged, one, turns])
    curves = benches.add_parser("curves", parents=[common, judged, several])
    curves.add_argument("--candidates", nargs="+", type=int, default=[10, 20, 50, 100, 200, 500, 1000, 2000])
    compression = benches.add_parser("compression", parents=[common, judged, one])
    compression.add_argument(
        "--training", type=int, default=100_000, help="encodings, at most, that faiss' PQ trains on"
    )
    compression.add_argument("--iterations", type=int, default=10, help="of its k-means")
    crossing = benches.add_parser("crossing", parents=[common, one, turns])
    crossing.add_argument("--sizes", nargs="+", type=int, default=[12_000, 25_000, 50_000, 100_000, 200_000])
    args = parser.parse_args()
    if getattr(args, "encoder", "") == "nestvec" and args.bench != "search" and not args.backends:
        parser.error("nestvec makes the encodings: name one of its backends, or another encoder")
    args.name = args.name or f"multivector-{args.bench}"
    return args


MEASURES = {
    "encode": measure_encode,
    "maxsim": measure_maxsim,
    "search": measure_search,
    "curves": measure_curves,
    "compression": measure_compression,
    "crossing": measure_crossing,
}


def main() -> None:
    args = parse_arguments()
    search.run(args, MEASURES[args.bench])


if __name__ == "__main__":
    main()
