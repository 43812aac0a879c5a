"""The best of a shortlist."""

from __future__ import annotations

from typing import Any

import numpy as np

from .lanes import njit


@njit
def keep_best(rows: Any, sums: Any, values: Any, counts: Any, keep: int) -> None:
    """Leave the `keep` best of the listed rows, in the order they have; of equal values the first.

    Parameters
    ----------
    rows, sums, values, counts
        As `scan_b1` leaves them; values without NaN.
    """
    count = counts[0]
    if count <= keep:
        return
    least = np.partition(values[:count], count - keep)[count - keep]
    ties = keep
    for c in range(count):
        if values[c] > least:
            ties -= 1
    kept = 0
    for c in range(count):
        if values[c] < least:
            continue
        if values[c] == least:
            if ties == 0:
                continue
            ties -= 1
        rows[kept] = rows[c]
        sums[kept] = sums[c]
        values[kept] = values[c]
        kept += 1
    counts[0] = kept
