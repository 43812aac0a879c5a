"""Tuning: what a plan promises, what it costs, and how searches come by one."""

from __future__ import annotations

import json
import pickle
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nestvec as nv
from forging import apart, together
from nestvec import files, multivector, storage, tuning
from nestvec.tuning import Tuning, lower_bound


def clustered(n: int, d: int, seed: int = 0) -> np.ndarray:
    """Rows about centres that are the same for every seed."""
    centres = np.random.default_rng(99).standard_normal((50, d), dtype=np.float32)
    rng = np.random.default_rng(seed)
    return centres[rng.integers(50, size=n)] + rng.standard_normal((n, d), dtype=np.float32)


def nested_index(n: int = 3000, d: int = 128, **options: Any) -> nv.NestedIndex:
    index = nv.NestedIndex(d, **options)
    index.add(clustered(n, d))
    return index


def bag_index(n: int = 400, ids: Sequence[Any] | None = None) -> nv.MultiVectorIndex:
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal((8 * n, 32), dtype=np.float32)
    encoder = nv.FixedDimensionalEncoder(32, num_repetitions=8, num_simhash_projections=3)
    index = nv.MultiVectorIndex(encoder, "f32", codes=("b1", "i8"))
    index.add((tokens, np.arange(0, 8 * n + 1, 8)), ids)
    return index


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Times that are made of the rows scored and the bits read, so that tests do not depend on the machine."""
    price = {"b1": 1.0, "i4": 4.0, "i8": 8.0, "raw": 32.0, "row": 8.0, "exact": 20.0}

    def seconds(self: Tuning, stages: Sequence[nv.Stage]) -> float:
        s = self.subject
        if not stages:
            return price["exact"] * s.rows * s.dims
        rows, total = s.rows, 0.0
        for number, stage in enumerate([*stages, s.last]):
            each = price[stage.code] * (stage.dims or s.dims) * (price["row"] if number else 1)
            total += rows * each
            rows = stage.keep or 0
        return total

    monkeypatch.setattr(Tuning, "_seconds", seconds)
    monkeypatch.setattr(Tuning, "_exact_from", lambda self, chain: None)
    return price


# Bounds


def test_bound_is_wilsons() -> None:
    """Against the roots of Wilson's equation, (p - x)^2 = z^2 x (1 - x) / n."""
    found = np.r_[np.ones(95, np.int64), np.zeros(5, np.int64)]
    share, lower = lower_bound(found, 1, 0.95)
    assert share == 0.95
    z = 1.6448536269514722
    assert (share - lower) ** 2 == pytest.approx(z**2 * lower * (1 - lower) / 100, rel=1e-9)
    assert lower < share


def test_bound_of_a_perfect_sample_grows_with_it() -> None:
    bounds = [lower_bound(np.full(n, 10), 10, 0.95)[1] for n in (1, 10, 100, 1000)]
    assert bounds == sorted(bounds)
    assert 0.2 < bounds[0] < 0.4
    assert 0.997 < bounds[-1] < 0.998  # as if each query were one observation


def test_bound_knows_that_neighbours_of_a_query_come_together() -> None:
    apart = np.full(100, 9)
    together = np.r_[np.full(90, 10), np.zeros(10, np.int64)]
    assert lower_bound(apart, 10, 0.95)[0] == lower_bound(together, 10, 0.95)[0] == 0.9
    assert lower_bound(together, 10, 0.95)[1] < lower_bound(apart, 10, 0.95)[1] - 0.02


@pytest.mark.parametrize("spread", [1000.0, 20.0])
def test_bound_holds_as_often_as_it_says(spread: float) -> None:
    rng = np.random.default_rng(1)
    held, true = 0, 0.98
    for _ in range(400):
        chances = rng.beta(true * spread, (1 - true) * spread, 300)
        held += lower_bound(rng.binomial(10, chances), 10, 0.95)[1] <= true
    assert held >= 0.92 * 400


# Plans


@pytest.mark.parametrize("metric", ["ip", "l2", "cosine"])
def test_nested(metric: str, cheap: dict[str, float]) -> None:
    index = nested_index(metric=metric, codes=("b1", "i4", "i8"))
    plan = index.tune(clustered(200, 128, seed=1), k=10, recall=0.95)
    assert plan.expected >= plan.lower >= 0.95
    assert plan.stages[-1] == nv.Stage("raw")
    assert (plan.k, plan.dims, plan.rows, plan.queries, plan.held_out) == (10, 128, 3000, 200, False)
    q = clustered(300, 128, seed=2)
    exact, found = index.search(q, 10)[1], index.search(q, 10, plan=plan)[1]
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, found, strict=True)]) >= 0.935
    assert (found == index.search(q, 10, plan=list(plan))[1]).all()


