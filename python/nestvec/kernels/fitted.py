"""Encodings by a fit to the tokens: projections of tokens, and queries that probe several partitions.

Arithmetic: float32 with one rounding per written operation, in the order of dims, then of tokens; a square root rounds
correctly, as all of them do.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .exact import dot
from .fde import add_sketch
from .lanes import LANES, njit

PANEL = 16  # columns side by side
SLOPE = np.float32(2)  # of the probability that a token is above a plane, in standard deviations
LARGEST = np.float32(1e9)  # argument of that, whose square is no overflow
LEAST = np.float32(0.1)  # weight of a probe
PROBES = 10  # of that weight there are, as all weights add up to 1
_ROOM = PROBES + 1
_HALF, _ONE = np.float32(0.5), np.float32(1)


@njit
def project_tokens(x: Any, panels: Any, out: Any) -> None:
    """Products of tokens with columns: float32 sums in the order of dims.

    Parameters
    ----------
    x : (n, d) float32
    panels : (p, d, 16) float32
        Column c is ``panels[c // 16, :, c % 16]``.
    out : (n, 16 p) float32
    """
    for t in range(x.shape[0]):
        for p in range(panels.shape[0]):
            sums = out[t, p * PANEL : (p + 1) * PANEL]
            sums[:] = 0
            for j in range(x.shape[1]):
                for c in range(PANEL):
                    sums[c] += x[t, j] * panels[p, j, c]


@njit
def encode_probes(
    x: Any, projected: Any, offsets: Any, shift: Any, final: Any, repetitions: int, k: int, scratch: Any, out: Any
) -> None:
    """Encodings of bags of query tokens, each in all partitions that it has a weight above 0.1 in.

    A token is above a plane with probability p = (1 + u / sqrt(1 + u^2)) / 2, u = 2 h, where h is its product with
    the plane; the weight of a partition is the product of its bits' probabilities. A block adds up the tokens'
    projections times their weights, times their squared lengths.

    Parameters
    ----------
    x : (N, d) float32
        Tokens less the mean.
    projected : (N, wide + planes) float32
        Their projections, and from column `wide` on their products with the first plane of each repetition, then with
        the second ones, and so on.
    offsets : (n + 1,) int64
        Bag i holds tokens ``offsets[i]`` to ``offsets[i + 1]``, within N.
    shift : (wide,) float32
        Projection of the mean, which is added to those of the tokens.
    final : (R B width,) or (0,) int32
        Sketch of the whole encoding, as of `encode_bags`.
    repetitions, k : int
        k is 0 to 30.
    scratch : (words,) float32
        Compiled kernels allocate nothing: as many values as `final` has.
    out : (n, R B width) or (n, final) float32
        Written wholly.
    """
    parts = 1 << k
    width = (final.shape[0] or out.shape[1]) // (repetitions * parts)
    blocks = np.empty((repetitions * parts, width), np.float32)
    partitions, weights = np.empty((2, _ROOM), np.int64), np.empty((2, _ROOM), np.float32)
    acc = np.empty(LANES)
    for bag in range(out.shape[0]):
        blocks[:] = 0
        for t in range(offsets[bag], offsets[bag + 1]):
            square = np.float32(dot(x[t], x[t], acc))
            for r in range(repetitions):
                products = projected[t, shift.shape[0] + r : shift.shape[0] + k * repetitions : repetitions]
                count = find_probes(products, partitions, weights)
                for i in range(count):
                    factor = weights[k & 1, i] * square
                    block = blocks[r * parts + partitions[k & 1, i]]
                    for c in range(width):
                        block[c] += factor * (projected[t, r * width + c] + shift[r * width + c])
        if final.shape[0] > 0:
            out[bag] = 0
            add_sketch(blocks.reshape(-1), final, out[bag])
        else:
            out[bag] = blocks.reshape(-1)


@njit
def find_probes(products: Any, partitions: Any, weights: Any) -> int:
    """Partitions and weights of one token in one repetition, into row ``k & 1``, and their number.

    Partitions grow by a bit for each plane; those of too little weight are dropped at once. Bits are read as a Gray
    code, as `simhash` does.
    """
    partitions[0, 0], weights[0, 0] = 0, _ONE
    count = 1
    for j in range(products.shape[0]):
        u = SLOPE * products[j]
        if abs(u) > LARGEST:
            u = LARGEST if u > 0 else -LARGEST
        above = _HALF + _HALF * u / np.sqrt(_ONE + u * u)
        below = _ONE - above
        now, then, kept = j & 1, (j + 1) & 1, 0
        for i in range(count):
            partition = partitions[now, i]
            if weights[now, i] * below > LEAST:
                partitions[then, kept] = 2 * partition + (partition & 1)
                weights[then, kept] = weights[now, i] * below
                kept += 1
            if weights[now, i] * above > LEAST:
                partitions[then, kept] = 2 * partition + (1 - (partition & 1))
                weights[then, kept] = weights[now, i] * above
                kept += 1
        count = kept
    return count
