"""`MultiVectorIndex`: documents of many token vectors, ranked by exact MaxSim, all of them or a shortlist."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import arrays, parallel, slices
from .bags import BagQueries, best
from .collection import Collection, changing, reading
from .filters import Bitmap, allowed_words, by_position
from .ids import NOTHING, Run, listed_bytes
from .index import NestedIndex
from .maxsim import carved
from .muvera import FixedDimensionalEncoder
from .parallel import limited, threads_for
from .plan import Explanation, Plan, Stage, StageReport, staged
from .planes import BLOCK, padded
from .search import as_ranges
from .tokens import (
    TYPES,
    Store,
    exact_topk,
    exact_within,
    explain_topk,
    extended,
    gathered,
    score_listed,
    token_bytes,
    widened_tokens,
)
from .tombstones import Tombstones, to_bools

if TYPE_CHECKING:
    from .tuning import Draw, Subject

Array = npt.NDArray[Any]

ENCODED_VALUES = 2**24  # of encodings made at a time while adding
EXACT_BYTES = 32 * 2**20  # of token codes: up to here one query is answered sooner exactly than by a shortlist
CANDIDATES, PER_RESULT = 250, 25  # of a shortlist: at least, and for each result asked for
QUERY_TOKENS = 32  # of a document that is held out as a query
FUNNEL = 8  # rows of the coarsest code for each of the finest


class Contents(NamedTuple):
    """What an index holds; replaced as a whole, so that a reader or an interrupt never sees half of a change."""

    store: Store
    encodings: NestedIndex  # nothing is added to this one: an `add` takes a twin of it
    names: Array | None  # ids by position, int64 or objects; None while they are the positions
    next_id: int
    tombstones: Tombstones  # of positions

    @property
    def strings(self) -> bool:
        """Whether ids are strings, which order by position."""
        return self.names is not None and self.names.dtype == object

    @property
    def runs(self) -> list[Run]:
        """Where ids are."""
        return [Run(0, self.store.ntotal, NOTHING if self.names is None else self.names, 0)]

    @property
    def pieces(self) -> int:
        """Segments of tokens."""
        return len(self.store.segments)

    @property
    def room(self) -> int:
        """Positions, and some more up to a multiple of 64."""
        return padded(self.store.ntotal, BLOCK)

    @property
    def ntotal(self) -> int:
        """Documents, removed ones not counted."""
        return self.store.ntotal - len(self.tombstones)

    def without(self, positions: Array) -> Contents:
        """The same less some documents."""
        return self._replace(tombstones=self.tombstones.plus(positions))

    def numbers(self, positions: Array) -> Array:
        """What orders documents with equal scores: integer ids, or else the positions."""
        return positions if self.names is None or self.strings else self.names[positions]


class MultiVectorIndex(Collection[Contents]):
    """Top-k documents by MaxSim (ColBERT's late interaction), exact, or exact within a shortlist.

    Tokens are stored once, with int8 codes for certified bounds. Each document also has a fixed dimensional encoding
    (MUVERA) in a `NestedIndex` of codes, whose levels are numbers of repetitions: it gives shortlists.

    Parameters
    ----------
    encoder : FixedDimensionalEncoder
        What makes encodings. It stays with the index: encodings of different encoders cannot be compared.
    tokens : {"f16", "f32", "bf16", "i8"}
        How tokens are stored; int8 with a scale for each. Scores are exact for the tokens as stored.
    codes : iterable of {"b1", "i4", "i8"}
        Codes of encodings to keep: one bit, four or eight bits a value.
    levels : iterable of int, optional
        Numbers of repetitions, ascending, that stages of a plan may stop at. Default: 1, 2, 4, ... and all.

    Notes
    -----
    Memory for a token of d dims is 2 d bytes (float16) for the token, d for its codes and 8; for a document its
    encoding, an eighth of a byte a value with ``b1``, and 24. Any number of threads may search while one adds.

    References
    ----------
    Khattab and Zaharia, "ColBERT", SIGIR 2020, arXiv 2004.12832. Dhulipala et al., "MUVERA", NeurIPS 2024,
    arXiv 2405.19504.

    Examples
    --------
    >>> import numpy as np
    >>> import nestvec as nv
    >>> tokens = np.random.default_rng(0).standard_normal((1000, 128), dtype=np.float32)
    >>> index = nv.MultiVectorIndex(nv.FixedDimensionalEncoder(128, projection_dim=16))
    >>> index.add((tokens, np.arange(0, 1001, 50)))
    >>> D, I = index.search(tokens[120:130], k=3)
    >>> int(I[0, 0])
    2
    """

    _on_gpu = "CudaMultiVectorIndex"

    def __init__(
        self,
        encoder: FixedDimensionalEncoder,
        tokens: str = "f16",
        *,
        codes: Iterable[str] = ("b1",),
        levels: Iterable[int] | None = None,
    ) -> None:
        if not isinstance(encoder, FixedDimensionalEncoder):
            raise TypeError(f"encoder must be a FixedDimensionalEncoder, got {type(encoder).__name__}")
        self._encoder = encoder
        self._type = arrays.one_of(tokens, "tokens", tuple(TYPES))
        if encoder.fde_dim > arrays.MAX_DIMS:
            raise ValueError(
                f"encodings of {encoder.fde_dim} values are too long for an index, which takes {arrays.MAX_DIMS}; "
                "give the encoder a final_projection_dim, fewer repetitions or a smaller projection_dim"
            )
        encodings = NestedIndex(encoder.fde_dim, self._bounds(levels), "ip", None, codes=codes)
        super().__init__(Contents(Store(), encodings, None, 0, Tombstones()))

    def _bounds(self, levels: Iterable[int] | None) -> list[int]:
        encoder = self._encoder
        if encoder.final_projection_dim:
            if levels is not None:
                raise ValueError("levels are numbers of repetitions, which a final projection mixes; leave them out")
            return [encoder.fde_dim]
        counts = arrays.level_bounds(levels, encoder.num_repetitions, smallest=1)
        return [int(count) * encoder.repetition_dim for count in counts]

    @property
    def encoder(self) -> FixedDimensionalEncoder:
        """What made the encodings."""
        return self._encoder

    @property
    def tokens(self) -> str:
        """How tokens are stored."""
        return self._type

    def __repr__(self) -> str:
        return (
            f"MultiVectorIndex({self._encoder!r}, tokens={self._type!r}, codes={self._contents.encodings.codes}, "
            f"ntotal={self.ntotal})"
        )

    def memory_usage(self) -> int:
        """Bytes of memory held: tokens, codes and encodings, room for more included."""
        contents = self._contents
        tokens = sum(segment.nbytes for segment in contents.store.segments)
        return tokens + contents.encodings.memory_usage() + listed_bytes(contents.runs)

    @changing
    def add(
        self,
        docs: Any,
        ids: Sequence[Any] | Array | None = None,
        *,
        fdes: Any = None,
        fingerprint: str | None = None,
        threads: int | None = None,
    ) -> None:
        """Append documents; after an error the index is as it was.

        Parameters
        ----------
        docs : (tokens, offsets), list of (n_i, dim) arrays, or (n, length, dim) array
            float16, bfloat16, float32, float64 or integers, any strides and byte order; finite. A document without
            tokens is never found.
        ids : n integers or n strings, optional
            Unique, integers not negative. Default: positions, 0, 1, 2, ...
        fdes : (n, fde_dim) array, optional
            Encodings of the documents, if they are made already.
        fingerprint : str, optional
            That of the encoder that made them; needed with `fdes`.
        threads : int, optional
            Default: all cores this process may use.

        Raises
        ------
        ValueError
            Tokens of other dims than the encoder's; offsets that do not ascend from 0 to N; NaN or Inf, or a value
            beyond the type of the stored tokens (row and column named); repeated ids; encodings of another encoder.
        TypeError
            A dtype that holds no real numbers; ids of different types.
        """
        bags = arrays.ragged(docs, "docs", self._encoder.dim)
        made = self._made(fdes, fingerprint, len(bags))
        workers = threads_for(threads, bags.tokens.size * 8)
        with self._writing():
            before = self._contents
            given = self._given_ids(ids, len(bags), before)
            if given is not None:
                self._refuse_known(given)
            self._show(before, *self._extended(before, bags, given, made, workers), NOTHING)

    @changing
    def update(
        self,
        ids: Any,
        docs: Any,
        *,
        fdes: Any = None,
        fingerprint: str | None = None,
        threads: int | None = None,
    ) -> None:
        """Give documents new tokens; a search sees all of the old ones or all of the new ones.

        The new tokens are written behind the others. The room of the old ones is kept until `compact`.

        Parameters
        ----------
        ids : n integers or n strings
            Of documents in the index, each once.
        docs, fdes, fingerprint, threads
            As for `add`.

        Raises
        ------
        KeyError
            For an id that is not in the index; nothing is updated.
        ValueError, TypeError
            As `add`.
        """
        bags = arrays.ragged(docs, "docs", self._encoder.dim)
        made = self._made(fdes, fingerprint, len(bags))
        workers = threads_for(threads, bags.tokens.size * 8)
        with self._writing():
            before, old = self._find(arrays.lookup(ids))
            given = self._given_ids(ids, len(bags), before)
            if given is not None:
                after, slots = self._extended(before, bags, given, made, workers)
                self._show(before, after.without(old), slots, old)

    def _refuse_unlike(self, other: MultiVectorIndex) -> None:
        if other.encoder.dim != self._encoder.dim:
            raise ValueError(f"the other index has tokens of {other.encoder.dim} dims, this one of {self._encoder.dim}")

    def _compacted(self, contents: Contents, workers: int) -> Contents:
        positions = np.flatnonzero(to_bools(contents.tombstones.alive(contents.room), contents.store.ntotal))
        names: Array | None = positions if contents.names is None else contents.names[positions]
        if contents.names is None and len(positions) == contents.store.ntotal:
            names = None  # positions stay what they are
        store, encodings = Store(), self._empty.encodings
        if len(positions):
            store = gathered(contents.store, positions, workers)
            encodings = contents.encodings.taken(positions, workers)
        return Contents(store, encodings, names, contents.next_id, Tombstones())

    def _extended(
        self, before: Contents, bags: arrays.Ragged, given: Array | None, made: Array | None, workers: int
    ) -> tuple[Contents, Array]:
        """Contents with more documents, and their positions."""
        first = before.store.ntotal
        names = before.names
        if given is not None:
            names = appended(np.arange(first) if names is None else names, given)
        store = extended(before.store, bags, self._type, workers)
        encodings = self._encoded(before.encodings.twin(), bags, made, workers)
        highest = first + len(bags)
        if given is not None and given.dtype != object:
            highest = max(int(given.max()) + 1, highest if before.names is None else 0)
        after = Contents(store, encodings, names, max(before.next_id, highest), before.tombstones)
        return after, first + np.arange(len(bags))

    def _show(self, before: Contents, after: Contents, slots: Array, old: Array) -> None:
        self._refuse_changed()
        if before.names is None and after.names is not None:
            self._swap(after)  # ids that were positions are listed now
        else:
            new = NOTHING if after.names is None else after.names[slots]
            self._publish(after, new, slots if after.names is not None else NOTHING, dead=old)

    @limited
    @reading
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
        timeout: float | None = None,
    ) -> tuple[Array, Array]:
        """The k documents with the largest MaxSim for each query.

        Parameters
        ----------
        q : (m, dim) array, list of (m_i, dim) arrays, (nq, m, dim) array, or (tokens, offsets)
            Queries; a 2-D array is one.
        k : int
            Results per query, at least 1.
        candidates : int, optional
            Rank only the documents whose encodings promise most, so many of them. Default: 25 for each result asked
            for, at least 250.
        carve : float, optional
            Inner product from which query tokens are replaced by their sum, see `carve`; the encoding stays that of the
            whole query.
        exact : bool, optional
            Whether all documents compete. Default: if that is at least as fast as a shortlist, which it is up to some
            thousand documents, and neither `candidates` nor `plan` is given.
        plan : Plan or list of Stage, optional
            Stages by codes of the encodings that make the shortlist; the last one keeps the candidates, and may be
            followed by ``Stage("raw")``, which is MaxSim and comes last in any case. `dims` are the values of the
            encoding to look at, ``r * encoder.repetition_dim`` for r repetitions.
        recall : float, optional
            Instead of a plan: find at least this share of the k best documents, on average, by the plan that `tune`
            found for this k. If there is none yet, the search tunes first.
        filter : optional
            Which ids may be found, as for `NestedIndex.search`; ids that are strings are filtered by lists of ids.
        threads : int, optional
            Default: all cores this process may use, one for little work.
        timeout : float, optional
            Seconds after which the search ends with a TimeoutError, between two steps of some milliseconds.

        Returns
        -------
        D : (nq, k) float32
            MaxSim, descending.
        I : (nq, k) int64, or object if ids are strings
            Ids; ties by smaller id, strings by the order in which they were added. Where fewer than k documents were
            found: id -1 (None) and score -inf.

        Raises
        ------
        ValueError
            An empty index; a query without tokens; other dims than the encoder's; NaN or Inf; k or candidates < 1;
            `exact` together with `candidates` or `plan`, `recall` with any of these.
        TypeError
            A dtype that holds no real numbers.
        TimeoutError
            After `timeout`.
        """
        k = arrays.result_count(k)
        contents = self._contents
        queries = self._queries(contents, q)
        c, stages = self._chosen(contents, len(queries), k, candidates, exact, plan, recall, threads)
        ranked = queries if carve is None else carved(queries, carve)
        words = allowed_words(contents, filter, len(queries), partial(self._slots, contents))
        if c is None:
            size = len(ranked.tokens) * contents.store.tokens * self._encoder.dim
            numbers = contents.numbers(np.arange(contents.store.ntotal))
            allowed = by_position(words, contents.store.ntotal)
            found = exact_topk(contents.store, ranked, k, threads_for(threads, size // 8), numbers, allowed)
        else:
            workers = threads_for(threads, len(queries) * contents.store.ntotal * 256)
            _, positions = self._shortlist(contents, queries, c, stages, words, workers)
            found = _ranked(contents, ranked, positions, k, workers)
        return _results(contents, found, k)

    @limited
    @reading
    def explain(
        self,
        q: Any,
        k: int,
        *,
        candidates: int | None = None,
        exact: bool | None = None,
        plan: Plan | Sequence[Stage] | None = None,
        filter: Any = None,
        timeout: float | None = None,
    ) -> Explanation:
        """What a search does: what each stage scores, the bytes that takes and the time, per query.

        Parameters
        ----------
        q, k, candidates, exact, plan, filter, timeout
            As for `search`, which is run with one thread.

        Returns
        -------
        Explanation
            Its ``stages``; printed, a table. Exact search has two: ``rows`` of the first, ``"i8"``, are tokens, whose
            codes bound the scores of documents, and what it has kept are the documents that were scored by the
            second, ``"raw"``. A shortlist has the stages over encodings, with the time of encoding the query in the
            first of them, and then ``"raw"``, the MaxSim of the candidates.

        Raises
        ------
        ValueError, TypeError, TimeoutError
            As `search`.

        Examples
        --------
        >>> import numpy as np
        >>> import nestvec as nv
        >>> tokens = np.random.default_rng(0).standard_normal((1000, 128), dtype=np.float32)
        >>> index = nv.MultiVectorIndex(nv.FixedDimensionalEncoder(128, projection_dim=16))
        >>> index.add((tokens, np.arange(0, 1001, 50)))
        >>> [(stage.code, stage.rows) for stage in index.explain(tokens[120:130], 3, candidates=5).stages]
        [('b1', 20.0), ('raw', 5.0)]
        >>> index.explain(tokens[120:130], 3, exact=True).stages[0].rows
        1000.0
        """
        k = arrays.result_count(k)
        contents = self._contents
        queries = self._queries(contents, q)
        c, stages = self._ways(contents, len(queries), k, candidates, exact, plan)
        words = allowed_words(contents, filter, len(queries), partial(self._slots, contents))
        if len(queries) == 0:
            return Explanation(())
        if c is None:
            numbers = contents.numbers(np.arange(contents.store.ntotal))
            allowed = by_position(words, contents.store.ntotal)
            return Explanation(explain_topk(contents.store, queries, k, numbers, allowed))
        return self._explained(contents, queries, k, c, stages, words)

    def _explained(
        self, contents: Contents, queries: BagQueries, k: int, c: int, plan: Any, words: Array
    ) -> Explanation:
        """What a search of a shortlist does."""
        begun, count = perf_counter(), len(queries)
        fdes, how = self._asked(contents, queries, c, plan, words, 1)
        encoding = perf_counter() - begun
        first, *others = contents.encodings.explain(fdes, **how).stages
        positions = contents.encodings.search(fdes, **how, threads=1)[1]
        begun = perf_counter()
        found = _ranked(contents, queries, positions, k, 1)
        seconds = (perf_counter() - begun) / count
        listed = positions[positions >= 0]
        read = contents.store.lengths[listed].sum() * token_bytes(contents.store, self._encoder.dim)
        kept = sum(len(scores) for scores, _ in found) / count
        last = StageReport("raw", self._encoder.dim, len(listed) / count, kept, float(read) / count, seconds)
        return Explanation((replace(first, seconds=first.seconds + encoding / count), *others, last))

    def _ways(
        self, contents: Contents, queries: int, k: int, candidates: int | None, exact: bool | None, plan: Any
    ) -> tuple[int | None, Any]:
        """How many candidates there are to be, None if all documents compete, and the stages that find them."""
        if exact and (candidates is not None or plan is not None):
            raise ValueError("exact=True ranks all documents; leave out candidates and plan, or exact")
        stages = staged(plan, queries, contents.ntotal)
        if stages is None and exact is None and candidates is None:
            exact = isinstance(plan, Plan) or _few(contents.store, self._encoder.dim)
        if exact:
            return None, None
        stages, candidates = _unranked(stages, candidates)
        c = max(CANDIDATES, PER_RESULT * k) if candidates is None else arrays.integer(candidates, "candidates", 1)
        return c, stages

    def _chosen(
        self,
        contents: Contents,
        queries: int,
        k: int,
        candidates: int | None,
        exact: bool | None,
        plan: Any,
        recall: float | None,
        threads: int | None,
    ) -> tuple[int | None, Any]:
        """The same, where a plan may be chosen by its recall."""
        if recall is not None and (exact is not None or candidates is not None):
            raise ValueError("recall chooses between exact search and shortlists; leave out exact and candidates")
        plan = self._stages(plan, recall, k, None, threads)
        exact = True if recall is not None and plan is None else exact
        return self._ways(contents, queries, k, candidates, exact, plan)

    @limited
    @reading
    def range_search(
        self,
        q: Any,
        radius: float,
        *,
        filter: Any = None,
        threads: int | None = None,
        timeout: float | None = None,
    ) -> tuple[Array, Array, Array]:
        """All documents whose MaxSim is at least `radius`, exactly.

        Parameters
        ----------
        q, filter, threads, timeout
            As for `search`.
        radius : float
            The smallest score that counts; it is compared with float64 scores.

        Returns
        -------
        lims : (nq + 1,) int64
            The results of query i are those from ``lims[i]`` to ``lims[i + 1]``.
        D : (lims[-1],) float32
        I : (lims[-1],) int64, or object if ids are strings
            MaxSim and ids; for each query best first, ties as in `search`.

        Raises
        ------
        ValueError, TypeError
            As `search`; a radius that is NaN.
        """
        least = arrays.number(radius, "radius")
        contents = self._contents
        queries = self._queries(contents, q)
        words = allowed_words(contents, filter, len(queries), partial(self._slots, contents))
        size = len(queries.tokens) * contents.store.tokens * self._encoder.dim
        numbers = contents.numbers(np.arange(contents.store.ntotal))
        allowed = by_position(words, contents.store.ntotal)
        found = exact_within(contents.store, queries, least, threads_for(threads, size // 8), numbers, allowed)
        lims, scores, ids = as_ranges(found, "ip")
        return lims, scores, contents.names[ids] if contents.names is not None and contents.strings else ids

    @limited
    @reading
    def shortlist(
        self,
        q: Any,
        c: int,
        *,
        plan: Sequence[Stage] | None = None,
        filter: Any = None,
        threads: int | None = None,
        timeout: float | None = None,
    ) -> tuple[Array, Array]:
        """The c documents whose encodings have the largest inner products with each query's, as codes estimate them.

        Parameters
        ----------
        q, plan, filter, threads, timeout
            As for `search`.
        c : int
            Documents per query, at least 1.

        Returns
        -------
        D : (nq, c) float32
            Estimated inner products of encodings, descending.
        I : (nq, c) int64, or object if ids are strings
            Ids; -1 (None) with -inf where there are fewer documents.

        Raises
        ------
        ValueError, TypeError, TimeoutError
            As `search`.
        """
        c = arrays.result_count(c)
        contents = self._contents
        queries = self._queries(contents, q)
        workers = threads_for(threads, len(queries) * contents.store.ntotal * 256)
        words = allowed_words(contents, filter, len(queries), partial(self._slots, contents))
        scores, positions = self._shortlist(contents, queries, c, plan, words, workers)
        kept = [p[p >= 0][:c] for p in positions]
        keys = [p if contents.names is None else contents.names[p] for p in kept]
        return _padded(contents, [(s[: len(p)], p) for s, p in zip(scores, keys, strict=True)], c)

    @reading
    def reconstruct(self, ids: Any) -> list[Array]:
        """Stored tokens of documents by id, (n_i, dim) float32 each; for one id a list of one.

        Raises
        ------
        KeyError
            For an id that is not in the index.
        """
        contents, positions = self._find(arrays.lookup(ids))
        return [widened_tokens(bags) for bags in contents.store.bags(positions.tolist())]

    def _queries(self, contents: Contents, q: Any) -> BagQueries:
        tokens, offsets = arrays.bag_queries(q, "q", self._encoder.dim)
        if contents.ntotal == 0:
            raise ValueError("the index is empty; add documents before searching")
        return BagQueries(slices.converted(tokens, np.float64), offsets)

    def _width(self, dims: int | None) -> int:
        if dims is not None:
            raise ValueError(f"dims must be left out, plans choose how much of an encoding to read; got {dims!r}")
        return self._encoder.fde_dim

    def _subject(self, queries: Any, k: int, dims: int | None, draw: Draw, threads: int | None) -> Subject:
        from .tuning import Subject

        wide, own = self._width(dims), None
        if queries is None:
            own = self.ids[draw(self.ntotal)]
            bags = self.reconstruct(own)
            own, bags = own[[len(bag) > 0 for bag in bags]], [bag[:QUERY_TOKENS] for bag in bags if len(bag)]
        else:
            tokens, offsets = arrays.bag_queries(queries, "queries", self._encoder.dim)
            bags = [tokens[offsets[i] : offsets[i + 1]] for i in draw(len(offsets) - 1)]
        codes = self._contents.encodings.codes

        def run(some: list[Array], count: int, stages: list[Stage]) -> tuple[Array, Array]:
            return self.search(some, count, plan=stages, threads=threads)

        return Subject.of(
            self,
            bags,
            own,
            k,
            dims=wide,
            codes=tuple((code, end) for code in codes for end in self._contents.encodings.levels),
            last=Stage("raw"),
            ascending=False,
            ties=16,
            exact=lambda some, count: self.search(some, count, exact=True, threads=threads),
            listed=lambda some, depth, stages: self.shortlist(some, depth, plan=stages, threads=threads)[1],
            run=run,
        )

    def _made(self, fdes: Any, fingerprint: str | None, count: int) -> Array | None:
        """Encodings that the caller brought, checked."""
        if fdes is None:
            return None
        own = self._encoder.fingerprint()
        if fingerprint != own:
            raise ValueError(
                f"the encodings have fingerprint {fingerprint!r}, the index has an encoder with {own!r}; encode with "
                "index.encoder and pass fingerprint=index.encoder.fingerprint()"
            )
        made = arrays.vectors(fdes, "fdes", self._encoder.fde_dim)
        if len(made) != count:
            raise ValueError(f"fdes holds {len(made)} encodings, there are {count} documents")
        return made

    def _given_ids(self, ids: Any, count: int, before: Contents) -> Array | None:
        """Ids of new documents, (count,) int64 or objects; None while ids are positions."""
        strings = before.strings
        listed = None if ids is None else list(ids)
        if not count and not listed:
            return None
        if listed is None:
            if strings:
                raise ValueError("the ids of this index are strings; give each new document one")
            if before.names is None:
                return None
            return np.arange(before.next_id, before.next_id + count)
        new = _strings(listed) if listed and isinstance(listed[0], str) else arrays.int64_ids(ids, count)
        if len(new) != count:
            raise ValueError(f"ids must name each document, {count}, got {len(new)}")
        if before.store.ntotal and count and strings != (new.dtype == object):
            raise TypeError("ids of one index are all strings or all integers (positions, unless given, are integers)")
        return new

    def _encoded(self, encodings: NestedIndex, bags: arrays.Ragged, made: Array | None, workers: int) -> NestedIndex:
        """`encodings` with those of more documents."""
        step = max(1, ENCODED_VALUES // self._encoder.fde_dim)
        for first in range(0, len(bags), step):
            last = min(first + step, len(bags))
            if made is None:
                at, end = bags.offsets[[first, last]]
                some = self._encoder.encode_documents(
                    bags.tokens[at:end], bags.offsets[first : last + 1] - at, threads=workers
                )
            else:
                some = made[first:last]
            encodings.add(arrays.to_float32(some, "encodings of docs", first), threads=workers)
        return encodings

    def _shortlist(
        self, contents: Contents, queries: BagQueries, c: int, plan: Any, words: Array, workers: int
    ) -> tuple[Array, Array]:
        """Estimated scores and positions of c candidates for each query."""
        fdes, how = self._asked(contents, queries, c, plan, words, workers)
        return contents.encodings.search(fdes, **how, threads=workers)

    def _asked(
        self, contents: Contents, queries: BagQueries, c: int, plan: Any, words: Array, workers: int
    ) -> tuple[Array, dict[str, Any]]:
        """What encodings are searched for, and how."""
        fdes = self._encoder.encode_queries(queries.tokens, queries.offsets, threads=workers)
        return fdes, self._asked_of(contents, c, plan, words)

    def _asked_of(self, contents: Contents, c: int, plan: Any, words: Array) -> dict[str, Any]:
        """How encodings are searched."""
        if plan is None:
            codes = contents.encodings.codes
            plan = [Stage(code, keep=FUNNEL * c) for code in codes[:1] if len(codes) > 1] + [Stage(codes[-1])]
        bits = words.astype("<u8", copy=False).view(np.uint8)
        some = None if not len(words) else Bitmap(bits[0] if len(words) == 1 else bits)
        return {"k": min(c, contents.ntotal), "plan": plan, "filter": some}


def _unranked(plan: Any, candidates: int | None) -> tuple[Any, int | None]:
    """A plan that makes shortlists, and how many candidates, of one that may end by ranking them."""
    if not isinstance(plan, (list, tuple)) or len(plan) < 2 or plan[-1] != Stage("raw"):
        return plan, candidates
    *before, last = plan[:-1]
    if candidates is None:
        candidates = last.keep
    return [*before, replace(last, keep=None)], candidates


def appended(view: Array, new: Array) -> Array:
    """The values of `view` and then `new`, in the memory behind `view` if there is room."""
    size = len(view) + len(new)
    buffer = view.base
    if buffer is None or len(buffer) < size or buffer.dtype != new.dtype:
        buffer = np.empty(2 * size, new.dtype)
        buffer[: len(view)] = view
    buffer[len(view) : size] = new
    return buffer[:size]


def _strings(ids: list[Any]) -> Array:
    for one in ids:
        if not isinstance(one, str):
            raise TypeError(f"ids must be all strings or all integers, got {one!r} among strings")
    repeated = [one for one, count in Counter(ids).items() if count > 1]
    if repeated:
        raise ValueError(f"id {repeated[0]!r} is given more than once; ids must be unique")
    result = np.empty(len(ids), object)
    result[:] = ids
    return result


def _few(store: Store, d: int) -> bool:
    """Whether one query is answered sooner exactly than by a shortlist."""
    return store.tokens * d <= EXACT_BYTES


def _ranked(
    contents: Contents, queries: BagQueries, positions: Array, k: int, workers: int
) -> list[tuple[Array, Array]]:
    """Scores and ids of the k best candidates of each query, exactly."""
    within = workers if len(queries) < workers else 1

    def rank(i: int) -> tuple[Array, Array]:
        listed = np.sort(positions[i][positions[i] >= 0])
        scores = score_listed(contents.store, queries.some(i, i + 1), listed, within)[0]
        return best(scores, contents.numbers(listed), k)

    return parallel.run(rank, range(len(queries)), workers // within)


def _results(contents: Contents, found: list[tuple[Array, Array]], k: int) -> tuple[Array, Array]:
    """(nq, k) scores and ids, padded; strings still are positions in `found`."""
    if contents.names is not None and contents.strings:
        found = [(scores, contents.names[at]) for scores, at in found]
    return _padded(contents, found, k)


def _padded(contents: Contents, found: list[tuple[Array, Array]], k: int) -> tuple[Array, Array]:
    strings = contents.strings
    scores = np.full((len(found), k), -np.inf, np.float32)
    ids = np.full((len(found), k), None if strings else -1, object if strings else np.int64)
    for i, (values, names) in enumerate(found):
        with np.errstate(over="ignore"):
            scores[i, : len(values)] = values
        ids[i, : len(names)] = names
    return scores, ids
