"""Plans: stages of ever finer codes or more dims, each over the best rows of the one before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt

from . import arrays

Array = npt.NDArray[Any]

CODES = ("b1", "i4", "i8")
RAW = {"f32": "float32", "f16": "float16", "bf16": "bfloat16"}


@dataclass(frozen=True)
class Stage:
    """One stage of a plan: score rows by a code over the leading dims, and keep the best.

    Parameters
    ----------
    code : {"b1", "i4", "i8", "raw"}
        Signs of the row less the mean, against the float query; the high halves of the int8 codes; the int8 codes; the
        rows as stored, also by the name of their type, ``"f32"``, ``"f16"`` or ``"bf16"``. All but the last estimate.
        An index must keep what a stage reads.
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
        if self.dims is not None:
            arrays.integer(self.dims, "dims", 1)
        if self.keep is not None:
            arrays.integer(self.keep, "keep", 1)
        if self.times is not None:
            if isinstance(self.times, (bool, np.bool_)) or not isinstance(self.times, Real):
                raise TypeError(f"times must be a number, got {self.times!r}")
            if not 1 <= self.times <= 2**31:
                raise ValueError(f"times must be a number from 1 to 2^31, got {self.times!r}")


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
class Explanation:
    """Stages of a search in order, per query; printed as a table."""

    stages: tuple[StageReport, ...]

    def __str__(self) -> str:
        lines = [f"{'stage':<8}{'dims':>6}{'rows':>12}{'kept':>10}{'KB':>11}{'ms':>9}"]
        lines += [
            f"{s.code:<8}{s.dims:>6}{s.rows:>12,.0f}{s.kept:>10,.0f}{s.nbytes / 1e3:>11,.1f}{s.seconds * 1e3:>9.3f}"
            for s in self.stages
        ]
        return "\n".join(lines)


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
) -> list[Step]:
    """A plan for a search of k rows over `dims`, checked against what the index keeps.

    Raises
    ------
    TypeError
        Unless `plan` is a sequence of `Stage`.
    ValueError
        No stage; a code, or rows, that the index does not keep; `dims` beyond those of the vectors; a stage without,
        or with too small a shortlist.
    """
    stages = stages_of(plan)
    widths = [dims if stage.dims is None else arrays.integer(stage.dims, "dims", 1, dims) for stage in stages]
    steps: list[Step] = []
    for number, (stage, width) in enumerate(zip(stages, widths, strict=True), 1):
        code = _code(stage.code, kept, row_type)
        keep = _keep(stage, number == len(stages), k)
        if steps and min(keep, total) > steps[-1].keep:
            raise ValueError(f"stage {number} keeps {keep} rows of the {steps[-1].keep} that reach it; keep fewer")
        widest = max(w for s, w in zip(stages, widths, strict=True) if s.code == stage.code)
        before = steps[-1] if steps and steps[-1].code == code else None
        known = before is not None and before.dims <= width and before.dims == bounds[before.levels - 1]
        levels = int(np.searchsorted(bounds, width)) + 1
        steps.append(Step(code, width, widest, before.levels if before and known else 0, levels, min(keep, total)))
    return steps


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
