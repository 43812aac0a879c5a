"""Arguments of the kernels over bags of tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from inputs import values
from nestvec import FixedDimensionalEncoder

Arguments = dict[str, Any]


def _offsets(rng: np.random.Generator, n: int, empty: bool) -> np.ndarray:
    """Bags of `n` tokens, a few at either end in none; some of them without tokens if `empty`."""
    inner = rng.choice(n + 1, min(int(rng.integers(2, 20)), n + 1), replace=False)
    if empty and n:
        inner = np.concatenate([inner, inner[: len(inner) // 3]])
    return np.sort(inner).astype(np.int64)


def _simhash(rng: np.random.Generator, n: int, d: int, kind: str) -> Arguments:
    repetitions, k = int(rng.choice([1, 3, 16, 17, 20])), int(rng.choice([0, 1, 2, 5, 7]))
    if n * d <= 2000:  # a plain Python loop
        repetitions = min(repetitions, 3)
    tables = FixedDimensionalEncoder(d, num_repetitions=repetitions, num_simhash_projections=k)._tables
    return {
        "x": values(rng, kind, n, d),
        "gaussians": tables.gaussians,
        "panels": tables.panels,
        "reach": tables.reach,
        "k": k,
        "partitions": np.empty((n, repetitions), np.uint32),
    }


def _encode_bags(rng: np.random.Generator, n: int, d: int, kind: str) -> Arguments:
    k, repetitions = int(rng.integers(0, 5)), int(rng.integers(1, 4))
    fill = bool(rng.random() < 0.5)
    encoder = FixedDimensionalEncoder(
        d,
        num_repetitions=repetitions,
        num_simhash_projections=k,
        projection_dim=rng.choice([None, 1, 5, 16, 33]),
        final_projection_dim=rng.choice([None, 1, 64]),
    )
    offsets = _offsets(rng, n, not fill)
    partitions = rng.integers(0, 1 << k, (n, repetitions), dtype=np.uint32)
    return {
        "x": values(rng, kind, n, d),
        "offsets": offsets,
        "partitions": partitions & rng.integers(0, 1 << k, dtype=np.uint32),
        "ams": encoder._tables.ams,
        "final": encoder._tables.final,
        "k": k,
        "average": bool(rng.random() < 0.7),
        "fill": fill,
        "scratch": np.full(encoder._scratch_size(fill), np.nan, np.float32),
        "out": np.full((len(offsets) - 1, encoder.fde_dim), np.nan, np.float32),
    }


TOKENS: dict[str, Callable[..., Arguments]] = {"simhash": _simhash, "encode_bags": _encode_bags}
