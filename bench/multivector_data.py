"""Data sets of texts with many vectors each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from corpora import debian_texts
from encoders import embed_colbert, unit_rows


@dataclass(frozen=True)
class MultiVectors:
    """Texts of many vectors: document i has the rows docs[doc_offsets[i] : doc_offsets[i + 1]], and queries likewise.

    docs (N, d) and queries (Nq, d) float16, offsets int64; relevant (nq,) is one known answer each, or None.
    """

    name: str
    docs: np.ndarray
    doc_offsets: np.ndarray
    queries: np.ndarray
    query_offsets: np.ndarray
    relevant: np.ndarray | None = None

    files: ClassVar = ("doc_tokens", "doc_offsets", "query_tokens", "query_offsets", "relevant")

    def arrays(self) -> dict[str, np.ndarray | None]:
        values = self.docs, self.doc_offsets, self.queries, self.query_offsets, self.relevant
        return dict(zip(self.files, values, strict=True))

    def __len__(self) -> int:
        return len(self.doc_offsets) - 1


def synthetic(name: str, n: int = 2_000, seed: int = 0, nq: int = 500) -> MultiVectors:
    """Texts of 8 to 128 tokens, each a word's direction, its text's and noise.

    A query is 8 to 16 words of the document that answers it, with noise of its own.
    """
    rng = np.random.default_rng([seed, n])
    words = unit_rows(rng.standard_normal((8_000, 128), np.float32))
    topics = unit_rows(rng.standard_normal((n, 128), np.float32))

    def draw(texts: np.ndarray, vocabulary: np.ndarray) -> np.ndarray:
        noise = unit_rows(rng.standard_normal((len(texts), 128), np.float32))
        mixed = words[vocabulary] + np.float32(0.7) * topics[texts] + np.float32(0.6) * noise
        return unit_rows(mixed).astype(np.float16)

    doc_offsets = np.cumsum([0, *rng.integers(8, 129, n)])
    spoken = (len(words) * rng.random(doc_offsets[-1]) ** 3).astype(np.int64)  # some words are far more common
    docs = draw(np.arange(n).repeat(np.diff(doc_offsets)), spoken)
    relevant = rng.integers(n, size=nq)
    query_offsets = np.cumsum([0, *rng.integers(8, 17, nq)])
    asked = relevant.repeat(np.diff(query_offsets))
    rows = rng.integers(doc_offsets[asked], doc_offsets[asked + 1])
    return MultiVectors(name, docs, doc_offsets, draw(asked, spoken[rows]), query_offsets, relevant)


def grown(dataset: MultiVectors, n: int, seed: int = 0) -> MultiVectors:
    """The same queries on n documents: the leading ones, and beyond those there are, repeats of random ones.

    Tokens of repeats get noise of half their length (cosine .89), so that repeats hardly displace what they repeat.
    """
    rng = np.random.default_rng([seed, n])
    kept = min(n, len(dataset))
    repeated = np.concatenate([np.arange(kept), rng.integers(len(dataset), size=n - kept)])
    starts, lengths = dataset.doc_offsets[repeated], np.diff(dataset.doc_offsets)[repeated]
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    docs = np.empty((offsets[-1], dataset.docs.shape[1]), np.float16)
    docs[: offsets[kept]] = dataset.docs[: offsets[kept]]
    for begin in range(kept, n, 1024):
        block = slice(begin, begin + 1024)
        rows = np.concatenate([np.arange(a, a + m) for a, m in zip(starts[block], lengths[block], strict=True)])
        noise = unit_rows(rng.standard_normal((len(rows), docs.shape[1]), np.float32)) * np.float32(0.5)
        docs[offsets[begin] : offsets[begin] + len(rows)] = unit_rows(dataset.docs[rows] + noise)
    relevant = dataset.relevant if n >= len(dataset) else None
    return MultiVectors(f"{dataset.name}_{n}", docs, offsets, dataset.queries, dataset.query_offsets, relevant)


def colbert(name: str) -> MultiVectors:
    docs, queries, relevant = debian_texts()
    return MultiVectors(name, *embed_colbert(docs, queries=False), *embed_colbert(queries, queries=True), relevant)
