"""Certificates of exact search: counts and slacks are those of bounds computed row by row as kernels specify them."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

import cases
import nestvec as nv
import truth
from inputs import KINDS, METRICS, level_widths, values
from nestvec import index as indexes
from nestvec.arrays import METRICS as NUMBERS
from nestvec.kernels.lanes import BLOCK, threshold
from nestvec.kernels.scan import ERROR, HALF, NORM, UNIT, _load_terms, in_units
from nestvec.plan import Certificate
from test_search import filled

D, LEVELS, N = 120, (16, 50), 300

metrics = pytest.mark.parametrize("metric", METRICS)


def plain(function: Any) -> Any:
    """Uncompiled."""
    return getattr(function, "py_func", function)


def bounds_of(x: np.ndarray, q: np.ndarray, ends: np.ndarray, metric: str) -> tuple[np.ndarray, cases.Arguments]:
    """Upper bounds (nq, levels, n) of rows by the words of `nestvec.kernels.scan`, and the packed queries."""
    bounds, levels = np.asarray([*LEVELS, D]), len(ends)
    segment, packed = cases.plane(x, bounds), cases.packed_queries(q, ends, NUMBERS[metric])
    stored, stats, blocks, f32 = len(bounds), segment.stats, segment.blocks, np.float32
    scales = stats[0, : len(x), None]
    codes = np.rint(x * np.divide(f32(1), scales, out=np.zeros_like(scales), where=scales > 0)).astype(np.int64)
    cuts, begins = np.cumsum([0, *level_widths(ends, 64)]), [0, *ends[:-1]]
    query_codes = [packed["codes"][:, cut : cut + end - b] for cut, b, end in zip(cuts, begins, ends, strict=False)]
    query_codes = np.concatenate(query_codes, axis=1).astype(np.int64)
    result, terms = np.empty((len(q), levels, len(x)), np.float32), np.empty((4, BLOCK), np.float32)
    for row in range(len(x)):
        block, i = row // BLOCK, row % BLOCK
        plain(_load_terms)(
            stats, stored, levels, NUMBERS[metric], block * BLOCK, min(BLOCK, len(x) - block * BLOCK), terms
        )
        for query in range(len(q)):
            known = packed["stats"][:, query]
            for level, end in enumerate(ends):
                dot = f32(codes[row, :end] @ query_codes[query, :end])
                if level < levels - 1:
                    slack = known[level] * blocks[stored + level, block] + known[levels + level] * blocks[level, block]
                    bound = dot + slack + known[2 * levels + level] * stats[1 + 2 * stored + level, row]
                else:
                    slack = known[level] * terms[ERROR, i] + known[levels + level] * terms[NORM, i]
                    bound = dot + slack
                unit, half = terms[UNIT, i], terms[HALF, i]
                result[query, level, row] = plain(in_units)(bound, unit, half, known[3 * levels])
    return result, packed


def wanted(
    x: np.ndarray, q: np.ndarray, k: int, dims: int, metric: str, allowed: np.ndarray
) -> tuple[list[float], np.ndarray]:
    """Rows that survive each level, per query, and slacks (nq,)."""
    ends = np.asarray([end for end in (*LEVELS, D) if end <= dims])
    upper, packed = bounds_of(x, q, ends, metric)
    scores = np.where(allowed, truth.scores(q[:, :dims], x[:, :dims], metric), -np.inf)
    counts, slack = np.zeros(len(ends)), np.full(len(q), np.inf)
    for i in range(len(q)):
        least = np.sort(scores[i])[::-1][k - 1] if k <= len(x) else -np.inf
        multiply, offset = packed["multiply"][i], packed["offset"][i]
        reached = upper[i] >= plain(threshold)(least, multiply, offset)
        alive = np.logical_and.accumulate(reached, axis=0) & np.broadcast_to(allowed, scores.shape)[i]
        counts += alive.sum(axis=1)
        out = np.broadcast_to(allowed, scores.shape)[i] & ~alive[-1]
        if out.any():
            slack[i] = least - (float(upper[i].min(axis=0)[out].max()) - offset) / multiply
    return (counts / len(q)).tolist(), slack


@metrics
def test_counts_and_slack(metric: str, backend: Any, rng: np.random.Generator) -> None:
    """As numpy computes them, bit for bit, for rows and queries of several kinds, all rows or those a filter leaves."""
    for kind, dims in (("normal", D), ("ties", D), ("duplicates", 50), ("normal", 50), ("outliers", D), ("normal", 16)):
        x, q = values(rng, kind, N, D), values(rng, kind, 3, D)
        x[:, 60:] /= 8
        index = filled(x, levels=LEVELS, metric=metric)
        for k, allowed in ((5, np.ones((1, N), bool)), (5, rng.random((3, N)) < 0.7), (N + 1, np.ones((1, N), bool))):
            found = index.explain(q, k, dims=dims, filter=None if allowed.all() else allowed).certificate
            assert found is not None
            with np.errstate(over="ignore"):
                counts, slack = wanted(x, q, min(k, N), dims, metric, allowed)
            assert found.levels == tuple(end for end in (*LEVELS, D) if end <= dims)
            assert list(found.survivors) == counts
            np.testing.assert_allclose(
                [found.slack_min, found.slack_median], [slack.min(), np.median(slack)], rtol=1e-9
            )
            assert found.rows == allowed.sum() / len(allowed)
            assert not allowed.all() or found.scored >= found.survivors[-1]


@pytest.mark.parametrize("kind", KINDS)
@metrics
def test_slack_is_never_negative(metric: str, kind: str, rng: np.random.Generator) -> None:
    """Whatever the values, over several segments, rows removed, filters, one query and many, any dims."""
    x, q = values(rng, kind, 1500, 40), values(rng, kind, 30, 40)
    x[::7], q[1], q[2] = 0, 0, x[1]
    index = nv.NestedIndex(40, (7, 20), metric)
    for some in np.split(np.arange(1500), [300, 1111]):
        index.add(x[some])
    index.remove(range(0, 1500, 9))
    alive = np.delete(np.arange(1500), np.arange(0, 1500, 9))
    with np.errstate(over="ignore"):
        exact = truth.scores(q, x[alive], metric)
    for nq, dims, k in ((1, 40, 10), (30, 40, 3), (3, 20, 2000), (30, 30, 5), (3, 7, 1)):
        found = index.explain(q[:nq], k, dims=dims).certificate
        assert found is not None
        assert found.slack_median >= found.slack_min >= 0
        assert found.rows == len(alive)
        if dims == 40:
            least = np.sort(exact[:nq], axis=1)[:, ::-1][:, k - 1 : k]
            assert found.scored >= found.survivors[-1] >= (exact[:nq] >= least).sum() / nq
        assert list(found.survivors) == sorted(found.survivors, reverse=True)
        few = index.explain(q[:nq], k, dims=dims, filter=range(0, 1500, 2)).certificate
        assert few is not None
        assert few.slack_min >= 0


def test_no_level_there(rng: np.random.Generator) -> None:
    """Few queries read every row; many make planes of the dims asked for, whose bounds count."""
    x = values(rng, "normal", 2000, D)
    index = filled(x, levels=LEVELS)
    found = index.explain(x[:2], 5, dims=30)
    assert found.certificate == Certificate((), (), 2000, 2000, np.inf, np.inf)
    assert str(found).splitlines()[-1] == "exact: no level ends at these dims, so all 2,000 rows were read and scored"
    found = index.explain(x[:20], 5, dims=30)
    assert found.certificate is not None
    assert found.certificate.levels == (30,)
    assert 5 <= found.certificate.survivors[0] <= found.certificate.scored < 200
    assert 0 <= found.certificate.slack_min < 20


def test_printed(rng: np.random.Generator) -> None:
    x = values(rng, "normal", 2000, D)
    index, none = filled(x, levels=LEVELS), np.inf
    report = index.explain(x[:3], 5)
    assert str(report).endswith(f"\n{report.certificate}")
    assert str(Certificate((16, 120), (1234.5, 12.0), 2000.0, 44.0, 0.25, none)).splitlines() == [
        "exact: of 2,000 rows upper bounds leave 1,234.5 by 16 dims, 12.0 by 120 dims; 44.0 were scored",
        "the others fall short of the k-th best score by 0.25 at least, inf in the median",
    ]
    for plan in ([nv.Stage("raw")], [nv.Stage("b1", keep=9), nv.Stage("raw")]):
        assert index.explain(x[:3], 5, plan).certificate is None
    assert index.explain(x[:0], 5).certificate is None
    assert index.explain(x[:3], 5, dims=16).certificate is not None


def test_many_dims_and_queries(rng: np.random.Generator) -> None:
    """More than are taken at a time; sums of the largest codes stay exact."""
    x, q = np.sign(values(rng, "normal", 1100, 2100)), np.sign(values(rng, "normal", 70, 2100))
    q[0] = x[3]
    index = filled(x, levels=(1, 1090))
    found = index.explain(q, 1).certificate
    assert found is not None
    assert found.rows == 1100
    assert found.scored >= found.survivors[-1] >= 1
    alone = index.explain(q[:1], 1).certificate
    assert alone is not None
    assert alone.survivors[-1] == 1  # codes of signs leave nothing out
    others = np.delete(truth.scores(q[:1], x, "ip")[0], 3)
    assert alone.slack_min == pytest.approx(2100 - others.max(), rel=0.02)


def test_timeout(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """The deadline counts for the certificate, too."""
    x = values(rng, "normal", 500, D)
    index, found = filled(x, levels=LEVELS), indexes.explain_exact

    def late(*arguments: Any) -> Any:
        result = found(*arguments)
        time.sleep(0.2)
        return result

    monkeypatch.setattr(indexes, "explain_exact", late)
    with pytest.raises(TimeoutError, match=r"no answer within timeout=0\.2"):
        index.explain(x[:3], 5, timeout=0.2)
