"""How the demo's findings are shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import shorten
from typing import Protocol

from rich import box
from rich.table import Column, Table
from rich.text import Text

from .corpus import Entry
from .measure import Depth, Outcome, Quality
from .methods import K

_NOTES = """\
A query is the first sentence of a docstring; the one answer that counts is the rest of that docstring, \
among {n:,}. Overlap is with the exact top-{k} in all {d} dims. KB are those of the int8 codes and bounds of all rows, \
and of the few float32 rows that these cannot decide. "1 query" is the median of queries \
searched one at a time, "batch" the mean with all of them at hand. nestvec searches one index at every \
depth; numpy searches float32 prefixes that were copied and normalised beforehand.
The vectors are means of wordllama token vectors. Their prefixes were trained (Matryoshka), yet are only a \
bit better than a random projection to the same width: with stronger prefixes, 32 and 64 dims lose less."""
_METHOD_NOTES = """\
A bit says whether a coordinate of the vector, scaled to length 1, is above that coordinate's mean over all answers: \
nv.BinaryIndex(..., thresholds=mean) for Hamming, while Stage("b1") of the index above takes the mean itself.
Hamming distance rounds the query to bits as well; the float query reads the same bits and a few bytes of factors a \
row, and is worth what it finds more, but both are estimates of the order by cosine. Reranking computes exact \
cosines of the rows on a shortlist and loses only what the estimates left off it, so that nothing but exact search, \
the last line of either table, is sure of all {k}."""
_UNITS = "microseconds per query, one thread"
QUALITY = (f"overlap\n@{K}", f"recall\n@{K}", f"MRR\n@{K}")


class Docstrings(Protocol):
    """What a report says of a library, however it is searched."""

    @property
    def entries(self) -> Sequence[Entry]: ...
    @property
    def known_items(self) -> int: ...
    @property
    def seconds(self) -> Mapping[str, float]: ...


def summary(library: Docstrings) -> str:
    """Say how much was indexed and how long it took.

    Parameters
    ----------
    library : Docstrings

    Returns
    -------
    str
        One line.

    Examples
    --------
    >>> summary(library)  # doctest: +SKIP
    """
    times = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in library.seconds.items())
    return f"{len(library.entries):,} documented objects, {library.known_items:,} known items: {times}."


def depth_table(depths: Sequence[Depth]) -> Table:
    """Lay out the measurements, one line per depth.

    Parameters
    ----------
    depths : sequence of Depth

    Returns
    -------
    rich.table.Table
        Fits 80 columns.

    Examples
    --------
    >>> depth_table([]).row_count
    0
    """
    table = empty_table(
        f"Exact search at every depth: {_UNITS}",
        ("dims", *QUALITY, "KB\nread", "nestvec\n1 query", "numpy\n1 query", "nestvec\nbatch", "numpy\nbatch"),
    )
    for depth in depths:
        table.add_row(
            str(depth.dims),
            *shares(depth.nestvec),
            f"{depth.nestvec.read_bytes / 1000:,.0f}",
            f"{depth.nestvec.single_us:,.0f}",
            f"{depth.numpy_single_us:,.0f}",
            f"{depth.nestvec.batch_us:,.1f}",
            f"{depth.numpy_batch_us:,.1f}",
        )
    return table


def method_table(methods: Mapping[str, Outcome]) -> Table:
    """Lay out the measurements, one line per way to search.

    Parameters
    ----------
    methods : mapping of str to Outcome

    Returns
    -------
    rich.table.Table
        Fits 80 columns.

    Examples
    --------
    >>> method_table({"exact": Outcome(1, 1, 1, 64, 64_000, 10, 1)}).row_count
    1
    """
    table = empty_table(
        f"Search by sign bits: {_UNITS}",
        ("", "bytes\na row", "KB\nread", *QUALITY, "1 query", "batch"),
    )
    table.columns[0].justify = "left"
    for name, outcome in methods.items():
        table.add_row(
            name,
            f"{outcome.row_bytes:,.0f}",
            f"{outcome.read_bytes / 1000:,.0f}",
            *shares(outcome),
            f"{outcome.single_us:,.0f}",
            f"{outcome.batch_us:,.1f}",
        )
    return table


def empty_table(title: str, headings: Sequence[str]) -> Table:
    """Headings with two spaces between them, so that nine fit 80 columns, and no line yet."""
    table = Table(title=title, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        table.add_column(heading, justify="right")
    return table


def shares(found: Quality) -> list[str]:
    """Cells under `QUALITY`."""
    return [f"{share:.3f}" for share in (found.overlap, found.recall, found.reciprocal_rank)]


def notes(depths: Sequence[Depth]) -> str:
    """Say whether nestvec's answers are the exact ones, what the figures mean and what data they are from.

    Parameters
    ----------
    depths : sequence of Depth
        At least one, the full depth last.

    Returns
    -------
    str
        Sentences to print under the table.

    Examples
    --------
    >>> notes(depths)  # doctest: +SKIP
    """
    searches = sum(depth.queries for depth in depths)
    equal = sum(depth.equal_queries for depth in depths)
    check = f"Exactness: {equal:,} of {searches:,} searches gave the ids of float64 brute force, ties by id."
    if equal < searches:
        gap = max(depth.largest_gap for depth in depths)
        check += f" Where they differ, the cosines at the same rank differ by at most {gap:.1e}."
    text = f"{check}\n{_NOTES.format(k=K, d=depths[-1].dims, n=depths[-1].queries)}"
    slower = sum(
        (depth.numpy_single_us < depth.nestvec.single_us) + (depth.numpy_batch_us < depth.nestvec.batch_us)
        for depth in depths
    )
    if slower:
        text += (
            f"\nnumpy is faster in {slower} of {2 * len(depths)} timings here: with so few rows, the fixed "
            "cost of a search outweighs the reading that it saves."
        )
    return text


def method_notes(methods: Mapping[str, Outcome]) -> str:
    """Say what the sign bits are, which lines are estimates, and whether they paid off.

    Parameters
    ----------
    methods : mapping of str to Outcome
        Exact search last.

    Returns
    -------
    str
        Sentences to print under the table.

    Examples
    --------
    >>> bits, exact = Outcome(0.5, 1, 1, 8, 8000, 9, 9), Outcome(1, 1, 1, 76, 76_000, 10, 1)
    >>> "faster in 1 of 2 timings" in method_notes({"Hamming": bits, "exact search": exact})
    True
    """
    *others, exact = methods.values()
    slower = sum((exact.single_us < other.single_us) + (exact.batch_us < other.batch_us) for other in others)
    text = _METHOD_NOTES.format(k=K)
    if slower:
        text += (
            f"\nExact search is faster in {slower} of {2 * len(others)} timings here: plans take a batch query by "
            "query, and with so few rows, the fixed cost of a search outweighs the reading that bits save."
        )
    return text


def answer_table(answers: Sequence[tuple[float, Entry]]) -> Table:
    """Lay out answers, one line each: score, object, first sentence.

    Parameters
    ----------
    answers : sequence of (float, Entry)
        Score and object, best first.

    Returns
    -------
    rich.table.Table
        Without borders.

    Examples
    --------
    >>> answer_table([(0.5, Entry("heapq.merge", "Merge sorted inputs.", ""))]).row_count
    1
    """
    # A qualified name has no place to wrap at; folding keeps it whole on a narrow terminal.
    table = Table.grid("", Column(overflow="fold"), "", padding=(0, 2))
    for score, entry in answers:
        # Docstrings may contain square brackets, which are markup in plain strings.
        table.add_row(f"{score:.3f}", Text(entry.name, style="bold"), Text(shorten(entry.sentence, 160)))
    return table


def as_dict(
    library: Docstrings, found: Mapping[str, object], answers: Sequence[tuple[float, Entry]]
) -> dict[str, object]:
    """Gather everything shown in one JSON-ready object.

    Parameters
    ----------
    library : Docstrings
    found : mapping of str to object
        Measurements, JSON-ready.
    answers : sequence of (float, Entry)

    Returns
    -------
    dict
        `objects`, `known_items`, `seconds`, the measurements and `answers`.

    Examples
    --------
    >>> as_dict(library, {}, [])  # doctest: +SKIP
    """
    return {
        "objects": len(library.entries),
        "known_items": library.known_items,
        "seconds": library.seconds,
        **found,
        "answers": [{"score": score, "name": entry.name, "sentence": entry.sentence} for score, entry in answers],
    }
