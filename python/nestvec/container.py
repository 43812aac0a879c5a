"""Indexes of rows in segments that are never moved: adding, updating, compacting and reading them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from . import arrays, parallel, slices
from .collection import Collection, changing
from .ids import NOTHING, Directory, Run, listed_bytes
from .planes import BLOCK, COPY_ROWS, copy_rows, padded
from .tombstones import Tombstones, to_bools

Array = npt.NDArray[Any]

SMALLEST, GROWTH = 1024, 1 / 32  # room in a new segment, in rows and as a share of the index
ADD_ROWS, ADD_VALUES = 4096, 2**19  # rows converted and packed at a time, at most, and their values


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
    def settle(self, n: int) -> None: ...


S = TypeVar("S", bound=Segmented)
C = TypeVar("C", bound="Container[Any]")


class Stored(NamedTuple, Generic[S]):
    """A segment and how many of its rows count; `sealed`: none will be added."""

    segment: S
    n: int
    sealed: bool = False


class Contents(NamedTuple, Generic[S]):
    """What an index holds; replaced as a whole, so that a reader or an interrupt never sees half of a change."""

    stored: tuple[Stored[S], ...]
    next_id: int
    tombstones: Tombstones
    frame: Any  # what codes are relative to, of indexes that have such a thing

    @property
    def pieces(self) -> int:
        """Segments."""
        return len(self.stored)

    @property
    def room(self) -> int:
        """Slots."""
        return sum(segment.capacity for segment, _, _ in self.stored)

    @property
    def ntotal(self) -> int:
        """Rows, removed ones not counted."""
        return sum(n for _, n, _ in self.stored) - len(self.tombstones)

    @property
    def runs(self) -> list[Run]:
        """Where ids are."""
        return [Run(first, one.n, one.segment.ids, one.segment.base) for first, one in self.placed()]

    def placed(self) -> Iterator[tuple[int, Stored[S]]]:
        """Segments and their first slots."""
        first = 0
        for one in self.stored:
            yield first, one
            first += one.segment.capacity

    def located(self, slots: Array) -> Iterator[tuple[S, Array, Array]]:
        """Segments, rows of them, and which of the `slots` these are."""
        for first, one in self.placed():
            here = np.flatnonzero((slots >= first) & (slots < first + one.n))
            if len(here):
                yield one.segment, slots[here] - first, here

    def without(self, slots: Array) -> Contents[S]:
        """The same less some rows."""
        return self._replace(tombstones=self.tombstones.plus(slots))

    def named(self, slots: Array) -> Array:
        """Ids of some slots."""
        result = np.empty(len(slots), np.int64)
        for segment, rows, here in self.located(slots):
            result[here] = segment.ids[rows] if len(segment.ids) else rows + segment.base
        return result


class Container(Collection[Contents[S]]):
    """Rows in segments that are never moved."""

    _bounds: Array  # ends of levels
    _written: Callable[[int], None] | None = None  # told how many rows were written, by any thread

    def __init__(self, frame: Any = None) -> None:
        self._copied: tuple[tuple[Stored[S], ...], S] | None = None
        super().__init__(Contents((), 0, Tombstones(), frame))

    @abstractmethod
    def _incoming(self, x: Any, threads: int | None) -> tuple[Any, int]:
        """What `add` was given, checked, as `_write` takes it, and how many threads to write it with.

        Rows, or what `_write` makes rows of: anything with a length, a shape and slices.
        """

    def twin(self: C) -> C:
        """The same contents, in the same memory, to add to while this one stays as it is; one of the two may grow."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    @abstractmethod
    def _allocate(self, capacity: int, ids: Array, base: int) -> S:
        """An empty segment."""

    @abstractmethod
    def _write(self, segment: S, frame: Any, x: Any, shift: int, first: int, last: int) -> None:
        """Write rows [first, last) of a segment from the same rows of `x`, shifted."""

    @abstractmethod
    def _views(self, segment: S) -> list[Array]:
        """What rows consist of, as `copy_rows` takes it."""

    def _begin(self, x: Any) -> Any:
        """The frame that the first rows call for."""
        del x
        return self._empty.frame

    def _checkpoint(self, segment: S, n: int) -> Callable[[], None]:
        """What undoes writes to rows from n on, as far as rows below n depend on them."""
        del segment, n
        return lambda: None

    def memory_usage(self) -> int:
        """Bytes of memory held: rows, planes and ids, room for further rows included."""
        contents = self._contents
        return sum(segment.nbytes for segment, _, _ in contents.stored) + listed_bytes(contents.runs)

    def _compacted(self, contents: Contents[S], workers: int) -> Contents[S]:
        alive = contents.tombstones.alive(contents.room)
        runs = [run.first + np.flatnonzero(to_bools(alive[run.first // 64 :], run.n)) for run in contents.runs]
        slots = np.concatenate([NOTHING, *runs])
        parts = (slots[first : first + arrays.MAX_ROWS] for first in range(0, len(slots), arrays.MAX_ROWS))
        stored = tuple(self._gathered(contents, part, contents.named(part), workers) for part in parts)
        return contents._replace(stored=stored, tombstones=Tombstones())

    def _add(self, x: Any, ids: Any, threads: int | None) -> None:
        self._keep(*self._incoming(x, threads), ids)

    def _keep(self, x: Any, workers: int, ids: Any) -> None:
        given = None if ids is None else arrays.int64_ids(ids, len(x))
        with self._writing():
            before = self._contents
            if given is not None:
                self._refuse_known(given)
            elif before.next_id + len(x) > 2**63:
                raise ValueError(f"no int64 id is left above {before.next_id - 1}; pass ids=")
            after, slots = self._extended(before, x, given, workers)
            self._publish(after, NOTHING if given is None else given, slots)

    @changing
    def update(self, ids: Any, x: Any, *, threads: int | None = None) -> None:
        """Give rows new vectors or codes; a search sees all of the old ones or all of the new ones.

        The new ones are written behind the others. The room of the old ones is kept until `compact`.

        Parameters
        ----------
        ids : (n,) int64
            Of rows in the index, each once.
        x, threads
            As for `add`.

        Raises
        ------
        KeyError
            For an id that is not in the index; nothing is updated.
        ValueError, TypeError
            As `add`.
        """
        x, workers = self._incoming(x, threads)
        wanted = arrays.int64_ids(ids, len(x))
        with self._writing():
            before, old = self._find(wanted)
            after, slots = self._extended(before, x, wanted, workers)
            self._publish(after.without(old), wanted, slots, dead=old)

    def _extended(self, before: Contents[S], x: Any, given: Array | None, workers: int) -> tuple[Contents[S], Array]:
        """Contents with more rows, in room that no reader of `before` looks at, and the slots of these."""
        frame = self._begin(x) if not before.stored else before.frame
        stored, written = list(before.stored), 0
        undo = [
            self._checkpoint(one.segment, one.n)
            for one in stored[-1:]
            if not one.sealed and one.n < one.segment.capacity
        ]
        slots = np.empty(0 if given is None else len(x), np.int64)
        try:
            while written < len(x):
                count = self._append(stored, frame, x, written, given, before, workers)
                if given is not None:
                    first = sum(one.segment.capacity for one in stored[:-1]) + stored[-1].n - count
                    slots[written : written + count] = np.arange(first, first + count)
                written += count
        except BaseException:
            for restore in undo:
                restore()
            raise
        highest = before.next_id + len(x) if given is None else int(given.max(initial=-1)) + 1
        next_id = max(before.next_id, highest)
        return before._replace(stored=tuple(stored), next_id=next_id, frame=frame), slots

    def _append(
        self,
        stored: list[Stored[S]],
        frame: Any,
        x: Any,
        at: int,
        given: Array | None,
        before: Contents[S],
        workers: int,
    ) -> int:
        """Write rows of `x` from `at` on into the last segment, or a new one; how many went in."""
        next_id = before.next_id + at
        if not stored or not _fits(stored[-1], given, next_id):
            growth = max(int(before.ntotal * GROWTH), SMALLEST)
            capacity = padded(min(max(len(x) - at, growth), arrays.MAX_ROWS), BLOCK)
            ids = np.empty(0 if given is None else capacity, np.int64)
            stored.append(Stored(self._allocate(capacity, ids, next_id if given is None else 0), 0))
        segment, n, _ = stored[-1]
        count = min(len(x) - at, segment.capacity - n)
        if given is not None:
            segment.ids[n : n + count] = given[at : at + count]
        step = max(BLOCK, min(ADD_ROWS, ADD_VALUES // x.shape[1] // BLOCK * BLOCK))
        cuts = sorted({n, n + count, *range(padded(n + 1, BLOCK), n + count, step)})  # a block has one writer
        spans = list(pairwise(cuts))

        def write(span: tuple[int, int]) -> None:
            self._write(segment, frame, x, at - n, *span)
            if self._written:
                self._written(span[1] - span[0])

        parallel.run(write, spans, workers)
        stored[-1] = Stored(segment, n + count)
        return count

    def taken(self: C, ids: Array, workers: int) -> C:
        """A twin of some of the rows, in memory of its own, whose ids are their places in `ids`."""
        other = self.twin()
        contents, slots = self._find(ids)
        stored = self._gathered(contents, slots, np.arange(len(ids)), workers)
        other._directory, other._copied = Directory(), None
        other._contents = contents._replace(stored=(stored,), next_id=len(ids), tombstones=Tombstones())
        return other

    def _gathered(self, contents: Contents[S], slots: Array, ids: Array, workers: int) -> Stored[S]:
        """A segment with the rows in some slots, ascending, and ids for them."""
        consecutive = bool((np.diff(ids) == 1).all())
        base = int(ids[0]) if consecutive and len(ids) else 0
        room = np.empty(0 if consecutive else padded(len(slots), BLOCK), np.int64)
        segment = self._allocate(padded(len(slots), BLOCK), room, base)
        if not consecutive:
            segment.ids[: len(ids)] = ids
        target, views = self._views(segment), {id(one.segment): self._views(one.segment) for one in contents.stored}

        def copy(first: int) -> None:
            parallel.check()
            some = slots[first : first + COPY_ROWS]
            for source, rows, here in contents.located(some):
                copy_rows(views[id(source)], rows, target, first + int(here[0]))

        parallel.run(copy, range(0, len(slots), COPY_ROWS), workers)
        segment.settle(len(slots))
        return Stored(segment, len(slots))

    def _reader_parts(self, contents: Contents[S]) -> Iterator[tuple[int, S, int]]:
        """First slots, segments and how many rows of each count, as searches may read them.

        Kernels read whole blocks of rows. A block that an `add` may be writing to is read as a copy of its first rows.
        """
        for first, (segment, n, sealed) in contents.placed():
            whole = (
                n
                if sealed or n == segment.capacity or segment is not contents.stored[-1].segment
                else n // BLOCK * BLOCK
            )
            if whole:
                yield first, segment, whole
            if whole < n:
                yield first + whole, self._tail(contents, first, whole, n), n - whole

    def _tail(self, contents: Contents[S], first: int, whole: int, n: int) -> S:
        """A copy of rows [whole, n) of the last segment, made once for contents with the same segments."""
        cached = self._copied
        if cached is None or cached[0] is not contents.stored:
            slots = first + np.arange(whole, n)
            cached = self._copied = (contents.stored, self._gathered(contents, slots, contents.named(slots), 1).segment)
        return cached[1]

    def _swap(self, contents: Contents[S]) -> None:
        self._copied = None
        super()._swap(contents)

    def _gather(self, ids: Any, width: int, dtype: npt.DTypeLike, read: Callable[[S, Array], Array]) -> Array:
        """Rows by id, ``(*ids.shape, width)``."""
        wanted = arrays.known_ids(ids)
        contents, slots = self._find(wanted.reshape(-1))
        result = np.empty((wanted.size, width), dtype)
        for some in slices.steps(wanted.size, width):
            for segment, rows, here in contents.located(slots[some]):
                result[some][here] = read(segment, rows)
        return result.reshape(*wanted.shape, width)


def _fits(last: Stored[Any], given: Array | None, next_id: int) -> bool:
    segment, n, sealed = last
    consecutive = segment.ids.size == 0 and segment.base + n == next_id
    return not sealed and n < segment.capacity and bool(consecutive if given is None else segment.ids.size > 0)
