"""Bags of tokens in the memory of a GPU: documents, and queries split for tensor cores."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .. import arrays, slices
from ..bags import BagQueries, Bags, not_finite
from ..maxsim import SUFFIX
from ..planes import padded
from .device import Device, DeviceArray
from .foreign import incoming, is_foreign
from .lists import buffer
from .queries import to_float32

Array = npt.NDArray[Any]

TYPES = {"f32": 0, "f16": 1, "bf16": 2, "i8": 3}
TILE, TILES, CHUNK = 8, 8, 32  # query tokens side by side, tiles of a bundle, dims: as maxsim.h
ALIGN = 8  # dims that a lane reads together: rows are filled up with zeros, and begin at multiples of 16 bytes
HALVES = {"f32": ("bfloat16", 3), "f16": ("float16", 2), "bf16": ("bfloat16", 3), "i8": ("bfloat16", 3)}


class Documents:
    """Token vectors of documents in a GPU's memory, for any number of calls of `maxsim` and `maxsim_topk`.

    Parameters
    ----------
    device : str or Device
        Where to, as ``"cuda"``.
    tokens
        As `docs` of `nestvec.maxsim`, or an array (N, d) or (n, length, d) of the device, which is read in place if it
        is float32, float16, bfloat16 or int8 with a multiple of 8 dims.
    offsets : (n + 1,) integers, optional
        Where documents begin, if `tokens` is (N, d).
    scales : (N,) float32, optional
        What each token is multiplied by.

    Raises
    ------
    ValueError, TypeError
        As `nestvec.maxsim`, and for NaN and Inf in any document.
    MemoryError
        If the device has too little.
    """

    def __init__(self, device: str | Device, tokens: Any, offsets: Any = None, scales: Any = None) -> None:
        place = (device if isinstance(device, Device) else Device(device)).with_stream()
        offsets, scales = (
            incoming(one, place, "docs", place.home).numpy() if is_foreign(one) else one for one in (offsets, scales)
        )
        if offsets is None and isinstance(tokens, tuple) and len(tokens) == 2 and is_foreign(tokens[0]):
            tokens, offsets = tokens
        if is_foreign(tokens):
            with place.active():
                self._take(place, incoming(tokens, place, "docs", place.home), offsets, scales)
            return
        bags = arrays.ragged(tokens, "docs", offsets=offsets)
        weights = arrays.token_scales(scales, len(bags.tokens))
        kept, kind = arrays.readable_tokens(bags.tokens, "docs")
        with place.active():
            self._put(place, [Bags(kept, weights, SUFFIX[kind], bags.offsets)])

    @classmethod
    def stored(cls, device: Device, parts: Sequence[Bags]) -> Documents:
        """Those of several bags, one behind the other; `device` has a stream of its own and is the active one."""
        result = cls.__new__(cls)
        result._put(device, parts)
        return result

    def _put(self, device: Device, parts: Sequence[Bags]) -> None:
        """Copy tokens of the host."""
        dims = parts[0].tokens.shape[1]
        lengths = [np.diff(part.offsets) for part in parts]
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)
        width, count = padded(dims, ALIGN), int(offsets[-1])
        device.require(count * width * parts[0].tokens.itemsize + 12 * len(offsets), "the documents")
        tokens = device.empty((count, width), parts[0].tokens.dtype)
        scales = device.empty(count, np.float32) if len(parts[0].scales) else None
        at = 0
        for part in parts:
            last = int(part.offsets[-1])
            for some in slices.steps(last, width):
                rows = part.tokens[some]
                if width > dims:
                    rows = np.zeros((len(rows), width), rows.dtype)
                    rows[:, :dims] = part.tokens[some]
                tokens.write(rows, (at + some.start) * width)
            if scales is not None:
                scales.write(part.scales[:last], at)
            at += last
        self._measure(tokens, dims, parts[0].suffix, scales, offsets)
        if (token := self._first_bad()) is not None:
            for part in parts:
                if token < part.offsets[-1]:
                    raise not_finite(part, token, token + 1)
                token -= int(part.offsets[-1])

    def _take(self, device: Device, given: DeviceArray, offsets: Any, scales: Any) -> None:
        """Read tokens where they are, or a copy with rows that are filled up."""
        given, offsets = _bag_views(given, offsets, "docs", None)
        weights = arrays.token_scales(scales, len(given))
        if given.type not in SUFFIX:
            given = to_float32(given, given.shape[1], None, device.home)
        tokens, dims, item = given, given.shape[1], given.dtype.itemsize
        if dims % ALIGN or tokens.buffer.pointer % 16:
            tokens = device.empty((len(given), padded(dims, ALIGN)), given.dtype)
            device.native.pad_rows(
                given.buffer, dims * item, tokens.buffer, tokens.shape[1] * item, len(given), device.home
            )
        put = device.put(weights) if len(weights) else None
        self._measure(tokens, dims, SUFFIX[given.type], put, offsets)
        if (token := self._first_bad()) is not None:
            bits = given.rows(token, token + 1).numpy(device.home)
            one = bits.view(np.uint16) if given.type == "float16" else bits
            raise not_finite(
                Bags(np.broadcast_to(one, (token + 1, dims)), weights, self.suffix, offsets), token, token + 1
            )

    def _measure(self, tokens: DeviceArray, dims: int, suffix: str, scales: DeviceArray | None, offsets: Array) -> None:
        device = self.device = tokens.device
        self.n, self.dims, self.suffix, self._tokens = len(offsets) - 1, dims, suffix, tokens
        self.norms = device.empty(self.n, np.float32)
        self._bad, irregular = device.put(np.array([len(tokens)])), device.put(np.zeros(1, np.int32))
        self.native = device.native.Bags(
            tokens.buffer, TYPES[suffix], len(tokens), tokens.shape[1], dims, buffer(scales),
            device.put(offsets).buffer, self.n, self.norms.buffer,
        )  # fmt: skip
        device.native.measure_bags(self.native, self.norms.buffer, self._bad.buffer, irregular.buffer, device.home)
        self.irregular = bool(irregular.numpy()[0])  # waits

    def _first_bad(self) -> int | None:
        token = int(self._bad.numpy()[0])
        return token if token < len(self._tokens) else None

    def __len__(self) -> int:
        return self.n

    def memory_usage(self) -> int:
        """Bytes of the device's memory held, those of arrays that are read in place not counted."""
        return self.device.held


