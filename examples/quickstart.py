"""Index vectors once, search them at several depths, and compare each depth with the full width."""

from __future__ import annotations

import numpy as np

import nestvec as nv

rng = np.random.default_rng(0)
importance = np.arange(1, 257) ** -0.5  # leading dims carry more, as Matryoshka training makes them
x = (rng.standard_normal((20_000, 256)) * importance).astype(np.float32)
queries = x[:100] + 0.1 * (rng.standard_normal((100, 256)) * importance).astype(np.float32)

index = nv.NestedIndex(256, levels=(32, 64, 128), metric="cosine", rows="float16")
index.add(x)
print(f"{index.ntotal} vectors in {index.memory_usage() / 1e6:.1f} MB, backend {nv.show_config()['backend']}")

_, exact = index.search(queries, k=10)
for dims in index.levels:
    _, found = index.search(queries, k=10, dims=dims)
    overlap = np.mean([len(set(a) & set(b)) for a, b in zip(found.tolist(), exact.tolist(), strict=True)]) / 10
    print(f"first {dims:3d} dims: {overlap:.0%} of the full top 10")