def test_same_plan_again(cheap: dict[str, float]) -> None:
    index = nested_index()
    assert index.tune(recall=0.9, seed=3) == index.tune(recall=0.9, seed=3)


def test_curve_has_what_was_weighed(cheap: dict[str, float]) -> None:
    plan = nested_index(codes=("b1", "i4")).tune(recall=0.9)
    assert plan.curve[-1].stages == ()
    assert plan.curve[-1].expected == 1
    assert [point.seconds for point in plan.curve] == sorted(point.seconds for point in plan.curve)
    assert all(point.lower >= 0.9 for point in plan.curve)
    assert {point.stages[0].code for point in plan.curve if point.stages} == {"b1"}  # no other could be faster


def test_prefix(cheap: dict[str, float]) -> None:
    index = nested_index()
    plan = index.tune(recall=0.9, dims=64)
    assert plan.dims == 64
    assert all((stage.dims or 64) <= 64 for stage in plan)
    q = clustered(100, 128, seed=2)
    exact, found = index.search(q, 10, dims=64)[1], index.search(q, 10, dims=64, plan=plan)[1]
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, found, strict=True)]) >= 0.85


def test_rotated_signs_are_cut_at_levels_only(cheap: dict[str, float]) -> None:
    plan = nested_index(d=100, levels=(40, 80), rotate=True).tune(recall=0.8)
    assert {stage.dims for point in plan.curve for stage in point.stages} <= {40, 80, 100, None}


def test_longer_chains_where_the_last_stage_is_dear(cheap: dict[str, float]) -> None:
    """A million times dearer rows make worthwhile whatever spares one."""
    cheap["raw"] = 1e6
    cheap["exact"] = 1e7
    index = nested_index(codes=("b1", "i4", "i8"))
    plan = index.tune(recall=0.95)
    assert 3 <= len(plan.stages) <= 4
    assert plan.lower >= 0.95
    keeps = [stage.keep for stage in plan.stages[:-1]]
    assert keeps == sorted(keeps, reverse=True)
    alone = min((point for point in plan.curve if len(point.stages) == 2), key=lambda point: point.seconds)
    assert plan.stages[-2].keep < alone.stages[0].keep


def test_binary(cheap: dict[str, float]) -> None:
    index = nv.BinaryIndex(512)
    index.add(nv.pack_bits(clustered(3000, 512)))
    plan = index.tune(k=10, recall=0.95)
    assert plan.stages[-1] == nv.Stage("b1")
    assert plan.lower >= 0.95
    q = nv.pack_bits(clustered(100, 512, seed=2))
    exact, found = index.search(q, 10)[0], index.search(q, 10, plan=plan)[0]
    assert (found <= exact[:, -1:]).mean() >= 0.93
    assert (index.search(q, 10, recall=0.95)[0] == found).all()


@pytest.mark.parametrize("ids", [None, [f"text {i}" for i in range(400)]])
def test_multi_vector(ids: list[str] | None, cheap: dict[str, float]) -> None:
    cheap["exact"] = 1e6
    index = bag_index(ids=ids)
    plan = index.tune(k=5, recall=0.9)
    assert plan.stages[-1] == nv.Stage("raw")
    assert plan.lower >= 0.9
    assert plan.held_out
    q = [np.random.default_rng(i).standard_normal((6, 32)).astype(np.float32) for i in range(50)]
    exact, found = index.search(q, 5, exact=True)[1], index.search(q, 5, plan=plan)[1]
    assert np.mean([len(set(a) & set(b)) / 5 for a, b in zip(exact.tolist(), found.tolist(), strict=True)]) >= 0.7
    candidates = plan.stages[-2].keep
    same = index.search(q, 5, plan=[nv.Stage(s.code, s.dims, s.keep) for s in plan.stages[:-2]] + [
        nv.Stage(plan.stages[-2].code, plan.stages[-2].dims)], candidates=candidates)  # fmt: skip
    assert same[1].tolist() == found.tolist()
    assert index.search(q, 5, recall=0.9)[1].tolist() == found.tolist()


