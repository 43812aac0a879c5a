"""Filters: which ids may be found, as masks, packed bitmaps, lists of ids or ranges; for all queries or for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from . import arrays, slices
from .ids import Identified, Run
from .planes import EVERY
from .tombstones import WORD, from_bools, to_bools, with_bits

Array = npt.NDArray[Any]

MASKED = 2**22  # booleans made into bits at a time


@dataclass(frozen=True)
class Bitmap:
    """A filter with one bit for each id.

    Parameters
    ----------
    bits : (bytes,) uint8, or (nq, bytes)
        Bit ``id % 8`` of byte ``id // 8`` says whether an id may be found; ids beyond the end may not. With two axes,
        one bitmap for each query.
    order : {"little", "big"}
        Whether bit 0 is the lowest of a byte, as in faiss and Arrow, or the highest, as in ``numpy.packbits``.

    Examples
    --------
    >>> import numpy as np
    >>> import nestvec as nv
    >>> index = nv.NestedIndex(2)
    >>> index.add([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
    >>> index.search([1.0, 0.0], 1, filter=nv.Bitmap(np.uint8([0b011])))[1].tolist()
    [[1]]
    """

    bits: Array
    order: Literal["little", "big"] = "little"

    def __post_init__(self) -> None:
        arrays.one_of(self.order, "order", ("little", "big"))
        bits = arrays.as_numpy(self.bits, "bits")
        if bits.dtype != np.uint8:
            raise TypeError(f"bits must be uint8, eight ids a byte, got {bits.dtype}")
        if bits.ndim not in (1, 2):
            raise ValueError(f"bits must be (bytes,), or (nq, bytes) for one bitmap a query, got shape {bits.shape}")
        object.__setattr__(self, "bits", bits)


def allowed_words(contents: Identified, given: Any, count: int, find: Callable[[Array], Array]) -> Array:
    """Bitmaps (m, room / 64) of the slots that each of `count` queries may find; m is 0 for all, 1 for one for all.

    Parameters
    ----------
    given
        What a user passed as ``filter``.
    find
        Slots of ids, -1 for those that are not there.

    Raises
    ------
    TypeError
        For what is no filter.
    ValueError
        For filters of another number than there are queries; for booleans of more than two axes.
    """
    alive = contents.tombstones.alive(contents.room)[None] if contents.tombstones else EVERY
    if given is None:
        return alive
    if count == 0:
        return EVERY
    if _is_list_of_filters(given):
        _refuse_count(len(given), count)
        every = np.full((1, contents.room // WORD), ~np.uint64(0))
        words = np.concatenate([every if one is None else _words(contents, one, 1, find) for one in given])
    else:
        words = _words(contents, given, count, find)
    if len(alive):
        for some in slices.steps(len(words), words.shape[1]):
            words[some] &= alive
    return words


def _is_list_of_filters(given: Any) -> bool:
    return isinstance(given, (list, tuple)) and any(
        one is None or isinstance(one, (Bitmap, range, slice, list, tuple)) or np.ndim(one) > 0 for one in given
    )


def _refuse_count(filters: int, count: int) -> None:
    if filters != count:
        raise ValueError(
            f"filter has one for each of {filters} queries, there are {count}; pass one a query, or one for all"
        )


def _words(contents: Identified, given: Any, count: int, find: Callable[[Array], Array]) -> Array:
    """Bitmaps (1 or count, room / 64) of one filter, or of an array with one for each query."""
    if isinstance(given, (range, slice)):
        return _of_masks(contents, 1, lambda run, _: _in_range(run, given)[None])
    if isinstance(given, Bitmap):
        return _of_bitmap(contents, given, count)
    if isinstance(given, (set, frozenset)):
        given = list(given)
    array = np.asarray(given) if not isinstance(given, np.ndarray) else given
    if array.dtype == bool:
        masks = np.atleast_2d(array)
        if array.ndim not in (1, 2):
            raise ValueError(f"a boolean filter must be (n,) or (nq, n), got shape {array.shape}")
        if array.ndim == 2:
            _refuse_count(len(masks), count)
        return _of_masks(contents, len(masks), lambda run, some: _looked_up(masks[some], run))
    if array.ndim > 1:
        raise ValueError(
            f"filter is an array of shape {array.shape} and type {array.dtype}; ids for each query are a list of 1-D "
            "arrays, masks are booleans, packed bits are passed as nestvec.Bitmap"
        )
    wanted = arrays.lookup(given)
    slots = find(wanted)
    return with_bits(np.zeros(contents.room // WORD, np.uint64), slots[slots >= 0], on=True)[None]


def _of_masks(contents: Identified, count: int, mask_of: Callable[[Run, slice], Array]) -> Array:
    """Bitmaps of masks, (`count`, n) for each run, some of them at a time."""
    some = slices.steps(count, contents.room, MASKED)
    return slices.joined([_of_some(contents, lambda run, some=one: mask_of(run, some)) for one in some])  # type: ignore[misc]


def _of_some(contents: Identified, mask_of: Callable[[Run], Array]) -> Array:
    parts, at = [], 0
    for run in contents.runs:
        masks = from_bools(mask_of(run))
        parts.append(np.zeros((len(masks), run.first // WORD - at), np.uint64))
        parts.append(masks)
        at = run.first // WORD + masks.shape[1]
    parts.append(np.zeros((len(parts[-1]) if parts else 1, contents.room // WORD - at), np.uint64))
    return np.concatenate(parts, axis=1)


def _of_bitmap(contents: Identified, given: Bitmap, count: int) -> Array:
    bits = np.atleast_2d(given.bits)
    if given.bits.ndim == 2:
        _refuse_count(len(bits), count)
    runs = contents.runs
    if given.order == "little" and len(runs) == 1 and not len(runs[0].ids) and runs[0].base == 0:
        words = np.zeros((len(bits), contents.room // WORD), np.uint64)
        used = min(bits.shape[1], -(-runs[0].n // 8))
        packed = words.view(np.uint8)
        packed[:, :used] = bits[:, :used]
        last = np.arange(runs[0].n, min(contents.room, used * 8))  # bits behind the last row mean nothing
        for row in words:
            with_bits(row, last, on=False)
        return words

    def masks(run: Run, some: slice) -> Array:
        return _looked_up(np.unpackbits(bits[some], axis=1, bitorder=given.order).view(bool), run)

    return _of_masks(contents, len(bits), masks)


def _looked_up(masks: Array, run: Run) -> Array:
    """Values of masks over ids (m, ids) for the rows of a run, (m, n); ids beyond the end are not in."""
    size = masks.shape[1]
    if not len(run.ids):
        some = masks[:, min(run.base, size) : run.base + run.n]
        return some if some.shape[1] == run.n else np.pad(some, ((0, 0), (0, run.n - some.shape[1])))
    if run.ids.dtype == object:
        raise TypeError(
            "ids of this index are strings, which masks and ranges cannot speak of; filter by a list of ids"
        )
    ids = run.ids[: run.n]
    known = ids < size
    return np.take(masks, np.where(known, ids, 0), axis=1) & known if size else np.zeros((len(masks), run.n), bool)


def _in_range(run: Run, given: range | slice) -> Array:
    """Whether the ids of a run are in a range, (n,)."""
    if isinstance(given, slice):
        given = range(*given.indices(2**63 - 1))
    if run.ids.dtype == object:
        raise TypeError(
            "ids of this index are strings, which masks and ranges cannot speak of; filter by a list of ids"
        )
    if not len(given):
        return np.zeros(run.n, bool)
    low, high = min(given[0], given[-1]), max(given[0], given[-1])
    ids = run.of(np.arange(run.n))
    inside = (ids >= low) & (ids <= high)
    return inside & ((ids - low) % abs(given.step) == 0) if abs(given.step) > 1 else inside


def words_of(words: Array, first: int, n: int) -> Array:
    """The part of bitmaps that is about `n` slots from `first` on, C-contiguous."""
    return np.ascontiguousarray(words[:, first // WORD : -(-(first + n) // WORD)])


def by_position(words: Array, count: int) -> Array | None:
    """Bitmaps over documents as booleans (m, count), None for all."""
    return to_bools(words, count) if len(words) else None
