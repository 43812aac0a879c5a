"""Queries made ready on the device: the bits that the host makes of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .. import arrays, coding
from ..planes import level_widths, padded
from ..rotation import BlockRotation
from ..transform import Dense, Hadamard, Permuted, Transform
from .device import Device, DeviceArray
from .foreign import incoming, is_foreign
from .lists import buffer

Array = npt.NDArray[Any]

SOURCES = (
    "float32", "float16", "bfloat16", "float64",
    "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
)  # fmt: skip


class Space(Protocol):
    """Where queries live: what a `NestedIndex` knows of it."""

    @property
    def d(self) -> int: ...
    @property
    def transform(self) -> Transform | None: ...


@dataclass(frozen=True)
class Asked:
    """Queries (nq, dims) float32; `bad` (nq + 1,) int32 marks those that held NaN or Inf, the last if any did.

    Values that were not finite are 0, so every kernel can go on; None: there are none. `given` is what a device holds.
    """

    values: DeviceArray
    bad: DeviceArray | None
    given: DeviceArray | None


def to_float32(array: DeviceArray, dims: int, bad: DeviceArray | None, stream: int) -> DeviceArray:
    """The leading `dims` of rows (n, d) of any type that `arrays.to_float32` takes."""
    device, n = array.device, len(array)
    target = device.empty((n, dims), np.float32, stream)
    device.native.to_float32(
        array.buffer, SOURCES.index(array.type), array.pitch, n, dims, target.buffer, buffer(bad), stream
    )
    return target


class Through:
    """A `Transform` on a device."""

    def __init__(self, transform: Transform, device: Device) -> None:
        how = transform._map
        self._d = how.d_in
        self._turn = Turn(how._rotation, device) if isinstance(how, Hadamard) else None
        self._panels = device.put(how._forth) if isinstance(how, Dense) else None
        self._order = device.put(how.order) if isinstance(how, Permuted) else None

    def apply(self, x: DeviceArray, dims: int, bad: DeviceArray | None, stream: int) -> DeviceArray:
        """The leading `dims` of rows (n, d_in) float32; what goes beyond float32 is marked."""
        device, n = x.device, len(x)
        if self._turn is not None:
            return to_float32(self._turn.apply(x, stream), dims, bad, stream)
        target = device.empty((n, dims), np.float32, stream)
        if self._panels is not None:
            device.native.multiply_rows(
                x.buffer, n, self._d, self._panels.buffer, dims, target.buffer, buffer(bad), stream
            )
        else:
            device.native.take_columns(x.buffer, n, self._d, buffer(self._order), dims, target.buffer, stream)
        return target


class Turn:
    """A `BlockRotation` on a device, in float64."""

    def __init__(self, rotation: BlockRotation, device: Device) -> None:
        spans, at = [], 0
        for begin, size, end in rotation._spans:
            spans.append((begin, size, end, at))
            at += size
        self._spans = device.put(np.asarray(spans, np.int64))
        self._signs = device.put(np.concatenate(rotation._signs))
        self._scales = device.put(np.asarray([math.sqrt(1 / size) for _, size, _, _ in spans]))

    def apply(self, x: DeviceArray, stream: int) -> DeviceArray:
        """Rows (n, dims) float32 as float64, of which the levels that are whole are turned."""
        target = x.device.empty(x.shape, np.float64, stream)
        x.device.native.rotate(
            x.buffer, len(x), x.shape[1], self._spans.buffer, len(self._spans), self._signs.buffer,
            self._scales.buffer, target.buffer, stream,
        )  # fmt: skip
        return target


def asked(space: Space, through: Through | None, q: Any, dims: int, device: Device, stream: int) -> Asked:
    """Queries of the host or of a device, their shapes checked as `NestedIndex.search` does.

    Values of the host are checked, those of a device are marked: `refuse_bad` waits for them.
    """
    transform = space.transform
    given = incoming(q, device, "q", stream) if is_foreign(q) else None
    source = q if given is None else like(given, "q")
    if transform is None:
        checked, wide = arrays.query_vectors(source, space.d, dims), dims
    else:
        checked, wide = transform._whole(source), transform.d_in
    bad = None if given is None and transform is None else _marks(device, len(checked), stream)
    if given is not None:
        values = to_float32(given.reshape(*checked.shape), wide, bad, stream)
    else:
        values = device.put(arrays.to_float32(checked[:, :wide], "q"), stream)
    if through is not None:
        values = through.apply(values, dims, bad, stream)
    return Asked(values, bad, given)


def refuse_bad(found: Asked, space: Space, q: Any, dims: int, stream: int) -> None:
    """ValueError for NaN, Inf and values beyond float32, as the host words it; waits for `stream`."""
    if found.bad is None or not found.bad.rows(len(found.values), len(found.values) + 1).numpy(stream)[0]:
        return
    if found.given is not None:
        q = found.given.numbers(stream)
    if space.transform is None:
        arrays.queries(q, space.d, dims)
    else:
        space.transform._queries(q, dims)


def _marks(device: Device, n: int, stream: int) -> DeviceArray:
    bad = device.empty(n + 1, np.int32, stream)
    bad.buffer.fill(0, stream)
    return bad


def like(array: DeviceArray, name: str) -> Array:
    """An array of the host of the same shape and type, without memory, for checks of shapes."""
    if array.type not in SOURCES:
        raise TypeError(f"{name} has dtype {array.type}; one of {', '.join(SOURCES)} is needed, convert it first")
    return np.broadcast_to(np.zeros((), np.float32 if array.type == "bfloat16" else array.dtype), array.shape)


@dataclass(frozen=True)
class Packed:
    """Queries for certified scans: `nestvec.search.Packed` on a device."""

    codes: DeviceArray
    sums: DeviceArray
    stats: DeviceArray
    multiply: DeviceArray
    offset: DeviceArray
    native: Any  # what scans take

    @classmethod
    def of(cls, queries: DeviceArray, bounds: Array, ends: DeviceArray, metric: str, stream: int) -> Packed:
        """Queries (nq, >= dims) over the levels that end at `bounds`; `ends` holds those, and perhaps more."""
        device, (count, stride), levels = queries.device, queries.shape, len(bounds)
        size = padded(max(count, 1), 32)
        width = 64 * (int(level_widths(bounds, 64).sum()) // 64 | 1)
        codes = device.empty((size, width), np.int8, stream)
        sums = device.empty((levels, size), np.int32, stream)
        stats = device.empty((3 * levels + 1, size), np.float32, stream)
        for array in (codes, sums, stats):
            array.buffer.fill(0, stream)
        multiply, offset = device.empty(count, np.float64, stream), device.empty(count, np.float64, stream)
        device.native.pack_queries(
            queries.buffer, count, stride, ends.buffer, levels, int(bounds[-1]), arrays.METRICS[metric], codes.buffer,
            width, sums.buffer, stats.buffer, size, multiply.buffer, offset.buffer, stream,
        )  # fmt: skip
        native = device.native.Queries(
            codes.buffer, count, width, sums.buffer, stats.buffer, size, levels, None, None, None
        )
        return cls(codes, sums, stats, multiply, offset, native)


class Frame:
    """What signs are taken of: `nestvec.coding.Frame` on a device."""

    def __init__(self, frame: coding.Frame, device: Device) -> None:
        self.metric, self.bounds = frame.metric, frame.bounds
        self.ends, self.center = device.put(frame.bounds), device.put(frame.center)
        self.turn = None if frame.rotation is None else Turn(frame.rotation, device)


@dataclass(frozen=True)
class Coded:
    """Queries for one stage: `nestvec.coding.CodedQueries` on a device."""

    codes: DeviceArray  # (nq, W) int8
    words: DeviceArray | None  # of b1, (nq, D, W / 64) uint64
    shifts: DeviceArray  # (nq,) int64
    lifts: DeviceArray  # (nq,) float32
    units: DeviceArray  # (nq,) float64
    offsets: DeviceArray  # (nq,) float64
    native: Any  # what scans take


def encode(queries: DeviceArray, code: str, dims: int, widest: int, frame: Frame, stream: int) -> Coded:
    """Queries (nq, >= dims) for a stage over `dims`, in the units of the widest stage of this code."""
    device, (count, stride) = queries.device, queries.shape
    levels = int(np.searchsorted(frame.bounds, dims)) + 1
    width = int(level_widths(frame.bounds[:levels], 64).sum())
    signs = code == "b1"
    turned = frame.turn.apply(queries, stream) if signs and frame.turn is not None else None
    codes = device.empty((count, width), np.int8, stream)
    shifts, lifts = device.empty(count, np.int64, stream), device.empty(count, np.float32, stream)
    units, offsets = device.empty(count, np.float64, stream), device.empty(count, np.float64, stream)
    device.native.encode_queries(
        queries.buffer, count, stride, coding.LARGEST[code], coding.SHIFT[code], dims, min(widest, stride),
        arrays.METRICS[frame.metric], frame.ends.buffer, levels, frame.center.buffer if signs else None,
        buffer(turned), codes.buffer, width, shifts.buffer, lifts.buffer, units.buffer, offsets.buffer,
        stream,
    )  # fmt: skip
    words = None
    if signs:
        words = device.empty((count, coding.DIGITS, width // 64), np.uint64, stream)
        device.native.split_digits(codes.buffer, count, width, coding.DIGITS, words.buffer, stream)
    native = device.native.Queries(
        codes.buffer, count, width, None, None, count, levels, shifts.buffer, lifts.buffer, buffer(words)
    )
    return Coded(codes, words, shifts, lifts, units, offsets, native)
