"""A rotation inside each level: prefixes at level ends keep their inner products, signs carry more of each vector."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class BlockRotation:
    """Random signs and Hadamard transforms inside the levels, in float32 sums of a fixed order.

    A level of L dims is transformed in a run of 2^m dims at its start and, where L is no power of two, again in one
    at its end: each transform is orthogonal, so the whole is.

    Parameters
    ----------
    bounds : (L,) int64
        Level ends.
    seed : int
        Of the signs.
    """

    def __init__(self, bounds: Array, seed: int = 0) -> None:
        starts = [0, *bounds[:-1].tolist()]
        self._spans = []
        for begin, end in zip(starts, bounds.tolist(), strict=True):
            size = 1 << ((end - begin).bit_length() - 1)
            self._spans.append((begin, size))
            if size != end - begin:
                self._spans.append((end - size, size))
        self._signs = []
        source = np.random.PCG64(seed)
        for _, size in self._spans:
            bits = np.unpackbits(source.random_raw(-(-size // 64)).astype("<u8").view(np.uint8))[:size]
            self._signs.append(np.where(bits, np.float32(1), np.float32(-1)))

    def apply(self, x: Array) -> Array:
        """Rotated copy of (n, d) rows; of (n, dims), the levels that are whole."""
        result = x.astype(x.dtype if x.dtype == np.float64 else np.float32)
        for (begin, size), signs in zip(self._spans, self._signs, strict=True):
            if begin + size <= x.shape[1]:
                result[:, begin : begin + size] = _hadamard(result[:, begin : begin + size] * signs)
        return result


def _hadamard(x: Array) -> Array:
    """Walsh-Hadamard transform of rows of 2^m values, divided by its norm: additions alone, so the bits are fixed."""
    n, size = x.shape
    step = 1
    while step < size:
        pairs = x.reshape(n, size // (2 * step), 2, step)
        x = np.stack([pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]], axis=2).reshape(n, size)
        step *= 2
    result: Array = x * x.dtype.type(size**-0.5)
    return result
