"""`CudaMultiVectorIndex`: documents of many token vectors in the memory of a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .. import arrays
from ..bags import BagQueries, Bags
from ..collection import frozen
from ..filters import allowed_words
from ..maxsim import carved
from ..parallel import threads_for
from ..plan import Plan, Stage
from .device import Device
from .lists import Names
from .maxsim import Documents, rounded, top_k

if TYPE_CHECKING:
    from ..multivector import Contents, MultiVectorIndex

Array = npt.NDArray[Any]


class CudaMultiVectorIndex:
    """A copy of a `MultiVectorIndex` in a GPU's memory, as `MultiVectorIndex.to` makes it."""

    def __init__(self, index: MultiVectorIndex, device: Device) -> None:
        self._index = frozen(index)
        self.device = device
        contents = self._index._contents
        if contents.store.ntotal:
            self._documents = Documents.stored(device, _parts(contents))
        ids = None if contents.names is None or contents.strings else device.put(contents.names)
        self._names = Names(ids, 0, contents.store.ntotal)
        device.wait()

    def __len__(self) -> int:
        return self._index.ntotal

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
        stream: int = 0,
    ) -> tuple[Array, Array]:
        """The k documents with the largest MaxSim for each query, as `MultiVectorIndex.search` finds them.

        Shortlists are made on the CPU, by `threads` threads, and ranked on the device.
        """
        k, index = arrays.result_count(k), self._index
        contents = index._contents
        queries = index._queries(contents, q)
        shortlist, stages = index._chosen(contents, len(queries), k, candidates, exact, plan, recall, threads)
        ranked = queries if carve is None else carved(queries, carve)
        words = allowed_words(contents, filter, len(queries), partial(index._slots, contents))
        if shortlist is None:
            return self._ranked(ranked, k, None, words if len(words) else None, stream)
        workers = threads_for(threads, len(queries) * contents.store.ntotal * 256)
        positions = index._shortlist(contents, queries, shortlist, stages, words, workers)[1]
        return self._ranked(ranked, k, positions, None, stream)

    def _ranked(
        self, queries: BagQueries, k: int, listed: Array | None, words: Array | None, stream: int
    ) -> tuple[Array, Array]:
        tokens, contents = queries.tokens.astype(np.float32), self._index._contents
        found = top_k(
            self._documents, tokens, queries.offsets, k, self._names, listed=listed, words=words, stream=stream
        )
        scores, ids = rounded(*found)
        if contents.names is None or not contents.strings:
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
