"""Ways to search one corpus: exactly, by the Hamming distance of sign bits, and by plans that begin with signs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

import nestvec as nv

K = 10
PREFIX_BITS = (64, 128, 256)
SHORTLIST = 40
PLANS = {
    "float query, 256 bits": [nv.Stage("b1")],
    f"256 bits, rerank {SHORTLIST}": [nv.Stage("b1", keep=SHORTLIST), nv.Stage("raw")],
    f"128, 256 bits, rerank {SHORTLIST}": [
        nv.Stage("b1", dims=128, keep=100),
        nv.Stage("b1", keep=SHORTLIST),
        nv.Stage("raw"),
    ],
}

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
Search = Callable[[slice], Ids]
_Float = TypeVar("_Float", np.float32, np.float64)


@dataclass(frozen=True)
class Method:
    """A way to search: a slice of the queries in, ids of their K best rows out; bytes are per query."""

    name: str
    search: Search
    row_bytes: float  # of one row, where every row is looked at
    read_bytes: float  # of all stages


def by_index(
    name: str, index: nv.NestedIndex, queries: Floats, *, dims: int | None = None, plan: list[nv.Stage] | None = None
) -> Method:
    """Search float vectors on one thread, exactly or by a plan.

    Parameters
    ----------
    name : str
    index : NestedIndex
    queries : (nq, d) float32
    dims : int, optional
        Leading dims used; default all.
    plan : list of Stage, optional
        Default: exact search.

    Returns
    -------
    Method
        Its bytes are those that `NestedIndex.explain` counts.

    Examples
    --------
    >>> rows = np.eye(64, dtype=np.float32)
    >>> index = nv.NestedIndex(64)
    >>> index.add(rows)
    >>> by_index("exact", index, rows).search(slice(3, 5))[:, 0].tolist()
    [3, 4]
    """
    stages = index.explain(queries, K, plan, dims=dims).stages

    def search(some: slice) -> Ids:
        return index.search(queries[some], K, dims=dims, plan=plan, threads=1)[1]

    return Method(name, search, stages[0].nbytes / stages[0].rows, sum(stage.nbytes for stage in stages))


def by_hamming(index: nv.BinaryIndex, queries: Floats, bits: int) -> Method:
    """Search sign bits on one thread; the time to pack a query's bits is part of a search.

    Parameters
    ----------
    index : BinaryIndex
    queries : (nq, d) float32
    bits : int
        Leading bits compared.

    Returns
    -------
    Method
        Named after `bits`.

    Examples
    --------
    >>> index = nv.BinaryIndex(64)
    >>> index.add(np.eye(64, dtype=np.float32))
    >>> by_hamming(index, np.eye(64, dtype=np.float32), 16).row_bytes
    2.0
    """

    def search(some: slice) -> Ids:
        return index.search(queries[some], K, bits=bits, threads=1)[1]

    return Method(f"Hamming, {bits} bits", search, bits / 8, index.ntotal * bits / 8)


def by_signs(index: nv.NestedIndex, queries: Floats, rows: Floats) -> list[Method]:
    """Hamming distance at each prefix of the sign bits, then plans that begin with the same bits.

    Parameters
    ----------
    index : NestedIndex
        Cosine index of `rows`.
    queries, rows : (n, 256) float32

    Returns
    -------
    list of Method

    Examples
    --------
    >>> by_signs(index, queries, rows)  # doctest: +SKIP
    """
    unit_queries, unit_rows = unit(queries, np.float32), unit(rows, np.float32)
    codes = nv.BinaryIndex(PREFIX_BITS[-1], levels=PREFIX_BITS, thresholds=unit_rows.mean(axis=0))
    codes.add(unit_rows)
    return [
        *(by_hamming(codes, unit_queries, bits) for bits in PREFIX_BITS),
        *(by_index(name, index, queries, plan=plan) for name, plan in PLANS.items()),
    ]


def unit(vectors: Floats, dtype: type[_Float]) -> npt.NDArray[_Float]:
    """Scale vectors to length 1.

    Parameters
    ----------
    vectors : (n, d) float32
        None is zero.
    dtype : type
        Of the result, and of the sums.

    Returns
    -------
    (n, d) array

    Examples
    --------
    >>> unit(np.array([[0, 2]], np.float32), np.float64).tolist()
    [[0.0, 1.0]]
    """
    wide = vectors.astype(dtype)
    wide /= np.linalg.norm(wide, axis=1, keepdims=True)
    return wide
