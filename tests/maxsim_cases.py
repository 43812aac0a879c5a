"""Arguments for the kernels of MaxSim."""

from __future__ import annotations

from typing import Any

import numpy as np

from inputs import stored, values
from nestvec.bags import CodedBags, coded_queries, scratch

Arguments = dict[str, Any]


def offsets_of(rng: np.random.Generator, n: int, most: int = 40) -> np.ndarray:
    """Where bags of n tokens in all begin: some empty, some of one token, some long."""
    cuts = [0]
    while cuts[-1] < n:
        cuts.append(min(n, cuts[-1] + int(rng.choice([0, 1, 2, 17, rng.integers(1, most)]))))
    return np.array([*cuts, n][: len(cuts) + int(rng.integers(0, 2))], np.int64)


def queries(rng: np.random.Generator, d: int, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """One to three queries of one to forty tokens."""
    lengths = rng.choice([1, 2, 15, 16, 17, 33, 40], int(rng.integers(1, 4)))
    return values(rng, kind, int(lengths.sum()), d), np.cumsum([0, *lengths])


def maxsim(rng: np.random.Generator, name: str, n: int, d: int, kind: str) -> Arguments:
    """Some documents, in any order and some of them twice; sometimes one holds what is not finite."""
    suffix = name.rpartition("_")[2]
    q, q_offsets = queries(rng, d, kind)
    offsets = offsets_of(rng, n)
    if suffix == "i8":
        tokens = rng.integers(-128, 128, (n, d)).astype(np.int8)
    else:
        tokens = stored(values(rng, kind, n, d, suffix), suffix)
        if n and rng.random() < 0.2:
            bad = tokens.view(np.uint16 if suffix != "f32" else np.uint32)
            bad[rng.integers(0, n), rng.integers(0, d)] = {"f32": 0x7FC00000, "f16": 0xFC00, "bf16": 0x7F80}[suffix]
    scaled = suffix == "i8" or rng.random() < 0.3
    scales = (rng.choice([-1, 1, 0], n) * 10.0 ** rng.uniform(-3, 3, n)).astype(np.float32)
    wide = np.zeros((n, d + 3), tokens.dtype)
    wide[:, :d] = tokens
    docs = rng.integers(0, len(offsets) - 1, int(rng.integers(0, 2 * len(offsets)))) if len(offsets) > 1 else []
    return {
        "q": q.astype(np.float64),
        "q_offsets": q_offsets,
        "tokens": tokens if rng.random() < 0.5 else wide[:, :d],
        "scales": scales if scaled else scales[:0],
        "offsets": offsets,
        "docs": np.asarray(docs, np.int64),
        "scratch": scratch(len(q), d),
        "out": np.full((len(q_offsets) - 1, len(docs)), -7.0),
    }


def pack_bags(rng: np.random.Generator, n: int, d: int, kind: str) -> Arguments:
    """Room for the codes of some bags."""
    offsets, width = offsets_of(rng, n), -(-d // 4) * 4
    return {
        "x": values(rng, kind, n, d),
        "offsets": offsets,
        "codes": np.zeros((n, width), np.int8),
        "scales": np.zeros(n, np.float32),
        "sums": np.zeros(n, np.int32),
        "bounds": np.zeros((2, len(offsets) - 1), np.float32),
    }


def scan_bags(rng: np.random.Generator, n: int, d: int, kind: str) -> Arguments:
    """Coded bags and queries; what lies behind the last token is random."""
    offsets = offsets_of(rng, n, int(rng.choice([40, 600])))
    bags = CodedBags.of(values(rng, kind, n, d), offsets)
    bags.codes[n:] = rng.integers(-128, 128, bags.codes[n:].shape)
    bags.scales[n:], bags.sums[n:] = np.nan, 2**30
    q, q_offsets = queries(rng, d, kind)
    first, last = np.sort(rng.integers(0, len(offsets), 2)).tolist()
    sets, documents = int(rng.choice([0, 1, len(q_offsets) - 1])), len(offsets) - int(rng.integers(0, 2))
    return {
        **{key: getattr(bags, key) for key in ("codes", "scales", "sums", "offsets", "bounds")},
        **coded_queries(q, q_offsets)._asdict(),
        "first": first,
        "last": last,
        "allowed": (rng.random((sets, documents)) < rng.choice([0, 0.1, 0.7])).astype(np.uint8),
        "out": np.full((len(q_offsets) - 1, last - first), -7, np.float32),
    }
