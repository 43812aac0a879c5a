"""Arithmetic shared by every kernel: sixteen float64 lanes, heap order and certified rounding. Twin of ``csrc/simd.h``.

A product of two float32 values is exact in float64, so a float64 dot product has the same bits with and without
fused multiply-add: parity between backends needs no special instruction and no emulation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

F = TypeVar("F", bound=Callable[..., Any])

try:
    import numba
except ImportError:  # the loops below then run as plain Python: slow, with the same bits
    numba = None


def njit(function: F) -> F:
    """Compile with Numba on first call where Numba is installed; otherwise return `function` itself.

    Compiled code is kept on disk, by the modification time of the one file that holds `function`: after a change to a
    function that others call from another file, touch those files too.
    """
    if numba is None:
        return function
    compiled: F
    try:
        compiled = numba.njit(nogil=True, error_model="numpy", cache=True)(function)
    except RuntimeError:  # no directory that Numba may write to
        compiled = numba.njit(nogil=True, error_model="numpy")(function)
    return compiled


def inline(function: F) -> F:
    """Let compiled functions call `function`, which itself stays as it is and pickles by name."""
    if numba is None:
        return function
    usable: F = numba.extending.register_jitable(function)
    return usable


LANES = 16  # lane l of a sum takes dims l, l + 16, ...
TILE = 16  # rows interleaved in one tile of a plane
LINE = 64  # bytes of one line: 16 rows x 4 dims
BLOCK = 64  # rows that share one error bound and are scanned together
ZERO = 128  # the stored byte of code 0: codes are offset so that they are unsigned
CODE_MAX = 127

IP, L2, COSINE = 0, 1, 2  # metrics, as passed to kernels

# Stored bounds grow by this factor: it covers the rounding of the bound itself (float32, 2^-24) many times over.
GROW = 1.0 + 2.0**-19
# Added to non-zero bounds so that nothing that underflows on the way can make a bound too small.
TINY = 1e-30
# Relative slack for the float32 arithmetic of an upper bound (conversion, sums, scale, norm: under 20 roundings).
MARGIN = 2.0**-16
HUGE = np.float32(3e38)


@njit
def fold(acc: Any) -> float:
    """Sum sixteen lanes in the fixed order 16-8-4-2-1."""
    width = 8
    while width > 0:
        for i in range(width):
            acc[i] += acc[i + width]
        width //= 2
    return acc[0]  # type: ignore[no-any-return]


@njit
def level_width(bounds: Any, level: int) -> int:
    """Bytes one row occupies in a level: its dims, padded to whole lines of four."""
    below = bounds[level - 1] if level > 0 else 0
    return (bounds[level] - below + 3) // 4 * 4  # type: ignore[no-any-return]


@njit
def query_width(bounds: Any, level: int) -> int:
    """Bytes a query's codes occupy in a level: padded with zeros to whole steps of 64 dims."""
    below = bounds[level - 1] if level > 0 else 0
    return (bounds[level] - below + 63) // 64 * 64  # type: ignore[no-any-return]


@njit
def allows(allowed: Any, row: int) -> bool:
    """Whether a set of rows, bit ``r % 64`` of word ``r // 64``, has this one; without a word it has all."""
    if allowed.shape[0] == 0:
        return True
    return (allowed[row // BLOCK] >> np.uint64(row % BLOCK)) & np.uint64(1) != np.uint64(0)  # type: ignore[no-any-return]


@njit
def allows_none(allowed: Any, block: int) -> bool:
    """Whether a set has no row of a block."""
    return allowed.shape[0] > 0 and allowed[block // BLOCK] == np.uint64(0)  # type: ignore[no-any-return]


@njit
def set_of(allowed: Any, query: int) -> Any:
    """The set of one query among none, one for all, or one for each: (m, words) uint64."""
    if allowed.shape[0] == 0:
        return allowed.reshape(-1)
    return allowed[query if allowed.shape[0] > 1 else 0]


@njit
def may_find(allowed: Any, query: int, row: int) -> bool:
    """Whether a query may find a row: `allowed` (m, words) holds one set for each query, one for all, or none."""
    if allowed.shape[0] == 0:
        return True
    return allows(allowed[query if allowed.shape[0] > 1 else 0], row)


@njit
def threshold(tau: float, multiply: float, offset: float) -> Any:
    """Score `tau` in the units of the scan's upper bounds, rounded down past every rounding on the way.

    A row whose exact score is at least `tau` has an upper bound of at least this value.
    """
    if tau == -np.inf:
        return np.float32(-np.inf)
    scaled = tau * multiply
    low = scaled + offset - (abs(scaled) + abs(offset)) * 2.0**-19 - 1e-43
    return np.float32(min(low, 3e38))


@njit
def better(score: float, row_id: int, other_score: float, other_id: int) -> bool:
    """The order of results: higher score first, then smaller id."""
    return score > other_score or (score == other_score and row_id < other_id)


@njit
def offer(scores: Any, ids: Any, score: float, row_id: int) -> bool:
    """Put one result into a heap of the k best whose root is the worst of them; False if it does not belong."""
    if not better(score, row_id, scores[0], ids[0]):
        return False
    sink(scores, ids, 0, score, row_id)
    return True


@njit
def sink(scores: Any, ids: Any, hole: int, score: float, row_id: int) -> None:
    """Put one result into a heap, in place of what is at `hole`, or below if there are worse ones."""
    while True:
        child = 2 * hole + 1
        if child >= scores.shape[0]:
            break
        if child + 1 < scores.shape[0] and better(scores[child], ids[child], scores[child + 1], ids[child + 1]):
            child += 1
        if better(scores[child], ids[child], score, row_id):
            break
        scores[hole] = scores[child]
        ids[hole] = ids[child]
        hole = child
    scores[hole] = score
    ids[hole] = row_id
