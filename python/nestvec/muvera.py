"""Fixed dimensional encodings (MUVERA): one vector for a bag of token vectors, whose inner products rank like MaxSim.

The encodings are those of the reference implementation (google/graph-mining, built with libstdc++), number by number:
same random draws, same order of arithmetic. Those of a fitted encoder are not, and rank better.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from . import arrays, backends, draws, parallel, slices
from .fitting import CALL_WORK, Fit, FitTables, fit_tokens, packed, projected
from .planes import aligned, padded

if TYPE_CHECKING:
    from .cuda.encoding import CudaEncoder

Array = npt.NDArray[Any]

MAX_SIZE = 2**31 - 1  # values of one encoding: entries of a sketch have 31 bits
MAX_BITS = 30
CHUNK_TOKENS = 4096  # encoded at a time, at most
CHUNK_VALUES = 1 << 21  # of encodings made at a time
LINE = 16  # floats of a cache line
TILE = 16  # tokens side by side
SUM, MEAN, SHRUNK = 0, 1, 2  # what a block is divided by, see `nestvec.kernels.fde`
VERSION = 1  # of the algorithm; part of the fingerprint


class SparseEncodings(NamedTuple):
    """Encodings without their empty blocks: those of query i are ``indptr[i]`` to ``indptr[i + 1]``."""

    values: Array  # (blocks, width) float32
    blocks: Array  # (blocks,) int32, ascending: repetition * 2^k + partition
    indptr: Array  # (n + 1,) int64


@dataclass(frozen=True)
class Occupancy:
    """How full the partitions are: few occupied ones, or many tokens in each, ask for another number of them."""

    partitions: int  # of one repetition
    occupied: Array  # (n,) float64: share of the partitions that hold a token, over all repetitions
    tokens: Array  # (n,) float64: mean number of tokens in those

    def __str__(self) -> str:
        if len(self.occupied) == 0:
            return "no documents"
        low, middle, high = (f"{share:.0%}" for share in np.quantile(self.occupied, [0, 0.5, 1]))
        return (
            f"{middle} of {self.partitions} partitions hold tokens of a document (median of {len(self.occupied)}; "
            f"{low} to {high}), {np.median(self.tokens):.1f} tokens in each that does"
        )


class Tables(NamedTuple):
    """Random numbers of one encoder, as kernels read them; see `nestvec.kernels.fde`."""

    gaussians: Array
    panels: Array
    reach: float
    ams: Array
    final: Array
    fitted: FitTables | None


@dataclass(frozen=True, repr=False)
class FixedDimensionalEncoder:
    """Encodes bags of token vectors as single vectors: inner products of encodings approximate MaxSim.

    Each of `num_repetitions` repetitions puts every token into one of ``2 ** num_simhash_projections`` partitions. A
    query's encoding holds the sum of the tokens in each partition, a document's their mean.

    Parameters
    ----------
    dim : int
        Dims of a token.
    num_repetitions : int, default 20
    num_simhash_projections : int, default 5
        Bits of a partition, 0 to 30.
    projection_dim : int, optional
        Values per partition, by a sketch of the tokens; default: the tokens themselves, `dim` values.
    final_projection_dim : int, optional
        Values of the whole encoding, by a sketch of it. Sparse queries and prefixes then no longer exist.
    fill_empty_partitions : bool, default False
        In documents a partition without tokens gets the token nearest to it. Queries are never filled.
    seed : int, default 1
        Encodings can be compared only if they were made with the same parameters: compare `fingerprint`.
    fit : Fit, optional
        Of an encoder made by `fitted`. None: the encodings of the reference.

    Raises
    ------
    ValueError
        For a parameter out of range, or an encoding of more than 2^31 - 1 values.

    Notes
    -----
    The first ``r * repetition_dim`` values are the encoding with r repetitions, unless there is a final projection.
    Encodings must not be normalised: their lengths matter.

    Examples
    --------
    >>> import numpy as np
    >>> import nestvec as nv
    >>> encoder = nv.FixedDimensionalEncoder(128, projection_dim=16)
    >>> encoder.fde_dim
    10240
    >>> tokens = np.random.default_rng(0).standard_normal((100, 128), dtype=np.float32)
    >>> documents = encoder.encode_documents(tokens, [0, 30, 30, 100])
    >>> queries = encoder.encode_queries([tokens[:10], tokens[40:72]])
    >>> (queries @ documents.T).argmax(axis=1).tolist()
    [0, 2]
    """

    dim: int
    _: KW_ONLY
    num_repetitions: int = 20
    num_simhash_projections: int = 5
    projection_dim: int | None = None
    final_projection_dim: int | None = None
    fill_empty_partitions: bool = False
    seed: int = 1
    fit: Fit | None = None
    _tables: Tables = field(init=False, repr=False, compare=False)
    _kept: threading.local = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check: Callable[..., int] = arrays.integer
        limits = {"num_simhash_projections": (0, MAX_BITS), "seed": (-(2**31), 2**32 - 1)}
        for name in ("dim", "num_repetitions", "num_simhash_projections", "seed"):
            object.__setattr__(self, name, check(getattr(self, name), name, *limits.get(name, (1, None))))
        for name in ("projection_dim", "final_projection_dim"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, check(getattr(self, name), name, 1))
        object.__setattr__(self, "fill_empty_partitions", bool(self.fill_empty_partitions))
        for size, what in ((self._size, "an encoding"), (self.fde_dim, "an encoding after its final projection")):
            if size > MAX_SIZE:
                raise ValueError(
                    f"{what} would have {size} values ({self.num_repetitions} repetitions of {self._partitions} "
                    f"partitions of {self._width} values), at most {MAX_SIZE} are possible; use fewer repetitions or "
                    "simhash projections, or a smaller projection"
                )
        if self.fit is not None:
            self._check_fit(self.fit)
        object.__setattr__(self, "_tables", self._draw())
        object.__setattr__(self, "_kept", threading.local())

    def _check_fit(self, fit: Fit) -> None:
        if not isinstance(fit, Fit):
            raise TypeError(f"fit must come from FixedDimensionalEncoder.fitted, got {type(fit).__name__}")
        if self.fill_empty_partitions:
            raise ValueError(
                "a fitted encoder leaves empty partitions empty: its queries reach several, and filled ones find less; "
                "use fill_empty_partitions=False"
            )
        fit.check(self.dim, self._columns, self.num_repetitions * self._width)

    @classmethod
    def fitted(
        cls,
        tokens: Any,
        *,
        num_repetitions: int = 20,
        num_simhash_projections: int = 5,
        projection_dim: int | None = 16,
        final_projection_dim: int | None = None,
        seed: int = 1,
    ) -> FixedDimensionalEncoder:
        """An encoder for tokens like these, whose shortlists are much better than the reference's at the same size.

        Parameters
        ----------
        tokens
            Of documents, in any form that `encode_documents` takes: all of them or a sample. At most 200,000 are looked
            at, evenly spaced.
        num_repetitions, num_simhash_projections, projection_dim, final_projection_dim, seed
            As for the reference.

        Returns
        -------
        FixedDimensionalEncoder
            With a `fit`. It works like any other, but for `fill_empty_partitions`, which it cannot have.

        Raises
        ------
        ValueError
            Fewer than two tokens; NaN or Inf; tokens whose spread is beyond float32.

        Notes
        -----
        With m the mean of the tokens and C their covariance, a token t of a document is x = t - m.

        - Tokens of a model share a large part, their mean. With it, planes through the origin miss most of them.
        - A plane is C^-1/4 g for the Gaussian g of the reference, made so long that <x, plane> has variance 1. Few
          directions hold most of the variance of tokens; all planes would cut along those.
        - The values of x in a repetition are its coordinates along `projection_dim` axes of a random rotation, the next
          ones in each repetition: together they are x again, without the collisions of a sketch.
        - A block is the sum of n tokens over n^0.75: more than their mean, since a block of many is met more often.
        - A token q of a query is above a plane with probability (1 + u / sqrt(1 + u^2)) / 2, u = 2 <q - m, plane>. It
          is in every partition whose bits have a probability above 0.1, with that weight: a near miss still counts.
        - The values of queries keep the mean, as <q, x> orders documents like <q, t>. Each token weighs |q - m|^2 more:
          what lies near the mean is found in every document.

        Fits made on different machines may differ in their last places. Copies and pickles of an encoder keep its fit;
        what two encoders make can be compared if their fingerprints are equal.

        Examples
        --------
        >>> import numpy as np
        >>> import nestvec as nv
        >>> tokens = np.random.default_rng(0).standard_normal((1000, 128), dtype=np.float32) + 1
        >>> encoder = nv.FixedDimensionalEncoder.fitted(tokens)
        >>> encoder.encode_documents(tokens, [0, 500, 1000]).shape
        (2, 10240)
        """
        bags = arrays.ragged(tokens, "tokens")
        plain = cls(
            bags.tokens.shape[1],
            num_repetitions=num_repetitions,
            num_simhash_projections=num_simhash_projections,
            projection_dim=projection_dim,
            final_projection_dim=final_projection_dim,
            seed=seed,
        )
        repetitions, k = plain.num_repetitions, plain.num_simhash_projections
        return replace(plain, fit=fit_tokens(bags.tokens, repetitions, k, plain._width, plain.seed))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(self._described())})"

    def _described(self) -> list[str]:
        """Parameters as text: those of the reference, and a fit if there is one."""
        named = [f.name for f in fields(self) if f.init and (f.name != "fit" or self.fit is not None)]
        return [f"{name}={getattr(self, name)!r}" for name in named]

    def __reduce__(self) -> Any:
        """Copies and pickles draw their tables anew."""
        parameters = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        return partial(type(self), **parameters), ()

    @cached_property
    def fde_dim(self) -> int:
        """Values of one encoding."""
        return self.final_projection_dim or self._size

    @property
    def repetition_dim(self) -> int:
        """Values of one repetition, before any final projection."""
        return self._partitions * self._width

    @property
    def _partitions(self) -> int:
        return 1 << self.num_simhash_projections

    @property
    def _width(self) -> int:
        return self.projection_dim or self.dim

    @cached_property
    def _size(self) -> int:
        return self.num_repetitions * self.repetition_dim

    def _draw(self) -> Tables:
        """Every random matrix starts its generator anew, as the reference does."""
        k, d, count = self.num_simhash_projections, self.dim, self.num_repetitions
        gaussians = np.empty((count, k, d))
        ams = np.empty((count if self.projection_dim and self.fit is None else 0, d), np.int32)
        for r in range(count if self.fit is None else 0):
            gaussians[r] = draws.gaussians(self.seed + r, k * d).reshape(k, d)
            if self.projection_dim:
                ams[r] = draws.sketch(self.seed + r, d, self.projection_dim)
        if self.fit is not None:
            gaussians[:] = self.fit.planes.reshape(count, k, d)
        final = np.empty(0, np.int32)
        if self.final_projection_dim:
            final = draws.sketch(self.seed, self._size, self.final_projection_dim)
        reach = float(abs(gaussians).sum(axis=2).max()) if k else 0.0
        fitted = FitTables.of(self.fit, count) if self.fit is not None else None
        return Tables(gaussians.reshape(count * k, d), panels_of(gaussians), reach, ams, final, fitted)

    def encode_documents(
        self,
        tokens: Any,
        offsets: Any = None,
        *,
        scales: Any = None,
        out: Array | None = None,
        dtype: str = "float32",
        threads: int | None = None,
    ) -> Array:
        """Encodings of documents: the mean of the tokens in each partition.

        Parameters
        ----------
        tokens : (N, dim) array, list of (n_i, dim) arrays, or (n, length, dim) array
            float32, float16, bfloat16, float64 or integers, finite. Padding counts as tokens: leave it out.
        offsets : (n + 1,) integers, optional
            Document i is ``tokens[offsets[i] : offsets[i + 1]]``. Without, an (N, dim) array is one document.
        scales : (N,) array, optional
            Token i is ``scales[i] * tokens[i]``, as for int8 tokens.
        out : (n, fde_dim) array, optional
            Where to write, of type `dtype`.
        dtype : {"float32", "float16"}
        threads : int, optional
            Default: all cores this process may use, one for little work. The result does not depend on it.

        Returns
        -------
        (n, fde_dim) array, or (fde_dim,) for one document given as an array
            A document without tokens is all zeros.

        Raises
        ------
        ValueError
            Tokens of other dims; offsets that do not ascend from 0 to N; NaN or Inf (row and column named); a document
            without tokens where partitions are to be filled; values beyond float16.
        TypeError
            A dtype that holds no real numbers.
        """
        bags = self._bags(tokens, offsets, scales)
        if self.fill_empty_partitions and (bags.offsets[1:] == bags.offsets[:-1]).any():
            at = int((bags.offsets[1:] == bags.offsets[:-1]).argmax())
            raise ValueError(
                f"document {at} has no tokens, so there is nothing to fill its partitions with; leave it out, or use "
                "fill_empty_partitions=False, which encodes it as zeros"
            )
        return self._encode(bags, True, out, dtype, threads)

    @overload
    def encode_queries(
        self,
        tokens: Any,
        offsets: Any = ...,
        *,
        scales: Any = ...,
        sparse: Literal[False] = ...,
        fill_empty_partitions: bool = ...,
        out: Array | None = ...,
        dtype: str = ...,
        threads: int | None = ...,
    ) -> Array: ...
    @overload
    def encode_queries(
        self,
        tokens: Any,
        offsets: Any = ...,
        *,
        scales: Any = ...,
        sparse: Literal[True],
        fill_empty_partitions: bool = ...,
        out: Array | None = ...,
        dtype: str = ...,
        threads: int | None = ...,
    ) -> SparseEncodings: ...
    def encode_queries(
        self,
        tokens: Any,
        offsets: Any = None,
        *,
        scales: Any = None,
        sparse: bool = False,
        fill_empty_partitions: bool = False,
        out: Array | None = None,
        dtype: str = "float32",
        threads: int | None = None,
    ) -> Array | SparseEncodings:
        """Encodings of queries: the sum of the tokens in each partition. Empty ones are zero, whatever documents have.

        Parameters
        ----------
        tokens, offsets, scales, out, dtype, threads
            As for `encode_documents`.
        sparse : bool, default False
            Return only the blocks that hold tokens: at most one for each token and repetition.
        fill_empty_partitions : bool, default False
            There is no such query: True is an error, as in the reference.

        Returns
        -------
        (n, fde_dim) array, or (fde_dim,) for one query given as an array
            With `sparse`, a tuple ``(values, blocks, indptr)``: the (blocks, width) float32 values, for each block its
            number, repetition * 2^k + partition, and (n + 1,) where each query's blocks begin.

        Raises
        ------
        ValueError
            As `encode_documents`; a query without tokens; `sparse` with a final projection, `out` or another `dtype`.
        """
        if fill_empty_partitions:
            raise ValueError(
                "queries cannot be filled: fill_empty_partitions is of documents only, and an encoder that has it "
                "leaves the empty partitions of queries zero"
            )
        bags = self._bags(tokens, offsets, scales)
        if (bags.offsets[1:] == bags.offsets[:-1]).any():
            at = int((bags.offsets[1:] == bags.offsets[:-1]).argmax())
            raise ValueError(f"query {at} has no tokens; leave it out: an encoding of zeros ranks nothing")
        if not sparse:
            return self._encode(bags, False, out, dtype, threads)
        if self.final_projection_dim:
            raise ValueError(
                "sparse=True needs an encoder without final_projection_dim: a final projection leaves no empty blocks"
            )
        if out is not None or dtype != "float32":
            raise ValueError('sparse=True returns new float32 arrays; leave out `out`, and dtype at "float32"')
        return self._encode_sparse(bags, threads)

    def to(self, device: str = "cuda") -> CudaEncoder:
        """The same encoder on a GPU, whose encodings have the same bits.

        Parameters
        ----------
        device : str, default "cuda"
            The current device, or one by its number: ``"cuda:1"``.

        Returns
        -------
        nestvec.cuda.encoding.CudaEncoder

        Raises
        ------
        ImportError
            If nestvec was built without CUDA kernels.
        RuntimeError
            If there is no GPU.
        """
        from .cuda.device import Device
        from .cuda.encoding import CudaEncoder

        return CudaEncoder(self, Device(device))

    def partitions(self, tokens: Any, *, scales: Any = None, threads: int | None = None) -> Array:
        """Partition of each token in each repetition, below ``2 ** num_simhash_projections``.

        Parameters
        ----------
        tokens, scales, threads
            As for `encode_documents`.

        Returns
        -------
        (N, num_repetitions) uint32

        Examples
        --------
        >>> import nestvec as nv
        >>> encoder = nv.FixedDimensionalEncoder(2, num_repetitions=3, num_simhash_projections=2)
        >>> encoder.partitions([[1.0, 0.0], [-1.0, 0.0]]).tolist()
        [[3, 1, 1], [1, 3, 3]]
        """
        bags = self._bags(arrays.vectors(tokens, "tokens", self.dim), None, scales)
        result = np.empty((len(bags.tokens), self.num_repetitions), np.uint32)

        def part(first: int) -> None:
            x = self._centred(bags, first, min(first + chunk, len(result)))
            self._simhash(x, result[first : first + len(x)])

        work, chunk = len(result) * self._columns * self.dim, self._chunk()
        parallel.run(part, range(0, len(result), chunk), parallel.threads_for(threads, work))
        return result

    def occupancy(self, tokens: Any, offsets: Any = None, *, scales: Any = None) -> Occupancy:
        """What share of the partitions the tokens of each document occupy, and how many share one.

        Examples
        --------
        >>> import numpy as np
        >>> import nestvec as nv
        >>> tokens = np.random.default_rng(0).standard_normal((100, 128), dtype=np.float32)
        >>> print(nv.FixedDimensionalEncoder(128).occupancy(tokens, [0, 30, 100]))
        76% of 32 partitions hold tokens of a document (median of 2; 62% to 89%), 2.0 tokens in each that does
        """
        bags = self._bags(tokens, offsets, scales)
        total = self.num_repetitions * self._partitions
        distinct = np.zeros(len(bags), np.int64)
        for first, last in self._spans(bags):
            _, partitions = self._partitioned(bags, first, last)
            distinct[first:last] = np.bincount(
                self._occupied(bags, first, last, partitions) // total, minlength=last - first
            )
        tokens_of = np.diff(bags.offsets) * self.num_repetitions
        return Occupancy(self._partitions, distinct / total, tokens_of / np.maximum(distinct, 1))

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits of all parameters and the version of the algorithm, to keep beside encodings.

        Examples
        --------
        >>> import nestvec as nv
        >>> nv.FixedDimensionalEncoder(128).fingerprint() == nv.FixedDimensionalEncoder(128, seed=2).fingerprint()
        False
        """
        text = ";".join(self._described())
        return hashlib.sha256(f"muvera/{VERSION};{text}".encode()).hexdigest()[:16]

    @property
    def _columns(self) -> int:
        return self.num_repetitions * self.num_simhash_projections

    def _bags(self, tokens: Any, offsets: Any, scales: Any) -> Bags:
        single = offsets is None and getattr(tokens, "ndim", 0) == 2
        bags = arrays.ragged(tokens, "tokens", self.dim, offsets)
        if scales is not None:
            scales = arrays.to_float32(arrays.vectors(arrays.as_numpy(scales, "scales")[:, None], "scales"), "scales")
            if scales.shape != (len(bags.tokens), 1):
                raise ValueError(f"scales must be ({len(bags.tokens)},), one for each token, got {len(scales)} of them")
        return Bags(bags.tokens, bags.offsets, scales, single)

    def _chunk(self) -> int:
        """Tokens encoded at a time."""
        most = CHUNK_TOKENS if self.fit is None else CHUNK_TOKENS // 4  # their projections stay in the cache
        return max(min(most, CALL_WORK // (self.dim * max(self._multiplied, 1))), 1)

    def _most_bags(self) -> int:
        """Bags encoded at a time."""
        return max(CHUNK_VALUES // max(self._size, self.fde_dim), 1)

    @property
    def _multiplied(self) -> int:
        """Columns that tokens are multiplied by."""
        return self._columns + (0 if self.fit is None else self.num_repetitions * self._width)

    def _spans(self, bags: Bags) -> list[tuple[int, int]]:
        """Runs of bags of some thousand tokens, and at most so many that their encodings stay small."""
        spans, first, chunk, most = [], 0, self._chunk(), self._most_bags()
        if len(bags.tokens) <= chunk and 0 < len(bags) <= most:
            return [(0, len(bags))]
        while first < len(bags):
            end = int(np.searchsorted(bags.offsets, bags.offsets[first] + chunk, "right")) - 1
            last = min(max(end, first + 1), first + most, len(bags))
            spans.append((first, last))
            first = last
        return spans

    def _centred(self, bags: Bags, begin: int, end: int) -> Array:
        """Tokens of a run, less the mean of a fit."""
        parts = [
            self._centred_some(bags, begin + some.start, begin + some.stop)
            for some in slices.steps(max(end - begin, 1), self.dim)
        ]
        return slices.joined(parts)

    def _centred_some(self, bags: Bags, begin: int, end: int) -> Array:
        x, fitted = bags.float32(begin, end), self._tables.fitted
        if fitted is None:
            return x
        with np.errstate(over="ignore"):
            return arrays.to_float32(x - fitted.mean, "tokens less their mean", begin)

    def _simhash(self, x: Array, partitions: Array) -> None:
        tables, k = self._tables, self.num_simhash_projections
        for some in slices.steps(len(x), self.dim * max(self._columns, 1), CALL_WORK):
            parallel.check()
            backends.current().simhash(x[some], tables.gaussians, tables.panels, tables.reach, k, partitions[some])

    def _partitioned(self, bags: Bags, first: int, last: int) -> tuple[Array, Array]:
        """Tokens of a span of bags, centred, and their partitions."""
        x = self._centred(bags, int(bags.offsets[first]), int(bags.offsets[last]))
        partitions = np.empty((len(x), self.num_repetitions), np.uint32)
        self._simhash(x, partitions)
        return x, partitions

    def _encode_span(self, bags: Bags, first: int, last: int, average: bool, out: Array) -> Array | None:
        """Encodings of a span of bags into `out`, C-contiguous float32; returns partitions, where tokens have one."""
        tables, k, fill = self._tables, self.num_simhash_projections, average and self.fill_empty_partitions
        offsets, mode = bags.offsets[first : last + 1] - bags.offsets[first], MEAN if average else SUM
        if tables.fitted is not None and not average:
            self._probe(bags, first, last, tables.fitted, out)
            return None
        x, partitions = self._partitioned(bags, first, last)
        if tables.fitted is not None:
            x, mode = projected(x, tables.fitted.values), SHRUNK
        rest = (tables.ams, tables.final, k, mode, fill, self._scratch(fill), out)
        backends.current().encode_bags(x, offsets, partitions, *rest)
        return partitions

    def _probe(self, bags: Bags, first: int, last: int, fitted: FitTables, out: Array) -> None:
        """Encodings of a span of queries by a fit."""
        offsets = bags.offsets[first : last + 1] - bags.offsets[first]
        x = self._centred(bags, int(bags.offsets[first]), int(bags.offsets[last]))
        tokens = (x, projected(x, fitted.panels), offsets, fitted.shift)
        shape = (self._tables.final, self.num_repetitions, self.num_simhash_projections)
        backends.current().encode_probes(*tokens, *shape, self._scratch(False), out)

    def _scratch(self, fill: bool) -> Array:
        """This thread's scratch, kept from call to call: fresh memory costs more than a query."""
        scratch: Array | None = getattr(self._kept, "scratch", None)
        if scratch is None or len(scratch) < self._scratch_size(fill):
            scratch = self._kept.scratch = aligned((self._scratch_size(fill),), np.float32)
        return scratch

    def _scratch_size(self, fill: bool) -> int:
        """Floats that a compiled kernel needs for one bag.

        Counts and, where there are any, blocks before a final projection, tokens to fill with, keys of the hypercube,
        and two tiles of tokens with their sketches.
        """
        copies = bool(self.final_projection_dim) + bool(fill and self.projection_dim)
        size = self.num_repetitions * self._partitions + copies * self._size + 2 * fill * self._partitions
        tiles = 2 * TILE * (self.dim + self._width + padded(self._width, TILE))
        return padded(size + (tiles if len(self._tables.ams) else 0), LINE)

    def _encode(self, bags: Bags, average: bool, out: Array | None, dtype: str, threads: int | None) -> Array:
        arrays.one_of(dtype, "dtype", ("float32", "float16"))
        shape = (self.fde_dim,) if bags.single else (len(bags), self.fde_dim)
        if out is None:
            out = np.empty(shape, dtype)
        elif not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != dtype or not out.flags.writeable:
            raise ValueError(f"out must be a writeable {dtype} array of shape {shape}, got {describe(out)}")
        rows = out[None] if bags.single else out
        direct = rows.dtype == np.float32 and rows.flags.c_contiguous and rows.flags.aligned

        def part(span: tuple[int, int]) -> None:
            first, last = span
            target = rows[first:last] if direct else np.empty((last - first, self.fde_dim), np.float32)
            self._encode_span(bags, first, last, average, target)
            if not direct:
                rows[first:last] = target if dtype == "float32" else to_float16(target, first)

        parallel.run(part, self._spans(bags), self._threads(bags, threads))
        return out

    def _threads(self, bags: Bags, threads: int | None) -> int:
        work = len(bags.tokens) * self.dim * self._multiplied + len(bags) * (self._size + self.fde_dim)
        return parallel.threads_for(threads, work)

    def _occupied(self, bags: Bags, first: int, last: int, partitions: Array) -> Array:
        """Numbers of the blocks with tokens, ascending; those of each bag follow those of the one before."""
        lengths = np.diff(bags.offsets[first : last + 1])
        bag = np.repeat(np.arange(last - first), lengths)[:, None]
        number = (bag * self.num_repetitions + np.arange(self.num_repetitions)) * self._partitions + partitions
        return np.unique(number)

    def _encode_sparse(self, bags: Bags, threads: int | None) -> SparseEncodings:
        total = self.num_repetitions * self._partitions

        def part(span: tuple[int, int]) -> tuple[Array, Array, Array]:
            first, last = span
            dense = np.empty((last - first, self._size), np.float32)
            partitions = self._encode_span(bags, first, last, False, dense)
            if partitions is None:
                occupied = np.flatnonzero(dense.reshape(-1, self._width).any(axis=1))
            else:
                occupied = self._occupied(bags, first, last, partitions)
            counts = np.bincount(occupied // total, minlength=last - first)
            return dense.reshape(-1, self._width)[occupied], (occupied % total).astype(np.int32), counts

        parts = parallel.run(part, self._spans(bags), self._threads(bags, threads))
        if not parts:
            return SparseEncodings(np.empty((0, self._width), np.float32), np.empty(0, np.int32), np.zeros(1, np.int64))
        values, blocks, counts = (slices.joined(some) for some in zip(*parts, strict=True))
        return SparseEncodings(values, blocks, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))


class Bags(NamedTuple):
    """Checked arguments of one call."""

    tokens: Array
    offsets: Array
    scales: Array | None  # (N, 1)
    single: bool

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def float32(self, begin: int, end: int) -> Array:
        """Tokens of a run, scaled, C-contiguous and finite."""
        x = arrays.to_float32(self.tokens[begin:end], "tokens", begin)
        if self.scales is None:
            return x
        with np.errstate(over="ignore"):
            return arrays.to_float32(x * self.scales[begin:end], "scaled tokens", begin)


def panels_of(gaussians: Array) -> Array:
    """Columns (R, k, d) as float32 panels (panels, d, 16), the last column of each repetition first; zeros at the end.

    A sign bit then is at its place in the integer that it belongs to.
    """
    return packed(gaussians[:, ::-1].reshape(-1, gaussians.shape[2]).T)


def to_float16(rows: Array, first: int) -> Array:
    """float32 rows as float16; ValueError if a finite value became Inf."""
    bits = np.empty(rows.shape, np.uint16)
    backends.current().narrow_f16(rows.ravel(), bits.ravel())
    beyond = (bits & 0x7FFF) == 0x7C00
    if beyond.any():
        at, column = divmod(int(beyond.argmax()), rows.shape[1])
        raise ValueError(
            f"encoding {first + at} holds {rows[at, column]}, beyond the range of float16; use dtype='float32' or "
            "smaller tokens"
        )
    return bits.view(np.float16)


def describe(value: Any) -> str:
    """Type and shape of an argument, for a message."""
    if not isinstance(value, np.ndarray):
        return type(value).__name__
    return f"{'' if value.flags.writeable else 'read-only '}{value.dtype} {value.shape}"