class AskedBags(NamedTuple):
    """Query tokens (m, dims) float32 on a device, and where each query's begin.

    `type` names the narrowest type known that holds them. `bad` (m + 1,) int32 marks tokens that held NaN or Inf, which
    are 0 in `values`; None: there are none. `given` is what a device holds.
    """

    values: DeviceArray
    offsets: Array
    type: str
    bad: DeviceArray | None = None
    given: DeviceArray | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @classmethod
    def of(cls, q: Any, dims: int | None, device: Device, stream: int) -> AskedBags:
        """Queries of the host, checked, or of a device, their shapes checked."""
        given, offsets = (q, None) if not isinstance(q, tuple) or len(q) != 2 else q
        if not is_foreign(given):
            tokens, offsets = arrays.bag_queries(q, "q", dims)
            return cls.put(tokens, offsets, device, stream)
        array = incoming(given, device, "q", stream)
        if is_foreign(offsets):
            offsets = incoming(offsets, device, "offsets of q", stream).numpy(stream)
        array, offsets = _bag_views(array, offsets, "q", dims)
        arrays.refuse_empty_queries(offsets)
        bad = device.empty(len(array) + 1, np.int32, stream)
        bad.buffer.fill(0, stream)
        return cls(to_float32(array, array.shape[1], bad, stream), offsets, array.type, bad, array)

    @classmethod
    def put(cls, tokens: Array, offsets: Array, device: Device, stream: int) -> AskedBags:
        """Checked queries of the host, float32."""
        with np.errstate(over="ignore"):
            half = np.array_equal(tokens.astype(np.float16), tokens)
        brain = not np.any(tokens.view(np.uint32) & 0xFFFF)
        type = "float16" if half else "bfloat16" if brain else "float32"
        return cls(device.put(tokens, stream), offsets, type)

    def refuse_bad(self, stream: int) -> None:
        """ValueError for NaN, Inf and values beyond float32, as the host words it; waits for `stream`."""
        if (
            self.bad is None
            or self.given is None
            or not self.bad.rows(len(self.values), len(self.bad)).numpy(stream)[0]
        ):
            return
        arrays.bag_queries((self.given.numbers(stream), self.offsets), "q", None)

    def host(self, stream: int) -> BagQueries:
        """As the CPU takes them; waits for `stream`."""
        return BagQueries(self.values.numpy(stream).astype(np.float64), self.offsets)

    def some(self, first: int, last: int) -> AskedBags:
        """Queries [`first`, `last`)."""
        at, end = self.offsets[[first, last]].tolist()
        return AskedBags(self.values.rows(at, end), self.offsets[first : last + 1] - at, self.type)

    def parts(self, suffix: str, few: bool) -> int:
        """Into how many halves tokens are split: all that they hold, or, to find candidates for many, one."""
        whole, parts = HALVES[suffix]
        return 1 if not few or self.type == whole else parts


