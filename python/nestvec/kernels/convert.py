"""Conversions between float32 and the bits of float16 and bfloat16, and the check for NaN and Inf.

Half types are ``uint16`` bit patterns here: Numba has no float16 and numpy no bfloat16.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .lanes import njit


@njit
def widen_f16(source: Any, target: Any) -> None:
    """float16 bits ``(n,)`` uint16 to float32 ``(n,)``, exactly; finite values only.

    Shifting exponent and mantissa into place leaves a value 2^112 too small, subnormals included, and the
    multiplication by 2^112 is exact: no branch on the exponent.
    """
    bits = target.view(np.uint32)
    for i in range(source.shape[0]):
        bits[i] = np.uint32(source[i] & np.uint16(0x7FFF)) << np.uint32(13)
        target[i] *= np.float32(2.0**112)
        bits[i] |= np.uint32(source[i] & np.uint16(0x8000)) << np.uint32(16)


@njit
def widen_bf16(source: Any, target: Any) -> None:
    """bfloat16 bits ``(n,)`` uint16 to float32 ``(n,)``, exactly: they are the high half of a float32."""
    bits = target.view(np.uint32)
    for i in range(source.shape[0]):
        bits[i] = np.uint32(source[i]) << np.uint32(16)


@njit
def narrow_f16(source: Any, target: Any) -> None:
    """float32 ``(n,)`` to float16 bits ``(n,)``, to nearest, ties to even; finite values over 65504 become Inf.

    Subnormal results come from a float32 addition of 0.5, which rounds at exactly the right bit.
    """
    bits = source.view(np.uint32)
    for i in range(source.shape[0]):
        magnitude = bits[i] & np.uint32(0x7FFFFFFF)
        if magnitude >= np.uint32(0x47800000):
            half = np.uint32(0x7C00)
        elif magnitude < np.uint32(0x38800000):
            half = _bits(np.float32(abs(source[i]) + np.float32(0.5))) - np.uint32(0x3F000000)
        else:
            odd = (magnitude >> np.uint32(13)) & np.uint32(1)
            half = (magnitude - np.uint32(0x38000000) + np.uint32(0xFFF) + odd) >> np.uint32(13)
        target[i] = np.uint16(half | ((bits[i] >> np.uint32(16)) & np.uint32(0x8000)))


@njit
def narrow_bf16(source: Any, target: Any) -> None:
    """float32 ``(n,)`` to bfloat16 bits ``(n,)``, to nearest, ties to even; finite values may round to Inf."""
    bits = source.view(np.uint32)
    for i in range(source.shape[0]):
        odd = (bits[i] >> np.uint32(16)) & np.uint32(1)
        target[i] = np.uint16((np.uint64(bits[i]) + np.uint64(0x7FFF) + np.uint64(odd)) >> np.uint64(16))


@njit
def first_nonfinite(values: Any) -> int:
    """Position of the first NaN or Inf in float32 ``(n,)``, or -1."""
    bits = values.view(np.uint32)
    for i in range(values.shape[0]):
        if bits[i] & np.uint32(0x7F800000) == np.uint32(0x7F800000):
            return i
    return -1


@njit
def sum_bytes(values: Any) -> int:
    """Sum of uint8 ``(n,)``: the yardstick of the benchmarks, the least that reading a plane can cost."""
    total = 0
    for i in range(values.shape[0]):
        total += int(values[i])
    return total


@njit
def _bits(value: Any) -> Any:
    one = np.empty(1, np.float32)
    one[0] = value
    return one.view(np.uint32)[0]
