"""Segments: a run of rows with their int8 planes, in arrays that kernels read as they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

BLOCK = 64
OVERREAD = 1024  # bytes a matrix multiplication may read past the last line of a plane
TILE = 16
COPY_ROWS = 16_384  # rows copied at a time: Ctrl-C is answered in between

Array = npt.NDArray[Any]

EVERY = np.empty((0, 0), np.uint64)  # of rows allowed: no word, so every row
_ONES = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)  # of each byte


def padded(count: int, multiple: int) -> int:
    """`count` rounded up to a multiple."""
    return -(-count // multiple) * multiple


def level_widths(bounds: Array, multiple: int) -> Array:
    """Dims of each level, rounded up to a multiple: lines of 4 for rows, steps of 64 for queries."""
    widths = bounds.copy()
    widths[1:] -= bounds[:-1]
    return -(-widths // multiple) * multiple


def total_width(bounds: Array, multiple: int) -> int:
    """The sum of `level_widths`; for so few numbers numpy is slow."""
    return sum(padded(end - begin, multiple) for begin, end in pairwise([0, *bounds.tolist()]))


def aligned(shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
    """Uninitialised array on a 64-byte boundary, so that no vector load spans two cache lines.

    numpy asks for huge pages for what is large; a scan from 4 KB pages is about a quarter slower.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64  # numpy crashes making __array_interface__ where memory is short
    return memory[start : start + size].view(dtype).reshape(shape)


def level_starts(widths: Array, capacity: int) -> Array:
    """Where each level begins in a plane of `capacity` rows, given the elements that a row has in each."""
    return np.concatenate(([0], np.cumsum(widths[:-1]))).astype(np.int64) * capacity


def level_views(plane: Array, starts: Array, widths: Array, group: int) -> list[Array]:
    """The levels of a plane as ``(rows / group, width, group, 1)``, given the elements that a row has in each."""
    capacity = len(plane) // max(int(widths.sum()), 1)
    return [
        plane[start : start + capacity * width].reshape(-1, width, group, 1)
        for start, width in zip(starts.tolist(), widths.tolist(), strict=True)
    ]


def _column_views(columns: Array) -> list[Array]:
    """An array (..., capacity) as ``(rows / 64, values, 64, 1)``."""
    flat = columns.reshape(math.prod(columns.shape[:-1]), -1, BLOCK)
    return [flat.transpose(1, 0, 2)[..., None]]


