"""Bags of tokens as kernels read them: exact MaxSim of listed documents, and certified MaxSim over all of them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import backends, parallel
from .planes import aligned, padded

Array = npt.NDArray[Any]

PANEL, LINE = 16, 64
RUN = 128  # tokens that a MaxSim kernel widens at a time
CALL_WORK = 2 * 10**8  # multiplications of a kernel call, at most: Ctrl-C is answered between calls
QUERY_VALUES = 2**18  # of the queries of a call, so that long documents take no longer
MARGIN = 2.0**-22  # relative, for each float32 rounding of a bound: four times what it needs


def scratch(tokens: int, dims: int) -> Array:
    """Room that MaxSim kernels need for so many query tokens."""
    columns = padded(tokens, PANEL)
    return aligned((padded(20 * columns + 4 * dims * (columns + RUN), LINE),), np.uint8)


@dataclass(frozen=True)
class CodedBags:
    """int8 codes of documents' tokens and what bounds need; see `nestvec.kernels.maxsim`."""

    codes: Array
    scales: Array
    sums: Array
    offsets: Array
    bounds: Array

    @classmethod
    def of(cls, x: Array, offsets: Array) -> CodedBags:
        """Codes of float32 tokens, with the room behind them that a scan may read."""
        count, width = len(x), padded(x.shape[1], 4)
        room = count + behind(width)
        codes, scales, sums = aligned((room, width), np.int8), aligned((room,), np.float32), aligned((room,), np.int32)
        bounds = np.empty((2, len(offsets) - 1), np.float32)
        backends.current().pack_bags(x, offsets, codes[:count], scales[:count], sums[:count], bounds)
        return cls(codes, scales, sums, offsets, bounds)


