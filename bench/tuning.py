"""What `tune` promises and what comes true, and its plans beside the best of a grid.

    python bench/tuning.py --data wn_wordllama wn_minilm+pca --seeds 20     # "+pca": vectors go through fit_rotation
    python bench/tuning.py --data pkg_wordllama --grid
    python bench/tuning.py --data mv_colbert --recall .95 .99 --seeds 20    # also --grid

For each seed some of the set's queries are drawn for tuning, and the plan is judged by all others: its share of the
true neighbours by exact search, ties forgiven. With --grid plans of two and three stages over a grid of codes, dims and
shortlists are tried, all whose first stages leave them a chance to be the fastest: the fastest that find the recall
asked for, and those that find what the tuned plan does, then take turns with it, query by query. Results go to
bench/results/NAME.json as they are found; what is there is not run again.
"""

from __future__ import annotations

import argparse
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import mean, median, stdev
from typing import Any

import numpy as np

from data import BUILDERS, MULTIVECTORS, load, load_multivectors
from ledger import Ledger, on_one_thread
from multivector_peers import Setting, nestvec_encoder

SAMPLE = 500  # queries for tuning
TIES = 64  # results beyond k that may equal the k-th
CHUNK = 256  # queries of a call
QUICK = 15  # queries that time a plan of the grid
FINALISTS = 5  # plans of the grid that take turns with the tuned one
FINER, COARSER = 2**0.25, 1.5  # factors between lengths of shortlists: the last, and one before another stage
SHARE, FEW = 8, 5_000  # shortlists have at most one row in so many, but never fewer than so many, or half of all


class Searched(ABC):
    """An index and the queries of its set."""

    queries: Any
    count: int
    index: Any
    facts: dict[str, Any]

    def __init__(self, k: int) -> None:
        self.k = k

    def truth(self) -> None:
        """The exact answers to all queries: the k-th scores, and the ids that reach them."""
        scores, ids = zip(*(self.exact(self.some(part), self.k + TIES) for part in parts(self.count)), strict=True)
        self.kth = np.concatenate(scores)[:, self.k - 1]
        self.good = [
            i[s >= kth] for s, i, kth in zip(np.concatenate(scores), np.concatenate(ids), self.kth, strict=True)
        ]

    def shares(self, which: np.ndarray, stages: Sequence[Any]) -> np.ndarray:
        """Share of the k best of some queries that a plan finds; no stages: exact search."""
        if not stages:
            return np.ones(len(which))
        answers = [self.planned(self.some(which[part]), self.k, stages)[0] for part in parts(len(which))]
        return (np.concatenate(answers) >= self.kth[which, None]).mean(axis=1)

    def seconds(self, query: int, stages: Sequence[Any]) -> float:
        asked = self.some(np.array([query]))
        began = time.perf_counter()
        if stages:
            self.planned(asked, self.k, stages)
        else:
            self.exact(asked, self.k)
        return time.perf_counter() - began

    def tune(self, which: np.ndarray, recall: float, seed: int) -> Any:
        return self.index.tune(self.some(which), self.k, recall, sample=SAMPLE, seed=seed, threads=1)

    @abstractmethod
    def some(self, which: Any) -> Any:
        """Some queries."""

    @abstractmethod
    def exact(self, queries: Any, k: int) -> tuple[np.ndarray, np.ndarray]: ...

    @abstractmethod
    def planned(self, queries: Any, k: int, stages: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]: ...

    @abstractmethod
    def listed(self, queries: Any, depth: int, stages: Sequence[Any]) -> np.ndarray:
        """The ids that the last of some stages ranks first."""

    @abstractmethod
    def depths(self) -> list[tuple[str, int]]:
        """Codes and dims of a grid."""


