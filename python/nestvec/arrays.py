"""Every check of an argument, done once before a backend is chosen, so that errors are the same on all of them."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from itertools import pairwise
from numbers import Real
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import backends, slices

Array = npt.NDArray[Any]

METRICS = {"ip": 0, "l2": 1, "cosine": 2}
ROW_TYPES = ("float32", "float16", "bfloat16")
INFINITE = {"float16": 0x7C00, "bfloat16": 0x7F80}  # bits
MAX_DIMS = 65_536  # squared norms of codes and their sums then stay far inside 32 bits
MAX_LEVELS = 32
MAX_K = 2**31 - 1
MAX_ROWS = 2**31 - 64  # rows of one segment are numbered in 32 bits


def vectors(x: Any, name: str, dims: int | None = None, *, single: bool = False) -> Array:
    """`x` as a 2-D numpy array of a type that `to_float32` takes; no copy is made.

    Raises
    ------
    TypeError
        For objects, complex numbers, booleans, text, or a tensor that is not in this machine's memory.
    ValueError
        Unless `x` is ``(n, dims)`` with at least one dim (or ``(dims,)``, taken as one row, if `single`).
    """
    array = as_numpy(x, name)
    if single and array.ndim == 1:
        array = array[None, :]
    if array.ndim != 2:
        raise ValueError(f"{name} must be a 2-D array (n, d), got {array.ndim} dimension(s) of shape {array.shape}")
    if not (array.dtype.kind in "fiu" or array.dtype.name == "bfloat16"):
        raise TypeError(
            f"{name} has dtype {array.dtype}; floating point or integer values are needed (float32, float16, bfloat16, "
            "float64 or any integer type), convert them first"
        )
    if array.shape[1] == 0 and dims is None:
        raise ValueError(f"{name} has shape {array.shape}: vectors need at least one dim")
    if dims is not None and array.shape[1] != dims:
        raise ValueError(f"{name} has {array.shape[1]} dims, {dims} are needed")
    return array


def to_float32(array: Array, name: str, first_row: int = 0) -> Array:
    """Rows as C-contiguous, aligned, native float32; the array itself where it is that already.

    Raises
    ------
    ValueError
        For NaN and Inf, and for values beyond float32, naming row (counted from `first_row`) and column.
    """
    if array.size <= slices.VALUES:
        result = _native_float32(array)
        _check_finite(result, array, name, first_row)
        return result
    result = array if _is_float32(array) else np.empty(array.shape, np.float32)
    for some in slices.steps(len(array), array.shape[1]):
        if result is not array:
            result[some] = _native_float32(array[some])
        _check_finite(result[some], array[some], name, first_row + some.start)
    return result


def _native_float32(array: Array) -> Array:
    if _is_float32(array):
        return array
    if array.dtype.kind not in "fiu" and array.dtype.name == "bfloat16":
        bits = np.require(array, array.dtype.newbyteorder("="), ["C", "A"]).view(np.uint16)
        result = np.empty(array.shape, np.float32)
        backends.current().widen_bf16(bits.ravel(), result.ravel())
        return result
    with np.errstate(all="ignore"):
        return np.require(array, np.float32, ["C", "A"])


def _is_float32(array: Array) -> bool:
    return bool(array.dtype == np.float32 and array.flags.c_contiguous and array.flags.aligned)


def _check_finite(result: Array, source: Array, name: str, first_row: int) -> None:
    at = backends.current().first_nonfinite(result.reshape(-1))
    if at < 0:
        return
    row, column = divmod(int(at), result.shape[1])
    value = source[row, column]
    where = f"row {first_row + row}, column {column}"
    if np.isfinite(np.longdouble(value)):
        raise ValueError(f"{name} holds {value} at {where}, beyond the range of float32; rescale the vectors")
    raise ValueError(f"{name} holds {result[row, column]} at {where}; only finite values can be searched")


class Ragged(NamedTuple):
    """Bags of vectors, as documents are of tokens: bag i is ``tokens[offsets[i] : offsets[i + 1]]``."""

    tokens: Array  # (N, d), of a type that `to_float32` takes
    offsets: Array  # (n + 1,) int64, from 0 to N

    def __len__(self) -> int:
        return len(self.offsets) - 1


def ragged(x: Any, name: str, dims: int | None = None, offsets: Any = None) -> Ragged:
    """Bags of vectors from any of their forms; no copy is made unless they come as a list.

    Parameters
    ----------
    x
        ``(tokens, offsets)``; tokens ``(N, d)`` with `offsets` apart; a list of ``(n_i, d)`` arrays; an array
        ``(n, length, d)``; or ``(N, d)`` alone, one bag.
    dims : int, optional
        What d must be.

    Raises
    ------
    TypeError
        As `vectors`, and for offsets that are no integers.
    ValueError
        For other shapes, and for offsets that do not ascend from 0 to N.
    """
    if offsets is None and isinstance(x, tuple) and len(x) == 2 and np.ndim(x[0]) == 2 and np.ndim(x[1]) == 1:
        x, offsets = x
    if offsets is None and isinstance(x, (list, tuple)):
        return _joined(x, name, dims)
    array = as_numpy(x, name)
    if array.ndim == 3 and offsets is None:
        offsets = np.arange(len(array) + 1) * array.shape[1]
        array = array.reshape(len(array) * array.shape[1], array.shape[2])
    tokens = vectors(array, name, dims)
    return Ragged(tokens, _bag_offsets([0, len(tokens)] if offsets is None else offsets, name, len(tokens)))


def _joined(bags: Sequence[Any], name: str, dims: int | None) -> Ragged:
    arrays = []
    for i, bag in enumerate(bags):
        try:
            arrays.append(vectors(bag, f"{name}[{i}]", dims))
        except ValueError as error:
            raise ValueError(f"{error}; {name} is a list of (n_i, d) arrays, or (tokens, offsets)") from None
        dims = arrays[-1].shape[1]
    if not arrays:
        return Ragged(np.empty((0, dims or 1), np.float32), np.zeros(1, np.int64))
    return Ragged(slices.joined(arrays), np.cumsum([0, *map(len, arrays)], dtype=np.int64))


def _bag_offsets(offsets: Any, name: str, count: int) -> Array:
    given = as_numpy(offsets, f"offsets of {name}")
    if given.dtype.kind not in "iu" or given.ndim != 1:
        raise TypeError(f"offsets of {name} must be 1-D integers, got {given.ndim}-D {given.dtype}")
    result = given.astype(np.int64)
    if len(result) == 0 or result[0] != 0 or result[-1] != count or (result[1:] < result[:-1]).any():
        ends = f"{result[0]} to {result[-1]}" if len(result) else "nothing"
        raise ValueError(
            f"offsets of {name} must ascend from 0 to {count}, the number of its tokens (offsets[i] is where bag i "
            f"begins); got {len(result)} of them, from {ends}"
        )
    return result


def as_numpy(x: Any, name: str) -> Array:
    """`x` as a numpy array of any type and shape; no copy is made where none is needed."""
    if isinstance(x, np.ma.MaskedArray) and np.ma.is_masked(x):
        raise TypeError(f"{name} is a masked array; fill or drop its masked values first")
    if isinstance(x, np.ndarray):
        return np.asarray(x)
    if hasattr(x, "__dlpack__") and hasattr(x, "detach"):  # a torch tensor: numpy would not know its bfloat16
        x = x.detach().resolve_neg()
        x = x.float() if "bfloat16" in str(x.dtype) else x
    if hasattr(x, "__dlpack__"):
        try:
            return np.from_dlpack(x)
        except (BufferError, RuntimeError, TypeError) as error:
            device = getattr(x, "device", "an unknown device")
            if str(device) != "cpu" and not hasattr(x, "__array__"):
                raise TypeError(f"{name} lives on {device}; move it to the CPU first") from error
    try:
        return np.asarray(x)
    except ValueError as error:
        raise ValueError(f"{name} is not a rectangular array: {error}") from None
    except TypeError as error:
        raise TypeError(f"{name} cannot be read as an array: {error}") from None


def integer(value: Any, name: str, low: int, high: int | None = None) -> int:
    """`value` as an int within [`low`, `high`]; TypeError for what is no integer, ValueError for one out of range."""
    try:
        result = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if result < low or (high is not None and result > high):
        wanted = f"at least {low}" if high is None else f"between {low} and {high}"
        raise ValueError(f"{name} must be {wanted}, got {result}")
    return result


def seconds(value: Any, name: str) -> float:
    """`value` as a float above 0; TypeError for what is no real number, ValueError for one that is not in reach."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{name} must be a number of seconds, got {value!r}")
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not 0 < result < math.inf:
        raise ValueError(f"{name} must be a finite number of seconds above 0, got {value!r}")
    return result