def behind(width: int) -> int:
    """Tokens' worth of bytes that a scan may read behind the last token: 15 more tokens, in steps of 64 bytes."""
    return PANEL - 1 + -(-(LINE + width) // width)


class CodedQueries(NamedTuple):
    """Queries as `scan_bags` reads them."""

    query_codes: Array
    query_steps: Array
    query_panels: Array
    query_bounds: Array


def coded_queries(q: Array, offsets: Array) -> CodedQueries:
    """int8 codes of query tokens (m, d) float32, each query in panels of its own."""
    lengths = np.diff(offsets)
    panels = np.concatenate(([0], np.cumsum(-(-lengths // PANEL))))
    place = np.arange(len(q)) + np.repeat(panels[:-1] * PANEL - offsets[:-1], lengths)
    wide = q.astype(np.float64)
    largest = np.abs(wide).max(axis=1, initial=0)
    steps = (np.where(largest > 0, largest, 1) / 127).astype(np.float32).astype(np.float64)
    steps[steps == 0] = np.finfo(np.float32).smallest_subnormal
    codes = np.clip(np.rint(wide / steps[:, None]), -127, 127)
    left = np.sqrt(((wide - codes * steps[:, None]) ** 2).sum(axis=1))
    norms = np.sqrt((wide**2).sum(axis=1))
    lines = padded(q.shape[1], 64) // 4
    query_codes = np.zeros((int(panels[-1]) * PANEL, lines * 4), np.uint8)
    query_codes[:, : padded(q.shape[1], 4)] = 128
    query_codes[place, : q.shape[1]] = codes.astype(np.int16) + 128
    query_steps = np.zeros(int(panels[-1]) * PANEL, np.float32)
    query_steps[place] = steps
    lines_first = query_codes.reshape(-1, PANEL, lines, 4).transpose(0, 2, 1, 3)
    relative = MARGIN * (16 + lengths)
    errors, margins = np.add.reduceat(norms + left, offsets[:-1]), np.add.reduceat(left, offsets[:-1])
    margins = (margins + relative * errors) * (1 + 2.0**-20)
    with np.errstate(over="ignore"):
        bounds = np.stack([errors * (1 + 2.0**-20), margins]).astype(np.float32)
        bounds = np.nextafter(bounds, np.float32(np.inf))  # up, also where denormal
    return CodedQueries(
        np.ascontiguousarray(lines_first).reshape(-1, lines, LINE), query_steps.reshape(-1, PANEL), panels, bounds
    )


class Bags(NamedTuple):
    """Documents as MaxSim kernels read them: `tokens` of type `suffix`, times `scales` unless empty."""

    tokens: Array
    scales: Array
    suffix: str
    offsets: Array


class BagQueries(NamedTuple):
    """Query tokens (m, d) float64 and where each query's begin."""

    tokens: Array
    offsets: Array

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def some(self, first: int, last: int) -> BagQueries:
        """Queries [`first`, `last`)."""
        at, end = self.offsets[[first, last]]
        return BagQueries(self.tokens[at:end], self.offsets[first : last + 1] - at)


def score(queries: BagQueries, bags: Bags, docs: Array, threads: int) -> Array:
    """Exact MaxSim (nq, c) float64 of the documents listed, in the order listed; -inf for those without tokens.

    Raises
    ------
    ValueError
        For NaN and Inf, naming token and column.
    """
    out = np.empty((len(queries), len(docs)))
    if queries.tokens.size <= QUERY_VALUES:
        _score(queries, bags, docs, threads, out)
        return out
    first = 0
    while first < len(queries):
        most = int(queries.offsets[first]) + QUERY_VALUES // queries.tokens.shape[1]
        last = max(int(np.searchsorted(queries.offsets, most, "right")) - 1, first + 1)
        _score(queries.some(first, last), bags, docs, threads, out[first:last])
        first = last
    return out


def _score(queries: BagQueries, bags: Bags, docs: Array, threads: int, out: Array) -> None:
    kernel = getattr(backends.current(), f"maxsim_{bags.suffix}")
    m, d = queries.tokens.shape

    def part(span: tuple[int, int]) -> int:
        first, last = span
        one = len(queries) == 1
        found = out[:, first:last] if one else np.empty((len(queries), last - first))
        some = docs[first:last]
        bad = kernel(*queries, bags.tokens, bags.scales, bags.offsets, some, scratch(m, d), found)
        if not one:
            out[:, first:last] = found
        return -1 if bad < 0 else int(some[bad])

    work = (bags.offsets[docs + 1] - bags.offsets[docs]) * (m * d)
    for bad in parallel.run(part, spans(work, threads), threads):
        if bad >= 0:
            first, last = bags.offsets[bad : bad + 2]
            raise not_finite(bags, int(first), int(last))


def spans(work: Array, threads: int) -> list[tuple[int, int]]:
    """Cuts of a list with so much work for each entry: one for each thread, and short enough to answer Ctrl-C."""
    done = np.cumsum(work)
    total = int(done[-1]) if len(done) else 0
    pieces = max(threads, -(-total // CALL_WORK))
    if pieces == 1:
        return [(0, len(work))]
    cuts = np.unique([0, *np.searchsorted(done, np.linspace(0, total, pieces + 1)[1:-1]), len(work)])
    return list(pairwise(cuts.tolist()))


def not_finite(bags: Bags, first: int, last: int) -> ValueError:
    """What to raise for tokens that hold NaN or Inf."""
    tokens = bags.tokens[first:last]
    if bags.suffix != "f32":
        wide = np.empty(tokens.shape, np.float32)
        bits, high = tokens.astype(np.uint32), {"f16": 0x7C00, "bf16": 0x7F80}[bags.suffix]
        wide[:] = np.where(bits & high == high, np.where(bits & 0x7FFF == high, np.inf, np.nan), 0)
        tokens = wide
    token, column = (int(at[0]) for at in np.nonzero(~np.isfinite(tokens)))
    where = f"token {first + token}, column {column}"
    return ValueError(f"docs holds {tokens[token, column]} at {where}; only finite values can be scored")


def best(scores: Array, ids: Array, k: int) -> tuple[Array, Array]:
    """The k best of (n,) scores, best first, ties by smaller id; documents that score -inf are none."""
    if len(scores) > 4 * k:
        kept = np.flatnonzero(scores >= np.partition(scores, len(scores) - k)[len(scores) - k])
        scores, ids = scores[kept], ids[kept]
    order = np.lexsort((ids, -scores))[:k]
    order = order[scores[order] > -np.inf]
    return scores[order], ids[order]
