"""`CudaNestedIndex`: a nested index in the memory of a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .. import arrays
from ..coding import Frame
from ..plan import Step, staged
from ..planes import BLOCK, padded, words_within
from ..search import Packed, Part, Task, as_results
from .device import Device, DeviceArray
from .lists import RESULTS, Best, Lists, Names, buffer, rounds
from .planes import Plane, source_of
from .plans import Planned, needed, queries_at_once

if TYPE_CHECKING:
    from ..index import NestedIndex

Array = npt.NDArray[Any]

GROUP = 1024  # queries per pass: what lists take
ROOM = 8192  # rows of a list, at least
FIRST = 4096  # rows of the first round, whose best make the first thresholds
FEW = 8  # queries so few that rounds are what takes time: fewer of them
TYPES = {"float32": 0, "float16": 1, "bfloat16": 2}
STORED = {"float32": np.float32, "float16": np.uint16, "bfloat16": np.uint16}


class Resident:
    """Rows and planes of all parts of an index, one behind the other in blocks of 64."""

    def __init__(
        self, device: Device, parts: Sequence[Part], bounds: Array, row_type: str | None, codes: Sequence[str]
    ) -> None:
        self.device, self.bounds, self.row_type = device, bounds, row_type
        self.firsts = np.cumsum([0, *(padded(part.last, BLOCK) for part in parts)]).tolist()
        self.capacity = self.firsts[-1]
        if self.capacity >= 2**31:
            raise ValueError(f"a GPU numbers rows in 32 bits, and the index has {self.capacity} slots; split it")
        self.n = self.firsts[-2] + parts[-1].last if parts else 0
        self.gaps = any(part.last % BLOCK for part in parts[:-1])
        self.names = self._named(parts)
        if row_type is not None:
            self.rows = device.empty((self.capacity, int(bounds[-1])), STORED[row_type])
            for part, first in zip(parts, self.firsts, strict=False):
                self.rows.write(part.segment.rows[: part.last], first * int(bounds[-1]))
        ends = device.put(bounds)
        self.planes = {}
        for code in codes:
            pieces = [
                (source_of(part.segment, code), first, padded(part.last, BLOCK))
                for part, first in zip(parts, self.firsts, strict=False)
            ]
            self.planes[code] = Plane(device, code, pieces, self.capacity, bounds, ends)

    def _named(self, parts: Sequence[Part]) -> Names:
        one = parts[0].segment if len(parts) == 1 else None
        if one is not None and not one.ids.size:
            return Names(None, one.base, self.n)
        ids = np.full(self.capacity, -1, np.int64)
        for part, first in zip(parts, self.firsts, strict=False):
            some = part.segment
            ids[first : first + part.last] = (
                some.ids[: part.last] if some.ids.size else np.arange(some.base, some.base + part.last)
            )
        return Names(self.device.put(ids), 0, self.n)

    def vectors(self, queries: DeviceArray, dims: int, metric: str) -> Any:
        """Queries and stored rows, as kernels that score them exactly take them."""
        assert self.row_type is not None
        return self.device.native.Vectors(
            queries.buffer, len(queries), queries.shape[1], self.rows.buffer, self.n, int(self.bounds[-1]),
            TYPES[self.row_type], dims, arrays.METRICS[metric],
        )  # fmt: skip

    def allowed(self, parts: Sequence[Part], stream: int) -> tuple[DeviceArray | None, int]:
        """Rows that may be found, as words of the device, and how many words there are for each query; None: all."""
        sets = max((len(part.allowed) for part in parts), default=0)
        if sets == 0 and not self.gaps:
            return None, 0
        words = np.zeros((max(sets, 1), self.capacity // BLOCK), np.uint64)
        for part, first in zip(parts, self.firsts, strict=False):
            at = slice(first // BLOCK, (first + padded(part.last, BLOCK)) // BLOCK)
            every = np.full((1, -(-part.last // BLOCK)), ~np.uint64(0))
            for number in range(len(words)):
                some = part.allowed[number % len(part.allowed)][None] if len(part.allowed) else every
                words[number, at] = words_within(some, 0, part.last)
                if part.last % BLOCK:
                    words[number, at][-1] &= np.uint64(2 ** (part.last % BLOCK) - 1)
        return self.device.put(words, stream), words.shape[1] if len(words) > 1 else 0


class CudaNestedIndex:
    """A copy of a `NestedIndex` in a GPU's memory, as `NestedIndex.to` makes it; later changes do not reach it."""

    def __init__(self, index: NestedIndex, device: Device) -> None:
        self._index = index.twin()
        self.device = device
        device.activate()
        contents = self._index._contents
        parts = [Part(segment, 0, n) for _, segment, n in self._index._reader_parts(contents)]
        self._resident = Resident(device, parts, self._index._bounds, self._index.rows, self._index.codes)
        device.wait()

    def search(
        self,
        q: Any,
        k: int,
        *,
        dims: int | None = None,
        plan: Any = None,
        recall: float | None = None,
        filter: Any = None,
        stream: int = 0,
    ) -> tuple[Array, Array]:
        """The k best rows for each query, as `NestedIndex.search` finds them.

        A `recall` is reached by the plan that the index has for it, as tuned on the CPU; if there is none yet, it is
        tuned there first. Besides what `NestedIndex.search` raises: a ValueError for k above 2048, or for a stage of
        stored rows that leaves more than 2048 to another stage.
        """
        k = arrays.result_count(k)
        index = self._index
        plan = index._stages(plan, recall, k, dims, None)
        if plan is None:
            index._refuse_rowless("exact search")
        contents, task, parts, bounds = index._ready(q, k, dims, filter)
        plan = staged(plan, len(task.queries), contents.ntotal)
        steps = None if plan is None else needed(index._steps(plan, task, contents), contents.ntotal)
        if task.k > RESULTS:
            raise ValueError(f"k={task.k}; a GPU lists at most {RESULTS} results a query: search the index on the CPU")
        self.device.activate()
        scores, ids = np.empty((len(task.queries), task.k)), np.empty((len(task.queries), task.k), np.int64)
        group = GROUP if steps is None else queries_at_once(steps, self._resident.n)
        for first in range(0, len(task.queries), group):
            some = slice(first, first + group)
            allowed, step = self._resident.allowed([part.of_queries(some) for part in parts], stream)
            own = replace(task, queries=task.queries[some])
            if steps is None:
                best = Exact(self._resident, own, stream).run(bounds, allowed, step)
            else:
                best = self._planned(steps, own, contents.frame, allowed, step, stream)
            scores[some], ids[some] = best.scores.numpy(stream), best.ids.numpy(stream)
        return as_results(scores, ids, k, task.metric)

    def _planned(
        self, steps: list[Step], task: Task, frame: Frame, allowed: DeviceArray | None, step: int, stream: int
    ) -> Best:
        head, found = steps[0], None
        if head.code == "raw":
            bounds = self._index._bounds[: head.levels]
            queries = np.ascontiguousarray(task.queries[:, : head.dims])
            own = replace(task, queries=queries, k=head.keep, dims=head.dims)
            names = self._resident.names if len(steps) == 1 else Names(None, 0, self._resident.n)
            search = Exact(self._resident, own, stream, names)
            found = search.run(bounds if bounds[-1] == head.dims else None, allowed, step)
        return Planned(self._resident, steps, task, frame, stream).run(allowed, step, found)


