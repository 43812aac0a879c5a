"""`nestvec bench`: what searches of an index take here, and what they find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from .. import backends, parallel, tuning
from ..binary import BinaryIndex
from ..multivector import MultiVectorIndex
from ..plan import Plan, Point
from . import options
from .compare import by_faiss
from .opening import Index, Queries, opened, queries, sampled
from .output import note, show, table
from .progress import Bar

Array = npt.NDArray[Any]
Method = Callable[[Queries], Array]

SINGLE = 20  # queries of a round that are also asked alone
TIES = 1024  # results beyond k that are looked at for scores that equal the k-th, any of which will do


@dataclass
class Timing:
    """Seconds a query, alone and in a batch, of each round; and the share of exact results found."""

    alone: list[float] = field(default_factory=list)
    batch: list[float] = field(default_factory=list)
    recall: float = 1.0

    def described(self) -> dict[str, float]:
        """Medians in milliseconds."""
        return {
            "one_ms": round(median(self.alone) * 1e3, 6),
            "batch_ms": round(median(self.batch) * 1e3, 6),
            "recall": round(self.recall, 6),
        }


@click.command(short_help="Measure searches of an index.")
@click.argument("file", metavar="INDEX")
@options.queries
@options.k
@options.recall
@options.dims
@options.bits
@click.option("--sample", type=options.COUNT, default=200, show_default=True, help="Queries to ask, at most.")
@options.seed
@click.option("--rounds", type=click.IntRange(min=5), default=5, show_default=True, help="Medians are of so many.")
@click.option("--compare", is_flag=True, help="Measure faiss, if installed, in the same rounds.")
@options.key
@options.quick
@options.threads
@options.as_json
def bench(
    file: str,
    queries_: str | None,
    k: int,
    recall: float,
    dims: int | None,
    bits: int | None,
    sample: int,
    seed: int,
    rounds: int,
    compare: bool,
    key: str | None,
    quick_open: bool,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure exact search and the tuned plan of INDEX: median milliseconds a query, alone and in a batch, and recall.

    Methods take turns in every round. Without a plan in INDEX one is tuned first, and not kept. Without --queries rows
    are searched for; that they find themselves does not count.

    \b
    nestvec bench vectors.nv --queries sample.npy -k 10 --compare --threads 1
    """
    with Bar() as bar:
        index = opened(file, bar, quick_open)
        depth = options.depth(index, dims, bits)
        asked, own = _questions(index, queries_, key, sample, seed, k)
        plan = _plan(index, file, k, recall, depth, asked if own is None else None, threads, bar)
        fixed: dict[str, Any] = {**depth, "threads": threads}
        methods = {"exact": _searching(index, k, **fixed, **_exactly(index))}
        if plan.stages:
            methods["plan"] = _searching(index, k, plan=plan, **fixed)
        if compare:
            bar(0, 0, "copying rows for faiss")
            name, method = by_faiss(index, k, options.plan_dims(depth), threads or parallel.cores())
            methods[name] = method
        timings = measured(methods, asked, rounds, bar)
        good, need = reaching(index, asked, own, k, **fixed, **_exactly(index))
        for name, method in methods.items():
            timings[name].recall = recall_of(method(asked), good, need)
    facts = {"file": file, "kind": type(index).__name__, "rows": index.ntotal, "k": k, **depth, "batch": len(asked)}
    facts |= {"threads": threads or parallel.cores(), "backend": backends.describe()[0], "rounds": rounds}
    facts |= {"queries": queries_ or "rows", "plan": plan.to_dict()}
    results = {name: timing.described() for name, timing in timings.items()}
    if as_json:
        show({**facts, "methods": results}, as_json)
    else:
        _print(facts, results, plan, k)


def _questions(
    index: Index, name: str | None, key: str | None, sample: int, seed: int, k: int
) -> tuple[Queries, Array | None]:
    """Queries, and the id of the row that each of them is, if they are rows."""
    if name is not None:
        return queries(index, name, key)[:sample], None
    if k == 1 or index.ntotal == 1:
        raise click.UsageError("rows find themselves first: -k 1 says nothing of them; give --queries, or a larger -k")
    ids, asked = sampled(index, sample, seed)
    return asked, ids


def _plan(
    index: Index,
    file: str,
    k: int,
    recall: float,
    depth: dict[str, int],
    asked: Queries | None,
    threads: int | None,
    bar: Bar,
) -> Plan:
    """The plan that the file holds for this, or one tuned now."""
    dims = options.plan_dims(depth)
    for plan in index.plans:
        if (plan.k, plan.recall, plan.dims) == (k, recall, index._width(dims)):
            return plan
    note(f"{file} has no plan for k {k} and recall {recall:g}; tuning one, which nestvec tune keeps")
    return index.tune(asked, k, recall, dims=dims, threads=threads, progress=bar)


def _searching(index: Index, k: int, **fixed: Any) -> Method:
    search: Any = index.search
    return lambda asked: np.asarray(search(asked, k, **fixed)[1])


def _exactly(index: Index) -> dict[str, Any]:
    return {"exact": True} if isinstance(index, MultiVectorIndex) else {}


def measured(methods: dict[str, Method], asked: Queries, rounds: int, bar: Bar) -> dict[str, Timing]:
    """Times of methods that take turns, after each had one to warm up."""
    timings = {name: Timing() for name in methods}
    alone = [asked[i : i + 1] for i in range(min(SINGLE, len(asked)))]
    for number in range(rounds + 1):
        for name, method in methods.items():
            bar(number, rounds + 1, "measuring")
            alike = [(timings[name].alone, one) for one in alone]
            for times, some in (*alike, (timings[name].batch, asked)):
                began = perf_counter()
                method(some)
                if number:
                    times.append((perf_counter() - began) / len(some))
    return timings


def reaching(index: Index, asked: Queries, own: Array | None, k: int, **fixed: Any) -> tuple[list[set[Any]], int]:
    """For each query all ids whose exact score reaches that of the last result, itself aside; and how many to find."""
    search: Any = index.search
    scores, ids = search(asked, min(k + TIES, index.ntotal), **fixed)
    ascending = isinstance(index, BinaryIndex) or getattr(index, "metric", "") == "l2"
    need = min(k, index.ntotal) - (own is not None)
    found = tuning.reaching(scores, ids, None if own is None else own.tolist(), need, ascending)
    return [set(some) for some in found], need


def recall_of(found: Array, good: list[set[Any]], need: int) -> float:
    """Share of the results to be found; ids (n, k)."""
    return float(
        np.mean([min(len(some & {*row}), need) / need for some, row in zip(good, found.tolist(), strict=True)])
    )


def _print(facts: dict[str, Any], results: dict[str, dict[str, float]], plan: Plan, k: int) -> None:
    batch, count = facts["batch"], facts["threads"]
    print(f"{facts['file']}: {facts['kind']}, {facts['rows']:,} rows; {facts['backend']}, {count} threads at most")
    print(f"plan: {Point(plan.stages, 0, 0, 0)}, tuned for recall {plan.recall:g}")
    rows = [
        (name, f"{one['one_ms']:.3f}", f"{one['batch_ms']:.4f}", f"{one['recall']:.4f}")
        for name, one in results.items()
    ]
    table(("ms a query", "alone", f"of {batch} at once", f"recall@{k}"), rows)
