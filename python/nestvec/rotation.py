"""A rotation inside each level: prefixes at level ends keep their inner products, signs carry more of each vector."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

ROUNDS = 3
LARGE = 1e33


class BlockRotation:
    """Random signs and Hadamard transforms inside the levels, in sums of a fixed order.

    In each round, a level of L dims is transformed in a run of 2^m dims at its start and, where L is no power of two,
    again in one at its end: each transform is orthogonal, so the whole is. One round leaves few dims with much energy
    visible (their sums take few values); after three the dims of a level look alike.

    Parameters
    ----------
    bounds : (L,) int64
        Level ends.
    seed : int
        Of the signs.
    """

    def __init__(self, bounds: Array, seed: int = 0) -> None:
        self._spans: list[tuple[int, int, int]] = []  # first dim, size, end of the level
        for begin, end in zip([0, *bounds[:-1].tolist()], bounds.tolist(), strict=True):
            size = 1 << ((end - begin).bit_length() - 1)
            starts = [begin] if size == end - begin else [begin, end - size]
            self._spans += [(start, size, end) for start in starts] * ROUNDS
        self._signs = []
        source = np.random.PCG64(seed)
        for _, size, _ in self._spans:
            bits = np.unpackbits(source.random_raw(-(-size // 64)).astype("<u8").view(np.uint8))[:size]
            self._signs.append(np.where(bits, np.float32(1), np.float32(-1)))

    def apply(self, x: Array) -> Array:
        """Rotated copy of (n, d) float32 or float64 rows; of (n, dims), the levels that are whole."""
        large = x.dtype == np.float32 and x.size > 0 and float(np.abs(x).max()) > LARGE
        result = self._turned(x, np.float64 if large else x.dtype, False)  # sums beyond float32 go through float64
        if not large:
            return result
        most = np.finfo(np.float32).max
        clipped: Array = np.clip(result, -most, most).astype(np.float32)
        return clipped

    def undo(self, x: Array) -> Array:
        """What (n, d) float64 rows were rotated from."""
        return self._turned(x, x.dtype, True)

    def _turned(self, x: Array, dtype: npt.DTypeLike, back: bool) -> Array:
        """Rows after all transforms, or before them; a dim of all rows at a time, so that loops are long."""
        columns = np.array(x.T, dtype, order="C")
        spare = np.empty_like(columns)
        steps = list(zip(self._spans, self._signs, strict=True))
        for (begin, size, end), signs in reversed(steps) if back else steps:
            if end <= len(columns):
                some = columns[begin : begin + size]
                if not back:
                    some *= signs[:, None]
                some[:] = _hadamard(some, spare[:size])
                if back:
                    some *= signs[:, None]
        return np.ascontiguousarray(columns.T)


def _hadamard(x: Array, spare: Array) -> Array:
    """Walsh-Hadamard transform of columns of 2^m values, divided by its norm: additions alone, so the bits are fixed.

    Both arrays, C-contiguous and of one shape, are written to.
    """
    size, n = x.shape
    step = 1
    while step < size:
        pairs, target = (array.reshape(size // (2 * step), 2, step * n) for array in (x, spare))
        np.add(pairs[:, 0], pairs[:, 1], out=target[:, 0])
        np.subtract(pairs[:, 0], pairs[:, 1], out=target[:, 1])
        x, spare = spare, x
        step *= 2
    result: Array = x * x.dtype.type(math.sqrt(1 / size))
    return result
