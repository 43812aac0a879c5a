"""Queries as the scans of coarse codes read them, and what turns their estimates into scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from . import parallel, slices
from .planes import level_widths
from .rotation import BlockRotation

Array = npt.NDArray[Any]

DIGITS = 5  # of a query against signs: 4 need a quarter more rows for the same recall, 6 cost a fifth more time
ENCODED = 2**18  # values encoded at a time
LARGEST = {"b1": 2 ** (DIGITS - 1) - 1, "i4": 127, "i8": 127}
SHIFT = {"b1": 1, "i4": 15.0625, "i8": 128}  # of the sum of a query's codes, see `nestvec.kernels.estimate`


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


@dataclass(frozen=True)
class CodedQueries:
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
    if queries.size <= ENCODED:
        return _encoded(queries, code, dims, widest, frame)
    parts = []
    for some in slices.steps(len(queries), queries.shape[1], ENCODED):
        parallel.check()
        parts.append(_encoded(queries[some], code, dims, widest, frame))
    return CodedQueries(
        codes=slices.joined([part.codes for part in parts]),
        shifts=[shift for part in parts for shift in part.shifts],
        lifts=[lift for part in parts for lift in part.lifts],
        units=slices.joined([part.units for part in parts]),
        offsets=slices.joined([part.offsets for part in parts]),
    )


def _encoded(queries: Array, code: str, dims: int, widest: int, frame: Frame) -> CodedQueries:
    source = np.asarray(queries, np.float64)
    center = frame.center[: source.shape[1]] if code == "b1" else np.zeros(1)
    if code == "b1":
        source = frame.rotated(source)
    shifted = source - center if frame.metric == "l2" else source
    largest = np.abs(shifted[:, :widest]).max(axis=1)
    largest[largest == 0] = 1
    steps = largest / LARGEST[code]
    used = shifted[:, :dims]
    scaled = used / steps[:, None]
    codes = np.rint(scaled, out=scaled).astype(np.int8)
    lifts, units, offsets = np.zeros(len(steps)), steps, np.zeros(len(steps))
    products = _sums(source[:, :dims] * center[:dims]) if code == "b1" and frame.metric != "l2" else offsets
    if frame.metric == "l2":
        lifts, units, offsets = -1 / steps, 2 * steps, -_sums(used * used)
    elif frame.metric == "cosine":
        norms = np.sqrt(_sums(used * used))
        lifts, units = products / steps, steps / np.where(norms > 0, norms, np.inf)
    else:
        offsets = products
    limit = np.finfo(np.float32).max
    return CodedQueries(
        codes=_digits(codes, frame.bounds) if code == "b1" else _padded(codes, frame.bounds),
        shifts=np.rint(SHIFT[code] * codes.sum(axis=1, dtype=np.int64)).astype(np.int64).tolist(),
        lifts=np.clip(lifts, -limit, limit).astype(np.float32).tolist(),
        units=units,
        offsets=offsets,
    )


def _sums(values: Array) -> Array:
    """Sums of rows, in one order on every machine: halves are added until one value is left."""
    while values.shape[1] > 1:
        half = values.shape[1] // 2
        folded = values[:, :half] + values[:, half : 2 * half]
        if values.shape[1] % 2:
            folded[:, 0] += values[:, -1]
        values = folded
    return values[:, 0]


def _padded(codes: Array, bounds: Array) -> Array:
    """Codes of each level touched, filled up with zeros to a multiple of 64."""
    dims = codes.shape[1]
    levels = int(np.searchsorted(bounds, dims)) + 1
    widths = level_widths(bounds[:levels], 64)
    if widths.sum() == dims:
        return codes
    result = np.zeros((len(codes), int(widths.sum())), np.int8)
    at = begin = 0
    for end, width in zip(bounds[:levels].tolist(), widths.tolist(), strict=True):
        some = codes[:, begin : min(end, dims)]
        result[:, at : at + some.shape[1]] = some
        at, begin = at + width, end
    return result


def _digits(codes: Array, bounds: Array) -> Array:
    """The digits of codes in two's complement, each as words of the levels, (nq, D, W) uint64."""
    wide = _padded(codes, bounds).view(np.uint8)
    digits = wide[:, None, :] & (1 << np.arange(DIGITS, dtype=np.uint8))[:, None]
    return np.packbits(digits, axis=2).view(">u8").astype(np.uint64)