def test_held_out_rows_do_not_find_themselves(cheap: dict[str, float]) -> None:
    """Rows come in pairs; each one's only near neighbour is the other, by hand."""
    x = clustered(1000, 64)
    index = nv.NestedIndex(64, metric="l2")
    index.add(np.concatenate([x, x + np.float32(1e-3)]))
    subject = index._subject(None, 1, None, tuning.Draw(50, 0), None)
    run = Tuning(subject, 0.9, 0.95, None)
    run._truth()
    assert subject.own is not None
    for own, good in zip(subject.own, run.good, strict=True):
        assert list(good) == [(own + 1000) % 2000]


def test_ties_count_as_found(cheap: dict[str, float]) -> None:
    index = nv.NestedIndex(64)
    index.add(np.repeat(clustered(100, 64), 30, axis=0))
    run = Tuning(index._subject(None, 10, None, tuning.Draw(20, 0), None), 0.9, 0.95, None)
    run._truth()
    assert {len(good) for good in run.good} == {29}
    assert index.tune(recall=0.9, sample=100).lower >= 0.9


# When exact search is the plan


def test_exact_where_nothing_is_faster(cheap: dict[str, float]) -> None:
    cheap["exact"] = 0.01
    plan = nested_index().tune()
    assert (plan.stages, plan.expected, plan.lower, plan.warning) == ((), 1, 1, "")


def test_small_sample(cheap: dict[str, float]) -> None:
    index = nested_index()
    with pytest.warns(UserWarning, match="8 queries cannot show a recall of 0.99 with confidence 0.95"):
        plan = index.tune(clustered(8, 128, seed=1))
    assert plan.stages == ()
    assert "give more of them" in plan.warning
    assert "warning: 8 queries" in str(plan)


def test_out_of_reach(cheap: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tuning, "__init__", shallow(Tuning.__init__))
    index = nv.NestedIndex(64)
    index.add(np.random.default_rng(0).standard_normal((3000, 64), dtype=np.float32))
    with pytest.warns(UserWarning, match="no shortlist of up to 2 rows finds 0.99"):
        assert index.tune().stages == ()


def shallow(init: Callable[..., None]) -> Callable[..., None]:
    def made(self: Tuning, *args: Any) -> None:
        init(self, *args)
        self.depth = 2

    return made


def test_more_results_than_rows(cheap: dict[str, float]) -> None:
    index = nested_index(20, 64)
    plan = index.tune(k=50, recall=0.9)
    assert plan.k == 50
    assert index.search(clustered(2, 64), 50, recall=0.9)[1].shape == (2, 50)


def test_one_row() -> None:
    index = nested_index(1, 16)
    plan = index.tune(clustered(30, 16, seed=1), k=3)
    assert plan.stages == ()


def test_only_row_held_out() -> None:
    with pytest.raises(ValueError, match="a single row"):
        nested_index(1, 16).tune()


# Searches


