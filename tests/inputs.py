"""Values, shapes and memory that kernels find awkward."""

from __future__ import annotations

import ctypes
import functools
import mmap
import sys
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np

DIMS = (1, 7, 15, 16, 17, 63, 64, 65, 100, 768, 1000)
COUNTS = (0, 1, 15, 16, 17, 63, 64, 65, 1000)
SHAPES = [*((65, d) for d in DIMS), *((n, 100) for n in COUNTS if n != 65)]
METRICS = ("ip", "l2", "cosine")
LARGEST = {"f32": 3.4e38, "f16": 65504.0, "bf16": 3.38e38}

Values = Callable[[np.random.Generator, int, int], np.ndarray]


def _normal(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    return rng.standard_normal((n, d))


def _wide(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    return rng.choice([-1, 1], (n, d)) * 10 ** rng.uniform(-45, 38.47, (n, d))


def _wide_rows(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    return rng.standard_normal((n, d)) * 10 ** rng.uniform(-44, 37, (n, 1))


def _denormal(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    return rng.integers(-200, 201, (n, d)) * 2.0**-149


def _underflowing(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Values whose squares are denormal."""
    return rng.standard_normal((n, d)) * 10 ** rng.uniform(-24, -19, (n, 1))


def _huge(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    return rng.uniform(-3.4e38, 3.4e38, (n, d))


def _one_hot(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    return np.eye(d)[rng.integers(0, d, n)] * 10 ** rng.uniform(-3, 3, (n, 1))


def _outliers(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    x = rng.standard_normal((n, d))
    x[np.arange(n), rng.integers(0, d, n)] *= 10 ** rng.uniform(2, 30, n)
    return x


def _tiny_prefix(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """The first half of the dims is far smaller than what follows, down to zero."""
    x = rng.standard_normal((n, d))
    x[:, : (d + 1) // 2] *= rng.choice([0, 1e-40, 1e-33, 1e-20, 1e-4], (n, 1))
    return x


def _ties(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    return rng.integers(-1, 2, (n, d))


def _duplicates(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    return rng.standard_normal((3, d))[rng.integers(0, 3, n)] * rng.choice([0, 1], (n, 1))


KINDS: dict[str, Values] = {
    "normal": _normal,
    "wide": _wide,
    "wide rows": _wide_rows,
    "denormal": _denormal,
    "underflowing": _underflowing,
    "huge": _huge,
    "one-hot": _one_hot,
    "outliers": _outliers,
    "tiny prefix": _tiny_prefix,
    "ties": _ties,
    "duplicates": _duplicates,
}


def values(rng: np.random.Generator, kind: str, n: int, d: int, suffix: str = "f32") -> np.ndarray:
    """Finite (n, d) float32 rows, exactly representable in the row type."""
    x = np.clip(KINDS[kind](rng, n, d), -LARGEST[suffix], LARGEST[suffix]).astype(np.float32)
    if suffix == "f16":
        return x.astype(np.float16).astype(np.float32)
    return x.astype(ml_dtypes.bfloat16).astype(np.float32) if suffix == "bf16" else x


def stored(x: np.ndarray, suffix: str) -> np.ndarray:
    """Rows as kernels read them: float32, or the bits of a half type."""
    if suffix == "f32":
        return x
    return x.astype(np.float16 if suffix == "f16" else ml_dtypes.bfloat16).view(np.uint16)


def orthogonal(rng: np.random.Generator, d: int) -> np.ndarray:
    """A product of some random reflections, (d, d) float32."""
    result = np.eye(d)
    for _ in range(8):
        axis = rng.standard_normal(d)
        result -= np.outer(result @ axis, axis * (2 / (axis @ axis)))
    return result.astype(np.float32)


def levels_of(rng: np.random.Generator, d: int) -> np.ndarray:
    """One to four level ends, the last one d."""
    below = rng.choice(np.arange(1, d), min(int(rng.integers(0, 4)), d - 1), replace=False) if d > 1 else []
    return np.append(np.sort(np.asarray(below, np.int64)), d).astype(np.int64)


def level_widths(bounds: np.ndarray, multiple: int) -> np.ndarray:
    """Dims of each level rounded up: to 4 for the codes of rows, to 64 for those of queries."""
    return -(-np.diff(bounds, prepend=0) // multiple) * multiple


@functools.cache
def _mprotect() -> Any:
    function = ctypes.CDLL(None, use_errno=True).mprotect
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return function


def guarded(array: np.ndarray) -> np.ndarray:
    """A copy that ends where a page without access begins (on Linux): one byte read past it is a crash."""
    if not sys.platform.startswith("linux") or array.size == 0:
        return array.copy()
    if array.ndim == 2 and not array.flags.c_contiguous:
        return _guarded_rows(array)
    size = -(-array.nbytes // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, size + mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    if _mprotect()(address + size, mmap.PAGESIZE, 0):
        raise OSError(ctypes.get_errno(), "mprotect")
    copy = np.frombuffer(memory, array.dtype, array.size, size - array.nbytes).reshape(array.shape)
    copy[:] = array
    return copy


def _guarded_rows(rows: np.ndarray) -> np.ndarray:
    """The same for rows further apart than they are long; negative strides count from the last row."""
    if rows.strides[0] < 0:
        return _guarded_rows(rows[::-1])[::-1]
    apart = max(rows.strides[0] // rows.itemsize, rows.shape[1])
    memory = guarded(np.zeros((len(rows) - 1) * apart + rows.shape[1], rows.dtype))
    copy = np.lib.stride_tricks.as_strided(memory, rows.shape, (apart * rows.itemsize, rows.itemsize))
    copy[:] = rows
    return copy