class Vectors(Searched):
    def __init__(self, name: str, transform: str, args: argparse.Namespace) -> None:
        super().__init__(args.k)
        import nestvec as nv

        dataset = load(name, n=args.n)
        x = np.ascontiguousarray(dataset.docs, np.float32)
        options = {"transform": nv.fit_rotation(x, transform)} if transform else {}
        self.index = nv.NestedIndex(x.shape[1], dataset.levels, "ip", codes=args.codes, **options)
        self.index.add(x)
        self.queries, self.count = dataset.queries, len(dataset.queries)
        self.facts = {"n": len(x), "d": x.shape[1]}

    def some(self, which: Any) -> np.ndarray:
        return self.queries[which]

    def exact(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        return self.index.search(queries, k, threads=1)

    def planned(self, queries: np.ndarray, k: int, stages: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        return self.index.search(queries, k, plan=list(stages), threads=1)

    def listed(self, queries: np.ndarray, depth: int, stages: Sequence[Any]) -> np.ndarray:
        return self.planned(queries, depth, stages)[1]

    def depths(self) -> list[tuple[str, int]]:
        d = self.index.d
        dims = sorted({*self.index.levels, *range(64, d, 64 if d <= 512 else 128)})
        return [(code, wide) for code in self.index.codes for wide in dims]


class Bags(Searched):
    def __init__(self, name: str, transform: str, args: argparse.Namespace) -> None:
        super().__init__(args.k)
        import nestvec as nv
        from multivector import documents, questions

        dataset = load_multivectors(name, n=args.n)
        docs = documents(dataset)
        self.codes = args.codes
        self.index = nv.MultiVectorIndex(nestvec_encoder(Setting.parse(args.setting), docs), "f16", codes=self.codes)
        self.index.add(docs.pair())
        self.queries = questions(dataset)
        self.count = len(self.queries)
        self.facts = {"n": len(docs), "d": self.index.encoder.fde_dim}

    def some(self, which: Any) -> list[np.ndarray]:
        tokens, offsets = self.queries.pair()
        return [tokens[offsets[i] : offsets[i + 1]] for i in np.arange(self.count)[which]]

    def exact(self, queries: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
        return self.index.search(queries, k, exact=True, threads=1)

    def planned(self, queries: Any, k: int, stages: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        return self.index.search(queries, k, plan=list(stages), threads=1)

    def listed(self, queries: Any, depth: int, stages: Sequence[Any]) -> np.ndarray:
        return self.index.shortlist(queries, depth, plan=list(stages), threads=1)[1]

    def depths(self) -> list[tuple[str, int]]:
        encoder = self.index.encoder
        counts = [1, 2, 3, 4, 6, 8, 10, 12, 16, 20, 24, 32, encoder.num_repetitions]
        dims = sorted({min(count, encoder.num_repetitions) * encoder.repetition_dim for count in counts})
        return [(code, wide) for code in self.codes for wide in dims]


def parts(count: int) -> Iterator[slice]:
    return (slice(at, at + CHUNK) for at in range(0, count, CHUNK))


def make(text: str, args: argparse.Namespace) -> Searched:
    name, _, transform = text.partition("+")
    searched = (Bags if name in (*MULTIVECTORS, "mv_synth") else Vectors)(name, transform, args)
    searched.truth()
    return searched


def named(stages: Sequence[Any]) -> str:
    texts = [" ".join(str(part) for part in (s.code, s.dims, s.keep) if part is not None) for s in stages]
    return " > ".join(texts) or "exact"


# Promises


def measure_seed(searched: Searched, recall: float, seed: int) -> dict[str, Any]:
    """Tune on some of the queries, judge by the others."""
    order = np.random.default_rng(seed).permutation(searched.count)
    began = time.perf_counter()
    plan = searched.tune(np.sort(order[:SAMPLE]), recall, seed)
    took = time.perf_counter() - began
    shares = searched.shares(np.sort(order[SAMPLE:]), list(plan))
    return {
        "plan": named(plan),
        "expected": plan.expected,
        "lower": plan.lower,
        "achieved": float(shares.mean()),
        "achieved_error": stdev(shares) / len(shares) ** 0.5,
        "judged_by": len(shares),
        "ms": plan.seconds * 1e3,
        "exact_ms": plan.exact_seconds * 1e3,
        "tune_s": took,
    }


def summary(rows: Sequence[dict[str, Any]], recall: float) -> str:
    achieved = [row["achieved"] for row in rows]
    kept = sum(share >= recall for share in achieved)
    short = sum(row["achieved"] + 2 * row["achieved_error"] < recall for row in rows)
    return (
        f"{len(rows)} seeds: achieved {mean(achieved):.4f} on average, {min(achieved):.4f} at least; {kept} reach "
        f"{recall:g}, {short} are short of it by more than two standard errors; expected "
        f"{mean(row['expected'] for row in rows):.4f}, tuned in {median(row['tune_s'] for row in rows):.1f} s"
    )


# Grid


@dataclass
class Goal:
    """The fastest plans that find some share."""

    recall: float
    found: list[tuple[float, tuple[Any, ...], float]] = field(default_factory=list)  # seconds, stages, recall

    @property
    def best(self) -> float:
        return min((one[0] for one in self.found), default=np.inf)


class Grid:
    """All plans of two and three stages that could be the fastest for some goals."""

    def __init__(self, searched: Searched, goals: Sequence[Goal], queries: int) -> None:
        from nestvec import Stage

        self.searched, self.goals, self.stage = searched, goals, Stage
        self.which = np.arange(min(queries, searched.count))
        self.good = [searched.good[i] for i in self.which]
        n = searched.facts["n"]
        self.longest = max(n // SHARE, min(n // 2, FEW), searched.k)
        self.least = min(max(4 * searched.k, 64), self.longest)
        self.listings = self.timed = 0

    def run(self) -> None:
        firsts = [(self.seconds([self.stage(*one, self.least)]), one) for one in self.searched.depths()]
        for base, (code, dims) in sorted(firsts):
            if all(base >= goal.best for goal in self.goals):
                break
            ranks = self.ranks([self.stage(code, dims)], self.longest)
            print(
                f"  {code} {dims}: from {base * 1e3:.3f} ms; best so far", *(f"{g.best * 1e3:.3f}" for g in self.goals)
            )
            self.weigh((), (code, dims), ranks, self.longest)
            for second in self.searched.depths():
                if second[1] >= dims and second != (code, dims) and order(second[0]) >= order(code):
                    self.three((code, dims), second, ranks)

    def three(self, first: tuple[str, int], second: tuple[str, int], ranks: np.ndarray) -> None:
        for keep in lengths(self.least, self.longest, COARSER):
            if recall_of(ranks <= keep, self.searched.k) < min(goal.recall for goal in self.goals):
                continue
            stages = (self.stage(*first, keep),)
            floor = self.seconds([*stages, self.stage(*second, min(self.least, keep))])
            if all(floor >= goal.best for goal in self.goals):
                break  # so would longer ones
            self.weigh(stages, second, self.ranks([*stages, self.stage(*second)], keep), keep)

    def weigh(self, before: tuple[Any, ...], last: tuple[str, int], ranks: np.ndarray, longest: int) -> None:
        """Add the plan with the shortest last shortlist that will do, for each goal."""
        for goal in self.goals:
            for keep in lengths(self.searched.k, longest, FINER):
                share = recall_of(ranks <= keep, self.searched.k)
                if share >= goal.recall:
                    stages = (*before, self.stage(*last, keep))
                    goal.found.append((self.seconds(stages), (*stages, self.stage("raw")), share))
                    break

    def ranks(self, stages: Sequence[Any], depth: int) -> np.ndarray:
        """Places, from 1 on, of true neighbours in the list by the last stage; inf if not there."""
        self.listings += 1
        ranks = np.full((len(self.good), max(map(len, self.good))), np.inf)
        for part in parts(len(self.which)):
            lists = self.searched.listed(self.searched.some(self.which[part]), depth, stages)
            for row, (ids, good) in enumerate(zip(lists, self.good[part], strict=True), part.start):
                places = np.flatnonzero(np.isin(ids, good)) + 1
                ranks[row, : len(places)] = places
        return ranks

    def seconds(self, stages: Sequence[Any]) -> float:
        self.timed += 1
        times = [self.searched.seconds(i, [*stages, self.stage("raw")]) for i in range(QUICK + 2)]
        return median(times[2:])


def order(code: str) -> int:
    return ("b1", "i4", "i8").index(code)


def lengths(low: int, high: int, factor: float) -> list[int]:
    """Whole numbers from low to high by a factor."""
    count = int(np.ceil(np.log(max(high / low, 1)) / np.log(factor)))
    return sorted({min(round(low * factor**step), high) for step in range(count + 1)})


def recall_of(found: np.ndarray, k: int) -> float:
    return float(np.minimum(found.sum(axis=1), k).mean() / k)


def measure_grid(searched: Searched, recall: float, args: argparse.Namespace) -> list[dict[str, Any]]:
    """The tuned plan beside the best of the grid, by turns."""
    order = np.random.default_rng(0).permutation(searched.count)
    plan = searched.tune(np.sort(order[:SAMPLE]), recall, 0)
    judged = np.arange(min(args.grid_queries, searched.count))
    reached = float(searched.shares(judged, list(plan)).mean())
    print(f"  tuned: {named(plan)}, {plan.seconds * 1e3:.3f} ms, finds {reached:.4f}")
    began = time.perf_counter()
    goals = [Goal(recall), Goal(reached)] if recall < reached < 1 else [Goal(recall)]
    exact = median(searched.seconds(i, ()) for i in range(QUICK))
    for goal in goals:
        goal.found.append((exact, (), 1.0))
    grid = Grid(searched, goals, args.grid_queries)
    grid.run()
    grid_s = time.perf_counter() - began
    rows = []
    for what, goal in zip(("asked", "as tuned"), goals, strict=False):
        finalists = sorted(goal.found, key=lambda one: one[0])[:FINALISTS]
        times = by_turns(searched, [tuple(plan), *(stages for _, stages, _ in finalists)], args.singles)
        at = min(range(len(finalists)), key=lambda i: times[i + 1])
        row = {"goal": what, "goal_recall": goal.recall, "queries": len(judged), "samples": args.singles}
        row |= {"plan": named(plan), "ms": times[0] * 1e3, "achieved": reached}
        row |= {"best": named(finalists[at][1]), "best_ms": times[at + 1] * 1e3, "best_recall": finalists[at][2]}
        row |= {"ratio": times[0] / times[at + 1], "listings": grid.listings, "timed": grid.timed, "grid_s": grid_s}
        rows.append(row)
    return rows


def by_turns(searched: Searched, plans: Sequence[Sequence[Any]], count: int) -> list[float]:
    """Medians of seconds of the same single queries, of which each plan in turn takes another one.

    So no plan finds the rows in cache that the one before has just read.
    """
    times: list[list[float]] = [[] for _ in plans]
    for turn in range(-3, count):
        for number, plan in enumerate(plans):
            query = (turn + number * count // len(plans)) % min(count, searched.count)
            times[number].append(searched.seconds(query, plan))
    return [median(column[3:]) for column in times]


# What is asked for


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = ", ".join((*BUILDERS, *MULTIVECTORS, "mv_synth"))
    parser.add_argument("--name", default="tuning", help="results go to bench/results/NAME.json")
    parser.add_argument("--data", nargs="+", required=True, metavar="DATA", help=f"of {known}; with +pca rotated")
    parser.add_argument("--n", type=int, help="only so many rows")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--recall", nargs="+", type=float, default=[0.99])
    parser.add_argument("--seeds", type=int, default=0, help="so many samples to tune with")
    parser.add_argument("--grid", action="store_true", help="compare with the best of a grid")
    parser.add_argument("--grid-queries", type=int, default=1000, help="that judge plans of the grid")
    parser.add_argument("--singles", type=int, default=61, help="single queries that time the last ones")
    parser.add_argument("--backend", help="nestvec's; default: as it chooses")
    parser.add_argument("--codes", nargs="+", default=["b1"], help="b1 i4 (a NestedIndex always keeps i8)")
    parser.add_argument("--setting", default="fit20x5x16", help="of encodings: [fit]REPETITIONSxBITSxPROJECTION")
    parser.add_argument("--again", action="store_true", help="replace results that are there")
    return parser.parse_args()


def measure(text: str, args: argparse.Namespace, ledger: Ledger) -> None:
    import nestvec as nv

    if args.backend:
        nv.use(args.backend)
    if "+" in text and not hasattr(nv, "fit_rotation"):
        print(f"left out {text}: this nestvec has no fit_rotation")
        return
    shape = {"data": text, "asked_n": args.n, "k": args.k, "codes": " ".join(args.codes)}
    searched: Searched | None = None
    for recall in args.recall:
        rows = []
        for seed in range(args.seeds):
            group = shape | {"bench": "tuning", "recall": recall, "seed": seed}
            if args.again or not ledger.has(**group):
                searched = searched or make(text, args)
                row = searched.facts | measure_seed(searched, recall, seed)
                ledger.put([row], **group)
                print(
                    text,
                    recall,
                    seed,
                    *(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in row.items()),
                )
            rows += ledger.get(**group)
        if rows:
            print(f"{text} at {recall:g}, {summary(rows, recall)}")
        group = shape | {"bench": "grid", "recall": recall, "seed": None}
        if args.grid and (args.again or not ledger.has(**group)):
            searched = searched or make(text, args)
            print(f"-- grid of {text} at {recall:g}")
            ledger.put([searched.facts | row for row in measure_grid(searched, recall, args)], **group)
        for row in ledger.get(**group) if args.grid else []:
            print(
                f"{text} at {recall:g}, {row['goal']}: tuned {row['plan']} {row['ms']:.3f} ms ({row['achieved']:.4f}), "
                f"best {row['best']} {row['best_ms']:.3f} ms ({row['best_recall']:.4f}), ratio {row['ratio']:.3f}"
            )


def main() -> None:
    args = parse_arguments()
    on_one_thread()
    ledger = Ledger(args.name, vars(args), ("bench", "data", "asked_n", "k", "codes", "recall", "seed"))
    for text in args.data:
        measure(text, args, ledger)


if __name__ == "__main__":
    main()
