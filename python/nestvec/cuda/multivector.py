"""`CudaMultiVectorIndex`: documents of many token vectors in the memory of a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .. import arrays
from ..bags import Bags
from ..filters import allowed_words
from ..maxsim import carved
from ..parallel import threads_for
from ..plan import Plan, Stage
from .bags import AskedBags, Documents
from .copied import Copied
from .dense import CudaNestedIndex
from .device import Device, DeviceArray, stream_handle
from .encoding import CudaEncoder
from .foreign import done_with, is_foreign
from .late import Targets, rank
from .lists import RESULTS, Names
from .results import Results

if TYPE_CHECKING:
    from ..multivector import Contents, MultiVectorIndex
    from ..muvera import FixedDimensionalEncoder

Array = npt.NDArray[Any]


class CudaMultiVectorIndex(Copied["MultiVectorIndex"]):
    """A copy of a `MultiVectorIndex` in a GPU's memory, as `MultiVectorIndex.to` makes it.

    Later changes do not reach it. Any number of threads may search; searches of one stream run one after the other.
    """

    def __init__(self, index: MultiVectorIndex, device: Device) -> None:
        super().__init__(index, device, "documents")
        contents = self._index._contents
        with device.active():
            self._device = device = device.with_stream()
            self._documents = Documents.stored(device, _parts(contents))
            ids = None if contents.names is None or contents.strings else device.put(contents.names)
            self._names = Names(ids, 0, contents.store.ntotal)
            self._encoder = CudaEncoder(index.encoder, device)
            self._encodings = CudaNestedIndex(contents.encodings, device)
            device.wait()

    @property
    def encoder(self) -> FixedDimensionalEncoder:
        """What made the encodings."""
        return self._index.encoder

    @property
    def tokens(self) -> str:
        """How tokens are stored."""
        return self._index.tokens

    def memory_usage(self) -> int:
        """Bytes of the device's memory held between searches, encodings included."""
        return super().memory_usage() + self._encodings.memory_usage()

    def search(
        self,
        q: Any,
        k: int,
        *,
        candidates: int | None = None,
        carve: float | None = None,
        exact: bool | None = None,
        plan: Plan | Sequence[Stage] | None = None,
        recall: float | None = None,
        filter: Any = None,
        threads: int | None = None,
        stream: Any = None,
        check: bool = True,
    ) -> tuple[Any, Any]:
        """The k documents with the largest MaxSim for each query, as `MultiVectorIndex.search` finds them.

        Parameters
        ----------
        q
            Queries of the host, as for `MultiVectorIndex.search`, or an array (m, dim) or (nq, m, dim) of the device,
            or (tokens, offsets).
        k, candidates, carve, exact, plan, recall, filter
            As for `MultiVectorIndex.search`; k is 2048 at most. More candidates than that are listed on the CPU, which
            waits for queries of the device; so does carving.
        threads : int, optional
            Of the CPU, for such shortlists.
        stream : optional
            What the search runs in: a stream of torch, cupy or cuda.core, or its handle. Default: the default stream.
        check : bool
            Whether queries of the device are looked at before the search is begun, which waits for them, so that NaN
            and Inf are an error as they are on the host. False: NaN and Inf are taken as 0.

        Returns
        -------
        D : (nq, k) float32
        I : (nq, k) int64, or object if ids are strings
            As `MultiVectorIndex.search`, bit for bit: numpy arrays for queries of the host, and where ids are strings;
            else arrays of the same library on the device.

        Raises
        ------
        ValueError, TypeError
            As `MultiVectorIndex.search`; queries on another device.
        MemoryError
            If the device has too little for the search.
        """
        k, index, order, device = arrays.result_count(k), self._index, stream_handle(stream), self._device
        contents = index._contents
        with device.active():
            asked = AskedBags.of(q, index.encoder.dim, device, order)
            if check:
                asked.refuse_bad(order)
            count, ways = index._chosen(contents, len(asked), k, candidates, exact, plan, recall, threads)
            words = allowed_words(contents, filter, len(asked), partial(index._slots, contents))
            targets = Targets(None, words if len(words) else None)
            ranked = asked
            if carve is not None:
                cut = carved(asked.host(order), carve)
                ranked = AskedBags.put(cut.tokens.astype(np.float32), cut.offsets, device, order)
            if count is not None:
                targets = Targets(self._shortlist(contents, asked, count, ways, words, threads, order))
            results = Results(device, len(asked), k, "ip", None, order)
            rank(self._documents, ranked, targets, self._names, results, order)
            device.reads(order)
            return self._given(results, q, order, stream)

    def _shortlist(
        self, contents: Contents, asked: AskedBags, count: int, plan: Any, words: Array, threads: int | None, order: int
    ) -> DeviceArray:
        """Positions of the candidates of each query."""
        device, index = self._device, self._index
        if min(count, self.ntotal) > RESULTS:
            workers = threads_for(threads, len(asked) * contents.store.ntotal * 256)
            return device.put(index._shortlist(contents, asked.host(order), count, plan, words, workers)[1], order)
        offsets = device.put(asked.offsets, order)
        fdes = self._encoder.encode_on_device(asked.values, offsets, "queries", order)
        how = index._asked_of(contents, count, plan, words)
        found: DeviceArray = self._encodings.search(fdes, **how, stream=order, check=False)[1]
        return found

    def _given(self, results: Results, q: Any, order: int, stream: Any) -> tuple[Any, Any]:
        contents, source = self._index._contents, q[0] if isinstance(q, tuple) else q
        for one in q if isinstance(q, tuple) else (q,):
            done_with(one, order)
        strings = contents.names is not None and contents.strings
        if is_foreign(source) and not strings:
            return results.given(source, stream)
        scores, ids = results.numpy()
        if contents.names is None or not strings:
            return scores, ids
        named = np.full(ids.shape, None, object)
        named[ids >= 0] = contents.names[ids[ids >= 0]]
        return scores, named


def _parts(contents: Contents) -> list[Bags]:
    """Segments, without the room behind what they hold."""
    return [
        segment.bags._replace(offsets=segment.offsets[: n + 1])
        for segment, n in zip(contents.store.segments, contents.store.counts, strict=True)
    ]
