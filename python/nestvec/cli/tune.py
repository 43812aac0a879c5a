"""`nestvec tune`: the cheapest plan that reaches a recall, kept in the index's file."""

from __future__ import annotations

import warnings

import click

from . import options
from .opening import opened, queries
from .output import show
from .progress import Bar


@click.command(short_help="Find the cheapest plan that reaches a recall.")
@click.argument("file", metavar="INDEX")
@options.queries
@options.k
@options.recall
@click.option(
    "--confidence",
    type=click.FloatRange(0.5, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="How sure the recall is to be reached by further queries like these.",
)
@options.dims
@options.bits
@options.sample
@options.seed
@options.key
@click.option("--save/--no-save", default=True, show_default=True, help="Keep the plan in INDEX.")
@options.quick
@options.threads
@options.as_json
def tune(
    file: str,
    queries_: str | None,
    k: int,
    recall: float,
    confidence: float,
    dims: int | None,
    bits: int | None,
    sample: int,
    seed: int,
    key: str | None,
    save: bool,
    quick_open: bool,
    threads: int | None,
    as_json: bool,
) -> None:
    """Find the cheapest plan for INDEX that reaches a recall, show what was weighed, and keep it in INDEX.

    From then on nestvec search --recall and index.search(recall=) use it. Give queries like those to come if you have
    some: rows are often easier to find than they are.

    \b
    nestvec tune vectors.nv --queries sample.npy -k 10 --recall 0.99
    """
    with Bar() as bar:
        index = opened(file, bar, quick_open)
        given = None if queries_ is None else queries(index, queries_, key)
        wide = options.plan_dims(options.depth(index, dims, bits))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # the plan says the same
            plan = index.tune(
                given, k, recall, confidence, dims=wide, sample=sample, seed=seed, threads=threads, progress=bar
            )
        if save:
            bar(0, 0, "saving")
            index.save(file)
    if as_json:
        show({"file": file, "saved": save, **plan.to_dict()}, as_json)
    else:
        print(plan)
        if save:
            print(f"kept in {file}")
