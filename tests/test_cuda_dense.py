"""Nested indexes on a GPU: the bits of the CPU's answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nestvec as nv
from nestvec.cuda.dense import CudaNestedIndex

SHAPES = [(1, 1, 1), (7, 17, 3), (63, 100, 9), (65, 1000, 17), (100, 1000, 5), (256, 3000, 9), (768, 300, 2)]


@pytest.mark.parametrize(("d", "n", "nq"), SHAPES)
@pytest.mark.parametrize("metric", ["ip", "l2", "cosine"])
@pytest.mark.parametrize("rows", ["float32", "float16", "bfloat16"])
def test_exact_search_gives_the_bits_of_the_cpu(
    device: Any, rng: np.random.Generator, d: int, n: int, nq: int, metric: str, rows: str
) -> None:
    x, q = rng.standard_normal((n, d), np.float32), rng.standard_normal((nq, d), np.float32)
    index = nv.NestedIndex(d, metric=metric, rows=rows)
    index.add(x[: n // 2])
    index.add(x[n // 2 :])
    there = CudaNestedIndex(index, device)
    for k in (1, 10, min(n + 1, 2048)):
        for dims in (None, max(1, d // 2)):
            for found, right in zip(there.search(q, k, dims=dims), index.search(q, k, dims=dims), strict=True):
                np.testing.assert_array_equal(found, right)
