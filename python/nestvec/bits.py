"""Binary codes in arrays of your own: packing, Hamming distance, intersection and Jaccard similarity, and their top-k.

Codes are uint8 ``(n, ceil(bits / 8))``, the first bit in the highest place of the first byte: what numpy's
``packbits`` and sentence-transformers' ``ubinary`` precision give.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import arrays, backends, parallel
from .nearest import AND, OR, XOR, BitPart, BitTask, best, nearest, query_words
from .parallel import limited, threads_for
from .planes import BLOCK, Words, padded

Array = npt.NDArray[Any]

PACK_ROWS = 16_384  # rows packed, or scored, at a time
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
    limits = arrays.thresholds(thresholds, d)
    out = np.empty((len(array), -(-d // 8)), np.uint8)

    def part(first: int) -> None:
        values = arrays.signs(array[first : first + PACK_ROWS], "x", first_row=first)
        pack_signs(values, limits, out[first : first + PACK_ROWS])

    parallel.run(part, range(0, len(array), PACK_ROWS), threads_for(None, array.size))
    return out[0] if single else out


def pack_signs(values: Array, thresholds: Array, out: Array) -> None:
    """Codes of checked float32 or float64 rows."""
    if values.dtype == np.float32:
        with np.errstate(all="ignore"):
            below = thresholds.astype(np.float32)  # x > t is x > the largest float32 that is not above t
            below = np.where(below > thresholds, np.nextafter(below, np.float32(-np.inf)), below)
        backends.current().sign_bits_f32(values, below, out)
    else:
        backends.current().sign_bits_f64(values, thresholds.astype(np.float64), out)


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
    return _ratio(*_counts(q, codes, bits, (AND, OR), threads)).astype(np.float32)


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
    q, codes, used = _pair(q, codes, bits)
    distances, found = _topk(q, codes, k, used, AND, threads)
    return np.where(found < 0, np.int32(-1), np.int32(used) - distances), found


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
    queries, rows, _ = _pair(q, codes, bits)
    scores, found = np.full((len(queries), 0), -np.inf), np.empty((len(queries), 0), np.int64)
    for first in range(0, len(rows), PACK_ROWS):  # quotients of small integers are distinct in float64
        some = rows[first : first + PACK_ROWS]
        ratio = _ratio(*_counts(queries, some, bits, (AND, OR), threads))
        ids = np.broadcast_to(np.arange(first, first + len(some)), ratio.shape)
        scores, found = np.concatenate([scores, ratio], axis=1), np.concatenate([found, ids], axis=1)
        order = np.lexsort((found, -scores), axis=1)[:, :k]
        scores, found = np.take_along_axis(scores, order, 1), np.take_along_axis(found, order, 1)
    missing = ((0, 0), (0, k - scores.shape[1]))
    scores = np.pad(scores, missing, constant_values=-np.inf)
    return scores.astype(np.float32), np.pad(found, missing, constant_values=-1)


def _ratio(both: Array, either: Array) -> Array:
    return np.where(either == 0, 1.0, both / np.maximum(either, 1))


def _pair(q: Any, codes: Any, bits: int | None) -> tuple[Array, Array, int]:
    rows = arrays.codes(codes, "codes")
    width = rows.shape[1] * 8
    return (
        arrays.codes(q, "q", width, single=True),
        rows,
        width if bits is None else arrays.integer(bits, "bits", 1, width),
    )


def _packed(rows: Array, first: int, bits: int) -> Words:
    some = rows[first : first + PACK_ROWS]
    words = Words.allocate(padded(max(len(some), 1), BLOCK), np.asarray([bits], np.int64))
    backends.current().pack_words(some, words.bounds, words.starts, 0, words.words)
    return words


def _counts(q: Any, codes: Any, bits: int | None, whats: tuple[int, ...], threads: int | None) -> list[Array]:
    """Counts of all rows, (nq, n) int32, by each of `whats`; rows are packed once for all."""
    queries, rows, used = _pair(q, codes, bits)
    wanted = query_words(queries, np.asarray([used], np.int64), used)
    out = [np.empty((len(queries), len(rows)), np.int32) for _ in whats]
    kernel = backends.current().count_bits

    def part(first: int) -> None:
        words, count = _packed(rows, first, used), len(rows[first : first + PACK_ROWS])
        some = np.empty((len(queries), count), np.int32)
        for counts, what in zip(out, whats, strict=True):
            kernel(words.words, words.starts, words.bounds, used, wanted, what, 0, count, some)
            counts[:, first : first + count] = some

    workers = threads_for(threads, len(queries) * len(rows) * used // 8)
    parallel.run(part, range(0, len(rows), PACK_ROWS), workers)
    return out


def _topk(q: Any, codes: Any, k: int, bits: int | None, what: int, threads: int | None) -> tuple[Array, Array]:
    k = arrays.result_count(k)
    queries, rows, used = _pair(q, codes, bits)
    task = BitTask(query_words(queries, np.asarray([used], np.int64), used), min(k, max(len(rows), 1)), used, what)

    def part(first: int) -> tuple[Array, Array]:
        count = len(rows[first : first + PACK_ROWS])
        return nearest([BitPart(_packed(rows, first, used), 0, count, np.empty(0, np.int64), first)], task, 1)

    workers = threads_for(threads, len(queries) * len(rows) * used // 8)
    found = parallel.run(part, range(0, len(rows), PACK_ROWS), workers)
    return merged(found, len(queries), k)


def merged(found: list[tuple[Array, Array]], count: int, k: int) -> tuple[Array, Array]:
    """The k nearest of several lists, by distance and then id; missing ones are id -1 and the largest int32."""
    nothing = np.empty((count, 0), np.int32), np.empty((count, 0), np.int64)
    distances, ids = best(found or [nothing], k)
    if ids.shape[1] >= k:
        return distances[:, :k], ids[:, :k]
    missing = ((0, 0), (0, k - ids.shape[1]))
    return np.pad(distances, missing, constant_values=MISSING), np.pad(ids, missing, constant_values=-1)
