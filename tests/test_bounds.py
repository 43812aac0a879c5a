"""The certificate of exact search: no row's upper bound is ever below its score, so no row is ever missed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import cases
from inputs import KINDS, METRICS, levels_of, values
from nestvec.kernels.lanes import threshold

ROWS, QUERIES, EXAMPLES = 70, 3, 60  # 12,600 pairs of a row and a query for each metric, at one to four levels

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
metrics = pytest.mark.parametrize("metric", range(3), ids=METRICS)


def least(scores: np.ndarray, packed: cases.Arguments) -> np.ndarray:
    """Scores (nq, n) as thresholds: what an upper bound must reach."""
    pairs = zip(scores, packed["multiply"], packed["offset"], strict=True)
    return np.array(
        [[threshold(score, multiply, offset) for score in row] for row, multiply, offset in pairs], np.float32
    )


def check_bounds(x: np.ndarray, q: np.ndarray, levels: np.ndarray, metric: int) -> None:
    """Bounds at every level, and with checks at every level: each row survives the threshold of its own score."""
    segment = cases.plane(x, levels)
    for count in range(1, len(levels) + 1):
        bounds = levels[:count].copy()
        wanted = least(
            cases.exact_scores(q[:, : bounds[-1]].copy(), x[:, : bounds[-1]].copy(), metric),
            cases.packed_queries(q, bounds, metric),
        )
        upper = cases.upper_bounds(segment, bounds, q, metric)
        missed = np.argwhere(~(upper >= wanted)).tolist()
        assert not missed, [(at, upper[tuple(at)], wanted[tuple(at)]) for at in missed[:3]]


def survivors(x: np.ndarray, q: np.ndarray, levels: np.ndarray, metric: int, k: int, scan: Any) -> None:
    """With checks from any level on and the k-th best scores as thresholds, the k best and their ties survive."""
    segment = cases.plane(x, levels)
    scores = cases.exact_scores(q, x, metric)
    kth = np.sort(scores, axis=1)[:, -k][:, None]
    wanted = least(kth, cases.packed_queries(q, levels, metric))[:, 0]
    for check in range(len(levels)):
        for some in (slice(0, 1), slice(None)):
            arguments = cases.scan_arguments(segment, levels, q[some], metric, len(x) + 128)
            arguments["thresholds"][: len(q[some])], arguments["check"] = wanted[some], check
            scan(*arguments.values())
            for i, (rows, count) in enumerate(zip(arguments["rows"], arguments["counts"], strict=True)):
                assert set(np.flatnonzero(scores[i] >= kth[i])) <= set(rows[:count].tolist())


@metrics
@settings(max_examples=EXAMPLES)
@given(st.integers(0, 2**32), st.sampled_from(list(KINDS)), st.sampled_from(list(KINDS)), st.integers(1, 90))
def test_bounds(metric: int, seed: int, kind: str, query_kind: str, d: int) -> None:
    rng = np.random.default_rng(seed)
    check_bounds(values(rng, kind, ROWS, d), values(rng, query_kind, QUERIES, d), levels_of(rng, d), metric)


@metrics
@settings(max_examples=EXAMPLES)
@given(st.data())
def test_bounds_of_chosen_values(metric: int, data: st.DataObject) -> None:
    """The same for values picked one by one, which shrink to something readable."""
    d = data.draw(st.integers(1, 20))
    x = data.draw(hnp.arrays(np.float32, (data.draw(st.integers(1, 5)), d), elements=finite))
    q = data.draw(hnp.arrays(np.float32, (2, d), elements=finite))
    levels = np.asarray(sorted(data.draw(st.sets(st.integers(1, d), max_size=3)) | {d}))
    check_bounds(x, q, levels, metric)


@metrics
@settings(max_examples=EXAMPLES)
@given(st.integers(0, 2**32), st.sampled_from(list(KINDS)), st.sampled_from(list(KINDS)), st.integers(2, 90))
def test_checked_levels(metric: int, backend: Any, seed: int, kind: str, query_kind: str, d: int) -> None:
    rng = np.random.default_rng(seed)
    x, q = values(rng, kind, ROWS, d), values(rng, query_kind, QUERIES, d)
    survivors(x, q, levels_of(rng, d), metric, int(rng.integers(1, 20)), backend.scan)


@metrics
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_checks_at_default_levels(metric: int, shift: float, backend: Any, rng: np.random.Generator) -> None:
    x, q = values(rng, "normal", 2000, 256) + np.float32(shift), values(rng, "normal", 5, 256) + np.float32(shift)
    survivors(x, q, np.asarray([64, 128, 256]), metric, 10, backend.scan)


@metrics
def test_bounds_are_tight(metric: int, rng: np.random.Generator) -> None:
    """Few rows have a bound above the k-th best score; else a search would be exact and slow."""
    x, q = values(rng, "normal", 2000, 256), values(rng, "normal", 20, 256)
    bounds = np.asarray([256])
    scores = cases.exact_scores(q, x, metric)
    wanted = least(np.sort(scores, axis=1)[:, -10:-9], cases.packed_queries(q, bounds, metric))
    assert (cases.upper_bounds(cases.plane(x, bounds), bounds, q, metric) >= wanted).mean() < 0.03
