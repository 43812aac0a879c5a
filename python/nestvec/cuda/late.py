"""MaxSim (late interaction) on a GPU: fast scores within a stated bound, exact ones, and exact top-k."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .. import arrays
from ..maxsim import listed_candidates
from ..planes import padded
from .bags import AskedBags, Documents, Split
from .device import Device, DeviceArray, stream_handle
from .foreign import done_with, incoming, is_foreign, outgoing
from .lists import Best, Lists, Names, buffer, refuse_many
from .results import Results

Array = npt.NDArray[Any]

FEW = 64  # query tokens for which reading documents takes longer than multiplying them by all halves
GROUP = 1024  # queries per pass, at most
ENTRIES = 2**24  # of the lists of a pass
SCORES = 2**28  # of a pass
ROOM = 4096  # documents of a list, at least
FIRST = 1024  # documents of the first round, whose best make the first thresholds


class Targets(NamedTuple):
    """Documents that compete: those listed, (c,) or (nq, c), or all; of them, those that `words` allow.

    `words` are (1 or nq, n / 64) uint64, a bit for each document. What is listed and does not exist is none.
    """

    listed: DeviceArray | None = None
    words: Array | None = None

    @property
    def apart(self) -> bool:
        """Whether each query has a list of its own."""
        return self.listed is not None and self.listed.ndim == 2

    @property
    def step(self) -> int:
        """Numbers from one query's list to the next one's."""
        return self.listed.shape[1] if self.listed is not None and self.apart else 0

    def count(self, documents: Documents) -> int:
        """How many documents are scored for each query."""
        return len(documents) if self.listed is None else self.listed.shape[-1]

    def some(self, first: int, last: int) -> Targets:
        """Those of queries [`first`, `last`)."""
        listed = self.listed.rows(first, last) if self.listed is not None and self.apart else self.listed
        words = self.words[first:last] if self.words is not None and len(self.words) > 1 else self.words
        return Targets(listed, words)


def maxsim(
    q: Any,
    docs: Any,
    *,
    scales: Any = None,
    candidates: Any = None,
    exact: bool = False,
    device: str | Device = "cuda",
    stream: Any = None,
    check: bool = True,
) -> Any:
    """MaxSim of queries with documents, as `nestvec.maxsim`, by tensor cores.

    Parameters
    ----------
    q
        Queries, as for `nestvec.maxsim`, or an array (m, d) or (nq, m, d) of the device, or (tokens, offsets).
    docs : Documents, or what it is made of
        What is no `Documents` is copied to the device for this call.
    scales
        As for `nestvec.maxsim`; those of `Documents` are in it.
    candidates : (c,) or (nq, c) integers, optional
        As for `nestvec.maxsim`. Those of the device are int64, and numbers that are no document's score -inf.
    exact : bool
        Whether scores are the bits of `nestvec.maxsim`. Otherwise a score is off by at most

            ``(1 + 2**-18) sum over query tokens q of (r + 1.25 2**-22 dims) |q| X``

        X the largest |x| of the document, at least 1e-30, dims rounded up to 32, and r |q| what is left when q is split
        into halves: r is about 2^-22 at most, and 0 where q is float16 as the documents are. Then it is rounded to
        float32. Documents whose float32 sums might overflow are scored exactly.
    device : str or Device
        Where, unless `docs` is there already.
    stream : optional
        A stream of torch, cupy or cuda.core, or its handle. Default: the default stream.
    check : bool
        Whether queries of the device are looked at, which waits for them, so that NaN and Inf are an error as they are
        on the host. False: nothing waits, and NaN and Inf are taken as 0.

    Returns
    -------
    (nq, n) or (nq, c) float32
        -inf for documents without tokens. A numpy array for queries of the host, else an array of the same library on
        the device.

    Raises
    ------
    ValueError, TypeError
        As `nestvec.maxsim`; any document's NaN and Inf, if it is listed or not.
    MemoryError
        If the device has too little.
    """
    order, documents = stream_handle(stream), as_documents(docs, scales, device)
    place = documents.device
    with place.active():
        asked = _asked(q, documents, order, check)
        targets = Targets(_listed(candidates, len(asked), documents, order))
        shape, source = (len(asked), targets.count(documents)), _source(q)
        out: Any = np.empty(shape, np.float32) if source is None else place.empty(shape, np.float32, order)
        for first, last in _passes(len(asked), max(shape[1], 1), SCORES):
            some = place.empty((last - first, shape[1]), np.float32, order) if source is None else out.rows(first, last)
            _score(documents, asked.some(first, last), targets.some(first, last), exact, some, order)
            if source is None:
                out[first:last] = some.numpy(order)
        _let_go(documents, (q, candidates), order)
        if source is not None and not isinstance(stream, (int, type(None))):
            out.buffer.keep(stream)
        return out if source is None else outgoing(out, source)


def maxsim_topk(
    q: Any,
    docs: Any,
    k: int,
    *,
    scales: Any = None,
    candidates: Any = None,
    device: str | Device = "cuda",
    stream: Any = None,
    check: bool = True,
) -> tuple[Any, Any]:
    """The k documents with the largest MaxSim for each query: the bits of `nestvec.maxsim_topk`.

    Parameters
    ----------
    q, docs, scales, device, stream, check
        As for `maxsim`.
    k : int
        Results per query, 1 to 2048.
    candidates : (c,) or (nq, c) integers, optional
        As for `maxsim`. Those of the device name no document twice for one query.

    Returns
    -------
    D : (nq, k) float32
        Descending.
    I : (nq, k) int64
        Document numbers, ties by smaller number; -1 with score -inf where there are fewer than k documents with tokens.

    Raises
    ------
    ValueError, TypeError, MemoryError
        As `maxsim`.
    """
    k, order, documents = arrays.result_count(k), stream_handle(stream), as_documents(docs, scales, device)
    with documents.device.active():
        asked = _asked(q, documents, order, check)
        targets = Targets(_listed(candidates, len(asked), documents, order, once=True))
        results = Results(documents.device, len(asked), k, "ip", None, order)
        rank(documents, asked, targets, Names(None, 0, len(documents)), results, order)
        _let_go(documents, (q, candidates), order)
        source = _source(q)
        return results.numpy() if source is None else results.given(source, stream)


def rank(documents: Documents, asked: AskedBags, targets: Targets, names: Names, results: Results, stream: int) -> None:
    """Put the best documents of each query in order."""
    k = max(min(results.k, targets.count(documents)), 1)
    refuse_many(k)
    room = list_room(k, 0 if targets.listed is None else targets.listed.shape[-1])
    for first, last in _passes(len(asked), room, ENTRIES):
        search = Search(documents, asked.some(first, last), targets.some(first, last), k, room, names, stream)
        results.put(search.run(), first, last - first)


def list_room(k: int, candidates: int) -> int:
    """Documents that a list holds: a multiple of k, all candidates, and of all documents what rounds may add."""
    return padded(max(ROOM, 16 * k, candidates), k)


class Search:
    """Exact top-k of a pass.

    A scan appends documents whose upper bound reaches the query's threshold to its list. The k-th best lower bound in
    it is the next threshold: no document is scored exactly before the last round, and then hardly more than k are.
    """

    def __init__(
        self,
        documents: Documents,
        asked: AskedBags,
        targets: Targets,
        k: int,
        room: int,
        names: Names,
        stream: int,
    ) -> None:
        self.documents, self.targets, self.names, self.stream = documents, targets, names, stream
        self.device, self.nq, self.count = documents.device, len(asked), targets.count(documents)
        parts = asked.parts(documents.suffix, len(asked.values) <= FEW or targets.apart)
        self.queries = Split(documents, asked, parts, targets.apart, stream)
        words = targets.words
        self.allowed = None if words is None else self.device.put(words, stream)
        self.allowed_step = words.shape[1] if words is not None and len(words) > 1 else 0
        self.lists = Lists(self.device, self.nq, room, stream)
        self.best = Best(self.device, self.nq, k, stream)

    def run(self) -> Best:
        """Rounds of more and more documents; exact scores of what may be among the best."""
        native, lists, best, queries, names = self.device.native, self.lists, self.best, self.queries, self.names
        k, bags, targets, stream = best.k, self.documents.native, self.targets, self.stream
        at, size = 0, self.count if targets.listed is not None else max(FIRST, 8 * k)
        growth = 32 if 64 * k <= lists.room else 8
        while at < self.count:
            end = min(at + size, self.count)
            queries.scan(
                targets.listed, targets.step, at, end, allowed=self.allowed, allowed_step=self.allowed_step, lists=lists
            )
            native.tighten(lists.native, bags, queries.native, queries.tiles, k, stream)
            at, size = end, size * growth
        scored = self.device.empty((self.nq, lists.room), np.float64, stream)
        numbers = self.device.empty((self.nq, lists.room), np.int64, stream)
        native.rank_lists(
            lists.native, bags, queries.native, buffer(names.ids), names.base, scored.buffer, numbers.buffer,
            best.scores.buffer, best.ids.buffer, k, stream,
        )  # fmt: skip
        if targets.listed is None:
            self._score_all()
        return best

    def _score_all(self) -> None:
        """The k best of all documents, for queries whose lists had no room."""
        best, names, stream = self.best, self.names, self.stream
        shares = Best.shares(self.nq, best.k, len(self.documents))
        partial = Best(self.device, self.nq * shares, best.k, stream)
        self.device.native.top_k_of_bags(
            self.documents.native, self.queries.native, self.lists.lost.buffer, shares, buffer(self.allowed),
            self.allowed_step, buffer(names.ids), names.base, partial.scores.buffer, partial.ids.buffer,
            best.scores.buffer, best.ids.buffer, best.k, stream,
        )  # fmt: skip


def as_documents(docs: Any, scales: Any, device: str | Device) -> Documents:
    """Documents on a device."""
    if not isinstance(docs, Documents):
        return Documents(docs.device if isinstance(docs, DeviceArray) else device, docs, scales=scales)
    if scales is not None:
        raise ValueError("scales belong to the tokens; give them to Documents")
    return docs


def _score(
    documents: Documents, asked: AskedBags, targets: Targets, exact: bool, out: DeviceArray, stream: int
) -> None:
    """Scores of a pass."""
    count, native = out.shape[1], documents.device.native
    queries = Split(documents, asked, asked.parts(documents.suffix, True), targets.apart, stream)
    if not exact:
        queries.scan(targets.listed, targets.step, 0, count, out=out)
    if exact or documents.irregular:
        native.score_items(
            documents.native, queries.native, buffer(targets.listed), targets.step, count, not exact, out.buffer, stream
        )


def _asked(q: Any, documents: Documents, stream: int, check: bool) -> AskedBags:
    asked = AskedBags.of(q, documents.dims if len(documents) else None, documents.device, stream)
    if check:
        asked.refuse_bad(stream)
    return asked


def _listed(candidates: Any, nq: int, documents: Documents, stream: int, once: bool = False) -> DeviceArray | None:
    """Candidates on the device; `once`: each of them once for a query, -1 in the place of others."""
    if candidates is None:
        return None
    if is_foreign(candidates):
        array = incoming(candidates, documents.device, "candidates", stream)
        if array.dtype != np.int64 or array.ndim not in (1, 2) or (array.ndim == 2 and len(array) != nq):
            raise ValueError(
                f"candidates of a device must be (c,) or ({nq}, c) int64, got {array.shape} {array.type}; convert them"
            )
        return array
    listed = listed_candidates(candidates, nq, len(documents))
    if once:
        listed = np.sort(listed, axis=-1)
        listed[..., 1:][listed[..., 1:] == listed[..., :-1]] = -1
    return documents.device.put(listed, stream)


def _passes(nq: int, each: int, most: int) -> Iterator[tuple[int, int]]:
    step = max(1, min(GROUP, most // each))
    for first in range(0, nq, step):
        yield first, min(first + step, nq)


def _source(q: Any) -> Any:
    """The array of a device that queries are in; None: they are the host's."""
    tokens = q[0] if isinstance(q, tuple) and len(q) == 2 else q
    return tokens if is_foreign(tokens) else None


def _let_go(documents: Documents, given: tuple[Any, ...], stream: int) -> None:
    """Free nothing that was read before `stream` has read it."""
    documents.device.reads(stream)
    for one in given:
        for array in one if isinstance(one, tuple) else (one,):
            done_with(array, stream)