def number(value: Any, name: str) -> float:
    """`value` as a float that is not NaN."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (Real, np.number)):
        raise TypeError(f"{name} must be a number, got {value!r}")
    result = float(value)
    if result != result:
        raise ValueError(f"{name} must be a number, got {value!r}")
    return result


def share(value: Any, name: str, low: float, high: float) -> float:
    """`value` as a float above `low` and at most `high`."""
    result = number(value, name)
    if not low < result <= high:
        raise ValueError(f"{name} must be above {low:g} and at most {high:g}, got {value!r}")
    return result


def result_count(k: Any) -> int:
    """`k` as an int of at least 1."""
    count = integer(k, "k", 1)
    if count > MAX_K:
        raise ValueError(f"k must be at most {MAX_K}, got {count}")
    return count


def one_of(value: Any, name: str, choices: Sequence[str]) -> str:
    """`value` if it is one of `choices`, else a ValueError that lists them."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def level_bounds(levels: Any, d: int, smallest: int = 64) -> Array:
    """Ends of the nesting levels, ascending, the last one d.

    By default `smallest`, twice that, four times that, ... below d, and d.
    """
    if levels is None:
        chosen = [bound for bound in (smallest << i for i in range(11)) if bound < d]
    else:
        try:
            given = list(levels)
        except TypeError:
            raise TypeError(f"levels must be a sequence of integers, got {levels!r}") from None
        chosen = [integer(level, "a level", 1, d) for level in given]
        if any(a >= b for a, b in pairwise(chosen)):
            raise ValueError(f"levels must be strictly ascending, got {tuple(chosen)}")
    if not chosen or chosen[-1] != d:
        chosen.append(d)
    if len(chosen) > MAX_LEVELS:
        raise ValueError(f"at most {MAX_LEVELS} levels can be kept, got {len(chosen)}")
    return np.asarray(chosen, np.int64)


