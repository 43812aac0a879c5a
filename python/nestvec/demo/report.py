"""How the demo's findings are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from textwrap import shorten

from rich.table import Column, Table
from rich.text import Text

from .corpus import Entry
from .library import Library
from .measure import Depth, K

_NOTES = """\
A query is the first sentence of a docstring; the one answer that counts is the rest of that docstring, \
among {n:,}. Overlap is with the exact top-{k} in all {d} dims. KB are those of the int8 plane, rows x dims; \
the few rows that int8 scores cannot decide are also read as float32. "1 query" is the median of queries \
searched one at a time, "batch" the mean with all of them at hand. nestvec searches one index at every \
depth; numpy searches float32 prefixes that were copied and normalised beforehand.
The vectors are means of wordllama token vectors. Their prefixes were trained (Matryoshka), yet are only a \
bit better than a random projection to the same width: with stronger prefixes, 32 and 64 dims lose less."""


def summary(library: Library) -> str:
    """Say how much was indexed and how long it took.

    Parameters
    ----------
    library : Library

    Returns
    -------
    str
        One line.

    Examples
    --------
    >>> summary(library)  # doctest: +SKIP
    """
    times = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in library.seconds.items())
    return f"{len(library.entries):,} documented objects, {len(library.remainders):,} known items: {times}."


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
    table = Table(title="Known-item search at every depth; times in microseconds per query, one thread")
    found = ("dims", f"overlap\n@{K}", f"recall\n@{K}", f"MRR\n@{K}", "int8\nKB read")
    taken = ("nestvec\n1 query", "numpy\n1 query", "nestvec\nbatch", "numpy\nbatch")
    for heading in (*found, *taken):
        table.add_column(heading, justify="right")
    for depth in depths:
        table.add_row(
            str(depth.dims),
            f"{depth.overlap:.3f}",
            f"{depth.recall:.3f}",
            f"{depth.reciprocal_rank:.3f}",
            f"{depth.int8_bytes / 1000:,.0f}",
            f"{depth.nestvec_single_us:,.0f}",
            f"{depth.numpy_single_us:,.0f}",
            f"{depth.nestvec_batch_us:,.1f}",
            f"{depth.numpy_batch_us:,.1f}",
        )
    return table


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
        (depth.numpy_single_us < depth.nestvec_single_us) + (depth.numpy_batch_us < depth.nestvec_batch_us)
        for depth in depths
    )
    if slower:
        text += (
            f"\nnumpy is faster in {slower} of {2 * len(depths)} timings here: with so few rows, the fixed "
            "cost of a search outweighs the reading that it saves."
        )
    return text


def answer_table(answers: Sequence[tuple[float, Entry]]) -> Table:
    """Lay out answers, one line each: score, object, first sentence.

    Parameters
    ----------
    answers : sequence of (float, Entry)
        Cosine and object, best first.

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


def as_dict(library: Library, depths: Sequence[Depth], answers: Sequence[tuple[float, Entry]]) -> dict[str, object]:
    """Gather everything shown in one JSON-ready object.

    Parameters
    ----------
    library : Library
    depths : sequence of Depth
    answers : sequence of (float, Entry)

    Returns
    -------
    dict
        `objects`, `known_items`, `seconds`, `depths` and `answers`.

    Examples
    --------
    >>> as_dict(library, [], [])  # doctest: +SKIP
    """
    return {
        "objects": len(library.entries),
        "known_items": len(library.remainders),
        "seconds": library.seconds,
        "depths": [asdict(depth) for depth in depths],
        "answers": [{"score": score, "name": entry.name, "sentence": entry.sentence} for score, entry in answers],
    }
