"""`CudaEncoder`: fixed dimensional encodings made by a GPU."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .. import arrays
from ..fitting import PANEL
from ..muvera import MEAN, SHRUNK, SUM, Bags, FixedDimensionalEncoder
from .device import Device, DeviceArray
from .lists import buffer

Array = npt.NDArray[Any]

PASS_VALUES = 1 << 26  # of tokens with what kernels make of them, and of encodings: 256 MiB each for a pass
_INDEX, _SIGN = np.int32(2**31 - 1), np.int32(-(2**31))


class CudaEncoder(FixedDimensionalEncoder):
    """A `FixedDimensionalEncoder` whose tables are in a GPU's memory, as `FixedDimensionalEncoder.to` makes it.

    It has the same methods and fingerprint, and makes the same encodings, bit for bit. `threads` changes nothing.
    Large batches are encoded in passes, which bounds what they take of the GPU's memory.

    Parameters
    ----------
    encoder : FixedDimensionalEncoder
    device : Device
    """

    device: Device
    _there: Resident

    def __init__(self, encoder: FixedDimensionalEncoder, device: Device) -> None:
        device.activate()
        self.__dict__.update(encoder.__dict__)  # a frozen dataclass: nothing is assigned
        self.__dict__.update(device=device, _there=Resident(encoder, device))
        device.wait()

    def __reduce__(self) -> Any:
        return _again, ({f.name: getattr(self, f.name) for f in fields(self) if f.init}, self.device.name)

    def encode_on_device(self, tokens: DeviceArray, offsets: DeviceArray, kind: str, stream: int = 0) -> DeviceArray:
        """Encodings of bags that are in the device's memory already.

        Parameters
        ----------
        tokens : (N, dim) float32
            Finite.
        offsets : (n + 1,) int64
            Ascending from 0 to N, which is not checked. They are read by the host only if there is too much to encode
            in one pass.
        kind : {"documents", "queries"}
        stream : int, default 0
            Where kernels are put; nothing waits for them.

        Returns
        -------
        (n, fde_dim) float32 DeviceArray
        """
        average = arrays.one_of(kind, "kind", ("documents", "queries")) == "documents"
        if tokens.dtype != np.float32 or len(tokens.shape) != 2 or tokens.shape[1] != self.dim:
            raise ValueError(f"tokens must be (N, {self.dim}) float32, got {tokens.shape} {tokens.dtype}")
        if offsets.dtype != np.int64 or len(offsets.shape) != 1 or len(offsets) == 0:
            raise ValueError(f"offsets must be (n + 1,) int64, got {offsets.shape} {offsets.dtype}")
        self.device.activate()
        n = len(offsets) - 1
        out = self.device.empty((n, self.fde_dim), np.float32, stream)
        if len(tokens) <= self._chunk() and (not self.final_projection_dim or n <= self._most_bags()):
            spans, ends = [(0, n)], {0: 0, n: len(tokens)}
        else:
            bags = Bags(np.empty((len(tokens), 0)), offsets.numpy(stream), None, False)
            spans = self._spans(bags)
            ends = {at: int(bags.offsets[at]) for span in spans for at in span}
        for first, last in spans:
            begin, end = ends[first], ends[last]
            span = Span(self.device, tokens, begin, end - begin, offsets, first, last - first, begin, stream)
            self._there.encode(span, average, out, first)
        return out

    def _chunk(self) -> int:
        return max(PASS_VALUES // (self.dim + self._there.values_of_token), 1)

    def _most_bags(self) -> int:
        return max(PASS_VALUES // max(self._size, self.fde_dim), 1)

    def _threads(self, bags: Bags, threads: int | None) -> int:
        super()._threads(bags, threads)  # the check
        return 1

    def _simhash(self, x: Array, partitions: Array) -> None:
        self.device.activate()
        span = Span(self.device, self.device.put(x), 0, len(x))
        partitions[:] = self._there.simhash(span).numpy()

    def _occupied(self, bags: Bags, first: int, last: int, partitions: Any) -> Array:
        there = isinstance(partitions, DeviceArray)
        return super()._occupied(bags, first, last, partitions.numpy() if there else partitions)

    def _encode_span(self, bags: Bags, first: int, last: int, average: bool, out: Array) -> Any:
        begin, end = int(bags.offsets[first]), int(bags.offsets[last])
        self.device.activate()
        x, offsets = self.device.put(bags.float32(begin, end)), self.device.put(bags.offsets[first : last + 1])
        rows = self.device.empty(out.shape, np.float32)
        span = Span(self.device, x, 0, end - begin, offsets, 0, last - first, begin)
        partitions, beyond = self._there.encode(span, average, rows, 0)
        if out.size:
            rows.buffer.read(0, out.reshape(-1).view(np.uint8), 0)
        if beyond is not None and beyond.numpy()[0]:
            self._centred(bags, begin, end)  # which says where
        return partitions


class Span(NamedTuple):
    """Tokens in a device's memory, and the bags that they are in."""

    device: Device
    x: DeviceArray
    token: int  # the first one, of `x`
    tokens: int
    offsets: DeviceArray | None = None
    bag: int = 0  # the first one, of `offsets`
    bags: int = 0
    base: int = 0  # offset of the first token
    stream: int = 0

    def empty(self, *shape: int, dtype: npt.DTypeLike = np.float32) -> DeviceArray:
        return self.device.empty(shape, dtype, self.stream)

    @property
    def native(self) -> Any:
        """The bags as kernels take them."""
        return self.device.native.FdeBags(buffer(self.offsets), self.bag, self.bags, self.base, self.tokens)


