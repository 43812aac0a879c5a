"""The same search by faiss, as a yardstick."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from ..binary import BinaryIndex
from ..index import NestedIndex
from .opening import Index

Array = npt.NDArray[Any]


def by_faiss(index: Index, k: int, leading: int | None, threads: int) -> tuple[str, Callable[[Any], Array]]:
    """Name of a faiss index over the same rows, and its search, which gives ids.

    Flat indexes are set to multiply matrices from one query on, which is their fastest way for batches.
    """
    try:
        faiss = import_module("faiss")
    except ImportError:
        raise click.UsageError("--compare needs faiss: pip install faiss-cpu") from None
    if isinstance(index, BinaryIndex):
        name, made, prepared = _binary(faiss, index, leading)
    elif isinstance(index, NestedIndex) and index.rows is not None:
        name, made, prepared = _flat(faiss, index, leading)
    else:
        raise click.UsageError("--compare needs an index with stored vectors or codes; faiss has no such search")
    ids = index.ids
    faiss.cvar.distance_compute_blas_threshold = 1
    faiss.omp_set_num_threads(threads)

    def search(asked: Any) -> Array:
        positions = made.search(prepared(asked), min(k, len(ids)))[1]
        return np.where(positions < 0, -1, ids[positions])

    return name, search


def _flat(faiss: Any, index: NestedIndex, leading: int | None) -> tuple[str, Any, Callable[[Array], Array]]:
    dims = leading or index.d

    transform = index.transform

    def stored(x: Array) -> Array:
        made = np.array(x[:, :dims], np.float32, order="C")
        if index.metric == "cosine":
            faiss.normalize_L2(made)
        return made

    name = "IndexFlatL2" if index.metric == "l2" else "IndexFlatIP"
    made = getattr(faiss, name)(dims)
    made.add(stored(index.reconstruct(index.ids)))

    def prepared(asked: Array) -> Array:
        return stored(asked if transform is None else transform.apply(asked))

    return f"faiss {name}", made, prepared


def _binary(faiss: Any, index: BinaryIndex, leading: int | None) -> tuple[str, Any, Callable[[Array], Array]]:
    bits = leading or index.bits
    if bits % 8:
        raise click.UsageError(f"--compare: faiss takes whole bytes, not {bits} bits")

    def prepared(codes: Array) -> Array:
        if codes.dtype != np.uint8:
            raise click.UsageError("--compare takes packed codes (uint8) for queries of a BinaryIndex")
        return np.ascontiguousarray(codes[:, : bits // 8])

    made = faiss.IndexBinaryFlat(bits)
    made.add(prepared(index.reconstruct(index.ids)))
    return "faiss IndexBinaryFlat", made, prepared