class Exact:
    """Certified exact search of a batch."""

    def __init__(self, resident: Resident, task: Task, stream: int, names: Names | None = None) -> None:
        self.resident, self.task, self.stream = resident, task, stream
        self.names = names or resident.names
        self.device, self.native = resident.device, resident.device.native
        self.nq = len(task.queries)
        self.queries = self.device.put(task.queries, stream)
        self.vectors = resident.vectors(self.queries, task.dims, task.metric)
        self.best = Best(self.device, self.nq, task.k, stream)

    def run(self, bounds: Array | None, allowed: DeviceArray | None, step: int) -> Best:
        """Scan in rounds of more and more rows, each with the thresholds that those before it made."""
        lost = None
        if bounds is not None:
            lost = self._scan(bounds, allowed, step)
        self._score_all(lost, allowed, step)
        return self.best

    def _scan(self, bounds: Array, allowed: DeviceArray | None, step: int) -> DeviceArray:
        task, resident, stream = self.task, self.resident, self.stream
        packed = Packed(task, bounds, 0)
        codes, sums, stats = (self.device.put(one, stream) for one in (packed.codes, packed.sums, packed.stats))
        multiply, offset = self.device.put(packed.multiply, stream), self.device.put(packed.offset, stream)
        coded = self.native.Queries(
            codes.buffer, self.nq, packed.codes.shape[1], sums.buffer, stats.buffer, packed.codes.shape[0],
            len(bounds), None, None, None,
        )  # fmt: skip
        first = padded(max(FIRST, 8 * task.k), BLOCK)
        lists = Lists(self.device, self.nq, max(ROOM, first), stream)
        for stride, skip in rounds(resident.n, first, 32 if self.nq <= FEW else 8):
            self.native.scan_certified(
                resident.planes["i8"].native, coded, len(bounds), arrays.METRICS[task.metric], resident.n, stride, skip,
                buffer(allowed), step, lists.native, stream,
            )  # fmt: skip
            self._rescore(lists, multiply, offset)
        return lists.lost

    def _rescore(self, lists: Lists, multiply: DeviceArray | None, offset: DeviceArray | None) -> None:
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
