"""Why the answer of an exact search is exact: how many rows the upper bounds leave, and how far off the others are.

A second pass over the int8 planes takes the bounds that scans take, level by level and bit for bit, against thresholds
that are final from the beginning. It is plain numpy: a diagnosis, and slower than the search.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import backends, gather, parallel, slices
from .arrays import METRICS
from .parts import Part, Task
from .plan import Certificate, Explanation
from .planes import BLOCK, TILE, Segment, level_widths, padded
from .search import Packed, packed_part
from .tombstones import to_bools

Array = npt.NDArray[Any]

ROWS, VALUES, QUERIES = 1024, 2**21, 64  # whose bounds are taken at a time, at most: rows, their codes, queries
EXACT_DIMS = 512  # sums of products of int8 codes of up to 1024 dims are float32 values
HUGE = np.float32(3e38)


class Bounds(NamedTuple):
    """What the bounds of rows [`first`, `last`) of a segment are made of; see `nestvec.kernels.scan`."""

    segment: Segment
    first: int
    last: int
    ends: Array  # of levels
    metric: str

    def codes(self, level: int) -> Array:
        """int8 codes of a level, (rows, dims padded to 4) float32."""
        width = int(level_widths(self.ends, 4)[level])
        start = int(self.segment.starts[level])
        some = self.segment.codes[start + self.first * width : start + padded(self.last, TILE) * width]
        rows = some.reshape(-1, width // 4, TILE, 4).transpose(0, 2, 1, 3).reshape(-1, width)
        return rows[: self.last - self.first].astype(np.float32) - np.float32(128)

    def stat(self, row: int) -> Array:
        """A row of ``stats``."""
        return self.segment.stats[row, self.first : self.last]

    def most(self, row: int) -> Array:
        """A row of ``blocks``, for each row of the segment that of its block."""
        some = self.segment.blocks[row, self.first // BLOCK : -(-self.last // BLOCK)]
        return some.repeat(BLOCK)[: self.last - self.first]

    def units(self) -> tuple[Array, Array]:
        """What a bound is multiplied by, and what is taken off it, times the reciprocal of the query's step."""
        scale, norm = self.stat(0), self.stat(len(self.ends))
        half = np.zeros(len(scale), np.float32)
        if self.metric == "cosine":
            return np.where(norm > 0, np.float32(1) / norm, np.float32(0)), half
        if self.metric == "l2":
            low = scale * np.maximum(norm - np.float32(2e-30), np.float32(0))
            half = low * np.float32(0.49999) * low - np.float32(1e-44)
            half = np.clip(half, np.float32(0), HUGE)
        return scale, half

    def slack(self, queries: Packed, level: int) -> tuple[Array, Array]:
        """What codes may hide of the prefix of a level, and what may lie behind it, (queries, rows)."""
        stored, levels = len(self.segment.starts), len(self.ends)
        count, last = len(queries.counts), level == levels - 1
        of_error, of_norm, of_rest = (queries.stats[i * levels + level, :count, None] for i in range(3))
        if last:
            return of_error * self.stat(stored + levels) + of_norm * self.stat(levels), np.zeros((1, 1), np.float32)
        slack = of_error * self.most(stored + level) + of_norm * self.most(level)
        return slack, of_rest * self.stat(1 + 2 * stored + level)

    def upper(self, queries: Packed) -> Iterator[Array]:
        """Upper bounds (queries, rows) float32 after each level, in the units of thresholds."""
        count, at = len(queries.counts), 0
        unit, half = self.units()
        dots = np.zeros((count, self.last - self.first))
        some_dots = np.empty(dots.shape, np.float32)
        off = np.minimum(queries.stats[3 * len(self.ends), :count, None] * half, HUGE)
        for level, width in enumerate(level_widths(self.ends, 64).tolist()):
            rows = self.codes(level)
            wide = queries.codes[:count, at : at + rows.shape[1]].astype(np.float64)
            for some in slices.steps(rows.shape[1], 1, EXACT_DIMS):
                codes = np.ascontiguousarray(wide[:, some])
                backends.current().scores_f32(codes, rows[:, some], codes.shape[1], METRICS["ip"], some_dots)
                dots += some_dots
            at += width
            slack, rest = self.slack(queries, level)
            yield (dots.astype(np.float32) + slack + rest) * unit - off


