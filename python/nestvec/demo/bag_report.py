"""How the findings about bags of token vectors are shown."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from .bags import EXACT, MEANS, NUMPY, BagOutcome, Findings
from .methods import K
from .report import QUALITY, empty_table, shares

_NOTES = """\
A query is the first sentence of a docstring; the one answer that counts is the rest of that docstring, among \
{known:,}. They are bags of {m:.0f} and {n:.0f} token vectors on average. MaxSim adds up, for each query token, its \
largest inner product with a token of the document. Overlap is with the exact top-{k} by MaxSim, which only scoring \
all documents is sure to find. An encoding estimates the order by one bit for each of its {values:,} values, and \
MaxSim orders a shortlist by that. Bytes are those that a search looks at in every document; the index holds \
{index:,.0f} MB, with tokens as float16, and that of the mean vectors {means:,.0f} MB. "1 query" is the median \
of {queries} queries searched one at a time, encoding them included; numpy reads float32 tokens that were joined \
beforehand, and takes any of equal scores.
wordllama's token vectors are static: a token has the same one in every text. This is no ColBERT, whose vectors depend \
on the text around and are trained for MaxSim. Tokens of documents have length 1, those of queries the length they \
came with, a weight that was learnt for means. So overlap and time say what shortlists keep and cost, but recall does \
not say what MaxSim is worth."""


def bag_table(methods: Mapping[str, BagOutcome]) -> Table:
    """Lay out the measurements, one line per way to search.

    Parameters
    ----------
    methods : mapping of str to BagOutcome

    Returns
    -------
    rich.table.Table
        Fits 80 columns.

    Examples
    --------
    >>> bag_table({"exact MaxSim": BagOutcome(1, 1, 1, 22_000, 10)}).row_count
    1
    """
    table = empty_table(
        "MaxSim of token vectors: milliseconds per query, one thread",
        ("", *QUALITY, "bytes a\ndocument", "1 query"),
    )
    table.columns[0].justify = "left"
    for name, outcome in methods.items():
        table.add_row(name, *shares(outcome), f"{outcome.document_bytes:,.0f}", f"{outcome.single_ms:,.2f}")
    return table


def bag_notes(findings: Findings) -> str:
    """Say whether MaxSim is exact, what the figures mean, and where it or nestvec did not pay off.

    Parameters
    ----------
    findings : Findings
        With lines for mean vectors, exact MaxSim and numpy.

    Returns
    -------
    str
        Sentences to print under the table.

    Examples
    --------
    >>> bag_notes(findings)  # doctest: +SKIP
    """
    check = (
        f"Exactness: {findings.equal_queries:,} of {findings.queries:,} searches gave the ids of float64 MaxSim "
        "in numpy over the tokens as stored, ties by id."
    )
    if findings.equal_queries < findings.queries:
        check += f" Where they differ, the scores at the same rank differ by at most {findings.largest_gap:.1e}."
    text = _NOTES.format(
        known=findings.documents,
        m=findings.query_tokens,
        n=findings.document_tokens,
        k=K,
        values=findings.encoding_values,
        index=findings.index_bytes / 1e6,
        means=findings.mean_index_bytes / 1e6,
        queries=findings.queries,
    )
    return "\n".join([check, text, *_losses(findings)])


def _losses(findings: Findings) -> list[str]:
    """What the measurements say against MaxSim, against shortlists, and against nestvec."""
    methods = findings.methods
    means, exact, numpy = (methods[name] for name in (MEANS, EXACT, NUMPY))
    estimates = {name: outcome for name, outcome in methods.items() if name not in (MEANS, EXACT, NUMPY)}
    losses = []
    if means.recall > exact.recall:
        losses.append(
            f"Mean vectors have more recall than exact MaxSim here, {means.recall:.3f} against {exact.recall:.3f}, "
            f"in {means.single_ms / exact.single_ms:.1%} of its time: MaxSim favours long documents, with "
            f"{findings.found_tokens:.0f} tokens on average among its top-{K}."
        )
    if any(outcome.recall > exact.recall for outcome in estimates.values()):
        losses.append(
            "Estimates with more recall than exact MaxSim owe it to what they miss: documents that MaxSim ranks high."
        )
    if slow := [name for name, outcome in estimates.items() if outcome.single_ms > exact.single_ms]:
        losses.append(f"Slower than exact MaxSim, hence no use here: {', '.join(slow)}.")
    if slow := [name for name in (EXACT, *estimates) if methods[name].single_ms > numpy.single_ms]:
        losses.append(f"numpy's exact MaxSim is faster than: {', '.join(slow)}.")
    return losses
