"""Plans: stages of ever finer codes or more dims, each over the best rows of the one before."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import lru_cache
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from . import arrays

Array = npt.NDArray[Any]

CODES = ("b1", "i4", "i8")
MOST_STAGES, MOST_POINTS = 16, 256  # of a plan that is read from a file
RESOLVED = 64  # plans that are kept as they were made for a search
RAW = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class Stage:
    """One stage of a plan: score rows by a code over the leading dims, and keep the best.

    Parameters
    ----------
    code : {"b1", "i4", "i8", "raw"}
        Signs of the row less the mean, against the float query; the high halves of the int8 codes; the int8 codes; the
        rows as stored, also by the name of their type, ``"f32"``, ``"f16"`` or ``"bf16"``. All but the last estimate.
        An index must keep what a stage reads; of a `BinaryIndex` that is ``"b1"``, bits that are counted exactly.
    dims : int, optional
        Leading dims; default: those of the search. Where no level ends, codes use the row's factors of the level that
        holds this dim.
    keep : int, optional
        Rows that go on to the next stage, at least k. Of rows with equal estimates those added first go on.
    times : float, optional
        The same as a multiple of k. Each stage but the last has one of the two.

    Examples
    --------
    >>> import numpy as np
    >>> import nestvec as nv
    >>> x = np.random.default_rng(0).standard_normal((2000, 256), dtype=np.float32)
    >>> index = nv.NestedIndex(256)
    >>> index.add(x)
    >>> plan = [nv.Stage("b1", dims=128, keep=400), nv.Stage("b1", times=10), nv.Stage("f32")]
    >>> D, I = index.search(x[:1], 3, plan=plan)
    >>> int(I[0, 0])
    0
    """

    code: str
    dims: int | None = None
    keep: int | None = None
    times: float | None = None

    def __post_init__(self) -> None:
        arrays.one_of(self.code, "code", (*CODES, "raw", *RAW))
        if self.keep is not None and self.times is not None:
            raise ValueError(f"a stage takes keep or times, not both: got keep={self.keep}, times={self.times}")
        for name in ("dims", "keep"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, arrays.integer(getattr(self, name), name, 1))
        if self.times is not None:
            if isinstance(self.times, (bool, np.bool_)) or not isinstance(self.times, Real):
                raise TypeError(f"times must be a number, got {self.times!r}")
            if not 1 <= self.times <= 2**31:
                raise ValueError(f"times must be a number from 1 to 2^31, got {self.times!r}")


@dataclass(frozen=True)
class Point:
    """A plan that was weighed: what share of the true neighbours it finds, and what a query takes."""

    stages: tuple[Stage, ...]
    expected: float
    lower: float  # bound of the recall, at the plan's confidence
    seconds: float

    def __str__(self) -> str:
        return " > ".join(_named(stage) for stage in self.stages) or "exact"


@dataclass(frozen=True)
class Plan:
    """What `tune` found: the cheapest stages that reach a recall, and what was measured to choose them.

    Iterating gives the stages; none means exact search. `search` takes a plan, or finds the one that fits `recall=`.
    For an index that has grown since, shortlists grow as it did.

    Parameters
    ----------
    stages : tuple of Stage
    k, dims : int
        What was tuned for; `dims` are bits for a `BinaryIndex`, values of an encoding for a `MultiVectorIndex`.
    recall, confidence : float
        What was asked for: the recall, and how sure it is to be reached by further queries like those of the sample.
    expected, lower : float
        Share of the true neighbours found for the sample, and its lower confidence bound.
    queries : int
        Size of the sample.
    held_out : bool
        Whether the sample was stored rows, each searched for among the others, and no queries were given.
    rows : int
        `ntotal` at that time.
    seconds, exact_seconds : float
        What one query takes by the plan and by exact search, medians.
    exact_from : int or None
        Batches of so many queries or more are searched exactly, because that is faster.
    backend : str
        Where times were measured.
    curve : tuple of Point
        The cheapest plan found with each first stage, fastest first.
    warning : str
        Why a recall is not promised, or empty.

    Examples
    --------
    >>> import numpy as np
    >>> import nestvec as nv
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((20_000, 16)) @ rng.standard_normal((16, 128))
    >>> index = nv.NestedIndex(128)
    >>> index.add(x)
    >>> plan = index.tune(k=10, recall=0.9, sample=100)
    >>> plan.expected >= plan.lower >= 0.9
    True
    """

    stages: tuple[Stage, ...]
    k: int
    dims: int
    recall: float
    confidence: float
    expected: float
    lower: float
    queries: int
    held_out: bool
    rows: int
    seconds: float
    exact_seconds: float
    exact_from: int | None
    backend: str
    curve: tuple[Point, ...] = ()
    warning: str = field(default="", compare=False)

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.stages)

    def __len__(self) -> int:
        return len(self.stages)

    def for_search(self, queries: int, rows: int) -> tuple[Stage, ...]:
        """Stages for a batch over an index of so many rows; none: exact search."""
        if self.exact_from is not None and queries >= self.exact_from:
            return ()
        return _grown(self.stages, max(rows / max(self.rows, 1), 1.0))

    def to_dict(self) -> dict[str, Any]:
        """The same as dicts, lists, numbers and strings, for JSON."""
        result = {**asdict(self), "stages": [_pruned(stage) for stage in self.stages]}
        result["curve"] = [{**asdict(point), "stages": [_pruned(s) for s in point.stages]} for point in self.curve]
        return result

    @classmethod
    def from_dict(cls, given: Any) -> Plan:
        """A plan from what `to_dict` gave.

        Raises
        ------
        ValueError
            For anything else.
        """
        try:
            values = {one.name: given[one.name] for one in fields(cls)}
            if set(given) != set(values) or len(given["curve"]) > MOST_POINTS:
                raise ValueError
            points = [Point(**{**one, "stages": _stages(one["stages"])}) for one in given["curve"]]
            plan = cls(**{**values, "stages": _stages(given["stages"]), "curve": tuple(points)})
            plan._check()
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
            raise ValueError("this is no plan as Plan.to_dict gives it") from None
        return plan

    def _check(self) -> None:
        counts = self.k, self.dims, self.queries, self.rows, 1 if self.exact_from is None else self.exact_from
        points = [(point.expected, point.lower, point.seconds) for point in self.curve]
        for shares in ((self.recall, self.confidence, self.expected, self.lower), *(some[:2] for some in points)):
            if not all(type(share) in (int, float) and 0 <= share <= 1 for share in shares):
                raise ValueError
        for seconds in (self.seconds, self.exact_seconds, *(some[2] for some in points)):
            if type(seconds) not in (int, float) or not 0 <= seconds < math.inf:
                raise ValueError
        if not all(type(count) is int and 0 <= count < 2**63 for count in counts):
            raise ValueError
        if type(self.held_out) is not bool or type(self.backend) is not str or type(self.warning) is not str:
            raise ValueError

    def __str__(self) -> str:
        kind = "held-out rows" if self.held_out else "queries"
        lines = [
            f"plan for k={self.k}, {self.dims} dims, {self.rows:,} rows: {Point(self.stages, 0, 0, 0)}",
            f"recall {self.expected:.4f} of {self.queries} {kind}, at least {self.lower:.4f} with confidence "
            f"{self.confidence:g}; asked for {self.recall:g}",
            f"{self.seconds * 1e3:.3f} ms a query, exact {self.exact_seconds * 1e3:.3f} ms ({self.backend})",
        ]
        if self.stages and self.exact_from is not None:
            lines.append(f"batches of {self.exact_from} queries or more: exact, which is faster")
        if self.warning:
            lines.append(f"warning: {self.warning}")
        if self.curve:
            width = max(len(str(point)) for point in self.curve)
            lines.append(f"{'weighed':<{width}}{'recall':>9}{'at least':>10}{'ms':>9}")
            lines += [
                f"{point!s:<{width}}{point.expected:>9.4f}{point.lower:>10.4f}{point.seconds * 1e3:>9.3f}"
                for point in self.curve
            ]
        return "\n".join(lines)


def _named(stage: Stage) -> str:
    dims = "" if stage.dims is None else f" {stage.dims}"
    return f"{stage.code}{dims}" + ("" if stage.keep is None else f" keep {stage.keep}")


def _pruned(stage: Stage) -> dict[str, Any]:
    return {key: value for key, value in asdict(stage).items() if value is not None}


def _stages(given: Any) -> tuple[Stage, ...]:
    if not isinstance(given, list) or len(given) > MOST_STAGES:
        raise ValueError
    return tuple(Stage(**one) for one in given)


@lru_cache(RESOLVED)
def _grown(stages: tuple[Stage, ...], growth: float) -> tuple[Stage, ...]:
    """Stages whose shortlists are longer by a factor."""
    return tuple(
        stage if stage.keep is None else replace(stage, keep=math.ceil(stage.keep * growth - 1e-9)) for stage in stages
    )


@dataclass(frozen=True)
class Step:
    """A stage as one search runs it: it touches `levels` levels, `begin` of them known from the stage before."""

    code: str
    dims: int
    widest: int  # the most dims of any stage of this code
    begin: int
    levels: int
    keep: int


@dataclass(frozen=True)
class StageReport:
    """What one stage of a search did, per query."""

    code: str
    dims: int
    rows: float  # scored
    kept: float
    nbytes: float  # of codes, factors or rows that scoring them asks for
    seconds: float


@dataclass(frozen=True)
class Certificate:
    """Why the answer of an exact search is exact.

    Each row has upper bounds on its score, after each level that is scanned. Where one of them is less than the k-th
    best exact score, the row is ruled out; all others are scored.
    """

    levels: tuple[int, ...]  # none where no level ends at the searched dims: every row is scored
    survivors: tuple[float, ...]  # rows that are not ruled out after each level, per query
    rows: float  # that may be found, per query
    scored: float  # per query; more than survive, since the k-th best score is not known from the beginning
    slack_min: float  # the k-th best score less the largest bound of the rows ruled out, of the queries the least
    slack_median: float  # inf where none is ruled out; as large as squared distances for l2

    def __str__(self) -> str:
        if not self.levels:
            return f"exact: no level ends at these dims, so all {self.rows:,.0f} rows were read and scored"
        left = ", ".join(f"{n:,.1f} by {end} dims" for n, end in zip(self.survivors, self.levels, strict=True))
        return (
            f"exact: of {self.rows:,.0f} rows upper bounds leave {left}; {self.scored:,.1f} were scored\n"
            f"the others fall short of the k-th best score by {self.slack_min:.4g} at least, {self.slack_median:.4g} "
            "in the median"
        )


@dataclass(frozen=True)
class Explanation:
    """Stages of a search in order, per query; printed as a table.

    The exact search of a `NestedIndex` has a `certificate`, too.
    """

    stages: tuple[StageReport, ...]
    certificate: Certificate | None = None

    def __str__(self) -> str:
        lines = [f"{'stage':<8}{'dims':>6}{'rows':>12}{'kept':>10}{'KB':>11}{'ms':>9}"]
        lines += [
            f"{s.code:<8}{s.dims:>6}{s.rows:>12,.0f}{s.kept:>10,.0f}{s.nbytes / 1e3:>11,.1f}{s.seconds * 1e3:>9.3f}"
            for s in self.stages
        ]
        return "\n".join(lines if self.certificate is None else [*lines, str(self.certificate)])


def staged(plan: Any, queries: int, rows: int) -> Any:
    """Stages for a batch of queries over an index of so many rows; None for exact search."""
    return (plan.for_search(queries, rows) or None) if isinstance(plan, Plan) else plan


def stages_of(plan: Any) -> list[Stage]:
    """The stages of what was passed as ``plan``.

    Raises
    ------
    TypeError
        Unless it is a stage or a sequence of stages.
    ValueError
        For no stages.
    """
    stages = [plan] if isinstance(plan, Stage) else plan
    if not isinstance(stages, (list, tuple)) or not all(isinstance(stage, Stage) for stage in stages):
        raise TypeError(f"plan must be a list of Stage, got {plan!r}")
    if not stages:
        raise ValueError("plan has no stages; leave it out for exact search")
    return list(stages)


def resolve(
    plan: Any, k: int, dims: int, total: int, bounds: Array, kept: Sequence[str], row_type: str | None
) -> tuple[Step, ...]:
    """A plan for a search of k rows over `dims`, checked against what the index keeps.

    Raises
    ------
    TypeError
        Unless `plan` is a sequence of `Stage`.
    ValueError
        No stage; a code, or rows, that the index does not keep; `dims` beyond those of the vectors; a stage without,
        or with too small a shortlist.
    """
    return _resolved(tuple(stages_of(plan)), k, dims, total, tuple(bounds.tolist()), tuple(kept), row_type)


@lru_cache(RESOLVED)
def _resolved(
    stages: tuple[Stage, ...], k: int, dims: int, total: int, ends: tuple[int, ...], kept: Sequence[str],
    row_type: str | None,
) -> tuple[Step, ...]:  # fmt: skip
    widths = [dims if stage.dims is None else arrays.integer(stage.dims, "dims", 1, dims) for stage in stages]
    steps: list[Step] = []
    for number, (stage, width) in enumerate(zip(stages, widths, strict=True), 1):
        code = _code(stage.code, kept, row_type)
        keep = _keep(stage, number == len(stages), k)
        if steps and min(keep, total) > steps[-1].keep:
            raise ValueError(f"stage {number} keeps {keep} rows of the {steps[-1].keep} that reach it; keep fewer")
        widest = max(w for s, w in zip(stages, widths, strict=True) if s.code == stage.code)
        before = steps[-1] if steps and steps[-1].code == code else None
        known = before is not None and before.dims <= width and before.dims == ends[before.levels - 1]
        levels = bisect_left(ends, width) + 1
        steps.append(Step(code, width, widest, before.levels if before and known else 0, levels, min(keep, total)))
    return tuple(steps)


def _code(code: str, kept: Sequence[str], row_type: str | None) -> str:
    if code not in RAW and code != "raw":
        refuse_unkept(code, kept, row_type)
        return code
    refuse_rowless(f'Stage("{code}")', kept, row_type, RAW.get(code, "float32"))
    if code in RAW and RAW[code] != row_type:
        raise ValueError(f'the rows of this index are {row_type}, a stage asks for {RAW[code]}; use "raw"')
    return "raw"


def refuse_unkept(code: str, kept: Sequence[str], row_type: str | None) -> None:
    """ValueError for a code the index does not keep."""
    if code not in kept:
        named = tuple(c for c in CODES if c == code or (c in kept and not (row_type and c == "i8")))
        what = f"{' and '.join(kept)} codes and {f'{row_type} rows' if row_type else 'no rows'}"
        raise ValueError(f"this index keeps no {code} codes; make it with codes={named} (it keeps {what})")


def refuse_rowless(what: str, kept: Sequence[str], row_type: str | None, wanted: str = "float32") -> None:
    """ValueError for `what` reads stored rows, where the index keeps none."""
    if row_type is None:
        raise ValueError(
            f"{what} reads stored rows, and this index keeps only {' and '.join(kept)} codes; make it with "
            f'rows="{wanted}"'
        )


def _keep(stage: Stage, last: bool, k: int) -> int:
    if last:
        if stage.keep is not None or stage.times is not None:
            raise ValueError("the last stage keeps the k rows asked for; leave out keep and times there")
        return k
    if stage.keep is None and stage.times is None:
        raise ValueError(f'Stage("{stage.code}") needs keep or times: how many rows go on to the next stage')
    keep = stage.keep if stage.keep is not None else int(np.ceil((stage.times or 1) * k - 1e-6))
    if keep < k:
        raise ValueError(f'Stage("{stage.code}") keeps {keep} rows, fewer than the k={k} asked for')
    return keep
