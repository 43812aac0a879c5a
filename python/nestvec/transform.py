"""What vectors go through before they are stored or searched: rotations that keep inner products, or any matrix."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from . import arrays, backends, parallel, slices
from .fitting import PANEL, packed
from .planes import padded
from .rotation import BlockRotation

Array = npt.NDArray[Any]
Read = Callable[[str, str, tuple[int, ...]], Array]  # an array by name, type and shape

ORTHOGONAL = 1e-5  # what products of a matrix's rows may be off by
SAMPLE = 100_000  # rows that a fit looks at, at most
CALL_WORK = 2**25  # multiplications of a call: Ctrl-C is answered between calls
CACHED = 2**17  # values that Hadamard transforms go over many times
BLAS_WORK = 2**28  # the same where numpy multiplies
BY_LEVEL = ("block-pca", "hadamard")
FITTED = ("pca", *BY_LEVEL)
KINDS = ("matrix", "permutation", *FITTED)
MATRIX, ORDER, ENERGY = "transform", "transform.order", "transform.energy"
LARGEST_SEED = 2**63 - 1


class Map(Protocol):
    """How a `Transform` is computed: on float32 rows, for the leading `dims` of the result, beyond float32 inf."""

    d_in: int
    d_out: int

    def apply(self, x: Array, dims: int) -> Array: ...
    def undo(self, y: Array) -> Array: ...
    def matrix(self) -> Array: ...
    def sections(self) -> dict[str, Array]: ...


class Dense:
    """x @ matrix."""

    def __init__(self, matrix: Array) -> None:
        self.d_in, self.d_out = matrix.shape
        self._matrix = _frozen(matrix)

    @cached_property
    def _forth(self) -> Array:
        return packed(self._matrix)

    @cached_property
    def _back(self) -> Array:
        return packed(self._matrix.T)

    def apply(self, x: Array, dims: int) -> Array:
        return _product(x, self._forth, dims)

    def undo(self, y: Array) -> Array:
        return _product(y, self._back, self.d_in)

    def matrix(self) -> Array:
        return self._matrix

    def sections(self) -> dict[str, Array]:
        return {MATRIX: self._matrix}


class Permuted:
    """x[:, order]."""

    def __init__(self, order: Array) -> None:
        self.d_in = self.d_out = len(order)
        self.order = _frozen(order.astype(np.int32))

    def apply(self, x: Array, dims: int) -> Array:
        return x.take(self.order[:dims], axis=1)

    def undo(self, y: Array) -> Array:
        return y.take(np.argsort(self.order), axis=1)

    def matrix(self) -> Array:
        return _frozen(np.eye(self.d_in, dtype=np.float32)[:, self.order])

    def sections(self) -> dict[str, Array]:
        return {ORDER: self.order}


class Hadamard:
    """A `BlockRotation` in float64, rounded once, so that a row's result does not depend on the rows beside it."""

    def __init__(self, bounds: Array, seed: int) -> None:
        self.d_in = self.d_out = int(bounds[-1])
        self.seed = seed
        self._rotation = BlockRotation(bounds, seed)

    def apply(self, x: Array, dims: int) -> Array:
        return self._sliced(x, dims, self._rotation.apply)

    def _sliced(self, x: Array, dims: int, turn: Callable[[Array], Array]) -> Array:
        out = np.empty((len(x), dims), np.float32)
        with np.errstate(over="ignore"):
            for some in slices.steps(len(x), self.d_in, CACHED):
                parallel.check()
                out[some] = turn(x[some].astype(np.float64))[:, :dims]
        return out

    def squares(self, x: Array, workers: int) -> Array:
        """The sums of squares of a sample of rows in each dim."""
        pieces, read = _sample(x, 4096 * self.d_out)
        sums = parallel.run(lambda piece: (self._rotation.apply(read(piece)) ** 2).sum(axis=0), pieces, workers)
        total: Array = np.add.reduce(sums, axis=0)
        return total

    def undo(self, y: Array) -> Array:
        return self._sliced(y, self.d_in, self._rotation.undo)

    def matrix(self) -> Array:
        return _frozen(self.apply(np.eye(self.d_in, dtype=np.float32), self.d_out))

    def sections(self) -> dict[str, Array]:
        return {}


