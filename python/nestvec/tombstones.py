"""Which rows are gone: a log of slots that removals append to, and bitmaps that searches make of it.

Slots number the room of all segments, each beginning at a multiple of 64. Bit ``slot % 64``, least significant first,
of word ``slot // 64`` of a bitmap is one where the row may be found.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .planes import padded

Array = npt.NDArray[Any]

WORD = 64


def with_bits(words: Array, slots: Array, *, on: bool) -> Array:
    """The words (changed in place) with the bits of some slots set or cleared."""
    order = np.sort(slots)
    places = order >> 6
    bits = np.left_shift(np.uint64(1), (order & 63).astype(np.uint64))
    if len(order):
        begins = np.flatnonzero(np.diff(places, prepend=-1))
        some, masks = places[begins], np.bitwise_or.reduceat(bits, begins)
        words[some] = words[some] | masks if on else words[some] & ~masks
    return words


def has_bits(words: Array, slots: Array) -> Array:
    """Whether the bits of some slots are one."""
    bits: Array = words[slots >> 6] >> (slots & 63).astype(np.uint64) & np.uint64(1)
    return bits.astype(bool)


def from_bools(mask: Array) -> Array:
    """Words of booleans (..., n), with zeros behind them up to a whole word."""
    room = padded(mask.shape[-1], WORD)
    if mask.shape[-1] < room:
        mask = np.concatenate([mask, np.zeros((*mask.shape[:-1], room - mask.shape[-1]), bool)], axis=-1)
    packed = np.ascontiguousarray(np.packbits(mask, axis=-1, bitorder="little"))  # else laid out as the mask is
    return packed.view("<u8").astype(np.uint64, copy=False)


def to_bools(words: Array, count: int) -> Array:
    """The first `count` bits of words (..., W) as booleans."""
    packed = np.ascontiguousarray(words).astype("<u8", copy=False).view(np.uint8)
    return np.unpackbits(packed, axis=-1, count=count, bitorder="little").view(bool)


class Tombstones:
    """An immutable set of slots. Removing costs as much as is removed: bitmaps wait until a search needs one."""

    def __init__(self) -> None:
        self._log = np.empty(0, np.int64)
        self._count = 0
        self._known: tuple[Array, int] = (np.empty(0, np.uint64), 0)  # a bitmap, and how much of the log it knows

    def __len__(self) -> int:
        return self._count

    def plus(self, slots: Array) -> Tombstones:
        """These and more, which were alive. Of the sets that are made from one, only the last may be used."""
        result = Tombstones()
        result._count = self._count + len(slots)
        result._log = self._log
        if len(self._log) < result._count:
            result._log = np.empty(max(2 * result._count, WORD), np.int64)
            result._log[: self._count] = self._log[: self._count]
        result._log[self._count : result._count] = slots
        result._known = self._known
        return result

    def alive(self, room: int) -> Array:
        """Bitmap (room / 64,) of the slots below `room`, a multiple of 64; not to be written to."""
        words, count = self._known
        if len(words) * WORD < room or count < self._count:
            fresh = np.full(max(room // WORD, len(words)), ~np.uint64(0))
            fresh[: len(words)] = words
            words = with_bits(fresh, self._log[count : self._count], on=False)
            self._known = (words, self._count)
        return words[: room // WORD]
