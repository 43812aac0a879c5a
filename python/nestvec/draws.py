"""Random numbers of the reference implementation of fixed dimensional encodings, bit for bit, on every platform.

They are those of libstdc++ (11 and later) over `std::mt19937`: `normal_distribution<float>`,
`uniform_int_distribution` and `bernoulli_distribution`. Only IEEE operations are used, so no mathematical library and
no compiler flag can change a bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

CHUNK = 1 << 18  # pairs drawn at a time
NEGATIVE = -(2**31)  # the bit that marks a sign of -1 beside an index
_LN2 = 0.6931471805599453
_HALF = 0.7071067811865476


class Stream:
    """The 32-bit outputs of one `mt19937`."""

    def __init__(self, seed: int) -> None:
        self._state = np.random.RandomState(seed & 0xFFFFFFFF)

    def take(self, count: int) -> Array:
        """The next `count` outputs, uint32."""
        return self._state.randint(0, 2**32, count, dtype=np.uint32)


def gaussians(seed: int, count: int) -> Array:
    """The first `count` draws of a normal distribution: the polar method, each operation rounded to float32."""
    stream, found, have = Stream(seed), [], 0
    while have < count:  # pi / 4 of the pairs lie in the circle
        pairs_left = min((count - have) * 2 // 3 + 16, CHUNK)
        uniform = stream.take(2 * pairs_left).astype(np.float32) / np.float32(2**32)
        uniform = np.minimum(uniform, np.nextafter(np.float32(1), np.float32(0)))
        pairs = ((uniform * np.float32(2)).astype(np.float64) - 1).astype(np.float32).reshape(-1, 2)
        squares = pairs[:, 0] * pairs[:, 0] + pairs[:, 1] * pairs[:, 1]
        inside = (squares <= 1) & (squares != 0)
        pairs, squares = pairs[inside], squares[inside]
        factors = np.sqrt(np.float32(-2) * log(squares) / squares)
        found.append((pairs[:, ::-1] * factors[:, None]).ravel())
        have += len(found[-1])
    return np.concatenate(found)[:count] if found else np.empty(0, np.float32)


def log(x: Array) -> Array:
    """Natural logarithm of positive float32, within a hair of half a unit: a series in float64, rounded once."""
    mantissa, exponent = np.frexp(x.astype(np.float64))
    low = mantissa < _HALF
    mantissa, exponent = np.where(low, mantissa * 2, mantissa), exponent - low
    s = (mantissa - 1) / (mantissa + 1)
    square, series = s * s, np.zeros_like(s)
    for power in range(23, 0, -2):  # 2 atanh(s), |s| <= 0.172
        series = series * square + 1 / power
    result: Array = exponent * _LN2 + 2 * s * series
    return result.astype(np.float32)


def sketch(seed: int, count: int, buckets: int) -> Array:
    """A count-sketch of `count` coordinates: for each an index below `buckets`, `NEGATIVE` added where its sign is -1.

    An index is the high half of draw times `buckets`; a draw whose low half is below 2^32 mod `buckets` is rejected.
    The sign takes two draws, the low word first.
    """
    stream, rest = Stream(seed), np.empty(0, np.uint32)
    result, done = np.empty(count, np.int32), 0
    while done < count:
        draws = np.concatenate([rest, stream.take(3 * min(CHUNK, count - done))])
        low = (draws.astype(np.uint64) * np.uint64(buckets)) & np.uint64(0xFFFFFFFF)
        rejected: list[int] = []
        for at in np.flatnonzero(low < 2**32 % buckets).tolist():
            if (at - len(rejected)) % 3 == 0:  # else it is a draw of a sign
                rejected.append(at)
        draws = np.delete(draws, rejected) if rejected else draws
        whole = min(len(draws) // 3, count - done)
        draws, rest = draws[: 3 * whole].reshape(-1, 3), draws[3 * whole :]
        index = (draws[:, 0].astype(np.uint64) * np.uint64(buckets) >> np.uint64(32)).astype(np.int32)
        canonical = (draws[:, 1].astype(np.float64) + draws[:, 2].astype(np.float64) * 2.0**32) / 2.0**64
        result[done : done + whole] = np.where(canonical < 0.5, index, index | np.int32(NEGATIVE))
        done += whole
    return result
