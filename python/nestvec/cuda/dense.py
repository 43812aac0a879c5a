"""`CudaNestedIndex`: a nested index in the memory of a GPU."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .. import arrays
from ..ids import Run
from ..planes import BLOCK, OVERREAD, level_starts, level_widths, padded
from ..search import Part
from . import halves
from .device import Device, DeviceArray, stream_handle
from .foreign import done_with, is_foreign
from .lists import RESULTS, Best, Lists, buffer
from .queries import Packed, Through, asked, refuse_bad
from .resident import Placed
from .results import Results

if TYPE_CHECKING:
    from ..index import NestedIndex

Array = npt.NDArray[Any]

GROUP = 1024  # queries per pass: what lists take
ROOM = 8192  # rows of a list, at least
FIRST = 4096  # rows of the first round, whose best make the first thresholds
FEW = 8  # queries so few that rounds are what takes time: fewer of them
TYPES = {"float32": 0, "float16": 1, "bfloat16": 2}


class Resident(Placed):
    """Rows and planes of all parts of an index, one behind the other in blocks of 64."""

    def __init__(self, device: Device, parts: Sequence[Part], bounds: Array, row_type: str | None) -> None:
        segments = [part.segment for part in parts]
        super().__init__(device, [Run(0, part.last, part.segment.ids, part.segment.base) for part in parts])
        self.bounds = bounds
        self.ends = device.put(bounds)
        self.row_type = row_type
        if row_type is not None:
            self.rows = device.empty((self.capacity, int(bounds[-1])), segments[0].rows.dtype)
            for part, first in zip(parts, self.firsts, strict=False):
                self.rows.write(part.segment.rows[: part.last], first * int(bounds[-1]))
        if segments and len(segments[0].codes):
            self._put_bytes(parts)

    def _put_bytes(self, parts: Sequence[Part]) -> None:
        widths = level_widths(self.bounds, 4)
        starts = level_starts(widths, self.capacity)
        self.codes = self.device.empty(self.capacity * int(widths.sum()) + OVERREAD, np.uint8)
        self.stats = self.device.empty((3 * len(widths), self.capacity), np.float32)
        for part, first in zip(parts, self.firsts, strict=False):
            segment, size = part.segment, padded(part.last, BLOCK)
            for start, own, width in zip(starts.tolist(), segment.starts.tolist(), widths.tolist(), strict=True):
                self.codes.write(segment.codes[own : own + size * width], start + first * width)
            for number in range(len(self.stats)):
                self.stats.write(segment.stats[number, :size], number * self.capacity + first)
        self.starts = self.device.put(starts)
        self.plane = self.device.native.Plane(
            self.codes.buffer, self.starts.buffer, self.ends.buffer, self.stats.buffer, None, len(widths), self.capacity
        )


def held_bytes(parts: Sequence[Part]) -> int:
    """What the rows, planes and ids of parts need, without the room that segments have for more."""
    total = 0
    for part in parts:
        some = part.segment
        held = (some.rows, some.codes, some.stats, some.signs, some.nibbles)
        size = sum(one.nbytes for one in held if one is not None)
        total += -(-size * padded(part.last, BLOCK) // some.capacity) + 8 * len(some.ids)
    return total


class CudaNestedIndex:
    """A copy of a `NestedIndex` in a GPU's memory, as `NestedIndex.to` makes it; later changes do not reach it.

    Any number of threads may search; searches of one stream run one after the other.
    """

    def __init__(self, index: NestedIndex, device: Device) -> None:
        if index.ntotal == 0:
            raise ValueError(f"the index is empty; add vectors before it is copied to {device.name}")
        self._index = index.twin()
        contents = self._index._contents
        parts = [Part(segment, 0, n) for _, segment, n in self._index._reader_parts(contents)]
        with device.active():
            self._device = device = device.with_stream()
            device.require(held_bytes(parts), "the index")
            self._resident = Resident(device, parts, self._index._bounds, self._index.rows)
            transform = self._index.transform
            self._through = None if transform is None else Through(transform, device)
            device.wait()

    @property
    def ntotal(self) -> int:
        """Rows that can be found."""
        return self._index.ntotal

    def __len__(self) -> int:
        return self.ntotal

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

    @property
    def device(self) -> str:
        """Where it is, as ``"cuda:0"``."""
        return self._device.name

    def memory_usage(self) -> int:
        """Bytes of the device's memory held between searches."""
        return self._device.held

    def __repr__(self) -> str:
        inside = repr(self._index).removeprefix("NestedIndex")
        return f"CudaNestedIndex{inside.removesuffix(')')}, device={self.device!r})"

    def to(self, device: Any, *, stream: Any = None) -> NestedIndex | CudaNestedIndex:
        """A copy on another device, or with ``"cpu"`` a `NestedIndex` of its own."""
        if device == "cpu":
            return copy.deepcopy(self._index)
        return CudaNestedIndex(self._index, Device.after(device, stream))

    def search(
        self, q: Any, k: int, *, dims: int | None = None, filter: Any = None, stream: Any = None, check: bool = True
    ) -> tuple[Any, Any]:
        """The k best rows for each query, as `NestedIndex.search` finds them.

        Parameters
        ----------
        q : (nq, d) array
            Of the host, or of the device (`DeviceArray`, torch, cupy, jax, and what else has ``__dlpack__`` or
            ``__cuda_array_interface__``), of any type that `NestedIndex.search` takes.
        k, dims, filter
            As for `NestedIndex.search`; k is 2048 at most.
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
        index._refuse_rowless("exact search")
        dims = index._width(dims)
        count = min(k, self.ntotal)
        if count > RESULTS:
            raise ValueError(f"k={count}; a GPU lists at most {RESULTS} results a query: search the index on the CPU")
        with self._device.active():
            found = asked(index, self._through, q, dims, self._device, order)
            if check:
                refuse_bad(found, index, q, dims, order)
            parts = index._chosen(index._contents, len(found.values), filter)
            results = Results(self._device, len(found.values), k, self.metric, found.bad, order)
            for first in range(0, len(found.values), GROUP):
                last = min(first + GROUP, len(found.values))
                some = slice(first, last)
                task = DeviceTask(found.values.rows(first, last), count, dims, self.metric, index.rows or "")
                allowed, step = self._resident.allowed([part.of_queries(some) for part in parts], order)
                best = Exact(self._resident, task, order).run(index._ends(dims), allowed, step)
                results.put(best, first, last - first)
            self._device.reads(order)
            done_with(q, order)
            return results.given(q, stream) if is_foreign(q) else results.numpy()


@dataclass(frozen=True)
class DeviceTask:
    """What is asked: `nestvec.search.Task` with queries on the device."""

    queries: DeviceArray
    k: int
    dims: int
    metric: str
    row_type: str


class Exact:
    """Certified exact search of a batch of queries that are on the device."""

    def __init__(self, resident: Resident, task: DeviceTask, stream: int) -> None:
        self.resident, self.task, self.stream = resident, task, stream
        self.device, self.native = resident.device, resident.device.native
        self.queries = task.queries
        self.nq = len(self.queries)
        self.vectors = self.native.Vectors(
            self.queries.buffer, self.nq, self.queries.shape[1], resident.rows.buffer, resident.n,
            int(resident.bounds[-1]), TYPES[task.row_type], task.dims, arrays.METRICS[task.metric],
        )  # fmt: skip
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
        at, rows = 0, padded(max(FIRST, 8 * task.k), BLOCK)
        lists = Lists(self.device, self.nq, max(ROOM, rows), stream)
        growth = 32 if self.nq <= FEW else 8
        while at < resident.n:
            end = min(at + rows, resident.n)
            self.native.scan_certified(
                resident.plane, packed.native, len(bounds), arrays.METRICS[task.metric], at, end, buffer(allowed), step,
                lists.native, stream,
            )  # fmt: skip
            self.rescore(lists, packed.multiply, packed.offset)
            at, rows = end, rows * growth
        return lists.lost

    def rescore(self, lists: Lists, multiply: DeviceArray | None, offset: DeviceArray | None) -> None:
        """Score what is listed, and empty the lists; `multiply` and `offset` make thresholds of scores."""
        names, best = self.resident.names, self.best
        self.native.rescore(
            lists.native, self.vectors, buffer(multiply), buffer(offset), buffer(names.ids), names.base, names.n,
            best.scores.buffer, best.ids.buffer, best.k, self.stream,
        )  # fmt: skip

    def _score_all(self, lost: DeviceArray | None, allowed: DeviceArray | None, step: int) -> None:
        """The k best of all rows: for all queries, or for those whose lists had no room."""
        names, n, best = self.resident.names, self.resident.n, self.best
        shares = Best.shares(self.nq, best.k, n)
        partial = Best(self.device, self.nq * shares, best.k, self.stream)
        self.native.top_k_of_rows(
            self.vectors, buffer(lost), self.nq, n, shares, buffer(allowed), step, buffer(names.ids), names.base,
            partial.scores.buffer, partial.ids.buffer, best.scores.buffer, best.ids.buffer, best.k, self.stream,
        )  # fmt: skip
