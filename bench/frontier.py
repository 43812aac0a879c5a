"""Recall against speed: nestvec's tuned plans and its exact search beside peers at several settings of their knobs.

    python bench/frontier.py --data pkg_wordllama --backend amx
    python bench/report.py --readme         # the plot and the table of README.md

Every peer with a knob is tuned, to several recalls, on queries that no result is judged by. All settings then take
turns as in search.py. Rivals' knobs are set where the recall of the tuning queries reaches the target, nestvec's plans
where its lower confidence bound does. Results go to bench/results/NAME.json, group by group; groups that are there are
not run again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

import peers as available
import search
from data import BUILDERS, Dataset, load
from ledger import Ledger, on_one_thread

TARGETS = (0.9, 0.95, 0.98, 0.99, 0.995)
JUDGING, TUNING = 500, 1000  # queries: the first judge; the next, as far as there are so many, are for tuning
BATCHES_ONLY = {"faiss-flat-blas"}  # BLAS is no help with one query
PEERS = (
    "faiss-flat",
    "faiss-flat-blas",
    "faiss-panorama8",
    "faiss-ivf-flat",
    "faiss-ivf-sq8-refine",
    "faiss-ivf-pq4fs-refine",
    "faiss-pq64x4fs-refine",
    "faiss-rabitqfs-refine",
    "faiss-hnsw32",
    "turbovec2-rerank",
    "turbovec4-rerank",
    "numkong-i8-rerank",
)


class Setting(available.Peer):
    """A peer with its knob at one place: `target` is the recall that it was tuned to, None that there is no knob."""

    def __init__(self, peer: available.Peer, target: float | None, knob: Any) -> None:
        super().__init__(f"{peer.name}@{target}" if target else peer.name, peer.threads)
        self.peer, self.target, self.knob = peer, target, knob
        self.backend = getattr(peer, "backend", None)
        self.nbytes, self.build_s = peer.nbytes, peer.build_s
        self.search = peer.search

    @contextmanager
    def active(self) -> Iterator[None]:
        if self.knob is not None:
            self.peer.use(self.knob)
        with self.peer.active():
            yield

    def facts(self) -> dict[str, Any]:
        knob = " > ".join(map(_stage, self.knob)) or "exact" if hasattr(self.knob, "stages") else self.knob
        return {"peer": self.peer.name, "target": self.target, "setting": knob}


class Exact(available.Tuned):
    """A tuned peer's index, searched exactly."""

    def __init__(self, tuned: available.Tuned) -> None:
        super().__init__(f"nestvec-exact-{tuned.backend}", tuned.threads, backend=tuned.backend, levels=tuned.levels)
        self.index, self.dims, self.nbytes, self.build_s = tuned.index, tuned.dims, tuned.nbytes, tuned.build_s

    def reaching(self, queries: np.ndarray, k: int, recall: available.Recall, targets: Any) -> dict[float, list[Any]]:
        return {}


def _stage(stage: Any) -> str:
    return " ".join(str(part) for part in (stage.code, stage.dims, stage.keep) if part is not None)


def built(args: argparse.Namespace, dataset: Dataset, x: np.ndarray) -> list[available.Peer]:
    names = PEERS if args.peers is None else args.peers
    makers: dict[str, Any] = {name: available.PEERS[name] for name in names}
    makers |= search.tuned_makers(args, args.backend, dataset.levels, args.transform or [None])
    peers = search.build_peers(makers, 1, x, x.shape[1])
    ours = [peer for peer in peers if isinstance(peer, available.Tuned)]
    return [*peers, Exact(ours[0])] if ours else peers


def reached(peer: available.Peer, queries: np.ndarray, k: int, recall: available.Recall) -> dict[float, list[Any]]:
    """Settings of a peer for each target that it reaches."""
    began = time.perf_counter()
    with peer.active():
        found = peer.reaching(queries, k, recall, TARGETS)
    if any(found.values()):
        print(
            f"{peer.name}: tuned in {time.perf_counter() - began:.1f} s",
            {target: len(knobs) for target, knobs in found.items()},
        )
    return found


def settings(
    peer: available.Peer, found: dict[float, list[Any]], queries: np.ndarray, k: int, nq: int
) -> list[Setting]:
    """The fastest of them for calls of nq queries, for each target that needs another; or the peer as it is."""
    if not any(found.values()):
        return [] if peer.knob is not None else [Setting(peer, None, None)]
    places: list[Setting] = []
    with peer.active():
        for target, knobs in found.items():
            knob = peer.fastest(knobs, queries, k, nq) if knobs else None
            if places and knob == places[-1].knob:
                places[-1].target = target
            elif knob is not None:
                places.append(Setting(peer, target, knob))
    return places


def measure(args: argparse.Namespace, name: str, ledger: Ledger) -> None:
    todo = [nq for nq in (1, JUDGING) if args.again or not ledger.has(**_group(args, name, nq))]
    if not todo:
        print(f"{name}: there already")
        return
    dataset = load(name, n=args.n)
    x = np.ascontiguousarray(dataset.docs, np.float32)
    judge = search.Judge(dataset, x, x.shape[1], min(JUDGING + TUNING, len(dataset.queries)))
    queries = judge.queries.astype(np.float32)
    tuning = queries[JUDGING:]
    peers = built(args, dataset, x)
    found = {peer.name: reached(peer, tuning, args.k, partial(judge.recall, first=JUDGING)) for peer in peers}
    for nq in todo:
        print(f"-- {name} nq={nq}")
        chosen = [peer for peer in peers if nq > 1 or peer.name not in BATCHES_ONLY]
        places = [one for peer in chosen for one in settings(peer, found[peer.name], tuning, args.k, nq)]
        places = [one for one in places if search.affordable(one, tuning, nq, args.k, args.budget)]
        turns = args.turns if nq == 1 else args.repeats
        rows = search.run_group(places, judge, queries[:JUDGING], nq, args.k, turns)
        shape = {"bench": "frontier", "n": len(x), "d": x.shape[1], "tuned_on": len(tuning)}
        rows = [shape | row | one.facts() for row, one in zip(rows, places, strict=True)]
        ledger.put(rows, **_group(args, name, nq))


def _group(args: argparse.Namespace, name: str, nq: int) -> dict[str, Any]:
    return {"data": name, "asked_n": args.n, "nq": nq, "k": args.k}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="frontier", help="results go to bench/results/NAME.json")
    parser.add_argument("--data", nargs="+", choices=list(BUILDERS), default=["pkg_wordllama"], metavar="DATA")
    parser.add_argument("--n", type=int, help="only so many rows")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--peers", nargs="*", help="default: all that suit")
    parser.add_argument("--backend", default="amx", help="nestvec's: amx avx512 avx2 baseline numba")
    parser.add_argument("--turns", type=int, default=60, help=f"of {search.SINGLES} single queries, at most 61")
    parser.add_argument("--repeats", type=int, default=5, help="of batches")
    parser.add_argument("--budget", type=float, default=20.0, help="seconds; slower calls are left out")
    parser.add_argument("--again", action="store_true", help="replace results that are there")
    search.add_index_options(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    on_one_thread()
    ledger = Ledger(args.name, vars(args), ("data", "asked_n", "nq", "k"))
    for name in args.data:
        measure(args, name, ledger)


if __name__ == "__main__":
    main()
