"""Tuning: the cheapest plan that finds a share of the true neighbours, by their ranks and by times of short runs.

A true neighbour reaches the last stage if every stage before ranks it among those it keeps. So one list of each code,
made once for a sample of queries, tells what any length of shortlist finds, and what is needed is the shortest one
whose lower confidence bound reaches the recall. Times are measured, one query at a time, as a search takes them.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist, median
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import backends
from .plan import Plan, Point, Stage

if TYPE_CHECKING:
    from .collection import Collection

Array = npt.NDArray[Any]
Answer = tuple[Array, Array]
Progress = Callable[[int, int, str], None]

TIMED, WARMING = 15, 3  # queries that are timed, one by one; those before them
CHUNK = 16  # queries of a sample that are listed at a time
DEEP, DEEP_SHARE, DEEPEST = 4096, 64, 65_536  # length of the lists: at least; one row in so many; at most
WIDER = (1.0, 1.25, 1.6, 2.0, 3.0)  # shortlists before another stage, by what would do without it
PROMISING = 3  # plans that are tried with a further stage
MIDDLES = 4  # stages that are tried in one place
STAGES = 4  # of a plan, at most
BATCHES = (4, 16, 64, 256)
PATIENCE = 1.0  # seconds that a batch may take: where one does, larger ones are not tried


@dataclass(frozen=True)
class Draw:
    """How a sample is drawn."""

    size: int
    seed: int

    def __call__(self, count: int) -> Array:
        """Numbers below `count`, ascending: all, or a sample."""
        if count <= self.size:
            return np.arange(count)
        return np.sort(np.random.default_rng(self.seed).choice(count, self.size, replace=False))


@dataclass(frozen=True)
class Subject:
    """An index as tuning sees it, and what it is to be searched for."""

    queries: Any  # whose slices are queries
    own: list[Any] | None  # ids of the queries, where these are rows held out
    k: int
    dims: int
    rows: int
    codes: tuple[tuple[str, int], ...]  # code and dims of the stages there can be
    last: Stage
    ascending: bool  # whether smaller is better
    ties: int  # results beyond k that are looked at for scores that equal the k-th
    exact: Callable[[Any, int], Answer]
    listed: Callable[[Any, int, list[Stage]], Array]  # ids, best first, as the last of some stages orders them
    run: Callable[[Any, int, list[Stage]], Answer]

    @classmethod
    def of(cls, index: Collection[Any], queries: Any, own: Array | None, k: int, **how: Any) -> Subject:
        """Of an index, and queries of which those with ids of their own are held out."""
        held = own is not None
        return cls(
            queries=queries, own=own.tolist() if own is not None else None, k=min(k, index.ntotal - held),
            rows=index.ntotal, **how,
        )  # fmt: skip

    @property
    def asked(self) -> int:
        """Results to ask for: one more where a query finds itself."""
        return self.k + (self.own is not None)

    def chunks(self) -> Iterator[slice]:
        """Slices of the queries."""
        return (slice(at, at + CHUNK) for at in range(0, len(self.queries), CHUNK))


@dataclass(frozen=True)
class Chain:
    """Stages that shortlist, the ranks (queries, neighbours) that the last of them gives, and the recall."""

    stages: tuple[Stage, ...]
    ranks: Array
    reached: Array  # likewise: neighbours that all stages but the last let through
    seconds: float
    per_row: float  # seconds for one more row in the last stage's shortlist
    expected: float
    lower: float

    @property
    def keep(self) -> int:
        """Rows that are scored at last."""
        return self.stages[-1].keep or 0


def lower_bound(found: Array, k: int, confidence: float) -> tuple[float, float]:
    """Recall, and a bound that it exceeds with some confidence, of a sample that found (n,) of k neighbours each.

    Wilson's score interval. Neighbours of one query are found or missed together, so they count as fewer
    observations: by the design effect, the variance between queries over that of independent neighbours. That variance
    is taken as if there were one more query, of which nothing is found: a sample may well lack the worst ones.
    """
    n, share = len(found), float(found.mean()) / k
    between = (float(((found / k - share) ** 2).sum()) + share * share) / n
    independent = share * (1 - share) / k
    effect = min(max(between / independent, 1.0), k) if independent > 0 else k
    count, z = n * k / effect, NormalDist().inv_cdf(confidence)
    center = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return share, max((center - spread) / (1 + z * z / count), 0.0)


def reaching(scores: Array, ids: Array, own: Sequence[Any] | None, k: int, ascending: bool) -> list[list[Any]]:
    """For each query all ids whose scores (nq, m), best first, reach that of the k-th, `own` ids aside."""
    found = []
    ordered = scores.astype(np.float64) * (-1 if ascending else 1)
    for row, (values, names) in enumerate(zip(ordered, ids, strict=True)):
        if own is not None:
            others = names != own[row]
            values, names = values[others], names[others]
        reached = names[values >= values[:k].min(initial=np.inf)].tolist()
        found.append([name for name in reached if name not in (-1, None)])
    return found


class Tuning:
    """One run of `tune`."""

    def __init__(self, subject: Subject, recall: float, confidence: float, progress: Progress | None) -> None:
        self.subject, self.recall, self.confidence, self.progress = subject, recall, confidence, progress
        self.done, self.total = 0, 4 + len(subject.codes)
        if len(subject.queries) == 0:
            raise ValueError("tuning needs queries, got none; leave them out to use stored rows")
        self.good: list[dict[Any, int]] = []  # of each query the ids that count as found, numbered
        self.neighbours = 0  # the most of any query
        self.depth = min(subject.rows, max(DEEP, 32 * subject.k, min(subject.rows // DEEP_SHARE, DEEPEST)))
        self.exact_seconds = 0.0
        self.chains: list[Chain] = []

    def plan(self) -> Plan:
        """The plan; an exact one where nothing is faster, or nothing is known to be good enough."""
        self._tell("exact answers")
        self._truth()
        self.exact_seconds = self._seconds([])
        firsts = self._firsts()
        if not firsts or self.recall == 1:
            return self._finished(None)
        everything = np.ones((len(self.good), self.subject.k), bool)
        if self._bound(everything)[1] < self.recall:
            return self._finished(
                None,
                f"{len(everything)} queries cannot show a recall of {self.recall:g} with confidence "
                f"{self.confidence:g}; give more of them, or a larger sample",
            )
        self._weigh(firsts)
        if not self.chains:
            return self._finished(
                None,
                f"no shortlist of up to {self.depth:,} rows finds {self.recall:g} of the true neighbours; keep finer "
                "codes, or rotate the vectors (fit_rotation)",
            )
        self._tell("further stages")
        for _ in range(STAGES - 2):
            self._extend()
        self._tell("the plan")
        return self._finished(self._checked(min(self.chains, key=lambda chain: chain.seconds)))

    def _tell(self, what: str) -> None:
        if self.progress is not None:
            self.progress(self.done, self.total, what)
        self.done = min(self.done + 1, self.total)

    def _truth(self) -> None:
        """The ids that count as found for each query: those with scores that reach the k-th best of the others."""
        s = self.subject
        for some in s.chunks():
            scores, ids = s.exact(s.queries[some], min(s.asked + s.ties, s.rows))
            for found in reaching(scores, ids, s.own and s.own[some], s.k, s.ascending):
                self.good.append({name: at for at, name in enumerate(found)})
        self.neighbours = max(map(len, self.good))

    def _ranks(self, stages: Sequence[Stage], depth: int) -> Array:
        """Places, from 1 on, of neighbours in the lists by the last of some stages; inf if not there."""
        s = self.subject
        ranks = np.full((len(self.good), self.neighbours), np.inf)
        for some in s.chunks():
            lists = s.listed(s.queries[some], depth, list(stages))
            for row, listed in enumerate(lists.tolist(), some.start):
                good = self.good[row]
                for place, name in enumerate(listed, 1):
                    if name in good:
                        ranks[row, good[name]] = place
        return ranks

    def _bound(self, found: Array) -> tuple[float, float]:
        """Recall and its lower bound, given which neighbours (queries, neighbours) are found."""
        k = self.subject.k
        return lower_bound(np.minimum(found.sum(axis=1), k), k, self.confidence)

    def _seconds(self, stages: Sequence[Stage]) -> float:
        """What one query takes, the median of some; no stages: exact search."""
        s, times = self.subject, []
        for turn in range(-WARMING, TIMED):
            at = turn % len(self.good)
            query = s.queries[at : at + 1]
            begun = perf_counter()
            if stages:
                s.run(query, s.k, [*stages, s.last])
            else:
                s.exact(query, s.k)
            if turn >= 0:
                times.append(perf_counter() - begun)
        return median(times)

    def _firsts(self) -> list[tuple[float, Stage]]:
        """First stages that are faster than exact search, fastest first, and what they take with a short shortlist."""
        least = self._least()
        found = []
        for code, dims in self.subject.codes:
            stage = Stage(code, dims, least)
            seconds = self._seconds([stage])
            if seconds < self.exact_seconds:
                found.append((seconds, stage))
        return sorted(found, key=lambda one: one[0])

    def _least(self) -> int:
        return min(max(4 * self.subject.asked, 64), self.subject.rows)

    def _weigh(self, firsts: Sequence[tuple[float, Stage]]) -> None:
        """The shortest shortlist of each first stage that could be part of the fastest plan."""
        for seconds, stage in firsts:
            if seconds >= min((chain.seconds for chain in self.chains), default=math.inf):
                break
            self._tell(f"{stage.code} {stage.dims}")
            ranks = self._ranks([Stage(stage.code, stage.dims)], self.depth)
            chain = self._sized((), stage, ranks, np.ones(ranks.shape, bool))
            if chain is not None:
                taken = self._seconds(chain.stages)
                per_row = max(taken - seconds, 0.0) / max(chain.keep - self._least(), 1)
                self.chains.append(replace(chain, seconds=taken, per_row=per_row))

    def _sized(self, before: tuple[Stage, ...], stage: Stage, ranks: Array, reached: Array) -> Chain | None:
        """A chain whose last stage keeps as few rows as will do; None if no number does."""
        places = np.unique(ranks[reached & np.isfinite(ranks)])
        low, high = 0, len(places)
        while low < high:
            middle = (low + high) // 2
            enough = self._bound((ranks <= places[middle]) & reached)[1] >= self.recall
            low, high = (low, middle) if enough else (middle + 1, high)
        if low == len(places):
            return None
        keep = max(int(places[low]), self.subject.asked)
        share, lower = self._bound((ranks <= keep) & reached)
        return Chain((*before, replace(stage, keep=keep)), ranks, reached, math.inf, 0.0, share, lower)

    def _extend(self) -> None:
        """Try a further stage at the end of the fastest chains, where what comes after takes long enough."""
        for chain in sorted(self.chains, key=lambda chain: chain.seconds)[:PROMISING]:
            if chain.per_row * chain.keep < 0.15 * chain.seconds:
                continue
            for code, dims in self._finer(chain.stages[-1]):
                longer = self._longer(chain, Stage(code, dims))
                if longer is not None:
                    self.chains.append(longer)

    def _finer(self, stage: Stage) -> list[tuple[str, int]]:
        """Stages that may follow: more dims of the same code, or a finer code of as many dims or more."""
        order = {code: at for at, code in enumerate(dict.fromkeys(code for code, _ in self.subject.codes))}
        finer = [
            (code, dims)
            for code, dims in self.subject.codes
            if dims >= (stage.dims or 0)
            and order[code] >= order[stage.code]
            and (code, dims) != (stage.code, stage.dims)
        ]
        return sorted(finer, key=lambda one: -one[1])[:MIDDLES]

    def _longer(self, chain: Chain, stage: Stage) -> Chain | None:
        """The chain with a further stage, if that is faster: it keeps more, of which the new stage leaves fewer."""
        *before, last = chain.stages
        widest = min(int(WIDER[-1] * chain.keep), self.depth, *(one.keep or 0 for one in before))
        wide = [*before, replace(last, keep=widest)]
        least = min(self._least(), widest)
        without = chain.seconds - chain.per_row * chain.keep
        listing = (self._seconds([*wide, replace(stage, keep=least)]) - without) / widest
        best = 0.97 * min(chain.seconds for chain in self.chains)
        if without + listing * chain.keep >= best:  # whatever it leaves
            return None
        ranks = self._ranks([*wide, stage], widest)
        found: list[tuple[float, Chain]] = []
        for factor in WIDER:
            keep = min(int(factor * chain.keep), widest)
            reached = chain.reached & (chain.ranks <= keep)
            longer = self._sized((*before, replace(last, keep=keep)), stage, ranks, reached)
            if longer is not None and longer.keep < keep:
                found.append((without + listing * keep + chain.per_row * longer.keep, longer))
        cost, longer = min(found, key=lambda one: one[0], default=(math.inf, chain))
        if cost >= best:
            return None
        return replace(longer, seconds=self._seconds(longer.stages), per_row=chain.per_row)

    def _checked(self, chain: Chain) -> Chain:
        """The chain with what it really finds, longer where that is too little."""
        for _ in range(8):
            share, lower = self._measured(chain.stages)
            chain = replace(chain, expected=share, lower=lower)
            if lower >= self.recall:
                break
            longer = (min(math.ceil(1.2 * (one.keep or 1)), self.subject.rows) for one in chain.stages)
            stages = tuple(replace(one, keep=keep) for one, keep in zip(chain.stages, longer, strict=True))
            chain = replace(chain, stages=stages)
        return replace(chain, seconds=self._seconds(chain.stages))

    def _measured(self, stages: Sequence[Stage]) -> tuple[float, float]:
        s, found = self.subject, np.zeros((len(self.good), 1), np.int64)
        for some in s.chunks():
            ids = s.run(s.queries[some], s.asked, [*stages, s.last])[1]
            for row, listed in enumerate(ids.tolist(), some.start):
                found[row] = len(self.good[row].keys() & listed)
        return self._bound(found)

    def _finished(self, chain: Chain | None, warning: str = "") -> Plan:
        s = self.subject
        if chain is not None and (chain.lower < self.recall or chain.seconds >= self.exact_seconds):
            chain = None
        if warning:
            warnings.warn(f"exact search is used: {warning}", stacklevel=4)
        slowest_first = sorted(self.chains, key=lambda one: -one.seconds)
        kinds = {tuple((stage.code, stage.dims) for stage in one.stages): one for one in slowest_first}
        curve = [Point((*one.stages, s.last), one.expected, one.lower, one.seconds) for one in kinds.values()]
        self._tell("batches")
        plan = Plan(
            stages=(*chain.stages, s.last) if chain else (),
            k=s.k,
            dims=s.dims,
            recall=self.recall,
            confidence=self.confidence,
            expected=chain.expected if chain else 1.0,
            lower=chain.lower if chain else 1.0,
            queries=len(self.good),
            held_out=s.own is not None,
            rows=s.rows,
            seconds=chain.seconds if chain else self.exact_seconds,
            exact_seconds=self.exact_seconds,
            exact_from=self._exact_from(chain) if chain else None,
            backend=backends.describe()[0],
            curve=(*sorted(curve, key=lambda point: point.seconds), Point((), 1.0, 1.0, self.exact_seconds)),
            warning=warning,
        )
        self.done = self.total
        self._tell("done")
        return plan

    def _exact_from(self, chain: Chain) -> int | None:
        """The batch from which on exact search takes less for each query than the plan; None if none does."""
        s = self.subject
        before: tuple[int, float] = (1, self.exact_seconds / chain.seconds)
        for size in BATCHES:
            if size > len(self.good):
                break
            queries = s.queries[:size]
            ratios = []
            for _ in range(3):
                begun = perf_counter()
                s.run(queries, s.k, [*chain.stages, s.last])
                between = perf_counter()
                s.exact(queries, s.k)
                ratios.append((perf_counter() - between) / (between - begun))
            ratio = median(ratios)
            if ratio <= 1:  # between two sizes, where the ratio is 1 if it falls evenly by factors
                share = math.log(before[1]) / math.log(before[1] / ratio) if before[1] > 1 else 0.0
                return math.ceil(before[0] * math.pow(size / before[0], share))
            if perf_counter() - between > PATIENCE:
                break
            before = size, ratio
        return None
