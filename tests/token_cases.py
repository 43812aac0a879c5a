"""Arguments of the kernels over bags of tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from inputs import values
from nestvec import FixedDimensionalEncoder, draws
from nestvec.planes import padded

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
    sliced = encoder.projection_dim is not None and rng.random() < 0.3
    dims = repetitions * encoder._width + int(rng.integers(0, 3)) if sliced else d
    partitions = rng.integers(0, 1 << k, (n, repetitions), dtype=np.uint32)
    return {
        "x": values(rng, kind, n, dims),
        "offsets": offsets,
        "partitions": partitions & rng.integers(0, 1 << k, dtype=np.uint32),
        "ams": encoder._tables.ams[: 0 if sliced else repetitions],
        "final": encoder._tables.final,
        "k": k,
        "mode": int(rng.integers(0, 3)),
        "fill": fill,
        "scratch": np.full(encoder._scratch_size(fill), np.nan, np.float32),
        "out": np.full((len(offsets) - 1, encoder.fde_dim), np.nan, np.float32),
    }


def _project_tokens(rng: np.random.Generator, n: int, d: int, kind: str) -> Arguments:
    panels = int(rng.choice([0, 1, 2, 3, 5])) if n * d > 2000 else 1
    columns = values(rng, kind if rng.random() < 0.5 else "normal", 16 * panels, d).reshape(panels, d, 16)
    return {"x": values(rng, kind, n, d), "panels": columns, "out": np.full((n, 16 * panels), np.nan, np.float32)}


def _encode_probes(rng: np.random.Generator, n: int, d: int, kind: str) -> Arguments:
    """Products with planes from far away to so near that a token has many probes."""
    k, repetitions, width = (int(rng.choice(some)) for some in ([0, 1, 3, 5, 9], [1, 2, 17], [1, 5, 16, 20]))
    wide, size = padded(repetitions * width, 16), repetitions * width << k
    products = rng.standard_normal((n, padded(repetitions * k, 16))) * 10 ** rng.uniform(-2, 1, (n, 1))
    products[rng.random(products.shape) < 0.01] = rng.choice([np.inf, -np.inf, np.nan, 1e30])
    offsets = _offsets(rng, n, True)
    final = draws.sketch(1, size, 33) if rng.random() < 0.3 else np.empty(0, np.int32)
    return {
        "x": values(rng, kind, n, d),
        "projected": np.concatenate([values(rng, kind, n, wide), products.astype(np.float32)], axis=1),
        "offsets": offsets,
        "shift": values(rng, "normal", 1, wide)[0],
        "final": final,
        "repetitions": repetitions,
        "k": k,
        "scratch": np.full(len(final), np.nan, np.float32),
        "out": np.full((len(offsets) - 1, 33 if len(final) else size), np.nan, np.float32),
    }


TOKENS: dict[str, Callable[..., Arguments]] = {
    "simhash": _simhash,
    "encode_bags": _encode_bags,
    "project_tokens": _project_tokens,
    "encode_probes": _encode_probes,
}
