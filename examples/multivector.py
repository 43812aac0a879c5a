"""Rank documents of many token vectors by MaxSim: exactly, or within a shortlist by fixed dimensional encodings."""

from __future__ import annotations

import numpy as np

import nestvec as nv

rng = np.random.default_rng(0)
words = rng.standard_normal((200, 6, 128), dtype=np.float32)  # each theme has six of them


def bags(themes: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Tokens, words of a theme with noise, and where each bag of them begins."""
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = words[np.repeat(themes, lengths), rng.integers(6, size=offsets[-1])]
    tokens += 0.5 * rng.standard_normal(tokens.shape, dtype=np.float32)
    return tokens / np.linalg.norm(tokens, axis=1, keepdims=True), offsets


docs = bags(rng.integers(200, size=2000), rng.integers(10, 80, 2000))
queries = bags(rng.integers(200, size=50), rng.integers(6, 16, 50))

index = nv.MultiVectorIndex(nv.FixedDimensionalEncoder.fitted(docs))
index.add(docs, ids=[f"doc-{i}" for i in range(2000)])
scores, exact = index.search(queries, 10, exact=True)
print(f"{index.memory_usage() / 1e6:.0f} MB; best of the first query: {exact[0, :3].tolist()}")

for candidates in (10, 20, 50):
    _, found = index.search(queries, 10, candidates=candidates)
    recall = np.mean([np.isin(a, b).mean() for a, b in zip(exact, found, strict=True)])
    print(f"{candidates} candidates: {recall:.0%} of the exact top 10")

first = queries[0][: queries[1][1]]
print(f"carved at .7, the first query has {len(nv.carve(first, 0.7))} tokens instead of {len(first)}")