class Split:
    """Queries of a pass, split for tensor cores.

    Parameters
    ----------
    parts : int
        Halves that each value is split into.
    apart : bool
        Whether queries have documents of their own.
    """

    def __init__(self, documents: Documents, queries: AskedBags, parts: int, apart: bool, stream: int) -> None:
        self.documents, self.stream, self.device = documents, stream, documents.device
        self.nq, dims, native = len(queries), documents.dims, self.device.native
        self._cuts = np.concatenate([[0], np.cumsum(-(-np.diff(queries.offsets) // TILE))])
        count = int(self._cuts[-1])

        def put(values: Array) -> Any:
            return self.device.put(values, stream).buffer

        def room(*shape: int, dtype: npt.DTypeLike) -> Any:
            return self.device.empty(shape, dtype, stream)

        self.native = native.QueryBags(
            queries.values.buffer, len(queries.values), dims, put(queries.offsets), put(self._cuts), self.nq
        )
        self._errors = room(count, dtype=np.float64)
        owners = np.repeat(np.arange(self.nq, dtype=np.int32), np.diff(self._cuts))
        fragments = room(count, -(-dims // CHUNK), parts, 32, 4, dtype=np.uint32)
        self.tiles = native.Tiles(
            fragments.buffer, room(count, TILE, dtype=np.float64).buffer, self._errors.buffer, put(owners), count,
            parts, dims,
        )  # fmt: skip
        native.split_queries(self.native, documents.native, self.tiles, stream)
        cuts = self._cuts if apart else bundled(self._cuts)
        self._bundles, self._count, self._widest = put(cuts), len(cuts) - 1, int(np.diff(cuts).max(initial=0))

    def errors(self) -> Array:
        """What a document's norm is multiplied by to bound the error of each query's score, (nq,)."""
        return np.add.reduceat(self._errors.numpy(self.stream), self._cuts[:-1])

    def scan(
        self,
        docs: DeviceArray | None,
        step: int,
        first: int,
        last: int,
        *,
        allowed: DeviceArray | None = None,
        allowed_step: int = 0,
        lists: Any = None,
        out: DeviceArray | None = None,
    ) -> None:
        """Score documents, or those listed, from `first` to `last`: append them to `lists`, or write to `out`."""
        self.device.native.scan_bags(
            self.documents.native, self.native, self.tiles, self._bundles, self._count, self._widest, buffer(docs),
            step, first, last, buffer(allowed), allowed_step, None if lists is None else lists.native, buffer(out),
            self.stream,
        )  # fmt: skip


def bundled(tiles: Array) -> Array:
    """Cuts between bundles of whole queries, given where their tiles begin: TILES of them, or one query."""
    cuts, ends = [0], tiles.tolist()
    for before, end in pairwise(ends):
        if end - cuts[-1] > TILES and before > cuts[-1]:
            cuts.append(before)
    return np.array([*cuts, ends[-1]], np.int64)


def _bag_views(given: DeviceArray, offsets: Any, name: str, dims: int | None) -> tuple[DeviceArray, Array]:
    """Tokens (N, d) of a device and checked offsets."""
    if given.ndim == 3 and offsets is None:
        offsets = np.arange(len(given) + 1) * given.shape[1]
        given = given.reshape(given.shape[0] * given.shape[1], given.shape[2])
    shape_only = np.broadcast_to(np.zeros((), np.float32), given.shape)
    return given, arrays.ragged(shape_only, name, dims, offsets).offsets
