"""What all indexes share: rows in segments that are never moved, their ids, and appends that happen wholly or not."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from . import arrays, parallel
from .planes import BLOCK, padded

Array = npt.NDArray[Any]

SMALLEST, GROWTH = 1024, 1 / 32  # room in a new segment, in rows and as a share of the index
ADD_ROWS, ADD_VALUES = 4096, 2**20  # rows converted and packed at a time, at most, and their values


class Segmented(Protocol):
    """Room for `capacity` rows; row r has id ``ids[r]``, or ``base + r`` where `ids` is empty."""

    @property
    def ids(self) -> Array: ...
    @property
    def base(self) -> int: ...
    @property
    def capacity(self) -> int: ...
    @property
    def nbytes(self) -> int: ...


S = TypeVar("S", bound=Segmented)
C = TypeVar("C", bound="Container[Any]")


class Stored(NamedTuple, Generic[S]):
    """A segment and how many of its rows count."""

    segment: S
    n: int


class Contents(NamedTuple, Generic[S]):
    """What an index holds; replaced as a whole, so that a reader or an interrupt never sees half of an `add`."""

    stored: tuple[Stored[S], ...]
    next_id: int


class Container(ABC, Generic[S]):
    """Rows by id. Any number of threads may read while one appends."""

    def __init__(self) -> None:
        self._contents: Contents[S] = Contents((), 0)
        self._positions: dict[int, int] | None = None  # id to position, once ids were given
        self._writing = threading.Lock()

    def twin(self: C) -> C:
        """The same contents, in the same memory, to add to while this one stays as it is; one of the two may grow."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    @abstractmethod
    def _allocate(self, capacity: int, ids: Array, base: int) -> S:
        """An empty segment."""

    @abstractmethod
    def _write(self, segment: S, x: Array, shift: int, first: int, last: int) -> None:
        """Write rows [first, last) of a segment from the same rows of `x`, shifted."""

    def _begin(self, x: Array) -> None:
        """What depends on the first rows, before they are written."""

    def _checkpoint(self, segment: S, n: int) -> Callable[[], None]:
        """What undoes writes to rows from n on, as far as rows below n depend on them."""
        del segment, n
        return lambda: None

    @property
    def ntotal(self) -> int:
        """Number of stored vectors."""
        return sum(n for _, n in self._contents.stored)

    def __len__(self) -> int:
        return self.ntotal

    def memory_usage(self) -> int:
        """Bytes of memory held: rows, planes and ids, room for further rows included."""
        return sum(segment.nbytes for segment, _ in self._contents.stored)

    def _add(self, x: Array, ids: Any, workers: int) -> None:
        given = None if ids is None else arrays.int64_ids(ids, len(x))
        with self._writing:
            self._refuse_known(given, len(x))
            if self.ntotal == 0:
                self._begin(x)
            stored, written = list(self._contents.stored), 0
            undo = [self._checkpoint(segment, n) for segment, n in stored[-1:] if n < segment.capacity]
            try:
                while written < len(x):
                    written += self._append(stored, x, written, given, workers)
            except BaseException:
                for restore in undo:
                    restore()
                raise
            self._commit(stored, given, len(x))

    def _locate(self, wanted: int) -> tuple[S, int]:
        position = wanted if self._positions is None else self._positions.get(wanted, -1)
        for segment, n in self._contents.stored:
            if 0 <= position < n:
                return segment, position
            position -= n
        raise KeyError(f"id {wanted} is not in the index")

    def _gather(self, ids: Any, width: int, dtype: npt.DTypeLike, read: Callable[[S, int], Array]) -> Array:
        """Rows by id, ``(*ids.shape, width)``."""
        wanted = arrays.known_ids(ids)
        result = np.empty((wanted.size, width), dtype)
        for at, wanted_id in enumerate(wanted.reshape(-1).tolist()):
            result[at] = read(*self._locate(wanted_id))
        return result.reshape(*wanted.shape, width)

    def _refuse_known(self, given: Array | None, count: int) -> None:
        if given is None:
            if self._contents.next_id + count > 2**63:
                raise ValueError(f"no int64 id is left above {self._contents.next_id - 1}; pass ids=")
            return
        known = range(self._contents.next_id) if self._positions is None else self._positions
        for new in given.tolist():
            if new in known:
                raise ValueError(f"id {new} is in the index already; ids must be unique")

    def _append(self, stored: list[Stored[S]], x: Array, at: int, given: Array | None, workers: int) -> int:
        """Write rows of `x` from `at` on into the last segment, or a new one; how many went in."""
        next_id = self._contents.next_id + at
        if not stored or not _fits(stored[-1], given, next_id):
            stored.append(Stored(self._new_segment(len(x) - at, given, next_id), 0))
        segment, n = stored[-1]
        count = min(len(x) - at, segment.capacity - n)
        if given is not None:
            segment.ids[n : n + count] = given[at : at + count]
        step = max(BLOCK, min(ADD_ROWS, ADD_VALUES // x.shape[1] // BLOCK * BLOCK))
        cuts = sorted({n, n + count, *range(padded(n + 1, BLOCK), n + count, step)})  # a block has one writer
        spans = list(pairwise(cuts))
        parallel.run(lambda span: self._write(segment, x, at - n, *span), spans, workers)
        stored[-1] = Stored(segment, n + count)
        return count

    def _new_segment(self, count: int, given: Array | None, base: int) -> S:
        growth = max(int(self.ntotal * GROWTH), SMALLEST)
        capacity = padded(min(max(count, growth), arrays.MAX_ROWS), BLOCK)
        ids = np.empty(0 if given is None else capacity, np.int64)
        return self._allocate(capacity, ids, base if given is None else 0)

    def _commit(self, stored: list[Stored[S]], given: Array | None, count: int) -> None:
        before, total = self._contents.next_id, self.ntotal
        if given is not None and self._positions is None:
            self._positions = {row_id: row_id for row_id in range(total)}
        if self._positions is not None:
            new = range(before, before + count) if given is None else given.tolist()
            self._positions.update(zip(new, range(total, total + count), strict=True))
        highest = before + count if given is None else max(given.tolist(), default=-1) + 1
        self._contents = Contents(tuple(stored), max(before, highest))


def _fits(last: Stored[Any], given: Array | None, next_id: int) -> bool:
    segment, n = last
    consecutive = segment.ids.size == 0 and segment.base + n == next_id
    return n < segment.capacity and bool(consecutive if given is None else segment.ids.size > 0)
