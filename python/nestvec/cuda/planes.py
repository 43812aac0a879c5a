"""Planes of codes in a GPU's memory: the planes of all parts of an index, one behind the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..plan import CODES
from ..planes import OVERREAD, Segment, level_starts, level_widths
from .device import Device, DeviceArray
from .lists import buffer

Array = npt.NDArray[Any]


class Source(NamedTuple):
    """A segment's plane: codes as bytes, where levels start there, and what each row has besides, (3 L, capacity)."""

    codes: Array
    starts: Array
    terms: Array


def row_bytes(code: str, bounds: Array) -> Array:
    """Bytes of a row in each level."""
    multiple, divisor = {"b1": (64, 8), "i4": (8, 2), "i8": (4, 1)}[code]
    return level_widths(bounds, multiple) // divisor


def source_of(segment: Segment, code: str) -> Source:
    """The plane of a code, which the segment must have."""
    if code == "b1":
        assert segment.signs is not None
        words, factors = segment.signs.words, segment.signs.factors
        return Source(words.words.view(np.uint8), words.starts * 8, factors.reshape(-1, factors.shape[-1]))
    if code == "i4":
        assert segment.nibbles is not None
        plane = segment.nibbles
        return Source(plane.nibbles, plane.starts, plane.factors.reshape(-1, plane.factors.shape[-1]))
    return Source(segment.codes, segment.starts, segment.stats)


class Plane:
    """One code of `capacity` rows; `pieces`: of each part its plane, its first row here, and its rows in blocks."""

    def __init__(
        self,
        device: Device,
        code: str,
        pieces: Sequence[tuple[Source, int, int]],
        capacity: int,
        bounds: Array,
        ends: DeviceArray,
    ) -> None:
        widths, levels = row_bytes(code, bounds), len(bounds)
        starts = level_starts(widths, capacity)
        self.codes = device.empty(capacity * int(widths.sum()) + OVERREAD, np.uint8)
        self.terms = device.empty((3 * levels, capacity), np.float32 if code == "i8" else np.uint16)
        for source, first, size in pieces:
            for start, own, width in zip(starts.tolist(), source.starts.tolist(), widths.tolist(), strict=True):
                self.codes.write(source.codes[own : own + size * width], start + first * width)
            for number in range(3 * levels):
                self.terms.write(source.terms[number, :size], number * capacity + first)
        self.starts = device.put(starts)
        stats, factors = (self.terms, None) if code == "i8" else (None, self.terms)
        self.native = device.native.Plane(
            CODES.index(code), self.codes.buffer, self.starts.buffer, ends.buffer, buffer(stats), buffer(factors),
            levels, capacity, int(widths.sum()),
        )  # fmt: skip
