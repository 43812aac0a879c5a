"""Queries as the scans of coarse codes read them; see `nestvec.kernels.estimate` for what becomes of them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .lanes import COSINE, L2, njit, query_width

LIFTED = float(np.finfo(np.float32).max)  # at most


@njit
def code_queries(
    q: Any,
    center: Any,
    bounds: Any,
    dims: int,
    widest: int,
    metric: int,
    largest: int,
    shift: float,
    codes: Any,
    digits: Any,
    shifts: Any,
    lifts: Any,
    units: Any,
    offsets: Any,
) -> None:
    """Round queries q (nq, >= widest) float64 to integers over `dims`, with what turns estimates into scores.

    Parameters
    ----------
    center : (>= widest,) float64, or (0,)
        What rows are relative to.
    bounds : (L,) int64
        Level ends.
    widest : int
        A largest value among so many leading dims, at least `dims`, sets the step: codes of fewer dims are then the
        first of these.
    largest : int
        What that value becomes.
    codes : (nq, W) int8, zeroed, or (nq, 0)
        Where they go: each level that `dims` touches is padded to whole steps of 64.
    digits : (nq, D, W / 64) uint64, zeroed
        Their lowest D digits in two's complement, the first dim of 64 in the highest bit; D may be 0.
    shifts : (nq,) int64
        `shift` times the sum of a query's codes, to the nearest integer.
    lifts : (nq,) float32;  units, offsets : (nq,) float64
        The number a of each estimate ``t F + G a``, whose score is then ``offset + unit * estimate``.
    """
    centered = center.shape[0] > 0
    moved = centered and metric == L2
    for i in range(q.shape[0]):
        most = 0.0
        for j in range(widest):
            most = max(most, abs(q[i, j] - center[j] if moved else q[i, j]))
        step = (most if most > 0.0 else 1.0) / largest
        square = 0.0
        product = 0.0
        total = 0
        begin = 0
        at = 0
        for level in range(bounds.shape[0]):
            for j in range(begin, min(bounds[level], dims)):
                value = q[i, j] - center[j] if moved else q[i, j]
                square += value * value
                if centered:
                    product += q[i, j] * center[j]
                code = int(np.rint(value / step))
                total += code
                place = at + j - begin
                if codes.shape[1] > 0:
                    codes[i, place] = code
                for digit in range(digits.shape[1]):
                    digits[i, digit, place // 64] |= np.uint64(code >> digit & 1) << np.uint64(63 - place % 64)
            at += query_width(bounds, level)
            begin = bounds[level]
        shifts[i] = int(np.rint(shift * total))
        lift = 0.0
        units[i] = step
        offsets[i] = 0.0
        if metric == L2:
            lift = -1.0 / step
            units[i] = 2.0 * step
            offsets[i] = -square
        elif metric == COSINE:
            lift = product / step
            units[i] = step / math.sqrt(square) if square > 0.0 else 0.0
        else:
            offsets[i] = product
        lifts[i] = np.float32(min(max(lift, -LIFTED), LIFTED))