class Resident:
    """Tables of an encoder in a device's memory, and what its kernels do with them."""

    def __init__(self, encoder: FixedDimensionalEncoder, device: Device) -> None:
        tables, self.native, self.size = encoder._tables, device.native, encoder._size
        self.repetitions, self.reach = encoder.num_repetitions, tables.reach
        self.fill = encoder.fill_empty_partitions
        self.shape = device.native.FdeShape(self.repetitions, encoder.num_simhash_projections, encoder._width)
        self.shared = device.native.facts(device.number)["shared"]
        self.panels = device.put(tables.panels)
        self.ams = sketch(device, tables.ams, encoder._width) if len(tables.ams) else None
        self.final = sketch(device, tables.final[None], encoder.fde_dim) if len(tables.final) else None
        self.fitted = tables.fitted is not None
        self.values_of_token: int = self.repetitions
        if tables.fitted is not None:
            self.mean, self.columns = device.put(tables.fitted.mean), device.put(tables.fitted.panels)
            self.shift, self.wide = device.put(tables.fitted.shift), len(tables.fitted.values)
            self.values_of_token += encoder.dim + len(tables.fitted.panels) * PANEL

    def encode(self, span: Span, average: bool, out: DeviceArray, row: int) -> tuple[DeviceArray | None, ...]:
        """Encode bags into rows of `out`; returns their tokens' partitions and whether centring overflowed, if any."""
        blocks = (out, row) if self.final is None else (span.empty(span.bags, self.size), 0)
        partitions = beyond = None
        if not self.fitted:
            partitions = self.simhash(span)
            self._add(span, partitions, MEAN if average else SUM, average and self.fill, *blocks)
        else:
            centred, beyond = self._centred(span)
            span = span._replace(x=centred, token=0)
            if average:
                partitions = self.simhash(span)
                self._add(span._replace(x=self._projected(span, self.wide)), partitions, SHRUNK, False, *blocks)
            else:
                self._probe(span, *blocks)
        if self.final is not None:
            self.native.sketch_rows(blocks[0].buffer, span.bags, self.size, self.final, out.buffer, row, span.stream)
        return partitions, beyond

    def simhash(self, span: Span) -> DeviceArray:
        """Partitions of tokens."""
        partitions = span.empty(span.tokens, self.repetitions, dtype=np.uint32)
        self.native.simhash(
            span.x.buffer, span.token, span.tokens, span.x.shape[1], self.panels.buffer, self.reach, self.shape,
            partitions.buffer, span.stream,
        )  # fmt: skip
        return partitions

    def _add(self, span: Span, partitions: DeviceArray, mode: int, fill: bool, out: DeviceArray, row: int) -> None:
        self.native.encode_bags(
            span.native, self.shape, span.x.buffer, span.token, span.x.shape[1], partitions.buffer, self.ams, mode,
            fill, self.shared, out.buffer, row, span.stream,
        )  # fmt: skip

    def _probe(self, span: Span, out: DeviceArray, row: int) -> None:
        projected = self._projected(span, len(self.columns))
        self.native.encode_probes(
            span.native, self.shape, span.x.buffer, span.x.shape[1], projected.buffer, projected.shape[1],
            self.wide * PANEL, self.shift.buffer, self.shared, out.buffer, row, span.stream,
        )  # fmt: skip

    def _centred(self, span: Span) -> tuple[DeviceArray, DeviceArray]:
        centred, beyond = span.empty(span.tokens, span.x.shape[1]), span.empty(1, dtype=np.int32)
        beyond.buffer.fill(0, span.stream)
        self.native.centre_tokens(
            span.x.buffer, span.token, span.tokens, span.x.shape[1], self.mean.buffer, centred.buffer, beyond.buffer,
            span.stream,
        )  # fmt: skip
        return centred, beyond

    def _projected(self, span: Span, panels: int) -> DeviceArray:
        """Products with the columns of the first panels."""
        out = span.empty(span.tokens, panels * PANEL)
        self.native.project_tokens(
            span.x.buffer, span.tokens, span.x.shape[1], self.columns.buffer, panels, out.buffer, span.stream
        )  # fmt: skip
        return out


def sketch(device: Device, tables: Array, columns: int) -> Any:
    """Sketches, a row each, by their columns: which coordinates each adds up, ascending, with their signs."""
    rows, values = tables.shape
    at = ((tables & _INDEX) + np.arange(rows)[:, None] * columns).reshape(-1)
    signed = (tables & _SIGN) | np.arange(values, dtype=np.int32)
    entries = device.put(signed.reshape(-1)[np.argsort(at, kind="stable")])
    starts = device.put(np.concatenate([[0], np.cumsum(np.bincount(at, minlength=rows * columns))]).astype(np.int64))
    return device.native.FdeSketch(entries.buffer, starts.buffer, tables.size, rows * columns)


def _again(parameters: dict[str, Any], device: str) -> CudaEncoder:
    """A copy, with tables drawn anew."""
    return FixedDimensionalEncoder(**parameters).to(device)
