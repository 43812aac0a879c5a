"""`CudaBinaryIndex`: binary codes in the memory of a GPU; and their top-k without an index."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .. import arrays, slices
from ..bitplans import bit_steps
from ..bits import below_thresholds, checked_pair
from ..ids import Run
from ..plan import staged
from ..planes import BLOCK, level_widths, padded
from .codes import Batch, Words, group_size
from .copied import Copied
from .device import Device, DeviceArray, stream_handle
from .foreign import done_with, incoming, is_foreign
from .lists import Best, buffer, refuse_many
from .queries import to_float32
from .results import Results

if TYPE_CHECKING:
    from ..binary import BinaryIndex
    from ..nearest import BitPart

Array = npt.NDArray[Any]

RANGE_ROOM = 4096  # rows of a query's list in range searches, at first
PIECE = 2**26  # bytes of codes that are copied to the device at a time


class CudaBinaryIndex(Copied["BinaryIndex"]):
    """A copy of a `BinaryIndex` in a GPU's memory, as `BinaryIndex.to` makes it; later changes do not reach it.

    Any number of threads may search; searches of one stream run one after the other. Results are those of the CPU.
    """

    def __init__(self, index: BinaryIndex, device: Device) -> None:
        super().__init__(index, device, "codes")
        parts = self._parts(None, 0)
        self._runs = runs = [Run(0, part.last, part.ids, part.base) for part in parts]
        with device.active():
            self._device = device = device.with_stream()
            rows = sum(padded(run.n, BLOCK) for run in runs)
            words = int(level_widths(self._index._bounds, 64).sum()) // 64
            device.require(8 * rows * (words + any(len(run.ids) for run in runs)), "the index")
            self._words = Words(device, self._index._bounds, runs)
            for number, part in enumerate(parts):
                self._words.write(number, part.words.words, part.words.starts, part.last)
            self._alive = self._words.allowed(parts, None)
            self._below = device.put(below_thresholds(self._index._thresholds))
            device.wait()

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return self._index.bits

    @property
    def levels(self) -> tuple[int, ...]:
        """Nesting boundaries in bits, ascending; the last is `bits`."""
        return self._index.levels

    def search(
        self,
        q: Any,
        k: int,
        *,
        bits: int | None = None,
        plan: Any = None,
        recall: float | None = None,
        filter: Any = None,
        stream: Any = None,
        check: bool = True,
    ) -> tuple[Any, Any]:
        """The k nearest codes of each query, as `BinaryIndex.search` finds them.

        Parameters
        ----------
        q : (nq, ceil(bits / 8)) uint8, or (nq, bits) array
            Packed codes or vectors, of the host or of the device (`DeviceArray`, torch, cupy, jax, and what else has
            ``__dlpack__`` or ``__cuda_array_interface__``). Bits of a device's codes beyond `bits` are not looked at;
            its vectors are float32, float16 or bfloat16.
        k, bits, plan, recall, filter
            As for `BinaryIndex.search`; k is 2048 at most. What `recall` needs is tuned on the CPU.
        stream : optional
            What the search runs in: a stream of torch, cupy or cuda.core, or its handle. Default: the default stream.
            It waits for what made `q`.
        check : bool
            Whether vectors of the device are looked at, which waits for them, so that NaN and Inf are an error as they
            are on the host. False: nothing waits, and vectors with NaN or Inf find nothing.

        Returns
        -------
        D : (nq, k) int32
        I : (nq, k) int64
            As `BinaryIndex.search`, bit for bit. For queries of the host numpy arrays; else arrays of the same library
            on the device (`DeviceArray` for one that is not known), which may still be in the making.

        Raises
        ------
        ValueError, TypeError
            As `BinaryIndex.search`; k above 2048; queries on another device.
        MemoryError
            If the device has too little for the search.
        """
        index, k, order = self._index, arrays.result_count(k), stream_handle(stream)
        used, count = index._width(bits), min(k, self.ntotal)
        refuse_many(count)
        chosen = index._stages(plan, recall, k, bits, None)
        with self._device.active():
            codes, bad = self._queries(q, check, order)
            steps = bit_steps(staged(chosen, len(codes), self.ntotal), count, used, self.ntotal, index._bounds)
            found = Found(self._device, len(codes), k, bad, order)
            for first, batch in self._batches(codes, steps[0].keep, steps[0].dims, filter, order):
                found.put(batch.run(steps), first, batch.nq)
            self._device.reads(order)
            done_with(q, order)
            return found.given(q, stream) if is_foreign(q) else found.numpy()

    def range_search(
        self, q: Any, radius: int, *, bits: int | None = None, filter: Any = None, stream: Any = None
    ) -> tuple[Array, Array, Array]:
        """All codes within a distance, as `BinaryIndex.range_search` finds them: numpy arrays.

        Parameters
        ----------
        q, bits, filter, stream
            As for `search`.
        radius : int
            The largest distance that counts, at least 0.

        Returns
        -------
        lims : (nq + 1,) int64
            The results of query i are those from ``lims[i]`` to ``lims[i + 1]``.
        D : (lims[-1],) int32
        I : (lims[-1],) int64
            Distances and ids, for each query by distance and then id.

        Raises
        ------
        ValueError, TypeError, MemoryError
            As `search`.
        """
        used, order = self._index._width(bits), stream_handle(stream)
        limit = min(arrays.integer(radius, "radius", 0), used)
        sizes, distances, ids = [np.zeros(1, np.int64)], [np.empty(0, np.int32)], [np.empty(0, np.int64)]
        with self._device.active():
            codes, _ = self._queries(q, True, order)
            for _, batch in self._batches(codes, RANGE_ROOM, used, filter, order):
                for rows, near in _within(batch, used, limit):
                    named = self._named(rows)
                    ranked = np.lexsort((named, near))
                    sizes.append(np.asarray([len(rows)]))
                    distances.append(near[ranked])
                    ids.append(named[ranked])
            self._device.reads(order)
            done_with(q, order)
        return np.cumsum(np.concatenate(sizes)), np.concatenate(distances), np.concatenate(ids)

    def _named(self, rows: Array) -> Array:
        """Ids of rows."""
        ids, firsts = np.empty(len(rows), np.int64), self._words.firsts
        for first, end, run in zip(firsts, firsts[1:], self._runs, strict=False):
            some = (rows >= first) & (rows < end)
            ids[some] = run.of(rows[some] - first)
        return ids

    def _parts(self, given: Any, count: int) -> list[BitPart]:
        return [part for _, part in self._index._located(self._index._contents, given, count)]

    def _queries(self, q: Any, check: bool, stream: int) -> tuple[DeviceArray, DeviceArray | None]:
        """Packed codes (nq, bytes) on the device, and marks of those made of NaN or Inf."""
        index, device = self._index, self._device
        if not is_foreign(q):
            return device.put(index._codes(q, "q", 1, single=True), stream), None
        given = incoming(q, device, "q", stream)
        if given.type in ("int8", "uint8", "bool"):
            width = arrays.codes(_like(given), "q", self.bits, single=True).shape[1]
            return given.reshape(given.size // width, width), None
        if given.type not in ("float32", "float16", "bfloat16"):
            raise TypeError(f"q has dtype {given.type}; vectors of a device are float32, float16 or bfloat16: convert")
        shape = arrays.vectors(np.broadcast_to(np.float32(0), given.shape), "q", self.bits, single=True).shape
        bad = device.empty(shape[0] + 1, np.int32, stream)
        bad.buffer.fill(0, stream)
        values = to_float32(given.reshape(*shape), self.bits, bad, stream)
        if check and bad.rows(shape[0], shape[0] + 1).numpy(stream)[0]:
            index._codes(given.numbers(stream), "q", 1, single=True)
        codes = device.empty((shape[0], -(-self.bits // 8)), np.uint8, stream)
        device.native.pack_signs(values.buffer, shape[0], self.bits, self._below.buffer, codes.buffer, stream)
        return codes, bad

    def _batches(self, codes: DeviceArray, k: int, bits: int, given: Any, stream: int) -> Iterator[tuple[int, Batch]]:
        """Queries that pass over the rows together, k of which are listed, and the first of them."""
        parts = None if given is None else self._parts(given, len(codes))
        for some in slices.steps(len(codes), 1, group_size(len(codes), k, self._words.n, bits)):
            allowed, step = self._alive
            if parts is not None:
                allowed, step = self._words.allowed([part.of_queries(some) for part in parts], stream)
            yield some.start, Batch(self._words, codes.rows(some.start, some.stop), allowed, step, stream)


def _within(batch: Batch, bits: int, radius: int) -> Iterator[tuple[Array, Array]]:
    """Rows and distances for each query; scanned again if there are more than lists have room for."""
    near = batch.within(bits, radius, RANGE_ROOM)
    counts = near.histogram.numpy(batch.stream).sum(axis=1)
    if counts.max() > RANGE_ROOM:
        near = batch.within(bits, radius, int(counts.max()))
    rows, values = near.lists.rows.numpy(batch.stream), near.lists.values.numpy(batch.stream)
    for own, value, count in zip(rows, values, counts.tolist(), strict=True):
        yield own[:count], (-value[:count]).astype(np.int32)


class Found(Results):
    """`D` (nq, k) int32 and `I` (nq, k) int64, filled a batch of queries at a time."""

    def __init__(self, device: Device, nq: int, k: int, bad: DeviceArray | None, stream: int) -> None:
        self.device, self.k, self.bad, self.stream = device, k, bad, stream
        self.D = device.empty((nq, k), np.int32, stream)
        self.I = device.empty((nq, k), np.int64, stream)

    def put(self, best: Best, first: int, count: int) -> None:
        """The best of the queries from `first` on; -1 for queries that are marked."""
        self.device.native.as_distances(
            best.scores.buffer, best.ids.buffer, count, best.k, self.k, buffer(self.bad), first, self.D.buffer,
            self.I.buffer, self.stream,
        )  # fmt: skip


def hamming_topk(
    q: Any, codes: Any, k: int, *, bits: int | None = None, device: str | Device = "cuda", stream: Any = None
) -> tuple[Any, Any]:
    """The k nearest codes by Hamming distance: `nestvec.hamming_topk` on a GPU.

    Parameters
    ----------
    q, codes : (nq, bytes), (n, bytes) uint8
        Packed codes of one width, each of the host or of the device; `q` may be a single code (bytes,). A copy of the
        codes, with words of 64 of them side by side, is made on the device first.
    k : int
        Results per query, 1 to 2048.
    bits : int, optional
        Leading bits to compare; default all.
    device : str or Device
        Where to search. What is on a device must be on this one.
    stream : optional
        A stream of torch, cupy or cuda.core, or its handle. Default: the default stream.

    Returns
    -------
    D : (nq, k) int32
        Distances, ascending.
    I : (nq, k) int64
        Row numbers, ties by smaller number. Where there are fewer than k rows: -1 and the largest int32. Numpy arrays
        for queries of the host, else arrays of the same library on the device.

    Raises
    ------
    ValueError, TypeError
        As `nestvec.hamming_topk`; k above 2048; codes on another device.
    MemoryError
        If the device has too little for the search.
    """
    k, order = arrays.result_count(k), stream_handle(stream)
    place = codes.device if isinstance(codes, DeviceArray) else Device.after(device, None)
    with place.active():
        asked = incoming(q, place, "q", order) if is_foreign(q) else q
        given = incoming(codes, place, "codes", order) if is_foreign(codes) else codes
        checked, small, used = checked_pair(_like(asked), _like(given), bits)
        rows = given if isinstance(given, DeviceArray) else small
        if isinstance(asked, DeviceArray):
            queries = asked.reshape(asked.size // checked.shape[1], checked.shape[1])
        else:
            queries = place.put(checked, order)
        count = min(k, max(len(rows), 1))
        refuse_many(count)
        words = _packed(place, rows, used, order)
        found = Found(place, len(queries), k, None, order)
        for some in slices.steps(len(queries), 1, group_size(len(queries), count, len(rows), used)):
            batch = Batch(words, queries.rows(some.start, some.stop), None, 0, order)
            found.put(batch.nearest(used, count), some.start, batch.nq)
        for x in (q, codes):
            done_with(x, order)
        return found.given(q, stream) if is_foreign(q) else found.numpy()


def _like(x: Any) -> Any:
    """For an array of a device one of the host with its type, dims and at most one row, for checks; or `x` itself."""
    if not isinstance(x, DeviceArray):
        return x
    if x.ndim == 2:
        return np.zeros((min(len(x), 1), x.shape[1]), x.dtype)
    return np.broadcast_to(np.zeros((), x.dtype), x.shape)


def _packed(device: Device, rows: Any, bits: int, stream: int) -> Words:
    """The words of codes; those of the host are copied to the device in pieces."""
    words = Words(device, np.asarray([bits], np.int64), [Run(0, len(rows), np.empty(0, np.int64), 0)], stream)
    piece = len(rows) if isinstance(rows, DeviceArray) else max(PIECE // rows.shape[1], 1)
    for some in slices.steps(len(rows), 1, max(piece, 1)):
        codes = rows if isinstance(rows, DeviceArray) else device.put(rows[some], stream)
        device.native.pack_codes(codes.buffer, len(codes), rows.shape[1], words.plane, some.start, stream)
    return words
