"""Rows times a matrix: float64 sums in the order of dims, rounded to float32 once."""

from __future__ import annotations

from typing import Any

import numpy as np

from .fitted import PANEL
from .lanes import njit


@njit
def transform_rows(x: Any, panels: Any, out: Any) -> None:
    """Products of rows with columns. Those of float32 values are exact in float64, so fusing changes no bits.

    Parameters
    ----------
    x : (n, d) float64
        Values of float32.
    panels : (p, d, 16) float32
        Column c is ``panels[c // 16, :, c % 16]``.
    out : (n, 16 p) float32
        Inf for what is beyond float32.
    """
    sums = np.empty(PANEL)
    for r in range(x.shape[0]):
        for p in range(panels.shape[0]):
            sums[:] = 0.0
            for j in range(x.shape[1]):
                for c in range(PANEL):
                    sums[c] += x[r, j] * np.float64(panels[p, j, c])
            for c in range(PANEL):
                out[r, p * PANEL + c] = np.float32(sums[c])