def test_search_tunes_once(cheap: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    index = nested_index()
    q = clustered(5, 128, seed=1)
    first = index.search(q, 10, recall=0.9)
    assert [plan.recall for plan in index.plans] == [0.9]
    monkeypatch.setattr(nv.NestedIndex, "tune", None)
    assert (index.search(q, 10, recall=0.9)[1] == first[1]).all()
    assert (index.search(q, 10, recall=0.85)[1] == first[1]).all()  # one for more is good enough
    with pytest.raises(TypeError):
        index.search(q, 9, recall=0.9)  # another k would tune
    with pytest.raises(TypeError):
        index.search(q, 10, recall=0.95)


def test_all_of_them_is_exact_search(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multivector, "EXACT_BYTES", 0)
    q = clustered(3, 128, seed=1)
    index, docs = nested_index(), bag_index()
    assert (index.search(q, 10, recall=1)[1] == index.search(q, 10)[1]).all()
    assert (docs.search(q[:, :32], 10, recall=1.0)[1] == docs.search(q[:, :32], 10, exact=True)[1]).all()
    assert index.plans == docs.plans == ()
    assert index.tune(recall=1).stages == ()


def test_cheapest_sufficient_plan(cheap: dict[str, float]) -> None:
    index = nested_index()
    plans = [index.tune(recall=recall) for recall in (0.9, 0.97, 0.8)]
    assert index.plans == tuple(reversed(plans))
    assert index._stages(None, 0.85, 10, None, None) == plans[0]
    again = index.tune(recall=0.97, seed=1)
    assert index.plans == (again, plans[2], plans[0])
    index.clear()
    assert index.plans == ()


def test_few_plans_are_kept(cheap: dict[str, float]) -> None:
    index = nested_index(500, 64)
    for k in range(1, 20):
        index.tune(k=k, recall=0.5, sample=50)
    assert [plan.k for plan in index.plans] == list(range(19, 3, -1))


def test_shortlists_grow_with_the_index(cheap: dict[str, float]) -> None:
    index = nested_index()
    plan = index.tune(recall=0.9)
    assert plan.for_search(1, 3000) == plan.stages
    assert plan.for_search(1, 100) == plan.stages
    assert [s.keep for s in plan.for_search(1, 9000)] == [None if s.keep is None else 3 * s.keep for s in plan]
    index.add(clustered(6000, 128, seed=5))
    grown = index.explain(clustered(1, 128, seed=1), 10, plan)
    assert grown.stages[0].kept == 3 * plan.stages[0].keep


def test_batches_are_searched_exactly(cheap: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tuning, "_exact_from", lambda self, chain: 7)
    index = nested_index()
    plan = index.tune(recall=0.8)
    assert plan.for_search(6, 3000) == plan.stages
    assert plan.for_search(7, 3000) == ()
    assert "batches of 7 queries or more: exact" in str(plan)
    q = clustered(7, 128, seed=1)
    assert (index.search(q, 10, plan=plan)[1] == index.search(q, 10)[1]).all()


def test_real_times() -> None:
    """Nothing replaced: whatever is fastest here, it is good enough."""
    index = nested_index(20_000, 64)
    plan = index.tune(recall=0.9, sample=100)
    assert plan.lower >= 0.9
    assert 0 < plan.seconds <= plan.exact_seconds
    assert plan.exact_from is None or plan.exact_from >= 1


def test_searching_while_another_thread_tunes(cheap: dict[str, float]) -> None:
    index = nested_index()
    q = clustered(3, 128, seed=1)
    threads = [threading.Thread(target=lambda: index.search(q, 10, recall=0.9)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(index.plans) == 1


def test_progress(cheap: dict[str, float]) -> None:
    told: list[tuple[int, int, str]] = []
    nested_index().tune(recall=0.9, progress=lambda *step: told.append(step))
    assert told[0][0] == 0
    assert told[-1][0] == told[-1][1]
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert all(isinstance(what, str) and what for _, _, what in told)


# Plans as values


def test_dict_and_back(cheap: dict[str, float]) -> None:
    plan = nested_index(codes=("b1", "i4")).tune(recall=0.9)
    text = json.dumps(plan.to_dict(), allow_nan=False)
    again = nv.Plan.from_dict(json.loads(text))
    assert again == plan
    assert again.curve == plan.curve
    assert (len(plan), list(plan)) == (len(plan.stages), list(plan.stages))


@pytest.mark.parametrize(
    "change",
    [
        {"k": -1}, {"k": "10"}, {"recall": 2}, {"recall": float("nan")}, {"seconds": float("inf")}, {"seconds": -1.0},
        {"stages": [{"code": "b9"}]}, {"stages": [{"kode": "b1"}]}, {"stages": {}}, {"stages": [{"code": "b1"}] * 17},
        {"exact_from": 1.5}, {"held_out": 1}, {"backend": None}, {"more": 1}, {"curve": [{}]}, {"curve": None},
        {"rows": True}, {"curve": [{"stages": [], "expected": 1.0, "lower": 1.0, "seconds": 1.0}] * 257},
    ],
)  # fmt: skip
def test_other_dicts(change: dict[str, Any], cheap: dict[str, float]) -> None:
    given = nested_index(500, 64).tune(recall=0.5).to_dict()
    nv.Plan.from_dict(given)
    with pytest.raises(ValueError, match="this is no plan as"):
        nv.Plan.from_dict({**given, **change})
    for name in given:
        with pytest.raises(ValueError, match="no plan"):
            nv.Plan.from_dict({key: value for key, value in given.items() if key != name})


@pytest.mark.parametrize("junk", [None, [], "plan", 3])
def test_no_dict(junk: Any) -> None:
    with pytest.raises(ValueError, match="no plan"):
        nv.Plan.from_dict(junk)


def test_printed(cheap: dict[str, float]) -> None:
    text = str(nested_index().tune(recall=0.9))
    assert "plan for k=10, 128 dims, 3,000 rows: b1" in text
    assert "of 500 held-out rows" in text
    assert "asked for 0.9" in text


# Files


def planned(kind: str) -> Any:
    """A small index with two plans."""
    index: Any = bag_index(20) if kind == "bags" else nv.NestedIndex(64) if kind == "nested" else nv.BinaryIndex(64)
    if kind != "bags":
        index.add(clustered(100, 64))
    for recall in (0.5, 0.6):
        index.tune(k=3, recall=recall, sample=50)
    return index


@pytest.mark.parametrize("kind", ["nested", "binary", "bags"])
def test_saved_with_the_index(kind: str, tmp_path: Path) -> None:
    index = planned(kind)
    index.save(tmp_path / "x.nv")
    for other in (nv.load(tmp_path / "x.nv"), nv.load(tmp_path / "x.nv", mmap=True), pickle.loads(pickle.dumps(index))):
        assert other.plans == index.plans
        assert [plan.curve for plan in other.plans] == [plan.curve for plan in index.plans]
        other.save(tmp_path / "y.nv")
        assert (tmp_path / "x.nv").read_bytes() == (tmp_path / "y.nv").read_bytes()


@pytest.mark.parametrize("kind", ["nested", "binary", "bags"])
@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda plans: [], "another number of plans"),
        (lambda plans: plans * 9, "another number of plans"),
        (lambda plans: {"0": plans[0]}, "another number of plans"),
        (lambda plans: None, "another number of plans"),
        (lambda plans: [{}], "no plan as Plan.to_dict"),
        (lambda plans: [3], "no plan as Plan.to_dict"),
        (lambda plans: [{**plans[0], "more": 1}], "no plan as Plan.to_dict"),
        (lambda plans: [{**plans[0], "seconds": -1}], "no plan as Plan.to_dict"),
        (lambda plans: [{**plans[0], "dims": 2**40}], "plans for other dims"),
        (
            lambda plans: [{**plans[0], "stages": [{"code": "b1", "dims": plans[0]["dims"] + 1}]}],
            "plans for other dims",
        ),
        (lambda plans: [{**plans[0], "stages": [{"code": "b1", "keep": None}]}], "metadata that no"),
    ],
)
def test_hostile_plans(kind: str, change: Callable[[Any], Any], match: str) -> None:
    name, meta, sections = apart(files.to_bytes(planned(kind)))
    data = together(name, {**meta, "plans": change(meta["plans"])}, sections)
    with pytest.raises(nv.FileError, match=match):
        nv.load(data)


