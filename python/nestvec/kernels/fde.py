"""Fixed dimensional encodings of bags of tokens (MUVERA): partition by signs of random projections, sum or average.

In each of R repetitions a token falls into one of B = 2^k partitions, by the signs of its products with k Gaussian
columns. The tokens of a partition, or their sketches, are added up into its block of `width` values. A sketch adds each
coordinate, with a sign, to one of fewer: a table entry is that index, plus -2^31 where the sign is -1.

Arithmetic: signs are those of float64 dot products (`exact.dot`); everything after is float32, one rounding per written
operation, in the order of tokens, then of coordinates. Sums start at +0.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .exact import dot
from .lanes import LANES, njit

SUM, MEAN, SHRUNK = 0, 1, 2  # modes: what a block with n tokens is divided by: 1, n, n^0.75

_INDEX = np.int32(2**31 - 1)
_FAR = np.int64(2**62)


@njit
def simhash(x: Any, gaussians: Any, panels: Any, reach: float, k: int, partitions: Any) -> None:
    """Partition of each token in each repetition: its k sign bits, the first one highest, read as a Gray code.

    Parameters
    ----------
    x : (n, d) float32
    gaussians : (R k, d) float64
        Values that are float32; k rows for each repetition.
    panels, reach
        The same as `encoder.panels_of` packs them, and the largest sum of magnitudes of a row, for compiled kernels:
        they multiply in float32 first, and decide in float64 where the error could change a sign.
    k : int
        0 to 30.
    partitions : (n, R) uint32
    """
    acc = np.empty(LANES)
    for t in range(x.shape[0]):
        for r in range(partitions.shape[1]):
            partition = np.uint32(0)
            for j in range(k):
                positive = np.uint32(dot(x[t], gaussians[r * k + j], acc) > 0)
                partition = (partition << np.uint32(1)) | (positive ^ (partition & np.uint32(1)))
            partitions[t, r] = partition


@njit
def encode_bags(
    x: Any,
    offsets: Any,
    partitions: Any,
    ams: Any,
    final: Any,
    k: int,
    mode: int,
    fill: bool,
    scratch: Any,
    out: Any,
) -> None:
    """Encodings of bags of tokens.

    Parameters
    ----------
    x : (N, d) float32
        Where d is the width of a block, or there is a sketch, every repetition adds the same values; else d is at least
        R times as much, and repetition r adds those from r times the width on.
    offsets : (n + 1,) int64
        Bag i holds tokens ``offsets[i]`` to ``offsets[i + 1]``, within N.
    partitions : (N, R) uint32
        As `simhash` gives them, below 2^k.
    ams : (R, d) or (0, d) int32
        Sketch of tokens in each repetition; none: tokens are added as they are.
    final : (R B width,) or (0,) int32
        Sketch of the whole encoding, into as many values as `out` has; none: it stays as it is.
    mode : int
        `SUM`, `MEAN` or `SHRUNK`.
    fill : bool
        A block without tokens gets the token whose sign bits differ least from those of its partition, the first one
        if there are several. The bag must not be empty.
    scratch : (words,) float32
        Compiled kernels allocate nothing: see `FixedDimensionalEncoder._scratch_size`.
    out : (n, R B width) or (n, final) float32
        Written wholly.
    """
    repetitions, parts = partitions.shape[1], 1 << k
    width = (final.shape[0] or out.shape[1]) // (repetitions * parts)
    step = 0 if ams.shape[0] > 0 or x.shape[1] == width else width
    blocks = np.empty((repetitions, parts, width), np.float32)
    counts = np.empty((repetitions, parts), np.int32)
    projected = np.empty(width, np.float32)
    nearest = np.empty(parts if fill else 0, np.int64)
    for bag in range(out.shape[0]):
        begin, end = offsets[bag], offsets[bag + 1]
        blocks[:] = 0
        counts[:] = 0
        for t in range(begin, end):
            for r in range(repetitions):
                block = blocks[r, partitions[t, r]]
                if ams.shape[0] > 0:
                    projected[:] = 0
                    add_sketch(x[t], ams[r], projected)
                    for c in range(width):
                        block[c] += projected[c]
                else:
                    for c in range(width):
                        block[c] += x[t, r * step + c]
                counts[r, partitions[t, r]] += 1
        if mode != SUM:
            divide(blocks, counts, mode)
        if fill:
            for r in range(repetitions):
                nearest_tokens(partitions, begin, end, r, k, nearest)
                for p in range(parts):
                    if counts[r, p] == 0:
                        token = x[nearest[p]]
                        if ams.shape[0] > 0:
                            add_sketch(token, ams[r], blocks[r, p])
                        else:
                            for c in range(width):
                                blocks[r, p, c] += token[r * step + c]
        row = out[bag]
        if final.shape[0] > 0:
            row[:] = 0
            add_sketch(blocks.reshape(-1), final, row)
        else:
            row[:] = blocks.reshape(-1)


@njit
def add_sketch(values: Any, entries: Any, target: Any) -> None:
    """Add each value, with its sign, to the element of `target` that its table entry names."""
    for i in range(values.shape[0]):
        at = entries[i] & _INDEX
        target[at] = target[at] - values[i] if entries[i] < 0 else target[at] + values[i]


@njit
def divide(blocks: Any, counts: Any, mode: int) -> None:
    """Divides the sums of several tokens; the power is of square roots, which round correctly everywhere."""
    for r in range(counts.shape[0]):
        for p in range(counts.shape[1]):
            if counts[r, p] > 1:
                root = math.sqrt(counts[r, p])
                divisor = np.float32(counts[r, p] if mode == MEAN else root * math.sqrt(root))
                for c in range(blocks.shape[2]):
                    blocks[r, p, c] /= divisor


@njit
def nearest_tokens(partitions: Any, begin: int, end: int, r: int, k: int, nearest: Any) -> None:
    """For every partition the token whose sign bits differ in the fewest places, the first of several.

    Distances spread along the edges of the hypercube of sign bits, one axis after the other; the token rides along in
    the low half of the key.
    """
    keys = np.full(1 << k, _FAR, np.int64)
    for t in range(end - 1, begin - 1, -1):
        code = np.int64(partitions[t, r])
        keys[code ^ (code >> 1)] = t
    for axis in range(k):
        for at in range(1 << k):
            keys[at] = min(keys[at], keys[at ^ (1 << axis)] + (1 << 32))
    for p in range(1 << k):
        nearest[p] = keys[p ^ (p >> 1)] & 0xFFFFFFFF
