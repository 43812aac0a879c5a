"""Binary codes: sign bits, their planes, and exact top-k by Hamming distance.

A code is ``ceil(bits / 8)`` bytes, first bit in the highest place (numpy's and sentence-transformers' order). A plane
keeps codes as 64-bit words, first bit highest, level-major; inside a level, blocks of 64 rows, and inside a block
each word of all 64 rows side by side: a line of 64 bytes is one word of 8 rows, and a prefix reads only its own
words.

Cost: one query is bound by reading the plane; many are bound by one popcount per 8 rows and word (AVX-512), or about
8 operations per 4 rows and word (AVX2).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .lanes import BLOCK, allows, allows_none, njit, set_of

XOR, AND, OR = 0, 1, 2  # what `count_bits` counts

_PAIRS = np.uint64(0x5555555555555555)
_NIBBLES = np.uint64(0x3333333333333333)
_BYTES = np.uint64(0x0F0F0F0F0F0F0F0F)
_SEVEN = np.uint64(0x7F)


@njit
def popcount(word: Any) -> Any:
    """Number of one bits of a uint64."""
    word = word - ((word >> np.uint64(1)) & _PAIRS)
    word = (word & _NIBBLES) + ((word >> np.uint64(2)) & _NIBBLES)
    word = (word + (word >> np.uint64(4))) & _BYTES
    word = word + (word >> np.uint64(8))
    word = word + (word >> np.uint64(16))
    return (word + (word >> np.uint64(32))) & _SEVEN


@njit
def word_width(bounds: Any, level: int) -> int:
    """Words of one row in a level."""
    below = bounds[level - 1] if level > 0 else 0
    return (bounds[level] - below + 63) // 64  # type: ignore[no-any-return]


@njit
def word_mask(count: int) -> Any:
    """The first `count` bits of a word, which has 64: all of them from 64 on."""
    return ~np.uint64(0) << np.uint64(64 - min(count, 64)) if count > 0 else np.uint64(0)


@njit
def sign_bits(x: Any, thresholds: Any, codes: Any) -> None:
    """Bit j of row i says whether ``x[i, j] > thresholds[j]``.

    x (n, d) and thresholds (d,) are both float32 or both float64, codes (n, ceil(d / 8)) uint8.
    """
    for i in range(x.shape[0]):
        for byte in range(codes.shape[1]):
            bits = 0
            for j in range(byte * 8, min(byte * 8 + 8, x.shape[1])):
                bits |= int(x[i, j] > thresholds[j]) << (7 - j % 8)
            codes[i, byte] = bits


@njit
def pack_words(codes: Any, bounds: Any, starts: Any, first: int, words: Any) -> None:
    """Write codes ``(n, ceil(bits / 8))`` uint8 into a plane at positions `first`, `first` + 1, ...

    Parameters
    ----------
    bounds, starts : (L,) int64
        Level ends in bits, and the word where each level starts.
    words : (size,) uint64
        Bits beyond the end of a level are zero.
    """
    for i in range(codes.shape[0]):
        at = first + i
        for level in range(bounds.shape[0]):
            begin = bounds[level - 1] if level > 0 else 0
            width = word_width(bounds, level)
            base = starts[level] + at // BLOCK * BLOCK * width + at % BLOCK
            for word in range(width):
                bit = begin + word * 64
                value = _word_at(codes[i], bit) & word_mask(bounds[level] - bit)
                words[base + word * BLOCK] = value


@njit
def _word_at(code: Any, bit: int) -> Any:
    """64 bits of a code from `bit` on, zero behind its end."""
    value = np.uint64(0)
    byte, shift = bit // 8, bit % 8
    for j in range(9):
        if byte + j < code.shape[0]:
            part = np.uint64(code[byte + j])
            up = 56 - 8 * j + shift
            value |= part << np.uint64(up) if up >= 0 else part >> np.uint64(-up)
    return value


@njit
def count_bits(
    words: Any, starts: Any, bounds: Any, bits: int, queries: Any, what: int, first: int, last: int, out: Any
) -> None:
    """Number of bits that differ (`what` 0), are one in both (1) or in either (2), over the first `bits` bits.

    Parameters
    ----------
    queries : (nq, W) uint64
        Words of the levels read, in the plane's order, zero from bit `bits` on.
    first, last : int
        Rows; `first` is a multiple of 64.
    out : (nq, last - first) int32
    """
    for query in range(queries.shape[0]):
        counts = np.empty(BLOCK, np.uint64)
        for block in range(first, last, BLOCK):
            _count_block(words, starts, bounds, bits, queries[query], what, block, counts)
            for i in range(min(BLOCK, last - block)):
                out[query, block - first + i] = counts[i]


@njit
def _count_block(
    words: Any, starts: Any, bounds: Any, bits: int, query: Any, what: int, block: int, counts: Any
) -> None:
    counts[:] = 0
    at = 0
    for level in range(bounds.shape[0]):
        begin = bounds[level - 1] if level > 0 else 0
        if begin >= bits:
            break
        width = word_width(bounds, level)
        for word in range(width):
            left = bits - begin - word * 64
            if left <= 0:
                break
            line = starts[level] + block * width + word * BLOCK
            _count_line(words[line : line + BLOCK], query[at + word], word_mask(left), what, counts)
        at += width


@njit
def _count_line(line: Any, query: Any, mask: Any, what: int, counts: Any) -> None:
    if what == XOR:
        for i in range(line.shape[0]):
            counts[i] += popcount((line[i] ^ query) & mask)
    elif what == AND:
        for i in range(line.shape[0]):
            counts[i] += popcount(line[i] & query)
    else:
        for i in range(line.shape[0]):
            counts[i] += popcount((line[i] | query) & mask)


@njit
def scan_bits(
    words: Any,
    starts: Any,
    bounds: Any,
    bits: int,
    queries: Any,
    what: int,
    k: int,
    in_order: bool,
    first: int,
    last: int,
    allowed: Any,
    histograms: Any,
    limits: Any,
    totals: Any,
    rows: Any,
    distances: Any,
    counts: Any,
) -> int:
    """Append the rows of [`first`, `last`) that may be among the k nearest of a query: counting, no heap.

    The distance is the number of bits that differ (`what` 0), or `bits` less those that are one in both (1). A
    histogram of what was appended tells the limit, the smallest distance within which there are k rows, as soon as
    there are; rows beyond the limit of the time are passed over.

    Parameters
    ----------
    words, starts, bounds, bits, queries
        As for `count_bits`.
    in_order : bool
        Ids ascend with rows: a row at the limit is then no use once there are k rows within it.
    allowed : (m, words) uint64
        Rows that may be appended, row r by bit ``r % 64`` of word ``r // 64``: m is 0 (all may), 1 (one set for all
        queries) or nq.
    histograms : (nq, bits + 1) int32;  limits : (nq,) int32;  totals : (nq,) int64
        Counts by distance, `bits` at first, and the number of rows appended within the limit.
    rows, distances : (nq, room) int32;  counts : (nq,) int64
        Where they go, in row order.

    Returns
    -------
    int
        The first row not scanned: `last`, or the block for which some query lacked room.
    """
    near = np.empty(BLOCK, np.uint64)
    for block in range(first, last, BLOCK):
        if counts.max() > rows.shape[1] - BLOCK:
            return block
        size = min(BLOCK, last - block)
        for query in range(queries.shape[0]):
            some = set_of(allowed, query)
            if allows_none(some, block):
                continue
            _count_block(words, starts, bounds, bits, queries[query], what, block, near)
            for i in range(size):
                if not allows(some, block + i):
                    continue
                distance = np.int64(near[i])
                if what == AND:
                    distance = bits - distance
                limit = limits[query]
                if distance > limit or (in_order and distance == limit and totals[query] >= k):
                    continue
                rows[query, counts[query]] = block + i
                distances[query, counts[query]] = distance
                counts[query] += 1
                histograms[query, distance] += 1
                totals[query] += 1
                while totals[query] - histograms[query, limits[query]] >= k:
                    totals[query] -= histograms[query, limits[query]]
                    limits[query] -= 1
    return last


@njit
def list_bits(
    words: Any, starts: Any, bounds: Any, begin: int, bits: int, query: Any, rows: Any, distances: Any
) -> None:
    """Add to the distances of listed rows the number of bits [`begin`, `bits`) that differ from a query's.

    Parameters
    ----------
    words, starts, bounds
        As for `count_bits`.
    query : (W,) uint64
        Words of the levels that the first `bits` bits touch, in the plane's order.
    rows : (n,) int32;  distances : (n,) int32
        Rows in any order, and what to add to.
    """
    for i in range(rows.shape[0]):
        row, count = np.int64(rows[i]), np.int64(0)
        block, place = row // BLOCK, row % BLOCK
        at = 0
        for level in range(bounds.shape[0]):
            below = bounds[level - 1] if level > 0 else 0
            if below >= bits:
                break
            width = word_width(bounds, level)
            for word in range(width):
                bit = below + word * 64
                if bit >= bits:
                    break
                if min(bit + 64, bounds[level]) <= begin:
                    continue
                mask = word_mask(min(bounds[level], bits) - bit) & ~word_mask(begin - bit)
                here = words[starts[level] + (block * width + word) * BLOCK + place]
                count += np.int64(popcount((here ^ query[at + word]) & mask))
            at += width
        distances[i] += count


@njit
def order_bits(limits: Any, rows: Any, distances: Any, counts: Any, places: Any, best_rows: Any, best: Any) -> None:
    """The second pass: the k nearest of each query, by distance and then in the order they were appended.

    Parameters
    ----------
    limits, rows, distances, counts
        As `scan_bits` leaves them.
    places : (>= bits + 2,) int64
        Room to count in.
    best_rows, best : (nq, k) int32
        Row -1 where there are fewer.
    """
    k = best.shape[1]
    for query in range(counts.shape[0]):
        limit = limits[query]
        best_rows[query, :] = -1
        places[: limit + 2] = 0
        for i in range(counts[query]):
            if distances[query, i] <= limit:
                places[distances[query, i] + 1] += 1
        for distance in range(limit + 1):
            places[distance + 1] += places[distance]
        for i in range(counts[query]):
            distance = distances[query, i]
            if distance <= limit and places[distance] < k:
                best_rows[query, places[distance]] = rows[query, i]
                best[query, places[distance]] = distance
                places[distance] += 1
