"""Indexes and queries that belong together."""

from __future__ import annotations

from typing import Any

import click
import numpy as np
import numpy.typing as npt

from ..arrays import vectors as checked
from ..binary import BinaryIndex
from ..files import load
from ..index import NestedIndex
from ..multivector import QUERY_TOKENS, MultiVectorIndex
from . import inputs
from .progress import Bar

Array = npt.NDArray[Any]
Index = NestedIndex | BinaryIndex | MultiVectorIndex
Queries = Array | list[Array]  # vectors or codes (n, ...), or bags; both have a length, and slices


def opened(path: str, bar: Bar, quick: bool) -> Index:
    """The index in a file, mapped, with something in it."""
    bar(0, 0, "opening")
    index = load(path, mmap=True, verify="header" if quick else "full")
    if index.ntotal == 0:
        raise click.UsageError(f"{path} is an empty index; there is nothing to search")
    return index


def queries(index: Index, name: str, key: str | None) -> Queries:
    """Queries of the kind that an index searches, from a file or stdin."""
    data = inputs.source(name)
    if isinstance(index, MultiVectorIndex):
        return [checked(bag, data.label, index.encoder.dim) for bag in inputs.bags(data, key, "queries")]
    found = inputs.vectors(data, key, "queries")
    return _codes(found, index.bits) if isinstance(index, BinaryIndex) and data.lines is not None else found


def sampled(index: Index, count: int, seed: int) -> tuple[Array, Queries]:
    """Ids of some rows, and these as queries."""
    if isinstance(index, NestedIndex) and index.rows is None:
        raise click.UsageError("this index keeps no rows to take for queries; give some by --queries")
    if isinstance(index, NestedIndex) and index.transform is not None and not index.transform.orthogonal:
        raise click.UsageError("this index keeps rows after a transform that cannot be undone; give some by --queries")
    rng = np.random.default_rng(seed)
    ids = rng.choice(index.ids, min(count, index.ntotal), replace=False)
    if not isinstance(index, MultiVectorIndex):
        rows = index.reconstruct(ids)
        transform = index.transform if isinstance(index, NestedIndex) else None
        return ids, rows if transform is None else transform.undo(rows)
    bags = [bag[:QUERY_TOKENS] for bag in index.reconstruct(ids)]
    full = [len(bag) > 0 for bag in bags]
    return ids[full], [bag for bag in bags if len(bag)]


def _codes(found: Array, bits: int) -> Array:
    """Numbers of a text as packed codes, where they are bytes and as many as a code has."""
    width = -(-bits // 8)
    if found.shape[1] == width != bits and (found == np.clip(np.rint(found), 0, 255)).all():
        return found.astype(np.uint8)
    return found
