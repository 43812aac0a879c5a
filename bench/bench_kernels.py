"""Microbenchmarks: kernel x backend x shape, with GB/s or GMAC/s and the largest error beside each time.

pytest bench/bench_kernels.py --benchmark-json=bench/results/kernels.json
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nestvec as nv
from nestvec import backends
from nestvec.parts import Part, Task
from nestvec.search import ROW_SUFFIX, Scan

Array = np.ndarray[Any, Any]

ROWS = 65_536
SHAPES = (64, 256, 768)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", backends.available())


@pytest.fixture
def data() -> np.random.Generator:
    return np.random.default_rng(0)


def index_of(d: int, data: np.random.Generator) -> tuple[nv.NestedIndex, Array]:
    nv.use(backends.available()[0])
    x = data.standard_normal((ROWS, d), dtype=np.float32)
    index = nv.NestedIndex(d, levels=(d,))
    index.add(x)
    return index, x


@pytest.mark.parametrize("d", SHAPES)
@pytest.mark.parametrize("nq", [1, 16, 256])
def test_scan(benchmark: Any, backend: str, d: int, nq: int, data: np.random.Generator) -> None:
    """Reading the plane: one query by bytes, many by multiplications; error: of upper bounds, over |q| |x|."""
    index, x = index_of(d, data)
    nv.use(backend)
    q = data.standard_normal((nq, d), dtype=np.float32)
    part = Part(index._contents.stored[0].segment, 0, ROWS)
    error = bound_error(Scan(Task(q, 10, d, "ip", "float32"), index._bounds), part, q, x)
    scan = Scan(Task(q, 10, d, "ip", "float32"), index._bounds)
    scan.packed.thresholds[:nq] = 1e30  # nothing passes: the scan alone
    benchmark.group = f"scan d={d} nq={nq}"
    benchmark(scan._scan, part, 0, ROWS, 0)
    rate = ROWS * d / benchmark.stats["median"] / 1e9
    benchmark.extra_info.update({"GB/s": rate, "GMAC/s": rate * nq, "max error": error})


def bound_error(scan: Scan, part: Part, q: Array, x: Array) -> float:
    """How far the first rows' upper bounds lie above their scores; negative would be a broken promise."""
    packed = scan.packed
    scan._scan(part, 0, 256, 0)
    bounds = packed.upper[:, :256] / packed.multiply[:, None]
    scores = q.astype(np.float64) @ x[:256].T.astype(np.float64)
    lengths = np.linalg.norm(q, axis=1)[:, None] * np.linalg.norm(x[:256], axis=1)
    over = (bounds - scores) / lengths
    assert over.min() >= 0
    return float(over.max())


@pytest.mark.parametrize("d", SHAPES)
def test_add(benchmark: Any, backend: str, d: int, data: np.random.Generator) -> None:
    """Rows to planes; error: the largest share of a row's norm that its codes leave out."""
    x = data.standard_normal((ROWS, d), dtype=np.float32)
    nv.use(backend)

    def add() -> nv.NestedIndex:
        index = nv.NestedIndex(d)
        index.add(x, threads=1)
        return index

    benchmark.group = f"add d={d}"
    index = benchmark(add)
    levels, stats = len(index.levels), index._contents.stored[0].segment.stats[:, :ROWS]
    error = float((stats[2 * levels] / stats[levels]).max())
    benchmark.extra_info.update({"GB/s": x.nbytes / benchmark.stats["median"] / 1e9, "max error": error})


@pytest.mark.parametrize("d", SHAPES)
@pytest.mark.parametrize("rows", ["float32", "float16", "bfloat16"])
def test_scores(benchmark: Any, backend: str, d: int, rows: str, data: np.random.Generator) -> None:
    """Exact scores of all rows for one query, against numpy in float64."""
    index = nv.NestedIndex(d, rows=rows)
    index.add(data.standard_normal((ROWS // 8, d), dtype=np.float32))
    segment = index._contents.stored[0].segment
    nv.use(backend)
    kernel = getattr(backends.current(), f"scores_{ROW_SUFFIX[rows]}")
    q = data.standard_normal((1, d))
    q = q.astype(np.float32).astype(np.float64)
    out = np.empty((1, index.ntotal), np.float32)
    stored = segment.rows[: index.ntotal]
    benchmark.group = f"scores {rows} d={d}"
    benchmark(kernel, q, stored, d, 0, out)
    truth = q @ index.reconstruct(np.arange(index.ntotal)).astype(np.float64).T
    error = float(np.abs(out - truth).max() / np.abs(truth).max())
    benchmark.extra_info.update({"GB/s": stored.nbytes / benchmark.stats["median"] / 1e9, "max error": error})