class Transform:
    """A linear map that vectors go through before they are stored or searched: ``x @ matrix``.

    If the rows of the matrix are orthonormal it is a rotation: inner products, distances and cosines of whole vectors
    stay what they were, but for rounding, while their leading dims become others. Any other matrix, such as a trained
    adaptor, changes them: `orthogonal` says so. `fit_rotation` makes rotations for given vectors.

    Parameters
    ----------
    matrix : (d_in, d_out) array, or (d,) integers
        Of vectors of `d_in` dims it makes ones of `d_out`; kept as float32. Integers are a permutation: dim j of the
        result is dim ``matrix[j]`` of the vector.
    orthogonal : bool, optional
        True: it is an error if products of the matrix's rows are off by more than 1e-5. False: inner products may
        change. Default: as measured.

    Raises
    ------
    ValueError
        Another shape, NaN or Inf, integers that are no permutation; not orthogonal where it must be, with how far off.

    Notes
    -----
    Each value is a float64 sum in the order of dims, rounded to float32 once (a permutation moves values, as they are):
    the same bits for one vector or many, on every backend and any number of threads. Two transforms are equal if they
    are computed alike from the same numbers.

    Examples
    --------
    >>> import numpy as np
    >>> import nestvec as nv
    >>> swap = nv.Transform([1, 0, 2])
    >>> swap.apply([[5.0, 6.0, 7.0]]).tolist()
    [[6.0, 5.0, 7.0]]
    >>> adaptor = nv.Transform(np.ones((3, 2)))
    >>> adaptor
    Transform(kind='matrix', d_in=3, d_out=2, orthogonal=False)
    >>> adaptor.apply([1.0, 2.0, 3.0]).tolist()
    [6.0, 6.0]
    """

    def __init__(self, matrix: Any, *, orthogonal: bool | None = None) -> None:
        array = arrays.as_numpy(matrix, "transform")
        if array.ndim == 1:
            self._set("permutation", Permuted(_order(array)), True)
        elif array.ndim == 2:
            dense = Dense(_values(array))
            off = _deviation(dense.matrix()) if orthogonal is not False else np.inf
            if orthogonal:
                _refuse_oblique(dense, off)
            self._set("matrix", dense, bool(off <= ORTHOGONAL))
        else:
            raise ValueError(
                f"a transform is a matrix (d_in, d_out) or a permutation (d,), got an array of shape {array.shape}"
            )

    def _set(
        self, kind: str, how: Map, orthogonal: bool, levels: Array | None = None, energy: Array | None = None
    ) -> Transform:
        self._kind, self._map, self._orthogonal = kind, how, orthogonal
        self._levels = None if levels is None else tuple(levels.tolist())
        self._energy = None if energy is None else _frozen(energy)
        return self

    @property
    def kind(self) -> str:
        """``"pca"``, ``"block-pca"``, ``"hadamard"``, ``"permutation"``, or ``"matrix"`` for one that was given."""
        return self._kind

    @property
    def d_in(self) -> int:
        """Dims of vectors that are given."""
        return self._map.d_in

    @property
    def d_out(self) -> int:
        """Dims of vectors that are stored."""
        return self._map.d_out

    @property
    def orthogonal(self) -> bool:
        """Whether inner products of whole vectors stay what they were."""
        return self._orthogonal

    @property
    def levels(self) -> tuple[int, ...] | None:
        """Where prefixes keep their inner products, too: level ends of ``"block-pca"`` and ``"hadamard"``."""
        return self._levels

    @property
    def energy(self) -> Array | None:
        """Of a fitted rotation, the share of the squared norms in the first 1, 2, ..., d dims, (d,) float32."""
        return self._energy

    @property
    def matrix(self) -> Array:
        """``(d_in, d_out)`` float32, read-only; of permutations and ``"hadamard"`` made when it is asked for."""
        return self._map.matrix()

    @property
    def order(self) -> Array | None:
        """Of a permutation, (d,) int32, read-only."""
        return self._map.order if isinstance(self._map, Permuted) else None

    def apply(self, x: Any, *, threads: int | None = None) -> Array:
        """What an index stores of vectors.

        Parameters
        ----------
        x : (n, d_in) or (d_in,) array
            Of any type that `NestedIndex.add` takes.
        threads : int, optional
            Default: all cores this process may use, one for little work.

        Returns
        -------
        (n, d_out) or (d_out,) float32

        Raises
        ------
        ValueError, TypeError
            As `NestedIndex.add`; a value that the transform takes beyond float32 (row named).
        """
        return self._all(x, "x", self.d_in, self.d_out, self._rows, threads)

    def undo(self, y: Any, *, threads: int | None = None) -> Array:
        """The vectors that became `y`, by the transpose: as they were, but for rounding.

        Parameters
        ----------
        y : (n, d_out) or (d_out,) array
            As `NestedIndex.reconstruct` gives them.
        threads : int, optional
            As for `apply`.

        Returns
        -------
        (n, d_in) or (d_in,) float32

        Raises
        ------
        ValueError
            If the transform is not orthogonal; otherwise as `apply`.
        """
        if not self._orthogonal:
            raise ValueError("this transform is not orthogonal: its transpose does not undo it")
        return self._all(y, "y", self.d_out, self.d_in, self._undone, threads)

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that are the same for equal transforms."""
        return self._digest[:16]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Transform) and self._digest == other._digest

    def __hash__(self) -> int:
        return hash(self._digest)

    def __repr__(self) -> str:
        levels = "" if self._levels is None else f", levels={self._levels}"
        return (
            f"Transform(kind={self.kind!r}, d_in={self.d_in}, d_out={self.d_out}{levels}, orthogonal={self.orthogonal})"
        )

    def __reduce__(self) -> Any:
        return _unpickled, (self._described(), self._sections(), self.d_out)

    @cached_property
    def _digest(self) -> str:
        how = self._map
        text = f"{type(how).__name__.lower()};{how.d_in};{how.d_out}"
        text += f";{self._levels};{how.seed}" if isinstance(how, Hadamard) else ""
        digest = hashlib.sha256(text.encode())
        for array in how.sections().values():
            digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
        return digest.hexdigest()

    def _described(self) -> dict[str, Any]:
        """What a file says of it besides its arrays."""
        return {
            "kind": self._kind,
            "d": self.d_in,
            "orthogonal": self._orthogonal,
            "levels": None if self._levels is None else list(self._levels),
            "seed": self._map.seed if isinstance(self._map, Hadamard) else None,
        }

    def _sections(self) -> dict[str, Array]:
        """By the names that they have in files."""
        return self._map.sections() | ({} if self._energy is None else {ENERGY: self._energy})

    @classmethod
    def _restored(cls, given: dict[str, Any], d_out: int, read: Read) -> Transform:
        """Of what `_described` and `_sections` say; nothing of it is believed."""
        d_out, kind = arrays.integer(d_out, "d", 1, arrays.MAX_DIMS), arrays.one_of(given["kind"], "kind", KINDS)
        d_in = arrays.integer(given["d"], "d", 1, arrays.MAX_DIMS)
        bounds = arrays.level_bounds(given["levels"], d_out) if kind in BY_LEVEL else None
        orthogonal = kind != "matrix" or given["orthogonal"] is not False
        how: Map
        if kind == "hadamard":
            seed = arrays.integer(given["seed"], "seed", 0, LARGEST_SEED)
            how = Hadamard(arrays.level_bounds(given["levels"], d_out), seed)
        elif kind == "permutation":
            how = Permuted(_order(read(ORDER, "int32", (d_out,))))
        else:
            how = Dense(_values(read(MATRIX, "float32", (d_in, d_out))))
            if orthogonal:
                _refuse_oblique(how, _deviation(how.matrix()))
            if bounds is not None:
                _refuse_mixed(how.matrix(), bounds)
        energy = _shares(read(ENERGY, "float32", (d_out,))) if kind in FITTED else None
        return cls.__new__(cls)._set(kind, how, orthogonal, bounds, energy)

    def _rows(self, x: Array, name: str, first_row: int = 0, dims: int | None = None) -> Array:
        """The leading `dims` of a few rows; errors count rows from `first_row`."""
        values = arrays.to_float32(x, name, first_row)
        result = self._map.apply(values, self.d_out if dims is None else dims)
        _refuse_overflow(result, name, first_row)
        return result

    def _unchecked(self, x: Array) -> Array:
        """A few rows, of which some may be refused later."""
        return self._map.apply(x.astype(np.float32), self.d_out)

    def _queries(self, q: Any, dims: int) -> Array:
        """The leading `dims` of queries, (nq, dims) float32; a single vector is one query."""
        return self._each(self._whole(q), dims, lambda x, first: self._rows(x, "q", first, dims), 1)

    def _whole(self, q: Any) -> Array:
        """Queries as they are given, checked but for their values."""
        array = arrays.vectors(q, "q", single=True)
        if array.shape[1] != self.d_in:
            raise ValueError(
                f"q has {array.shape[1]} dims; this index transforms vectors of {self.d_in} dims, so a query needs all "
                "of them, as before the transform, whatever dims= says"
            )
        return array

    def _undone(self, y: Array, name: str, first_row: int) -> Array:
        result = self._map.undo(arrays.to_float32(y, name, first_row))
        _refuse_overflow(result, name, first_row)
        return result

    def _all(
        self, x: Any, name: str, given: int, width: int, some: Callable[[Array, str, int], Array], threads: int | None
    ) -> Array:
        array = arrays.as_numpy(x, name)
        rows = arrays.vectors(array, name, given, single=True)
        workers = parallel.threads_for(threads, len(rows) * self.d_in * self.d_out)
        result = self._each(rows, width, lambda part, first: some(part, name, first), workers)
        return result[0] if array.ndim == 1 else result

    def _each(self, x: Array, width: int, some: Callable[[Array, int], Array], workers: int) -> Array:
        pieces = list(slices.steps(len(x), max(self.d_in, self.d_out), slices.VALUES // 4))
        if len(pieces) == 1:
            return some(x, 0)
        out = np.empty((len(x), width), np.float32)

        def part(piece: slice) -> None:
            parallel.check()
            out[piece] = some(x[piece], piece.start)

        parallel.run(part, pieces, workers)
        return out


@dataclass(frozen=True)
class Untransformed:
    """Rows that an index was given, to be transformed a few thousand at a time while they are stored."""

    given: Array
    transform: Transform

    @property
    def shape(self) -> tuple[int, int]:
        """As they will be stored."""
        return len(self.given), self.transform.d_out

    def __len__(self) -> int:
        return len(self.given)

    def __getitem__(self, some: slice) -> Untransformed:
        return Untransformed(self.given[some], self.transform)


def fit_rotation(
    x: Any, kind: str = "pca", levels: Any = None, *, seed: int = 0, threads: int | None = None
) -> Transform:
    """A rotation that makes vectors nested: their leading dims then say most of what whole vectors do.

    Inner products of whole vectors stay what they were, so an exact search with ``NestedIndex(d, transform=...)`` finds
    what it found before; a search with ``dims=``, or a stage of a plan, reads the leading dims *after* the rotation.

    Parameters
    ----------
    x : (n, d) array
        Vectors like those to be stored; of more than 100,000 every second, third, ... is looked at.
    kind : {"pca", "block-pca", "hadamard"}
        ``"pca"``: along the eigenvectors of the second moments, largest first. No other rotation keeps more of the
        squared norms in its leading dims. For vectors that are not nested.
        ``"block-pca"``: the same inside each level. For vectors that are nested: the prefixes that end with a level
        keep their inner products, others inside a level become better.
        ``"hadamard"``: random signs and Hadamard transforms inside each level, which spread what few dims hold over
        all of them. Prefixes that end with a level keep their inner products.
    levels : iterable of int, optional
        Level ends, as of `NestedIndex`, with the same default; ``"pca"`` has none.
    seed : int
        Of the signs of ``"hadamard"``.
    threads : int, optional
        Default: all cores this process may use. numpy may use threads of its own.

    Returns
    -------
    Transform
        Its ``energy`` says how much of the squared norms the leading dims hold.

    Raises
    ------
    ValueError
        No rows; NaN or Inf; levels that are none.
    TypeError
        A dtype that holds no real numbers.

    Notes
    -----
    Moments are not centred: taking off the mean changes inner products, and what leading dims should hold is <x, x>,
    of which the mean is a part. The eigenvectors come from LAPACK, in float64, so those of another machine may differ
    in their last digits; what a given transform makes of vectors never does.

    Examples
    --------
    >>> import numpy as np
    >>> import nestvec as nv
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((1000, 4)) @ rng.standard_normal((4, 32))  # four directions, spread over all dims
    >>> rotation = nv.fit_rotation(x)
    >>> bool(rotation.energy[3] > 0.999)
    True
    >>> index = nv.NestedIndex(32, levels=(4,), metric="cosine", transform=rotation)
    >>> index.add(x)
    >>> index.search(x[:3], 1, dims=4)[1].ravel().tolist()
    [0, 1, 2]
    """
    arrays.one_of(kind, "kind", FITTED)
    rows = arrays.vectors(x, "x")
    seed = arrays.integer(seed, "seed", 0, LARGEST_SEED)
    if len(rows) == 0:
        raise ValueError(f"x has shape {rows.shape}: a rotation is fitted to at least one row")
    d = arrays.integer(rows.shape[1], "d", 1, arrays.MAX_DIMS)
    bounds = arrays.level_bounds((d,) if kind == "pca" else levels, d)
    how: Map
    if kind == "hadamard":
        how = Hadamard(bounds, seed)
        squares = how.squares(rows, parallel.threads_for(threads, len(rows) * d * 8))
    else:
        moments = second_moments(rows)
        how = _principal(moments, bounds)
        squares = _squares(moments, how.matrix())
    total = np.cumsum(np.maximum(squares, 0))
    energy = (total / (total[-1] or 1)).astype(np.float32)
    return Transform.__new__(Transform)._set(kind, how, True, None if kind == "pca" else bounds, energy)


def transform_of(given: Any, d: int) -> Transform | None:
    """What `NestedIndex` takes as its transform, checked."""
    if given is None:
        return None
    if isinstance(given, Transform):
        found = given
    else:
        array = arrays.as_numpy(given, "transform")
        if array.ndim == 2:
            _refuse_misfit(array.shape[0], array.shape[1], d)
        found = Transform(array, orthogonal=True)
    _refuse_misfit(found.d_in, found.d_out, d)
    return found


def _sample(x: Array, width: int) -> tuple[list[slice], Callable[[slice], Array]]:
    """Pieces of some rows, of `width` multiplications for each, but of 256 rows at least; and what reads one."""
    step = -(-len(x) // SAMPLE)
    some, name = x[::step], "x" if step == 1 else f"x[::{step}]"

    def read(piece: slice) -> Array:
        parallel.check()
        return arrays.to_float32(some[piece], name, piece.start).astype(np.float64)

    return list(slices.steps(len(some), width, max(BLAS_WORK, 256 * width))), read


def second_moments(x: Array) -> Array:
    """The sum of x_i x_i^T over a sample, float64."""
    d = x.shape[1]
    total, product = np.zeros((d, d)), np.empty((d, d))
    pieces, read = _sample(x, d * d)
    for piece in pieces:
        values = read(piece)
        total += np.matmul(values.T, values, out=product)
    return total


def _principal(moments: Array, bounds: Array) -> Dense:
    """Eigenvectors as columns, largest eigenvalue first, inside each level; the largest value of each is positive."""
    matrix = np.zeros(moments.shape, np.float32)
    for begin, end in pairwise([0, *bounds.tolist()]):
        parallel.check()
        axes = np.linalg.eigh(moments[begin:end, begin:end])[1][:, ::-1]
        largest = axes[np.abs(axes).argmax(axis=0), np.arange(end - begin)]
        matrix[begin:end, begin:end] = axes * np.where(largest < 0, -1.0, 1.0)
    return Dense(matrix)


def _squares(moments: Array, matrix: Array) -> Array:
    """The sums of squares in each dim after a rotation."""
    some = slices.steps(len(matrix), len(matrix) ** 2, BLAS_WORK)
    return np.concatenate([np.einsum("ij,ij->j", matrix[:, part], moments @ matrix[:, part]) for part in some])


def _product(x: Array, panels: Array, dims: int) -> Array:
    """Products of float32 rows with the first `dims` columns of panels."""
    count, d = padded(dims, PANEL) // PANEL, panels.shape[1]
    out, transform = np.empty((len(x), count * PANEL), np.float32), backends.current().transform_rows
    together = max(CALL_WORK // (d * PANEL), 1)  # panels, for one row
    for some in slices.steps(len(x), d * PANEL * min(count, together), CALL_WORK):
        wide = x[some].astype(np.float64, order="C")
        for first in range(0, count, together):
            parallel.check()
            last = min(first + together, count)
            piece = np.empty((len(wide), (last - first) * PANEL), np.float32)
            transform(wide, panels[first:last], piece)
            out[some, first * PANEL : last * PANEL] = piece
    return out if dims == out.shape[1] else np.ascontiguousarray(out[:, :dims])


def _deviation(matrix: Array) -> float:
    """How far products of rows are from those of orthonormal ones, at most; NaN or inf where they are beyond all."""
    d_in, d_out = matrix.shape
    if d_in > d_out:
        return np.inf
    wide, worst = matrix.astype(np.float64), 0.0
    for some in slices.steps(d_in, d_in * d_out, BLAS_WORK):
        parallel.check()
        with np.errstate(all="ignore"):
            products = wide[some] @ wide.T
        products[np.arange(len(products)), np.arange(some.start, some.stop)] -= 1
        worst = float(np.maximum(worst, np.abs(products).max()))
    return worst


def _refuse_oblique(given: Dense, off: float) -> None:
    if not off <= ORTHOGONAL:
        why = f"products of its rows are off by {off:.3g}, more than {ORTHOGONAL:g}"
        if given.d_in > given.d_out:
            why = f"it takes {given.d_in} dims to {given.d_out}"
        raise ValueError(
            f"transform is not orthogonal ({why}), so inner products would change; if that is wanted, as of a trained "
            "adaptor, pass nv.Transform(matrix, orthogonal=False)"
        )


def _refuse_mixed(matrix: Array, bounds: Array) -> None:
    for begin, end in pairwise([0, *bounds.tolist()]):
        if matrix[begin:end, :begin].any() or matrix[begin:end, end:].any():
            raise ValueError("a rotation inside levels has values outside of them")


def _refuse_misfit(d_in: int, d_out: int, d: int) -> None:
    if d_out == d:
        return
    hint = f"; rows are multiplied as x @ matrix: if it is transposed, pass transform.T, else d={d_out}"
    raise ValueError(
        f"transform takes vectors of {d_in} dims to {d_out}, and d={d} are to be stored"
        + (hint if d_in == d else f"; pass d={d_out}")
    )


def _refuse_overflow(result: Array, name: str, first_row: int) -> None:
    at = int(backends.current().first_nonfinite(result.reshape(-1)))
    if at >= 0:
        row, column = divmod(at, result.shape[1])
        raise ValueError(
            f"{name} is beyond the range of float32 after the transform, at row {first_row + row}, column {column}; "
            "rescale the vectors"
        )


def _values(array: Array) -> Array:
    """A matrix as float32 of its own."""
    for width in arrays.vectors(array, "transform").shape:
        arrays.integer(width, "dims of a transform", 1, arrays.MAX_DIMS)
    return np.array(arrays.to_float32(array, "transform"))


def _order(array: Array) -> Array:
    """A permutation, checked."""
    if array.dtype.kind not in "iu":
        raise TypeError(f"a transform of one dimension is a permutation, which needs integers, got dtype {array.dtype}")
    d = arrays.integer(len(array), "dims of a transform", 1, arrays.MAX_DIMS)
    if array.min() < 0 or array.max() >= d or len(np.unique(array)) != d:
        raise ValueError(f"transform is no permutation: each of the {d} numbers from 0 to {d - 1} must be there once")
    return array


def _shares(energy: Array) -> Array:
    if not (energy[0] >= 0 and energy[-1] <= 1 and (energy[1:] >= energy[:-1]).all()):
        raise ValueError("shares of squared norms must ascend from 0 to 1")
    return np.array(energy)


def _frozen(array: Array) -> Array:
    array.flags.writeable = False
    return array


def _unpickled(given: dict[str, Any], held: dict[str, Array], d_out: int) -> Transform:
    def read(name: str, dtype: str, shape: tuple[int, ...]) -> Array:
        array = held[name]
        if array.dtype.name != dtype or array.shape != shape:
            raise ValueError(f"{name} must be {dtype} {shape}, got {array.dtype} {array.shape}")
        return array

    return Transform._restored(given, d_out, read)
