"""What numpy does with arrays of any size, a slice of some milliseconds at a time: Ctrl-C is answered in between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .calls import check

Array = npt.NDArray[Any]

VALUES = 2**19  # copied or converted at a time
SORTED = 2**17  # sorted by two keys at a time


def steps(count: int, width: int = 1, most: int = VALUES) -> Iterator[slice]:
    """Slices of `count` rows of `width` values: at most `most` values each, but at least a row."""
    step = max(1, most // max(width, 1))
    for at in range(0, count, step):
        check()  # a helper's slices too
        yield slice(at, min(at + step, count))


def converted(array: Array, dtype: npt.DTypeLike) -> Array:
    """C-contiguous copy of a type; what does not fit becomes inf."""
    result = np.empty(array.shape, dtype)
    with np.errstate(all="ignore"):
        for some in steps(len(array), array[:1].size):
            result[some] = array[some]
    return result


def copy(source: Array, target: Array) -> None:
    """Copy rows to memory that may be new, a page for each of them: a quarter of a millisecond."""
    for some in steps(len(source), max(source.shape[1], VALUES // 16)):
        target[some] = source[some]


def joined(parts: Sequence[Array]) -> Array:
    """`np.concatenate`."""
    if len(parts) == 1:
        return parts[0]
    ends = np.cumsum([len(part) for part in parts])
    width = parts[0][:1].size
    if ends[-1] * width <= VALUES:
        return np.concatenate(parts)
    result = np.empty((ends[-1], *parts[0].shape[1:]), np.result_type(*{part.dtype for part in parts}))
    first = at = 0
    while first < len(parts):
        last = max(int(np.searchsorted(ends, at + VALUES // max(width, 1), "right")), first + 1)
        target = result[at : ends[last - 1]]
        if last > first + 1:
            np.concatenate(parts[first:last], out=target)
        else:
            for some in steps(len(target), width):
                target[some] = parts[first][some]
        first, at = last, int(ends[last - 1])
    return result


def distinct(values: Array) -> Array:
    """Values of a 1-D array, ascending, each once; `np.unique` takes five times as long."""
    ordered = np.sort(values)
    kept: Array = ordered[np.concatenate([np.ones(min(len(ordered), 1), bool), ordered[1:] != ordered[:-1]])]
    return kept


def best(parts: Sequence[tuple[Array, Array]], k: int, *, largest: bool = False) -> tuple[Array, Array]:
    """The `k` best in each row of lists (n, m) of values and ids, side by side: smallest first, ties by smaller id."""
    count, width = len(parts[0][0]), sum(values.shape[1] for values, _ in parts)
    if count * width <= SORTED:
        return _best(parts, k, largest)
    k = min(k, width)
    result = np.empty((count, k), parts[0][0].dtype), np.empty((count, k), np.int64)
    for some in steps(count, width, SORTED):
        result[0][some], result[1][some] = _best([(values[some], ids[some]) for values, ids in parts], k, largest)
    return result


def _best(parts: Sequence[tuple[Array, Array]], k: int, largest: bool) -> tuple[Array, Array]:
    values, ids = parts[0]
    if len(parts) > 1:
        values, ids = (np.concatenate([part[i] for part in parts], axis=1) for i in (0, 1))
    order = np.lexsort((ids, -values if largest else values), axis=1)[:, :k]
    row = np.arange(len(order))[:, None]
    return values[row, order], ids[row, order]
