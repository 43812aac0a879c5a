"""Binary codes in arrays of your own: packing, Hamming distance, intersection and Jaccard similarity, and their top-k.

Codes are uint8 ``(n, ceil(bits / 8))``, the first bit in the highest place of the first byte: what numpy's
``packbits`` and sentence-transformers' ``ubinary`` precision give.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from . import arrays, backends, parallel, slices
from .nearest import AND, CALL_WORDS, OR, XOR, BitPart, BitTask, best, nearest, query_words
from .parallel import limited, threads_for
from .planes import BLOCK, Words, padded
from .search import as_results

Array = npt.NDArray[Any]

PACK_ROWS, PACK_BYTES = 16_384, 2**22  # rows packed, or scored, at a time, at most
COUNTS = 2**21  # of rows for queries, made at a time
MISSING = np.iinfo(np.int32).max  # the distance of a row that is not there


def pack_bits(x: Any, thresholds: Any = None) -> Array:
    """Sign bits of vectors: bit j of row i is one where ``x[i, j] > thresholds[j]``.

    Parameters
    ----------
    x : (n, d) array
        Any float or integer dtype, strides and byte order; finite. A single vector (d,) gives a single code.
    thresholds : float or (d,) array, optional
        Default 0. For signs relative to a mean, the mean.

    Returns
    -------
    (n, ceil(d / 8)) uint8
        First bit highest, unused bits zero; bit for bit what ``quantize_embeddings(x, "ubinary")`` of
        sentence-transformers gives.

    Raises
    ------
    ValueError
        Wrong shape; NaN or Inf (row and column named).
    TypeError
        A dtype that holds no real numbers.

    Examples
    --------
    >>> import nestvec as nv
    >>> nv.pack_bits([[1.0, -2.0, 0.0, 0.5]]).tolist()
    [[144]]
    """
    array = arrays.as_numpy(x, "x")
    single = array.ndim == 1
    array = arrays.vectors(array, "x", single=single)
    d = array.shape[1]
    out = packed_signs(array, "x", arrays.thresholds(thresholds, d), None)
    return out[0] if single else out


def packed_signs(array: Array, name: str, thresholds: Array, threads: int | None) -> Array:
    """Codes of checked vectors."""
    out = np.empty((len(array), -(-array.shape[1] // 8)), np.uint8)

    def part(some: slice) -> None:
        _pack(arrays.signs(array[some], name, first_row=some.start), thresholds, out[some])

    parallel.run(part, list(slices.steps(len(array), array.shape[1])), threads_for(threads, array.size))
    return out


def _pack(values: Array, thresholds: Array, out: Array) -> None:
    if values.dtype == np.float32:
        backends.current().sign_bits_f32(values, below_thresholds(thresholds), out)
    else:
        backends.current().sign_bits_f64(values, thresholds.astype(np.float64), out)


def below_thresholds(thresholds: Array) -> Array:
    """What float32 values are above if they are above thresholds: the largest float32 that is not above each."""
    with np.errstate(all="ignore"):
        below = thresholds.astype(np.float32)
        return np.where(below > thresholds, np.nextafter(below, np.float32(-np.inf)), below)


def as_ubinary(codes: Any) -> Array:
    """Codes of sentence-transformers' signed ``binary`` precision, int8, as uint8: the same bits, 128 lower.

    Parameters
    ----------
    codes : (..., bytes) int8

    Returns
    -------
    (..., bytes) uint8

    Raises
    ------
    TypeError
        Unless int8.

    Examples
    --------
    >>> import numpy as np
    >>> import nestvec as nv
    >>> nv.as_ubinary(np.int8([[-128, 16]])).tolist()
    [[0, 144]]
    """
    array = np.asarray(codes)
    if array.dtype != np.int8:
        raise TypeError(f"codes has dtype {array.dtype}; signed codes are int8, and uint8 codes need no conversion")
    return array.view(np.uint8) ^ np.uint8(128)


def hamming(q: Any, codes: Any, *, bits: int | None = None, threads: int | None = None) -> Array:
    """Hamming distances: the number of bits that differ.

    Parameters
    ----------
    q, codes : (nq, bytes), (n, bytes) uint8
        Packed codes of one width; `q` may be a single code (bytes,).
    bits : int, optional
        Leading bits to compare; default all.
    threads : int, optional
        Default: all cores this process may use, one for little work.

    Returns
    -------
    (nq, n) int32

    Raises
    ------
    ValueError
        Codes of different widths (in bits), `bits` beyond them.
    TypeError
        Codes that are not uint8.

    Examples
    --------
    >>> import numpy as np
    >>> import nestvec as nv
    >>> nv.hamming(np.uint8([[0b11110000]]), np.uint8([[0b11110001], [0]])).tolist()
    [[1, 4]]
    >>> nv.hamming(np.uint8([[0b11110000]]), np.uint8([[0b11110001], [0]]), bits=2).tolist()
    [[0, 2]]
    """
    (counts,) = _counts(q, codes, bits, (XOR,), threads)
    return counts


def intersection(q: Any, codes: Any, *, bits: int | None = None, threads: int | None = None) -> Array:
    """Number of bits that are one in both: the similarity of sparse distributed representations.

    Parameters, errors and the shape of the result are those of `hamming`.

    Examples
    --------
    >>> import numpy as np
    >>> import nestvec as nv
    >>> nv.intersection(np.uint8([[0b11110000]]), np.uint8([[0b11000001], [0]])).tolist()
    [[2, 0]]
    """
    (counts,) = _counts(q, codes, bits, (AND,), threads)
    return counts


def jaccard(q: Any, codes: Any, *, bits: int | None = None, threads: int | None = None) -> Array:
    """Jaccard similarities: bits that are one in both over those that are one in either; 1 for two codes without any.

    Parameters and errors are those of `hamming`; the result is (nq, n) float32.

    Examples
    --------
    >>> import numpy as np
    >>> import nestvec as nv
    >>> nv.jaccard(np.uint8([[0b11110000]]), np.uint8([[0b11000000], [0]])).tolist()
    [[0.5, 0.0]]
    """
    both, either = _counts(q, codes, bits, (AND, OR), threads)
    out = np.empty(both.shape, np.float32)
    flat, ones, all_ones = out.reshape(-1), both.reshape(-1), either.reshape(-1)
    for some in slices.steps(out.size):
        flat[some] = _ratio(ones[some], all_ones[some])
    return out


@limited
def hamming_topk(
    q: Any,
    codes: Any,
    k: int,
    *,
    bits: int | None = None,
    threads: int | None = None,
    timeout: float | None = None,
) -> tuple[Array, Array]:
    """The k nearest codes by Hamming distance, by counting.

    Parameters
    ----------
    q, codes, bits, threads
        As for `hamming`.
    k : int
        Results per query, at least 1.
    timeout : float, optional
        Seconds after which the search ends with a TimeoutError, between two steps of some milliseconds.

    Returns
    -------
    D : (nq, k) int32
        Distances, ascending.
    I : (nq, k) int64
        Row numbers, ties by smaller number. Where there are fewer than k rows: -1 and the largest int32.

    Raises
    ------
    ValueError, TypeError
        As `hamming`.
    TimeoutError
        After `timeout`.

    Examples
    --------
    >>> import numpy as np
    >>> import nestvec as nv
    >>> D, I = nv.hamming_topk(np.uint8([[0b11110000]]), np.uint8([[0], [0b11110001], [0b11110000]]), 2)
    >>> D.tolist(), I.tolist()
    ([[0, 1]], [[2, 1]])
    """
    return _topk(q, codes, k, bits, XOR, threads)


@limited
def intersection_topk(
    q: Any,
    codes: Any,
    k: int,
    *,
    bits: int | None = None,
    threads: int | None = None,
    timeout: float | None = None,
) -> tuple[Array, Array]:
    """The k codes with most one bits in common, most first, ties by smaller row; parameters as for `hamming_topk`.

    Where there are fewer than k rows: row -1 and -1 bits.

    Examples
    --------
    >>> import numpy as np
    >>> import nestvec as nv
    >>> D, I = nv.intersection_topk(np.uint8([[0b11110000]]), np.uint8([[0], [0b11000001], [0b10000000]]), 2)
    >>> D.tolist(), I.tolist()
    ([[2, 1]], [[1, 2]])
    """
    q, codes, used = checked_pair(q, codes, bits)
    distances, found = _topk(q, codes, k, used, AND, threads)
    for some in slices.steps(*found.shape):
        distances[some] = np.where(found[some] < 0, np.int32(-1), np.int32(used) - distances[some])
    return distances, found


@limited
def jaccard_topk(
    q: Any,
    codes: Any,
    k: int,
    *,
    bits: int | None = None,
    threads: int | None = None,
    timeout: float | None = None,
) -> tuple[Array, Array]:
    """The k codes of largest Jaccard similarity, largest first, ties by smaller row; parameters as for `hamming_topk`.

    Similarities are compared exactly and returned as float32. Where there are fewer than k rows: row -1 and -inf.

    Examples
    --------
    >>> import numpy as np
    >>> import nestvec as nv
    >>> D, I = nv.jaccard_topk(np.uint8([[0b11110000]]), np.uint8([[0], [0b11000000], [0b11110000]]), 2)
    >>> D.tolist(), I.tolist()
    ([[1.0, 0.5]], [[2, 1]])
    """
    k = arrays.result_count(k)
    queries, rows, _ = checked_pair(q, codes, bits)
    places = min(k, len(rows))
    scores, found = np.full((len(queries), places), -np.inf), np.full((len(queries), places), -1, np.int64)
    for first in range(0, len(rows), PACK_ROWS):  # quotients of small integers are distinct in float64
        piece = rows[first : first + PACK_ROWS]
        both, either = _counts(queries, piece, bits, (AND, OR), threads)
        ids = np.arange(first, first + len(piece))
        for some in slices.steps(len(queries), places + len(piece), slices.SORTED):
            ratio = _ratio(both[some], either[some])
            new = ratio, np.broadcast_to(ids, ratio.shape)
            scores[some], found[some] = slices.best([(scores[some], found[some]), new], places, largest=True)
    return as_results(scores, found, k, "ip")


def _ratio(both: Array, either: Array) -> Array:
    return np.where(either == 0, 1.0, both / np.maximum(either, 1))


def checked_pair(q: Any, codes: Any, bits: int | None) -> tuple[Array, Array, int]:
    """Queries (nq, bytes) and codes (n, bytes) uint8 of one width, and how many bits to compare."""
    rows = arrays.codes(codes, "codes")
    width = rows.shape[1] * 8
    return (
        arrays.codes(q, "q", width, single=True),
        rows,
        width if bits is None else arrays.integer(bits, "bits", 1, width),
    )


def _packed(rows: Array, bits: int) -> Words:
    words = Words.allocate(padded(max(len(rows), 1), BLOCK), np.asarray([bits], np.int64))
    backends.current().pack_words(rows, words.bounds, words.starts, 0, words.words)
    return words


def _pieces(rows: Array) -> list[slice]:
    """Rows that are packed at a time."""
    return list(slices.steps(len(rows), 1, max(min(PACK_ROWS, PACK_BYTES // rows.shape[1]), 1)))


def _counts(q: Any, codes: Any, bits: int | None, whats: tuple[int, ...], threads: int | None) -> list[Array]:
    """Counts of all rows, (nq, n) int32, by each of `whats`; rows are packed once for all."""
    queries, rows, used = checked_pair(q, codes, bits)
    wanted = query_words(queries, np.asarray([used], np.int64), used)
    out = [np.empty((len(queries), len(rows)), np.int32) for _ in whats]

    def part(piece: slice) -> None:
        words = _packed(rows[piece], used)
        for counts, what in zip(out, whats, strict=True):
            for some, found in counted(words, used, wanted, what, 0, len(rows[piece])):
                slices.copy(found, counts[some, piece])

    workers = threads_for(threads, len(queries) * len(rows) * used // 8)
    parallel.run(part, _pieces(rows), workers)
    return out


def counted(words: Words, bits: int, queries: Array, what: int, first: int, last: int) -> Iterator[tuple[slice, Array]]:
    """Counts (some queries, rows [`first`, `last`)) int32, for some queries at a time."""
    count = backends.current().count_bits
    each = (last - first) * max(queries.shape[1], CALL_WORDS // COUNTS)
    for some in slices.steps(len(queries), each, CALL_WORDS):
        parallel.check()
        found = np.empty((some.stop - some.start, last - first), np.int32)
        count(words.words, words.starts, words.bounds, bits, queries[some], what, first, last, found)
        yield some, found


def _topk(q: Any, codes: Any, k: int, bits: int | None, what: int, threads: int | None) -> tuple[Array, Array]:
    k = arrays.result_count(k)
    queries, rows, used = checked_pair(q, codes, bits)
    task = BitTask(query_words(queries, np.asarray([used], np.int64), used), min(k, max(len(rows), 1)), used, what)

    def part(piece: slice) -> tuple[Array, Array]:
        some = rows[piece]
        return nearest([BitPart(_packed(some, used), 0, len(some), np.empty(0, np.int64), piece.start)], task, 1)

    workers = threads_for(threads, len(queries) * len(rows) * used // 8)
    found = parallel.run(part, _pieces(rows), workers)
    return merged(found, len(queries), k)


def merged(found: list[tuple[Array, Array]], count: int, k: int) -> tuple[Array, Array]:
    """The k nearest of several lists, by distance and then id; missing ones are id -1 and the largest int32."""
    nothing = np.empty((count, 0), np.int32), np.empty((count, 0), np.int64)
    distances, ids = best(found or [nothing], k)
    if ids.shape[1] >= k:
        return distances[:, :k], ids[:, :k]
    all_distances, all_ids = np.empty((count, k), np.int32), np.empty((count, k), np.int64)
    for some in slices.steps(count, k):
        all_distances[some, : ids.shape[1]], all_distances[some, ids.shape[1] :] = distances[some], MISSING
        all_ids[some, : ids.shape[1]], all_ids[some, ids.shape[1] :] = ids[some], -1
    return all_distances, all_ids
