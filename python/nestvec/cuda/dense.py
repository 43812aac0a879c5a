"""`CudaNestedIndex`: a nested index in the memory of a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from .. import arrays
from ..ids import Run
from ..parts import Part
from ..plan import Step, staged
from ..planes import BLOCK, padded
from . import halves
from .copied import Copied
from .device import Device, DeviceArray, stream_handle
from .foreign import done_with, is_foreign
from .lists import FEW, Best, Lists, Names, buffer, refuse_many, rounds
from .planes import Plane, source_of
from .plans import Planned, needed, queries_at_once
from .queries import Frame, Packed, Through, asked, refuse_bad
from .resident import Placed
from .results import Results

if TYPE_CHECKING:
    from ..index import NestedIndex

Array = npt.NDArray[Any]

GROUP = 1024  # queries per pass: what lists take
ROOM = 8192  # rows of a list, at least
FIRST = 4096  # rows of the first round, whose best make the first thresholds
TYPES = {"float32": 0, "float16": 1, "bfloat16": 2}


class Resident(Placed):
    """Rows and planes of all parts of an index, one behind the other in blocks of 64."""

    def __init__(
        self, device: Device, parts: Sequence[Part], bounds: Array, row_type: str | None, codes: Sequence[str]
    ) -> None:
        super().__init__(device, [Run(0, part.last, part.segment.ids, part.segment.base) for part in parts])
        self.bounds, self.ends, self.row_type = bounds, device.put(bounds), row_type
        if row_type is not None:
            self.rows = device.empty((self.capacity, int(bounds[-1])), parts[0].segment.rows.dtype)
            for part, first in zip(parts, self.firsts, strict=False):
                self.rows.write(part.segment.rows[: part.last], first * int(bounds[-1]))
        self.planes: dict[str, Plane] = {}
        for code in codes:
            pieces = [
                (source_of(part.segment, code), first, padded(part.last, BLOCK))
                for part, first in zip(parts, self.firsts, strict=False)
            ]
            self.planes[code] = Plane(device, code, pieces, self.capacity, bounds, self.ends)

    def vectors(self, queries: DeviceArray, dims: int, metric: str) -> Any:
        """Queries and stored rows, as kernels that score them exactly take them."""
        assert self.row_type is not None
        return self.device.native.Vectors(
            queries.buffer, len(queries), queries.shape[1], self.rows.buffer, self.n, int(self.bounds[-1]),
            TYPES[self.row_type], dims, arrays.METRICS[metric],
        )  # fmt: skip


def held_bytes(parts: Sequence[Part]) -> int:
    """What the rows, planes and ids of parts need, without the room that segments have for more."""
    total = 0
    for part in parts:
        some = part.segment
        held = (some.rows, some.codes, some.stats, some.signs, some.nibbles)
        size = sum(one.nbytes for one in held if one is not None)
        total += -(-size * padded(part.last, BLOCK) // some.capacity) + 8 * len(some.ids)
    return total


class CudaNestedIndex(Copied["NestedIndex"]):
    """A copy of a `NestedIndex` in a GPU's memory, as `NestedIndex.to` makes it; later changes do not reach it.

    Any number of threads may search; searches of one stream run one after the other.
    """

    def __init__(self, index: NestedIndex, device: Device) -> None:
        super().__init__(index, device, "vectors")
        contents = self._index._contents
        parts = [Part(segment, 0, n) for _, segment, n in self._index._reader_parts(contents)]
        with device.active():
            self._device = device = device.with_stream()
            device.require(held_bytes(parts), "the index")
            self._resident = Resident(device, parts, self._index._bounds, self._index.rows, self._index.codes)
            self._frame = Frame(contents.frame, device)
            transform = self._index.transform
            self._through = None if transform is None else Through(transform, device)
            alive = self._index._chosen(contents, 1, None)
            self._alive = self._resident.allowed(alive, None)
            device.wait()

    @property
    def d(self) -> int:
        """Dims of a stored vector."""
        return self._index.d

    @property
    def levels(self) -> tuple[int, ...]:
        """Nesting boundaries, ascending; the last is `d`."""
        return self._index.levels

    @property
    def metric(self) -> str:
        """``"ip"``, ``"l2"`` or ``"cosine"``."""
        return self._index.metric

    def search(
        self,
        q: Any,
        k: int,
        *,
        dims: int | None = None,
        plan: Any = None,
        recall: float | None = None,
        filter: Any = None,
        stream: Any = None,
        check: bool = True,
    ) -> tuple[Any, Any]:
        """The k best rows for each query, as `NestedIndex.search` finds them.

        Parameters
        ----------
        q : (nq, d) array
            Of the host, or of the device (`DeviceArray`, torch, cupy, jax, and what else has ``__dlpack__`` or
            ``__cuda_array_interface__``), of any type that `NestedIndex.search` takes.
        k, dims, plan, recall, filter
            As for `NestedIndex.search`; k is 2048 at most, and so is what a stage of stored rows keeps for another
            stage. What `recall` needs is tuned on the CPU.
        stream : optional
            What the search runs in: a stream of torch, cupy or cuda.core, or its handle. Default: the default stream.
            It waits for what made `q`.
        check : bool
            Whether queries of the device are looked at before the search is begun, which waits for them, so that NaN
            and Inf are an error as they are on the host. False: nothing waits, and queries with NaN or Inf find
            nothing.

        Returns
        -------
        D : (nq, k) float32
        I : (nq, k) int64
            As `NestedIndex.search`, bit for bit. For queries of the host numpy arrays; else arrays of the same library
            on the device (`DeviceArray` for one that is not known), which may still be in the making: what that library
            does with them in its current stream waits for them.

        Raises
        ------
        ValueError, TypeError
            As `NestedIndex.search`; queries on another device.
        MemoryError
            If the device has too little for the search.
        """
        index, k, order = self._index, arrays.result_count(k), stream_handle(stream)
        chosen = index._stages(plan, recall, k, dims, None)
        if chosen is None:
            index._refuse_rowless("exact search")
        dims = index._width(dims)
        count = min(k, self.ntotal)
        refuse_many(count)
        with self._device.active():
            found = asked(index, self._through, q, dims, self._device, order)
            if check:
                refuse_bad(found, index, q, dims, order)
            steps = self._steps(staged(chosen, len(found.values), self.ntotal), count, dims)
            parts = [] if filter is None else index._chosen(index._contents, len(found.values), filter)
            results = Results(self._device, len(found.values), k, self.metric, found.bad, order)
            group = queries_at_once(steps, self._resident.n) if steps else GROUP
            for first in range(0, len(found.values), group):
                last = min(first + group, len(found.values))
                some = slice(first, last)
                task = DeviceTask(found.values.rows(first, last), count, dims, self.metric, index.rows or "")
                allowed, step = self._alive
                if filter is not None:
                    allowed, step = self._resident.allowed([part.of_queries(some) for part in parts], order)
                results.put(self._found(task, steps, allowed, step, order), first, last - first)
            self._device.reads(order)
            done_with(q, order)
            return results.given(q, stream) if is_foreign(q) else results.numpy()

    def _steps(self, plan: Any, k: int, dims: int) -> list[Step]:
        """Of a plan; none: exact search."""
        return [] if plan is None else needed(self._index._steps(plan, k, dims, self.ntotal), self.ntotal)

    def _found(
        self, task: DeviceTask, steps: Sequence[Step], allowed: DeviceArray | None, step: int, stream: int
    ) -> Best:
        """The best of a batch of queries."""
        index, resident = self._index, self._resident
        if not steps:
            return Exact(resident, task, stream).run(index._ends(task.dims), allowed, step)
        head, found = steps[0], None
        if head.code == "raw":  # named by row numbers, where other stages go on with them
            names = resident.names if len(steps) == 1 else Names(None, 0, resident.n)
            first = replace(task, k=head.keep, dims=head.dims)
            found = Exact(resident, first, stream, names).run(index._ends(head.dims), allowed, step)
        return Planned(resident, steps, task, self._frame, stream).run(allowed, step, found)


@dataclass(frozen=True)
class DeviceTask:
    """What is asked: `nestvec.parts.Task` with queries on the device."""

    queries: DeviceArray
    k: int
    dims: int
    metric: str
    row_type: str


class Exact:
    """Certified exact search of a batch of queries that are on the device."""

    def __init__(self, resident: Resident, task: DeviceTask, stream: int, names: Names | None = None) -> None:
        self.resident, self.task, self.stream = resident, task, stream
        self.names = names or resident.names
        self.device, self.native = resident.device, resident.device.native
        self.queries = task.queries
        self.nq = len(self.queries)
        self.vectors = resident.vectors(self.queries, task.dims, task.metric)
        self.best = Best(self.device, self.nq, task.k, stream)

    def run(self, bounds: Array | None, allowed: DeviceArray | None, step: int) -> Best:
        """Scan in rounds of more and more rows, each with the thresholds that those before it made.

        `bounds` are the ends of planes to scan; None: none ends at the dims searched, and rows are scanned.
        """
        lost = halves.scan(self, allowed, step) if bounds is None else self._scan(bounds, allowed, step)
        self._score_all(lost, allowed, step)
        return self.best

    def _scan(self, bounds: Array, allowed: DeviceArray | None, step: int) -> DeviceArray:
        task, resident, stream = self.task, self.resident, self.stream
        packed = Packed.of(self.queries, bounds, resident.ends, task.metric, stream)
        first = padded(max(FIRST, 8 * task.k), BLOCK)
        lists = Lists(self.device, self.nq, max(ROOM, first), stream)
        for stride, skip in rounds(resident.n, first, 32 if self.nq <= FEW else 8):
            self.native.scan_certified(
                resident.planes["i8"].native, packed.native, len(bounds), arrays.METRICS[task.metric], resident.n,
                stride, skip, buffer(allowed), step, lists.native, stream,
            )  # fmt: skip
            self.rescore(lists, packed.multiply, packed.offset)
        return lists.lost

    def rescore(self, lists: Lists, multiply: DeviceArray | None, offset: DeviceArray | None) -> None:
        """Score what is listed, and empty the lists; `multiply` and `offset` make thresholds of scores."""
        names, best = self.names, self.best
        self.native.rescore(
            lists.native, self.vectors, buffer(multiply), buffer(offset), buffer(names.ids), names.base, names.n,
            best.scores.buffer, best.ids.buffer, best.k, self.stream,
        )  # fmt: skip

    def _score_all(self, lost: DeviceArray | None, allowed: DeviceArray | None, step: int) -> None:
        """The k best of all rows: for all queries, or for those whose lists had no room."""
        names, n, best = self.names, self.resident.n, self.best
        shares = Best.shares(self.nq, best.k, n)
        partial = Best(self.device, self.nq * shares, best.k, self.stream)
        self.native.top_k_of_rows(
            self.vectors, buffer(lost), self.nq, n, shares, buffer(allowed), step, buffer(names.ids), names.base,
            partial.scores.buffer, partial.ids.buffer, best.scores.buffer, best.ids.buffer, best.k, self.stream,
        )  # fmt: skip
