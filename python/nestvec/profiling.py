"""`nestvec.profile`: what a set of vectors allows a search to leave out.

Rows are read a chunk at a time, so that memory does not grow with their number; lists of the best rows of each chunk
are merged. Only codes are kept for all rows that are searched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from . import arrays, backends, fitting, parallel, slices
from .index import NestedIndex
from .parallel import threads_for
from .parts import Part, Task
from .plan import CODES, Stage
from .planes import Segment
from .profiles import Code, Contrast, Lengths, Prefix, Profile
from .search import top_k
from .stateless import prefix_scores
from .transform import fit_rotation

Array = npt.NDArray[Any]
Lists = tuple[Array, Array]  # scores, higher is better, and row numbers, best first
Report = Callable[[int, int, str], object]

MOST_ROWS = 2_000_000  # searched; of more at least half as many
MOST_DIMS = 4096  # that are rotated: axes of more take minutes
MEDIAN_ROWS = 4096  # whose scores stand for those of all
CHUNK_VALUES = 2**25  # of rows in memory as float32
FIT_VALUES = 2**25  # of rows that PCA is fitted to
WIDER = 10  # times k: length of a shortlist
NEIGHBORS = 20  # at least, for the intrinsic dimensionality
NEAR = 0.1  # of the median distance
SAME = 1e-6  # the same; below, a distance is what rounding left of 0
UNIT = 1e-3  # lengths of float16 rows differ by less
LARGEST = float(np.finfo(np.float32).max)
LARGE = 1e30  # longer rows are scaled while they are rotated


def profile(
    x: Any,
    queries: Any = None,
    *,
    k: int = 10,
    metric: str = "cosine",
    levels: Iterable[int] | None = None,
    sample: int = 500,
    seed: int = 0,
    threads: int | None = None,
    progress: Report | None = None,
) -> Profile:
    """What prefixes and codes of these vectors keep of the exact top k, and what else decides how to search them.

    Each prefix is compared with one of the same width after PCA and after a random rotation, up to 4096 dims: the
    leading dims of the latter are what any dims would be, so vectors that were trained to nest do better.

    Parameters
    ----------
    x : (n, d) array
        Rows, of any type that `NestedIndex.add` takes; of more than two million every second, third, ... is searched.
    queries : (nq, d) array, optional
        Real queries say most. Default: `sample` rows, each of which is left out of its own truth and candidates.
    k : int
        Results that count.
    metric : {"ip", "l2", "cosine"}
    levels : iterable of int, optional
        Prefixes to look at, ascending; d is added. Default: those of `NestedIndex`.
    sample : int
        Queries at most.
    seed : int
        Of the choice of queries and the random rotation.
    threads : int, optional
        Default: all cores this process may use.
    progress : callable, optional
        Called as ``progress(done, total, what)`` after each step.

    Returns
    -------
    Profile
        Printed, a table and a verdict; see its attributes.

    Raises
    ------
    ValueError
        Wrong shapes; no rows, no queries, or a single row without queries; NaN or Inf (row and column named); arguments
        out of range.
    TypeError
        A dtype that holds no real numbers; arguments of other types.

    Notes
    -----
    A million rows of 256 dims take 50 seconds of one core, shared out to all. Besides `x` it takes memory for codes,
    1.75 bytes a value, and some 300 MB.

    References
    ----------
    Levina and Bickel, "Maximum likelihood estimation of intrinsic dimension", NIPS 2004, averaged as by MacKay and
    Ghahramani, 2005; Amsaleg et al., "Estimating local intrinsic dimensionality", KDD 2015. He, Kumar and Chang, "On
    the difficulty of nearest neighbor search", ICML 2012 (relative contrast). For ``ip`` distances are those of
    Bachrach et al., RecSys 2014: one more dim makes all rows as long as the longest.

    Examples
    --------
    >>> import numpy as np
    >>> import nestvec as nv
    >>> x = np.random.default_rng(0).standard_normal((2000, 128)) * np.arange(1, 129) ** -0.5
    >>> profile = nv.profile(x, levels=(32, 64))
    >>> [round(prefix.energy, 2) for prefix in profile.prefixes if prefix.basis == "raw"]
    [0.72, 0.86, 1.0]
    >>> print(profile)  # doctest: +SKIP
    """
    rows = arrays.vectors(x, "x")
    arrays.one_of(metric, "metric", tuple(arrays.METRICS))
    bounds = arrays.level_bounds(levels, rows.shape[1])
    k, sample, seed = arrays.result_count(k), arrays.integer(sample, "sample", 1), arrays.integer(seed, "seed", 0)
    if progress is not None and not callable(progress):
        raise TypeError(f"progress must be a callable, got {progress!r}")
    if len(rows) == 0:
        raise ValueError("x has no rows")
    if queries is None and len(rows) == 1:
        raise ValueError("x has a single row and there are no queries: there is nothing to compare")
    searched = rows[:: _stride(len(rows), MOST_ROWS)]
    rng = np.random.default_rng(seed)
    q, own = _queries(searched, queries, sample, rng)
    workers = threads_for(threads, len(q) * searched.size)
    return _Ask(searched, q, own, k, metric, bounds, workers).profile(rows, rng, progress)


def _queries(rows: Array, given: Any, sample: int, rng: np.random.Generator) -> tuple[Array, Array | None]:
    """Queries as float32, and which rows they are, where none are given."""
    if given is None:
        own = np.sort(rng.choice(len(rows), min(sample, len(rows)), replace=False))
        return arrays.to_float32(rows[own], "x"), own
    array = arrays.vectors(given, "queries", rows.shape[1], single=True)
    if len(array) == 0:
        raise ValueError("queries has no rows")
    if len(array) > sample:
        array = array[np.sort(rng.choice(len(array), sample, replace=False))]
    return arrays.to_float32(array, "queries"), None


class _Steps:
    """Tells how far it has come."""

    def __init__(self, total: int, report: Report | None) -> None:
        self._total, self._report, self._done = total, report, 0

    def done(self, what: str) -> None:
        self._done += 1
        if self._report is not None:
            self._report(self._done, self._total, what)


@dataclass
class _Truth:
    """Scores of the best rows over all dims, and which rows count as the k best: with those that tie with the last."""

    scores: Array
    counted: list[Array]
    k: int

    @classmethod
    def of(cls, lists: Lists, k: int) -> _Truth:
        scores, ids = lists
        return cls(scores, [i[s >= s[k - 1]] for s, i in zip(scores, ids, strict=True)], k)

    def share(self, found: Array, most: int) -> float:
        """Share of the k best among the first `most` found."""
        pairs = zip(self.counted, found, strict=True)
        return sum(min(int(np.isin(best, ids[:most]).sum()), self.k) for best, ids in pairs) / (self.k * len(found))


@dataclass
class _Ask:
    """One profile in the making: `rows` to search with `q`, which are the rows `own`, or none of them."""

    rows: Array
    q: Array
    own: Array | None
    k: int
    metric: str
    bounds: Array
    threads: int

    def __post_init__(self) -> None:
        candidates = len(self.rows) - (self.own is not None)
        self.shortlist = min(WIDER * self.k, candidates)
        self.k = min(self.k, candidates)
        self.chunks = list(slices.steps(len(self.rows), self.rows.shape[1], CHUNK_VALUES))

    def profile(self, every: Array, rng: np.random.Generator, progress: Report | None) -> Profile:
        d, below = int(self.bounds[-1]), self.bounds[:-1].tolist()
        rotated = bool(below) and d <= MOST_DIMS
        steps = _Steps(2 + 2 * rotated + len(self.chunks) * (3 if rotated else 1) + len(CODES), progress)
        norms, copies = _rows_alone(every)
        steps.done("rows")
        longest = float(norms.max())
        rotations: dict[str, _Rotation] = {}
        if rotated:
            rotations["pca"] = _Rotation(self._principal()[:, : below[-1]], longest)
            steps.done("pca")
            rotations["random"] = _Rotation(_random(d, below[-1], rng), longest)
            steps.done("random rotation")
        lists, energies = self._search(rotations, self._weights(norms[:: _stride(len(every), MOST_ROWS)]), steps)
        truth = _Truth.of(lists["raw", d], self.k)
        prefixes = [
            Prefix(basis, dims, float(energy[dims - 1]), *self._shares(truth, lists[basis, dims][1]))
            if dims < d
            else Prefix(basis, d, 1.0, 1.0, 1.0)  # a rotation changes nothing over all dims
            for basis, energy in energies.items()
            for dims in (*below, d)
        ]
        codes = list(self._codes(truth, steps))
        near = self._nearby(truth.scores, longest)
        steps.done("contrast")
        return Profile(
            rows=len(every), dims=d, dtype=str(every.dtype), metric=self.metric, k=self.k, levels=(*below, d),
            searched=len(self.rows), queries=len(self.q), held_out=self.own is not None, shortlist=self.shortlist,
            prefixes=tuple(prefixes), codes=tuple(codes), contrast=near.contrast, intrinsic_dims=near.intrinsic_dims,
            neighbors=near.neighbors, duplicates=copies, near=near.near, ties=self._ties(truth.scores),
            lengths=_lengths(norms),
        )  # fmt: skip

    def _principal(self) -> Array:
        """The axes of PCA as columns, fitted to rows that are not queries, if those are most: PCA would know them."""
        d = self.rows.shape[1]
        stride = _stride(len(self.rows), max(FIT_VALUES // d, 4 * d))
        rows = self.rows[::stride]
        if self.own is not None and 2 * len(self.own) <= len(self.rows):
            rows = rows[np.isin(np.arange(0, len(self.rows), stride), self.own, invert=True)]
        return fit_rotation(rows, threads=self.threads).matrix

    def _shares(self, truth: _Truth, found: Array) -> tuple[float, float]:
        return truth.share(found, self.k), truth.share(found, self.shortlist)

    def _search(
        self, rotations: dict[str, _Rotation], weights: Array, steps: _Steps
    ) -> tuple[dict[tuple[str, int], Lists], dict[str, Array]]:
        """The best rows by each prefix of each basis, and the shares of energy that its leading dims hold."""
        held, levels = int(self.own is not None), self.bounds.tolist()
        room = dict.fromkeys(levels, self.shortlist + held)
        room[levels[-1]] = max(self.shortlist, self.k + 1, NEIGHBORS) + held
        lists: dict[tuple[str, int], Lists] = {}
        energies: dict[str, Any] = dict.fromkeys(("raw", *rotations), 0.0)
        queries = {basis: rotate(self.q, 1) for basis, rotate in rotations.items()}
        for chunk in self.chunks:
            rows = arrays.to_float32(self.rows[chunk], "x", chunk.start)
            for basis in ("raw", *rotations):
                turned, q = (rows, self.q) if basis == "raw" else (rotations[basis](rows, self.threads), queries[basis])
                energies[basis] = energies[basis] + _energy(turned, weights[chunk])
                for dims in levels if basis == "raw" else levels[:-1]:
                    found = self._top(turned, q, dims, room[dims], chunk.start)
                    before = [lists[basis, dims]] if (basis, dims) in lists else []
                    lists[basis, dims] = slices.best([*before, found], room[dims], largest=True)
                steps.done(f"{basis} search")
                del turned
        total = float(energies["raw"].sum())
        for basis, energy in energies.items():
            whole = total * rotations[basis].scale ** 2 if basis in rotations else total
            energies[basis] = np.cumsum(energy) / whole if whole else np.ones(len(energy))
        return {key: self._without_own(some) for key, some in lists.items()}, energies

    def _weights(self, norms: Array) -> Array:
        """What squares of rows count: for cosine, as if rows had length 1."""
        if self.metric != "cosine":
            return np.ones(len(norms))
        weights: Array = np.divide(1.0, norms**2, out=np.zeros(len(norms)), where=norms > 0)
        return weights

    def _top(self, rows: Array, q: Array, dims: int, most: int, first: int) -> Lists:
        segment = Segment.unpacked(rows[:, :dims], np.empty(0, np.int64), first)
        task = Task(np.ascontiguousarray(q[:, :dims]), min(most, len(rows)), dims, self.metric, "float32")
        return top_k([Part(segment, 0, len(rows))], task, None, self.threads)

    def _without_own(self, lists: Lists) -> Lists:
        """Lists one shorter, without the row that the query is."""
        if self.own is None:
            return lists
        order = np.argsort(lists[1] == self.own[:, None], axis=1, kind="stable")[:, :-1]
        return np.take_along_axis(lists[0], order, 1), np.take_along_axis(lists[1], order, 1)

    def _codes(self, truth: _Truth, steps: _Steps) -> Iterator[Code]:
        d = self.rows.shape[1]
        index = NestedIndex(d, self.bounds.tolist(), self.metric, rows=None, codes=CODES)
        index.add(self.rows, threads=self.threads)
        for code, bits in zip(CODES, (1, 4, 8), strict=True):
            for dims in self.bounds.tolist():
                most = self.shortlist + (self.own is not None)
                lists = index.search(self.q, most, dims=dims, plan=[Stage(code)], threads=self.threads)
                yield Code(code, dims, -(-dims * bits // 8), *self._shares(truth, self._without_own(lists)[1]))
            steps.done(f"{code} codes")

    def _ties(self, scores: Array) -> float:
        return float((scores[:, self.k - 1] == scores[:, self.k]).mean()) if scores.shape[1] > self.k else 0.0

    def _nearby(self, scores: Array, longest: float) -> _Nearby:
        """Contrast, nearness and dimensionality from the best scores and those of rows spread over all."""
        stride = _stride(len(self.rows), MEDIAN_ROWS)
        others = prefix_scores(self.q, self.rows[::stride], metric=self.metric, threads=self.threads)
        others = np.clip(others.astype(np.float64), -LARGEST, LARGEST)  # where float32 is not enough
        others = -others if self.metric == "l2" else others
        if self.own is not None:
            others[np.arange(0, len(self.rows), stride) == self.own[:, None]] = np.nan
        medians = np.nanmedian(others, axis=1)
        distances = partial(_distances, self.metric, np.linalg.norm(self.q.astype(np.float64), axis=1), longest)
        apart = distances(others)
        typical, nearest = float(np.nanmedian(apart)), distances(scores)
        sign = -1 if self.metric == "l2" else 1
        contrast = Contrast(
            sign * float(scores[:, 0].mean()), sign * float(scores[:, self.k - 1].mean()), sign * float(medians.mean()),
            _ratio(float(np.nanmean(apart)), float(nearest[:, 0].mean())),
        )  # fmt: skip
        neighbors = min(max(self.k, NEIGHBORS), scores.shape[1])
        inner = _intrinsic_dims(nearest[:, :neighbors], SAME * typical)
        return _Nearby(contrast, inner, neighbors, float((nearest[:, 0] < NEAR * typical).mean()))


@dataclass
class _Nearby:
    contrast: Contrast
    intrinsic_dims: float | None
    neighbors: int
    near: float


def _distances(metric: str, lengths: Array, longest: float, scores: Array) -> Array:
    """Euclidean distances in whose order the scores are: for ``cosine`` and ``ip`` of vectors made equally long."""
    if metric == "ip":
        unit = lengths[:, None] * longest
        scores = np.divide(scores, unit, out=np.zeros(scores.shape), where=unit > 0)
    distances: Array = np.sqrt(np.maximum(-scores if metric == "l2" else 2 - 2 * scores, 0))
    return distances


def _ratio(a: float, b: float) -> float | None:
    return a / b if b > 0 and np.isfinite(a / b) else None


def _intrinsic_dims(distances: Array, least: float) -> float | None:
    """One over the mean, over queries, of the mean logarithm of the largest distance over each smaller one."""
    means = []
    for row in distances:
        positive = row[row > least]
        if len(positive) > 1:
            means.append(float(np.log(positive[-1] / positive[:-1]).mean()))
    return _ratio(1.0, float(np.mean(means))) if means else None


def _stride(count: int, most: int) -> int:
    """Every so many-th of `count` are at most `most`."""
    return -(-count // most)


def _rows_alone(x: Array) -> tuple[Array, float]:
    """Lengths, and the share of rows that repeat an earlier one; refuses what is not finite."""
    norms, digests = np.empty(len(x)), np.empty(len(x), np.uint64)
    odd = np.random.default_rng(0).integers(0, 2**63, x.shape[1], np.uint64) * np.uint64(2) + np.uint64(1)
    for some in slices.steps(len(x), x.shape[1]):
        parallel.check()
        rows = arrays.to_float32(x[some], "x", some.start)
        norms[some] = np.sqrt(np.square(rows, dtype=np.float64).sum(axis=1))
        digests[some] = _digests(rows, odd)
    return norms, 1 - len(slices.distinct(digests)) / len(x)


def _lengths(norms: Array) -> Lengths:
    unit, zero = bool((np.abs(norms - 1) <= UNIT).all()), float((norms == 0).mean())
    return Lengths(float(norms.min()), float(np.median(norms)), float(norms.max()), unit, zero)


def _digests(rows: Array, odd: Array) -> Array:
    """64 bits of each row; those of 10^6 different rows are alike with probability 10^-7."""
    words = (rows + np.float32(0)).view(np.uint32).astype(np.uint64)  # one zero, not two
    words *= np.uint64(0x9E3779B97F4A7C15)
    words ^= words >> np.uint64(29)
    result: Array = words @ odd
    return result


def _energy(rows: Array, weights: Array) -> Array:
    """Weighted sums of squares of each dim."""
    total = np.zeros(rows.shape[1])
    for some in slices.steps(*rows.shape):
        parallel.check()
        total += (np.square(rows[some], dtype=np.float64) * weights[some, None]).sum(axis=0)
    return total


def _random(d: int, width: int, rng: np.random.Generator) -> Array:
    """Orthogonal axes at random, as columns."""
    axes: Array = np.linalg.qr(rng.standard_normal((d, width)))[0]
    return axes


class _Rotation:
    """Products with orthogonal columns, times `scale`; the same bits on every backend."""

    def __init__(self, columns: Array, longest: float) -> None:
        self.scale = min(LARGE / longest, 1.0) if longest else 1.0  # no sum is then beyond float32
        self._panels, self._width = fitting.packed((columns * self.scale).astype(np.float32)), columns.shape[1]

    def __call__(self, rows: Array, threads: int) -> Array:
        out = np.empty((len(rows), len(self._panels) * fitting.PANEL), np.float32)

        def part(some: slice) -> None:
            backends.current().project_tokens(rows[some], self._panels, out[some])

        parallel.run(part, list(slices.steps(len(rows), self._panels.size, fitting.CALL_WORK)), threads)
        return out[:, : self._width]
