"""Search speed and recall of nestvec and its peers, in interleaved runs; results go to bench/results/NAME.json.

    python bench/search.py --name nightly --data synth_a0.25 --nq 1 256 --backends amx avx2
    python bench/search.py --memory

The peers take turns within one process, so a busy moment of the machine hits all of them. Each thread count runs in a
process of its own: some libraries read theirs from the environment, once. Truth is float64 brute force; an id counts
as found when its float64 score reaches the true k-th score, so ties are forgiven.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

import machine
from data import BUILDERS, Dataset, data_folder, load

if TYPE_CHECKING:
    from peers import Peer

TRUTH_K, TUNING_QUERIES, SINGLES = 100, 200, 8
Answer = tuple[int, np.ndarray, np.ndarray]  # number of the first query, scores, ids


# Truth


def truth(dataset: Dataset, dims: int, nq: int) -> np.ndarray:
    """The TRUTH_K best float64 scores (nq, TRUTH_K), descending; cached beside the data set."""
    path = data_folder() / dataset.name / f"truth_n{len(dataset.docs)}_dims{dims}_nq{nq}.npy"
    if path.exists():
        return np.load(path)
    queries = dataset.queries[:nq, :dims].astype(np.float64)
    best = np.full((len(queries), TRUTH_K), -np.inf)
    for start in range(0, len(dataset.docs), 16_384):
        scores = queries @ dataset.docs[start : start + 16_384, :dims].astype(np.float64).T
        best = -np.partition(-np.hstack([best, scores]), TRUTH_K, axis=1)[:, :TRUTH_K]
    best = -np.sort(-best, axis=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, best)
    return best


class Judge:
    """Recall and score error of answers to the leading queries of a data set, in float64."""

    every_turn = False  # a batch's last answer stands for those of the other turns

    def __init__(self, dataset: Dataset, x: np.ndarray, dims: int, nq: int) -> None:
        self.x, self.queries = x[:, :dims], dataset.queries[:nq, :dims].astype(np.float64)
        self.truth = truth(dataset, dims, nq)

    def scores(self, ids: np.ndarray, first: int) -> np.ndarray:
        """float64 scores of the ids (nq, k) answered to queries first, first + 1, ...; repeats and -1 get -inf."""
        out = np.full(ids.shape, -np.inf)
        for row, found in enumerate(ids):
            unique, at = np.unique(found, return_index=True)
            at, unique = at[unique >= 0], unique[unique >= 0]
            out[row, at] = self.x[unique].astype(np.float64) @ self.queries[first + row]
        return out

    def recall(self, ids: np.ndarray, first: int = 0) -> float:
        k = ids.shape[1]
        worst = self.truth[first : first + len(ids), k - 1 : k]
        return float((self.scores(ids, first) >= worst - 1e-9 * np.abs(worst)).mean())

    def error(self, D: np.ndarray, I: np.ndarray, first: int) -> float:
        exact = self.scores(I, first)
        return float(np.abs(D - exact)[np.isfinite(exact)].max(initial=0))


# Timing


def run_group(peers: list[Peer], judge: Judge, queries: np.ndarray, nq: int, k: int, repeats: int) -> list[dict]:
    """Time the peers in turns on batches of nq; a turn of single queries is SINGLES of them, new ones each turn.

    All peers get the same single queries, but each other ones at a time: none finds in cache what the last one read.
    """
    samples: dict[str, list[float]] = {peer.name: [] for peer in peers}
    answers: dict[str, list[Answer]] = {peer.name: [] for peer in peers}
    for turn in range(repeats + 1):  # turn 0 warms up
        for number, peer in enumerate(peers):
            at = (turn - 1 + number * repeats // len(peers)) % repeats + 1 if turn else 0
            batches = range(at * SINGLES, (at + 1) * SINGLES) if nq == 1 else [0]
            if peer.threads > 1:
                time.sleep(0.05)  # idle workers of the library before spin for a while
            with peer.active():
                for at in batches:
                    began = time.perf_counter()
                    D, I = peer.search(queries[at : at + nq], k)
                    samples[peer.name].append((time.perf_counter() - began) * 1e3 / nq)
                    answers[peer.name].append((at, D, I))
    return [_row(peer, judge, samples[peer.name], answers[peer.name], nq, k) for peer in peers]


def _row(peer: Peer, judge: Judge, samples: list[float], answers: list[Answer], nq: int, k: int) -> dict:
    timed = samples[SINGLES if nq == 1 else 1 :]
    judged = answers if nq == 1 or judge.every_turn else answers[-1:]
    row = {
        "peer": peer.name,
        "backend": getattr(peer, "backend", None),
        "nq": nq,
        "k": k,
        "ms_median": median(timed),
        "ms_min": min(timed),
        "samples": len(timed),
        "index_bytes": peer.nbytes,
        "build_s": peer.build_s,
    }
    if judged[0][2].size:
        row["recall"] = float(np.mean([judge.recall(I, at) for at, _, I in judged]))
        row["max_score_error"] = max(judge.error(D, I, at) for at, D, I in judged)
    print(*(f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in row.items()))
    return row


def make_peers(args: argparse.Namespace, x: np.ndarray, dims: int, levels: tuple[int, ...]) -> list[Peer]:
    """The peers asked for, built, but for what is missing here or does not take this shape."""
    import peers as available

    names = [name for name in args.peers or available.PEERS if not (args.avx2 and name in available.BEYOND_AVX2)]
    makers = {name: available.PEERS[name] for name in names}
    for backend in args.backends:
        makers[f"nestvec-{backend}"] = partial(available.NestVec, backend=backend, levels=levels)
        for plan in args.plans:
            name = f"nestvec-{plan}-{backend}"
            makers[name] = partial(available.Planned, plan=plan, backend=backend, levels=levels)
        makers |= tuned_makers(args, backend, levels, [None, *args.transform]) if args.tuned else {}
        if args.threads == [1]:
            makers[f"scan64-{backend}"] = partial(available.Scan64, backend=backend)
    return build_peers(makers, args.threads[0], x, dims)


def tuned_makers(
    args: argparse.Namespace, backend: str, levels: tuple[int, ...], transforms: list[str | None]
) -> dict[str, Callable[..., Peer]]:
    """Peers that nestvec tunes itself, one for each transform, None being none."""
    import peers as available

    names = {
        transform: f"nestvec-tuned-{transform}-{backend}" if transform else f"nestvec-tuned-{backend}"
        for transform in transforms
    }
    made = partial(available.Tuned, codes=args.codes, backend=backend, levels=levels)
    return {name: partial(made, transform=transform) for transform, name in names.items()}


def build_peers(makers: dict[str, Callable[..., Peer]], threads: int, x: np.ndarray, dims: int) -> list[Peer]:
    """What is made, built; what cannot be is named and left out."""
    ready = []
    for name, make in makers.items():
        try:
            peer = make(name, threads)
            began = time.perf_counter()
            peer.build(x, dims)
            peer.build_s = peer.build_s or time.perf_counter() - began
            ready.append(peer)
        except (ImportError, AttributeError, RuntimeError, ValueError) as error:
            print(f"left out {name}: {error}")
    return ready


def affordable(peer: Peer, queries: np.ndarray, nq: int, k: int, budget: float) -> bool:
    """Whether a call of nq queries should end within the budget (seconds), judged by a call of 16."""
    if nq <= 16:
        return True
    began = time.perf_counter()
    with peer.active():
        peer.search(queries[:16], k)
    estimate = (time.perf_counter() - began) * nq / 16
    if estimate > budget:
        print(f"left out {peer.name} at nq={nq}: about {estimate:.0f} s a call")
    return estimate <= budget


def run_child(args: argparse.Namespace, measure: Callable[[argparse.Namespace], list[dict]]) -> dict:
    """All measurements of one thread count, in this process."""
    if args.avx2:
        import peers as available

        available.limit_to_avx2()
    load_before = os.getloadavg()
    rows = measure(args)
    return {"rows": rows, "blas": machine.blas_kernels(), "load_average": [load_before, os.getloadavg()]}


def measure_search(args: argparse.Namespace) -> list[dict]:
    """Rows of every data set, prefix, k and batch size."""
    rows = []
    for name in args.data:
        dataset = load(name, n=args.n)
        if max(args.nq) > len(dataset.queries):
            raise ValueError(f"{name} has {len(dataset.queries)} queries, nq={max(args.nq)} asked for")
        x = np.ascontiguousarray(dataset.docs, np.float32)
        for dims in args.dims or [x.shape[1]]:
            judge = Judge(dataset, x, dims, max(*args.nq, (args.repeats + 1) * SINGLES))
            peers = make_peers(args, x, dims, dataset.levels)
            shape = {"data": name, "n": len(x), "d": x.shape[1], "dims": dims, "threads": args.threads[0]}
            shape["simd"] = "avx2" if args.avx2 else "native"
            queries = judge.queries.astype(np.float32)
            rows += [shape | row for k in args.k for row in run_k(peers, judge, queries, k, args)]
    return rows


def run_k(peers: list[Peer], judge: Judge, queries: np.ndarray, k: int, args: argparse.Namespace) -> list[dict]:
    for peer in peers:
        with peer.active():
            peer.tune(queries[:TUNING_QUERIES], k, judge.recall)
    rows = []
    for nq in args.nq:
        print(f"-- nq={nq} k={k}")
        chosen = [peer for peer in peers if nq == 1 or not peer.name.startswith("scan")]
        chosen = [peer for peer in chosen if affordable(peer, queries, nq, k, args.budget)]
        rows += run_group(chosen, judge, queries, nq, k, args.repeats)
    return rows


def measure_memory(name: str, n: int | None) -> None:
    """Bytes of an index and of the process that built it, against the raw rows; run in a fresh process."""
    import nestvec

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    dataset = load(name, n=n)
    n, d = dataset.docs.shape
    before = peak()
    index = nestvec.NestedIndex(d, levels=dataset.levels, metric="ip")
    for start in range(0, n, 65_536):
        index.add(np.asarray(dataset.docs[start : start + 65_536]))
    built = peak()
    index.search(np.ascontiguousarray(dataset.queries[:1000]), 10)
    print(f"{name}: {n} x {d}; raw rows {n * d * dataset.docs.dtype.itemsize:,} bytes, as float32 {n * d * 4:,}")
    print(f"index.memory_usage() {index.memory_usage()}")
    print(f"peak resident bytes: before {before:,}, after add {built:,}, after searching 1000 queries {peak():,}")


def common_parser(description: str | None, data: list[str]) -> argparse.ArgumentParser:
    """What every comparison is asked; `name`, `data` and `nq` get their defaults from the caller."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", help="results go to bench/results/NAME.json")
    parser.add_argument("--data", nargs="+", choices=data, metavar="DATA")
    parser.add_argument("--n", type=int, help="only so many rows")
    parser.add_argument("--nq", nargs="+", type=int)
    parser.add_argument("--k", nargs="+", type=int, default=[10, 100])
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--peers", nargs="+", help="default: all")
    parser.add_argument("--backends", nargs="*", default=[], help="nestvec's: amx avx512 avx2 baseline numba")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--budget", type=float, default=20.0, help="seconds; slower calls are left out")
    parser.add_argument("--avx2", action="store_true", help="hold all peers that allow it to AVX2")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser


def add_index_options(parser: argparse.ArgumentParser) -> None:
    """What a tuned nestvec index is made with."""
    parser.add_argument("--codes", nargs="+", default=["b1"], help="of a tuned index: b1 i4 (i8 codes are always kept)")
    parser.add_argument("--transform", nargs="*", default=[], help="also with rotated vectors: pca")


def parse_arguments() -> argparse.Namespace:
    parser = common_parser(__doc__, list(BUILDERS))
    parser.set_defaults(name="search", data=["synth_a0.25"], nq=[1, 16, 256, 1000])
    parser.add_argument("--dims", nargs="+", type=int, help="leading dims searched; default: all")
    parser.add_argument("--plans", nargs="*", default=[], help="also by plans, of those in peers.PLANS")
    parser.add_argument("--tuned", action="store_true", help="also by plans that nestvec tunes itself")
    add_index_options(parser)
    parser.add_argument("--memory", action="store_true", help="measure the memory of an index instead")
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    if args.memory:
        for name in args.data:
            code = f"import search; search.measure_memory({name!r}, {args.n})"
            subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=True)
    else:
        run(args, measure_search)


def run(args: argparse.Namespace, measure: Callable[[argparse.Namespace], list[dict]]) -> list[dict]:
    """Rows measured, and left in a file: as a child of this script, or as the parent of such."""
    if not args.child:
        return run_parent(args)
    result = run_child(args, measure)
    Path(args.child).write_text(json.dumps(result))
    return result["rows"]


def run_parent(args: argparse.Namespace) -> list[dict]:
    """A child process for each thread count; their rows and the machine go into one file."""
    result: dict = {"machine": machine.describe(), "settings": vars(args), "runs": []}
    for threads in args.threads:
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            command = [sys.executable, *sys.argv, "--threads", str(threads), "--child", file.name]
            subprocess.run(command, env=machine.environment(threads, args.avx2), check=True)
            result["runs"].append({"threads": threads} | json.loads(Path(file.name).read_text()))
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    (folder / f"{args.name}.json").write_text(json.dumps(result, indent=1) + "\n")
    return [row for run in result["runs"] for row in run["rows"]]


if __name__ == "__main__":
    main()
