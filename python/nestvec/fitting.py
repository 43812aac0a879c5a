"""What a fitted encoder of fixed dimensional encodings takes from a sample of tokens."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import arrays, backends, draws, parallel, slices
from .planes import aligned, padded

Array = npt.NDArray[Any]

PANEL = 16  # columns side by side
CALL_WORK = 2**27  # multiplications of a call: Ctrl-C is answered between calls
SAMPLE = 200_000  # tokens that are looked at
FLOOR = 1e-6  # of variances, relative to the largest
CONSTANT = 1e-14  # variance of tokens that differ by their rounding only, relative to their square
ROTATIONS = 0x5EED0000  # added to the seed of rotations, so that their draws are not those of planes


@dataclass(frozen=True, eq=False, repr=False)
class Fit:
    """Arrays of a fitted `FixedDimensionalEncoder`; equal if all their bytes are.

    Parameters
    ----------
    mean : (dim,) float32
        What is taken off tokens.
    planes : (num_repetitions * num_simhash_projections, dim) float32
        Signs of products with these are the bits of partitions.
    projection : (dim, num_repetitions * width) float32
        Products with these columns are the values of a token, `width` of them for each repetition.
    """

    mean: Array
    planes: Array
    projection: Array

    def __post_init__(self) -> None:
        for f in fields(self):
            given = arrays.as_numpy(getattr(self, f.name), f.name)
            rows = arrays.vectors(given, f.name, given.shape[-1], single=True)
            kept = arrays.to_float32(rows, f.name).reshape(given.shape).copy()
            kept.flags.writeable = False
            object.__setattr__(self, f.name, kept)

    def __reduce__(self) -> Any:
        return Fit, (self.mean, self.planes, self.projection)

    @cached_property
    def digest(self) -> str:
        """Of the bytes of all arrays."""
        digest = hashlib.sha256()
        for f in fields(self):
            array = getattr(self, f.name)
            digest.update(f"{f.name}{array.shape}".encode() + array.astype("<f4").tobytes())
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fit) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Fit({self.digest[:16]})"

    def check(self, dim: int, columns: int, values: int) -> None:
        """ValueError unless the arrays are those of `columns` planes and `values` values of a token."""
        for name, wanted in (("mean", (dim,)), ("planes", (columns, dim)), ("projection", (dim, values))):
            if getattr(self, name).shape != wanted:
                raise ValueError(f"{name} of the fit must be {wanted}, got {getattr(self, name).shape}")


def fit_tokens(tokens: Array, repetitions: int, k: int, width: int, seed: int) -> Fit:
    """Mean, planes and projections for tokens like these.

    Raises
    ------
    ValueError
        For fewer than two tokens, and for a spread beyond float32.
    """
    if len(tokens) < 2:
        raise ValueError(f"a fit needs at least 2 tokens of documents, got {len(tokens)}")
    step = -(-len(tokens) // SAMPLE)
    name = "tokens" if step == 1 else f"tokens[::{step}]"
    mean, covariance = moments(arrays.to_float32(tokens[::step], name))
    variances, axes = spread(covariance, mean)
    planes = np.empty((repetitions, k, len(mean)))
    for r in range(repetitions):
        planes[r] = draws.gaussians(seed + r, planes[r].size).reshape(k, len(mean))
    planes = half_whitened(planes.reshape(repetitions * k, len(mean)), variances, axes)
    with np.errstate(over="ignore"):
        fitted = [a.astype(np.float32) for a in (mean, planes, rotated_axes(len(mean), repetitions, width, seed))]
    if not all(np.isfinite(a).all() for a in fitted):
        raise ValueError(f"tokens spread by {variances.max() ** 0.5:.1e}, too little for float32; scale them")
    return Fit(*fitted)


def moments(x: Array) -> tuple[Array, Array]:
    """Mean and covariance, float64."""
    d = x.shape[1]
    pieces = list(slices.steps(len(x), d * d, CALL_WORK // 4))
    mean, covariance = np.zeros(d), np.zeros((d, d))
    for some in pieces:
        mean += x[some].sum(axis=0, dtype=np.float64)
    mean /= len(x)
    for some in pieces:
        parallel.check()
        centred = x[some] - mean
        covariance += centred.T @ centred
    return mean, covariance / len(x)


def spread(covariance: Array, mean: Array) -> tuple[Array, Array]:
    """Variances along the principal axes, and these as columns; where nothing varies, the same along all axes."""
    variances, axes = np.linalg.eigh(covariance)
    if variances[-1] <= CONSTANT * (mean @ mean):
        return np.ones(len(mean)), np.eye(len(mean))
    return np.maximum(variances, FLOOR * variances[-1]), axes


def half_whitened(planes: Array, variances: Array, axes: Array) -> Array:
    """Rows times the fourth root of the inverse covariance, and then of unit variance."""
    coordinates = planes @ axes * (variances / variances.max()) ** -0.25
    lengths = np.sqrt((coordinates**2 * variances).sum(axis=1, keepdims=True))
    result: Array = (coordinates / lengths) @ axes.T
    return result


def rotated_axes(d: int, repetitions: int, width: int, seed: int) -> Array:
    """``(d, repetitions * width)``: columns of as many random rotations as it takes, of length sqrt(d / width)."""
    rotations = []
    for at in range(-(-repetitions * width // d)):
        drawn = draws.gaussians(seed + ROTATIONS + at, d * d).reshape(d, d).astype(np.float64)
        q, r = np.linalg.qr(drawn)
        rotations.append(q * np.where(r.diagonal() < 0, -1.0, 1.0))
    columns: Array = np.concatenate(rotations, axis=1)[:, : repetitions * width]
    columns *= (d / width) ** 0.5
    return columns


class FitTables(NamedTuple):
    """A fit as kernels read it; see `nestvec.kernels.fitted`."""

    mean: Array
    values: Array  # panels of the projection
    panels: Array  # those, and behind them panels of the planes
    shift: Array  # projection of the mean

    @classmethod
    def of(cls, fit: Fit, repetitions: int) -> FitTables:
        """Panels, and the projection of the mean by the backend in use."""
        d, k = len(fit.mean), len(fit.planes) // repetitions
        by_plane = fit.planes.reshape(repetitions, k, d).transpose(2, 1, 0).reshape(d, k * repetitions)
        values, planes = packed(fit.projection), packed(by_plane)
        panels = aligned((len(values) + len(planes), d, PANEL), np.float32)
        np.concatenate([values, planes], out=panels)
        values = panels[: len(values)]
        return cls(fit.mean, values, panels, projected(fit.mean[None], values)[0])


def packed(columns: Array) -> Array:
    """Columns ``(d, n)`` as panels ``(ceil(n / 16), d, 16)``, zeros at the end."""
    d, count = columns.shape
    panels = aligned((padded(count, PANEL) // PANEL, d, PANEL), np.float32)
    panels[:] = 0
    for at in range(len(panels)):
        some = columns[:, at * PANEL : (at + 1) * PANEL]
        panels[at, :, : some.shape[1]] = some
    return panels


def projected(x: Array, panels: Array) -> Array:
    """Products of tokens with the columns of panels."""
    out = np.empty((len(x), len(panels) * PANEL), np.float32)
    for some in slices.steps(len(x), panels.size, CALL_WORK):
        parallel.check()
        backends.current().project_tokens(x[some], panels, out[some])
    return out
