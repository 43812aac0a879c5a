"""What a search is for, and the rows it may find, whole or in shares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .planes import BLOCK, EVERY, Segment, padded

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Part:
    """Rows [`first`, `last`) of a segment that are `allowed`; `first` is a multiple of 64. Row 0 has a `slot`.

    ``allowed`` (m, words) uint64 is one set of the segment's rows for each query, one for all (m = 1), or none (m = 0):
    every row. Row r is bit ``r % 64``, least significant first, of word ``r // 64``; words cover at least `last` rows.
    """

    segment: Segment
    first: int
    last: int
    allowed: Array = field(default_factory=lambda: EVERY)
    slot: int = 0

    def of_queries(self, queries: slice | Array) -> Part:
        """The same rows as some of the queries may find them."""
        return replace(self, allowed=self.allowed[queries]) if len(self.allowed) > 1 else self

    def words(self, first: int, last: int) -> Array:
        """Those of `allowed` for the rows [`first`, `last`), whose first one is then bit 0; C-contiguous."""
        return np.ascontiguousarray(self.allowed[:, first // BLOCK : -(-last // BLOCK)])


@dataclass(frozen=True)
class Task:
    """What is asked: `queries` (nq, d) float32, the `k` best in the leading `dims`, rows of type `row_type`, or ""."""

    queries: Array
    k: int
    dims: int
    metric: str
    row_type: str


def split_queries(task: Task, parts: Sequence[Part], size: int) -> Iterator[tuple[Task, Sequence[Part]]]:
    """The task in batches of `size` queries, with the parts as those may find their rows."""
    if len(task.queries) <= size:
        yield task, parts
        return
    for at in range(0, len(task.queries), size):
        some = slice(at, at + size)
        yield replace(task, queries=task.queries[some]), [part.of_queries(some) for part in parts]


def split_rows(parts: Sequence[Part], threads: int) -> list[list[Part]]:
    """The parts in `threads` shares of about as many rows, cut at blocks."""
    if threads == 1:
        return [list(parts)]
    share = padded(-(-sum(part.last - part.first for part in parts) // threads), BLOCK)
    shares: list[list[Part]] = [[]]
    room = share
    for part in parts:
        at = part.first
        while at < part.last:
            if room == 0:
                shares.append([])
                room = share
            end = min(part.last, at + room)
            shares[-1].append(replace(part, first=at, last=end))
            room = max(0, room - padded(end - at, BLOCK))
            at = end
    return shares