def int64_ids(ids: Any, count: int) -> Array:
    """`ids` as ``(count,)`` int64, unique; TypeError unless integers, ValueError for a wrong count or repeats."""
    try:
        array = np.asarray(ids)
    except ValueError as error:
        raise ValueError(f"ids must be a 1-D array with one id per row: {error}") from None
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"ids must be integers, got dtype {array.dtype}")
    if array.shape != (count,):
        raise ValueError(f"ids must be a 1-D array with one id per row, {count}, got shape {array.shape}")
    if array.dtype.kind == "u" and count and int(array.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"id {array.max()} does not fit int64")
    result = array.astype(np.int64)
    if count and int(result.min()) < 0:
        raise ValueError(f"ids must not be negative (-1 marks a missing result), got {result.min()}")
    if (result[1:] <= result[:-1]).any():
        ordered = np.sort(result)
        repeated = ordered[1:][ordered[1:] == ordered[:-1]]
        if len(repeated):
            times = np.count_nonzero(result == repeated[0])
            raise ValueError(f"id {repeated[0]} is given {times} times; ids must be unique")
    return result


def lookup(ids: Any) -> Array:
    """Ids to look up as a 1-D array, of integers, or of objects where some are strings; TypeError for others."""
    if isinstance(ids, str):
        ids = [ids]
    listed = ids if isinstance(ids, (np.ndarray, list, tuple, range)) else np.asarray(ids)
    if not isinstance(listed, np.ndarray) and any(isinstance(one, str) for one in listed):
        result = np.empty(len(listed), object)
        result[:] = listed
        return result
    array = np.asarray(listed)
    if array.dtype.kind in "OU" and all(isinstance(one, str) for one in array.reshape(-1).tolist()):
        return array.reshape(-1).astype(object)
    return known_ids(array).reshape(-1)