def copy_rows(source: Sequence[Array], rows: Array, target: Sequence[Array], first: int) -> None:
    """Copy rows, given by number, to `first` and those behind it, from the views of one segment to those of another."""
    places = np.arange(first, first + len(rows))
    for a, b in zip(source, target, strict=True):
        group = a.shape[2]
        b[places // group, :, places % group] = a[rows // group, :, rows % group]


def count_ones(words: Array) -> Array:
    """One bits of (..., n) words, added up over the last axis: int64."""
    counts = (
        np.bitwise_count(words) if hasattr(np, "bitwise_count") else _ONES[np.ascontiguousarray(words).view(np.uint8)]
    )
    return counts.sum(axis=-1, dtype=np.int64)  # type: ignore[no-any-return]


def words_within(allowed: Array, first: int, last: int) -> Array:
    """The words of a set (1, words) for rows [`first`, `last`), no others; `first` is a multiple of 64, and bit 0."""
    words = allowed[0, first // BLOCK : padded(last, BLOCK) // BLOCK]
    if last % BLOCK and last > first:
        words = words.copy()
        words[-1] &= np.uint64(2 ** (last % BLOCK) - 1)
    return words


def allowed_rows(allowed: Array, first: int, last: int) -> Array:
    """Rows of [`first`, `last`) that a set (1, words) has, ascending: int64; all where there is no set."""
    if len(allowed) == 0:
        return np.arange(first, last)
    words = words_within(allowed, first, last)
    used = np.flatnonzero(words)
    bits = np.flatnonzero(np.unpackbits(words[used].view(np.uint8), bitorder="little").view(np.bool_))
    return first + used[bits // BLOCK] * BLOCK + bits % BLOCK


def spread(allowed: Array, first: int, last: int) -> tuple[int, int]:
    """How many rows of [`first`, `last`) a set (1, words) has, or all where there is none, and in how many blocks."""
    if len(allowed) == 0:
        return last - first, padded(last - first, BLOCK) // BLOCK
    words = words_within(allowed, first, last)
    return int(count_ones(words)), int(np.count_nonzero(words))


@dataclass(frozen=True)
class Words:
    """Sign bits of up to `capacity` rows; see `nestvec.kernels.bits` for the layout."""

    words: Array
    starts: Array
    bounds: Array

    @classmethod
    def allocate(cls, capacity: int, bounds: Array) -> Words:
        """Room for `capacity` (a multiple of 64) rows of ``bounds[-1]`` bits."""
        widths = level_widths(bounds, 64) // 64
        return cls(aligned((capacity * int(widths.sum()),), np.uint64), level_starts(widths, capacity), bounds)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return int(self.words.nbytes)

    def views(self) -> list[Array]:
        """As `copy_rows` takes them."""
        return level_views(self.words, self.starts, level_widths(self.bounds, 64) // 64, BLOCK)


@dataclass(frozen=True)
class SignPlane:
    """`b1`: signs and the factors of their estimates; see `nestvec.kernels.codes`."""

    words: Words
    factors: Array

    @classmethod
    def allocate(cls, capacity: int, bounds: Array) -> SignPlane:
        """Room for `capacity` rows."""
        return cls(Words.allocate(capacity, bounds), aligned((3, len(bounds), capacity), np.uint16))

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return int(self.words.nbytes + self.factors.nbytes)

    def views(self) -> list[Array]:
        """As `copy_rows` takes them."""
        return [*self.words.views(), *_column_views(self.factors)]


@dataclass(frozen=True)
class NibblePlane:
    """`i4`: high halves of int8 codes and the factors of their estimates; see `nestvec.kernels.codes`."""

    nibbles: Array
    starts: Array
    factors: Array
    bounds: Array

    @classmethod
    def allocate(cls, capacity: int, bounds: Array) -> NibblePlane:
        """Room for `capacity` rows."""
        widths = level_widths(bounds, 8) // 2
        factors = aligned((3, len(bounds), capacity), np.uint16)
        return cls(aligned((capacity * int(widths.sum()),), np.uint8), level_starts(widths, capacity), factors, bounds)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return int(self.nibbles.nbytes + self.factors.nbytes)

    def views(self) -> list[Array]:
        """As `copy_rows` takes them."""
        words = self.nibbles.view(np.uint32)
        return [
            *level_views(words, self.starts // 4, level_widths(self.bounds, 8) // 8, TILE),
            *_column_views(self.factors),
        ]


@dataclass(frozen=True)
class Segment:
    """Rows and planes with room for `capacity` rows; see `nestvec.kernels.pack` for the layout.

    `rows` may be a view of somebody else's array. Row r has id ``ids[r]``, or ``base + r`` where `ids` is empty. What
    an index does not keep is empty or None, but ``stats`` always has `capacity` columns.
    """

    rows: Array
    codes: Array
    starts: Array
    stats: Array
    blocks: Array
    ids: Array
    base: int
    signs: SignPlane | None = None
    nibbles: NibblePlane | None = None

    @classmethod
    def allocate(cls, rows: Array, capacity: int, bounds: Array, ids: Array, base: int) -> Segment:
        """Empty planes over `bounds` for up to `capacity` (a multiple of 64) of `rows`."""
        widths = level_widths(bounds, 4)
        levels = len(bounds)
        return cls(
            rows=rows,
            codes=aligned((capacity * int(widths.sum()) + OVERREAD,), np.uint8),
            starts=level_starts(widths, capacity),
            stats=aligned((3 * levels, capacity), np.float32),
            blocks=np.zeros((2 * levels, capacity // BLOCK), np.float32),
            ids=ids,
            base=base,
        )

    @classmethod
    def unpacked(cls, rows: Array, ids: Array, base: int = 0, capacity: int = 0) -> Segment:
        """No int8 plane: rows alone, for searches that read nothing else, or room for other planes."""
        stats, blocks = (np.empty((0, width), np.float32) for width in (capacity, 0))
        return cls(rows, np.empty(0, np.uint8), np.empty(0, np.int64), stats, blocks, ids, base)

    @property
    def capacity(self) -> int:
        """Rows there is room for."""
        return int(self.stats.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, room included."""
        held = (self.rows, self.codes, self.stats, self.blocks, self.ids, self.signs, self.nibbles)
        return sum(array.nbytes for array in held if array is not None)

    def views(self, bounds: Array) -> list[Array]:
        """Everything that each row has, besides its id, as `copy_rows` takes it."""
        found = [self.rows[:, None, None, :]] if len(self.rows) else []
        if len(self.codes):
            words = self.codes[: self.codes.size - OVERREAD].view(np.uint32)
            found += level_views(words, self.starts // 4, level_widths(bounds, 4) // 4, TILE)
            found += _column_views(self.stats)
        for plane in (self.signs, self.nibbles):
            found += [] if plane is None else plane.views()
        return found

    def settle(self, n: int) -> None:
        """The maxima of blocks, after `n` rows were copied into a segment that has no others."""
        if not len(self.codes):
            return
        levels, end = len(self.starts), padded(n, BLOCK)
        self.stats[1 : 1 + 2 * levels, n:end] = 0
        some = self.stats[1 : 1 + 2 * levels, :end].reshape(2 * levels, -1, BLOCK)
        self.blocks[:, : end // BLOCK] = some.max(axis=2)
