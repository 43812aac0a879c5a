"""CRC32C (Castagnoli), the checksum of files."""

from __future__ import annotations

from typing import Any

import numpy as np

from .lanes import njit

POLYNOMIAL = 0x82F63B78  # its bits reversed, as those of every value here


def _of_bytes() -> Any:
    """What each byte leaves of a sum."""
    left = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        left = (left >> np.uint32(1)) ^ np.where(left & np.uint32(1), np.uint32(POLYNOMIAL), np.uint32(0))
    return left


OF_BYTES = _of_bytes()


@njit
def crc32c(data: Any, seed: int) -> int:
    """CRC32C of uint8 ``(n,)``; as `seed` the sum of what comes before, 0 for nothing."""
    left = np.uint32(seed) ^ np.uint32(0xFFFFFFFF)
    for i in range(data.shape[0]):
        left = OF_BYTES[(left ^ data[i]) & np.uint32(0xFF)] ^ (left >> np.uint32(8))
    return int(left ^ np.uint32(0xFFFFFFFF))