def known_ids(ids: Any) -> Array:
    """Ids to look up, of any shape; TypeError unless integers."""
    array = np.asarray(ids)
    if array.dtype.kind not in "iu" and array.size:
        raise TypeError(f"ids must be integers, got dtype {array.dtype}")
    return array


def queries(q: Any, d: int, dims: int) -> Array:
    """Queries as ``(nq, dims)`` float32, checked; a single vector is one query."""
    return to_float32(query_vectors(q, d, dims)[:, :dims], "q")


def query_vectors(q: Any, d: int, dims: int) -> Array:
    """Queries ``(nq, dims)`` or ``(nq, d)`` as they are given, checked but for their values."""
    array = vectors(q, "q", single=True)
    if array.shape[1] not in (d, dims):
        wanted = f"{d}" if dims == d else f"{d} (or the {dims} searched)"
        raise ValueError(f"q has {array.shape[1]} dims, the rows have {wanted}")
    return array


def codes(x: Any, name: str, bits: int | None = None, *, single: bool = False) -> Array:
    """Packed codes as C-contiguous ``(n, ceil(bits / 8))`` uint8; without `bits`, of any width.

    Raises
    ------
    TypeError
        Unless uint8.
    ValueError
        For another width, or a one bit beyond the code's end, naming its row.
    """
    array = as_numpy(x, name)
    if array.dtype != np.uint8:
        hint = "; as_ubinary converts signed codes" if array.dtype == np.int8 else "; pack_bits makes codes of floats"
        raise TypeError(f"{name} has dtype {array.dtype}, packed codes are uint8{hint}")
    if single and array.ndim == 1:
        array = array[None, :]
    if array.ndim != 2:
        raise ValueError(f"{name} must be a 2-D array (n, bytes), got {array.ndim} dimension(s) of shape {array.shape}")
    if array.shape[1] == 0:
        raise ValueError(f"{name} has shape {array.shape}: codes need at least one byte")
    if array.shape[1] > MAX_DIMS // 8:
        raise ValueError(f"{name} has {array.shape[1] * 8} bits; codes have at most {MAX_DIMS}")
    if bits is not None:
        if array.shape[1] != -(-bits // 8):
            raise ValueError(
                f"{name} has codes of {array.shape[1] * 8} bits, {bits} are needed ({-(-bits // 8)} bytes)"
            )
        for some in slices.steps(len(array), 64):  # one byte of a cache line
            beyond = array[some, -1] & (0xFF >> (bits % 8 or 8))
            if beyond.any():
                row = some.start + int(np.flatnonzero(beyond)[0])
                raise ValueError(
                    f"{name} has a one bit beyond bit {bits} in row {row}; codes of {bits} bits end in zeros"
                )
    return array if array.flags.c_contiguous else slices.converted(array, np.uint8)


def signs(x: Any, name: str, d: int | None = None, *, single: bool = False, first_row: int = 0) -> Array:
    """Vectors as C-contiguous float32, or float64 where float32 could change a sign; finite."""
    array = vectors(x, name, d, single=single)
    if array.dtype.kind in "iu" or (array.dtype.kind == "f" and array.dtype.itemsize >= 8):
        wide = np.require(array, np.float64, ["C", "A"])
        if not np.isfinite(wide).all():
            row, column = (int(at[0]) for at in np.nonzero(~np.isfinite(wide)))
            where = f"row {first_row + row}, column {column}"
            raise ValueError(f"{name} holds {wide[row, column]} at {where}; only finite values can be packed")
        return wide
    return to_float32(array, name, first_row)


def thresholds(value: Any, d: int) -> Array:
    """What each dim is compared with, ``(d,)`` float32 or float64; None is 0, one number is for all dims."""
    if value is None:
        return np.zeros(d, np.float32)
    array = as_numpy(value, "thresholds")
    if array.ndim == 0:
        array = np.full(d, array)
    if array.shape != (d,):
        raise ValueError(f"thresholds must be one number or ({d},), one for each dim, got shape {array.shape}")
    row: Array = signs(array, "thresholds", d, single=True)[0]
    return row


def readable_rows(array: Array) -> tuple[Array, str]:
    """Checked rows as kernels read them, in place where they can, and the type they then have."""
    if array.dtype.name not in ROW_TYPES or not _in_place(array):
        return to_float32(array, "x"), "float32"
    for some in slices.steps(len(array), array.shape[1]):
        to_float32(array[some], "x", some.start)
    return (array if array.dtype == np.float32 else array.view(np.uint16)), array.dtype.name


def readable_tokens(array: Array, name: str) -> tuple[Array, str]:
    """Tokens as MaxSim kernels read them, in place where they can, and the type they then have.

    Whether they are finite is checked only of those that are converted: the kernels see the others.
    """
    if array.dtype.name not in (*ROW_TYPES, "int8") or not _in_place(array):
        return to_float32(array, name), "float32"
    return (array.view(np.uint16) if array.dtype.itemsize == 2 else array), array.dtype.name


def _in_place(array: Array) -> bool:
    """Whether kernels can read the rows where they are."""
    apart, between = array.strides
    return bool(
        array.dtype.isnative and array.flags.aligned and between == array.itemsize and apart % array.itemsize == 0
    )


def token_scales(scales: Any, count: int) -> Array:
    """What each token is multiplied by, ``(count,)`` float32; None is nothing."""
    if scales is None:
        return np.empty(0, np.float32)
    array = as_numpy(scales, "scales")
    if array.shape != (count,):
        raise ValueError(f"scales must be ({count},), one for each token, got shape {array.shape}")
    column: Array = to_float32(vectors(array[:, None], "scales"), "scales")[:, 0]
    return column


def bag_queries(q: Any, name: str, dims: int | None) -> tuple[Array, Array]:
    """Query tokens ``(m, dims)`` float32 and offsets ``(nq + 1,)``; a 2-D array is one query, none may be empty."""
    bags = ragged(q, name, dims)
    refuse_empty_queries(bags.offsets)
    return to_float32(bags.tokens, name), bags.offsets


def refuse_empty_queries(offsets: Array) -> None:
    """ValueError for a bag without tokens."""
    if len(empty := np.flatnonzero(np.diff(offsets) == 0)):
        raise ValueError(f"query {empty[0]} has no tokens; each query needs at least one")


def refuse_overflow(
    bits: Array, source: Array, row_type: str, first_row: int, name: str = "x", wider: str = 'rows="float32"'
) -> None:
    """ValueError if a finite value became Inf in a half type, given as bits; `wider` is the argument that helps."""
    infinite = (bits & 0x7FFF) == INFINITE[row_type]
    if infinite.any():
        row, column = divmod(int(infinite.argmax()), bits.shape[1])
        raise ValueError(
            f"{name} holds {source[row, column]} at row {first_row + row}, column {column}, beyond the range of "
            f"{row_type}; rescale the vectors or use {wider}"
        )