def certified(
    report: Explanation, parts: Sequence[Part], task: Task, bounds: Array | None, least: Array
) -> Explanation:
    """What an exact search did, with its certificate.

    Parameters
    ----------
    bounds
        Ends of the levels that are scanned, the last one the searched dims; None where none ends there.
    least : (nq,) float64
        The k-th best exact scores, -inf where there are fewer.
    """
    if not report.stages:
        return report
    scored = report.stages[-1].rows
    if bounds is None and report.stages[0].code == "raw":
        return replace(report, certificate=Certificate((), (), scored, scored, np.inf, np.inf))
    ends = np.asarray([task.dims], np.int64) if bounds is None else bounds
    survivors, slack = np.zeros(len(ends), np.int64), np.empty(len(least))
    for some in slices.steps(len(least), 1, QUERIES):
        own = replace(task, queries=task.queries[some])
        queries = Packed(own, ends, 0)
        thresholds, excluded = _thresholds(least[some], queries), np.full(len(own.queries), -np.inf, np.float32)
        for piece in _pieces([part.of_queries(some) for part in parts], own, bounds):
            _bound(piece, queries, thresholds, task.metric, survivors, excluded)
        with np.errstate(all="ignore"):
            short = least[some] - (excluded - queries.offset) / queries.multiply
        slack[some] = np.where(excluded > -np.inf, short, np.inf)
    count = len(least)
    rows = sum(gather.pairs(part, count) for part in parts) / count
    levels, left = tuple(ends.tolist()), tuple((survivors / count).tolist())
    slacks = float(slack.min()), float(np.median(slack))
    return replace(report, certificate=Certificate(levels, left, rows, scored, *slacks))


def _thresholds(least: Array, queries: Packed) -> Array:
    """Scores in the units of upper bounds, rounded down as scans do it: (queries, 1) float32."""
    with np.errstate(all="ignore"):
        scaled = least * queries.multiply
        low = scaled + queries.offset - (abs(scaled) + abs(queries.offset)) * 2.0**-19 - 1e-43
        low = np.where(least > -np.inf, np.minimum(low, 3e38), -np.inf)
        return low.astype(np.float32)[:, None]


def _pieces(parts: Sequence[Part], task: Task, bounds: Array | None) -> Iterator[Part]:
    """The parts, or parts with planes of exactly the searched dims, cut to some rows each."""
    step = max(min(ROWS, VALUES // task.dims // BLOCK * BLOCK), BLOCK)
    for part in parts:
        if bounds is None:
            yield from (packed_part(piece, task) for piece in gather.pieces(part, task.dims, step))
        else:
            for first in range(part.first, part.last, step):
                yield replace(part, first=first, last=min(first + step, part.last))


def _bound(part: Part, queries: Packed, thresholds: Array, metric: str, survivors: Array, excluded: Array) -> None:
    """Count rows whose bounds reach the thresholds after each level, and note the largest bound of the others."""
    words = part.words(part.first, part.last)
    allowed = to_bools(words, part.last - part.first) if len(words) else np.ones((1, 1), bool)
    least = np.full((len(thresholds), part.last - part.first), np.inf, np.float32)
    with np.errstate(all="ignore"):
        for level, upper in enumerate(
            Bounds(part.segment, part.first, part.last, queries.bounds, metric).upper(queries)
        ):
            parallel.check()
            np.minimum(least, upper, out=least)
            survivors[level] += np.count_nonzero((least >= thresholds) & allowed)
    least[(least >= thresholds) | ~allowed] = -np.inf
    np.maximum(excluded, least.max(axis=1), out=excluded)
