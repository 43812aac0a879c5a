"""What `nestvec.profile` found: figures, a table, a verdict in words, a plot."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABELS = {"raw": "leading dims", "pca": "after PCA", "random": "after a random rotation"}
BASES = tuple(LABELS)
TARGET = 0.99  # of the exact top k, in the shortlist that the verdict names
NOTABLE = 0.03  # difference of shares that is more than the luck of a sample
OFTEN = 0.01  # share of rows or queries from which the verdict speaks of them
FLAT = 1.1  # relative contrast below which scores hardly differ
UNEVEN = 1.1  # longest over shortest row from which the verdict speaks of it
FEW_ROWS = 100_000  # below, exact search is about as fast as any plan
COLORS = {"raw": "#0b62a4", "pca": "#d1495b", "random": "#8d99ae", "b1": "#edae49", "i4": "#66a182", "i8": "#2e4057"}
NAMES = {"b1": "signs", "i4": "4-bit codes", "i8": "int8 codes"}


@dataclass(frozen=True)
class Prefix:
    """The leading `dims` of the rows: as they are (``"raw"``), after PCA, or after a random rotation.

    Attributes
    ----------
    energy : float
        Share of the squared lengths of the rows, at unit length for ``cosine``.
    recall, shortlist : float
        Share of the exact top k among the best k, and among the best 10 k, by these dims alone.
    """

    basis: str
    dims: int
    energy: float
    recall: float
    shortlist: float


@dataclass(frozen=True)
class Code:
    """A code of the leading `dims`, as the rows are: `nbytes` a row, and the shares of `Prefix`."""

    code: str
    dims: int
    nbytes: int
    recall: float
    shortlist: float


@dataclass(frozen=True)
class Contrast:
    """Means over queries of the best and the k-th score and of the median score, as `search` gives scores.

    `relative` is the mean distance to a row over the mean distance to the nearest one, None where that is 0.
    """

    best: float
    kth: float
    median: float
    relative: float | None


@dataclass(frozen=True)
class Lengths:
    """Of the rows: smallest, median and largest, whether all are 1 (within .001), and the share that is 0."""

    smallest: float
    median: float
    largest: float
    unit: bool
    zero: float


@dataclass(frozen=True)
class Profile:
    """What `nestvec.profile` found; printed, a table and the verdict.

    Attributes
    ----------
    rows, dims, dtype, metric, k, levels
        Of the vectors and the question; `k` is smaller than asked for where there are fewer rows.
    searched : int
        Rows that were searched: all, or every second, third, ... of more than two million.
    queries : int
    held_out : bool
        Whether the queries were rows, each left out of its own truth and its own candidates.
    shortlist : int
        Length of the shortlists, 10 k or all rows.
    prefixes : tuple of Prefix
        For each basis and level.
    codes : tuple of Code
        For each code and level.
    contrast : Contrast
    intrinsic_dims : float or None
        Local intrinsic dimensionality by the nearest `neighbors` rows; None where it has no meaning.
    duplicates, near, ties : float
        Share of rows that repeat an earlier one bit for bit; share of queries whose nearest row is at less than a tenth
        of the median distance, copies included; share of queries whose k-th and next score are equal in float64.
    lengths : Lengths

    Examples
    --------
    >>> import numpy as np
    >>> import nestvec as nv
    >>> profile = nv.profile(np.random.default_rng(0).standard_normal((500, 96)), k=5)
    >>> isinstance(profile, nv.Profile), profile.levels
    (True, (64, 96))
    >>> [prefix.dims for prefix in profile.prefixes if prefix.basis == "pca"]
    [64, 96]
    """

    rows: int
    dims: int
    dtype: str
    metric: str
    k: int
    levels: tuple[int, ...]
    searched: int
    queries: int
    held_out: bool
    shortlist: int
    prefixes: tuple[Prefix, ...]
    codes: tuple[Code, ...]
    contrast: Contrast
    intrinsic_dims: float | None
    neighbors: int
    duplicates: float
    near: float
    ties: float
    lengths: Lengths

    @property
    def verdict(self) -> str:
        """What the figures mean for a search, in a few lines."""
        return "\n".join((*_of_codes(self), *_of_prefixes(self), *_warnings(self)))

    def to_dict(self) -> dict[str, Any]:
        """Everything, the verdict too, as dicts, lists, numbers and strings."""
        result = {name: list(map(_plain, v)) if isinstance(v, tuple) else _plain(v) for name, v in vars(self).items()}
        return {**result, "verdict": self.verdict}

    def __str__(self) -> str:
        return "\n".join((_head(self), "", *_table(self), "", *_facts(self), "", self.verdict))

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draw the shares of the exact top k by prefixes and codes.

        Parameters
        ----------
        path : path, optional
            Where to save the figure; the name says as what (.png, .pdf, .svg).

        Returns
        -------
        matplotlib.figure.Figure
            It belongs to no window, so no display is needed; notebooks show it.

        Raises
        ------
        RuntimeError
            Without matplotlib: ``pip install "nestvec[plot]"``.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise RuntimeError('a plot needs matplotlib: pip install "nestvec[plot]"') from None
        figure = Figure(figsize=(10, 4.2), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for axes, share, room in ((left, "recall", self.k), (right, "shortlist", self.shortlist)):
            _draw(axes, self, share)
            axes.set_title(f"exact top {self.k} within the best {room:,}")
        left.set_ylabel(f"share found, mean of {self.queries:,} queries")
        right.legend(frameon=False, loc="lower right")
        figure.suptitle(f"{self.rows:,} x {self.dims} {self.dtype}, {self.metric}")
        if path is not None:
            figure.savefig(path)
        return figure

    def at(self, basis: str) -> dict[int, Prefix]:
        """Prefixes of a basis by their dims."""
        return {prefix.dims: prefix for prefix in self.prefixes if prefix.basis == basis}


def _plain(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(one) for name, one in asdict(value).items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value  # JSON knows no other


def _draw(axes: Axes, profile: Profile, share: str) -> None:
    lines: list[tuple[str, str, str, Sequence[Prefix | Code]]] = []
    lines += [(basis, label, "-o", list(profile.at(basis).values())) for basis, label in LABELS.items()]
    for code, name in NAMES.items():
        lines.append((code, f"{name} ({code})", "--s", [one for one in profile.codes if one.code == code]))
    for key, label, style, points in lines:
        if not points:
            continue
        shares = [getattr(point, share) for point in points]
        axes.plot([p.dims for p in points], shares, style, color=COLORS[key], label=label, markersize=4, linewidth=1.2)
    axes.set_xscale("log", base=2)
    axes.set_xticks(profile.levels, [str(level) for level in profile.levels])
    axes.minorticks_off()
    axes.set_xlabel("leading dims")
    axes.set_ylim(-0.02, 1.02)
    axes.grid(alpha=0.3)


def _percent(share: float) -> str:
    if 0 < share < 0.001:
        return "under 0.1 %"
    return f"{100 * share:.1f}".removesuffix(".0") + " %"


def _head(profile: Profile) -> str:
    asked = f"{profile.queries:,} queries"
    if profile.held_out:
        asked = f"{profile.queries:,} rows as queries, each left out of its own answers"
    some = "" if profile.searched == profile.rows else f", {profile.searched:,} rows searched"
    return f"{profile.rows:,} x {profile.dims} {profile.dtype}, {profile.metric}; {asked}{some}"


def _table(profile: Profile) -> list[str]:
    k, width = profile.k, 7
    bases = [basis for basis in BASES if profile.at(basis)]
    groups = (("energy", bases), (f"top {k} in {k}", bases), (f"top {k} in {profile.shortlist}", [*bases, *NAMES]))
    lines = [
        "     " + "".join(f"  {title:<{width * len(columns)}}" for title, columns in groups).rstrip(),
        " dims" + "".join("  " + "".join(f"{column:>{width}}" for column in columns) for _, columns in groups),
    ]
    for dims in profile.levels:
        here = [profile.at(basis)[dims] for basis in bases]
        codes = [one for one in profile.codes if one.dims == dims]
        shortlists = [p.shortlist for p in here] + [code.shortlist for code in codes]
        shares = ([p.energy for p in here], [p.recall for p in here], shortlists)
        lines.append(
            f"{dims:>5}" + "".join("  " + "".join(f"{share:>{width}.3f}" for share in some) for some in shares)
        )
    return lines


def _facts(profile: Profile) -> list[str]:
    contrast, lengths, k = profile.contrast, profile.lengths, profile.k
    relative = "" if contrast.relative is None else f"; relative contrast {contrast.relative:.2f}"
    inner = "not defined" if profile.intrinsic_dims is None else f"{profile.intrinsic_dims:.1f}"
    unit = "all 1" if lengths.unit else f"{lengths.smallest:.3g} to {lengths.largest:.3g}, median {lengths.median:.3g}"
    copies = f"{_percent(profile.duplicates)} of rows repeat another one"
    return [
        f"scores      best {contrast.best:.3g}, {k}th {contrast.kth:.3g}, median {contrast.median:.3g}{relative}",
        f"dimensions  {inner}, by the nearest {profile.neighbors} rows (local intrinsic dimensionality)",
        f"copies      {copies}, {_percent(profile.near)} of queries have a row very near",
        f"ties        {_percent(profile.ties)} of queries between place {k} and the next",
        f"lengths     {unit}; {_percent(lengths.zero)} of rows are 0",
    ]


def _of_codes(profile: Profile) -> Iterator[str]:
    top, shortlist = f"of the exact top {profile.k}", profile.shortlist
    good = [code for code in profile.codes if code.shortlist >= TARGET]
    if not good:
        best = max(profile.codes, key=lambda code: code.shortlist)
        yield (
            f"Shortlist: no code holds {_percent(TARGET)} {top} in its best {shortlist}; {_named(best, profile)} hold "
            f"{_percent(best.shortlist)}. Search exactly, as is the default, or ask index.tune how many to keep."
        )
        return
    best = min(good, key=lambda code: (code.nbytes, -code.shortlist))
    cut = "" if best.dims == profile.dims else f" dims={best.dims},"
    yield (
        f"Shortlist: {_named(best, profile)}, {best.nbytes} bytes a row where float32 takes {4 * profile.dims}, hold "
        f"{_percent(best.shortlist)} {top} in their best {shortlist}:"
    )
    yield f'    plan=[nv.Stage("{best.code}",{cut} keep={shortlist}), nv.Stage("raw")]'
    if best.code == "i4":
        yield '    in an index with codes=("i4",).'
    if profile.rows < FEW_ROWS:
        yield f"    Exact search, the default, is about as fast for {profile.rows:,} rows."


def _named(code: Code, profile: Profile) -> str:
    return f"{NAMES[code.code]} of {'all' if code.dims == profile.dims else 'the first'} {code.dims} dims"


def _of_prefixes(profile: Profile) -> Iterator[str]:
    raw, pca, random = (profile.at(basis) for basis in BASES)
    below = profile.levels[:-1]
    if not below or not pca:
        return
    name, room = "shortlist", profile.shortlist
    if min(raw[below[0]].shortlist, random[below[0]].shortlist) >= TARGET:  # so long a list shows no difference
        name, room = "recall", profile.k
    share: Callable[[Prefix], float] = attrgetter(name)
    edge = max(below, key=lambda dims: abs(share(raw[dims]) - share(random[dims])))
    ahead = share(raw[edge]) - share(random[edge])
    nested = "Not trained to nest, the first dims hold what any others would"
    if abs(ahead) >= NOTABLE:
        nested = "Nested" if ahead > 0 else "Not trained to nest, the first dims hold less than others would"
    yield (
        f"{nested}: the first {edge} dims hold {_percent(share(raw[edge]))} of the exact top {profile.k} in their best "
        f"{room}, {edge} dims of a random rotation {_percent(share(random[edge]))}."
    )
    gain = max(below, key=lambda dims: share(pca[dims]) - share(raw[dims]))
    if share(pca[gain]) - share(raw[gain]) < NOTABLE:
        yield "PCA would add little, see the table."
        return
    yield (
        f'PCA: nv.fit_rotation(x, "pca") makes {gain} dims hold {_percent(share(pca[gain]))} where the first {gain} '
        f"hold {_percent(share(raw[gain]))}."
    )
    if profile.held_out and profile.searched < 2 * profile.queries:
        yield "    It was fitted to the queries too, which flatters it: give queries, or a smaller sample."


def _warnings(profile: Profile) -> Iterator[str]:
    relative, lengths, k = profile.contrast.relative, profile.lengths, profile.k
    if relative is not None and relative < FLAT:
        yield f"Low contrast: rows are but {relative:.2f} times as far as the nearest one, so bounds drop few of them."
    if profile.ties >= OFTEN:
        yield f"Ties: {_percent(profile.ties)} of queries have equal scores at place {k} and the next: ids decide."
    if profile.duplicates >= OFTEN:
        yield f"Copies: {_percent(profile.duplicates)} of rows repeat another one bit for bit and fill results with it."
    if lengths.zero > 0:
        yield f"Zeros: {_percent(lengths.zero)} of rows are zero vectors."
    if profile.metric == "ip" and lengths.largest > UNEVEN * lengths.smallest:
        yield (
            f"Lengths: {lengths.smallest:.3g} to {lengths.largest:.3g}, so inner products favour long rows; "
            'metric="cosine" does not.'
        )
