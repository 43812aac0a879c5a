"""Profiles of vectors whose answers are known, and the same ones whatever computes them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import nestvec as nv
import truth
from inputs import METRICS
from nestvec import profiling


def shares(profile: nv.Profile, basis: str, name: str = "recall") -> list[float]:
    return [getattr(prefix, name) for prefix in profile.prefixes if prefix.basis == basis]


def test_energy_is_exact() -> None:
    x = np.float32([[3, 4, 0, 0], [0, 0, 5, 0], [0, 0, 0, 10]])
    by_product = nv.profile(x, levels=(1, 2, 3), metric="ip")
    assert shares(by_product, "raw", "energy") == [9 / 150, 25 / 150, 50 / 150, 1]
    by_cosine = nv.profile(x, levels=(1, 2, 3), metric="cosine")
    assert shares(by_cosine, "raw", "energy") == pytest.approx([0.36 / 3, 1 / 3, 2 / 3, 1])
    assert shares(by_product, "pca", "energy") == pytest.approx([100 / 150, 125 / 150, 1, 1])


def test_few_dims_that_hold_everything(rng: np.random.Generator) -> None:
    x = np.zeros((600, 64), np.float32)
    x[:, :8] = rng.standard_normal((600, 8))
    profile = nv.profile(x, levels=(8, 16))
    assert shares(profile, "raw", "energy") == pytest.approx([1, 1, 1])
    assert shares(profile, "raw") == [1, 1, 1]
    assert shares(profile, "random")[0] < 0.9
    assert profile.verdict.startswith("Shortlist")
    assert "\nNested: the first 8 dims" in profile.verdict

    behind = nv.profile(np.ascontiguousarray(x[:, ::-1]), levels=(8, 16))
    assert shares(behind, "raw", "energy") == [0, 0, 1]
    assert shares(behind, "pca", "energy") == pytest.approx([1, 1, 1])
    assert min(shares(behind, "pca")) > 0.98  # float32 sums of a rotation may swap neighbours
    assert 'nv.fit_rotation(x, "pca") makes 8 dims hold 100 % where the first 8 hold ' in behind.verdict
    assert "hold less than others would" in behind.verdict


def test_isotropic_vectors_have_no_better_dims(rng: np.random.Generator) -> None:
    profile = nv.profile(rng.standard_normal((10_000, 48), np.float32), levels=(12, 24))
    for name in ("recall", "shortlist", "energy"):
        assert shares(profile, "raw", name) == pytest.approx(shares(profile, "random", name), abs=0.04)
    assert shares(profile, "raw", "energy") == pytest.approx([0.25, 0.5, 1], abs=0.01)
    assert "what any others would" in profile.verdict
    assert "PCA would add little" in profile.verdict


@pytest.mark.parametrize("d", [2, 4, 8])
@pytest.mark.parametrize("metric", METRICS)
def test_intrinsic_dims_of_a_ball(d: int, metric: str, rng: np.random.Generator) -> None:
    """Points near the centre of a ball, far from its surface; on a sphere for cosines and inner products."""
    x = rng.standard_normal((20_000, d + (metric != "l2")))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    queries = x[:500].copy()
    if metric == "l2":
        x *= rng.uniform(0, 1, (len(x), 1)) ** (1 / d)
        queries *= 0.3 * rng.uniform(0, 1, (500, 1)) ** (1 / d)
    found = nv.profile(x[500:], queries, metric=metric).intrinsic_dims
    assert found == pytest.approx(d, rel=0.06)


def test_intrinsic_dims_within_more(rng: np.random.Generator) -> None:
    x = rng.standard_normal((20_000, 3)) @ rng.standard_normal((3, 50))
    assert nv.profile(x, metric="l2").intrinsic_dims == pytest.approx(3, rel=0.06)


def test_copies_and_ties(rng: np.random.Generator) -> None:
    distinct = rng.standard_normal((100, 20)).astype(np.float32)
    profile = nv.profile(np.repeat(distinct, 4, axis=0), k=2)
    assert profile.duplicates == 0.75
    assert profile.near == profile.ties == 1  # each row has three copies, the second and third of which tie
    assert "Copies: 75 %" in profile.verdict
    assert "Ties: 100 %" in profile.verdict
    assert shares(profile, "raw") == [1]

    profile = nv.profile(np.repeat(distinct, 4, axis=0), k=3)
    assert profile.ties == 0

    signed = np.float32([[0.0, 1], [-0.0, 1], [1, 0]])
    assert nv.profile(signed).duplicates == pytest.approx(1 / 3)
    assert nv.profile(distinct).duplicates == nv.profile(distinct).near == nv.profile(distinct).ties == 0


def test_rows_that_tie_with_the_last_count() -> None:
    """Of 60 equal rows any k are the best."""
    x = np.ones((60, 64), np.float32)
    x[:30, 40:] = [1, -1] * 12  # equal in the first 40 dims only, so that ids order those prefixes
    profile = nv.profile(x, np.ones((1, 64), np.float32), k=5, levels=(40,), metric="l2")
    assert profile.ties == 1
    assert [code.shortlist for code in profile.codes if code.dims == 64] == [1, 1, 1]
    assert shares(profile, "raw") == [0, 1]
    assert shares(profile, "raw", "shortlist") == [1, 1]


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("held_out", [True, False])
def test_against_brute_force(metric: str, held_out: bool, rng: np.random.Generator) -> None:
    x = (rng.standard_normal((300, 40)) * np.arange(40, 0, -1)).astype(np.float32)
    q = None if held_out else rng.standard_normal((30, 40)).astype(np.float32)
    profile = nv.profile(x, q, k=4, metric=metric, levels=(10, 20), sample=300)
    asked = x if q is None else q

    def ordered(dims: int) -> tuple[np.ndarray, np.ndarray]:
        scores = truth.scores(asked[:, :dims], x[:, :dims], metric)
        if held_out:
            np.fill_diagonal(scores, -np.inf)
        order = np.argsort(-scores, axis=1, kind="stable")
        return order, np.take_along_axis(scores, order, 1)

    best, scores = ordered(40)
    for at, dims in enumerate((10, 20, 40)):
        order, _ = ordered(dims)
        for name, most in (("recall", 4), ("shortlist", 40)):
            hits = [len(set(a[:4]) & set(b[:most])) for a, b in zip(best, order, strict=True)]
            assert shares(profile, "raw", name)[at] == pytest.approx(np.mean(hits) / 4)
    sign = -1 if metric == "l2" else 1
    finite = scores[:, :-1] if held_out else scores
    found = profile.contrast
    assert [found.best, found.kth, found.median] == pytest.approx(
        [sign * scores[:, 0].mean(), sign * scores[:, 3].mean(), sign * np.median(finite, axis=1).mean()], rel=1e-5
    )
    assert (profile.queries, profile.held_out, profile.shortlist) == (len(asked), held_out, 40)


def test_of_real_vectors(wordnet: SimpleNamespace) -> None:
    profile = nv.profile(wordnet.docs, wordnet.queries, levels=(64, 128))
    for name in ("recall", "shortlist", "energy"):
        assert shares(profile, "raw", name) == sorted(shares(profile, "raw", name))
    assert shares(profile, "raw", "energy")[0] > shares(profile, "random", "energy")[0]
    assert shares(profile, "pca", "energy")[0] > shares(profile, "raw", "energy")[0]
    at_full = {code.code: code.shortlist for code in profile.codes if code.dims == 256}
    assert 0.9 < at_full["b1"] <= at_full["i4"] <= at_full["i8"] == 1
    assert [code.nbytes for code in profile.codes] == [8, 16, 32, 32, 64, 128, 64, 128, 256]
    assert profile.lengths.unit
    assert "Nested: the first 64 dims hold" in profile.verdict
    assert "2,000 x 256 float16, cosine; 200 queries" in str(profile)


def test_the_plan_of_the_verdict_holds_what_it_says(wordnet: SimpleNamespace) -> None:
    profile = nv.profile(wordnet.docs, wordnet.queries)
    plan = eval(profile.verdict.split("plan=")[1].split("\n")[0], {"nv": nv})
    index = nv.NestedIndex(256, metric="cosine", codes=("b1", "i4"))
    index.add(wordnet.docs)
    exact, found = (index.search(wordnet.queries, 10, plan=p)[1] for p in (None, plan))
    hits = [len(set(a) & set(b)) for a, b in zip(exact, found, strict=True)]
    assert np.mean(hits) / 10 >= 0.99
    (code,) = (one for one in profile.codes if (one.code, one.dims) == (plan[0].code, plan[0].dims or 256))
    assert np.mean(hits) / 10 == pytest.approx(code.shortlist)


def test_same_on_every_backend(backend: Any, wordnet: SimpleNamespace) -> None:
    nv_profile = nv.profile(wordnet.docs[:300], wordnet.queries[:20], levels=(64,), threads=2)
    assert nv_profile.to_dict() == reference(wordnet)


def reference(wordnet: SimpleNamespace, kept: dict[str, Any] = {}) -> dict[str, Any]:  # noqa: B006
    """What the first backend found."""
    if not kept:
        kept.update(nv.profile(wordnet.docs[:300], wordnet.queries[:20], levels=(64,), threads=1).to_dict())
    return kept


def test_same_in_chunks(monkeypatch: pytest.MonkeyPatch, wordnet: SimpleNamespace) -> None:
    whole, chunked = {}, {}
    for found, values in ((whole, 96 * 2000), (chunked, 96 * 70)):  # fewer rows than are listed
        monkeypatch.setattr(profiling, "CHUNK_VALUES", values)
        found.update(nv.profile(wordnet.docs[:1000, :96], wordnet.queries[:, :96], threads=3).to_dict())
    energies = [[prefix.pop("energy") for prefix in found["prefixes"]] for found in (whole, chunked)]
    assert energies[0] == pytest.approx(energies[1])  # sums of another order
    assert chunked == whole


def test_more_rows_than_are_searched(monkeypatch: pytest.MonkeyPatch, wordnet: SimpleNamespace) -> None:
    monkeypatch.setattr(profiling, "MOST_ROWS", 1000)
    docs = wordnet.docs[:1999, :96]
    profile = nv.profile(docs, sample=50)
    assert (profile.rows, profile.searched) == (1999, 1000)
    assert "1,000 rows searched" in str(profile)
    rest = nv.profile(docs[::2], sample=50)
    assert (profile.prefixes, profile.codes) == (rest.prefixes, rest.codes)


def test_seeds(wordnet: SimpleNamespace) -> None:
    one, two, again = (nv.profile(wordnet.docs[:, :96], sample=50, seed=seed) for seed in (1, 2, 1))
    assert one == again
    assert one.prefixes != two.prefixes
    some = nv.profile(wordnet.docs[:, :96], wordnet.queries[:, :96], sample=50)
    assert (some.queries, some.held_out) == (50, False)


@pytest.mark.parametrize("n", [2, 3, 25])
@pytest.mark.parametrize("d", [1, 7, 100])
@pytest.mark.parametrize("metric", METRICS)
def test_few_rows(n: int, d: int, metric: str, rng: np.random.Generator) -> None:
    profile = nv.profile(rng.standard_normal((n, d)), metric=metric)
    assert (profile.k, profile.shortlist) == (min(10, n - 1), n - 1)
    assert shares(profile, "raw", "shortlist") == [1] * len(profile.levels)
    assert str(profile)
    assert json.loads(json.dumps(profile.to_dict(), allow_nan=False)) == profile.to_dict()


def test_one_row_and_queries(rng: np.random.Generator) -> None:
    profile = nv.profile(rng.standard_normal((1, 5)), rng.standard_normal(5))
    assert (profile.k, profile.queries, profile.intrinsic_dims, profile.ties) == (1, 1, None, 0)
    assert "not defined" in str(profile)


@pytest.mark.parametrize("metric", METRICS)
def test_awkward_values(metric: str, rng: np.random.Generator) -> None:
    x = rng.standard_normal((200, 80)).astype(np.float32)
    plain = nv.profile(x, metric=metric)
    for scale in (2.0**100, 2.0**-60):
        scaled = nv.profile(x * np.float32(scale), metric=metric)
        assert shares(scaled, "raw") == shares(plain, "raw")
        assert shares(scaled, "pca", "energy") == pytest.approx(shares(plain, "pca", "energy"), abs=1e-4)
        json.dumps(scaled.to_dict(), allow_nan=False)
    zeros = nv.profile(np.zeros((20, 80)), metric=metric)
    assert zeros.lengths.zero == 1
    assert zeros.ties == 1
    assert zeros.intrinsic_dims is None
    assert "Zeros: 100 %" in zeros.verdict


def test_any_memory_and_type(rng: np.random.Generator) -> None:
    x = rng.standard_normal((150, 70)).astype(np.float16)
    whole = nv.profile(x).to_dict()
    spread = np.zeros((300, 140), np.float16)
    spread[::2, ::2] = x
    assert nv.profile(spread[::2, ::2]).to_dict() == whole
    for other in (x.astype(np.float64), np.asfortranarray(x.astype(np.float32)), x.astype(">f4")):
        assert {**nv.profile(other).to_dict(), "dtype": "float16"} == whole


def test_lengths(rng: np.random.Generator) -> None:
    x = rng.standard_normal((100, 10))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    x *= np.arange(1, 101)[:, None]
    x[:25] = 0
    profile = nv.profile(x, metric="ip")
    lengths = profile.lengths
    assert [lengths.smallest, lengths.median, lengths.largest] == pytest.approx([0, 50.5, 100])
    assert (lengths.unit, lengths.zero) == (False, 0.25)
    assert "favour long rows" in profile.verdict
    assert "favour long rows" not in nv.profile(x).verdict


def test_low_contrast(rng: np.random.Generator) -> None:
    assert "Low contrast" in nv.profile(np.eye(300) + 1e-3 * rng.standard_normal((300, 300))).verdict


def test_dims_that_are_not_rotated(monkeypatch: pytest.MonkeyPatch, wordnet: SimpleNamespace) -> None:
    whole = nv.profile(wordnet.docs[:100, :96])
    monkeypatch.setattr(profiling, "MOST_DIMS", 95)
    profile = nv.profile(wordnet.docs[:100, :96])
    assert profile.prefixes == whole.prefixes[:2]
    assert profile.codes == whole.codes
    assert "PCA" not in profile.verdict
    assert "random" not in str(profile)


def test_no_code_is_enough(rng: np.random.Generator) -> None:
    """Rows that differ by less than their codes do."""
    x = (1000 + rng.standard_normal((3000, 16)) * 1e-2).astype(np.float32)
    profile = nv.profile(x, k=1, metric="l2")
    assert max(code.shortlist for code in profile.codes) < 0.99
    assert profile.verdict.startswith("Shortlist: no code holds 99 %")


def test_progress(wordnet: SimpleNamespace) -> None:
    told: list[tuple[int, int, str]] = []
    nv.profile(wordnet.docs[:, :96], sample=50, progress=lambda *step: told.append(step))
    assert [done for done, _, _ in told] == list(range(1, told[0][1] + 1))
    assert {what for _, _, what in told} >= {"rows", "pca", "b1 codes"}
    told.clear()
    nv.profile(wordnet.docs[:, :40], sample=50, progress=lambda *step: told.append(step))
    assert [done for done, _, _ in told] == list(range(1, told[0][1] + 1))

    def stop(done: int, total: int, what: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nv.profile(wordnet.docs, progress=stop)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"x": np.ones(3)}, ValueError, "2-D"),
        ({"x": np.ones((0, 3))}, ValueError, "no rows"),
        ({"x": np.ones((1, 3))}, ValueError, "single row"),
        ({"x": [[1.0, 2], [np.nan, 0]]}, ValueError, "x holds nan at row 1, column 0"),
        ({"x": np.full((3, 3), "a")}, TypeError, "dtype"),
        ({"queries": np.ones((2, 4))}, ValueError, "queries has 4 dims, 3 are needed"),
        ({"queries": np.ones((0, 3))}, ValueError, "queries has no rows"),
        ({"queries": [[np.inf, 0, 0]]}, ValueError, "queries holds inf at row 0, column 0"),
        ({"k": 0}, ValueError, "k must"),
        ({"metric": "dot"}, ValueError, "metric must be one of"),
        ({"levels": (4,)}, ValueError, "a level"),
        ({"sample": 0}, ValueError, "sample must be at least 1"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"threads": 0}, ValueError, "threads must be at least 1"),
        ({"progress": 3}, TypeError, "progress must be a callable"),
    ],
)
def test_errors(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        nv.profile(**{"x": np.arange(15.0).reshape(5, 3), **arguments})


@pytest.mark.parametrize("levels", [None, (100,)])
def test_plot(levels: tuple[int, ...] | None, tmp_path: Path, wordnet: SimpleNamespace) -> None:
    pytest.importorskip("matplotlib")
    profile = nv.profile(wordnet.docs[:200, :50] if levels is None else wordnet.docs[:200], levels=levels)
    figure = profile.plot(tmp_path / "profile.png")
    assert (tmp_path / "profile.png").read_bytes().startswith(b"\x89PNG")
    left, right = figure.axes
    assert len(left.lines) == len(right.lines) == (4 if levels is None else 6)
    assert right.lines[0].get_ydata().tolist() == shares(profile, "raw", "shortlist")
    assert profile.plot().axes[0].get_title() == "exact top 10 within the best 10"


def test_plot_without_matplotlib(monkeypatch: pytest.MonkeyPatch, wordnet: SimpleNamespace) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(RuntimeError, match=r"nestvec\[plot\]"):
        nv.profile(wordnet.docs[:20]).plot()
