"""MaxSim on a GPU: fast scores within a stated bound, exact ones, and exact top-k."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import arrays, slices
from ..bags import Bags, not_finite
from ..maxsim import SUFFIX, listed_candidates
from ..planes import padded
from .device import Device, DeviceArray
from .lists import RESULTS, Best, Lists, Names, buffer

Array = npt.NDArray[Any]

TYPES = {"f32": 0, "f16": 1, "bf16": 2, "i8": 3}
TILE, TILES, CHUNK = 8, 8, 32  # query tokens side by side, tiles of a bundle, dims: as maxsim.h
PARTS = {"f32": 3, "f16": 2, "bf16": 3, "i8": 3}  # of a query token: what float32 holds
FEW = 64  # columns up to which reading documents takes longer than multiplying them by all parts
GROUP = 1024  # queries per pass, at most
ENTRIES = 2**24  # of the lists of a pass
SCORES = 2**28  # of a pass
ROOM = 4096  # documents of a list, at least
FIRST = 1024  # documents of the first round, whose best make the first thresholds
ALIGN = 8  # dims that a lane reads together: rows on the device are filled up with zeros


class Documents:
    """Token vectors of documents in a GPU's memory, for any number of calls of `maxsim` and `maxsim_topk`.

    Parameters
    ----------
    device : Device
        Where to.
    tokens, scales
        As `docs` and `scales` of `nestvec.maxsim`.
    offsets : (n + 1,) integers, optional
        Where documents begin, if `tokens` is (N, d).

    Raises
    ------
    ValueError, TypeError
        As `nestvec.maxsim`, and for NaN and Inf in any document.
    """

    def __init__(
        self, device: Device, tokens: Any, offsets: Any = None, scales: Any = None, *, stream: int = 0
    ) -> None:
        bags = arrays.ragged(tokens, "docs", offsets=offsets)
        weights = arrays.token_scales(scales, len(bags.tokens))
        kept, kind = arrays.readable_tokens(bags.tokens, "docs")
        self._put(device, [Bags(kept, weights, SUFFIX[kind], bags.offsets)], stream)

    @classmethod
    def stored(cls, device: Device, parts: Sequence[Bags], stream: int = 0) -> Documents:
        """Those of several bags, one behind the other."""
        result = cls.__new__(cls)
        result._put(device, parts, stream)
        return result

    def _put(self, device: Device, parts: Sequence[Bags], stream: int) -> None:
        device.activate()
        self.device, self.suffix = device, parts[0].suffix
        self.dims = parts[0].tokens.shape[1]
        width = padded(self.dims, ALIGN)
        lengths = [np.diff(part.offsets) for part in parts]
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
        self.n, count = len(offsets) - 1, int(offsets[-1])
        self._tokens = device.empty((count, width), parts[0].tokens.dtype, stream)
        scaled = len(parts[0].scales) > 0
        self._scales = device.empty(count, np.float32, stream) if scaled else None
        at = 0
        for part in parts:
            last = int(part.offsets[-1])
            for some in slices.steps(last, width):
                rows = part.tokens[some]
                if width > self.dims:
                    rows = np.zeros((len(rows), width), rows.dtype)
                    rows[:, : self.dims] = part.tokens[some]
                self._tokens.write(rows, (at + some.start) * width, stream)
            if self._scales is not None:
                self._scales.write(part.scales[:last], at, stream)
            at += last
        self._measure(count, width, device.put(offsets, stream), stream)
        device.wait(stream)
        token = int(self._bad.numpy(stream)[0])
        _refuse_not_finite(parts, token)
        self.irregular = bool(self._irregular.numpy(stream)[0])

    def _measure(self, count: int, width: int, offsets: DeviceArray, stream: int) -> None:
        device = self.device
        self.norms = device.empty(self.n, np.float32, stream)
        self._bad = device.put(np.array([np.iinfo(np.int64).max]), stream)
        self._irregular = device.put(np.zeros(1, np.int32), stream)
        self.native = device.native.Bags(
            self._tokens.buffer, TYPES[self.suffix], count, width, self.dims, buffer(self._scales), offsets.buffer,
            self.n, self.norms.buffer,
        )  # fmt: skip
        device.native.measure_bags(self.native, self.norms.buffer, self._bad.buffer, self._irregular.buffer, stream)

    def __len__(self) -> int:
        return self.n

    @property
    def nbytes(self) -> int:
        """Bytes of tokens."""
        return self._tokens.nbytes


def _refuse_not_finite(parts: Sequence[Bags], token: int) -> None:
    for part in parts:
        if token < part.offsets[-1]:
            raise not_finite(part, token, token + 1)
        token -= int(part.offsets[-1])


class Queries:
    """Queries of a pass, split for tensor cores.

    Parameters
    ----------
    tokens : (m, d) float32
    offsets : (nq + 1,) int64
    parts : int
        Halves that each value is split into.
    apart : bool
        Whether queries have documents of their own.
    """

    def __init__(
        self, documents: Documents, tokens: Array, offsets: Array, parts: int, apart: bool, stream: int
    ) -> None:
        self.documents, self.stream, self.device = documents, stream, documents.device
        self.nq = len(offsets) - 1
        tiles = np.concatenate([[0], np.cumsum(-(-np.diff(offsets) // TILE))])
        count, dims = int(tiles[-1]), documents.dims
        put, empty = self.device.put, self.device.empty
        self.native = self.device.native.QueryBags(
            put(tokens, stream).buffer, len(tokens), dims, put(offsets, stream).buffer, put(tiles, stream).buffer,
            self.nq,
        )  # fmt: skip
        self._errors = empty(count, np.float64, stream)
        owners = np.repeat(np.arange(self.nq, dtype=np.int32), np.diff(tiles))
        self._offsets = tiles
        chunks = -(-dims // CHUNK)
        self.tiles = self.device.native.Tiles(
            empty((count, chunks, parts, 32, 4), np.uint32, stream).buffer,
            empty((count, TILE), np.float64, stream).buffer, self._errors.buffer, put(owners, stream).buffer, count,
            parts, dims,
        )  # fmt: skip
        self.device.native.split_queries(self.native, documents.native, self.tiles, stream)
        cuts = tiles if apart else bundled(tiles)
        self.bundles, self.count, self.widest = put(cuts, stream), len(cuts) - 1, int(np.diff(cuts).max(initial=0))

    def errors(self) -> Array:
        """What a document's norm is multiplied by to bound the error of each query's score, (nq,)."""
        return np.add.reduceat(self._errors.numpy(self.stream), self._offsets[:-1])

    def scan(
        self,
        docs: DeviceArray | None,
        step: int,
        first: int,
        last: int,
        *,
        allowed: DeviceArray | None = None,
        allowed_step: int = 0,
        lists: Lists | None = None,
        out: DeviceArray | None = None,
    ) -> None:
        """Score documents, or those listed, from `first` to `last`."""
        self.device.native.scan_bags(
            self.documents.native, self.native, self.tiles, self.bundles.buffer, self.count, self.widest, buffer(docs),
            step, first, last, buffer(allowed), allowed_step, None if lists is None else lists.native, buffer(out),
            self.stream,
        )  # fmt: skip


def bundled(tiles: Array) -> Array:
    """Cuts between bundles of whole queries, given where their tiles begin: TILES of them, or one query."""
    cuts, ends = [0], tiles.tolist()
    for before, end in pairwise(ends):
        if end - cuts[-1] > TILES and before > cuts[-1]:
            cuts.append(before)
    return np.array([*cuts, ends[-1]], np.int64)


def parts_for(tokens: Array, suffix: str, few: bool) -> int:
    """Into how many halves query tokens are split: all that they hold, or, to find candidates for many, one."""
    if not few:
        return 1
    if suffix == "f16":
        with np.errstate(over="ignore"):
            whole = np.array_equal(tokens.astype(np.float16), tokens)
    else:
        whole = not np.any(tokens.view(np.uint32) & 0xFFFF)
    return 1 if whole else PARTS[suffix]


def maxsim(
    q: Any,
    docs: Any,
    *,
    scales: Any = None,
    candidates: Any = None,
    exact: bool = False,
    device: Device | str = "cuda",
    stream: int = 0,
) -> Array:
    """MaxSim of queries with documents, as `nestvec.maxsim`, by tensor cores.

    Parameters
    ----------
    q, scales, candidates
        As for `nestvec.maxsim`.
    docs : Documents, or as for `nestvec.maxsim`
        What is no `Documents` is copied to the device for this call.
    exact : bool
        Whether scores are the bits of `nestvec.maxsim`. Otherwise a score is off by at most

            ``(1 + 2**-18) sum over query tokens q of (r + 1.25 2**-22 dims) |q| X``

        X the largest |x| of the document, at least 1e-30, dims rounded up to 32, and r |q| what is left when q is split
        into halves: r is below 2^-22, and 0 where q is float16 as the documents are. Then it is rounded to float32.
        Documents whose float32 sums might overflow are scored exactly.
    device : Device or str
        Where, unless `docs` is there already.
    stream : int
        A CUDA stream.

    Returns
    -------
    (nq, n) or (nq, c) float32
        -inf for documents without tokens.

    Raises
    ------
    ValueError, TypeError
        As `nestvec.maxsim`; any document's NaN and Inf, if it is listed or not.
    """
    documents = _documents(docs, scales, device, stream)
    tokens, offsets = _queries(q, documents)
    listed = listed_candidates(candidates, len(offsets) - 1, len(documents))
    count, apart = listed.shape[-1], listed.ndim == 2
    result = np.empty((len(offsets) - 1, count), np.float32)
    shared = None if candidates is None or apart else documents.device.put(listed, stream)
    for some in slices.steps(len(result), 1, max(1, min(GROUP, SCORES // max(count, 1)))):
        own = documents.device.put(listed[some], stream) if apart else shared
        part, cuts = _some(tokens, offsets, some)
        queries = Queries(documents, part, cuts, parts_for(part, documents.suffix, True), apart, stream)
        out, step = documents.device.empty((queries.nq, count), np.float32, stream), count if apart else 0
        if not exact:
            queries.scan(own, step, 0, count, out=out)
        if exact or documents.irregular:
            documents.device.native.score_items(
                documents.native, queries.native, buffer(own), step, count, not exact, out.buffer, stream
            )
        result[some] = out.numpy(stream)
    return result


def maxsim_topk(
    q: Any,
    docs: Any,
    k: int,
    *,
    scales: Any = None,
    candidates: Any = None,
    device: Device | str = "cuda",
    stream: int = 0,
) -> tuple[Array, Array]:
    """The k documents with the largest MaxSim for each query: the bits of `nestvec.maxsim_topk`.

    Parameters
    ----------
    q, docs, scales, candidates, device, stream
        As for `maxsim`.
    k : int
        Results per query, 1 to 2048.

    Returns
    -------
    D : (nq, k) float32
        Descending.
    I : (nq, k) int64
        Document numbers, ties by smaller number; -1 with score -inf where there are fewer than k documents with tokens.

    Raises
    ------
    ValueError, TypeError
        As `maxsim`.
    """
    k = arrays.result_count(k)
    documents = _documents(docs, scales, device, stream)
    tokens, offsets = _queries(q, documents)
    listed = None
    if candidates is not None:
        listed = listed_candidates(candidates, len(offsets) - 1, len(documents))
        listed = np.unique(listed) if listed.ndim == 1 else _each_once(listed)
    names = Names(None, 0, len(documents))
    return rounded(*top_k(documents, tokens, offsets, k, names, listed=listed, stream=stream))


def top_k(
    documents: Documents,
    tokens: Array,
    offsets: Array,
    k: int,
    names: Names,
    *,
    listed: Array | None = None,
    words: Array | None = None,
    stream: int = 0,
) -> tuple[Array, Array]:
    """Scores (nq, k) float64 and ids of the best documents: of all, of those `listed`, or of those that `words` allow.

    `listed` is (c,) or (nq, c), -1 for none; `words` (1 or nq, ...) uint64, a bit for each document.
    """
    if k > RESULTS:
        raise ValueError(f"k={k}; a GPU lists at most {RESULTS} results a query: search on the CPU")
    documents.device.activate()
    nq, room = len(offsets) - 1, list_room(k, 0 if listed is None else listed.shape[-1])
    scores, ids = np.empty((nq, k)), np.empty((nq, k), np.int64)
    for some in slices.steps(nq, 1, max(1, min(GROUP, ENTRIES // room))):
        part, cuts = _some(tokens, offsets, some)
        own = listed[some] if listed is not None and listed.ndim == 2 else listed
        sets = words[some] if words is not None and len(words) > 1 else words
        search = Search(documents, part, cuts, k, room, own, sets, names, stream)
        best = search.run()
        scores[some], ids[some] = best.scores.numpy(stream), best.ids.numpy(stream)
    return scores, ids


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
        tokens: Array,
        offsets: Array,
        k: int,
        room: int,
        listed: Array | None,
        words: Array | None,
        names: Names,
        stream: int,
    ) -> None:
        self.documents, self.names, self.stream, self.device = documents, names, stream, documents.device
        apart = listed is not None and listed.ndim == 2
        few = len(tokens) <= FEW or apart
        parts = parts_for(tokens, documents.suffix, few)
        self.queries = Queries(documents, tokens, offsets, parts, apart, stream)
        self.docs = None if listed is None else self.device.put(listed.astype(np.int64, copy=False), stream)
        self.step = listed.shape[1] if listed is not None and apart else 0
        self.count = len(documents) if listed is None else listed.shape[-1]
        self.allowed = None if words is None else self.device.put(words, stream)
        self.allowed_step = words.shape[1] if words is not None and len(words) > 1 else 0
        self.lists = Lists(self.device, self.queries.nq, room, stream)
        self.best = Best(self.device, self.queries.nq, k, stream)

    def run(self) -> Best:
        """Rounds of more and more documents; exact scores of what may be among the best."""
        native, lists, best, queries, names = self.device.native, self.lists, self.best, self.queries, self.names
        k, documents, nq, stream = best.k, self.documents, self.queries.nq, self.stream
        at, size = 0, self.count if self.docs is not None else max(FIRST, 8 * k)
        growth = 32 if 64 * k <= lists.room else 8
        while at < self.count:
            end = min(at + size, self.count)
            queries.scan(
                self.docs, self.step, at, end, allowed=self.allowed, allowed_step=self.allowed_step, lists=lists
            )
            native.tighten(lists.native, documents.native, queries.native, queries.tiles, k, stream)
            at, size = end, size * growth
        scored = self.device.empty((nq, lists.room), np.float64, stream)
        numbers = self.device.empty((nq, lists.room), np.int64, stream)
        native.rank_lists(
            lists.native, documents.native, queries.native, buffer(names.ids), names.base, scored.buffer,
            numbers.buffer, best.scores.buffer, best.ids.buffer, k, stream,
        )  # fmt: skip
        if self.docs is None:
            self._score_all()
        return best

    def _score_all(self) -> None:
        """The k best of all documents, for queries whose lists had no room."""
        best, names, nq, stream = self.best, self.names, self.queries.nq, self.stream
        shares = Best.shares(nq, best.k, len(self.documents))
        partial = Best(self.device, nq * shares, best.k, stream)
        self.device.native.top_k_of_bags(
            self.documents.native, self.queries.native, self.lists.lost.buffer, shares, buffer(self.allowed),
            self.allowed_step, buffer(names.ids), names.base, partial.scores.buffer, partial.ids.buffer,
            best.scores.buffer, best.ids.buffer, best.k, stream,
        )  # fmt: skip


def rounded(scores: Array, ids: Array) -> tuple[Array, Array]:
    """Scores as float32."""
    return slices.converted(scores.reshape(-1), np.float32).reshape(scores.shape), ids


def _documents(docs: Any, scales: Any, device: Device | str, stream: int) -> Documents:
    if isinstance(docs, Documents):
        if scales is not None:
            raise ValueError("scales belong to the tokens; give them to Documents")
        docs.device.activate()
        return docs
    return Documents(Device(device) if isinstance(device, str) else device, docs, scales=scales, stream=stream)


def _queries(q: Any, documents: Documents) -> tuple[Array, Array]:
    return arrays.bag_queries(q, "q", documents.dims if len(documents) else None)


def _some(tokens: Array, offsets: Array, some: slice) -> tuple[Array, Array]:
    """Queries of a slice."""
    cuts = offsets[some.start : some.stop + 1]
    return tokens[cuts[0] : cuts[-1]], cuts - cuts[0]


def _each_once(listed: Array) -> Array:
    """Rows sorted, -1 in place of what is repeated."""
    result = np.sort(listed, axis=1)
    result[:, 1:][result[:, 1:] == result[:, :-1]] = -1
    return result
