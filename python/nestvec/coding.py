"""Queries as the scans of coarse codes read them, and what turns their estimates into scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import backends, slices
from .arrays import METRICS
from .planes import total_width
from .rotation import BlockRotation

Array = npt.NDArray[Any]

DIGITS = 5  # of a query against signs: 4 need a quarter more rows for the same recall, 6 cost a fifth more time
ENCODED = 2**18  # values encoded at a time
LARGEST = {"b1": 2 ** (DIGITS - 1) - 1, "i4": 127, "i8": 127}
NO_CENTER = np.empty(0)
SHIFT = {"b1": 1.0, "i4": 15.0625, "i8": 128.0}  # of the sum of a query's codes, see `nestvec.kernels.estimate`


@dataclass(frozen=True)
class Frame:
    """What signs are taken of: rows less `center` (d,) float64, after `rotation`; for cosine, rows of norm 1."""

    metric: str
    bounds: Array
    center: Array
    rotation: BlockRotation | None

    def rotated(self, x: Array) -> Array:
        """Rows or queries as signs see them."""
        return x if self.rotation is None else self.rotation.apply(x)


class CodedQueries(NamedTuple):
    """Queries for one stage: query i is ``codes[i]``, and its estimates mean ``offsets[i] + units[i] * value``."""

    codes: Array  # (nq, D, W) uint64 for b1, else (nq, W) int8
    shifts: list[int]
    lifts: list[float]
    units: Array
    offsets: Array


def encode(queries: Array, code: str, dims: int, widest: int, frame: Frame) -> CodedQueries:
    """Queries (nq, >= dims) for a stage over `dims`, in the units of the widest stage of this code.

    Codes of a prefix are then a prefix of the codes, so that a later stage can add to the sums of an earlier one.
    """
    count, signs = len(queries), code == "b1"
    width = total_width(frame.bounds[: frame.bounds.searchsorted(dims) + 1], 64)
    codes = np.zeros((count, 0 if signs else width), np.int8)
    digits = np.zeros((count, DIGITS if signs else 0, width // 64), np.uint64)
    shifts, lifts = np.empty(count, np.int64), np.empty(count, np.float32)
    units, offsets = np.empty(count), np.empty(count)
    for some in slices.steps(count, queries.shape[1], ENCODED):
        source = queries[some].astype(np.float64, order="C")
        backends.current().code_queries(
            frame.rotated(source) if signs else source, frame.center if signs else NO_CENTER, frame.bounds, dims,
            widest, METRICS[frame.metric], LARGEST[code], SHIFT[code], codes[some], digits[some], shifts[some],
            lifts[some], units[some], offsets[some],
        )  # fmt: skip
    return CodedQueries(digits if signs else codes, shifts.tolist(), lifts.tolist(), units, offsets)