def test_only_tuned_indexes_ask_for_a_newer_reader() -> None:
    index = planned("nested")
    assert storage.open_file(files.to_bytes(index)).version == (1, 1)
    index.clear()
    assert storage.open_file(files.to_bytes(index)).version == (1, 0)


# Errors


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"recall": 0}, ValueError, "recall must be above 0 and at most 1, got 0"),
        ({"recall": 1.1}, ValueError, "recall must be above 0 and at most 1"),
        ({"recall": "most"}, TypeError, "recall must be a number"),
        ({"confidence": 0.5}, ValueError, "confidence must be above 0.5"),
        ({"confidence": 1}, ValueError, "confidence must be above 0.5"),
        ({"k": 0}, ValueError, "k must be at least 1"),
        ({"sample": 0}, ValueError, "sample must be at least 1"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"dims": 200}, ValueError, "dims must be between 1 and 64"),
        ({"queries": np.zeros((0, 64))}, ValueError, "tuning needs queries"),
        ({"queries": np.zeros((3, 63))}, ValueError, "63"),
        ({"queries": np.full((3, 64), np.nan)}, ValueError, "nan"),
    ],
)
def test_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    index = nested_index(100, 64)
    with pytest.raises(error, match=message):
        index.tune(**options)
    assert index.plans == ()


def test_search_refuses() -> None:
    index, docs = nested_index(100, 64), bag_index(20)
    q = clustered(1, 64)
    with pytest.raises(ValueError, match="plan or recall, not both"):
        index.search(q, 3, recall=0.9, plan=[nv.Stage("raw")])
    with pytest.raises(ValueError, match="recall must be above 0"):
        index.search(q, 3, recall=0)
    with pytest.raises(ValueError, match="leave out exact and candidates"):
        docs.search(q[:, :32], 3, recall=0.9, exact=True)
    with pytest.raises(ValueError, match="dims must be left out"):
        docs.tune(dims=10)


def test_empty() -> None:
    for index in (nv.NestedIndex(16), nv.BinaryIndex(16), bag_index(0)):
        with pytest.raises(ValueError, match="the index is empty"):
            index.tune()


def test_without_rows() -> None:
    index = nv.NestedIndex(64, rows=None)
    index.add(clustered(100, 64))
    with pytest.raises(ValueError, match="tuning reads stored rows"):
        index.tune()
