"""Searches among few rows: when it costs less to read those that a filter leaves than to scan planes.

Costs are in bytes of codes that one query's scan reads in the same time. Those of reading and copying rows are half as
much again as measured: checks of levels, and rows left out, make a scan cheaper than is known before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .parts import Part, Task
from .planes import BLOCK, EVERY, Segment, allowed_rows, count_ones

Array = npt.NDArray[Any]

MULTIPLY = 1 / 70  # a code, by that of one query of a batch
MISS = 2000  # a row somewhere in memory
READ, COPY = 4, 32  # a dim of a stored row, as it is or coded anew
SCORE = {"float32": 3.7, "float16": 7.0, "bfloat16": 7.0}  # a dim of a row's exact score for one query
RESCORE = 0.06  # the same where only what survives a scan is scored
SAMPLE = 32  # one word in so many tells queries whose rows are not few
SPARSE = 0.75  # of all rows: below, planes are made of copies of those allowed


def pairs(part: Part, queries: int) -> int:
    """How many rows the queries may find, all together."""
    if not len(part.allowed):
        return queries * (part.last - part.first)
    words = part.words(part.first, part.last)
    count = int(count_ones(words).sum())
    if part.last % BLOCK and part.last > part.first:  # bits behind the last row may be ones
        count -= int(count_ones(words[:, -1:] >> np.uint64(part.last % BLOCK)).sum())
    return count * (queries if len(part.allowed) == 1 else 1)


def rows_per_call(part: Part, queries: int, scores: int) -> int:
    """How many rows, in whole blocks, give about so many scores."""
    rows = part.last - part.first
    if rows * queries <= scores:
        return rows + BLOCK
    return max(BLOCK, rows * scores // max(pairs(part, queries), 1) // BLOCK * BLOCK)


def crowded(part: Part, first: int, last: int, queries: int, most: int) -> bool:
    """Whether the queries may find more than so many of the rows [`first`, `last`), all together."""
    return (last - first) * queries > most and pairs(replace(part, first=first, last=last), queries) > most


def few(parts: Sequence[Part], task: Task, packed: bool) -> Array:
    """Which of the queries may find so few rows that reading those costs less than their share of a scan.

    `packed` is whether there are planes to scan; else making them is part of the cost.
    """
    queries = len(task.queries)
    scan = task.dims * ((1 if packed else COPY) / queries + MULTIPLY)
    most = sum(part.last - part.first for part in parts) * scan / (MISS + task.dims * (READ + SCORE[task.row_type]))
    maybe = np.flatnonzero(_counts(parts, np.arange(queries), SAMPLE) * SAMPLE < 2 * most)
    result = np.zeros(queries, np.bool_)
    result[maybe] = _counts(parts, maybe, 1) < most
    return result


def _counts(parts: Sequence[Part], queries: Array, step: int) -> Array:
    """How many rows each of the queries may find, of one block in `step`."""
    counts = np.zeros(len(queries), np.int64)
    for part in parts:
        if len(part.allowed):
            first, last = part.first // BLOCK, -(-part.last // BLOCK)
            counts += count_ones(part.allowed[queries if len(part.allowed) > 1 else slice(1), first:last:step])
        else:
            counts += (part.last - part.first) // step
    return counts


def ways(parts: Sequence[Part], task: Task, packed: bool) -> tuple[list[Part], list[Part], list[Part]]:
    """Parts whose rows are best read one by one, copied into planes of their own, and scanned where they are.

    A part has one set of rows for all queries, or none. Those without any row are left out.
    """
    queries = len(task.queries)
    read = MISS + task.dims * (READ + queries * SCORE[task.row_type])
    copy = MISS + task.dims * (COPY + queries * RESCORE)
    scan = task.dims * (1 + queries * MULTIPLY) if packed else np.inf
    result: tuple[list[Part], list[Part], list[Part]] = ([], [], [])
    for part in parts:
        if not len(part.allowed) and packed:
            result[2].append(part)
        elif rows := pairs(part, 1):
            touched = BLOCK * blocks(part, part.first, part.last)
            result[int(np.argmin((rows * read, rows * copy, touched * scan)))].append(part)
    return result


def pieces(part: Part, dims: int, size: int) -> Iterator[Part]:
    """Leading dims of a part's rows, `size` at a time, without planes: all, or copies of those allowed if sparse."""
    source, rows = part.segment, part.segment.rows[:, :dims]
    if len(part.allowed) == 1:
        listed = allowed_rows(part.allowed, part.first, part.last)
        if len(listed) < SPARSE * (part.last - part.first):
            for at in range(0, len(listed), size):
                some = listed[at : at + size]
                ids = source.ids[some] if source.ids.size else some + source.base
                yield replace(part, segment=Segment.unpacked(rows[some], ids), first=0, last=len(some), allowed=EVERY)
            return
    for at in range(part.first, part.last, size):
        end = min(part.last, at + size)
        piece = Segment.unpacked(rows[at:end], source.ids[at:end], source.base + at)
        yield replace(part, segment=piece, first=0, last=end - at, allowed=part.words(at, end))


def blocks(part: Part, first: int, last: int) -> int:
    """Blocks of [`first`, `last`) of which some query may find a row."""
    if not len(part.allowed):
        return -(-(last - first) // BLOCK)
    return int(np.count_nonzero(np.bitwise_or.reduce(part.words(first, last), axis=0)))
