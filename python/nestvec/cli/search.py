"""`nestvec search`: the best rows of an index for queries from a file or stdin."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from ..binary import BinaryIndex
from ..multivector import MultiVectorIndex
from ..slices import joined
from . import inputs, options
from .opening import Index, Queries, opened, queries
from .output import note, printable, table
from .progress import Bar
from .results import Results, refuse_unknown, write

Array = npt.NDArray[Any]

PART, BAGS = 1024, 64  # queries searched at a time: enough to share the scans, few enough for the bar to move


@click.command(short_help="Find the best rows for queries.")
@click.argument("file", metavar="INDEX")
@click.argument("source", metavar="QUERIES")
@click.option("-k", "--k", type=options.COUNT, help="Results per query; default 10.")
@options.dims
@options.bits
@click.option("--recall", type=click.FloatRange(0, 1), help="Search by the tuned plan that meets it; default: exactly.")
@click.option("--radius", type=float, help="All rows at least as good, instead of the best k; --metric l2: as near.")
@click.option(
    "--filter",
    "allowed",
    metavar="FILE|A:B",
    help="Only these ids: a file of ids, or of a boolean for each id, or for each query and id; or ids A to B - 1.",
)
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), help="Write .npz, .parquet or .csv.")
@click.option("--show", type=click.IntRange(min=0), default=10, show_default=True, help="Queries to print results of.")
@options.key
@options.quick
@options.threads
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each query.")
def search(
    file: str,
    source: str,
    k: int | None,
    dims: int | None,
    bits: int | None,
    recall: float | None,
    radius: float | None,
    allowed: str | None,
    out: Path | None,
    show: int,
    key: str | None,
    quick_open: bool,
    threads: int | None,
    as_json: bool,
) -> None:
    """Search INDEX for QUERIES, exactly unless --recall is given.

    QUERIES are a file as VECTORS of build, or '-' for stdin: a .npy stream, or text with one vector a line, as a JSON
    list or numbers between blanks. Queries of a multi-vector index are bags: an .npz with tokens and offsets, an array
    (m, d) or (n, m, d), or a JSON list of lists a line.

    \b
    nestvec search vectors.nv queries.npy -k 10 --recall 0.99
    nestvec search vectors.nv queries.npy --dims 128 --filter 0:5000 --out found.csv
    echo "[0.1, 0.2, 0.3]" | nestvec search vectors.nv - --json
    """
    if radius is not None and (k is not None or recall is not None):
        raise click.UsageError("--radius finds all rows within it, exactly; leave out -k and --recall")
    if out is not None:
        refuse_unknown(out)
    with Bar() as bar:
        index = opened(file, bar, quick_open)
        asked: dict[str, Any] = {**options.depth(index, dims, bits), "threads": threads}
        ids = None if allowed is None else _allowed(allowed, index)
        wanted = queries(index, source, key)
        known = () if recall is None else index.plans
        if radius is not None:
            found = _within(index, wanted, radius, ids, bar, asked)
        else:
            found = _best(index, wanted, k or 10, recall, ids, bar, asked)
    if recall is not None and index.plans != known:
        note(f"tuned for this search alone; nestvec tune {file} -k {k or 10} --recall {recall:g} keeps the plan")
    _print(found, show if not (out or as_json) else None, as_json)
    if out is not None:
        write(found, out)
        if not as_json:
            print(f"{out}: {found.count:,} results of {len(found):,} queries")


def _allowed(given: str, index: Index) -> Any:
    if re.fullmatch(r"\d*:\d*", given):
        return slice(*(int(end) if end else None for end in given.split(":")))
    ids = inputs.ids(given)
    if ids.dtype == object and index.ids.dtype != object:
        raise click.UsageError(f"--filter {given}: {ids[0]!r} is no id; those of this index are integers")
    return ids


def _parts(index: Index, wanted: Queries, ids: Any, bar: Bar) -> Iterator[tuple[Queries, Any]]:
    """Some queries at a time, with the filter of each if there is one for each."""
    step = BAGS if isinstance(index, MultiVectorIndex) else PART
    each = isinstance(ids, np.ndarray) and ids.ndim == 2
    if each and len(ids) != len(wanted):
        raise click.UsageError(f"--filter has a row for each of {len(ids)} queries, there are {len(wanted)}")
    for at in range(0, len(wanted), step):
        bar(at, len(wanted), "searching")
        some = slice(at, at + step)
        yield wanted[some], ids[some] if each else ids


def _best(
    index: Index, wanted: Queries, k: int, recall: float | None, ids: Any, bar: Bar, asked: dict[str, Any]
) -> Results:
    if recall is not None:
        asked = {**asked, "recall": recall}
    search: Any = index.search
    found = [search(some, k, filter=own, **asked) for some, own in _parts(index, wanted, ids, bar)]
    scores, named = (np.concatenate(part) for part in zip(*found, strict=True))
    return Results.of_table(scores, named)


def _within(index: Index, wanted: Queries, radius: float, ids: Any, bar: Bar, asked: dict[str, Any]) -> Results:
    if isinstance(index, BinaryIndex):
        if not radius.is_integer():
            raise click.UsageError(f"--radius of binary codes is a number of bits, got {radius}")
        radius = int(radius)
    search: Any = index.range_search
    found = [search(some, radius, filter=own, **asked) for some, own in _parts(index, wanted, ids, bar)]
    counts = np.concatenate([np.diff(lims) for lims, _, _ in found])
    scores, named = (joined([part[i] for part in found]) for i in (1, 2))
    return Results(np.concatenate([[0], np.cumsum(counts)]), scores, named)


def _print(found: Results, show: int | None, as_json: bool) -> None:
    if as_json:
        for query in range(len(found)):
            scores, ids = found[query]
            print(json.dumps({"query": query, "ids": ids.tolist(), "scores": [float(str(score)) for score in scores]}))
    elif show:
        rows = [
            (str(query), str(rank), printable(str(one)), str(score))
            for query in range(min(show, len(found)))
            for rank, (score, one) in enumerate(zip(*found[query], strict=True), 1)
        ]
        table(("query", "rank", "id", "score"), rows, left=0)
        if show < len(found):
            note(f"showing {show} of {len(found):,} queries; --show, --json or --out give more")
