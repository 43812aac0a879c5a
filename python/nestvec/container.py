"""What all indexes share: contents that are replaced as a whole, ids that stay, removal; and rows in segments."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import wraps
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Concatenate, Generic, NamedTuple, ParamSpec, Protocol, TypeVar, cast

import numpy as np
import numpy.typing as npt

from . import arrays, parallel, slices
from .ids import NOTHING, Directory, Identified, Run, listed_bytes, living
from .planes import BLOCK, COPY_ROWS, copy_rows, padded
from .tombstones import Tombstones, to_bools

if TYPE_CHECKING:
    from .plan import Plan
    from .storage import File
    from .tuning import Draw, Progress, Subject

Array = npt.NDArray[Any]

PLANS = 16  # that are kept
SMALLEST, GROWTH = 1024, 1 / 32  # room in a new segment, in rows and as a share of the index
ADD_ROWS, ADD_VALUES = 4096, 2**19  # rows converted and packed at a time, at most, and their values


I = TypeVar("I", bound=Identified)
R = TypeVar("R")
P = ParamSpec("P")
Index = TypeVar("Index", bound="Collection[Any]")


def reading(work: Callable[Concatenate[Index, P], R]) -> Callable[Concatenate[Index, P], R]:
    """A method that reads what may lie in a mapped file: if that changes, a FileError and never a wrong answer."""

    @wraps(work)
    def guarded(self: Index, *args: P.args, **kwargs: P.kwargs) -> R:
        file = self._file
        if file is None:
            return work(self, *args, **kwargs)
        file.check_unchanged()
        try:
            return work(self, *args, **kwargs)
        finally:
            file.check_unchanged()

    return cast("Callable[Concatenate[Index, P], R]", guarded)


def changing(work: Callable[Concatenate[Index, P], R]) -> Callable[Concatenate[Index, P], R]:
    """The same for a method that changes the index: nothing is refused once the change shows."""

    @wraps(work)
    def guarded(self: Index, *args: P.args, **kwargs: P.kwargs) -> R:
        self._refuse_changed()
        try:
            return work(self, *args, **kwargs)
        except BaseException:
            self._refuse_changed()
            raise

    return cast("Callable[Concatenate[Index, P], R]", guarded)


class Collection(ABC, Generic[I]):
    """Things with ids. Any number of threads may read while one writes: contents are replaced, never changed."""

    def __init__(self, empty: I) -> None:
        self._contents = self._empty = empty
        self._directory = Directory()
        self._writing = parallel.Lock()  # held as long as a change takes, by one thread at a time
        self._naming = parallel.Lock()  # held while ids are looked up, and for the moment in which a change shows
        self._file: File | None = None  # in which contents, or some of them, lie
        self._plans: tuple[Plan, ...] = ()  # replaced as a whole

    @abstractmethod
    def add(self, x: Any, /, ids: Any = None, *, threads: int | None = None) -> None:
        """Append; after an error the index is as it was."""

    @abstractmethod
    def reconstruct(self, ids: Any) -> Any:
        """What is stored under some ids, as `add` takes it."""

    @abstractmethod
    def _subject(self, queries: Any, k: int, dims: int | None, draw: Draw, threads: int | None) -> Subject:
        """What tuning asks of the index; `queries` None: some of what is stored is held out."""

    @abstractmethod
    def _width(self, dims: int | None) -> int:
        """What a plan has as its `dims`, given those of a search."""

    @abstractmethod
    def _compacted(self, contents: I, workers: int) -> I:
        """The same contents in one piece without anything removed."""

    def _refuse_unlike(self, other: Any) -> None:
        """ValueError if what another index of this class stores cannot be added to this one."""

    @property
    def ntotal(self) -> int:
        """How many there are, removed ones not counted."""
        return self._contents.ntotal

    def __len__(self) -> int:
        return self.ntotal

    @reading
    def __contains__(self, wanted: Any) -> bool:
        return bool(self._find(arrays.lookup([wanted]), "ignore")[1][0] >= 0)

    @property
    @reading
    def ids(self) -> Array:
        """Ids in order of adding, (ntotal,) int64, or objects where they are strings."""
        return living(self._contents)

    @changing
    def remove(self, ids: Any, *, missing: str = "raise") -> int:
        """Remove by id. Searches that begin later do not find what was removed; its room is kept until `compact`.

        Parameters
        ----------
        ids : id or array of ids
        missing : {"raise", "ignore"}
            What to do about an id that is not in the index. By default nothing is removed.

        Returns
        -------
        int
            How many were removed.

        Raises
        ------
        KeyError
            For an id that is not in the index.
        TypeError
            For ids that are neither integers nor strings.
        """
        arrays.one_of(missing, "missing", ("raise", "ignore"))
        wanted = arrays.lookup(ids)
        with self._writing():
            contents, slots = self._find(wanted, missing=missing)
            slots = slices.distinct(slots[slots >= 0])
            if len(slots):
                self._publish(contents.without(slots), gone=wanted, dead=slots)
            return len(slots)

    @property
    def plans(self) -> tuple[Plan, ...]:
        """Plans that `tune` found, saved with the index; the latest first."""
        return self._plans

    def tune(
        self,
        queries: Any = None,
        k: int = 10,
        recall: float = 0.99,
        confidence: float = 0.95,
        *,
        dims: int | None = None,
        sample: int = 500,
        seed: int = 0,
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> Plan:
        """Find the cheapest plan that reaches a recall, and keep it: ``search(q, k, recall=...)`` then uses it.

        Exact answers for a sample of queries show where each code ranks the true neighbours, so how many rows a
        shortlist must keep for the *lower confidence bound* of the recall to reach the target; times are measured on
        this machine, one query at a time. Where exact search is faster, or no plan is known to be good enough, the plan
        is exact search. The promise is for queries like those of the sample, and for each on average.

        Parameters
        ----------
        queries : optional
            As `search` takes them. Without, stored rows (of documents up to 32 tokens) are held out, each of which is
            searched for among the others; they may be easier than real queries, so give those if you have them.
        k : int
            Results per query that searches will ask for.
        recall : float
            Share of the k true neighbours to find, on average; above 0, at most 1.
        confidence : float
            How sure the recall is to be reached, above 0.5 and below 1.
        dims : int, optional
            Leading dims that searches will use, or bits of a `BinaryIndex`. Default: all.
        sample : int
            Queries to use, at most, drawn at random.
        seed : int
            Of the draw.
        threads : int, optional
            As searches will use; default as there.
        progress : callable, optional
            Called as ``progress(done, total, what)`` from step to step.

        Returns
        -------
        Plan
            Also the first of `plans`.

        Warns
        -----
        UserWarning
            If the sample is too small, or no plan reaches the recall: the plan is then exact search.

        Raises
        ------
        ValueError
            Empty index; no stored rows; values out of range; queries as `search` refuses them.

        References
        ----------
        Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.

        Examples
        --------
        >>> import numpy as np
        >>> import nestvec as nv
        >>> rng = np.random.default_rng(0)
        >>> x = rng.standard_normal((5_000, 16)) @ rng.standard_normal((16, 64))
        >>> index = nv.NestedIndex(64, metric="l2")
        >>> index.add(x)
        >>> plan = index.tune(k=5, recall=0.8, sample=100)
        >>> D, I = index.search(x[:3], 5, recall=0.8)
        >>> I[:, 0].tolist()
        [0, 1, 2]
        """
        from .tuning import Draw, Tuning  # costs what nobody needs who does not tune

        k = arrays.result_count(k)
        share = arrays.share(recall, "recall", 0.0, 1.0)
        certain = arrays.share(confidence, "confidence", 0.5, 0.999999)
        draw = Draw(arrays.integer(sample, "sample", 1), arrays.integer(seed, "seed", 0))
        if self.ntotal < (2 if queries is None else 1):
            what = "the index is empty; add to it before tuning" if self.ntotal == 0 else (
                "a single row cannot be held out as a query; pass queries"
            )  # fmt: skip
            raise ValueError(what)
        plan = Tuning(self._subject(queries, k, dims, draw, threads), share, certain, progress).plan()
        plan = replace(plan, k=k)
        with self._naming():
            kept = [one for one in self._plans if (one.k, one.dims, one.recall) != (plan.k, plan.dims, plan.recall)]
            self._plans = (plan, *kept[: PLANS - 1])
        return plan

    def _stages(self, plan: Any, recall: float | None, k: int, dims: int | None, threads: int | None) -> Any:
        """The plan to search by: the one given, or the cheapest one known, or now found, to reach a recall."""
        if recall is None:
            return plan
        if plan is not None:
            raise ValueError("a search takes plan or recall, not both; leave one out")
        wanted, size = arrays.share(recall, "recall", 0.0, 1.0), self._width(dims)
        if wanted == 1:
            return None
        fit = [one for one in self._plans if (one.k, one.dims) == (k, size) and one.recall >= wanted]
        return min(fit, key=lambda one: one.recall) if fit else self.tune(None, k, wanted, dims=dims, threads=threads)

    def clear(self) -> None:
        """Remove everything, plans too; ids, unless given, begin at 0 again."""
        with self._writing():
            self._swap(self._empty)
            self._file = None
            self._plans = ()

    def compact(self, *, threads: int | None = None) -> None:
        """Copy what was not removed, and free the room of the rest; ids and answers stay.

        The index holds both copies for as long as that takes, and can be searched; changes wait.

        Parameters
        ----------
        threads : int, optional
            Default: all cores this process may use.
        """
        workers = parallel.threads_for(threads, 2**62)
        with self._writing():
            contents = self._contents
            self._refuse_changed()
            if not contents.tombstones and contents.pieces <= 1 and self._file is None:
                return
            compacted = self._compacted(contents, workers)
            self._refuse_changed()
            self._swap(compacted)
            self._file = None

    def merge(self: Index, other: Index, *, add_id: int = 0, threads: int | None = None) -> None:
        """Add all that another index of the same kind holds, as it is stored there; the other one stays as it is.

        Documents of a `MultiVectorIndex` are encoded by the encoder of the index they are added to.

        Parameters
        ----------
        other : index of the same class
            With vectors, codes or tokens of as many dims or bits.
        add_id : int
            Added to the ids of the other index, if they are integers.
        threads : int, optional
            Default: all cores this process may use.

        Raises
        ------
        ValueError
            Other dims or bits, another transform; ids that are taken; no stored rows.
        TypeError
            An index of another class.
        """
        if not isinstance(other, Collection) or not (isinstance(other, type(self)) or isinstance(self, type(other))):
            raise TypeError(f"other must be a {type(self).__name__}, got {type(other).__name__}")
        self._refuse_unlike(other)
        shift = arrays.integer(add_id, "add_id", 0)
        ids = other.ids
        if len(ids):
            self._add_stored(other.reconstruct(ids), ids if ids.dtype == object else ids + shift, threads)

    def _add_stored(self, x: Any, ids: Array, threads: int | None) -> None:
        """Add what another index gave back of what it stores."""
        self.add(x, ids, threads=threads)

    def save(self, path: Any) -> None:
        """Write the index to a file, which `nestvec.load` reads; the same index gives the same bytes.

        Other threads may change the index meanwhile; what is saved is what it held when the call began. A file that is
        there is replaced at the end, and stays as it was after an error. Removed rows stay in the file until `compact`.

        Parameters
        ----------
        path : str or path-like

        Raises
        ------
        OSError
            With `path` as its ``filename``.
        FileError
            If the index is mapped from a file that was shortened or written to.
        ValueError
            What no file can hold: more than 65,536 segments, ids with characters that are none.
        """
        from .files import save  # which knows every kind of index, and so imports this module

        save(self, path)

    def __reduce__(self) -> Any:
        """Copies and pickles are what a file holds, checked when they are read."""
        from .files import load, to_bytes

        return load, (to_bytes(self),)

    def _refuse_changed(self) -> None:
        """FileError if the file in which contents lie has changed."""
        if self._file is not None:
            self._file.check_unchanged()

    def _find(self, wanted: Array, missing: str = "raise") -> tuple[I, Array]:
        """Contents, and the slots in it of some ids; a KeyError, or else -1, for those that it lacks."""
        with self._naming():
            contents = self._contents
            slots = self._directory.find(contents, wanted)
        _refuse_missing(wanted, slots, missing)
        return contents, slots

    def _slots(self, contents: I, wanted: Array) -> Array:
        """The slots of some ids in contents that may have been replaced meanwhile; -1 for those that it lacks."""
        with self._naming():
            if contents is self._contents:
                return self._directory.find(contents, wanted)
        return Directory().find(contents, wanted)

    def _refuse_known(self, given: Array) -> None:
        """ValueError for an id that is taken."""
        if len(known := np.flatnonzero(self._find(given, "ignore")[1] >= 0)):
            raise ValueError(f"id {given.tolist()[known[0]]!r} is in the index already; ids must be unique")

    def _publish(
        self, contents: I, new: Array = NOTHING, slots: Array = NOTHING, gone: Array = NOTHING, dead: Array = NOTHING
    ) -> None:
        """Show new contents: `new` ids, if listed, are at `slots`; those of `gone` were at `dead` and are nowhere."""
        self._refuse_changed()
        with self._naming():
            known = self._directory.changed(contents, new, slots, gone, dead)
            self._contents = contents  # what is interrupted before this has not happened
            self._directory.know(known)

    def _swap(self, contents: I) -> None:
        """Show contents with other slots."""
        with self._naming():
            self._directory.know(None)
            self._contents = contents


def _refuse_missing(wanted: Array, slots: Array, missing: str) -> None:
    if missing == "raise" and len(unknown := np.flatnonzero(slots < 0)):
        raise KeyError(f"id {wanted.tolist()[unknown[0]]!r} is not in the index")


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
